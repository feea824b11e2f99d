"""``mezzotint capacity``: how many replicas a load needs, from the step times that were measured here."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mezzotint.server.capacity import Host, Kind

_MORE = 2  # rows of the table on either side of the answer


class KindType(click.ParamType["Kind"]):
    """A number of steps, or one with its share of the pictures: STEPS or STEPS:SHARE."""

    name = "kind"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> "Kind":
        """Return a kind of pictures; fails with one sentence."""
        from mezzotint.server.capacity import Kind

        steps, _, share = str(value).partition(":")
        try:
            kind = Kind(int(steps), float(share or 1))
        except ValueError:
            kind = Kind(0)
        if kind.steps < 1 or not 0 < kind.share < float("inf"):
            self.fail(f"{value}: must be STEPS or STEPS:SHARE, both above 0, such as 25 or 8:0.7", param, ctx)
        return kind


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--rate",
    required=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Pictures a second that are asked for, at the busiest time that has to go well.",
)
@click.option(
    "--p99",
    required=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long 99 of 100 pictures may take at most, from request to picture.",
)
@click.option(
    "--steps",
    "kinds",
    type=KindType(),
    multiple=True,
    default=("25",),
    show_default=True,
    metavar="STEPS[:SHARE]",
    help="Denoising steps of a picture. Say it several times, with shares, where pictures differ: --steps 8:0.7 "
    "--steps 25:0.3. Long pictures among short ones need more room.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="UNet rows of a picture in a call: 2 with guidance, 1 without.",
)
@click.option("--device", default="", metavar="D|COMPONENT=D,…", help="As for `mezzotint tune`, whose curves are read.")
@click.option(
    "--num-threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="As for `mezzotint tune`: the CPU threads that each replica will have.",
)
def command(
    bundle: Path,
    rate: float,
    p99: float,
    kinds: "tuple[Kind, ...]",
    rows: int,
    device: str,
    num_threads: int,
) -> None:
    """Say how many replicas of BUNDLE a load needs, and how long its pictures will take.

    From the step times that `mezzotint tune` measured on this machine, else those of the machine that compiled: run it
    where the replicas will run. Before you buy or rent machines; docs/scale.md says how far it is right.
    """
    from mezzotint.engines.bundle import LoadOptions, parse_devices, wanted_engines
    from mezzotint.server.capacity import host_of, predict, replicas_for

    wanted = wanted_engines(bundle, LoadOptions(parse_devices(device), num_threads))
    host = host_of({key: engine.entry for key, engine in wanted.items()}, rows)
    found = replicas_for(host, kinds, rate, p99)
    if found is None:
        alone = max(host.picture_seconds(kind.steps) for kind in kinds)
        raise click.ClickException(
            f"--p99 {p99:g}: no number of replicas is enough, since a picture takes {alone:.3g} s on an idle one; "
            "ask for fewer steps, or for a faster device"
        )
    counts = range(max(1, found - _MORE), found + _MORE + 1)
    table = Table()
    for heading in ("replicas", "busy", "mean s", "p99 s", ""):
        table.add_column(heading, justify="right")
    for count in counts:
        load = predict(host, kinds, rate, count)
        enough = "enough" if count == found else ""
        table.add_row(str(count), f"{load.utilisation:.0%}", _seconds(load.mean), _seconds(load.p99), enough)
    Console(highlight=False).print(table)
    click.echo(_summary(host, kinds))


def _seconds(seconds: float) -> str:
    return "too much" if seconds == float("inf") else f"{seconds:.3g}"


def _summary(host: "Host", kinds: "tuple[Kind, ...]") -> str:
    steps = sum(kind.share * kind.steps for kind in kinds) / sum(kind.share for kind in kinds)
    return (
        f"one replica: {host.pictures_a_second(steps):.3g} pictures a second at the most, {host.images_a_call} a call; "
        f"{host.picture_seconds(steps):.3g} s for one alone"
    )
