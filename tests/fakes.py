"""Fakes for tests of the server: linear engines inside a real ``Model``, and a clock that stands still."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mezzotint.engines.errors import EngineFailed
from mezzotint.engines.manifest import (
    AxisRange,
    Component,
    EngineEntry,
    LatentEntry,
    Manifest,
    Precision,
    ScheduleEntry,
    SourceEntry,
    TensorSpec,
    TextEntry,
)
from mezzotint.engines.model import Model
from mezzotint.engines.prompt import Prompts
from mezzotint.engines.schedule import Prediction, Spacing

WORDS = ("a", "cat", "dog", "red", "blue", "on", "hat")
WIDTH, TOKENS, CHANNELS, FACTOR = 4, 8, 4, 4


class FakeClock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeEngine:
    """A component whose output is a linear function of its inputs, row by row.

    ``calls`` lists the rows of every call. With ``hold`` the next call waits for ``release`` or ``step``; ``failures``
    counts the next calls that fail.
    """

    def __init__(self, spec: EngineEntry) -> None:
        self.spec = spec
        self.device = "FAKE"
        self.row_counts = (1, 2, 4, 8)
        self.calls: list[int] = []
        self.failures = 0
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

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        rows = len(next(iter(inputs.values())))
        self.calls.append(rows)
        self.entered.release()
        if self._held:
            self._permits.acquire(timeout=30)
        if self.failures:
            self.failures -= 1
            raise EngineFailed("the fake engine was told to fail")
        match self.spec.component:
            case Component.TEXT_ENCODER:
                return {"states": inputs["embeddings"][:, None] * np.float32(0.5)}
            case Component.UNET:
                text = inputs["text"].mean(axis=(1, 2))[:, None, None, None]
                time = (inputs["timestep"] / 1000)[:, None, None, None]
                return {"output": (inputs["sample"] * np.float32(0.7) + time + text).astype(np.float32)}
            case _:
                pixels = inputs["latents"][:, :3].repeat(FACTOR, axis=2).repeat(FACTOR, axis=3)
                return {"pixels": np.ascontiguousarray(pixels * np.float32(0.3))}

    def prepare(self, inputs: Mapping[str, np.ndarray]) -> None:
        self.run(inputs)

    def close(self) -> None:
        pass


def fake_manifest(name: str = "fake") -> Manifest:
    """A manifest of a bundle for 32 to 64 pixels, eight rows and eight tokens."""
    side = AxisRange(min=8, opt=8, max=16)
    rows = AxisRange(min=1, opt=2, max=8)

    def entry(component: Component, inputs: tuple[TensorSpec, ...], output: TensorSpec) -> EngineEntry:
        return EngineEntry(
            component=component,
            backend="fake",
            backend_version="1",
            device="FAKE",
            precision=Precision.FP32,
            files={},
            inputs=inputs,
            outputs=(output,),
            axes={"rows": rows, "height": side, "width": side},
            row_classes=((1, 2, 4, 8),),
        )

    def spec(name: str, role: str, *axes: int | str) -> TensorSpec:
        return TensorSpec(name=name, role=role, dtype="float32", axes=axes)

    image = ("rows", CHANNELS, "height", "width")
    return Manifest(
        name=name,
        family="stable-diffusion",
        compiled_by="tests",
        source=SourceEntry(name=name, digest="0" * 64),
        engines=(
            entry(
                Component.TEXT_ENCODER,
                (spec("embeddings", "embeddings", "rows", TOKENS, WIDTH),),
                spec("states", "text", "rows", 1, TOKENS, WIDTH),
            ),
            entry(
                Component.UNET,
                (
                    spec("sample", "latents", *image),
                    spec("timestep", "timestep", "rows"),
                    spec("text", "text", "rows", TOKENS, WIDTH),
                ),
                spec("output", "latents", *image),
            ),
            entry(
                Component.VAE_DECODER,
                (spec("latents", "latents", *image),),
                spec("pixels", "pixels", "rows", 3, "height", "width"),
            ),
        ),
        schedule=ScheduleEntry(
            num_train_timesteps=1000,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            trained_betas=None,
            prediction_type=Prediction.EPSILON,
            timestep_spacing=Spacing.LEADING,
            steps_offset=1,
            set_alpha_to_one=False,
            rescale_betas_zero_snr=False,
            default_sampler="ddim",
        ),
        latents=LatentEntry(
            channels=CHANNELS,
            factor=FACTOR,
            scaling=1.0,
            size_multiple=8,
            default_height=32,
            default_width=32,
            preview=((0.2, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.2), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)),
        ),
        text=TextEntry(
            tokenizer="tokenizer.json",
            embeddings="embeddings.npy",
            max_tokens=TOKENS,
            width=WIDTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            files={},
        ),
        verified=(),
    )


def fake_model(folder: Path, name: str = "fake") -> tuple[Model, dict[Component, FakeEngine]]:
    """A real ``Model`` on fake engines, whose tokenizer and embeddings are written into ``folder``."""
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
    manifest = fake_manifest(name)
    engines = {entry.component: FakeEngine(entry) for entry in manifest.engines}
    return Model(manifest, "f" * 64, Prompts(folder, manifest.text), engines, max_rows=8), engines
