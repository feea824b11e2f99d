"""``--config FILE`` and ``--print-config`` for any command: a YAML file whose keys are the names of its options.

The command line goes before the environment, that before the file, and the file before the defaults. Knows a command by
its click parameters alone, so that an option that is added later is a key of the file at once.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

_PRINT = "mezzotint.print_config"


class ConfigError(click.ClickException):
    """A configuration file cannot be used; one sentence names the file and all that is wrong with it."""

    exit_code = 2


class ConfigurableCommand(click.Command):
    """A command whose parameters may also stand in a YAML file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(
                ["--config"],
                type=click.Path(path_type=Path),
                metavar="FILE",
                is_eager=True,  # before the options whose values it has
                expose_value=False,
                callback=_use,
                help="A YAML file with values of these options, for servers that are set up once and started often. "
                "Keys are the options' names; the command line and the environment go before it.",
            ),
            click.Option(
                ["--print-config"],
                is_flag=True,
                expose_value=False,
                allow_from_autoenv=False,
                callback=_note,
                help="Print what the options add up to, as a file for --config, and do nothing else.",
            ),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or print its configuration."""
        if not ctx.meta.get(_PRINT):
            return super().invoke(ctx)
        click.echo(dump(self, ctx.params), nl=False)
        return None


def read_config(path: Path, command: click.Command, ctx: click.Context) -> dict[str, Any]:
    """Return a file's values by parameter name. Raises ConfigError, which names every problem at once."""
    params = {key: param for param in _settings(command) for key in _keys(param)}
    found: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in _pairs(path):
        param = params.get(str(key).replace("_", "-"))
        if param is None:
            problems.append(f"{key}: is no option of {ctx.command_path}{_meant(str(key), params)}")
        elif param.name in found:
            problems.append(f"{key}: is given twice")
        else:
            several = param.multiple and value is not None and not isinstance(value, list)  # one of them needs no list
            value = found[str(param.name)] = [value] if several else value
            problems += (f"{key}: {problem}" for problem in _problems(param, value, ctx))
    if problems:
        raise ConfigError(f"{click.format_filename(path)}: {'; '.join(problems)}")
    return {name: value for name, value in found.items() if value is not None}


def dump(command: click.Command, values: Mapping[str, Any]) -> str:
    """Return a command's values as YAML that ``read_config`` reads; what has no value is left out."""
    import yaml

    chosen = {_keys(param)[0]: _plain(values.get(str(param.name))) for param in _settings(command)}
    given = {key: value for key, value in chosen.items() if value is not None}
    return str(yaml.safe_dump(given, sort_keys=False, allow_unicode=True))


def _use(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.default_map = {**(ctx.default_map or {}), **read_config(path, ctx.command, ctx)}


def _note(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    ctx.meta[_PRINT] = wanted


def _settings(command: click.Command) -> Iterator[click.Parameter]:
    """Yield the parameters that are values of the command, in the order of its help."""
    return (param for param in command.params if param.expose_value)


def _keys(param: click.Parameter) -> tuple[str, ...]:
    """Return how a file may call a parameter, the longest of its options first; ``_`` stands for ``-`` everywhere."""
    options = sorted((option.lstrip("-") for option in param.opts), key=len, reverse=True)
    return tuple(name.replace("_", "-") for name in (*options, str(param.name)))


def _pairs(path: Path) -> list[tuple[Any, Any]]:
    """Return a YAML mapping's pairs; a dict would lose those that are given twice. Raises ConfigError."""
    import yaml

    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{click.format_filename(path)}: must be a mapping, `option: value` on each line")
        return [tuple(loader.construct_object(part, deep=True) for part in pair) for pair in node.value]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{click.format_filename(path)}: cannot be read ({reason}); check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{click.format_filename(path)}: is not YAML in UTF-8 ({reason}); mend it") from None


def _problems(param: click.Parameter, value: Any, ctx: click.Context) -> Iterator[str]:
    """Yield what is wrong with a parameter's value."""
    if value is None and param.default is None:
        return  # as --print-config leaves it out
    if param.nargs == 1 and not param.multiple:
        yield from _problems_of_one(param, value, ctx)
    elif not isinstance(value, list):
        yield f"must be a list, not {_shown(value)}"
    else:
        for item in value:
            yield from _problems_of_one(param, item, ctx)


def _problems_of_one(param: click.Parameter, value: Any, ctx: click.Context) -> Iterator[str]:
    words, kinds = _expected(param)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        yield f"must be {words}, not {_shown(value)}"
        return
    try:
        param.type(value, param, ctx)
    except click.BadParameter as error:
        yield error.message.rstrip(".")


def _expected(param: click.Parameter) -> tuple[str, tuple[type, ...]]:
    """Return what a parameter's value must be in YAML, in words and as types; an own type reads text and numbers."""
    match param.type:
        case click.types.BoolParamType():
            return "true or false", (bool,)
        case click.types.IntParamType():
            return "a whole number", (int,)
        case click.types.FloatParamType():
            return "a number", (int, float)
        case click.types.StringParamType() | click.Choice() | click.Path():
            return "text (in quotes where it looks like something else)", (str,)
        case _:
            return "text or a number", (str, int, float)


def _meant(key: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(value: Any) -> str:
    kind = {bool: "true or false", dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value))
    return kind or repr(value)


def _plain(value: Any) -> Any:
    """Return a parameter's value as YAML has it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
