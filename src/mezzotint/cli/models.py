"""``mezzotint models``: what a running server serves; loads, swaps and unloads bundles. Imports the client alone."""

from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli.access_options import client_options, security
from mezzotint.cli.errors import Refused

if TYPE_CHECKING:
    from mezzotint.proto.client import Client
    from mezzotint.proto.results import ModelInfo

_DIGITS = 12
_EPILOG = """\b
Examples:
  mezzotint models
  mezzotint models load emoji-2 --server localhost:8001
  mezzotint models unload emoji
"""


@click.command(epilog=_EPILOG)
@click.argument("action", type=click.Choice(["list", "load", "unload"]), default="list")
@click.argument("name", default="")
@click.option("--server", default="localhost:8001", show_default=True, help="The server's HOST:PORT.")
@client_options
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait; what was asked for is done all the same. [default: until it is done]",
)
def command(action: str, name: str, server: str, timeout: float | None, **options: Any) -> None:
    """Show the models of a running server, load one, or unload it.

    `load` takes the name of a folder in the server's `--model-repository`. Where a model of its bundle's name is served
    the new version is loaded beside it and takes its place; no request is lost. `unload` lets a model finish what
    it has accepted, and gives its memory back.
    """
    from mezzotint.proto.client import Client
    from mezzotint.proto.errors import MezzotintClientError

    if (action == "list") != (not name):
        raise click.UsageError("`list` takes no NAME." if name else f"`{action}` needs a NAME.")
    try:
        with Client(server, timeout=timeout, **security(options)) as client:
            _DO[action](client, name)
    except MezzotintClientError as error:
        raise Refused(error.message, error.code.name) from None


def _list(client: "Client", _: str) -> None:
    from rich.console import Console
    from rich.table import Table

    models = client.models()
    if not models:
        click.echo("no model is served; load one with `mezzotint models load NAME`")
        return
    table = Table("model", "version", "state", "pictures", "engines", box=None, pad_edge=False)
    for model in models:
        table.add_row(model.name, model.digest[:_DIGITS], model.state, _sizes(model), _precisions(model))
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    for model in models:
        if model.reason:
            console.print(f"{model.name}: {model.reason}", soft_wrap=True)


def _load(client: "Client", name: str) -> None:
    loaded = client.load_model(name)
    version, replaced = loaded.model.digest[:_DIGITS], loaded.replaced_digest[:_DIGITS]
    click.echo(f"{loaded.model.name}: version {version} is served" + (f", in place of {replaced}" if replaced else ""))


def _unload(client: "Client", name: str) -> None:
    client.unload_model(name)
    click.echo(f"{name}: unloaded; it finished what it had accepted")


_DO = {"list": _list, "load": _load, "unload": _unload}


def _sizes(model: "ModelInfo") -> str:
    return f"{model.width.default}x{model.height.default}" if model.width.default else ""


def _precisions(model: "ModelInfo") -> str:
    return ", ".join(dict.fromkeys(f"{engine.precision} {engine.backend}" for engine in model.engines))
