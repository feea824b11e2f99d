"""Calls of a model on its own guided trajectories, for those that need to see its activations before it is served.

Calls of diffusers' own pipeline on torch, at every timestep of trajectories as they are served: several samplers and
numbers of steps, both rows of guidance. Ranges that were taken at one timestep alone fail at others (PTQ4DM, Shang et
al. 2023, arXiv 2211.15736; Q-Diffusion, Li et al. 2023, arXiv 2302.04304, section 4.1).
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np

from mezzotint.compile import reference
from mezzotint.compile.checkpoint import Checkpoint
from mezzotint.compile.job import CompileJob, read_prompts
from mezzotint.compile.reference import Arrays, final_latents, recorded_calls
from mezzotint.compile.stages import Stages, code_digest, exporter_versions
from mezzotint.engines.component import Component

GUIDANCE = 6.0
FIRST_SEED = 5000
_STAGE = "samples"
_PROMPTS = Path(__file__).parent / "data" / "calibration_prompts.txt"
_NUM_PROMPTS = 16
_PROMPTS_AT_ONCE = 4

# (scheduler, its settings, steps): one after the other, a group of prompts each.
_TRAJECTORIES: tuple[tuple[Any, Mapping[str, Any], int], ...] = (
    (diffusers.DDIMScheduler, {"clip_sample": False}, 25),
    (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}, 10),
    (diffusers.EulerDiscreteScheduler, {}, 15),
    (diffusers.DDIMScheduler, {"clip_sample": False}, 4),
)


def sampled(stages: Stages, job: CompileJob, checkpoint: Checkpoint, height: int, width: int) -> Path:
    """Return the folder of the recorded calls, at a size in pixels."""

    def work(folder: Path) -> None:
        def progress(done: float) -> None:
            stages.progress(_STAGE, done, "torch paints the prompts that int8 is calibrated on")

        reference.write(record(checkpoint, _prompts(job), height, width, progress), folder)

    return stages.run(_STAGE, _inputs(job, checkpoint.digest, height, width), work).folder


def place(stages: Stages, job: CompileJob, digest: str, height: int, width: int) -> str:
    """Return the name of the folder that the calls of the checkpoint with this digest have, recorded or not."""
    return stages.place(_STAGE, _inputs(job, digest, height, width)).name


def _inputs(job: CompileJob, digest: str, height: int, width: int) -> dict[str, Any]:
    return {
        "digest": digest,
        "prompts": _prompts(job),
        "size": [height, width],
        "code": code_digest(reference, sys.modules[__name__]),
        "versions": exporter_versions(),
    }


def default_prompts() -> tuple[str, ...]:
    """Return the first of the prompts that come with Mezzotint."""
    return read_prompts(_PROMPTS)[:_NUM_PROMPTS]


def record(
    checkpoint: Checkpoint, prompts: Sequence[str], height: int, width: int, progress: Callable[[float], None]
) -> Arrays:
    """Return inputs of the UNet and the VAE decoder on the prompts' way, float32 [rows, …], as ``component/input``.

    Of every evaluation both guidance rows of one prompt are kept, another one each time.
    """
    pipeline = checkpoint.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline.scheduler.config  # a scheduler's own settings are not the next one's
    groups = [prompts[i : i + _PROMPTS_AT_ONCE] for i in range(0, len(prompts), _PROMPTS_AT_ONCE)]
    plans = [_TRAJECTORIES[i % len(_TRAJECTORIES)] for i in range(len(groups))]
    total, done = sum(steps for *_, steps in plans), 0
    calls: list[Arrays] = []
    finals = []
    for i, (group, (scheduler, settings, steps)) in enumerate(zip(groups, plans, strict=True)):
        pipeline.scheduler = scheduler.from_config(own, **settings)
        first_seed = FIRST_SEED + i * _PROMPTS_AT_ONCE

        def step(num: int, before: int = done) -> None:
            progress((before + num) / total)

        with recorded_calls(checkpoint, step) as found:
            final = final_latents(pipeline, group, (height, width), steps, GUIDANCE, first_seed, share_kept=0.5)
        done += steps
        calls += [_rows(call, slice(k % len(group), None, len(group))) for k, call in enumerate(found)]
        finals.append(np.array(final))
    names = calls[0].keys() - {"output"}
    arrays = {f"{Component.UNET}/{name}": np.concatenate([call[name] for call in calls]) for name in sorted(names)}
    vae = checkpoint.vae.config
    latents = np.concatenate(finals) / np.float32(vae.scaling_factor) + np.float32(vae.shift_factor or 0.0)
    return arrays | {f"{Component.VAE_DECODER}/latents": latents}


def _prompts(job: CompileJob) -> tuple[str, ...]:
    return job.calibration_prompts or default_prompts()


def _rows(call: Arrays, rows: slice) -> Arrays:
    return {name: array[rows] for name, array in call.items()}
