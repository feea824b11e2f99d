"""The options of ``mezzotint train``, made from the fields of its configuration: a new field is an option at once."""

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_SHORT = {
    "instance_data_dir": ("--instance-data",),
    "class_data_dir": ("--class-data",),
    "output_dir": ("--output", "-o"),
}
_NO_OPTIONS = ("concepts", "instance_grounds", "pretrained_model_name_or_path")


def train_options() -> list[click.Option]:
    """Return an option for each field that one can say in a word; one that is not given has no value."""
    from mezzotint.trainer.config import TrainConfig

    return [_option(name, field) for name, field in TrainConfig.model_fields.items() if name not in _NO_OPTIONS]


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that have a value, as the configuration takes them."""
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _option(name: str, field: "FieldInfo") -> click.Option:
    dashed = f"--{name.replace('_', '-')}"
    kind, several = _kind(field.annotation)
    if kind is bool:
        dashed, kind = f"{dashed}/--no-{dashed.removeprefix('--')}", None
    text = str(field.description)
    if "[default" not in text and field.default not in (None, "", (), False):
        text = f"{text} [default: {field.default}]"
    short = _SHORT.get(name, ())
    variables = [f"MEZZOTINT_TRAIN_{word[2:].upper().replace('-', '_')}" for word in short if word.startswith("--")]
    return click.Option(
        [*short, dashed, name], type=kind, multiple=several, default=None, help=text, envvar=variables or None
    )


def _kind(annotation: Any) -> tuple[Any, bool]:
    """Return click's type for a field's, and whether it may be given several times."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (UnionType, Union):
        kinds = [part for part in parts if part is not type(None)]
        return (str, False) if len(kinds) > 1 else _kind(kinds[0])
    if origin is Literal:
        return click.Choice(parts), False
    if origin is tuple:
        return _kind(parts[0])[0], True
    if hasattr(annotation, "__metadata__"):
        return _kind(annotation.__origin__)
    return (click.Path(path_type=Path) if annotation is Path else annotation), False
