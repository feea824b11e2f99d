"""UniPC: Zhao et al. 2023, "A Unified Predictor-Corrector Framework" (arXiv 2302.04867), of order 2, predicting x0."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mezzotint.engines.sampling.base import Level, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import log_snr, multistep_levels, preserving


@dataclass(frozen=True, slots=True)
class Stride:
    """One step's numbers, from the level ``here`` to ``there``; ``before`` is the one ahead of it, or None.

    ``is_bh1`` is the paper's B1(h) = h for B(h), else B2(h) = exp(h) − 1; here h is −h, as x0 is what is predicted.
    """

    here: float
    there: float
    before: float | None
    is_bh1: bool

    @property
    def h(self) -> float:
        """The step in log SNR, negative."""
        return log_snr(self.here) - log_snr(self.there)

    @property
    def of_x(self) -> float:
        """The weight of the sample at ``here``."""
        return Level.of_ratio(self.there).sigma / Level.of_ratio(self.here).sigma

    @property
    def of_x0(self) -> float:
        """The weight of x0 at ``here``, were it the same on the whole way."""
        return -Level.of_ratio(self.there).alpha * math.expm1(self.h)

    @property
    def of_change(self) -> float:
        """The weight, −alpha B(h), of how x0 changes on the way."""
        return -Level.of_ratio(self.there).alpha * (self.h if self.is_bh1 else math.expm1(self.h))

    @property
    def r(self) -> float:
        """Where ``before`` lies: 0 is ``here``, 1 is ``there``."""
        return 0.0 if self.before is None else (log_snr(self.before) - log_snr(self.here)) / -self.h

    def corrector(self) -> tuple[float, float]:
        """Return the weights (rho of ``before``, rho of ``there``) that solve equation 9."""
        if self.before is None:
            return 0.0, 0.5
        h = self.h
        b = h if self.is_bh1 else math.expm1(h)
        phi_2 = math.expm1(h) / h - 1
        phi_3 = phi_2 / h - 0.5
        matrix: npt.NDArray[np.float64] = np.array([[1.0, 1.0], [self.r, 1.0]])
        before, there = np.linalg.solve(matrix, np.array([phi_2 / b, 2 * phi_3 / b])).tolist()
        return before, there


def unipc_step(last: Stride | None, stride: Stride) -> Step:
    """Correct the step that led here (UniC), then predict the next one (UniP): algorithms 5 and 6 of the appendix.

    Keeps the corrected sample, x0, and the x0 before it.
    """
    correct = None if last is None else (last, *last.corrector())

    def step(at: Values[V]) -> tuple[V, ...]:
        x, x0_last, x0_before = at.x, at.kept[1], at.kept[2]
        if correct is not None:
            of, rho_before, rho_there = correct
            change = (at.x0 - x0_last) * rho_there
            if of.before is not None:
                change = change + (x0_before - x0_last) * (rho_before / of.r)
            x = at.kept[0] * of.of_x + x0_last * of.of_x0 + change * of.of_change
        ahead = x * stride.of_x + at.x0 * stride.of_x0
        if stride.before is not None:
            ahead = ahead + (x0_last - at.x0) * (stride.of_change / (2 * stride.r))
        return ahead, x, at.x0, x0_last

    return step


def unipc(setup: Setup) -> Trajectory:
    """B(h) = exp(h) − 1, diffusers' default."""
    return _walk(setup, "unipc", is_bh1=False)


def unipc_bh1(setup: Setup) -> Trajectory:
    """B(h) = h, which the paper finds better for few steps without guidance."""
    return _walk(setup, "unipc_bh1", is_bh1=True)


def _walk(setup: Setup, name: str, *, is_bh1: bool) -> Trajectory:
    timesteps, sigmas = multistep_levels(setup, name)
    sigmas = [*sigmas, 0.0]
    evaluations = []
    last = None
    for i, timestep in enumerate(timesteps):
        has_history = 0 < i < setup.num_left - 1
        stride = Stride(sigmas[i], sigmas[i + 1], sigmas[i - 1] if has_history else None, is_bh1)
        evaluations.append(preserving(timestep, sigmas[i], unipc_step(last, stride), i + 1))
        last = stride
    return Trajectory(1.0, evaluations)


UNIPC = Sampler(
    name="unipc",
    label="UniPC",
    diffusers="UniPCMultistepScheduler",
    num_kept=3,
    trajectory=unipc,
    aliases=("unipc bh2", "uni pc bh2"),
)
UNIPC_BH1 = Sampler(
    name="unipc_bh1",
    label="UniPC bh1",
    diffusers="UniPCMultistepScheduler",
    num_kept=3,
    trajectory=unipc_bh1,
    settings={"solver_type": "bh1"},
    aliases=("uni pc", "uni pc bh1"),
)
