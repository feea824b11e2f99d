"""Plans that tensorrt_rtx builds here without a GPU, and the ONNX that they are built of, run on ONNX Runtime."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mezzotint.compile import export
from mezzotint.compile.calibrate import observe
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.job import CompileJob
from mezzotint.compile.precision import derive
from mezzotint.compile.sizes import engine_axes, pixel_ranges
from mezzotint.compile.stages import Stages
from mezzotint.compile.targets import Target, rewritten
from mezzotint.compile.tensorrt.plan import PlanOptions, _timing_cache, build_plan, check_target, profile_shapes
from mezzotint.compile.verify import snr_db
from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import AxisRange, EngineEntry, TensorSpec
from tests.conftest import CACHE
from tests.fake_manifest import unets
from tests.tiny_onnx import tiny_inputs, tiny_spec, write_tiny_onnx

# torch warns of its own insides
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ADA = PlanOptions("8.9", memory_bytes=1 << 30)
# 6 dB or more below what was measured on the tiny graph.
FLOOR_DB = {Precision.FP16: 50.0, Precision.INT8_WEIGHTS: 36.0, Precision.INT8: 26.0, Precision.FP8: 20.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_onnx(tmp_path_factory.mktemp("export") / "unet.onnx")


def derived(source: Path, folder: Path, precision: Precision) -> Path:
    """The tiny graph for TensorRT, calibrated on its own inputs."""
    ranges, _ = observe(source, tiny_inputs(8), folder, lambda _: None)
    derive(source, folder / "unet.onnx", precision, "tensorrt", ranges)
    return folder / "unet.onnx"


def plan_of(file: Path, entry: EngineEntry, options: PlanOptions = ADA) -> tuple[bytes, list[float]]:
    told: list[float] = []
    build_plan(file, file.with_suffix(".plan"), entry, options, told.append, file.parent)
    return file.with_suffix(".plan").read_bytes(), told


@pytest.mark.parametrize("precision", FLOOR_DB)
def test_a_derived_graph_is_close_on_onnxruntime_and_tensorrt_builds_a_plan_of_it(
    source: Path, tmp_path: Path, precision: Precision
) -> None:
    outputs = []
    file = derived(source, tmp_path, precision)
    for path, kind in ((source, Precision.FP32), (file, precision)):
        spec = tiny_spec(path, "onnxruntime", kind)
        engine = get_backend("onnxruntime").load(path.parent, spec, EngineOptions(num_threads=1, row_counts=(8,)))
        outputs.append(engine.run(tiny_inputs(8))["output"])
        engine.close()
    assert snr_db(*outputs) > FLOOR_DB[precision]
    plan, told = plan_of(file, tiny_spec(file, "onnxruntime", precision))
    assert len(plan) > 10_000
    assert told[-1] == 1.0


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_no_grid_of_tensorrt_has_a_zero_point(source: Path, tmp_path: Path, precision: Precision) -> None:
    model = onnx.load(derived(source, tmp_path, precision))
    zeros = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in zeros}
    assert zeros == set(values)
    expected = "int8" if precision is Precision.INT8 else "float8_e4m3fn"
    assert {str(value.dtype) for value in values.values()} == {expected}
    assert not any(value.astype(np.float32).any() for value in values.values())


def test_a_node_that_cannot_be_parsed_is_named_with_its_op_and_why(source: Path, tmp_path: Path) -> None:
    model = onnx.load(source)
    model.graph.node[0].CopyFrom(helper.make_node("Frobnicate", ["timestep"], ["t"], name="the odd one"))
    onnx.save(model, tmp_path / "unet.onnx")
    with pytest.raises(CompileError, match=r"^unet: tensorrt_rtx cannot parse node 'the odd one' \(Frobnicate\): .+"):
        plan_of(tmp_path / "unet.onnx", tiny_spec(source, "onnxruntime", Precision.FP32))


@pytest.mark.parametrize("capability", ["9.0", "89", "", "ada"])
def test_a_compute_capability_that_is_not_built_for_is_refused_with_those_that_are(
    capability: str,
) -> None:
    with pytest.raises(CompileError, match=rf"^compute_capability={capability}: tensorrt_rtx .*7\.5.*12\.0"):
        check_target(PlanOptions(capability))


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8_BF16, Precision.INT4_WEIGHTS])
def test_a_precision_without_a_pass_for_tensorrt_is_refused(source: Path, tmp_path: Path, precision: Precision) -> None:
    with pytest.raises(CompileError, match=f"precision {precision}: tensorrt is built for fp32, fp16, fp8"):
        derive(source, tmp_path / "unet.onnx", precision, "tensorrt", {})


def test_eight_bit_floats_are_for_tensorrt_alone(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="precision fp8: openvino has no kernels"):
        derive(source, tmp_path / "unet.onnx", Precision.FP8, "openvino", {})


def test_a_profile_has_the_ends_of_every_axis(source: Path) -> None:
    entry = tiny_spec(source, "onnxruntime", Precision.FP32)
    rows, height = entry.axes["rows"], entry.axes["height"]
    least, best, most = profile_shapes(entry)["sample"]
    assert (least[0], best[0], most[0]) == (rows.min, rows.opt, rows.max)
    assert (least[2], best[2], most[2]) == (height.min, height.opt, height.max)


def test_the_text_axis_of_a_profile_goes_up_to_the_longest_prompt_and_is_tuned_at_one_chunk() -> None:
    text = TensorSpec(name="text", role="text", dtype="float32", axes=("rows", "tokens", 768))
    axes = {"rows": AxisRange(min=1, opt=2, max=8), "tokens": AxisRange(min=77, opt=77, max=308)}
    entry = unets(step_cache=False)[0].model_copy(update={"inputs": (text,), "axes": axes})
    assert profile_shapes(entry)["text"] == ((1, 77, 768), (2, 77, 768), (8, 308, 768))


@pytest.mark.parametrize("component", [Component.TEXT_ENCODER, Component.VAE_DECODER])
def test_parts_of_a_miniature_become_plans_at_fp16(sd15_checkpoint: Path, tmp_path: Path, component: Component) -> None:
    checkpoint, stages = load_checkpoint(str(sd15_checkpoint)), Stages(CACHE, lambda _: None)
    part = export.part(checkpoint, component)
    folder = export.exported(stages, component, part)
    ranges = pixel_ranges(CompileJob(source="", output=tmp_path, cache=CACHE), checkpoint)
    axes = engine_axes(checkpoint, ranges, 2, component)
    target = Target.whole(component, rewritten(component, folder, stages), part, axes)
    derive(target.onnx, tmp_path / "model.onnx", Precision.FP16, "tensorrt")
    changed = {"component": component, "inputs": part.inputs, "outputs": part.outputs, "axes": axes}
    entry = tiny_spec(target.onnx, "onnxruntime", Precision.FP16).model_copy(update=changed)
    assert len(plan_of(tmp_path / "model.onnx", entry)[0]) > 100_000


class Config:
    """A builder's configuration that takes timings of its own version alone."""

    def __init__(self) -> None:
        self.taken = b"none"

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return None if content == b"damaged" else content

    def set_timing_cache(self, known: bytes, ignore_mismatch: bool) -> bool:
        if known == b"other version":
            return False
        self.taken = known
        return True

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: self.taken + b" and new")


@pytest.mark.parametrize("kept", [None, b"old", b"other version", b"damaged"])
def test_timings_that_the_builder_refuses_are_begun_anew_and_the_file_comes_whole(
    tmp_path: Path, kept: bytes | None
) -> None:
    file, config = tmp_path / "cache" / "timing.bin", Config()
    if kept is not None:
        file.parent.mkdir()
        file.write_bytes(kept)
    before = file.stat().st_ino if kept else 0
    with _timing_cache(config, "tensorrt", file):
        assert config.taken == (kept if kept == b"old" else b"")
        if kept:
            (tmp_path / "kept").hardlink_to(file)  # so that its number is not given again
    assert file.read_bytes() == config.taken + b" and new"
    assert file.stat().st_ino != before  # it was put in its place, not written there
    assert [path.name for path in file.parent.iterdir()] == [file.name]
