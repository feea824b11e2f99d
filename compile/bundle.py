"""The last stage: paint with the finished engines, and fill the bundle's folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mezzotint.compile.checkpoint import Checkpoint, ScheduleSettings
from mezzotint.compile.folders import link
from mezzotint.compile.job import CompileJob
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.generate import generate
from mezzotint.engines.manifest import (
    MANIFEST,
    EngineEntry,
    LatentEntry,
    Manifest,
    Measured,
    SafetyEntry,
    ScheduleEntry,
    SourceEntry,
    TextEntry,
)
from mezzotint.engines.request import Request
from mezzotint.engines.schedule import Prediction, Spacing

TOKENIZER = "tokenizer.json"
EMBEDDINGS = "token_embeddings.npy"
FAMILY = "stable-diffusion"
_FALLBACK_SAMPLER = "dpmpp_2m"


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What a bundle holds beside its engines, taken from the checkpoint while it is in memory."""

    name: str
    source: SourceEntry
    schedule: ScheduleEntry
    latents: LatentEntry
    tokenizer_json: str
    embeddings: npt.NDArray[np.float32]
    max_tokens: int
    special: tuple[int, int, int]
    safety: SafetyEntry | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint, latents: LatentEntry, safety: SafetyEntry | None) -> "Contents":
        """Copy what is needed out of a checkpoint."""
        sampler, sampler_notes = _default_sampler(checkpoint.schedule)
        table = checkpoint.text_encoder.get_input_embeddings().weight
        return cls(
            name=checkpoint.name,
            source=SourceEntry(
                name=Path(checkpoint.source).name,
                digest=checkpoint.digest,
                base_digest=checkpoint.base_digest,
                merged=checkpoint.merged,
            ),
            schedule=_schedule(checkpoint.schedule, sampler),
            latents=latents,
            tokenizer_json=checkpoint.tokenizer_json,
            embeddings=np.array(table.detach(), dtype=np.float32),
            max_tokens=checkpoint.max_tokens,
            special=(checkpoint.bos_token_id, checkpoint.eos_token_id, checkpoint.pad_token_id),
            safety=safety,
            notes=(*checkpoint.notes, *sampler_notes),
        )


def assemble(
    folder: Path, job: CompileJob, contents: Contents, engines: Mapping[Path, EngineEntry], verified: list[Measured]
) -> Manifest:
    """Fill ``folder`` with a whole bundle, its manifest last; ``engines`` are entries by the folder of their files."""
    for source, entry in engines.items():
        for name in entry.files:
            link(source / name, folder / name)
    (folder / TOKENIZER).write_text(contents.tokenizer_json, encoding="utf-8")
    np.save(folder / EMBEDDINGS, contents.embeddings)
    bos, eos, pad = contents.special
    manifest = Manifest(
        name=job.name or contents.name,
        family=FAMILY,
        compiled_by=f"mezzotint {version('mezzotint')}",
        source=contents.source,
        engines=tuple(engines.values()),
        schedule=contents.schedule,
        latents=contents.latents,
        text=TextEntry(
            tokenizer=TOKENIZER,
            embeddings=EMBEDDINGS,
            max_tokens=contents.max_tokens,
            width=contents.embeddings.shape[1],
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=pad,
            files={name: file_digest(folder / name) for name in (TOKENIZER, EMBEDDINGS)},
        ),
        verified=tuple(verified),
        safety=contents.safety,
        notes=contents.notes,
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return manifest


def paint(folder: Path, job: CompileJob, steps: int, guidance: float, seed: int) -> list[npt.NDArray[np.uint8]]:
    """Paint the reference's pictures with the bundle in ``folder``: uint8 [H, W, 3] each."""
    model = open_bundle(folder, LoadOptions(devices={"": job.device}, cache=False))
    try:
        requests = [
            Request(prompt=model.prompts.plain(prompt), steps=steps, guidance=guidance, seed=seed + i, sampler="ddim")
            for i, prompt in enumerate(job.prompts)
        ]
        made = [images[0].pixels for images in generate(model, requests)]
    finally:
        model.close()
    return [pixels for pixels in made if pixels is not None]


def _schedule(settings: ScheduleSettings, sampler: str) -> ScheduleEntry:
    stated_spacing = "timestep_spacing" not in settings.unstated
    return ScheduleEntry(
        num_train_timesteps=settings.num_train_timesteps,
        beta_start=settings.beta_start,
        beta_end=settings.beta_end,
        beta_schedule=settings.beta_schedule,
        trained_betas=settings.trained_betas,
        prediction_type=Prediction(settings.prediction_type),
        timestep_spacing=Spacing(settings.timestep_spacing) if stated_spacing else None,
        steps_offset=settings.steps_offset,
        # DDIM and PNDM read it, and DDIM's default in diffusers is True
        set_alpha_to_one="set_alpha_to_one" in settings.unstated or settings.set_alpha_to_one,
        rescale_betas_zero_snr=settings.rescale_betas_zero_snr,
        default_sampler=sampler,
    )


def _default_sampler(settings: ScheduleSettings) -> tuple[str, tuple[str, ...]]:
    """Return the checkpoint's own sampler, or the one that is nearest with a sentence that says so."""
    if settings.sampler:
        return settings.sampler, ()
    suffix = " karras" if settings.use_karras_sigmas else ""
    note = f"The checkpoint's own scheduler, {settings.scheduler_class}, is not served; "
    return _FALLBACK_SAMPLER + suffix, (note + f"{_FALLBACK_SAMPLER} is the default sampler.",)
