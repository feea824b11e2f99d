"""Turns of the benchmark beside other engines, taken with Mezzotint's own worker in processes of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers.bundles import read_bundle
from benchmarks.peers.turns import Ready, order, output_folder, read_turns, ready, run_rounds
from benchmarks.peers.workers.protocol import Clock, Job
from benchmarks.processes import last_words
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request


def entry(name: str, folder: Path, **changes: Any) -> Ready:
    """Return a configuration of a bundle that paints with one step and with two."""
    job = Job(
        model=str(folder),
        settings={},
        prompt="a shark",
        negative_prompt="",
        steps=[1, 2],
        warm_up_steps=1,
        guidance=4.0,
        height=64,
        width=64,
        seed=3,
        noise="",
        threads=2,
        versions=["mezzotint", "no-such-distribution"],
        output="",
    )
    return ready(read_bundle(f"{name}={folder}"), Job(**{**vars(job), **changes}), "digest", {})


def test_each_round_begins_elsewhere_and_takes_all() -> None:
    names = list("abcdef")
    rounds = [order(names, i) for i in range(3)]
    assert {tuple(sorted(taken)) for taken in rounds} == {tuple(names)}
    assert len({taken[0] for taken in rounds}) == 3
    assert order(["a"], 5) == ["a"]


@pytest.mark.slow
def test_a_turn_measures_and_paints_and_is_not_taken_twice(emoji_bundle: Path, emoji: Model, tmp_path: Path) -> None:
    there, absent = entry("there", emoji_bundle), entry("absent", tmp_path / "nothing")
    first = run_rounds([there, absent], 2, tmp_path, tmp_path, timeout_s=100)
    assert [turn.configuration for turn in first if turn.result] == ["Mezzotint: there"] * 2
    result = first[0].result
    assert [picture["steps"] for picture in result["pictures"]] == [1, 2]
    for picture in result["pictures"]:
        stages = {name: sum(seconds) for name, seconds in picture["stages"].items()}
        assert stages.keys() == {"text", "unet", "decode"}
        assert 0 < sum(stages.values()) < picture["total_s"]
    assert result["peak_rss_mib"] > 50
    assert result["versions"].keys() == {"mezzotint"}

    reasons = {turn.reason for turn in first if not turn.result}
    assert len(reasons) == 1
    assert "nothing" in reasons.pop()  # the folder that is not there

    [[image]] = generate(emoji, [Request(prompt="a shark", steps=2, guidance=4.0, seed=3, sampler="ddim")])
    painted = Image.open(output_folder(tmp_path, there) / "2.png")
    assert np.array_equal(np.asarray(painted), image.pixels)

    kept = read_turns(tmp_path / "turns.jsonl")
    assert sum(bool(turn.reason) for turn in kept) == 1  # the second round did not try it again
    once = run_rounds([there], 2, tmp_path, tmp_path, timeout_s=100, once=["there"])
    assert [turn.round for turn in once] == [0]
    again = run_rounds([there], 2, tmp_path, tmp_path, timeout_s=100)
    assert [turn.when for turn in again] == [turn.when for turn in first if turn.result]


def test_a_turn_that_takes_too_long_is_ended(emoji_bundle: Path, tmp_path: Path) -> None:
    [turn] = run_rounds([entry("slow", emoji_bundle, steps=[1000])], 1, tmp_path, tmp_path, timeout_s=1)
    assert turn.reason == "not done after 1 s"


def test_a_picture_that_cannot_be_painted_leaves_the_others_standing(emoji_bundle: Path, tmp_path: Path) -> None:
    """The reason is the engine's own sentence."""
    [turn] = run_rounds([entry("odd", emoji_bundle, steps=[1, 2000])], 1, tmp_path, tmp_path, timeout_s=100)
    assert "total_s" in turn.result["pictures"][0]
    assert "steps=2000" in turn.result["pictures"][1]["reason"]


def test_the_key_of_a_turn_follows_its_settings_and_versions(emoji_bundle: Path) -> None:
    one = entry("x", emoji_bundle)
    keys = {
        one.key,
        entry("x", emoji_bundle, guidance=5.0).key,
        ready(one.configuration, one.job, "other", {}).key,
        ready(one.configuration, one.job, "digest", {"torch": "2"}).key,
    }
    assert len(keys) == 4
    assert entry("x", emoji_bundle).key == one.key


def test_a_cut_off_line_of_an_earlier_run_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "turns.jsonl").write_text(
        '{"configuration": "a", "key": "k", "round": 0, "when": 1.0, "result": {}}\n{"con'
    )
    assert [turn.configuration for turn in read_turns(tmp_path / "turns.jsonl")] == ["a"]
    assert read_turns(tmp_path / "none.jsonl") == []


def test_a_clock_notes_every_call_of_a_stage() -> None:
    clock = Clock()
    doubled = clock.timed("unet", lambda value: 2 * value)
    assert [doubled(1), doubled(2)] == [2, 4]
    assert len(clock.seconds["unet"]) == 2
    assert min(clock.seconds["unet"]) >= 0


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("a\nValueError: wrong\nb", 1, "ValueError: wrong"),
        ("", 3, "exit status 3"),
        ("ValueError: wrong", -9, "ended by signal 9"),
    ],
)
def test_a_failure_is_told_in_the_program_s_own_words(text: str, code: int, words: str) -> None:
    assert last_words(text, code) == words
