"""Every sampler walks as diffusers' scheduler of that name, made from a DDIM checkpoint's configuration."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.sampling import NUM_KEPT, SAMPLERS, Plan, advance, plan
from mezzotint.engines.schedule import NoiseSchedule, Prediction, SigmaSpacing, Spacing

# diffusers hands torch tensors to numpy.array, which numpy 2 warns about
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CONFIG = Path(__file__).parents[3] / "models" / "emoji" / "scheduler" / "scheduler_config.json"
SHAPE = (1, 4, 4, 4)
SEED = 11
CASES = [
    (name, sigmas, spacing)
    for name, sampler in SAMPLERS.items()
    for sigmas in sampler.sigma_spacings
    for spacing in Spacing
]


def make_config(**changes: Any) -> dict[str, Any]:
    return {**json.loads(CONFIG.read_text()), **changes}


def make_schedule(config: dict[str, Any]) -> NoiseSchedule:
    same = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "steps_offset")
    return NoiseSchedule.from_betas(
        **{key: config[key] for key in (*same, "set_alpha_to_one", "rescale_betas_zero_snr")},
        prediction=Prediction(config["prediction_type"]),
        spacing=Spacing(config["timestep_spacing"]),
    )


def make_reference(name: str, config: dict[str, Any], sigmas: SigmaSpacing, num_steps: int) -> Any:
    """diffusers' scheduler, ready to step; its Euler a, which lacks two things, is given Euler's sigmas and epsilon."""
    base = diffusers.DDIMScheduler.from_config(config).config
    karras = sigmas is SigmaSpacing.KARRAS
    changes: dict[str, Any] = {"use_karras_sigmas": True} if karras else {}
    if name == "euler_a":
        changes = {"prediction_type": "epsilon"} if config["prediction_type"] == "sample" else {}
    scheduler = getattr(diffusers, SAMPLERS[name].diffusers).from_config(base, **changes)
    scheduler.set_timesteps(num_steps)
    if name == "euler_a" and karras:
        euler = diffusers.EulerDiscreteScheduler.from_config(base, use_karras_sigmas=True)
        euler.set_timesteps(num_steps)
        scheduler.sigmas, scheduler.timesteps = euler.sigmas, euler.timesteps
    return scheduler


def assert_same_walk(ours: Plan, scheduler: Any, *, feed_epsilon: bool = False, eta: float = 0.0) -> None:
    """Feed both the same noise and the same recorded outputs, and compare the model's inputs and every sample."""
    rng = np.random.default_rng(3)
    generator = torch.Generator("cpu").manual_seed(SEED)
    stream = NoiseStream(SEED)
    theirs = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    if isinstance(scheduler, diffusers.HeunDiscreteScheduler):
        theirs = theirs.double()  # in float32 it cancels digits where sigma falls steeply, which the plan does not
    state = np.zeros((1, 1 + NUM_KEPT, *SHAPE[1:]), dtype=np.float32)
    state[:, 0] = stream.normal(SHAPE) * ours.initial_scale
    assert len(ours.timesteps) == len(scheduler.timesteps)
    np.testing.assert_allclose(ours.timesteps, scheduler.timesteps.numpy(), atol=2e-3)
    extra = {"eta": eta} if eta else {}
    if eta or isinstance(scheduler, diffusers.EulerAncestralDiscreteScheduler):
        extra["generator"] = generator
    for e, timestep in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(theirs, timestep)
        magnitude = float(theirs.abs().max())
        np.testing.assert_allclose(state[:, 0] * ours.input_scales[e], seen.numpy(), rtol=0, atol=1e-4 * magnitude)
        output = rng.standard_normal(SHAPE).astype(np.float32)
        fed = torch.from_numpy(output)
        if feed_epsilon:
            fed = (theirs - fed) / scheduler.sigmas[e]
        theirs = scheduler.step(fed, timestep, theirs, **extra).prev_sample
        noise = stream.normal(SHAPE) if ours.needs_noise[e] else None
        state = advance(state, output, noise, ours.coefficients[e : e + 1])
        np.testing.assert_allclose(state[:, 0], theirs.numpy(), rtol=0, atol=1e-4 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("prediction", Prediction)
@pytest.mark.parametrize(("name", "sigmas", "spacing"), CASES)
def test_the_walk_is_diffusers(name: str, sigmas: SigmaSpacing, spacing: Spacing, prediction: Prediction) -> None:
    config = make_config(prediction_type=prediction.value, timestep_spacing=spacing.value)
    schedule = make_schedule(config)
    for num_steps in (1, 2, 4, 10, 25, 50):
        ours = plan(SAMPLERS[name], schedule, num_steps, sigmas=sigmas)
        scheduler = make_reference(name, config, sigmas, num_steps)
        feed_epsilon = name == "euler_a" and prediction is Prediction.SAMPLE
        assert_same_walk(ours, scheduler, feed_epsilon=feed_epsilon)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("spacing", Spacing)
def test_the_walk_is_diffusers_for_other_schedules(name: str, spacing: Spacing) -> None:
    for changes in (
        {
            "beta_schedule": "linear",
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "steps_offset": 0,
            "set_alpha_to_one": True,
        },
        {"beta_schedule": "squaredcos_cap_v2", "set_alpha_to_one": True},
        {"trained_betas": np.linspace(0.001, 0.1, 100).tolist(), "num_train_timesteps": 100},
    ):
        config = make_config(timestep_spacing=spacing.value, prediction_type="epsilon", **changes)
        ours = plan(SAMPLERS[name], make_schedule(config), 7)
        assert_same_walk(ours, make_reference(name, config, SigmaSpacing.AS_TRAINED, 7))


@pytest.mark.parametrize("name", ["ddim", "euler", "euler_a", "dpmpp_2m"])  # diffusers' Heun cannot rescale
@pytest.mark.parametrize("prediction", [Prediction.V, Prediction.SAMPLE])
def test_the_walk_is_diffusers_from_pure_noise(name: str, prediction: Prediction) -> None:
    config = make_config(
        prediction_type=prediction.value,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
    )
    ours = plan(SAMPLERS[name], make_schedule(config), 10)
    scheduler = make_reference(name, config, SigmaSpacing.AS_TRAINED, 10)
    assert_same_walk(ours, scheduler, feed_epsilon=name == "euler_a" and prediction is Prediction.SAMPLE)


@pytest.mark.parametrize("prediction", Prediction)
@pytest.mark.parametrize("spacing", Spacing)
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_eta_is_diffusers(spacing: Spacing, prediction: Prediction, eta: float) -> None:
    config = make_config(prediction_type=prediction.value, timestep_spacing=spacing.value)
    for num_steps in (4, 25):
        ours = plan(SAMPLERS["ddim"], make_schedule(config), num_steps, eta=eta)
        scheduler = make_reference("ddim", config, SigmaSpacing.AS_TRAINED, num_steps)
        assert_same_walk(ours, scheduler, eta=eta)
