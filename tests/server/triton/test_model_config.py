"""Configurations as Triton's own parser reads them."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import EngineEntry
from mezzotint.server.kserve.tensors import INPUTS, OUTPUTS, tensors_of
from mezzotint.server.triton.model_config import component_config, generation_config, text_of
from tests.fake_manifest import fake_manifest

ENTRY = fake_manifest().engine(Component.UNET)


def parsed(text: str) -> triton.ModelConfig:
    return text_format.Parse(text, triton.ModelConfig())


def native(backend: str, flavour: str = "", device: str = "cpu", precision: str = "fp32") -> EngineEntry:
    changed = {"backend": backend, "flavour": flavour, "device": device, "precision": Precision(precision)}
    return ENTRY.model_copy(update={**changed, "files": {"unet.file": "ab" * 32, "unet.data": "cd" * 32}})


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_model_has_the_tensors_of_the_contract(decoupled: bool) -> None:
    config = parsed(generation_config("emoji", decoupled=decoupled, parameters={"policy": 'a "b" \\ c'}))
    assert (config.name, config.backend, config.max_batch_size) == ("emoji", "python", 0)
    assert config.model_transaction_policy.decoupled is decoupled
    inputs, outputs = (tensors_of(tensors, decoupled=decoupled) for tensors in (INPUTS, OUTPUTS))
    found = [(i.name, triton.DataType.Name(i.data_type), tuple(i.dims), i.optional) for i in config.input]
    assert found == [(t.name, t.datatype.config_name, t.dims, t.optional) for t in inputs]
    given = [(o.name, triton.DataType.Name(o.data_type), tuple(o.dims)) for o in config.output]
    assert given == [(t.name, t.datatype.config_name, t.dims) for t in outputs]
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, triton.ModelInstanceGroup.KIND_CPU)]
    assert config.parameters["policy"].string_value == 'a "b" \\ c'


def test_a_component_has_the_manifests_tensors_with_free_axes() -> None:
    entry = native("openvino")
    config = parsed(component_config("emoji_unet", entry, native=False, parameters={"device": ""}))
    assert [i.name for i in config.input] == [tensor.name for tensor in entry.inputs]
    assert list(config.input[0].dims) == [axis if isinstance(axis, int) else -1 for axis in entry.inputs[0].axes]
    assert config.input[0].dims[0] == -1
    assert config.parameters["mezzotint_sha256"].string_value == "ab" * 32
    assert config.instance_group[0].rate_limiter.resources[0].count == 1


@pytest.mark.parametrize(
    ("entry", "backend", "kind"),
    [
        (native("tensorrt", device="cuda"), "tensorrt", "KIND_GPU"),
        (native("onnxruntime", device="cuda:0"), "onnxruntime", "KIND_GPU"),
        (native("openvino"), "openvino", "KIND_CPU"),
    ],
)
def test_a_native_component_names_its_backend_and_file(entry: EngineEntry, backend: str, kind: str) -> None:
    config = parsed(component_config("m", entry, native=True, parameters={"device": "never said"}))
    assert (config.backend, config.default_model_filename) == (backend, "unet.file")
    assert triton.ModelInstanceGroup.Kind.Name(config.instance_group[0].kind) == kind
    assert set(config.parameters) == {"mezzotint_sha256"}


def test_an_openvino_engine_in_bfloat16_says_so() -> None:
    config = parsed(component_config("m", native("openvino", precision="bf16"), native=True, parameters={}))
    assert config.parameters["HINT_BF16"].string_value == "YES"


def test_what_no_backend_of_tritons_runs_is_refused_in_one_sentence() -> None:
    with pytest.raises(BundleError, match=r"unet: was built for TensorRT for RTX.*--components python"):
        component_config("m", native("tensorrt", "rtx"), native=True, parameters={})
    with pytest.raises(BundleError, match="unet: was built for abacus, for which Triton has no backend"):
        component_config("m", native("abacus"), native=True, parameters={})


def test_comments_and_nested_fields_are_protobufs_text() -> None:
    assert text_of([("#", "why"), ("a", [("b", 1), ("c", [-1, 2])])]) == "# why\na {\n  b: 1\n  c: [ -1, 2 ]\n}\n"
