"""This host's step times, and what follows from them."""

from pathlib import Path

import pytest

from mezzotint.engines.bundle import LoadOptions, curve_files, file_digest, open_bundle
from mezzotint.engines.curves import read_curve, with_curve, write_curve
from mezzotint.engines.manifest import MANIFEST, Component, read_manifest
from mezzotint.engines.prepared import max_rows, row_counts
from mezzotint.engines.tune import tune
from mezzotint.engines.variants import FULL
from tests.fake_manifest import fake_manifest

UNET = (Component.UNET, FULL)


def test_a_curve_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "curve.json"
    write_curve(file, {4: 20.0, 1: 7.5})
    assert read_curve(file) == {1: 7.5, 4: 20.0}
    assert [path.name for path in file.parent.iterdir()] == ["curve.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"x": 1}', '{"1": null}', '{"0": 1.0}', '{"1": -1.0}'])
def test_a_damaged_one_counts_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "curve.json"
    file.write_text(text)
    assert read_curve(file) == {}
    assert read_curve(tmp_path / "none.json") == {}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    write_curve(tmp_path / "file" / "curve.json", {1: 1.0})
    assert "cannot be written" in caplog.text


def test_rows_that_were_not_measured_change_by_the_same_factor() -> None:
    entry = fake_manifest().engine(*UNET).model_copy(update={"step_ms": {1: 10.0, 2: 15.0, 8: 60.0}})
    assert with_curve(entry, {1: 20.0, 2: 30.0}).step_ms == {1: 20.0, 2: 30.0, 8: 120.0}
    assert with_curve(entry, {}) is entry


def test_the_most_rows_of_a_call_follow_from_this_hosts_knee() -> None:
    entry = fake_manifest().engine(*UNET).model_copy(update={"step_ms": {1: 10.0, 2: 12.0, 4: 16.0, 8: 24.0}})
    here = with_curve(entry, {1: 10.0, 2: 19.0, 4: 38.0, 8: 80.0})
    assert (max_rows(entry), max_rows(here)) == (8, 2)
    assert row_counts(here) == (1, 2)


def test_a_bundle_that_was_tuned_is_loaded_with_its_curve(
    emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options, heard = LoadOptions(devices={}), list[str]()
    found = tune(emoji_bundle, options, heard.append)
    assert heard[0] == "text_encoder, 1 rows"
    assert found.rows_a_second[1] > 0
    manifest = read_manifest(emoji_bundle)
    files = curve_files(file_digest(emoji_bundle / MANIFEST), manifest, options)
    assert set(files) == set(found.entries)
    write_curve(files[UNET], {1: 5.0, 2: 11.0, 4: 30.0, 8: 70.0})
    model = open_bundle(emoji_bundle, options)
    try:
        step_ms = model.manifest.engine(*UNET).step_ms
        assert (step_ms[1], step_ms[2]) == (5.0, 11.0)
        assert model.max_rows[FULL] == 2
        assert manifest.engine(*UNET).step_ms[1] != 5.0
    finally:
        model.close()
