"""Every sampler walks as diffusers' scheduler of that name, made from a DDIM checkpoint's configuration."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.sampling import NUM_KEPT, SAMPLERS, advance, noised, plan
from mezzotint.engines.sampling.base import Setup
from mezzotint.engines.sampling.levels import multistep_levels
from mezzotint.engines.schedule import NoiseSchedule, Prediction, SigmaSpacing, Spacing

# diffusers hands torch tensors to numpy's functions, which numpy 2 warns about
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]

CONFIG = Path(__file__).parents[3] / "models" / "emoji" / "scheduler" / "scheduler_config.json"
SHAPE = (1, 4, 4, 4)
SEED = 11
SERVED = [name for name in SAMPLERS if SAMPLERS[name].diffusers]  # dpmpp_2s_a is k-diffusion's alone
CASES = [
    (name, sigmas, spacing, prediction)
    for name in SERVED
    for sigmas in SAMPLERS[name].sigma_spacings
    for spacing in Spacing
    for prediction in Prediction
    # diffusers' PNDM, which combines raw outputs, has no x0 prediction: see test_convergence.py. Nor has its KDPM2 a,
    # whose steps to low levels make so much of the random outputs that float32 is not enough to compare with.
    if prediction is not Prediction.SAMPLE or name not in ("plms", "pndm", "kdpm2_a")
]
FLAGS = {
    SigmaSpacing.AS_TRAINED: {},
    SigmaSpacing.KARRAS: {"use_karras_sigmas": True},
    SigmaSpacing.EXPONENTIAL: {"use_exponential_sigmas": True},
    SigmaSpacing.BETA: {"use_beta_sigmas": True},
}
# diffusers' classes without x0 prediction, which are given eps instead
NO_SAMPLE = ("euler_a", "kdpm2", "kdpm2_a", "dpmpp_sde")
# in float32 these cancel digits where sigma falls steeply, which the plan does not
IN_DOUBLE = ("heun", "kdpm2", "kdpm2_a", "dpmpp_sde", "lms")
RESCALED = ("ddim", "ddpm", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc", "unipc_bh1")
MULTISTEP = ("dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "deis", "unipc", "unipc_bh1")

# diffusers' PNDM and LMS count their evaluations from the first step of all, wherever they begin
LOSE_THEIR_PLACE = ("plms", "pndm", "lms")


class ThirdOrderSDE(diffusers.DPMSolverMultistepScheduler):  # type: ignore[misc]
    """diffusers' scheduler with the sign of one term as in k-diffusion, which see in ``dpmpp_sde.py``."""

    def multistep_dpm_solver_third_order_update(self, model_output_list: Any, *args: Any, **given: Any) -> Any:
        theirs = super().multistep_dpm_solver_third_order_update(model_output_list, *args, **given)
        there, *known = (self.sigmas[self.step_index + 1 - i] for i in range(4))
        h, h_0, h_1 = (torch.log(b / a) for a, b in zip((there, *known), known, strict=False))
        m0, m1, m2 = model_output_list[::-1]
        bend = ((m0 - m1) * h / h_0 - (m1 - m2) * h / h_1) * h / (h_0 + h_1)
        return theirs + bend / torch.sqrt(there**2 + 1)


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
    """diffusers' scheduler, ready to step; its Euler a, which lacks levels, is given Euler's."""
    base = diffusers.DDIMScheduler.from_config(config).config
    changes = dict(SAMPLERS[name].settings)
    if name in NO_SAMPLE and config["prediction_type"] == "sample":
        changes["prediction_type"] = "epsilon"
    if name != "euler_a":
        changes |= FLAGS[sigmas]
    made = ThirdOrderSDE if name == "dpmpp_3m_sde" else getattr(diffusers, SAMPLERS[name].diffusers)
    scheduler = made.from_config(base, **changes)
    scheduler.set_timesteps(num_steps)
    if name == "euler_a" and sigmas is not SigmaSpacing.AS_TRAINED:
        euler = diffusers.EulerDiscreteScheduler.from_config(base, **FLAGS[sigmas])
        euler.set_timesteps(num_steps)
        scheduler.sigmas, scheduler.timesteps = euler.sigmas, euler.timesteps
    return scheduler


class BrownianPath:
    """A Brownian path in sigma, by its values at some levels; called as diffusers' ``BrownianTreeNoiseSampler`` is."""

    def __init__(self, levels: list[float]) -> None:
        self.levels = np.array(levels)
        steps = np.random.default_rng(SEED).standard_normal((len(levels) - 1, *SHAPE))
        gaps = np.sqrt(-np.diff(self.levels)).reshape(-1, *(1,) * len(SHAPE))
        self.values = np.concatenate([np.zeros((1, *SHAPE)), np.cumsum(steps * gaps, axis=0)])

    def __call__(self, sigma: float, sigma_next: float) -> torch.Tensor:
        """Return unit noise: the path's difference over the square root of the distance."""
        i, k = (int(np.abs(self.levels - float(level)).argmin()) for level in (sigma, sigma_next))
        distance = self.levels[i] - self.levels[k]
        return torch.from_numpy((self.values[k] - self.values[i]) / np.sqrt(distance))


class Walk:
    """One run of both: ours by its plan, theirs by its scheduler, on the same outputs and the same noise.

    With ``num_skipped`` steps left out it begins with something clean that is noised, as an initial picture is.
    """

    def __init__(
        self,
        name: str,
        config: dict[str, Any],
        sigmas: SigmaSpacing,
        num_steps: int,
        num_skipped: int = 0,
        **options: Any,
    ) -> None:
        self.name = name
        cut = {"num_skipped": num_skipped, **options}
        self.schedule = make_schedule(config)
        self.ours = plan(SAMPLERS[name], self.schedule, num_steps, sigmas=sigmas, **cut)
        self.scheduler = make_reference(name, config, sigmas, num_steps)
        self.fed_epsilon = name in NO_SAMPLE and self.schedule.prediction is Prediction.SAMPLE
        epsilon = NoiseSchedule(
            self.schedule.alphas_cumprod, Prediction.EPSILON, self.schedule.spacing, self.schedule.steps_offset, True
        )
        if name in IN_DOUBLE or self.fed_epsilon:
            by_epsilon = plan(SAMPLERS[name], epsilon, num_steps, sigmas=sigmas, **cut)
            self.levels = [float(-b) for _, b in by_epsilon.denoised]
        if name in MULTISTEP:
            self.exact_sigmas(Setup(self.schedule, num_steps, self.schedule.spacing, sigmas, 0.0))
        self.first = num_skipped * self.scheduler.order
        if hasattr(self.scheduler, "set_begin_index"):
            # else it looks its first timestep up, and finds the second one where both are truncated to the same
            self.scheduler.set_begin_index(self.first)
        self.extra = {"eta": 0.0, **options} if SAMPLERS[name].takes_eta else options
        self.generator = torch.Generator("cpu").manual_seed(SEED)
        self.stream = NoiseStream(SEED)

    def exact_sigmas(self, setup: Setup) -> None:
        """Give theirs the noise levels without float32's rounding, which spoils the differences of close ones."""
        _, exact = multistep_levels(setup, self.name)
        np.testing.assert_allclose(self.scheduler.sigmas[:-1].numpy(), exact, rtol=1e-5)
        ended = self.scheduler.sigmas[-1:].double()
        if ended == self.scheduler.sigmas[-2]:  # DEIS stands still there
            ended = torch.tensor(exact[-1:], dtype=torch.float64)
        self.scheduler.sigmas = torch.cat([torch.tensor(exact, dtype=torch.float64), ended])

    def noise_sources(self) -> Callable[[int], np.ndarray]:
        """Return ours by evaluation; DPM++ SDE goes along a Brownian path, of which ours takes increments."""
        if "generator" in inspect.signature(self.scheduler.step).parameters:
            self.extra = {**self.extra, "generator": self.generator}
        if self.name != "dpmpp_sde":
            return lambda e: self.stream.normal(SHAPE)
        path = self.scheduler.noise_sampler = BrownianPath(self.levels)
        return lambda e: path(self.levels[e], self.levels[e + 1]).numpy().astype(np.float32)

    def check(self) -> None:
        """Compare the timesteps, the model's inputs, and every sample."""
        ours, scheduler = self.ours, self.scheduler
        draw = self.noise_sources()
        rng = np.random.default_rng(3)
        timesteps = scheduler.timesteps[self.first :]
        theirs = torch.randn(SHAPE, generator=self.generator)
        state = np.zeros((1, 1 + NUM_KEPT, *SHAPE[1:]), dtype=np.float32)
        state[:, 0] = self.stream.normal(SHAPE)
        if self.first:
            clean = rng.standard_normal(SHAPE).astype(np.float32)
            theirs = scheduler.add_noise(torch.from_numpy(clean), theirs, timesteps[:1])
            state[:, 0] = noised(clean, state[:, 0], ours)
        else:
            theirs, state[:, 0] = theirs * scheduler.init_noise_sigma, state[:, 0] * ours.initial_scale
        theirs = theirs.double() if self.name in IN_DOUBLE else theirs
        assert len(ours.timesteps) == len(timesteps)
        # a timestep just below a whole one is truncated by diffusers
        atol = 1.01 if self.name in MULTISTEP else 2e-3
        np.testing.assert_allclose(ours.timesteps, timesteps.numpy(), atol=atol)
        for e, timestep in enumerate(timesteps):
            seen = scheduler.scale_model_input(theirs, timestep)
            assert_near(state[:, 0] * ours.input_scales[e], seen.numpy(), float(theirs.abs().max()))
            output = rng.standard_normal(SHAPE).astype(np.float32)
            fed = torch.from_numpy(output)
            fed = (theirs - fed) / self.levels[e] if self.fed_epsilon else fed
            theirs = scheduler.step(fed, timestep, theirs, **self.extra).prev_sample
            noise = draw(e) if ours.needs_noise[e] else None
            state = advance(state, output, noise, ours.coefficients[e : e + 1])
            if self.name == "unipc_bh1" and e == ours.num_evaluations - 1:  # theirs multiplies 0 by infinity there
                assert torch.isnan(theirs).all()
                return
            assert_near(state[:, 0], theirs.numpy(), max(1.0, float(theirs.abs().max())))


def assert_near(ours: np.ndarray, theirs: np.ndarray, magnitude: float) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * magnitude)


@pytest.mark.parametrize(
    ("name", "sigmas"), [(name, sigmas) for name in SERVED for sigmas in SAMPLERS[name].sigma_spacings]
)
def test_the_walk_is_diffusers(name: str, sigmas: SigmaSpacing) -> None:
    config = make_config(timestep_spacing=SAMPLERS[name].default_spacing.value)
    Walk(name, config, sigmas, 10).check()


@pytest.mark.parametrize("name", [name for name in SERVED if name not in LOSE_THEIR_PLACE])
def test_the_walk_from_a_noised_picture_is_diffusers(name: str) -> None:
    config = make_config(timestep_spacing=SAMPLERS[name].default_spacing.value)
    sigmas = SAMPLERS[name].sigma_spacings[-1]
    for num_skipped in (1, 7, 9):
        Walk(name, config, sigmas, 10, num_skipped).check()
    Walk(name, config, SigmaSpacing.AS_TRAINED, 20, 5).check()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sigmas", "spacing", "prediction"), CASES)
def test_the_walk_is_diffusers_with_every_setting(
    name: str, sigmas: SigmaSpacing, spacing: Spacing, prediction: Prediction
) -> None:
    config = make_config(prediction_type=prediction.value, timestep_spacing=spacing.value)
    # theirs has no fewer steps of PNDM, loses the digits of KDPM2 a's low levels in float32, and DEIS may stand still
    few = () if name in ("pndm", "kdpm2_a") or (name == "deis" and FLAGS[sigmas]) else (1, 2)
    for num_steps in (*few, 4, 10, 25, 50):
        Walk(name, config, sigmas, num_steps).check()


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
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
        if name == "kdpm2_a" and changes.get("beta_schedule") == "squaredcos_cap_v2":
            continue  # theirs is NaN: in float32 nothing is left of sigma_down below the cosine schedule's first level
        config = make_config(timestep_spacing=spacing.value, prediction_type="epsilon", **changes)
        Walk(name, config, SigmaSpacing.AS_TRAINED, 7).check()


@pytest.mark.parametrize("name", [*RESCALED, "lcm", "tcd"])
@pytest.mark.parametrize("prediction", [Prediction.V, Prediction.SAMPLE])
def test_the_walk_is_diffusers_from_pure_noise(name: str, prediction: Prediction) -> None:
    config = make_config(
        prediction_type=prediction.value,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
    )
    Walk(name, config, SigmaSpacing.AS_TRAINED, 10).check()


@pytest.mark.parametrize("prediction", Prediction)
@pytest.mark.parametrize("spacing", Spacing)
@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("name", ["ddim", "tcd"])
def test_fresh_noise_by_eta_is_diffusers(name: str, spacing: Spacing, prediction: Prediction, eta: float) -> None:
    config = make_config(prediction_type=prediction.value, timestep_spacing=spacing.value)
    for num_steps in (4, 10, 25, 50):
        Walk(name, config, SigmaSpacing.AS_TRAINED, num_steps, eta=eta).check()


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_distilled_samplers_take_at_most_the_steps_of_their_distillation(name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"steps=51: {name} takes at most 50"):
        plan(SAMPLERS[name], make_schedule(make_config()), 51)


def test_pndm_takes_at_least_the_steps_that_it_begins_with() -> None:
    with pytest.raises(InvalidRequest, match=r"steps=3: pndm takes at least 4; use plms for fewer"):
        plan(SAMPLERS["pndm"], make_schedule(make_config()), 3)


@pytest.mark.parametrize("name", ["unipc", "unipc_bh1"])
def test_unipc_ends_in_the_predicted_clean_sample(name: str) -> None:
    ours = plan(SAMPLERS[name], make_schedule(make_config()), 10)
    of_sample, of_output = ours.denoised[-1]
    ended = ours.coefficients[-1, 0]
    np.testing.assert_allclose([ended[0], ended[-2]], [of_sample, of_output], atol=1e-6)
    assert not ended[1:-2].any()
