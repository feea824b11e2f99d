"""Heun's method: Karras et al. 2022, "Elucidating the Design Space" (arXiv 2206.00364), algorithm 1."""

from mezzotint.engines.sampling.base import Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.euler import last_euler
from mezzotint.engines.sampling.levels import exploding, exploding_levels


def heun_predictor(sigma: float, sigma_next: float) -> Step:
    """Predict by an Euler step; keeps x plus half of it, which is all that the correction needs."""
    dt = sigma_next - sigma

    def step(at: Values[V]) -> tuple[V, ...]:
        return at.x + at.eps * dt, at.x + at.eps * (dt / 2)

    return step


def heun_corrector(sigma: float, sigma_next: float) -> Step:
    """Correct: the other half of the step goes by the slope at its end."""
    dt = sigma_next - sigma

    def step(at: Values[V]) -> tuple[V, ...]:
        return (at.kept[0] + at.eps * (dt / 2),)

    return step


def heun(setup: Setup) -> Trajectory:
    """Predict and correct at every noise level but the last, whose step to sigma 0 is Euler's: 2N − 1 evaluations."""
    timesteps, sigmas, initial_scale = exploding_levels(setup)
    evaluations = []
    for i in range(setup.num_left - 1):
        here, there = sigmas[i], sigmas[i + 1]
        evaluations.append(exploding(timesteps[i], here, heun_predictor(here, there), i))
        evaluations.append(exploding(timesteps[i + 1], there, heun_corrector(here, there), i + 1))
    evaluations.append(last_euler(setup, timesteps, sigmas))
    return Trajectory(initial_scale, evaluations)


HEUN = Sampler(name="heun", label="Heun", diffusers="HeunDiscreteScheduler", num_kept=1, trajectory=heun)
