"""``mezzotint inspect``: what a bundle says of itself, and whether it is whole."""

import json
import shutil
from pathlib import Path

import pytest

from mezzotint.cli import cli
from mezzotint.cli.errors import run
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.manifest import MANIFEST, read_manifest


def test_it_shows_engines_schedule_limits_and_figures(emoji_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["inspect", str(emoji_bundle)]) == 0
    out = capsys.readouterr().out
    manifest = read_manifest(emoji_bundle)
    for entry in manifest.engines:
        assert f"{entry.component}" in out
        assert f"{entry.backend} {entry.backend_version}" in out
    for fact in (
        manifest.source.digest[:12],
        file_digest(emoji_bundle / MANIFEST)[:12],
        "scaled_linear",
        "predicts v,",
        "64x64",
        "22 tokens",
        f"{manifest.verified[0].snr_db:.1f} dB",
    ):
        assert fact in out


def test_variants_have_a_line_and_a_size_of_their_own(fast_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["inspect", str(fast_bundle)]) == 0
    assert "unet (shallow)" in capsys.readouterr().out
    assert run(cli, ["inspect", str(fast_bundle), "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)["engine_bytes"]
    assert sizes["unet"] > 10 * sizes["unet (shallow)"] > 0
    assert {f"vae_decoder ({variant})" for variant in ("part1", "part2", "part3", "tiny")} < set(sizes)


def test_json_is_the_manifest_with_digest_and_sizes(emoji_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["inspect", str(emoji_bundle), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["digest"] == file_digest(emoji_bundle / MANIFEST)
    assert about["manifest"] == read_manifest(emoji_bundle).model_dump(mode="json")
    assert all(size > 0 for size in about["engine_bytes"].values())


def test_a_changed_file_is_named(emoji_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(emoji_bundle, tmp_path / "copy")
    changed = copy / next(iter(read_manifest(copy).engines[0].files))
    changed.write_bytes(changed.read_bytes() + b" ")
    assert run(cli, ["inspect", str(copy)]) == 3
    assert str(changed) in capsys.readouterr().err


def test_a_folder_without_a_bundle_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["inspect", str(tmp_path)]) == 3
    assert "no bundle there" in capsys.readouterr().err
