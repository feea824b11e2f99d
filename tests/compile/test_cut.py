"""Cutting exported graphs: the right tensor is found by its torch module, and the parts compute what the whole did."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch

from mezzotint.compile import export
from mezzotint.compile.checkpoint import Checkpoint, load_checkpoint
from mezzotint.compile.graph.cut import cut, read, write
from mezzotint.compile.graph.decoder import Sections, block_modules
from mezzotint.compile.graph.modules import output_of
from mezzotint.compile.graph.step_cache import feature_module, split
from mezzotint.compile.precision import derive
from mezzotint.compile.stages import Stages
from mezzotint.compile.verify import snr_db
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import CompileError, InvalidRequest
from tests.conftest import CACHE, EMOJI
from tests.tiny_onnx import tiny_inputs, write_tiny_onnx

# torch and diffusers warn of their own insides
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Arrays = dict[str, npt.NDArray[Any]]
RUNTIMES = ("openvino", "onnxruntime")


@pytest.fixture(scope="module", params=["emoji", "sd15", pytest.param("sd21", marks=pytest.mark.slow)])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    request.getfixturevalue(f"{request.param}_bundle")  # has the exports made, once for all workers
    source = EMOJI if request.param == "emoji" else request.getfixturevalue(f"{request.param}_checkpoint")
    return load_checkpoint(source)


def graph(checkpoint: Checkpoint, component: Component) -> Path:
    """The component's export, kept in the tests' cache under the compiler's own name for it."""
    stages = Stages(CACHE, lambda _: None)
    part = export.part(checkpoint, component)
    return export.exported(stages, component, part) / export.ONNX_FILE


def inputs_of(checkpoint: Checkpoint, component: Component) -> Arrays:
    torch.manual_seed(0)
    part = export.part(checkpoint, component)
    return {tensor.name: array.numpy() for tensor, array in zip(part.inputs, part.example, strict=True)}


def run(path: Path, inputs: Mapping[str, Any], runtime: str, *, layout: bool = False) -> Arrays:
    """Run a graph; ``layout`` lets ONNX Runtime put convolutions into a layout of its own, as it does by default."""
    if runtime == "onnxruntime":
        options, levels = ort.SessionOptions(), ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if layout else levels.ORT_ENABLE_EXTENDED
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {i.name: inputs[i.name] for i in session.get_inputs()}), strict=True))
    model = ov.Core().read_model(path)
    model.reshape({i: ov.PartialShape(list(inputs[p.any_name].shape)) for i, p in enumerate(model.inputs)})
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled([inputs[port.any_name] for port in model.inputs])
    return {port.any_name: found[i].copy() for i, port in enumerate(model.outputs)}


def test_the_cached_tensor_is_the_one_that_torchs_module_gives(checkpoint: Checkpoint, tmp_path: Path) -> None:
    inputs = inputs_of(checkpoint, Component.UNET)
    source = graph(checkpoint, Component.UNET)
    for branch in range(len(checkpoint.unet.up_blocks[-1].resnets)):
        module = feature_module(checkpoint.unet, branch)
        seen: list[torch.Tensor] = []
        hook = checkpoint.unet.get_submodule(module).register_forward_hook(
            lambda _m, _i, output, seen=seen: seen.append(output[0] if isinstance(output, tuple) else output)
        )
        with torch.no_grad():
            output = export.part(checkpoint, Component.UNET).module(*map(torch.from_numpy, inputs.values()))
        hook.remove()
        full, _, feature = split(read(source), module)
        write(full, source, tmp_path / f"{branch}" / "full.onnx")
        made = run(tmp_path / f"{branch}" / "full.onnx", inputs, "onnxruntime")
        assert list(made) == ["output", "feature"]
        assert feature.axes == ("rows", seen[0].shape[1], "height", "width")
        assert made["feature"].shape[2:] == made["output"].shape[2:] == inputs["sample"].shape[2:]
        for truth, found in ((seen[0].numpy(), made["feature"]), (output.numpy(), made["output"])):
            assert np.linalg.norm(found - truth) <= 1e-4 * np.linalg.norm(truth)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_shallow_call_with_the_same_steps_feature_is_the_full_call(
    checkpoint: Checkpoint, tmp_path: Path, runtime: str
) -> None:
    inputs = inputs_of(checkpoint, Component.UNET)
    source = graph(checkpoint, Component.UNET)
    whole = run(source, inputs, runtime)["output"]
    for branch in range(len(checkpoint.unet.up_blocks[-1].resnets)):
        parts = split(read(source), feature_module(checkpoint.unet, branch))[:2]
        paths = [tmp_path / f"{branch}" / name for name in ("full.onnx", "shallow.onnx")]
        for path, part in zip(paths, parts, strict=True):
            write(part, source, path)
        full = run(paths[0], inputs, runtime)
        shallow = run(paths[1], inputs | {"feature": full["feature"]}, runtime)["output"]
        np.testing.assert_array_equal(full["output"], whole)
        np.testing.assert_array_equal(shallow, whole)
        assert len(onnx.load(paths[1]).graph.node) < len(onnx.load(source).graph.node) / 2


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_decoders_parts_in_a_row_are_the_decoder(checkpoint: Checkpoint, tmp_path: Path, runtime: str) -> None:
    source = graph(checkpoint, Component.VAE_DECODER)
    inputs = inputs_of(checkpoint, Component.VAE_DECODER)
    sections = Sections(read(source), block_modules(checkpoint.vae))
    assert len(sections) == len(checkpoint.vae.decoder.up_blocks) + 2
    tensors: Mapping[str, Any] = inputs
    for i in range(len(sections)):
        part, taken, given = sections.part(i, i + 1)
        write(part, source, tmp_path / f"{i}.onnx")
        assert taken is None or list(tensors) == [taken.name]
        tensors = run(tmp_path / f"{i}.onnx", tensors, runtime)
        if given is not None:
            (array,) = tensors.values()
            scale = int(str(given.axes[2]).partition("_x")[2] or 1)
            assert array.shape[1:] == (given.axes[1], *(scale * side for side in inputs["latents"].shape[2:]))
    np.testing.assert_array_equal(tensors["pixels"], run(source, inputs, runtime)["pixels"])


def test_a_cut_between_fused_operations_costs_rounding_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    # in its own layout ONNX Runtime adds residuals inside convolutions, but not across a cut: 120 dB measured
    source = graph(checkpoint, Component.VAE_DECODER)
    inputs = inputs_of(checkpoint, Component.VAE_DECODER)
    sections = Sections(read(source), block_modules(checkpoint.vae))
    tensors: Mapping[str, Any] = inputs
    for i in range(len(sections)):
        write(sections.part(i, i + 1)[0], source, tmp_path / f"{i}.onnx")
        tensors = run(tmp_path / f"{i}.onnx", tensors, "onnxruntime", layout=True)
    assert snr_db(run(source, inputs, "onnxruntime", layout=True)["pixels"], tensors["pixels"]) > 110


def test_several_sections_make_one_part(sd15_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(sd15_checkpoint)
    source = graph(checkpoint, Component.VAE_DECODER)
    inputs = inputs_of(checkpoint, Component.VAE_DECODER)
    sections = Sections(read(source), block_modules(checkpoint.vae))
    parts = [sections.part(0, 2), sections.part(2, len(sections))]
    assert parts[0][2] == parts[1][1]
    for name, (part, _, _) in zip("ab", parts, strict=True):
        write(part, source, tmp_path / f"{name}.onnx")
    hidden = run(tmp_path / "a.onnx", inputs, "openvino")
    pixels = run(tmp_path / "b.onnx", hidden, "openvino")["pixels"]
    np.testing.assert_array_equal(pixels, run(source, inputs, "openvino")["pixels"])


def test_a_branch_that_the_model_does_not_have_is_refused(checkpoint: Checkpoint) -> None:
    num = len(checkpoint.unet.up_blocks[-1].resnets)
    for branch in (num, -1):
        with pytest.raises(InvalidRequest, match=rf"step_cache={branch}: must be .* 0 to {num - 1}"):
            feature_module(checkpoint.unet, branch)


def test_a_module_that_is_not_in_the_graph_is_refused(sd15_checkpoint: Path) -> None:
    model = read(graph(load_checkpoint(sd15_checkpoint), Component.VAE_DECODER))
    with pytest.raises(CompileError, match=r"no output of a module vae\.decoder\.up_blocks\.9"):
        output_of(model, "vae.decoder.up_blocks.9")


def test_weights_beside_a_graph_are_linked_and_can_be_derived_from(tmp_path: Path) -> None:
    source = tmp_path / "whole" / "model.onnx"
    source.parent.mkdir()
    model = onnx.shape_inference.infer_shapes(onnx.load(write_tiny_onnx(tmp_path / "tiny.onnx")))
    onnx.save(model, source, save_as_external_data=True, location="model.onnx.data", size_threshold=128)
    for name in ("a", "b"):
        own = {value.name: value.name for value in model.graph.input}
        write(cut(read(source), own, {"output": "output", "x13": "feature"}), source, tmp_path / name / "model.onnx")
        assert (tmp_path / name / "model.onnx.data").samefile(source.parent / "model.onnx.data")
    assert (tmp_path / "a" / "model.onnx").read_bytes() == (tmp_path / "b" / "model.onnx").read_bytes()
    inputs = tiny_inputs(2)
    whole, part = (run(tmp_path / name / "model.onnx", inputs, "onnxruntime") for name in ("whole", "a"))
    assert list(part) == ["output", "feature"]
    np.testing.assert_array_equal(part["output"], whole["output"])
    derive(tmp_path / "a" / "model.onnx", tmp_path / "derived.onnx", Precision.FP32, "onnxruntime")
    np.testing.assert_array_equal(run(tmp_path / "derived.onnx", inputs, "onnxruntime")["feature"], part["feature"])


def test_a_cut_that_needs_more_than_its_inputs_is_refused(tmp_path: Path) -> None:
    source = write_tiny_onnx(tmp_path / "tiny.onnx")
    with pytest.raises(CompileError, match=r"cannot be cut at timestep: .* sample"):
        cut(read(source), {"timestep": "timestep"}, {"output": "output"})
    with pytest.raises(CompileError, match=r"another folder"):
        write(read(source), source, tmp_path / "part.onnx")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a model")
    for name in ("a.onnx", "missing.onnx"):
        with pytest.raises(CompileError, match=rf"{name}: is no ONNX model that can be read"):
            read(tmp_path / name)
