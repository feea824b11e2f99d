"""The option of textual-inversion files, for commands that load bundles."""

from collections.abc import Callable
from typing import Any

import click


def embedding_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``embedding`` to a command: texts that ``engines.embedding_file.parse_embedding_path`` reads."""
    return click.option(
        "--embedding",
        "embeddings",
        multiple=True,
        metavar="[NAME=]FILE|FOLDER",
        help="A textual-inversion file (.safetensors, or A1111's and diffusers' .pt and .bin), or a folder of them: "
        "where a prompt has its name, its vectors are read instead. May be given several times; NAME is another name. "
        "Read whenever a bundle is loaded, and nothing is compiled anew.",
    )(command)
