"""What each evaluation calls: guided rows inside the interval, the shallow engine between full calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.evaluations import UNetCall, unet_calls
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import Plan, get_sampler, plan
from mezzotint.engines.variants import FULL, SHALLOW
from tests.fake_manifest import SCHEDULE

GUIDED, ALONE = (-3.0, 4.0), (1.0,)


def plan_of(request: Request) -> Plan:
    return plan(get_sampler(request.sampler or "ddim")[0], SCHEDULE.noise_schedule(), request.steps)


def calls_of(request: Request) -> tuple[UNetCall, ...]:
    return unet_calls(plan_of(request), request)


def guided(**fields: float | str) -> list[int]:
    """Return the evaluations of a request that are guided."""
    calls = calls_of(Request(guidance=4.0, **fields))  # type: ignore[arg-type]
    assert {call.weights for call in calls} <= {GUIDED, ALONE}
    return [e for e, call in enumerate(calls) if call.weights == GUIDED]


def full(**fields: object) -> list[int]:
    """Return the evaluations of a request that run the whole UNet."""
    return [e for e, call in enumerate(calls_of(Request(**fields))) if call.variant == FULL]  # type: ignore[arg-type]


def test_without_options_every_evaluation_is_whole_and_guided_and_keeps_nothing() -> None:
    assert set(calls_of(Request(steps=9, guidance=4.0))) == {UNetCall(FULL, GUIDED, keeps=False)}
    assert set(calls_of(Request(steps=9, guidance=1.0, guidance_start=0.5))) == {UNetCall(FULL, ALONE, keeps=False)}


def test_a_step_is_guided_where_the_share_of_complete_steps_is_from_start_to_below_end() -> None:
    assert guided(steps=10, guidance_start=0.2, guidance_end=0.8) == [2, 3, 4, 5, 6, 7]
    assert guided(steps=10, guidance_end=0.25) == [0, 1, 2]
    assert guided(steps=10, guidance_start=0.25) == [3, 4, 5, 6, 7, 8, 9]
    assert guided(steps=3, guidance_start=0.9) == []


@given(st.integers(1, 100).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(0, steps - 1))))
def test_a_share_that_is_a_whole_step_begins_and_ends_there_however_it_is_rounded(of: tuple[int, int]) -> None:
    steps, step = of
    assert guided(steps=steps, guidance_start=step / steps) == list(range(step, steps))
    assert guided(steps=steps, guidance_end=step / steps) == list(range(step))


def test_both_of_heuns_evaluations_belong_to_one_step() -> None:
    assert guided(steps=4, sampler="heun", guidance_start=0.25, guidance_end=0.75) == [2, 3, 4, 5]


def test_an_interval_runs_the_whole_unet_at_every_nth_evaluation() -> None:
    assert full(steps=8, cache_interval=3) == [0, 3, 6]
    assert full(steps=8, cache_interval=100) == [0]
    assert full(steps=3, sampler="heun", cache_interval=2) == [0, 2, 4]


def test_a_schedule_names_the_evaluations_and_the_first_is_always_whole() -> None:
    assert full(steps=8, cache_schedule=(0, 1, 5)) == [0, 1, 5]
    assert full(steps=8, cache_schedule=(4,)) == [0, 4]


def test_a_row_without_a_feature_makes_a_whole_call_from_which_the_interval_counts_on() -> None:
    assert full(steps=10, cache_interval=4, guidance_start=0.5) == [0, 4, 5, 9]
    assert full(steps=10, cache_schedule=(0,), guidance_start=0.5) == [0, 5]


def test_the_conditional_rows_feature_stays_where_the_other_row_goes() -> None:
    assert full(steps=10, cache_interval=5, guidance_end=0.3) == [0, 5]


def test_a_call_keeps_its_feature_where_the_next_one_is_shallow() -> None:
    calls = calls_of(Request(steps=5, cache_schedule=(0, 3, 4)))
    assert [(call.variant, call.keeps) for call in calls] == [
        (FULL, True),
        (SHALLOW, True),
        (SHALLOW, False),
        (FULL, False),
        (FULL, False),
    ]


a_request = st.builds(
    Request,
    steps=st.integers(1, 30),
    sampler=st.sampled_from(["ddim", "heun"]),
    guidance=st.sampled_from([1.0, 4.0]),
    guidance_start=st.floats(0, 0.5),
    guidance_end=st.floats(0.5, 1),
    cache_interval=st.integers(1, 6),
)


@given(a_request)
def test_every_row_of_a_shallow_call_has_a_feature_that_is_younger_than_the_interval(request: Request) -> None:
    ages: list[int] = []  # of each row's feature, the conditional row's last
    for call in calls_of(request):
        num_rows = len(call.weights)
        if call.variant == FULL:
            ages = [0] * num_rows
        else:
            assert num_rows <= len(ages)
            ages = [age + 1 for age in ages[-num_rows:]]
            assert max(ages) < request.cache_interval
        if not call.keeps:
            ages = []


def test_a_schedule_that_names_more_evaluations_than_there_are_is_refused() -> None:
    with pytest.raises(
        InvalidRequest,
        match=r"^cache_schedule: names evaluation 7, but 4 steps of this sampler take 7, 0 to 6; leave it out$",
    ):
        calls_of(Request(steps=4, sampler="heun", cache_schedule=(0, 7)))
