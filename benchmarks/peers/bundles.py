"""Mezzotint's own rows, as ``--bundle NAME=FOLDER[,FIELD=VALUE…]`` states them: any field of a request."""

import ast
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from benchmarks.peers.catalog import MEZZOTINT, Configuration
from mezzotint.engines.request import Request

_EXAMPLE = "int8=build/sd15-int8,cache_interval=3"
_STATED = ("prompt", "negative_prompt", "steps", "guidance", "seed", "sampler", "height", "width", "num_images")


def read_bundle(text: str) -> Configuration:
    """Return the configuration that ``text`` states. Raises ArgumentTypeError, in one sentence."""
    place, *fields = text.split(",")
    name, _, folder = place.partition("=")
    if not name or not folder:
        raise ArgumentTypeError(f"bundle {text!r}: must be NAME=FOLDER and then FIELD=VALUE, such as {_EXAMPLE}")
    settings = dict(_read_field(text, part) for part in fields)
    known = [field for field in Request.__dataclass_fields__ if field not in _STATED]
    for key in settings:
        if key not in known:
            raise ArgumentTypeError(f"bundle {text!r}: {key!r} cannot be stated for one row; use {', '.join(known)}")
    row = ", ".join([name, *(f"{key} {value}" for key, value in settings.items())])
    return Configuration(f"Mezzotint: {row}", MEZZOTINT, "mezzotint_bundle", settings=settings, bundle=Path(folder))


def _read_field(text: str, part: str) -> tuple[str, Any]:
    key, equals, value = part.partition("=")
    if not equals:
        raise ArgumentTypeError(f"bundle {text!r}: {part!r} is no FIELD=VALUE, such as {_EXAMPLE}")
    try:
        # ``0:5:10`` is a tuple: the comma ends a field
        return key, tuple(map(int, value.split(":"))) if ":" in value else ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
