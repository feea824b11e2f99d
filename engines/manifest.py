"""The bundle's manifest: what a compiled model is made of, as pydantic models of ``manifest.json``.

The compiler writes it last and nothing changes it after. A new model family adds roles and axes, not fields.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import BundleError
from mezzotint.engines.schedule import NoiseSchedule, Prediction, Spacing

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
STATISTICS, INNER = "statistics", "inner"
"""Roles of a decoder's ``tile`` engine: what its norms measured, or take instead; and how much of a picture lies away
from its border, where it is a small copy's. Zeros are none."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside(name: str) -> str:
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} is no path inside the bundle")
    return name


FileName = Annotated[str, AfterValidator(_inside)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AxisRange(_Strict):
    """The lengths of one axis that an engine was built for; ``opt`` is the one it was tuned at."""

    min: int = Field(ge=1)
    opt: int = Field(ge=1)
    max: int = Field(ge=1)

    def __contains__(self, length: int) -> bool:
        return self.min <= length <= self.max

    def text(self, factor: int = 1) -> str:
        """Return ``64``, or ``32 to 64``; of an axis of latents with ``factor`` in pixels."""
        least, most = self.min * factor, self.max * factor
        return str(least) if least == most else f"{least} to {most}"


class TensorSpec(_Strict):
    """One input or output: ``axes`` holds a length, or the name of an axis of the engine's ``axes``."""

    name: str
    role: str
    dtype: Literal["float32"]
    axes: tuple[int | str, ...]


class EngineEntry(_Strict):
    """One engine of the bundle.

    Attributes:
        variant: ``full``, a component in one engine; ``shallow``, the UNet from a cached ``feature`` on; ``part1``,
            ``part2`` …, a component cut into engines that follow each other; ``tiny``, another, smaller decoder;
            ``tile``, the decoder for parts of a picture, which takes and gives the ``statistics`` of its norms.
        flavour: which of a backend's libraries built it: ``tensorrt`` or ``tensorrt_rtx``; empty where there is one.
        compute_capability: of the NVIDIA GPU that it was built for, such as ``8.9``; empty for other devices.
        device: the kind of device that it was built for.
        files: SHA-256 of each of its files, by path inside the bundle; the first is the one to load.
        axes: the ranges of its named axes. ``height`` and ``width`` count latent rows and columns, ``height_x2`` and
            ``width_x2`` those of a tensor that is twice as large, and so on.
        row_classes: groups of row counts; within one, a row's result is bit-equal in every count and position.
        step_ms: milliseconds of a call by row count on the compiling machine, a first guess for a host's own curve.
        resident_bytes: what a process gains in memory that is prepared for one row count alone, by row count.
    """

    component: Component
    variant: str = "full"
    backend: str
    backend_version: str
    flavour: str = ""
    compute_capability: str = ""
    device: str
    precision: Precision
    files: dict[FileName, Sha256]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: dict[str, AxisRange]
    row_classes: tuple[tuple[int, ...], ...]
    step_ms: dict[int, float] = Field(default_factory=dict)
    resident_bytes: dict[int, int] = Field(default_factory=dict)

    def input_shapes(self, num_rows: int, lengths: Mapping[str, int] | None = None) -> dict[str, tuple[int, ...]]:
        """Return the shape of each input by name; axes that ``lengths`` does not name are as the engine was tuned."""
        each = {name: axis.opt for name, axis in self.axes.items()} | dict(lengths or {}) | {"rows": num_rows}
        return {
            tensor.name: tuple(each[axis] if isinstance(axis, str) else axis for axis in tensor.axes)
            for tensor in self.inputs
        }

    def shapes_at(self, end: Literal["min", "opt", "max"]) -> dict[str, tuple[int, ...]]:
        """Return the shape of each input by name with every axis, rows too, at one end of its range or as tuned."""
        lengths: dict[str, int] = {name: getattr(axis, end) for name, axis in self.axes.items()}
        return self.input_shapes(lengths.get("rows", 1), lengths)

    def input_of(self, role: str) -> TensorSpec | None:
        """Return the input of a role; None where it has none."""
        return next((tensor for tensor in self.inputs if tensor.role == role), None)


class MergedEntry(_Strict):
    """A LoRA file whose change of the weights, times ``weight``, was added to the base before export."""

    name: str
    digest: Sha256
    weight: float


class SourceEntry(_Strict):
    """The checkpoint that the bundle was made from.

    ``base_digest`` names the base of a fine-tune, or what ``merged`` was merged into; ``digest`` is of the result.
    """

    name: str
    digest: Sha256
    base_digest: Sha256 | None = None
    merged: tuple[MergedEntry, ...] = ()


class ScheduleEntry(_Strict):
    """Noise schedule and prediction settings, under diffusers' names, from the checkpoint's own scheduler config.

    Where that config names no ``timestep_spacing``, each sampler has its own default, as in diffusers.
    """

    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    trained_betas: tuple[float, ...] | None
    prediction_type: Prediction
    timestep_spacing: Spacing | None
    steps_offset: int
    set_alpha_to_one: bool
    rescale_betas_zero_snr: bool
    default_sampler: str

    def noise_schedule(self) -> NoiseSchedule:
        """Return the schedule that samplers use."""
        return NoiseSchedule.from_betas(
            num_train_timesteps=self.num_train_timesteps,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            beta_schedule=self.beta_schedule,
            trained_betas=self.trained_betas,
            prediction=self.prediction_type,
            spacing=self.timestep_spacing or Spacing.LEADING,
            steps_offset=self.steps_offset,
            set_alpha_to_one=self.set_alpha_to_one,
            rescale_betas_zero_snr=self.rescale_betas_zero_snr,
        )


class LatentEntry(_Strict):
    """The space that is denoised: decoder input = latents / scaling + shift; a latent pixel is ``factor``² pixels.

    ``preview`` is a linear fit of the decoder: RGB in 0…1 = (latents, 1) · preview, float [channels + 1, 3].
    """

    channels: int
    factor: int
    scaling: float
    shift: float = 0.0
    size_multiple: int
    default_height: int
    default_width: int
    preview: tuple[tuple[float, float, float], ...]

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return [channels, height, width] of the latents of a picture whose sides are given in pixels."""
        return self.channels, height // self.factor, width // self.factor


class TextEntry(_Strict):
    """The prompt's way in: files of the bundle, and the special tokens."""

    tokenizer: FileName
    embeddings: FileName
    max_tokens: int
    width: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    files: dict[FileName, Sha256]


class SafetyEntry(_Strict):
    """How a picture becomes the safety checker's input, as transformers' CLIPImageProcessor does it.

    Attributes:
        shortest_edge: pixels of the shorter side after the bicubic resize.
        crop: pixels of the square that is cut from the middle.
        mean: of red, green and blue in 0…1; taken away before they are divided by ``std``.
    """

    shortest_edge: int = Field(ge=1)
    crop: int = Field(ge=1)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Measured(_Strict):
    """What verify measured of one output, in dB; ``floor_db`` is what it had to reach.

    Of a component in parts only the last has a figure: that of all parts in a row.
    """

    component: Component
    variant: str = "full"
    output: str
    snr_db: float
    floor_db: float


class Manifest(_Strict):
    """``manifest.json``."""

    format_version: int = FORMAT_VERSION
    name: str
    family: str
    compiled_by: str
    source: SourceEntry
    engines: tuple[EngineEntry, ...]
    schedule: ScheduleEntry
    latents: LatentEntry
    text: TextEntry
    verified: tuple[Measured, ...]
    safety: SafetyEntry | None = None
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _parts_follow_each_other(self) -> "Manifest":
        """Check that a component in parts has all of them, and that each takes what the one before it gives."""
        for component in Component:
            variants = {entry.variant: entry for entry in self.engines if entry.component is component}
            parts = {name: entry for name, entry in variants.items() if name.startswith("part")}
            if parts and ("full" in variants or set(parts) != {f"part{i + 1}" for i in range(len(parts))}):
                raise ValueError(f"{component} has the engines {', '.join(variants)}, expected full, or part1 to partN")
            for i in range(1, len(parts)):
                given, taken = parts[f"part{i}"].outputs, parts[f"part{i + 1}"].inputs
                if given != taken:
                    raise ValueError(f"{component} part{i} gives {given}, but part{i + 1} takes {taken}")
        return self

    @model_validator(mode="after")
    def _a_checker_knows_its_input(self) -> "Manifest":
        has_checker = any(entry.component is Component.SAFETY_CHECKER for entry in self.engines)
        if has_checker != (self.safety is not None):
            raise ValueError("a safety_checker engine and the safety settings of its input, expected both or neither")
        return self

    def engine(self, component: Component, variant: str = "full") -> EngineEntry:
        """Return the entry of one engine. Raises BundleError."""
        for entry in self.engines:
            if (entry.component, entry.variant) == (component, variant):
                return entry
        raise BundleError(f"bundle {self.name} has no {component} engine ({variant}); compile it again")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the bundle in ``folder``. Raises BundleError."""
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"{folder}: no bundle there (no {MANIFEST}); make one with `mezzotint compile CHECKPOINT --output {folder}`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); compile the bundle again") from None
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise BundleError(
            f"{path}: {where}: {first['msg']} ({error.error_count()} problems); compile the bundle again"
        ) from None
    if manifest.format_version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format version {manifest.format_version}, but this Mezzotint reads {FORMAT_VERSION}; "
            "compile the bundle again"
        )
    return manifest
