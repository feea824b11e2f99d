"""OpenVINO engines: rows split freely, one compiled model for each shape, errors of one sentence."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import openvino as ov
import pytest

from mezzotint.compile.build import build
from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends.openvino import BACKEND, OpenVINOBackend
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.component import Precision
from mezzotint.engines.errors import BundleError, DeviceNotFound, EngineFailed
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.shapes import CompiledShapes
from tests.tiny_onnx import tiny_inputs, tiny_spec, write_tiny_onnx

ONE_THREAD = EngineOptions(num_threads=1, row_counts=(8,))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_onnx(tmp_path_factory.mktemp("openvino") / "unet.onnx")


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("row_counts", [(1,), (2, 4), (1, 2, 4, 8)])
def test_split_and_padded_rows_equal_one_call_bit_for_bit(
    file: Path, row_counts: tuple[int, ...], precision: Precision
) -> None:
    spec = tiny_spec(file, "openvino", precision)
    whole = BACKEND.load(file.parent, spec, ONE_THREAD).run(tiny_inputs(8))["output"]
    engine = BACKEND.load(file.parent, spec, EngineOptions(num_threads=1, row_counts=row_counts))
    for num_rows in (8, 7, 3, 1):
        output = engine.run({name: rows[:num_rows] for name, rows in tiny_inputs(8).items()})["output"]
        assert output.dtype == np.float32
        np.testing.assert_array_equal(output, whole[:num_rows])
    engine.close()


def test_an_engine_runs_every_size_and_keeps_them_apart(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "openvino"), EngineOptions(num_threads=1))
    inputs = tiny_inputs(1)
    small = engine.run(inputs)["output"]
    wide = engine.run({"sample": np.tile(inputs["sample"], (1, 1, 1, 2)), "timestep": inputs["timestep"]})["output"]
    assert small.shape == (1, 4, 16, 16)
    assert wide.shape == (1, 4, 16, 32)
    np.testing.assert_array_equal(engine.run(inputs)["output"], small)


def test_an_output_stays_what_it_was_when_the_engine_runs_again(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "openvino"), EngineOptions(num_threads=1, row_counts=(2,)))
    first = engine.run(tiny_inputs(2, seed=1))["output"]
    kept = first.copy()
    engine.run(tiny_inputs(2, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_arrays_that_are_not_contiguous_are_read_by_value(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "openvino"), EngineOptions(num_threads=1, row_counts=(2,)))
    inputs = tiny_inputs(4)
    views = {name: rows[::2] for name, rows in inputs.items()}
    copies = {name: rows.copy() for name, rows in views.items()}
    np.testing.assert_array_equal(engine.run(views)["output"], engine.run(copies)["output"])


@pytest.fixture(scope="module")
def engine_folder(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny graph as the compiler builds it: OpenVINO's own two files."""
    folder = tmp_path_factory.mktemp("built")
    build(file, folder, "openvino")
    return folder


def built_spec(folder: Path) -> EngineEntry:
    names = ("unet.xml", "unet.bin")
    return tiny_spec(folder / names[0], "openvino").model_copy(update={"files": dict.fromkeys(names, "0" * 64)})


def no_compiling(self: ov.Core, *_: object) -> NoReturn:
    raise AssertionError("a graph was read, though a compiled one is kept")


def test_a_kept_graph_is_used_without_reading_the_engine_and_gives_the_same_bits(
    engine_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = EngineOptions(num_threads=1, cache_dir=tmp_path / "blobs")
    fresh = BACKEND.load(engine_folder, built_spec(engine_folder), options).run(tiny_inputs(1))["output"]
    (blob,) = (tmp_path / "blobs").iterdir()
    assert blob.suffix == ".blob"
    monkeypatch.setattr(ov.Core, "read_model", no_compiling)
    kept = BACKEND.load(engine_folder, built_spec(engine_folder), options).run(tiny_inputs(1))["output"]
    np.testing.assert_array_equal(fresh, kept)


@pytest.mark.parametrize("other", ["threads", "files", "shapes"])
def test_a_graph_that_was_kept_for_something_else_is_not_used(
    engine_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    options = EngineOptions(num_threads=1, cache_dir=tmp_path)
    BACKEND.load(engine_folder, built_spec(engine_folder), options).run(tiny_inputs(1))
    spec, rows = built_spec(engine_folder), 1
    match other:
        case "threads":
            options = EngineOptions(num_threads=2, cache_dir=tmp_path)
        case "files":
            spec = spec.model_copy(update={"files": spec.files | {"unet.bin": "1" * 64}})
        case _:
            options, rows = EngineOptions(num_threads=1, row_counts=(2,), cache_dir=tmp_path), 2
    monkeypatch.setattr(ov.Core, "read_model", no_compiling)
    with pytest.raises(AssertionError, match="a graph was read"):
        BACKEND.load(engine_folder, spec, options).run(tiny_inputs(rows))


def flipped(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda content: content[:1000],
        lambda _: b"",
        lambda _: hashlib.sha256(b"foreign").digest() + b"foreign",
    ],
    ids=["flipped", "cut", "empty", "foreign"],
)
def test_a_damaged_or_foreign_graph_is_compiled_again(
    engine_folder: Path, tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    options = EngineOptions(num_threads=1, cache_dir=tmp_path)
    fresh = BACKEND.load(engine_folder, built_spec(engine_folder), options).run(tiny_inputs(1))["output"]
    (blob,) = tmp_path.iterdir()
    whole = blob.read_bytes()
    blob.write_bytes(damage(whole))
    again = BACKEND.load(engine_folder, built_spec(engine_folder), options).run(tiny_inputs(1))["output"]
    np.testing.assert_array_equal(fresh, again)
    assert "it is compiled again" in caplog.text
    digest, kept = blob.read_bytes()[:32], blob.read_bytes()[32:]
    assert hashlib.sha256(kept).digest() == digest
    assert len(kept) == pytest.approx(len(whole), rel=0.01)  # the runtime notes times in it


def test_a_cache_that_cannot_be_written_is_a_warning(
    engine_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    options = EngineOptions(num_threads=1, cache_dir=tmp_path / "file" / "blobs")
    BACKEND.load(engine_folder, built_spec(engine_folder), options).run(tiny_inputs(1))
    assert "cannot be written" in caplog.text


def test_graphs_of_a_bundle_are_kept_without_its_weights(
    emoji_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        model = open_bundle(emoji_bundle, LoadOptions(devices={}))
        model.warm_up()
        model.close()
    blobs = list(tmp_path.rglob("*.blob"))
    assert len(blobs) == len(model.engines)
    assert sum(blob.stat().st_size for blob in blobs) < (emoji_bundle / "unet.bin").stat().st_size / 4


def test_on_a_budget_sizes_make_room_for_each_other_and_stay_right(file: Path) -> None:
    limited = CompiledShapes(limit_bytes=100)
    bytes_by_rows = {1: 60, 2: 60}
    options = EngineOptions(num_threads=1, row_counts=(1, 2), shapes=limited, shape_bytes=bytes_by_rows)
    engine = BACKEND.load(file.parent, tiny_spec(file, "openvino"), options)
    free = BACKEND.load(file.parent, tiny_spec(file, "openvino"), EngineOptions(num_threads=1, row_counts=(1, 2)))
    for rows in (1, 2, 3, 1):
        inputs = tiny_inputs(rows)
        np.testing.assert_array_equal(engine.run(inputs)["output"], free.run(inputs)["output"])
        assert limited.num_bytes == 60
    engine.close()
    assert limited.num_bytes == 0


def test_a_shape_that_fails_holds_no_room(file: Path) -> None:
    limited = CompiledShapes(limit_bytes=100)
    options = EngineOptions(num_threads=1, shapes=limited, shape_bytes={1: 60})
    engine = BACKEND.load(file.parent, tiny_spec(file, "openvino"), options)
    with pytest.raises(EngineFailed):
        engine.run(tiny_inputs(1) | {"sample": np.zeros((1, 5, 8, 8), np.float32)})
    assert limited.num_bytes == 0


def test_the_host_chooses_the_device_by_any_case(file: Path) -> None:
    spec = tiny_spec(file, "openvino").model_copy(update={"device": "gpu"})
    assert BACKEND.load(file.parent, spec, EngineOptions(device="Cpu")).device == "CPU"


def test_a_device_that_is_not_there_is_refused_with_those_that_are(file: Path) -> None:
    with pytest.raises(DeviceNotFound, match=r"device warp: OpenVINO finds no such device.*; found .*CPU"):
        BACKEND.load(file.parent, tiny_spec(file, "openvino"), EngineOptions(device="warp"))


@pytest.mark.parametrize(
    ("found", "taken", "refused"),
    [
        (("CPU", "GPU"), ("cpu", "CPU.0", "gpu", "GPU.0"), ("CPU.3", "GPU.1", "GPU.", "NPU")),
        (("CPU", "GPU.0", "GPU.1"), ("GPU", "gpu.0", "GPU.1"), ("GPU.7", "GPU.x", "GP")),
    ],
)
def test_a_device_of_a_number_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...], taken: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    monkeypatch.setattr(OpenVINOBackend, "devices", lambda _: found)
    assert [BACKEND._found(name) for name in taken] == [name.upper() for name in taken]
    for name in refused:
        with pytest.raises(DeviceNotFound, match=rf"device {name}: OpenVINO finds no such device; found CPU, GPU"):
            BACKEND._found(name)


def test_a_closed_engine_says_so(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "openvino"), ONE_THREAD)
    engine.run(tiny_inputs(8))
    engine.close()
    for call in (engine.run, engine.prepare):
        with pytest.raises(EngineFailed, match="unet was closed; load its bundle again"):
            call(tiny_inputs(8))


def test_a_missing_engine_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"unet\.onnx: engine file is missing; compile the bundle again"):
        BACKEND.load(tmp_path, tiny_spec(Path("unet.onnx"), "openvino"), EngineOptions())


def test_a_shape_that_the_graph_refuses_fails_in_one_sentence(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "openvino"), EngineOptions(num_threads=1))
    inputs = tiny_inputs(1) | {"sample": np.zeros((1, 5, 8, 8), np.float32)}
    with pytest.raises(EngineFailed, match=r"unet failed on CPU at \[\(1, 5, 8, 8\), \(1,\)\]: .+") as caught:
        engine.run(inputs)
    assert "\n" not in str(caught.value)


def test_fp32_is_first_of_what_a_cpu_computes_in() -> None:
    precisions = BACKEND.precisions("cpu")
    assert precisions[0] is Precision.FP32
    assert {Precision.INT8_WEIGHTS, Precision.INT8_HYBRID, Precision.INT8} <= set(precisions)
    assert (Precision.INT8_BF16 in precisions) == (Precision.BF16 in precisions)
    assert precisions[-1] is Precision.INT4_WEIGHTS
    assert BACKEND.version()


@pytest.mark.parametrize(
    ("precision", "capability", "type_"),
    [
        (Precision.INT4_WEIGHTS, "BF16", ov.Type.bf16),
        (Precision.FP16, "FP16", ov.Type.f16),
        (Precision.INT8_WEIGHTS, "FP32", ov.Type.f32),
    ],
)
def test_narrow_weights_are_computed_with_in_float32_where_the_device_has_no_narrow_floats(
    file: Path, precision: Precision, capability: str, type_: ov.Type
) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "openvino", precision), ONE_THREAD)
    has = capability in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    engine.run(tiny_inputs(8))
    ((request, _),) = engine._kept._kept.values()
    found = request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT")
    assert found == (type_ if has else ov.Type.f32)
