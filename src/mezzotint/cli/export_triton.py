"""``mezzotint export-triton``: a bundle as a model repository of NVIDIA's Triton Inference Server."""

from pathlib import Path

import click

from mezzotint.cli.embedding_options import embedding_option

_EPILOG = """\b
Examples:
  mezzotint export-triton build/emoji --repository repo
  tritonserver --model-repository repo
"""


@click.command(epilog=_EPILOG)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="The model repository to add to. A model that is there already is left alone, and nothing is written.",
)
@click.option(
    "--components",
    type=click.Choice(["inside", "python", "native"]),
    default="inside",
    show_default=True,
    help="What runs the engines: inside is the streaming model itself, the fastest; python is a model for each, run by "
    "our backends; native is a model for each, run by Triton's own (tensorrt, onnxruntime, openvino). The last two are "
    "for engines that other models or servers call too.",
)
@click.option(
    "--link",
    is_flag=True,
    help="Link to the bundle's files where they are and copy none. It saves disk where Triton runs on this machine; a "
    "container does not see through it.",
)
@click.option(
    "--remote-bundle",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FOLDER",
    help="Also write a bundle whose engines are these components, for `mezzotint serve` on a machine without them. "
    "Needs --components python or native, and the extra `triton` where it is served.",
)
@click.option(
    "--url",
    default="localhost:8001",
    show_default=True,
    help="Where that bundle looks for Triton's gRPC port, as HOST:PORT or grpcs://HOST:PORT for TLS; `serve --device` "
    "names another.",
)
@click.option(
    "--call-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that a call of a component may take; it fails then, and its pictures with it.",
)
@embedding_option
@click.option(
    "--device",
    default="",
    metavar="D|COMPONENT=D,…",
    help="Where the engines run, as for `serve`. [default: what the bundle was built for]",
)
@click.option(
    "--num-threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="CPU threads of one engine call; 0 is all that the model's process may keep busy. Set it where other models "
    "share the machine.",
)
@click.option(
    "--max-queue-size",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Pictures that may wait; more are refused at once.",
)
@click.option(
    "--policy", default="log-boost", show_default=True, metavar="NAME", help="Who goes first, as for `serve`."
)
@click.option(
    "--on-flagged",
    type=click.Choice(["mark", "blur", "refuse"]),
    default="mark",
    show_default=True,
    help="What becomes of pictures that a safety checker flags, as for `serve`.",
)
def command(
    bundle: Path,
    repository: Path,
    components: str,
    link: bool,
    remote_bundle: Path | None,
    url: str,
    call_timeout: float,
    embeddings: tuple[str, ...],
    **settings: str | int,
) -> None:
    """Write BUNDLE as models of a Triton model repository.

    NAME_stream answers steps and then pictures and holds the scheduler, so that all of Triton's concurrent requests
    share denoising steps; NAME answers all pictures of a request at once. Their config.pbtxt may be edited: its
    parameters are the options below.
    """
    from mezzotint.engines.embedding_file import parse_embedding_path
    from mezzotint.server.triton.export import Components, ExportOptions, export, write_remote_bundle
    from mezzotint.server.triton.settings import Settings

    if remote_bundle is not None and components == Components.INSIDE:
        raise click.UsageError("`--remote-bundle` needs `--components python` or `native`: it calls them.")
    given = Settings(**settings)  # type: ignore[arg-type]
    _ = given.load, given.core  # what is wrong with them is said now
    words = tuple(map(parse_embedding_path, embeddings))
    options = ExportOptions(given, Components(components), link, call_timeout, words)
    for name in export(bundle, repository, options):
        click.echo(f"{repository / name}")
    if remote_bundle is not None:
        write_remote_bundle(bundle, remote_bundle, url, options)
        click.echo(f"{remote_bundle}")
