"""A picture of what requests can ask for, painted by the demo model: ``docs/options.png``.

    python -m benchmarks.options build/emoji-large

The bundle is one of the emoji model for 64 to 128 pixels, `compile models/emoji --height 64:64:128 --width 64:64:128`.
Each row has one option, from left to right as its labels say; all else stays, the seed too.
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.generate import generate
from mezzotint.engines.hires import Hires
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.start import Start
from mezzotint.engines.variation import Variation

_SIDE, _TITLE, _GAP = 128, 34, 6  # pixels
_COLUMNS = 6
PLAIN = Request(prompt="a cat face on a blue background", steps=25, guidance=4.0, seed=3, sampler="ddim")


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture and what was asked for, in one or two lines."""

    title: str
    request: Request


def rows(first: bytes, mask: bytes) -> list[list[Cell]]:
    """Return what is asked for, given a picture to begin with and a mask of its top."""

    def asked(title: str, **values: object) -> Cell:
        return Cell(title, replace(PLAIN, **values))  # type: ignore[arg-type]

    shark = "a shark on a red background"
    fox = {"prompt": "a fox face on a blue background", "seed": 5}
    prompts = [
        ("(red:1.6) apple", "a (red:1.6) apple"),
        ("(red:0.2) apple", "a (red:0.2) apple"),
        ("[apple:shark:0.3]", "a [apple:shark:0.3] on a yellow background"),
        ("[apple|shark]", "a [apple|shark] on a yellow background"),
        ("cat face AND\npizza", "a cat face AND a pizza"),
        ("cat face AND\npizza :0.3", "a cat face AND a pizza :0.3"),
    ]
    return [
        [asked(f"guidance {scale:g}", guidance=scale) for scale in (1.0, 2.0, 4.0, 8.0)]
        + [
            asked("guidance 8,\nrescaled by 0.7", guidance=8.0, guidance_rescale=0.7),
            asked("guidance 8,\nfrom 0.2 to 0.6", guidance=8.0, guidance_start=0.2, guidance_end=0.6),
        ],
        [asked(title, prompt=prompt) for title, prompt in prompts],
        [
            asked(f"subseed strength\n{share:g}", prompt="a cat", guidance=2.0, variation=Variation(9, share))
            for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
        ],
        [
            asked(f"image to image,\nstrength {share:g}", prompt=shark, start=Start(image=first, strength=share))
            for share in (0.05, 0.1, 0.15, 0.3)
        ]
        + [
            asked("its top anew:\na fox face", **fox, start=Start(image=first, strength=0.5, mask=mask)),
            asked("... mask blur 3", **fox, start=Start(image=first, strength=0.5, mask=mask, mask_blur=3.0)),
        ],
        [asked("64 pixels"), asked("128 pixels", height=128, width=128)]
        + [
            asked(f"hires, {how},\nstrength {share:g}", hires=Hires(2.0, 0, share, how))
            for how in ("latent", "lanczos")
            for share in (0.1, 0.25)
        ],
    ]  # fmt: skip


def painted(model: Model, requests: Sequence[Request]) -> list[Image.Image]:
    """Return the first picture of each request."""
    found = []
    for images in generate(model, list(requests)):
        pixels = images[0].pixels
        assert pixels is not None, "a request that is done has its pictures"
        found.append(Image.fromarray(np.ascontiguousarray(pixels)))
    return found


def drawn(table: Sequence[Sequence[Cell]], pictures: Sequence[Image.Image]) -> Image.Image:
    """Lay the pictures out under their titles."""
    high = _SIDE + _TITLE
    sheet = Image.new("RGB", (_COLUMNS * (_SIDE + _GAP), len(table) * high), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    left = iter(pictures)
    for y, row in enumerate(table):
        for x, cell in enumerate(row):
            place = x * (_SIDE + _GAP), y * high
            draw.text(place, cell.title, fill="black", font=font)
            sheet.paste(
                next(left).resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (place[0], place[1] + _TITLE)
            )  # fmt: skip
    return sheet


def as_file(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/options.png"))
    options = parser.parse_args()
    model = open_bundle(options.bundle, LoadOptions(devices={}))
    (first,) = painted(model, [PLAIN])
    mask = Image.new("L", first.size, 0)
    mask.paste(255, (0, 0, 64, 28))
    table = rows(as_file(first), as_file(mask))
    pictures = painted(model, [cell.request for row in table for cell in row])
    drawn(table, pictures).save(options.output, optimize=True)


if __name__ == "__main__":
    main()
