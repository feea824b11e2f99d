"""What the compiler is asked for, and what it says while it works. Imports the manifest and errors alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.manifest import AxisRange

AUTO = "auto"
DEFAULT_MAX_ROWS = 8
DEFAULT_MAX_CHUNKS = 4
DEFAULT_PROMPTS = ("a photo of a cat", "a red apple on a white background", "a house by the sea", "a dog with a ball")


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA to merge: a file, or the folder that it lies in, and how much of it; 1 is as it was trained."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileJob:
    """One run of the compiler.

    Attributes:
        source: a diffusers folder, a single file, or a hub id.
        output: the bundle's folder, which must not exist or be a bundle.
        precision: one of Precision's values or ``auto``, for each component or, under an empty key, for all others.
        height: the range of pixels to build for; None is the checkpoint's own size. ``width`` likewise.
        max_rows: the most rows of one call; a guided picture takes two.
        max_chunks: how many times the text encoder's tokens a prompt may have.
        step_cache: DeepCache's branch, for a UNet that can be called shallow between full calls; None is without.
        decoder_parts: into how many engines the VAE decoder is cut; 0 is as few as leave none longer than two steps.
        tiny_decoder: the folder of an AutoencoderTiny that requests may choose instead of the VAE's decoder.
        tile_decoder: compile the decoder for parts of pictures too, for pictures that it has no memory for as a whole.
        with_safety_checker: compile the checkpoint's own, which then looks at every picture.
        config: a diffusers folder with configs for a single file.
        loras: merged into the checkpoint's weights, one after the other, before anything else.
        base: the bundle of the model that this one was tuned from; None is what the checkpoint says of it, if anything.
        recalibrate: observe int8's ranges on this checkpoint even where those of the base would do.
        name: the name that requests use; empty is the checkpoint's.
        device: the runtime's name of the device to build for; empty is its CPU.
        cache: where finished stages are kept for the next run.
        prompts: what verify paints, with torch and with the engines.
        calibration_prompts: on whose way from noise int8's activations are observed.
    """

    source: str
    output: Path
    cache: Path
    backend: str = "openvino"
    precision: dict[str, str] = field(default_factory=lambda: {"": AUTO})
    height: AxisRange | None = None
    width: AxisRange | None = None
    max_rows: int = DEFAULT_MAX_ROWS
    max_chunks: int = DEFAULT_MAX_CHUNKS
    step_cache: int | None = None
    decoder_parts: int = 0
    tiny_decoder: Path | None = None
    tile_decoder: bool = False
    with_safety_checker: bool = False
    config: Path | None = None
    loras: tuple[LoraFile, ...] = ()
    base: Path | None = None
    recalibrate: bool = False
    name: str = ""
    device: str = ""
    prompts: tuple[str, ...] = DEFAULT_PROMPTS
    calibration_prompts: tuple[str, ...] = ()

    @property
    def runs_on(self) -> str:
        """The backend whose engines are verified: those of TensorRT are ONNX until their plans are built."""
        return "onnxruntime" if self.backend == "tensorrt" else self.backend


def read_prompts(file: Path) -> tuple[str, ...]:
    """Return the prompts of a text file, one a line. Raises InvalidRequest where there is none."""
    try:
        prompts = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file}: cannot be read ({error}); give a UTF-8 text of prompts, one a line") from None
    if not prompts:
        raise InvalidRequest(f"{file}: holds no prompt; write one a line")
    return prompts


class Status(StrEnum):
    """How a stage stands; ``NOTE`` is a sentence on something that the user might expect and does not get."""

    STARTED = "started"
    PROGRESS = "progress"
    BUILT = "built"
    REUSED = "reused"
    FAILED = "failed"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class StageEvent:
    """A line of the compiler's output; ``fraction`` is 0 to 1 while a stage knows how far it is."""

    stage: str
    status: Status
    detail: str = ""
    fraction: float | None = None
    seconds: float = 0.0
    num_bytes: int = 0


Report: TypeAlias = Callable[[StageEvent], None]
