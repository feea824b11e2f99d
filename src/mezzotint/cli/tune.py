"""``mezzotint tune``: how long a bundle's engine calls take on this host, kept for its server."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mezzotint.engines.manifest import Manifest
    from mezzotint.engines.tune import Tuned

_WORTH = 1.05


class PictureSize(click.ParamType[tuple[int, int]]):
    """A picture's width and height in pixels."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return width and height; fails with one sentence."""
        width, by, height = str(value).partition("x")
        if not (by and width.isdecimal() and height.isdecimal()):
            self.fail(f"{value!r} is no picture size; write 512x768, the width first", param, ctx)
        return int(width), int(height)


PICTURE_SIZE = PictureSize()


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--device",
    default="",
    metavar="D|COMPONENT=D,…",
    help="As for `mezzotint serve`: curves are kept by device. [default: what the bundle was built for]",
)
@click.option(
    "--num-threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="As for `mezzotint serve`: curves are kept by threads. 0 is all that this process may keep busy.",
)
@click.option(
    "--size",
    "sizes",
    type=PICTURE_SIZE,
    multiple=True,
    metavar="WIDTHxHEIGHT",
    help="A picture size to measure at; may be given several times. Name those that are asked for most: others are "
    "taken from the nearest one by their area, while a large picture gains less from sharing calls than a small one. "
    "[default: the bundle's own]",
)
def command(bundle: Path, device: str, num_threads: int, sizes: tuple[tuple[int, int], ...]) -> None:
    """Measure how long BUNDLE's engine calls take on this machine, by rows, and keep that for its server.

    A server then prepares the row counts that gain something here, batches that many rows, and foresees when pictures
    are done. Without it, it begins with what the compiling machine measured, and learns between requests. Worth a
    minute or two where a bundle was compiled elsewhere; do it while nothing else runs.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from mezzotint.engines.bundle import LoadOptions, parse_devices
    from mezzotint.engines.manifest import read_manifest
    from mezzotint.engines.tune import tune

    console = Console(highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal
    ) as progress:
        bar = progress.add_task("measuring", total=None)
        options = LoadOptions(parse_devices(device), num_threads)
        found = tune(bundle, options, lambda what: progress.update(bar, description=f"measuring {what}"), sizes)
    console.print(_table(found, read_manifest(bundle)))
    for line in _advice(found):
        click.echo(line)


def _table(found: "Tuned", manifest: "Manifest") -> Table:
    from mezzotint.engines.prepared import row_counts
    from mezzotint.engines.tune import pixels_text
    from mezzotint.engines.variants import title

    table = Table()
    words = ("engine", "pictures", "")
    for heading in ("engine", "pictures", "rows", "ms a call", "ms a row", ""):
        table.add_column(heading, justify="left" if heading in words else "right")
    for key, curves in found.curves.items():
        for size, curve in curves.items():
            shared = row_counts(found.entries[key], curve)
            for rows, ms in curve.items():
                served = "served" if rows in shared else ""
                pixels = pixels_text(size, manifest)
                table.add_row(title(*key), pixels, str(rows), f"{ms:.2f}", f"{ms / rows:.2f}", served)
    return table


def _advice(found: "Tuned") -> list[str]:
    one, two = found.rows_a_second[1], found.rows_a_second.get(2)
    if two is None:
        return [f"unet: {one:.1f} rows a second; one core has no halves to give to a second instance"]
    ratio = two / one
    advice = "serve with `--instances 2`" if ratio > _WORTH else "one instance is best"
    return [f"unet: {one:.1f} rows a second in one instance, {two:.1f} in two of half the threads each: {advice}"]
