"""Do samplers reach the order that their papers state, and do stochastic ones end in the data's distribution?

    python -m benchmarks.samplers

Answered on gaussian data, whose ideal model and whose solution are closed forms, so that no network is needed. For
x0 ~ N(MEAN, STD²) a sample x = x0 + sigma * noise has E[noise | x] = sigma (x − MEAN) / (STD² + sigma²), and the
probability-flow ODE (Song et al. 2021, arXiv 2011.13456) keeps (x − MEAN) / sqrt(STD² + sigma²) constant. The schedule
has uniform steps in log SNR. Writes the tables and plots that docs/samplers.md shows.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import RESULTS, publish
from mezzotint.engines.sampling import NUM_KEPT, SAMPLERS, Plan, advance, plan
from mezzotint.engines.sampling.levels import NUM_DISTILLED
from mezzotint.engines.schedule import NoiseSchedule, Prediction, Spacing

Array = npt.NDArray[np.float64]

MEAN, STD = 0.7, 0.6
SIGMA_MIN, SIGMA_MAX = 0.03, 80.0
NUM_TRAIN = 9600
ORDERS = {
    "ddim": 1,
    "euler": 1,
    "heun": 2,
    "kdpm2": 2,
    "dpmpp_2m": 2,
    "deis": 2,
    "plms": 2,
    "pndm": 2,
    "unipc": 3,
    "unipc_bh1": 3,
    "lms": 4,
}
"""The order of convergence that the paper of each deterministic sampler states."""

STOCHASTIC = {
    "ddpm": 0.0,
    "ddim": 1.0,
    "euler_a": 0.0,
    "kdpm2_a": 0.0,
    "dpmpp_2s_a": 0.0,
    "dpmpp_sde": 0.0,
    "dpmpp_2m_sde": 0.0,
    "dpmpp_3m_sde": 0.0,
    "lcm": 0.0,
    "tcd": 0.3,
}
"""The stochastic samplers, and the eta that makes them so."""

STEPS = (40, 80, 160, 320)
SDE_STEPS = (10, 20, 50, 120, 320)
FITTED = dict.fromkeys(ORDERS, STEPS) | {"lms": STEPS[2:]}
"""The steps that an order is fitted to: a method of order 4 comes to it late."""


def log_uniform_schedule(prediction: Prediction = Prediction.EPSILON) -> NoiseSchedule:
    """Return a schedule whose trained timesteps are uniform in log SNR."""
    sigmas = np.exp(np.linspace(np.log(SIGMA_MIN), np.log(SIGMA_MAX), NUM_TRAIN))
    return NoiseSchedule((1 / (1 + sigmas**2)).astype(np.float32), prediction, Spacing.TRAILING, 0, True)


def denoiser(x: Array, sigma: float) -> Array:
    """Return the noise that the ideal denoiser predicts."""
    return sigma * (x - MEAN) / (STD**2 + sigma**2)


def consistency_model(x: Array, sigma: float, sigma_to: float) -> Array:
    """Return the noise that leads straight to where the ODE's path from ``x`` is at ``sigma_to``.

    That is what models of LCM (``sigma_to`` 0) and of TCD (any level) are distilled to predict.
    """
    there = MEAN + (x - MEAN) * np.sqrt((STD**2 + sigma_to**2) / (STD**2 + sigma**2))
    return np.asarray((x - there) / (sigma - sigma_to))


@dataclass(frozen=True, slots=True)
class Run:
    """A sampler's plan on the log-uniform schedule.

    Attributes:
        plan: the plan.
        prediction: what its model predicts.
        levels: (alpha, sigma over alpha) of what the model sees at each evaluation.
    """

    plan: Plan
    prediction: Prediction
    levels: Sequence[tuple[float, float]]

    def targets(self, eta: float) -> list[float]:
        """Return the levels that a distilled model's predictions lead to: with LCM 0, with TCD below the next one."""
        following = [*self.plan.timesteps[1:].tolist(), 0.0]
        sigmas = log_uniform_schedule().sigmas
        return [float(sigmas[int((1 - eta) * timestep)]) if eta else 0.0 for timestep in following]


def run_of(name: str, num_steps: int, *, prediction: Prediction = Prediction.EPSILON, eta: float = 0.0) -> Run:
    """Plan a run. Its levels are read off the x0 row of a plan for noise: seen = alpha (x0 + sigma * noise)."""
    of_noise, ours = (
        plan(SAMPLERS[name], log_uniform_schedule(kind), num_steps, eta=eta)
        for kind in (Prediction.EPSILON, prediction)
    )
    rows = zip(of_noise.input_scales.tolist(), of_noise.denoised.tolist(), strict=True)
    return Run(ours, prediction, [(scale / of_sample, -of_output) for scale, (of_sample, of_output) in rows])


def walk(run: Run, unit_noise: Array, until: int, targets: Sequence[float] | None = None) -> Array:
    """Return x0 + sigma * noise before evaluation ``until``, or the final sample where that is behind the last.

    The model is the ideal denoiser, or one that was distilled to reach ``targets``.
    """
    ours = run.plan
    rng = np.random.default_rng(1)
    state = np.zeros((1, 1 + NUM_KEPT, *unit_noise.shape))
    state[:, 0] = unit_noise * ours.initial_scale
    for e in range(until):
        alpha, sigma = run.levels[e]
        x = state[:, 0] * ours.input_scales[e] / alpha
        eps = denoiser(x, sigma) if targets is None else consistency_model(x, sigma, targets[e])
        x0 = x - sigma * eps
        said = {Prediction.EPSILON: eps, Prediction.SAMPLE: x0, Prediction.V: alpha * eps - sigma * alpha * x0}
        noise = rng.standard_normal(x.shape) if ours.needs_noise[e] else None
        state = advance(state, said[run.prediction], noise, ours.coefficients[e : e + 1])
    if until == ours.num_evaluations:
        final: Array = state[0, 0]
        return final
    seen: Array = state[0, 0] * ours.input_scales[until] / run.levels[until][0]
    return seen


def error(run: Run) -> float:
    """Return the largest distance from the ODE's solution at the last evaluation, relative to the data's spread."""
    unit_noise = np.linspace(-2, 2, 9).reshape(1, 3, 3)
    last = run.plan.num_evaluations - 1
    sigma, sigma_last = run.levels[0][1], run.levels[last][1]
    start = walk(run, unit_noise, 0)
    exact = MEAN + (start - MEAN) * np.sqrt((STD**2 + sigma_last**2) / (STD**2 + sigma**2))
    return float(np.abs(walk(run, unit_noise, last) - exact).max() / STD)


def slope(steps: Sequence[int], errors: Sequence[float]) -> float:
    """Return the order of convergence, fitted on logarithms."""
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


def distribution(name: str, num_steps: int, side: int = 64) -> tuple[float, float]:
    """Return (mean, standard deviation) of 4 · side² samples of a stochastic sampler."""
    eta = STOCHASTIC[name]
    run = run_of(name, num_steps, eta=eta)
    unit_noise = np.random.default_rng(0).standard_normal((4, side, side))
    targets = run.targets(eta) if name in ("lcm", "tcd") else None
    samples = walk(run, unit_noise, run.plan.num_evaluations, targets)
    return float(samples.mean()), float(samples.std())


def plot(path: Path, errors: Mapping[str, Sequence[float]], deviations: Mapping[str, Sequence[float]]) -> None:
    """Draw errors of deterministic samplers and standard deviations of stochastic ones, by steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in errors.items():
        left.loglog(STEPS, values, "o-", label=name)
    left.set(xlabel="steps", ylabel="error / STD", title="deterministic: distance from the ODE's solution")
    for name, values in deviations.items():
        right.semilogx(SDE_STEPS[: len(values)], values, "o-", label=name)
    right.axhline(STD, color="black", linestyle=":")
    right.set(xlabel="steps", ylabel="standard deviation", title=f"stochastic: the data's is {STD}")
    for axes in (left, right):
        axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    errors = {name: [error(run_of(name, steps)) for steps in STEPS] for name in ORDERS}
    found = {
        name: [distribution(name, steps) for steps in SDE_STEPS if name not in ("lcm", "tcd") or steps <= NUM_DISTILLED]
        for name in STOCHASTIC
    }
    rows: list[dict[str, Any]] = [
        {
            "sampler": name,
            "order stated": ORDERS[name],
            "order fitted": round(slope(FITTED[name], values[-len(FITTED[name]) :]), 2),
            **{f"error, {steps} steps": f"{value:.1e}" for steps, value in zip(STEPS, values, strict=True)},
        }
        for name, values in errors.items()
    ]
    deviations = {name: [std for _, std in values] for name, values in found.items()}
    plot(RESULTS / "samplers.png", errors, deviations)
    details = {"steps": SDE_STEPS, "stochastic, (mean, std)": found, "mean": MEAN, "std": STD}
    publish("samplers", "Do samplers reach the order that their papers state?", rows, details)


if __name__ == "__main__":
    main()
