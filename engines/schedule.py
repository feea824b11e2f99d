"""Noise schedules: how much signal and noise a model was trained with at each timestep, and what its output means.

Owns the alphas, the spacings of timesteps and noise levels, and the one table from a model's output to (x0, noise).
Imports numpy, the standard library and the errors, nothing else. Everything here agrees with diffusers' float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from mezzotint.engines.errors import CheckpointError, InvalidRequest

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

_KARRAS_RHO = 7.0
_MAX_COSINE_BETA = 0.999
# diffusers puts fp16's smallest subnormal in the place of a zero alpha, so that the first sigma is finite: 4096.
_SMALLEST_ALPHA_CUMPROD = 2.0**-24


class Prediction(StrEnum):
    """What the model's output is, under diffusers' names (``prediction_type``)."""

    EPSILON = "epsilon"
    V = "v_prediction"
    SAMPLE = "sample"


class Spacing(StrEnum):
    """How a few timesteps are picked from the trained ones (Lin et al. 2023, arXiv 2305.08891, Table 2)."""

    LEADING = "leading"
    TRAILING = "trailing"
    LINSPACE = "linspace"


class SigmaSpacing(StrEnum):
    """Noise levels: the trained ones of the timesteps, or as many spread between the largest and the smallest of them.

    ``karras`` is equation 5 of Karras et al. 2022 (arXiv 2206.00364), ``exponential`` has uniform steps in log sigma,
    ``beta`` follows the quantiles of Beta(0.6, 0.6) (Lee et al. 2024, arXiv 2407.12173). ``automatic`` is what A1111
    chooses for the sampler.
    """

    AS_TRAINED = "default"
    KARRAS = "karras"
    EXPONENTIAL = "exponential"
    BETA = "beta"
    AUTOMATIC = "automatic"


@dataclass(frozen=True, slots=True)
class Conversion:
    """A variance-preserving sample and a model output as x0 and noise: each a pair of factors for (sample, output)."""

    x0: tuple[float, float]
    noise: tuple[float, float]


def conversion(prediction: Prediction, alpha: float, sigma: float) -> Conversion:
    """Return the row of the conversion table for sample = alpha * x0 + sigma * noise.

    v = alpha * noise - sigma * x0 is from Salimans & Ho 2022 (arXiv 2202.00512), appendix D.

    Raises:
        InvalidRequest: the row has no answer: epsilon without signal (alpha = 0), sample without noise (sigma = 0).
    """
    match prediction:
        case Prediction.EPSILON if alpha:
            return Conversion(x0=(1.0 / alpha, -sigma / alpha), noise=(0.0, 1.0))
        case Prediction.V:
            return Conversion(x0=(alpha, -sigma), noise=(sigma, alpha))
        case Prediction.SAMPLE if sigma:
            return Conversion(x0=(0.0, 1.0), noise=(1.0 / sigma, -alpha / sigma))
    raise InvalidRequest(
        f"a model that predicts {prediction.value} says nothing at alpha={alpha:g}, sigma={sigma:g}; "
        "use leading spacing, or a sampler other than ddim"
    )


def karras_sigmas(sigma_min: float, sigma_max: float, num_steps: int) -> Float64Array:
    """Return float64 [num_steps] sigmas from ``sigma_max`` down to ``sigma_min`` (Karras et al. 2022, equation 5)."""
    ramp = np.linspace(0.0, 1.0, num_steps)
    low, high = sigma_min ** (1 / _KARRAS_RHO), sigma_max ** (1 / _KARRAS_RHO)
    sigmas: Float64Array = (high + ramp * (low - high)) ** _KARRAS_RHO
    return sigmas


def spread_sigmas(spacing: SigmaSpacing, sigma_min: float, sigma_max: float, num_steps: int) -> Float64Array:
    """Return float64 [num_steps] sigmas from ``sigma_max`` down to ``sigma_min``.

    Raises:
        ValueError: ``spacing`` names no formula of its own.
    """
    match spacing:
        case SigmaSpacing.KARRAS:
            return karras_sigmas(sigma_min, sigma_max, num_steps)
        case SigmaSpacing.EXPONENTIAL:
            sigmas: Float64Array = np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), num_steps))
            return sigmas
        case SigmaSpacing.BETA:
            quantiles = beta_quantiles(1.0 - np.linspace(0.0, 1.0, num_steps))
            return sigma_min + quantiles * (sigma_max - sigma_min)
    raise ValueError(f"{spacing.value} levels are not spread between two; take them from the schedule")


def beta_quantiles(shares: Float64Array, shape: float = 0.6) -> Float64Array:
    """Return float64 quantiles of Beta(shape, shape) at ``shares`` of 0…1, for a shape below 1.

    By symmetry only x up to 1/2 is solved for: Newton's method in u = x^shape, in which the series of the incomplete
    beta function (DLMF 8.17.7) is convex and nearly straight.
    """
    lower = np.minimum(shares, 1.0 - shares)
    whole = math.gamma(shape) ** 2 / math.gamma(2 * shape)
    powers = np.arange(128)
    series = np.cumprod(np.where(powers, (powers - shape) / np.maximum(powers, 1), 1.0)) / (shape + powers)
    u = lower * shape * whole
    for _ in range(8):
        x = u ** (1 / shape)
        area = u * (x[:, None] ** powers @ series) / whole
        u = u - (area - lower) * shape * whole * (1.0 - x) ** (1.0 - shape)
    x = u ** (1 / shape)
    return np.where(shares <= 0.5, x, 1.0 - x)


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSchedule:
    """A checkpoint's noise schedule.

    Attributes:
        alphas_cumprod: float32 [num_train_timesteps], the share of signal power at each trained timestep, decreasing.
        prediction: what the model's output is.
        spacing: the checkpoint's own choice of timesteps, when a request names none.
        steps_offset: added to timesteps of leading spacing.
        set_alpha_to_one: whether DDIM's last step ends without noise, or at the first trained timestep.
    """

    alphas_cumprod: Float32Array
    prediction: Prediction
    spacing: Spacing
    steps_offset: int
    set_alpha_to_one: bool

    def __post_init__(self) -> None:
        alphas = np.array(self.alphas_cumprod, dtype=np.float32)
        # written so that NaN fails
        falls = alphas.ndim == 1 and alphas.size and alphas[0] < 1 and alphas[-1] >= 0 and np.all(np.diff(alphas) <= 0)
        if not falls:
            raise CheckpointError(
                "the noise schedule's alphas_cumprod do not fall from below 1 to at least 0; "
                "check the betas in the checkpoint's scheduler_config.json"
            )
        alphas.setflags(write=False)
        object.__setattr__(self, "alphas_cumprod", alphas)

    @classmethod
    def from_betas(
        cls,
        *,
        num_train_timesteps: int,
        beta_start: float,
        beta_end: float,
        beta_schedule: str,
        trained_betas: Sequence[float] | None = None,
        prediction: Prediction,
        spacing: Spacing,
        steps_offset: int,
        set_alpha_to_one: bool,
        rescale_betas_zero_snr: bool = False,
    ) -> "NoiseSchedule":
        """Build the schedule from the fields of a diffusers ``scheduler_config.json``, which are named like these.

        Raises:
            CheckpointError: ``beta_schedule`` is unknown or the betas make no schedule.
        """
        if trained_betas is not None:
            betas = np.asarray(trained_betas, dtype=np.float32)
        else:
            betas = _betas(beta_schedule, beta_start, beta_end, num_train_timesteps)
        if rescale_betas_zero_snr:
            betas = _rescale_zero_terminal_snr(betas)
        return cls(_cumprod(np.float32(1.0) - betas), prediction, spacing, steps_offset, set_alpha_to_one)

    @property
    def num_train_timesteps(self) -> int:
        """The number of trained timesteps: 1000 for every Stable Diffusion."""
        return int(self.alphas_cumprod.size)

    @property
    def sigmas(self) -> Float64Array:
        """Float64 [num_train_timesteps]: noise over signal at each trained timestep, increasing and finite."""
        alphas = np.where(self.alphas_cumprod == 0, np.float32(_SMALLEST_ALPHA_CUMPROD), self.alphas_cumprod)
        return np.sqrt((np.float32(1.0) - alphas) / alphas).astype(np.float64)

    def timesteps(self, num_steps: int, spacing: Spacing) -> Float64Array:
        """Return float64 [num_steps] falling timesteps of 0 to num_train_timesteps − 1; linspace's may be fractional.

        Deviates from diffusers where leading spacing with an offset runs past the last timestep (num_steps = 1000):
        kept at the last one.
        """
        num_train = self.num_train_timesteps
        steps: Float64Array
        match spacing:
            case Spacing.LEADING:
                steps = np.arange(num_steps - 1.0, -1.0, -1.0) * (num_train // num_steps) + self.steps_offset
            case Spacing.TRAILING:
                # float noise of arange may append a value near 0, which is no timestep
                steps = np.round(np.arange(num_train, 0, -num_train / num_steps)[:num_steps]) - 1
            case Spacing.LINSPACE:
                steps = np.linspace(0, num_train - 1, num_steps)[::-1]
        clipped: Float64Array = np.clip(steps, 0.0, num_train - 1.0)
        return clipped

    def sigmas_at(self, timesteps: Float64Array) -> Float64Array:
        """Return float64 sigmas at (fractional) timesteps, linear between trained ones."""
        sigmas: Float64Array = np.interp(timesteps, np.arange(self.num_train_timesteps), self.sigmas)
        return sigmas

    def timesteps_at(self, sigmas: Float64Array) -> Float64Array:
        """Return float64 fractional timesteps of noise levels ``sigmas``, linear in log sigma between trained ones."""
        timesteps: Float64Array = np.interp(np.log(sigmas), np.log(self.sigmas), np.arange(self.num_train_timesteps))
        return timesteps


def _betas(beta_schedule: str, start: float, end: float, num: int) -> Float32Array:
    match beta_schedule:
        case "linear":
            return _linspace(start, end, num)
        case "scaled_linear":
            return _linspace(start**0.5, end**0.5, num) ** 2
        case "squaredcos_cap_v2":
            return _cosine_betas(num)
    raise CheckpointError(
        f"beta_schedule={beta_schedule!r}: must be one of linear, scaled_linear, squaredcos_cap_v2; "
        "give trained_betas in the checkpoint's scheduler_config.json for any other"
    )


def _linspace(start: float, end: float, num: int) -> Float32Array:
    """Return torch.linspace's float32 values, bit for bit: half from each end, each rounded once (FMA)."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(max(num - 1, 1)))
    index = np.arange(num)
    from_first, from_last = np.float64(first) + step * index, np.float64(last) - step * (num - 1 - index)
    return np.where(index < max(num // 2, 1), from_first, from_last).astype(np.float32)


def _cosine_betas(num: int) -> Float32Array:
    """Nichol & Dhariwal 2021 (arXiv 2102.09672), equation 17, capped as there."""

    def alpha_bar(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - alpha_bar((i + 1) / num) / alpha_bar(i / num), _MAX_COSINE_BETA) for i in range(num)]
    return np.array(betas, dtype=np.float32)


def _cumprod(alphas: Float32Array) -> Float32Array:
    # torch multiplies up in float64 on a CPU and rounds each product
    return np.cumprod(alphas.astype(np.float64)).astype(np.float32)


def _rescale_zero_terminal_snr(betas: Float32Array) -> Float32Array:
    """Lin et al. 2023 (arXiv 2305.08891), algorithm 1: shift and scale so that the last timestep is pure noise."""
    roots = np.sqrt(_cumprod(np.float32(1.0) - betas))
    first, last = roots[0], roots[-1]
    alphas_bar = ((roots - last) * (first / (first - last))) ** 2
    alphas = np.concatenate([alphas_bar[:1], alphas_bar[1:] / alphas_bar[:-1]])
    rescaled: Float32Array = np.float32(1.0) - alphas
    return rescaled
