r"""What does a picture lose that is decoded in tiles, and what does it save?

    mezzotint compile models/emoji -o build/emoji-tiles --precision fp32 --height 64:64:512 --width 64:64:512 \
        --max-rows 2 --tile-decoder
    python -m benchmarks.tiles build/emoji-tiles

Pictures are decoded whole, and in tiles of the bundle's own size by several rules of what their group norms take, all
with the same overlap, blended linearly. Every figure is against the whole decode, in 8-bit steps of a channel:

- *shift*: a tile's mean error of a channel, before it is blended; the mean of all, and the largest;
- *step*: how much the error of 8×8 pixels changes from before an overlap to behind it, in the blended picture;
- *PSNR*: of the blended picture.

Memory is what a fresh process gains at most while it decodes one picture, the engine's own memory included. It is
asked of Stable Diffusion's own VAE too, whose pictures show nothing where its weights are random:

    python -m benchmarks.full_size_model build/sd15-vae --only-vae
    mezzotint compile build/sd15-vae -o build/sd15-vae-tiles --precision fp32 --height 512:512:1024 \
        --width 512:512:1024 --max-rows 2 --tile-decoder --decoder-parts 1
    python -m benchmarks.tiles build/sd15-vae-tiles --only-memory --name sd15-size --sides 768,1024
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import publish
from benchmarks.processes import forget_peak, memory_mib, run_python
from benchmarks.tile_rules import RULES, Decoder, Floats, with_small_copy
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.generate import generate
from mezzotint.engines.memory import resident_bytes
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.tiles import Tiles, Tiling

SIDES = (128, 192, 256, 384)
PROMPTS = ("a shark on a blue background", "a cat face", "a red apple", "a house by the sea", "a green tree", "a dog")
STEPS, GUIDANCE = 12, 4.0
_BLOCK = 8
_STEPS_OF_PIXELS = 127.5  # of an 8-bit channel, for pixels in −1…1


@dataclass(frozen=True, slots=True)
class Figures:
    """One picture's, of one rule."""

    psnr_db: float
    shifts: Floats
    steps: Floats

    @classmethod
    def of(cls, tiling: Tiling, pixels: Sequence[Floats], whole: Floats) -> "Figures":
        """Compare the tiles and what they blend to with the whole decode."""
        tiles = Tiles(tiling)
        shifts = []
        for call, tile in enumerate(pixels, 1):
            tiles.take(call, tile, None)
            shifts.append((tile - tiles.place(call, whole)).mean(axis=(1, 2)) * _STEPS_OF_PIXELS)
        blended = tiles.blended()
        error = np.clip(blended, -1, 1) - np.clip(whole, -1, 1)
        psnr = 10 * np.log10(4 / max(float(np.mean(np.square(error, dtype=np.float64))), 1e-12))
        return cls(psnr, np.abs(shifts), _steps_of(error, tiling))


def _steps_of(error: Floats, tiling: Tiling) -> Floats:
    """Return how the error of blocks changes over each overlap, in 8-bit steps, float32 [n]."""
    found = []
    for axis, starts in ((1, {top for top, _ in tiling.corners}), (2, {left for _, left in tiling.corners})):
        length = tiling.tile[axis - 1] * tiling.factor
        begins = sorted(start * tiling.factor for start in starts)
        blocks = _blocks(error)
        for before, behind in pairwise(begins):
            last, first = behind // _BLOCK - 1, -(-(before + length) // _BLOCK)
            if last >= 0 and first < blocks.shape[axis]:
                change = np.take(blocks, first, axis) - np.take(blocks, last, axis)
                found.append(np.abs(change).ravel() * _STEPS_OF_PIXELS)
    return np.concatenate(found) if found else np.zeros(1, np.float32)


def _blocks(error: Floats) -> Floats:
    channels, height, width = error.shape
    each = error.reshape(channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    return np.asarray(each.mean(axis=(2, 4)), np.float32)


def pictures(model: Model, side: int) -> list[Floats]:
    """Return the latents that are decoded, painted at that size."""
    entry = model.manifest.latents
    asked: dict[str, Any] = {"steps": STEPS, "guidance": GUIDANCE, "width": side, "height": side}
    found = []
    for seed, prompt in enumerate(PROMPTS):
        request = Request(prompt=prompt, seed=seed, return_latents=True, **asked)
        latents = generate(model, [request])[0][0].latents
        if latents is None:
            raise ValueError("the model gave no latents")
        found.append(np.asarray(latents / entry.scaling + entry.shift, np.float32))
    return found


def quality(model: Model, sides: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each side and rule."""
    decoder, own = Decoder(model), model.manifest.latents
    tile = own.default_height // own.factor, own.default_width // own.factor
    rows = []
    for side in sides:
        found: dict[str, list[Figures]] = {name: [] for name in RULES}
        for latents in pictures(model, side):
            whole = decoder.whole(latents)
            tiling = Tiling.of((latents.shape[1], latents.shape[2]), tile, own.factor)
            for name, rule in RULES.items():
                found[name].append(Figures.of(tiling, rule(decoder, Tiles(tiling), latents), whole))
        for name, figures in found.items():
            rows.append(_row(side, len(tiling.corners), name, figures))
    return rows


def _row(side: int, num_tiles: int, name: str, figures: Sequence[Figures]) -> dict[str, Any]:
    shifts = np.concatenate([each.shifts.ravel() for each in figures])
    steps = np.concatenate([each.steps for each in figures])
    psnr = [each.psnr_db for each in figures]
    return {
        "picture": f"{side}×{side}",
        "tiles": num_tiles,
        "statistics of the norms": name,
        "shift, mean": round(float(shifts.mean()), 2),
        "shift, largest": round(float(shifts.max()), 2),
        "step, mean": round(float(steps.mean()), 2),
        "step, 99 of 100": round(float(np.percentile(steps, 99)), 2),
        "PSNR dB, mean": round(float(np.mean(psnr)), 1),
        "PSNR dB, least": round(min(psnr), 1),
    }


def memory(bundle: Path, sides: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each side: megabytes of a whole decode and of one in tiles, in a process of its own each."""
    rows = []
    for side in sides:
        how = ("-m", "benchmarks.tiles", bundle, "--sides", str(side), "--peak")
        peaks = [json.loads(run_python(*how, one)) for one in ("whole", "tiles")]
        rows.append(
            {
                "picture": f"{side}×{side}",
                "whole, MB": round(peaks[0] / 1e6),
                "in tiles, MB": round(peaks[1] / 1e6),
                "share": f"{peaks[1] / peaks[0]:.2f}",
            }
        )
    return rows


def peak(bundle: Path, side: int, how: str) -> int:
    """Return what this process gains at most while it decodes a picture of noise."""
    model = open_bundle(bundle, LoadOptions({}, cache=False, tiles_above=1))
    entry = model.manifest.latents
    (image,) = model.start(Request(prompt="a cat", width=side, height=side, guidance=1.0))
    own = entry.default_height // entry.factor, entry.default_width // entry.factor
    latents = np.random.default_rng(0).standard_normal(image.shape, dtype=np.float32)
    decoder = Decoder(model)
    forget_peak()
    before = resident_bytes()
    if how == "whole":
        decoder.whole(latents)
    else:
        tiles = Tiles(Tiling.of((latents.shape[1], latents.shape[2]), own, entry.factor))
        for call, pixels in enumerate(with_small_copy(decoder, tiles, latents), 1):
            tiles.take(call, pixels, None)
        tiles.blended()
    return (memory_mib(os.getpid())["peak"] << 20) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="compiled with --tile-decoder, for the sides below")
    parser.add_argument("--sides", type=lambda text: [int(side) for side in text.split(",")], default=SIDES)
    parser.add_argument("--only-memory", action="store_true", help="do not compare pictures")
    parser.add_argument("--name", default="", help="goes to the end of the results' names")
    parser.add_argument("--peak", choices=["whole", "tiles"], help="print the bytes of one decode and no more")
    options = parser.parse_args()
    if options.peak:
        print(peak(options.bundle, options.sides[0], options.peak))
        return
    saved, suffix = memory(options.bundle, options.sides), f"-{options.name}" if options.name else ""
    publish(f"tiled-decode-memory{suffix}", "What does a picture save that is decoded in tiles?", saved, {})
    if options.only_memory:
        return
    model = open_bundle(options.bundle, LoadOptions({}, cache=False, tiles_above=1))
    rows = quality(model, options.sides)
    publish(f"tiled-decode{suffix}", "What does a picture lose that is decoded in tiles?", rows, {"memory": saved})


if __name__ == "__main__":
    main()
