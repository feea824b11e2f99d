"""What a UNet is trained towards, and how far from it counts: pure functions of arrays.

``alphas`` are ᾱ of each row's timestep, float32 [b]; latents, noise and predictions are [b, channels, h, w].
"""

from dataclasses import dataclass

import torch

OFFSET = 0.1
"""How far offset noise shifts a channel, as in diffusers' train_dreambooth."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of a batch, scalars: ``instance`` + prior_loss_weight · ``prior``, which is None without class rows."""

    total: torch.Tensor
    instance: torch.Tensor
    prior: torch.Tensor | None


def noisy(latents: torch.Tensor, noise: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
    """Return latents with noise at each row's level (eq. 4 of "Denoising Diffusion Probabilistic Models")."""
    signal, spread = _scales(alphas)
    return signal * latents + spread * noise


def target(prediction_type: str, latents: torch.Tensor, noise: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
    """Return what the UNet should predict: noise, v (appendix D of "Progressive Distillation") or the latents.

    ``prediction_type`` is ``epsilon``, ``v_prediction`` or ``sample``.
    """
    signal, spread = _scales(alphas)
    return {"epsilon": noise, "v_prediction": signal * noise - spread * latents, "sample": latents}[prediction_type]


def min_snr_weights(prediction_type: str, alphas: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return each row's weight, float32 [b] ("Efficient Diffusion Training via Min-SNR Weighting Strategy").

    It is min(SNR, gamma) for a loss on latents, hence over SNR for one on noise and over SNR + 1 for one on v.
    """
    snr = alphas / (1 - alphas)
    capped = snr.clamp(max=gamma)
    # Where there is no signal at all the first has 0 / 0, whose limit is 1.
    epsilon = torch.where(snr > 0, capped / snr.clamp(min=torch.finfo(snr.dtype).tiny), 1.0)
    return {"epsilon": epsilon, "v_prediction": capped / (snr + 1), "sample": capped}[prediction_type]


def dreambooth_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    *,
    num_instance: int,
    prior_loss_weight: float = 1.0,
    weights: torch.Tensor | None = None,
) -> Losses:
    """Return the mean squared error of the first ``num_instance`` rows, and of the others, those of the class.

    ``weights``, [b], are factors of rows. The sum is that of "DreamBooth", eq. 2.
    """
    rows = (prediction.float() - target.float()).square().flatten(1).mean(1)
    if weights is not None:
        rows = rows * weights
    instance = rows[:num_instance].mean()
    if num_instance == len(rows):
        return Losses(instance, instance, None)
    prior = rows[num_instance:].mean()
    return Losses(instance + prior_loss_weight * prior, instance, prior)


def _scales(alphas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    column = alphas[:, None, None, None]
    return column.sqrt(), (1 - column).sqrt()
