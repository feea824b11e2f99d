"""The ``mezzotint`` command: one file per subcommand, each imported when it is first asked for.

A command's module imports click and rich at most; what it runs is imported inside the command, so that ``--help``
loads no engine, no gRPC and no torch. Every intended error leaves as one sentence and an exit code (``errors.py``).
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence

import click

from mezzotint.cli.errors import NOT_INSTALLED, run, say

_COMMANDS = {
    "train": "train",
    "compile": "compile",
    "build": "tensorrt",
    "tune": "serve",
    "evaluate": "train",
    "capacity": "serve",
    "serve": "serve",
    "deploy-ray": "ray",
    "export-triton": "serve",
    "generate": "",
    "models": "",
    "inspect": "serve",
    "health": "",
    "top": "serve",
    "token": "serve",
    "demo": "serve",
}
"""The commands, and the extra that has what each imports."""


class _OnDemand(click.Group):
    """A group whose subcommands are modules beside this one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"mezzotint.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        for param in command.params:
            param.envvar = param.envvar or _variable(cmd_name, param)
        return command


def _variable(command: str, param: click.Parameter) -> str | None:
    """Return the environment variable of an option, by the name that it has on the command line."""
    if isinstance(param, click.Option) and not param.allow_from_autoenv:
        return None
    name = next((opt for opt in param.opts if opt.startswith("--")), None)
    return f"MEZZOTINT_{command}_{name[2:]}".upper().replace("-", "_") if name else None


@click.command(
    cls=_OnDemand,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": "MEZZOTINT",
    },
)
@click.version_option(package_name="mezzotint", message="%(prog)s %(version)s")
def cli() -> None:
    """Compile Stable Diffusion once, print pictures fast.

    Compile a checkpoint into a bundle, serve bundles over gRPC, and generate pictures from a server.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; ``arguments`` is the process's own by default."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = run(cli, given)
    except ModuleNotFoundError as error:
        extra = next((_COMMANDS[word] for word in given if word in _COMMANDS), "")
        if not extra or not error.name or importlib.util.find_spec(error.name.partition(".")[0]):
            raise  # what is there and lacks a part is another fault
        code = say(f"{error.name} is not installed; run `pip install 'mezzotint[{extra}]'`", NOT_INSTALLED)
    sys.exit(code)
