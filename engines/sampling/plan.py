"""A sampler as a table of numbers, and the one expression that applies such tables to a batch of images.

``plan`` runs a sampler's own function on unit vectors; ``advance`` knows the array API alone, so it runs where the
latents are. No random numbers are made here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from mezzotint.engines import device
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling.base import Sampler, Setup, evaluate
from mezzotint.engines.sampling.registry import NUM_KEPT
from mezzotint.engines.schedule import NoiseSchedule, SigmaSpacing, Spacing

Array: TypeAlias = Any
"""An array of any library that follows the Python array API: numpy, CuPy, array_api_strict."""

Float32Array = npt.NDArray[np.float32]
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything that an image's run needs, one entry for each of its E model evaluations; read-only, free to share.

    Attributes:
        num_steps: the steps that it takes: those that the user asked for, less those that a start skips.
        initial_scale: unit gaussian noise times this is the first sample.
        timesteps: float32 [E], what the model is told; may be fractional.
        input_scales: float32 [E], the model sees sample * scale.
        coefficients: float32 [E, 1 + NUM_KEPT, 3 + NUM_KEPT], for ``advance``: rows make (next sample, kept…) from
            columns (sample, kept…, output, noise).
        denoised: float32 [E, 2], the predicted clean sample is [0] * sample + [1] * output, for previews.
        needs_noise: bool [E], whether to draw noise for the evaluation from the image's stream.
        steps: int64 [E], the user's steps that are complete after the evaluation.
        levels: float32 [E + 1, 2], what the sample before each evaluation is made of: [0] * clean sample + [1] * unit
            noise; the last is the end, the clean sample alone.
    """

    num_steps: int
    initial_scale: float
    timesteps: Float32Array
    input_scales: Float32Array
    coefficients: Float32Array
    denoised: Float32Array
    needs_noise: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]
    levels: Float32Array

    @property
    def num_evaluations(self) -> int:
        """The number of times that the model is called."""
        return len(self.timesteps)


def plan(
    sampler: Sampler,
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    spacing: Spacing | None = None,
    sigmas: SigmaSpacing = SigmaSpacing.AS_TRAINED,
    eta: float = 0.0,
    custom_sigmas: tuple[float, ...] = (),
    num_skipped: int = 0,
) -> Plan:
    """Return the table of one run: ``sampler`` over ``num_steps`` of ``schedule``.

    Args:
        sampler: from ``get_sampler`` or ``SAMPLERS``.
        schedule: the checkpoint's.
        num_steps: 1 to the schedule's num_train_timesteps.
        spacing: how timesteps are picked; None is the checkpoint's own choice.
        sigmas: the noise levels.
        eta: 0 to 1, the share of fresh noise: for DDIM 0 is deterministic and 1 is DDPM; for TCD it is gamma.
        custom_sigmas: ``num_steps`` falling noise levels in the place of ``sigmas``; their last step goes to 0.
        num_skipped: the first steps, which are left out: the run begins without history at the level that they lead to.

    Raises:
        InvalidRequest: a number is out of range, or the sampler does not take it.
    """
    spacing = schedule.spacing if spacing is None else spacing
    sigmas = sampler.automatic if sigmas is SigmaSpacing.AUTOMATIC else sigmas
    _check(sampler, schedule, num_steps, sigmas, eta)
    if custom_sigmas and SigmaSpacing.KARRAS not in sampler.sigma_spacings:
        raise InvalidRequest(f"custom_sigmas: sampler {sampler.name} has none; use dpmpp_2m, euler or heun")
    trajectory = sampler.trajectory(Setup(schedule, num_steps, spacing, sigmas, eta, custom_sigmas, num_skipped))
    evaluations = trajectory.evaluations
    coefficients = np.zeros((len(evaluations), 1 + NUM_KEPT, 3 + NUM_KEPT))
    denoised = np.zeros((len(evaluations), 2))
    x, *kept, output, noise = np.eye(3 + NUM_KEPT)
    for e, evaluation in enumerate(evaluations):
        rows, x0 = evaluate(evaluation, schedule.prediction, x, tuple(kept), output, noise)
        coefficients[e, : len(rows)] = rows
        denoised[e] = x0 @ x, x0 @ output
    uses_noise = np.any(coefficients[..., -1], axis=1)
    draws = np.array([evaluation.draws for evaluation in evaluations])
    seen = [(e.level.alpha / e.input_scale, e.level.sigma / e.input_scale) for e in evaluations]
    return Plan(
        num_steps=num_steps - num_skipped,
        initial_scale=trajectory.initial_scale,
        timesteps=_frozen([evaluation.timestep for evaluation in evaluations]),
        input_scales=_frozen([evaluation.input_scale for evaluation in evaluations]),
        coefficients=_frozen(coefficients),
        denoised=_frozen(denoised),
        # An unused draw before a used one is made too: diffusers draws it, and the stream must stay in step.
        needs_noise=_read_only(draws & np.logical_or.accumulate(uses_noise[::-1])[::-1]),
        steps=_read_only(np.array([evaluation.num_done for evaluation in evaluations], dtype=np.int64)),
        levels=_frozen([*seen, (1.0, 0.0)]),
    )


def advance(state: Array, output: Array, noise: Array | None, coefficients: Float32Array) -> Array:
    """Apply each image's own entry of its own plan to a batch of images; returns the new state.

    An image's result is bit for bit the same whoever shares the batch: columns are added element by element in a fixed
    order, without a matrix product, from +0.0. A sum that starts there is never −0.0, so adding a column of coefficient
    0, which is ±0.0, changes nothing, and columns that no image of the batch uses are left out; so are the last kept
    arrays where none makes them. This holds for finite arrays: give zeros, not uninitialised memory, as the noise of an
    image that needs none and as its first kept arrays.

    Args:
        state: float32 [n, 1 + NUM_KEPT, C, H, W], sample and kept arrays, on any array API device.
        output: float32 [n, C, H, W], the guided model output.
        noise: float32 [n, C, H, W], or None where no image's entry uses it.
        coefficients: numpy float32 [n, 1 + NUM_KEPT, 3 + NUM_KEPT], one entry of ``Plan.coefficients`` for each image.

    Raises:
        ValueError: an entry uses noise, and there is none.
    """
    used = np.any(coefficients, axis=(0, 1)).tolist()
    if noise is None and used[-1]:
        raise ValueError("noise is None, but an image's plan entry uses it; draw it where Plan.needs_noise is set")
    xp = device.xp(state)
    num_state = state.shape[1]
    num_made = 1 + int(np.flatnonzero(np.any(coefficients, axis=(0, 2))).max(initial=0))
    made = coefficients[:, :num_made]
    factors = xp.reshape(device.from_host(made, state), (*made.shape, *(1,) * (output.ndim - 1)))
    columns: Sequence[Array | None] = [*(state[:, i, ...] for i in range(num_state)), output, noise]
    total = None
    for i, column in enumerate(columns):
        if column is None or not used[i]:
            continue
        term = factors[:, :, i, ...] * xp.expand_dims(column, axis=1)
        total = term + 0.0 if total is None else total + term
    if total is None:
        return xp.zeros_like(state)
    return total if num_made == num_state else xp.concat([total, xp.zeros_like(state[:, num_made:, ...])], axis=1)


def _check(sampler: Sampler, schedule: NoiseSchedule, num_steps: int, sigmas: SigmaSpacing, eta: float) -> None:
    if not 1 <= num_steps <= schedule.num_train_timesteps:
        raise InvalidRequest(f"steps={num_steps}: must be between 1 and {schedule.num_train_timesteps}")
    if sigmas not in sampler.sigma_spacings:
        raise InvalidRequest(f"sampler={sampler.name}: has no {sigmas.value} noise levels; use dpmpp_2m, euler or heun")
    if not 0.0 <= eta <= 1.0:
        raise InvalidRequest(f"eta={eta}: must be between 0 and 1")
    if eta and not sampler.takes_eta:
        raise InvalidRequest(f"eta={eta}: sampler {sampler.name} takes none; leave it out or use ddim or tcd")


def _frozen(values: Any) -> Float32Array:
    return _read_only(np.array(values, dtype=np.float32))


def _read_only(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    array.setflags(write=False)
    return array
