"""Fakes: linear engines inside a real ``Model``, images that only count, and a clock that stands still."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mezzotint.engines.canvas import MASK, MASKED
from mezzotint.engines.component import Component
from mezzotint.engines.errors import EngineFailed
from mezzotint.engines.image import Stage
from mezzotint.engines.manifest import EngineEntry, Manifest
from mezzotint.engines.model import EngineKey, Model
from mezzotint.engines.prompt import Prompts
from mezzotint.engines.safety import CLIP_PIXELS, CONCEPT_SCORES, SPECIAL_SCORES
from mezzotint.engines.variants import FULL, SHALLOW, TILE
from tests.fake_manifest import CHANNELS, FACTOR, FEATURES, MAX_ROWS, WIDTH, fake_manifest

WORDS = ("a", "cat", "dog", "red", "blue", "on", "hat")
UNET = (Component.UNET, FULL)
SHALLOW_UNET = (Component.UNET, SHALLOW)

Arrays = Mapping[str, np.ndarray]


class FakeClock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class FakeImage:
    """What the scheduler knows of an image; ``settings`` stands for all that it must not look at.

    ``calls`` are the variant and rows of each evaluation, where they change; ``parts`` the engines that decode it.
    """

    rows: int = 2
    remaining: int = 3
    size: int = 64
    settings: Any = None
    calls: tuple[tuple[str, int], ...] = ()
    parts: int = 1
    is_alone: bool = False
    stage: Stage = Stage.ENCODE
    ran: list[Stage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = self.calls or ((FULL, self.rows),) * self.remaining
        self.rows = max(rows for _, rows in self.calls)
        self.remaining = len(self.calls)

    @property
    def num_rows(self) -> int:
        match self.stage:
            case Stage.ENCODE:
                return self.rows
            case Stage.DENOISE:
                return self.calls[-self.remaining][1]
            case _:
                return 1

    @property
    def variant(self) -> str:
        match self.stage:
            case Stage.DENOISE:
                return self.calls[-self.remaining][0]
            case Stage.DECODE:
                return f"{self.parts} parts left"
            case _:
                return FULL

    @property
    def has_begun(self) -> bool:
        return bool(self.ran) or self.stage is not Stage.ENCODE

    @property
    def signature(self) -> tuple[Any, ...]:
        if self.stage is Stage.ENCODE:
            return (self.stage,)
        return (self.stage, self.variant, self.size, id(self) if self.is_alone else 0)

    @property
    def call_size(self) -> tuple[int, int]:
        return (self.size, self.size)

    def run(self) -> None:
        self.ran.append(self.stage)
        match self.stage:
            case Stage.ENCODE:
                self.stage = Stage.DENOISE
            case Stage.DENOISE:
                self.remaining -= 1
                self.stage = Stage.DENOISE if self.remaining else Stage.DECODE
            case _:
                self.parts -= 1
                self.stage = Stage.DECODE if self.parts else Stage.DONE


class FakeEngine:
    """A component whose output is a linear function of its inputs, row by row.

    ``calls`` lists the rows of every call, ``log`` what was called, for all engines of a model. With ``hold`` the next
    call waits for ``release`` or ``step``; ``failures`` counts the next calls that fail. What a call gave is no number
    any more once the next one has begun.
    """

    def __init__(self, spec: EngineEntry, log: list[str]) -> None:
        self.spec = spec
        self.log = log
        self.device = "FAKE"
        self.row_counts = (1, 2, 4, 8)
        self.calls: list[int] = []
        self.failures = 0
        self._given: Arrays = {}
        self._permits = threading.Semaphore(0)
        self._held = False
        self.entered = threading.Semaphore(0)

    def hold(self) -> None:
        self._held = True

    def step(self, num_calls: int = 1) -> None:
        self._permits.release(num_calls)

    def release(self) -> None:
        self._held = False
        self._permits.release()

    def run(self, inputs: Arrays) -> Arrays:
        rows = len(next(iter(inputs.values())))
        self.calls.append(rows)
        self.log.append(f"{self.spec.component} {self.spec.variant}")
        self.entered.release()
        if self._held:
            self._permits.acquire(timeout=30)
        if self.failures:
            self.failures -= 1
            raise EngineFailed("the fake engine was told to fail")
        for array in self._given.values():
            array.fill(np.nan)
        self._given = _COMPUTE[self.spec.component](self.spec, inputs)
        return self._given

    def prepare(self, inputs: Arrays) -> None:
        self.run(inputs)

    def close(self) -> None:
        pass


def _encode(spec: EngineEntry, inputs: Arrays) -> Arrays:
    return {"states": inputs["embeddings"][:, None] * np.float32(0.5)}


def _denoise(spec: EngineEntry, inputs: Arrays) -> Arrays:
    """Half of the sample goes through a feature, which the shallow engine takes as it is given."""
    sample, time = inputs["sample"], inputs["timestep"][:, None, None, None] / 1000
    text = inputs["text"].mean(axis=(1, 2))[:, None, None, None]
    feature = inputs.get("feature", (sample[:, :FEATURES] + text).astype(np.float32))
    output = (sample * np.float32(0.4) + time + feature.mean(axis=1, keepdims=True)).astype(np.float32)
    if MASK in inputs:
        output += inputs[MASK] * np.float32(0.1) + inputs[MASKED] * np.float32(0.2)
    return {"output": output, "feature": feature} if len(spec.outputs) > 1 else {"output": output}


def _decode(spec: EngineEntry, inputs: Arrays) -> Arrays:
    """The whole decoder is its three parts, one after the other; the tiny one is paler, and tiles have statistics."""
    if spec.variant == TILE:
        return _decode_tile(spec, inputs)
    (given,) = inputs.values()
    made = given
    if spec.variant in (FULL, "tiny", "part1"):
        made = given[:, :3] * np.float32(0.1 if spec.variant == "tiny" else 0.3)
    if spec.variant in (FULL, "tiny", "part2"):
        made = made.repeat(FACTOR, axis=2)
    if spec.variant in (FULL, "tiny", "part3"):
        made = made.repeat(FACTOR, axis=3)
    return {spec.outputs[0].name: np.ascontiguousarray(made)}


def _decode_tile(spec: EngineEntry, inputs: Arrays) -> Arrays:
    """What a tile is off by, where its statistics are another's, is far below what a pixel shows."""
    latents, given = inputs["latents"], inputs["given"]
    mean = latents.mean(axis=(1, 2, 3))[:, None]
    own = np.stack([mean, np.ones_like(mean)], axis=1)
    used = np.where(given[:, 1:] > 0, given, own)[:, 0, :, None, None]
    pixels = (latents[:, :3] * np.float32(0.3)).repeat(FACTOR, axis=2).repeat(FACTOR, axis=3)
    return {"pixels": (pixels + used * np.float32(1e-7)).astype(np.float32), "statistics": own}


def _see(spec: EngineEntry, inputs: Arrays) -> Arrays:
    """The mean of a latent pixel's pixels, each channel again where there are more, and everywhere one variance."""
    (given,) = inputs.values()
    rows, colours, height, width = given.shape
    mean = given.reshape(rows, colours, height // FACTOR, FACTOR, width // FACTOR, FACTOR).mean(axis=(3, 5))
    mean = mean[:, np.arange(CHANNELS) % colours]
    return {"moments": np.concatenate([mean, np.full_like(mean, -2.0)], axis=1)}


def _check(spec: EngineEntry, inputs: Arrays) -> Arrays:
    """Flag what is brighter than a middle grey."""
    bright = inputs[CLIP_PIXELS].mean(axis=(1, 2, 3))[:, None]
    return {SPECIAL_SCORES: np.full_like(bright, -1), CONCEPT_SCORES: bright}


_COMPUTE = {
    Component.TEXT_ENCODER: _encode,
    Component.UNET: _denoise,
    Component.VAE_DECODER: _decode,
    Component.VAE_ENCODER: _see,
    Component.SAFETY_CHECKER: _check,
}


def fake_model(
    folder: Path, name: str = "fake", *, bundle: tuple[Manifest, str] | None = None, **options: bool
) -> tuple[Model, dict[EngineKey, FakeEngine]]:
    """A real ``Model`` on fake engines, whose tokenizer and embeddings are written into ``folder``.

    ``bundle`` is a manifest and its digest; else ``options`` are ``fake_manifest``'s.
    """
    vocabulary = {word: i for i, word in enumerate(("<s>", "</s>", "<unk>", *WORDS))}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    table = np.random.default_rng(0).standard_normal((len(vocabulary), WIDTH)).astype(np.float32)
    np.save(folder / "embeddings.npy", table)
    manifest, digest = bundle or (fake_manifest(name, **options), "f" * 64)
    log: list[str] = []
    engines = {(entry.component, entry.variant): FakeEngine(entry, log) for entry in manifest.engines}
    max_rows = {variant: MAX_ROWS for component, variant in engines if component is Component.UNET}
    return Model(manifest, digest, Prompts(folder, manifest.text), engines, max_rows), engines
