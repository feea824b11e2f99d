"""The options of an initial picture: its file, how much becomes of it, and a mask of what is drawn anew."""

from pathlib import Path

import click

from mezzotint.cli.option_group import option_group
from mezzotint.engines.errors import InvalidRequest

_FILE = click.Path(dir_okay=False, path_type=Path)


def _read(ctx: click.Context, param: click.Parameter, path: Path | None) -> bytes:
    try:
        return b"" if path is None else path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"{param.human_readable_name}: {path} cannot be read ({reason})") from None


start_options = option_group(
    click.option(
        "--image",
        type=_FILE,
        callback=_read,
        metavar="FILE",
        help="Begin with this PNG, JPEG or WebP picture instead of noise, to draw something of its shapes and colours. "
        "The bundle needs a vae_encoder.",
    ),
    click.option(
        "--strength",
        type=float,
        help="How much becomes of it, 0 to 1: the share of the steps that are made. 0.3 changes details, 0.8 keeps "
        "little more than the composition. [default: 0.8]",
    ),
    click.option(
        "--mask",
        type=_FILE,
        callback=_read,
        metavar="FILE",
        help="Draw anew what is white in this file, of the size of --image, and give the rest back as it was.",
    ),
    click.option(
        "--mask-blur",
        type=float,
        default=0.0,
        show_default=True,
        help="Feather the mask's edge by so many pixels, so that no seam shows; 4 is usual.",
    ),
    click.option(
        "--resize-mode",
        default="",
        help="For an image of another size than the picture's: stretch; crop, which cuts what is over; or fill, which "
        "repeats its edges. [default: stretch]",
    ),
)
"""Adds what a picture begins with: ``image``, ``strength``, ``mask``, ``mask_blur`` and ``resize_mode``."""
