"""PNDM: Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds" (arXiv 2202.09778).

PLMS is its linear multistep part alone, begun by a step of Heun's kind: what Stable Diffusion's own checkpoints name.
As in diffusers it is the model's own output that is combined, be it noise or v, and then converted at the level where
the step begins; diffusers has no x0 prediction here, which goes the same way.
"""

from collections.abc import Sequence

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling.base import Evaluation, Level, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import trained_level, whole_timesteps
from mezzotint.engines.schedule import Prediction, SigmaSpacing, Spacing, conversion

_ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
_NUM_HISTORY = 3  # earlier outputs
_NUM_KEPT = _NUM_HISTORY + 2  # and what a Runge–Kutta step carries
_NUM_RUNGE_KUTTA = 3  # steps of PNDM that four evaluations make


class Transfer:
    """Equation 11, phi: from the sample ``x`` at ``now`` to ``then`` by one output of the model."""

    def __init__(self, prediction: Prediction, now: Level, then: Level) -> None:
        to = conversion(prediction, now.alpha, now.sigma)
        self.of_x = to.x0[0] * then.alpha + to.noise[0] * then.sigma
        self.of_output = to.x0[1] * then.alpha + to.noise[1] * then.sigma

    def __call__(self, x: V, output: V) -> V:
        """Return the sample at the second level."""
        return x * self.of_x + output * self.of_output


def linear_multistep(transfer: Transfer, order: int) -> Step:
    """Equation 12, with as many outputs as there are; keeps them but the oldest."""
    weights = _ADAMS_BASHFORTH[order - 1]

    def step(at: Values[V]) -> tuple[V, ...]:
        outputs = (at.output, *at.kept[:_NUM_HISTORY])
        mean = at.output * weights[0]
        for output, weight in zip(outputs[1:], weights[1:], strict=False):
            mean = mean + output * weight
        return transfer(at.x, mean), *outputs[:_NUM_HISTORY]

    return step


def first_guess(transfer: Transfer) -> Step:
    """A step by the first output alone; keeps the output and, in the second place, x."""

    def step(at: Values[V]) -> tuple[V, ...]:
        return transfer(at.x, at.output), at.output, at.x

    return step


def second_guess(transfer: Transfer) -> Step:
    """The same step again from the kept x, by the mean of both outputs; keeps the first output alone."""

    def step(at: Values[V]) -> tuple[V, ...]:
        first, x = at.kept[:2]
        return transfer(x, (at.output + first) * 0.5), first

    return step


def runge_kutta(transfers: Sequence[Transfer]) -> tuple[Step, Step, Step, Step]:
    """Equation 13, pseudo Runge–Kutta: to the middle twice, to the end, and there by the weighted mean.

    Keeps the three latest steps' first outputs, then x, then the sum so far.
    """
    to_middle, to_middle_again, to_end, whole = transfers

    def first(at: Values[V]) -> tuple[V, ...]:
        history = (at.output, *at.kept[: _NUM_HISTORY - 1])
        return to_middle(at.x, at.output), *history, at.x, at.output * (1 / 6)

    def second(at: Values[V]) -> tuple[V, ...]:
        *history, x, total = at.kept[:_NUM_KEPT]
        return to_middle_again(x, at.output), *history, x, total + at.output * (1 / 3)

    def third(at: Values[V]) -> tuple[V, ...]:
        *history, x, total = at.kept[:_NUM_KEPT]
        return to_end(x, at.output), *history, x, total + at.output * (1 / 3)

    def fourth(at: Values[V]) -> tuple[V, ...]:
        *history, x, total = at.kept[:_NUM_KEPT]
        return whole(x, total + at.output * (1 / 6)), *history

    return first, second, third, fourth


class _Levels:
    """Trained levels by timestep; below 0 lies the end."""

    def __init__(self, setup: Setup) -> None:
        schedule = setup.schedule
        self.prediction = schedule.prediction
        self.alphas = schedule.alphas_cumprod.tolist()
        self.final = 1.0 if schedule.set_alpha_to_one else self.alphas[0]

    def at(self, timestep: int) -> Level:
        return trained_level(self.alphas[min(timestep, len(self.alphas) - 1)] if timestep >= 0 else self.final)

    def transfer(self, now: int, then: int) -> Transfer:
        return Transfer(self.prediction, self.at(now), self.at(then))


def plms(setup: Setup) -> Trajectory:
    """N + 1 evaluations: the first step is made twice. All are of one stride whatever the spacing, as in diffusers."""
    levels, timesteps = _Levels(setup), whole_timesteps(setup)
    stride = setup.schedule.num_train_timesteps // setup.num_steps
    start = timesteps[0]
    if setup.num_left == 1:
        return Trajectory(1.0, [_evaluation(levels, start, first_guess(levels.transfer(start, start - stride)), 1)])
    guess = first_guess(levels.transfer(start, start - stride))
    again = second_guess(levels.transfer(timesteps[1] + stride, timesteps[1]))
    evaluations = [_evaluation(levels, start, guess, 0), _evaluation(levels, timesteps[1], again, 1)]
    return Trajectory(1.0, evaluations + _multistep(levels, timesteps[1:], stride, num_done=1))


def pndm(setup: Setup) -> Trajectory:
    """N + 9 evaluations: three steps of Runge–Kutta, then linear multistep.

    Raises:
        InvalidRequest: there are fewer than four steps.
    """
    if setup.num_left <= _NUM_RUNGE_KUTTA:
        raise InvalidRequest(f"{setup.steps_text}: pndm takes at least {_NUM_RUNGE_KUTTA + 1}; use plms for fewer")
    levels, timesteps = _Levels(setup), whole_timesteps(setup)
    stride = setup.schedule.num_train_timesteps // setup.num_steps
    half = stride // 2
    evaluations = []
    for i in range(_NUM_RUNGE_KUTTA):
        here, there = timesteps[i], timesteps[i + 1]
        middle = there + half
        steps = runge_kutta([levels.transfer(here, then) for then in (here - half, middle, there, there)])
        for k, (timestep, step) in enumerate(zip((here, middle, middle, there), steps, strict=True)):
            evaluations.append(_evaluation(levels, timestep, step, i + k // 3))
    rest = _multistep(levels, timesteps[_NUM_RUNGE_KUTTA:], stride, num_done=_NUM_RUNGE_KUTTA)
    return Trajectory(1.0, evaluations + rest)


def _multistep(levels: _Levels, timesteps: Sequence[int], stride: int, num_done: int) -> list[Evaluation]:
    evaluations = []
    for i, timestep in enumerate(timesteps):
        order = min(num_done + i + 1, len(_ADAMS_BASHFORTH))
        step = linear_multistep(levels.transfer(timestep, timestep - stride), order)
        evaluations.append(_evaluation(levels, timestep, step, num_done + i + 1))
    return evaluations


def _evaluation(levels: _Levels, timestep: int, step: Step, num_done: int) -> Evaluation:
    return Evaluation(timestep, levels.at(timestep), 1.0, step, num_done)


PLMS = Sampler(
    name="plms",
    label="PLMS",
    diffusers="PNDMScheduler",
    num_kept=_NUM_HISTORY,
    trajectory=plms,
    settings={"skip_prk_steps": True},
    sigma_spacings=(SigmaSpacing.AS_TRAINED,),
    default_spacing=Spacing.LEADING,
)
PNDM = Sampler(
    name="pndm",
    label="PNDM",
    diffusers="PNDMScheduler",
    num_kept=_NUM_KEPT,
    trajectory=pndm,
    settings={"skip_prk_steps": False},
    sigma_spacings=(SigmaSpacing.AS_TRAINED,),
    default_spacing=Spacing.LEADING,
)
