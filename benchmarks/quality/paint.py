"""Paints the cases with a bundle's engines and keeps the pictures, so that a run that was killed goes on."""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import mezzotint.engines
from benchmarks.quality.metrics import Pixels
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.generate import generate
from mezzotint.engines.manifest import MANIFEST
from mezzotint.engines.model import Model
from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.request import Request

STORE = Path("build") / "quality"
DEFAULTS: Mapping[str, Any] = {"sampler": "ddim", "guidance": 4.0}
_CHUNK = 20  # pictures in a file: what a killed run can lose


class Asked(Protocol):
    """A picture to paint."""

    @property
    def prompt(self) -> str:
        """What it should show."""
        ...

    @property
    def seed(self) -> int:
        """What its noise is drawn from."""
        ...


def paint(
    bundle: Path | Model,
    cases: Sequence[Asked],
    steps: int,
    *,
    settings: Mapping[str, Any] | None = None,
    noise: float = 0.0,
    store: Path = STORE,
) -> Pixels:
    """Paint every case and return uint8 [N, H, W, 3].

    Args:
        bundle: a bundle's folder, whose pictures are kept in ``store`` and taken from there; or an open model, whose
            pictures are not, since its engines may have been exchanged.
        cases: what to paint.
        steps: denoising steps; ``settings`` may say otherwise.
        settings: further fields of Request; unsaid are DDIM and guidance 4.
        noise: how much gaussian noise is added to the initial one, relative to it.
        store: where pictures are kept, in a folder for each bundle, settings and code.

    Raises:
        MezzotintError: the bundle or a setting is refused.
    """
    asked = {**DEFAULTS, "steps": steps} | dict(settings or {})
    chunks = [cases[i : i + _CHUNK] for i in range(0, len(cases), _CHUNK)]
    if isinstance(bundle, Model):
        return np.concatenate([_paint(bundle, chunk, asked, noise) for chunk in chunks])
    digest = file_digest(bundle / MANIFEST)
    folder = store / _digest(digest, asked, noise, code_digest())[:24]
    parts = []
    for i, chunk in enumerate(chunks):
        file = folder / f"{i:04}-{_digest([[case.prompt, case.seed] for case in chunk])[:12]}.npz"
        if not file.is_file():
            _keep(file, _paint(_opened(bundle, digest), chunk, asked, noise))
            print(f"{bundle} {asked}, noise {noise:g}: {i * _CHUNK + len(chunk)} of {len(cases)}", file=sys.stderr)
        with np.load(file) as kept:
            parts.append(kept["pixels"])
    return np.concatenate(parts)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Return a digest of the engines' own code without comments: pictures of other code are not taken up again."""
    files = sorted(Path(mezzotint.engines.__path__[0]).rglob("*.py"))
    return _digest([[file.name, ast.dump(ast.parse(file.read_text(encoding="utf-8")))] for file in files])


def request_for(model: Model, case: Asked, settings: Mapping[str, Any], noise: float = 0.0) -> Request:
    """Return the request for one picture; ``noise`` is as in ``paint``."""
    if not noise:
        return Request(prompt=case.prompt, seed=case.seed, **settings)
    entry = model.manifest.latents
    side = (entry.default_height // entry.factor, entry.default_width // entry.factor)
    initial = NoiseStream(case.seed).normal((1, entry.channels, *side))
    more = np.random.default_rng([case.seed, 1]).standard_normal(initial.shape, dtype=np.float32)
    latents = initial + np.float32(noise) * more
    return Request(prompt=case.prompt, seed=case.seed, latents=latents, **settings)


@lru_cache(maxsize=1)
def _opened(bundle: Path, digest: str) -> Model:
    return open_bundle(bundle, LoadOptions(devices={}, cache=False))


def _paint(model: Model, cases: Sequence[Asked], settings: Mapping[str, Any], noise: float) -> Pixels:
    made = generate(model, [request_for(model, case, settings, noise) for case in cases])
    return np.stack([image.pixels for images in made for image in images if image.pixels is not None])


def _keep(file: Path, pixels: Pixels) -> None:
    """Write a chunk whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".unfinished-{os.getpid()}-{file.name}")
    np.savez_compressed(unfinished, pixels=pixels)
    unfinished.replace(file)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
