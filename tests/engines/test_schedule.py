"""The noise schedule agrees with diffusers, and its one conversion table with the definitions."""

import math

import numpy as np
import pytest
import scipy.stats
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from mezzotint.engines.errors import CheckpointError, InvalidRequest
from mezzotint.engines.schedule import (
    NoiseSchedule,
    Prediction,
    SigmaSpacing,
    Spacing,
    beta_quantiles,
    conversion,
    karras_sigmas,
    spread_sigmas,
)

BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}


def make(beta_schedule: str = "scaled_linear", **changes: object) -> NoiseSchedule:
    fields = {
        **BETAS,
        "beta_schedule": beta_schedule,
        "prediction": Prediction.EPSILON,
        "spacing": Spacing.LEADING,
        "steps_offset": 1,
        "set_alpha_to_one": False,
    }
    return NoiseSchedule.from_betas(**{**fields, **changes})


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("num_train_timesteps", [1000, 501])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_alphas_agree_with_diffusers(beta_schedule: str, num_train_timesteps: int, zero_snr: bool) -> None:
    betas = {**BETAS, "num_train_timesteps": num_train_timesteps}
    expected = DDIMScheduler(**betas, beta_schedule=beta_schedule, rescale_betas_zero_snr=zero_snr)
    ours = make(beta_schedule, num_train_timesteps=num_train_timesteps, rescale_betas_zero_snr=zero_snr)
    # rescaling subtracts float32 square roots near the end, where torch rounds them otherwise
    rtol = 1e-4 if zero_snr else 1e-6
    np.testing.assert_allclose(ours.alphas_cumprod, expected.alphas_cumprod.numpy(), rtol=rtol)
    assert (ours.alphas_cumprod[-1] == 0) == zero_snr


def test_trained_betas_take_the_place_of_the_formula() -> None:
    betas = np.linspace(0.001, 0.02, 40)
    expected = DDIMScheduler(trained_betas=betas, num_train_timesteps=40)
    ours = make(trained_betas=betas.tolist(), beta_schedule="unused")
    np.testing.assert_allclose(ours.alphas_cumprod, expected.alphas_cumprod.numpy(), rtol=1e-6)
    assert ours.num_train_timesteps == 40


def test_sigmas_stay_finite_without_terminal_signal() -> None:
    expected = EulerDiscreteScheduler(**BETAS, beta_schedule="scaled_linear", rescale_betas_zero_snr=True)
    sigmas = make(rescale_betas_zero_snr=True).sigmas
    np.testing.assert_allclose(sigmas[::-1], expected.sigmas.numpy()[:-1], rtol=1e-5)


@pytest.mark.parametrize("spacing", Spacing)
def test_every_number_of_steps_gives_that_many_falling_timesteps(spacing: Spacing) -> None:
    schedule = make()
    for num_steps in range(1, 1001):
        timesteps = schedule.timesteps(num_steps, spacing)
        assert len(timesteps) == num_steps
        assert timesteps[0] <= 999
        assert timesteps[-1] >= 0
        assert (np.diff(timesteps) <= 0).all()


def test_timesteps_of_sigmas_are_the_inverse_of_sigmas_of_timesteps() -> None:
    schedule = make()
    timesteps = np.array([999.0, 500.0, 20.0, 1.0, 0.0])
    np.testing.assert_allclose(schedule.timesteps_at(schedule.sigmas_at(timesteps)), timesteps, atol=1e-6)


def test_karras_sigmas_fall_from_the_largest_to_the_smallest() -> None:
    sigmas = karras_sigmas(0.03, 14.6, 10)
    assert sigmas[0] == pytest.approx(14.6)
    assert sigmas[-1] == pytest.approx(0.03)
    roots = sigmas ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0])


def test_exponential_sigmas_have_one_ratio() -> None:
    sigmas = spread_sigmas(SigmaSpacing.EXPONENTIAL, 0.03, 14.6, 10)
    assert (sigmas[0], sigmas[-1]) == (pytest.approx(14.6), pytest.approx(0.03))
    np.testing.assert_allclose(sigmas[1:] / sigmas[:-1], sigmas[1] / sigmas[0])


@pytest.mark.parametrize("shape", [0.3, 0.6, 0.9])
def test_beta_quantiles_are_scipys(shape: float) -> None:
    shares = 1 - np.linspace(0, 1, 101)
    np.testing.assert_allclose(beta_quantiles(shares, shape), scipy.stats.beta.ppf(shares, shape, shape), atol=1e-12)


def test_levels_of_no_formula_are_refused() -> None:
    with pytest.raises(ValueError, match="default levels are not spread"):
        spread_sigmas(SigmaSpacing.AS_TRAINED, 0.03, 14.6, 10)


@pytest.mark.parametrize("prediction", Prediction)
def test_a_perfect_output_converts_back_to_the_sample_and_noise_it_was_made_of(prediction: Prediction) -> None:
    alpha, sigma, x0, noise = 0.6, 0.8, 1.7, -0.4
    sample = alpha * x0 + sigma * noise
    output = {
        Prediction.EPSILON: noise,
        Prediction.V: alpha * noise - sigma * x0,
        Prediction.SAMPLE: x0,
    }[prediction]
    to = conversion(prediction, alpha, sigma)
    assert to.x0[0] * sample + to.x0[1] * output == pytest.approx(x0)
    assert to.noise[0] * sample + to.noise[1] * output == pytest.approx(noise)


def test_epsilon_without_signal_and_sample_without_noise_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="predicts epsilon says nothing at alpha=0"):
        conversion(Prediction.EPSILON, 0.0, 1.0)
    with pytest.raises(InvalidRequest, match="predicts sample says nothing"):
        conversion(Prediction.SAMPLE, 1.0, 0.0)


def test_an_unknown_beta_schedule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="beta_schedule='sigmoid': must be one of linear, scaled_linear"):
        make("sigmoid")


@pytest.mark.parametrize("betas", [[], [math.nan, 0.1], [0.1, -0.5], [0.1, 1.5], [0.0, 0.1]], ids=str)
def test_betas_that_make_no_schedule_are_refused(betas: list[float]) -> None:
    with pytest.raises(CheckpointError, match="do not fall from below 1"):
        make(trained_betas=betas)
