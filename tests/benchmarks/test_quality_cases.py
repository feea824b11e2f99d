"""What is asked and what it should look like; candidates as they are typed; the front."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.pareto import Point, Setting, combinations, front
from benchmarks.quality.cases import GROUNDS, MODEL, draw_cases, named_pictures, names, targets
from benchmarks.quality.judge import ground_as_asked, named_psnr_db
from benchmarks.quality.metrics import Estimate
from benchmarks.quality.swap import Candidate, read_candidate
from mezzotint.engines.errors import InvalidRequest


def test_fewer_cases_are_the_first_of_more() -> None:
    assert draw_cases(200) == draw_cases(1000)[:200]


def test_a_thousand_cases_hold_every_name_seven_times_every_ground_and_no_seed_twice() -> None:
    cases = draw_cases(1000)
    times = np.bincount([case.index for case in cases], minlength=len(names()))
    assert set(times) == {7, 8}
    assert {case.ground for case in cases} == set(GROUNDS)
    assert len({case.seed for case in cases}) == 1000
    assert all(names()[case.index] == case.name for case in cases)


def test_prompts_read_as_in_the_models_readme() -> None:
    prompts = {case.prompt for case in draw_cases(1000)}
    assert any(prompt.endswith(" on a blue background") for prompt in prompts)
    assert "an avocado" in {prompt.split(" on a ")[0] for prompt in prompts}
    assert not any("white" in prompt for prompt in prompts)


def test_the_grounds_are_those_of_the_models_readme() -> None:
    text = (MODEL / "README.md").read_text(encoding="utf-8")
    for name, rgb in GROUNDS.items():
        assert f"{name} {','.join(map(str, rgb))}" in text


def test_a_named_picture_is_its_tile_on_the_ground() -> None:
    shark = names().index("shark")
    on_blue, on_white = named_pictures("blue")[shark], named_pictures("white")[shark]
    assert on_blue.shape == (64, 64, 3)
    assert tuple(on_blue[0, 0]) == (50, 100, 220)
    assert tuple(on_white[0, 0]) == (255, 255, 255)
    painted = (on_blue == on_white).all(axis=2)
    assert 0.1 < painted.mean() < 0.6


def test_the_named_pictures_themselves_are_right_in_every_way_and_others_are_not() -> None:
    cases = draw_cases(60)
    pictures = targets(cases)
    assert ground_as_asked(pictures, cases).all()
    assert (named_psnr_db(pictures, cases) > 85).all()
    assert (named_psnr_db(np.roll(pictures, 1, axis=0), cases) < 25).all()
    others = [GROUNDS[case.ground] for case in cases]
    inverted = ground_as_asked(255 - pictures, cases)
    assert not inverted[[rgb != (136, 136, 136) for rgb in others]].any()


def test_a_few_stray_pixels_on_the_border_do_not_change_the_ground() -> None:
    cases = draw_cases(20)
    pictures = targets(cases)
    pictures[:, :4, :20] = 0
    assert ground_as_asked(pictures, cases).all()


def test_a_candidate_is_read_with_its_settings() -> None:
    found = read_candidate("fast=build/a b,steps=10,sampler=dpmpp_2m,eta=0.5,custom_sigmas=(3.0,1.0),noise=1e-3")
    settings = {"steps": 10, "sampler": "dpmpp_2m", "eta": 0.5, "custom_sigmas": (3.0, 1.0)}
    assert found == Candidate("fast", Path("build/a b"), settings, 1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("build/emoji", "must be NAME=FOLDER"),
        ("a=b,stepps=3", "stepps=3: no field"),
        ("a=b,steps=few", "steps=few: must be a int"),
        ("a=b,seed=3", "seed=3: no field"),
        ("a=b,custom_sigmas=(1", "must be a tuple"),
        ("a=b,noise=some", "noise=some: must be a number"),
    ],
)
def test_a_mistyped_candidate_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message.replace("(", r"\(")):
        read_candidate(text)


def test_axes_are_combined_and_what_is_unsaid_anyway_is_left_out() -> None:
    axes = {"sampler": "ddim,euler", "steps": "4,25", "eta": "0.0,0.5", "custom_sigmas": "(),(3.0,1.0)"}
    found = combinations(Candidate("a", Path("b")), axes)
    assert len(found) == 16
    assert {"sampler": "ddim", "steps": 25} in [setting.fields for setting in found]
    assert found[-1].shortcuts == "eta=0.5, custom_sigmas=(3.0, 1.0)"
    assert found[0].shortcuts == ""
    assert found[0].plain == found[3].plain == ("a", "ddim", 4)


def test_the_front_holds_what_nothing_beats() -> None:
    def point(ms: float, db: float) -> Point:
        setting = Setting(Candidate("a", Path("b")), {"sampler": "ddim", "steps": 4})
        return Point(setting, ms, np.array([db]), Estimate(100, 99, 100), Estimate(100, 99, 100))

    points = [point(3, 20), point(1, 10), point(2, 9), point(2.5, 15), point(3, 21), point(4, 21)]
    assert [(p.ms, p.mean_db) for p in front(points)] == [(1, 10), (2.5, 15), (3, 21)]
