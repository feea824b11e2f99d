"""Writes docs/reference.md, every command with its options: ``python -m tests.reference``, or ``make reference``."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from mezzotint.cli import cli

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
_HEAD = """# Every command and option

Written by `make reference` from what `mezzotint COMMAND --help` says. [The command line](cli.md) has what they have in
common: environment variables, the configuration file, exit codes.
"""


def page() -> str:
    """Return the page's text."""
    context = click.Context(cli, info_name="mezzotint")
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    shown = {name: command for name, command in commands.items() if command and not command.hidden}
    return "\n".join([_HEAD, *(line for name, command in shown.items() for line in _lines(name, command))])


def _lines(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"mezzotint {name}")
    yield f"## {name}"
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n"
    yield from (f"{_one_line(paragraph)}\n" for paragraph in (command.help or "").split("\n\n"))
    options = [param.get_help_record(context) for param in command.params if isinstance(param, click.Option)]
    if any(options):
        yield "| option | says |"
        yield "| --- | --- |"
        yield from (f"| `{_cell(names)}` | {_cell(says)} |" for names, says in filter(None, options))
        yield ""
    examples = (command.epilog or "").replace("\b", "").strip().splitlines()[1:]
    yield from (f"    {line.strip()}" for line in examples)
    yield from [""] * bool(examples)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("\b", "")).strip()


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
