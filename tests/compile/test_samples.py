"""What int8 is calibrated on: the trajectories that are named, whatever came before each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from mezzotint.compile import samples

# torch and diffusers warn of their own insides
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Pipeline:
    """A pipeline of no model, with the scheduler of Stable Diffusion 1.5."""

    def __init__(self) -> None:
        self.scheduler: Any = diffusers.PNDMScheduler(beta_schedule="scaled_linear", steps_offset=1)

    def set_progress_bar_config(self, *, disable: bool) -> None:
        pass


@contextmanager
def one_call(checkpoint: Any, step: Any) -> Iterator[list[dict[str, Any]]]:
    yield [{"sample": np.zeros((8, 1)), "output": np.zeros((8, 1))}]


def test_each_sampler_has_its_own_settings_and_none_of_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int, bool, str]] = []

    def paint(pipeline: Any, prompts: Sequence[str], size: Any, steps: int, *rest: Any, **more: Any) -> torch.Tensor:
        scheduler = pipeline.scheduler
        karras = bool(scheduler.config.get("use_karras_sigmas"))
        seen.append((type(scheduler).__name__, steps, karras, scheduler.config.beta_schedule))
        return torch.zeros(len(prompts), 4, 1, 1)

    monkeypatch.setattr(samples, "final_latents", paint)
    monkeypatch.setattr(samples, "recorded_calls", one_call)
    vae = SimpleNamespace(config=SimpleNamespace(scaling_factor=1.0, shift_factor=None))
    checkpoint: Any = SimpleNamespace(pipeline=Pipeline, vae=vae)
    samples.record(checkpoint, ["a cat"] * 16, 64, 64, lambda done: None)
    assert seen == [
        ("DDIMScheduler", 25, False, "scaled_linear"),
        ("DPMSolverMultistepScheduler", 10, True, "scaled_linear"),
        ("EulerDiscreteScheduler", 15, False, "scaled_linear"),
        ("DDIMScheduler", 4, False, "scaled_linear"),
    ]
