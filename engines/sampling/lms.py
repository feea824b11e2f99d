"""Linear multistep, Adams–Bashforth in sigma: k-diffusion's ``sample_lms``, on the ODE of arXiv 2206.00364."""

from collections.abc import Sequence

import numpy as np

from mezzotint.engines.sampling.base import Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import check_falling, exploding, exploding_levels

_ORDER = 4
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(2)  # exact for the cubic polynomials of four slopes


def lms_weights(known: Sequence[float], sigma_next: float) -> list[float]:
    """Return the weights of the slopes at the levels ``known``, newest first, for the step from there on.

    Each is the integral, from the newest level to ``sigma_next``, of the polynomial that is 1 at its level and 0 at
    the others.
    """
    here = known[0]
    half = (sigma_next - here) / 2
    sigmas = here + half + half * _NODES
    weights = []
    for i, own in enumerate(known):
        others = np.array([sigma for k, sigma in enumerate(known) if k != i])
        basis = np.prod((sigmas[:, None] - others) / (own - others), axis=1)
        weights.append(float(half * (basis @ _WEIGHTS)))
    return weights


def lms_step(known: Sequence[float], sigma_next: float) -> Step:
    """Step along the polynomial through the slopes at ``known``, newest first; keeps the slopes but the oldest."""
    weights = lms_weights(known, sigma_next)

    def step(at: Values[V]) -> tuple[V, ...]:
        slopes = (at.eps, *at.kept[: _ORDER - 1])
        x = at.x
        for slope, weight in zip(slopes, weights, strict=False):
            x = x + slope * weight
        return x, *slopes[: _ORDER - 1]

    return step


def lms(setup: Setup) -> Trajectory:
    """The first three steps, which have less history, are of order 1, 2 and 3. Raises InvalidRequest."""
    timesteps, sigmas, initial_scale = exploding_levels(setup)
    check_falling(sigmas, setup, "lms")
    evaluations = []
    for i, timestep in enumerate(timesteps):
        known = sigmas[max(0, i + 1 - _ORDER) : i + 1][::-1]
        evaluations.append(exploding(timestep, sigmas[i], lms_step(known, sigmas[i + 1]), i + 1))
    return Trajectory(initial_scale, evaluations)


LMS = Sampler(name="lms", label="LMS", diffusers="LMSDiscreteScheduler", num_kept=_ORDER - 1, trajectory=lms)
