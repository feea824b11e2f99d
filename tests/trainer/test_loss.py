"""Targets and weights beside diffusers' own, and the sum of two halves by hand."""

import diffusers
import pytest
import torch
from diffusers.training_utils import compute_snr

from mezzotint.trainer import loss

SCHEDULE = diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
STEPS = torch.tensor([0, 10, 400, 999])
ALPHAS = SCHEDULE.alphas_cumprod[STEPS]


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(4, 4, 3, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn(4, 4, 3, 5, generator=torch.Generator().manual_seed(2))


def test_noisy_latents_and_targets_are_those_of_diffusers(latents: torch.Tensor, noise: torch.Tensor) -> None:
    torch.testing.assert_close(loss.noisy(latents, noise, ALPHAS), SCHEDULE.add_noise(latents, noise, STEPS))
    velocity = SCHEDULE.get_velocity(latents, noise, STEPS)
    torch.testing.assert_close(loss.target("v_prediction", latents, noise, ALPHAS), velocity)
    assert loss.target("epsilon", latents, noise, ALPHAS) is noise
    assert loss.target("sample", latents, noise, ALPHAS) is latents


@pytest.mark.parametrize(("prediction_type", "added"), [("epsilon", 0), ("v_prediction", 1)])
def test_min_snr_weights_are_those_of_train_dreambooth(prediction_type: str, added: int) -> None:
    snr = compute_snr(SCHEDULE, STEPS)
    expected = torch.minimum(snr, torch.full_like(snr, 5.0)) / (snr + added)
    torch.testing.assert_close(loss.min_snr_weights(prediction_type, ALPHAS, 5.0), expected)


def test_min_snr_weights_are_numbers_where_no_signal_is_left() -> None:
    none = torch.zeros(1)
    assert [loss.min_snr_weights(kind, none, 5.0).item() for kind in ("epsilon", "v_prediction", "sample")] == [1, 0, 0]


def test_the_loss_is_the_instance_half_and_the_weighted_class_half() -> None:
    prediction = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None, None].expand(4, 4, 2, 2)
    found = loss.dreambooth_loss(prediction, torch.zeros(4, 4, 2, 2), num_instance=2, prior_loss_weight=0.5)
    assert found.prior is not None
    assert (found.instance.item(), found.prior.item()) == (2.5, 12.5)
    assert found.total.item() == 2.5 + 0.5 * 12.5


def test_without_class_rows_the_loss_is_the_mean_of_weighted_rows() -> None:
    prediction = torch.tensor([1.0, 2.0])[:, None, None, None].expand(2, 4, 2, 2)
    weights = torch.tensor([1.0, 0.25])
    found = loss.dreambooth_loss(prediction, torch.zeros(2, 4, 2, 2), num_instance=2, weights=weights)
    assert found.prior is None
    assert found.total.item() == 1.0
