"""This host's step times, and what follows from them."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mezzotint.engines import curves, timing
from mezzotint.engines.bundle import LoadOptions, curve_files, open_bundle, wanted_engines
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.component import Component
from mezzotint.engines.curves import (
    MAX_ROUNDS,
    SURE_ROUNDS,
    EngineCurves,
    Rounds,
    add_rounds,
    curve_of,
    is_sure,
    read_rounds,
    with_curve,
)
from mezzotint.engines.errors import InvalidRequest, ShapeNotCompiled
from mezzotint.engines.manifest import MANIFEST, read_manifest
from mezzotint.engines.prepared import max_rows, row_counts
from mezzotint.engines.rows import knee
from mezzotint.engines.sizes import Size, axis_lengths, own_size, size_of_engine
from mezzotint.engines.tune import tune
from mezzotint.engines.variants import FULL
from tests.fake_manifest import fake_manifest
from tests.sized import sized

UNET = (Component.UNET, FULL)
OWN, LARGE = Size(8, 8, 8), Size(16, 16, 8)


def test_a_curve_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "curve.json"
    add_rounds(file, OWN, {4: [20.0], 1: [7.5]})
    assert read_rounds(file) == {OWN: {1: [7.5], 4: [20.0]}}
    assert [path.name for path in file.parent.iterdir()] == ["curve.json"]


def test_each_size_has_its_own(tmp_path: Path) -> None:
    file = tmp_path / "curve.json"
    add_rounds(file, OWN, {1: [7.5]})
    add_rounds(file, LARGE, {1: [30.0], 2: [61.0]})
    assert read_rounds(file) == {OWN: {1: [7.5]}, LARGE: {1: [30.0], 2: [61.0]}}


def test_a_noisy_round_is_mended_by_the_next_quiet_one(tmp_path: Path) -> None:
    file = tmp_path / "curve.json"
    noisy = add_rounds(file, OWN, {1: [10.0], 2: [15.0], 4: [90.0]})
    assert knee(noisy) == 2
    mended = add_rounds(file, OWN, {1: [10.1], 2: [14.0], 4: [20.0]})
    assert mended == {1: 10.0, 2: 14.0, 4: 20.0}
    assert knee(mended) == 4


def test_a_machine_that_became_slower_for_good_is_believed_in_the_end(tmp_path: Path) -> None:
    file = tmp_path / "curve.json"
    found = [add_rounds(file, OWN, {1: [ms]})[1] for ms in (10.0, *[20.0] * MAX_ROUNDS)]
    assert found == [10.0] * MAX_ROUNDS + [20.0]


def test_the_sizes_that_were_measured_longest_ago_go(tmp_path: Path) -> None:
    file = tmp_path / "curve.json"
    for height in range(1, 41):
        add_rounds(file, Size(height, 1, 8), {1: [1.0]})
    assert [size.height for size in read_rounds(file)] == list(range(9, 41))


def test_instances_that_write_at_one_time_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "curve.json"

    def slow(path: Path) -> dict[Size, Rounds]:
        found = read_rounds(path)
        time.sleep(0.01)
        return found

    monkeypatch.setattr(curves, "read_rounds", slow)
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(add_rounds, file, OWN, {rows: [float(rows)]}) for rows in range(1, 9)]:
            future.result()
    assert read_rounds(file) == {OWN: {rows: [float(rows)] for rows in range(1, 9)}}


DAMAGED = (
    *("", "{", "[1]", '{"x": {"1": [1]}}', '{"1x1x1": {"1": null}}', '{"1x1x1": {"0": [1]}}', '{"1": 2.5}'),
    *('{"1x1x1": {"1": [-1]}}', '{"1x1x1": {"1": []}}', '{"1x1x-1": {"1": [1]}}', '{"1x1x1": {"1": [NaN]}}'),
)


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_one_counts_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "curve.json"
    file.write_text(text)
    assert read_rounds(file) == {}
    assert read_rounds(tmp_path / "none.json") == {}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    add_rounds(tmp_path / "file" / "curve.json", OWN, {1: [1.0]})
    assert "cannot be written" in caplog.text


def test_a_size_that_was_not_measured_is_scaled_by_area_from_the_nearest_that_was() -> None:
    entry = fake_manifest().engine(*UNET).model_copy(update={"step_ms": {1: 10.0, 2: 12.0}})
    known = EngineCurves(entry, OWN)
    assert known.at(OWN) == {1: 10.0, 2: 12.0}
    assert known.at(LARGE) == {1: 40.0, 2: 48.0}
    known.learn(LARGE, {1: 30.0, 2: 60.0})
    assert known.at(LARGE) == {1: 30.0, 2: 60.0}
    assert known.at(Size(16, 12, 8)) == {1: 22.5, 2: 45.0}  # three quarters of the large one
    assert known.at(Size(8, 9, 8)) == pytest.approx({1: 11.25, 2: 13.5})
    assert EngineCurves(fake_manifest().engine(*UNET), OWN).at(OWN) == {}


def test_rows_that_were_not_measured_change_by_the_same_factor() -> None:
    entry = fake_manifest().engine(*UNET).model_copy(update={"step_ms": {1: 10.0, 2: 15.0, 8: 60.0}})
    assert with_curve(entry, {1: 20.0, 2: 30.0}).step_ms == {1: 20.0, 2: 30.0, 8: 120.0}
    assert with_curve(entry, {}) is entry


def test_the_most_rows_of_a_call_follow_from_this_hosts_knee() -> None:
    entry = fake_manifest().engine(*UNET).model_copy(update={"step_ms": {1: 10.0, 2: 12.0, 4: 16.0, 8: 24.0}})
    here = with_curve(entry, {1: 10.0, 2: 19.0, 4: 38.0, 8: 80.0})
    assert (max_rows(entry), max_rows(here)) == (8, 2)
    assert row_counts(here) == (1, 2)


def test_lengths_follow_from_a_size_by_what_an_axis_is_called() -> None:
    manifest = fake_manifest(cut_decoder=True)
    part = manifest.engine(Component.VAE_DECODER, "part2")
    size = size_of_engine(part, Size(16, 8, 8))
    assert size == (16, 8, 0)
    lengths = axis_lengths(part, size, own_size(manifest))
    assert part.input_shapes(1, lengths) == {"coloured": (1, 3, 16, 8)}
    assert size_of_engine(manifest.engine(Component.TEXT_ENCODER), Size(16, 8, 8)) == (0, 0, 0)


def test_a_curve_takes_no_row_count_away_before_it_is_sure(
    emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle, options = sized(emoji_bundle, tmp_path / "sized"), LoadOptions(devices={})
    manifest = read_manifest(bundle)
    gains = [entry.model_copy(update={"step_ms": {1: 10.0, 2: 12.0, 4: 16.0, 8: 24.0}}) for entry in manifest.engines]
    manifest = manifest.model_copy(update={"engines": tuple(gains)})
    (bundle / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    file = curve_files(file_digest(bundle / MANIFEST), manifest, options)[UNET]
    size = size_of_engine(manifest.engine(*UNET), own_size(manifest))
    for num_rounds in range(1, SURE_ROUNDS + 1):
        add_rounds(file, size, {1: [5.0], 2: [11.0], 4: [30.0], 8: [70.0]})
        counts = wanted_engines(bundle, options)[UNET].counts
        assert counts == ((1, 2) if num_rounds == SURE_ROUNDS else (1, 2, 4, 8))


@pytest.mark.slow
def test_a_bundle_that_was_tuned_is_loaded_with_its_curve(
    emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(timing, "_TIME_BUDGET_S", 0.05)
    bundle = sized(emoji_bundle, tmp_path / "sized")
    options, heard = LoadOptions(devices={}), list[str]()
    found = tune(bundle, options, heard.append, [(64, 64), (96, 64)])
    assert heard[0] == "text_encoder, 1 rows"
    assert "unet, 8 rows at 96x64" in heard
    assert found.rows_a_second[1] > 0
    manifest = read_manifest(bundle)
    files = curve_files(file_digest(bundle / MANIFEST), manifest, options)
    assert set(files) == set(found.entries)
    kept = read_rounds(files[UNET])
    assert list(kept) == [Size(16, 16, 24), Size(16, 24, 24)]
    for size, curve in found.curves[UNET].items():
        assert curve_of(kept[size]) == pytest.approx(curve, abs=1e-3)
    assert all(map(is_sure, kept.values()))
    add_rounds(files[UNET], Size(16, 16, 24), dict.fromkeys((1, 2, 4, 8), [0.5] * MAX_ROUNDS) | {1: [0.2] * MAX_ROUNDS})
    model = open_bundle(bundle, options)
    try:
        step_ms = model.manifest.engine(*UNET).step_ms
        assert (step_ms[1], step_ms[2], step_ms[8]) == (0.2, 0.5, 0.5)
        assert model.max_rows[FULL] == 8
        assert manifest.engine(*UNET).step_ms[1] != 0.2
    finally:
        model.close()


@pytest.mark.parametrize(("pixels", "error"), [((96, 500), InvalidRequest), ((256, 64), ShapeNotCompiled)])
def test_a_size_that_the_bundle_has_not_is_refused_before_anything_is_measured(
    emoji_bundle: Path, pixels: tuple[int, int], error: type[Exception]
) -> None:
    heard = list[str]()
    with pytest.raises(error):
        tune(emoji_bundle, LoadOptions(devices={}), heard.append, [pixels])
    assert heard == []
