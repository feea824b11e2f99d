"""``mezzotint generate``: asks a server for pictures and writes them to files. Imports the client alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli.access_options import client_options, security
from mezzotint.cli.arrays import array_options
from mezzotint.cli.errors import CannotWrite, Refused
from mezzotint.cli.files import Files, write_file
from mezzotint.cli.hires_options import hires_options
from mezzotint.cli.seed_options import seed_options
from mezzotint.cli.start_options import start_options
from mezzotint.engines.errors import InvalidRequest

if TYPE_CHECKING:
    from mezzotint.proto.client import Client
    from mezzotint.proto.messages import Options
    from mezzotint.proto.results import Picture

_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_EPILOG = """\b
Examples:
  mezzotint generate "a shark on a blue background" --steps 25 --guidance 4 --seed 7 -o shark.png
  mezzotint generate "a cat face" --sampler "DPM++ 2M Karras" --num-images 4 -o cat.webp
  mezzotint generate "a dog face" --image cat.webp --strength 0.6 -o dog.png
"""


def _text(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse what the shell handed over as bytes that are no text."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"{param.human_readable_name}={value!r}: is not valid UTF-8; write it in a UTF-8 terminal"
        ) from None
    return value


def _evaluations(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(",")) if value else ()
    except ValueError:
        raise InvalidRequest(
            f"{param.human_readable_name}={value!r}: must be evaluations between commas; such as 0,3,7"
        ) from None


@click.command(epilog=_EPILOG)
@click.argument("prompt", callback=_text)
@click.option("--server", default="localhost:8001", show_default=True, callback=_text, help="The server's HOST:PORT.")
@client_options
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="picture.png",
    show_default=True,
    help="The picture's file; its suffix is the format. Several pictures become NAME-0.png, NAME-1.png, …",
)
@click.option(
    "--steps",
    type=int,
    default=25,
    show_default=True,
    help="Denoising steps. More take longer and add detail; most samplers are done by 30.",
)
@click.option(
    "--guidance",
    type=float,
    default=7.5,
    show_default=True,
    help="How closely to follow the prompt (A1111's CFG scale); 1 or less is not guided, and twice as fast.",
)
@click.option(
    "--guidance-start",
    type=float,
    default=0.0,
    show_default=True,
    help="Guide only from this share of the steps on; a step without guidance takes about half the time.",
)
@click.option(
    "--guidance-end",
    type=float,
    default=1.0,
    show_default=True,
    help="Guide only up to this share of the steps; the middle of a picture's steps is what guidance is needed for.",
)
@click.option(
    "--guidance-rescale",
    type=float,
    default=0.0,
    show_default=True,
    help="Give guided outputs this share of the conditional one's spread back, 0 to 1: 0.7 keeps pictures of strong "
    "guidance, or of models with zero terminal SNR, from too much contrast.",
)
@click.option(
    "--cache-interval",
    type=int,
    default=1,
    show_default=True,
    help="Run the whole UNet at every n-th evaluation and only its outer branch between: faster, a little less exact. "
    "1 is off; others need a bundle that was compiled with --step-cache.",
)
@click.option(
    "--cache-schedule",
    default="",
    callback=_evaluations,
    help="The evaluations that run the whole UNet, instead of an interval: 0,1,2,5,10. The first always does.",
)
@click.option(
    "--decoder",
    default="",
    callback=_text,
    help="full, or tiny where the bundle has one: much faster, with less fine detail. [default: full]",
)
@click.option(
    "--clip-skip",
    type=int,
    default=0,
    show_default=True,
    help="Use an earlier layer of the text encoder, counted from the end as in A1111: 2, the last but one, is what "
    "some models were trained with, as their cards say. 0 and 1 are the last.",
)
@seed_options
@click.option("--negative-prompt", default="", callback=_text, help="What the picture should not show.")
@click.option(
    "--sampler",
    default="",
    callback=_text,
    help="dpmpp_2m is good in 20 steps, euler_a and dpmpp_2m_sde add fresh noise, lcm and tcd are for models distilled "
    "to few steps; any name of docs/samplers.md, or the one in diffusers or A1111. [default: the checkpoint's]",
)
@click.option(
    "--sigmas",
    default="",
    callback=_text,
    help="Noise levels: default, as trained; karras, which often looks better in few steps; exponential, beta; or "
    "automatic, what A1111 gives the sampler. [default: what the sampler's name says]",
)
@click.option(
    "--spacing", default="", callback=_text, help="leading, trailing or linspace. [default: the checkpoint's]"
)
@click.option("--eta", type=float, default=0.0, show_default=True, help="Fresh noise of ddim and tcd, 0 to 1.")
@start_options
@array_options
@click.option("--width", type=int, help="Pixels; the bundle must have been built for it. [default: the bundle's]")
@click.option("--height", type=int, help="Pixels, likewise. [default: the bundle's]")
@hires_options
@click.option("--model", default="", callback=_text, help="The bundle's name, where the server serves several of them.")
@click.option(
    "--priority",
    type=int,
    default=0,
    show_default=True,
    help="1 goes first whatever else waits, larger numbers later; 0 is the server's middle level.",
)
@click.option(
    "--preview-every",
    type=int,
    default=0,
    show_default=True,
    help="After every so many steps, write NAME.preview.jpg, small, to see early what becomes of it; 0 is never.",
)
@click.option(
    "--format", "image_format", type=click.Choice(["png", "jpeg", "webp"]), help="For a file whose suffix says none."
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds until the server gives it up.")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How often to send the request again, under the same seed, where the server is away, is lost while it paints, "
    "or says when it has room. Set it where servers are restarted or busy.",
)
def command(
    prompt: str,
    server: str,
    output: Path,
    image_format: str | None,
    timeout: float | None,
    retries: int,
    latents_out: Path | None,
    **options: Any,
) -> None:
    """Draw pictures of PROMPT with a running server, and write them with their parameters inside.

    PROMPT may weigh words, (word:1.3), change with the steps, [from:to:0.5], and be long: docs/prompts.md.
    """
    from mezzotint.proto.client import Client
    from mezzotint.proto.errors import MezzotintClientError

    known_by = security(options)
    num_images = int(options["num_images"])
    source = click.get_current_context().get_parameter_source("steps")
    if options["custom_sigmas"] and source is click.core.ParameterSource.DEFAULT:
        options["steps"] = len(options["custom_sigmas"])
    request: Options = {**options, "image_format": _format(output, image_format)}  # type: ignore[typeddict-item]
    request["return_latents"] = latents_out is not None
    if not output.absolute().parent.is_dir():
        raise CannotWrite(output, FileNotFoundError(2, "its folder does not exist"))
    try:
        with Client(server, retries=retries, **known_by) as client:
            _paint(client, prompt, timeout, request, Files(output, latents_out, num_images))
    except MezzotintClientError as error:
        raise Refused(error.message, error.code.name) from None


def _paint(client: "Client", prompt: str, timeout: float | None, request: "Options", files: Files) -> None:
    """Follow one request: a bar, previews, and each picture's file as soon as it is there."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mezzotint.proto import results

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    done: dict[int, int] = {}
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task("waiting", total=None)
        for event in client.stream(prompt, timeout=timeout, **request):
            match event:
                case results.Accepted():
                    for warning in event.warnings:
                        console.print(f"warning: {warning}", markup=False)
                    wait = f"waiting, begins in {event.start_in_ms / 1e3:.1f} s" if event.start_in_ms else "waiting"
                    progress.update(bar, description=wait, total=event.steps * len(event.seeds))
                case results.Progress():
                    done[event.image_index] = event.step
                    left = "" if event.finish_in_ms is None else f", {event.finish_in_ms / 1e3:.1f} s left"
                    progress.update(bar, description=f"painting{left}", completed=sum(done.values()))
                    if event.preview:
                        write_file(files.preview(event.image_index), event.preview)
                case results.Picture():
                    click.echo(_said(files.write(event), event))


def _format(output: Path, asked: str | None) -> str:
    named = _FORMATS.get(output.suffix.lower())
    if named is None and asked is None:
        raise click.UsageError(
            f"{click.format_filename(output)}: its suffix must be one of {', '.join(_FORMATS)}; or say `--format`"
        )
    if named is not None and asked is not None and named != asked:
        raise click.UsageError(f"{click.format_filename(output)}: is named {named}, but `--format` says {asked}")
    return asked or str(named)


def _said(path: Path, picture: "Picture") -> str:
    spent = picture.timings
    flagged = "flagged by the safety checker, " if picture.flagged else ""
    return (
        f"{click.format_filename(path)}: {picture.width}x{picture.height}, seed {picture.seed}, {flagged}"
        f"{spent.total_ms:.0f} ms (queue {spent.queue_ms:.0f}, encode {spent.encode_ms:.0f}, "
        f"denoise {spent.denoise_ms:.0f}, decode {spent.decode_ms:.0f})"
    )
