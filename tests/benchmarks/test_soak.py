"""The soak's slope on made-up samples, and a minute of it against a real server."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import soak
from benchmarks.soak import Sample, Slope, rows_of, slope

MINUTES = np.linspace(0, 30, 200)


def noisy(growth_per_hour: float) -> list[float]:
    noise = np.random.default_rng(1).normal(0, 5, len(MINUTES))
    return list(500 + growth_per_hour * MINUTES / 60 + noise)


def test_a_slope_is_found_with_its_interval() -> None:
    found = slope(list(MINUTES), noisy(100))
    assert abs(found.per_hour - 100) < found.half < 20
    assert found.verdict(500) == "grows"


def test_what_only_moves_up_and_down_is_flat() -> None:
    assert Slope(0.0, 0.0).verdict(7) == "flat"
    assert slope(list(MINUTES), noisy(0)).verdict(5000) == "flat"
    assert slope(list(MINUTES), [7.0] * len(MINUTES)).verdict(7) == "flat"


def test_growth_that_matters_to_nobody_is_flat_and_noise_that_could_hide_some_is_unclear() -> None:
    assert Slope(2.9, 2.8).verdict(669) == "flat"
    assert Slope(2.9, 2.8).verdict(50) == "grows"
    assert Slope(2.9, 10.0).verdict(669) == "unclear"


def test_what_grows_while_it_warms_up_alone_is_flat() -> None:
    warm = [300 + min(200.0, 50 * minute) for minute in MINUTES]
    assert slope(list(MINUTES), warm).verdict(500) == "flat"


def test_too_few_samples_say_so() -> None:
    with pytest.raises(ValueError, match="11 samples: at least 13 are needed"):
        slope(list(MINUTES[:11]), noisy(0)[:11])


def test_each_thing_that_is_held_has_a_row_and_a_verdict() -> None:
    samples = [Sample(minute, 500 + int(10 * minute), 30, 25) for minute in MINUTES]
    memory, files, threads = rows_of(samples)
    assert (memory["verdict"], files["verdict"], threads["verdict"]) == ("grows", "flat", "flat")
    assert (memory["after warm-up"], memory["at the end"], memory["most"]) == (560, 800, 800)


@pytest.mark.slow
def test_a_minute_of_bad_company_ends_every_request_as_meant(
    emoji_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.harness.RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["soak", str(emoji_bundle), "--minutes", "1"])
    soak.main()
    assert "verdict" in capsys.readouterr().out
    details = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))["details"]
    assert {kind.split(":")[0] for kind in details["requests"]} >= {"picture", "taken back", "too late", "broken"}
    assert [kind for kind in details["requests"] if ": as meant" not in kind or "but for" in kind] == []
    assert len(details["samples"]) > 40
    _, _, files, threads = zip(*details["samples"], strict=True)
    assert files[-1] < files[len(files) // 2] + 20
    assert threads[-1] < threads[len(threads) // 2] + 20
