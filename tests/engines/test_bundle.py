"""Opening bundles: what is refused before an engine is loaded, and in which words."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from mezzotint.engines.backend import Engine, EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.bundle import (
    RESERVED_BYTES,
    LoadOptions,
    open_bundle,
    opening_bundle,
    parse_devices,
    plan_loading,
)
from mezzotint.engines.component import Component
from mezzotint.engines.errors import BundleError, DeviceNotFound
from mezzotint.engines.generate import generate
from mezzotint.engines.manifest import MANIFEST, EngineEntry, read_manifest
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.variants import FULL
from tests.fakes import fake_model

HERE = LoadOptions(devices={}, cache=False)


@pytest.fixture
def bundle(emoji_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(emoji_bundle, tmp_path / "bundle")


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def test_a_flipped_byte_is_refused_by_file_and_both_digests(bundle: Path) -> None:
    weights = bytearray((bundle / "unet.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (bundle / "unet.bin").write_bytes(weights)
    with pytest.raises(BundleError, match=r"unet\.bin: sha256 is [0-9a-f]{12}…, the manifest says [0-9a-f]{12}…"):
        open_bundle(bundle, HERE)


def test_a_large_damaged_file_is_refused_before_anything_is_made_and_is_the_reason_of_what_failed_meanwhile(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mezzotint.engines.bundle._LARGE_BYTES", 1 << 20)
    with opening_bundle(bundle, HERE) as model:
        model.warm_up()
    assert pixels(model, MINE)
    weights = bytearray((bundle / "unet.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (bundle / "unet.bin").write_bytes(weights)
    with pytest.raises(BundleError, match=r"unet\.bin: sha256 is"), opening_bundle(bundle, HERE):
        raise RuntimeError("an engine could not be compiled")
    with pytest.raises(BundleError, match=r"unet\.bin: sha256 is"):
        open_bundle(bundle, HERE)


def test_a_large_damaged_file_is_the_reason_of_an_engine_that_cannot_be_loaded(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mezzotint.engines.bundle._LARGE_BYTES", 1 << 20)
    weights = bundle / "unet.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(get_backend("openvino"), "load", lambda *_: failed())
    with pytest.raises(BundleError, match=r"unet\.bin: sha256 is"):
        open_bundle(bundle, HERE)


def test_engines_that_were_loaded_before_one_that_fails_are_closed(
    emoji_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = fake_model(tmp_path)
    closed = list[Component]()

    def load(_folder: Path, spec: EngineEntry, _options: EngineOptions) -> Engine:
        if spec.component is Component.VAE_DECODER:
            failed()
        engine = model.engines[spec.component, FULL]
        monkeypatch.setattr(engine, "close", lambda: closed.append(spec.component))
        return engine

    monkeypatch.setattr(get_backend("openvino"), "load", load)
    with pytest.raises(RuntimeError, match="out of memory"):
        open_bundle(emoji_bundle, HERE)
    assert set(closed) == {Component.TEXT_ENCODER, Component.UNET}


def failed() -> NoReturn:
    raise RuntimeError("out of memory")


def test_a_missing_engine_file_is_one_sentence(bundle: Path) -> None:
    (bundle / "unet.xml").unlink()
    with pytest.raises(BundleError, match=r"unet\.xml: cannot be read \(No such file"):
        open_bundle(bundle, HERE)


def test_another_runtime_version_is_refused_by_both_versions(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["engines"][1].update(backend_version="2024.0.0"))
    installed = get_backend("openvino").version()
    with pytest.raises(BundleError, match=rf"unet was built for openvino 2024\.0\.0, but {installed} is installed"):
        open_bundle(bundle, HERE)


def test_a_manifest_of_another_format_version_is_refused(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest.update(format_version=99))
    with pytest.raises(BundleError, match="format version 99, but this Mezzotint reads 1"):
        open_bundle(bundle, HERE)


def test_an_unknown_key_in_a_manifest_is_named(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest.update(colour="red"))
    with pytest.raises(BundleError, match="colour"):
        open_bundle(bundle, HERE)


def test_half_a_manifest_is_one_sentence(bundle: Path) -> None:
    (bundle / MANIFEST).write_text('{"format_version": 1,')
    with pytest.raises(BundleError, match=r"manifest\.json: .*compile the bundle again"):
        open_bundle(bundle, HERE)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle there"):
        open_bundle(tmp_path, HERE)


def test_an_absent_device_is_refused_with_those_found(bundle: Path) -> None:
    with pytest.raises(DeviceNotFound, match=r"GPU.*found CPU"):
        open_bundle(bundle, LoadOptions(devices={Component.UNET: "GPU"}, cache=False))


def test_devices_are_read_whole_or_by_component() -> None:
    assert parse_devices("cpu") == {"": "cpu"}
    assert parse_devices("text=cpu,unet=gpu") == {"text_encoder": "cpu", "unet": "gpu"}
    assert parse_devices("vae=gpu") == {"vae_decoder": "gpu", "vae_encoder": "gpu"}
    with pytest.raises(BundleError, match="'clip' is no component"):
        parse_devices("clip=cpu")


def pixels(model: Model, *requests: Request) -> list[np.ndarray[Any, Any]]:
    made = generate(model, list(requests))
    return [image.pixels for images in made for image in images if image.pixels is not None]


MINE = Request(prompt="a shark", steps=5, guidance=4.0, seed=9, sampler="euler_a")
OTHERS = (
    Request(prompt="a cat", steps=4, guidance=3.0, seed=1, sampler="heun"),
    Request(prompt="a dog", steps=7, guidance=1.0, seed=2, sampler="dpmpp_2m", num_images=3),
    Request(prompt="a fox", steps=6, guidance=6.0, seed=3, sampler="ddim", eta=1.0),
)


@pytest.mark.parametrize("place", range(4))
def test_a_picture_is_bit_equal_alone_and_at_any_place_among_others(emoji: Model, place: int) -> None:
    alone = pixels(emoji, MINE)[0]
    wide = Model(emoji.manifest, emoji.digest, emoji.prompts, emoji.engines, {"full": 8})  # whatever gains here
    mixed = generate(wide, [*OTHERS[:place], MINE, *OTHERS[place:]])[place][0].pixels
    assert mixed is not None
    assert np.array_equal(alone, mixed)


def test_strict_mode_runs_one_fixed_shape_and_gives_the_same_picture(emoji: Model, emoji_bundle: Path) -> None:
    strict = open_bundle(emoji_bundle, LoadOptions(devices={}, strict=True, cache=False))
    assert all(engine.row_counts == (1,) for engine in strict.engines.values())
    assert np.array_equal(pixels(strict, MINE)[0], pixels(emoji, MINE)[0])


@pytest.mark.slow
def test_rows_that_are_prepared_later_change_nothing(emoji_bundle: Path) -> None:
    model = open_bundle(emoji_bundle, HERE)
    model.warm_up()
    before = pixels(model, MINE, *OTHERS)
    model.warm_up_rest()
    for a, b in zip(before, pixels(model, MINE, *OTHERS), strict=True):
        assert np.array_equal(a, b)


def budget(bundle: Path, *, shares: float) -> LoadOptions:
    """Options with room for one row count of each engine and a share of all others, in a process that takes nothing."""
    planned = plan_loading([bundle], HERE).wanted[bundle].values()
    fewest = sum(engine.num_bytes((min(engine.counts),)) for engine in planned)
    most = sum(engine.num_bytes(engine.counts) for engine in planned)
    return replace(HERE, memory_budget=RESERVED_BYTES + fewest + int(shares * (most - fewest)))


@pytest.fixture
def empty_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mezzotint.engines.bundle.resident_bytes", lambda: 0)


@pytest.mark.usefixtures("empty_process")
def test_a_budget_prepares_fewer_row_counts_and_changes_no_picture(emoji: Model, steep_bundle: Path) -> None:
    tight = open_bundle(steep_bundle, budget(steep_bundle, shares=0.0))
    assert {engine.row_counts for engine in tight.engines.values()} == {(1,)}
    loose = open_bundle(steep_bundle, budget(steep_bundle, shares=1.0))
    assert loose.engines[Component.UNET, "full"].row_counts == (1, 2, 4, 8)
    assert np.array_equal(pixels(tight, MINE)[0], pixels(emoji, MINE)[0])
    tight.close()
    loose.close()


@pytest.fixture
def steep_bundle(bundle: Path) -> Path:
    """The demo model as a machine would have timed it on which rows gain a lot."""
    for i in range(4):
        edit(bundle, lambda manifest, i=i: manifest["engines"][i].update(step_ms={1: 10.0, 2: 11.0, 4: 12.0, 8: 13.0}))
    return bundle


@pytest.mark.usefixtures("empty_process")
def test_several_bundles_share_one_budget(steep_bundle: Path, emoji_bundle: Path) -> None:
    room = budget(steep_bundle, shares=0.0)
    plan_loading([steep_bundle], room)
    with pytest.raises(
        BundleError, match=r"memory budget \d+ MiB: one row count of each engine needs \d+ MiB, \d+ MiB"
    ):
        plan_loading([steep_bundle, emoji_bundle], room)


def test_what_an_engine_takes_in_memory_is_measured_and_may_be_missing(bundle: Path) -> None:
    unet = read_manifest(bundle).engine(Component.UNET)
    assert set(unet.resident_bytes) >= {1}
    assert all(20 << 20 < num_bytes < 1 << 30 for num_bytes in unet.resident_bytes.values())
    for i in range(4):
        edit(bundle, lambda manifest, i=i: manifest["engines"][i].pop("resident_bytes"))
    assert plan_loading([bundle], replace(HERE, memory_budget=4 << 30)).shapes is not None


OPEN = """
import sys
from pathlib import Path
from mezzotint.engines.bundle import LoadOptions, open_bundle
open_bundle(Path(sys.argv[1]), LoadOptions(devices={}, cache=False))
print(sys.modules["openvino_telemetry"])
"""


def test_opening_a_bundle_reports_nothing_to_anyone(emoji_bundle: Path) -> None:
    done = subprocess.run([sys.executable, "-c", OPEN, str(emoji_bundle)], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
