"""The pure parts of the ``triton`` backend; against the real server it is tried in tests/server/triton."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.backends.triton import CallFailed, TritonEngine, checked
from mezzotint.engines.component import Component
from mezzotint.engines.errors import BundleError, DeviceNotFound, EngineFailed
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.remote import RemoteModel
from tests.fake_manifest import fake_manifest

UNET = fake_manifest().engine(Component.UNET)
(OUTPUT,) = [tensor for tensor in UNET.outputs if tensor.name == "output"]
ROWS = {"sample": np.zeros((2, 4, 8, 8), np.float32)}


def remote_entry(folder: Path, device: str, content: str) -> EngineEntry:
    (folder / "unet.json").write_text(content, encoding="utf-8")
    return UNET.model_copy(update={"backend": "triton", "device": device, "files": {"unet.json": "0" * 64}})


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({}, "gave no output output; it gave none"),
        ({"output": np.zeros((2, 4, 8, 8))}, r"gave output as float64 \[2, 4, 8, 8\], expected float32"),
        ({"output": np.zeros((1, 4, 8, 8), np.float32)}, r"gave output as float32 \[1, 4, 8, 8\]"),
        ({"output": np.zeros((2, 4, 8), np.float32)}, r"gave output as float32 \[2, 4, 8\]"),
    ],
)
def test_outputs_that_are_not_the_manifests_are_refused(outputs: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(CallFailed, match=reason):
        checked(OUTPUT, outputs, ROWS)


def test_an_output_of_the_manifests_shape_passes() -> None:
    array = np.ones((2, 4, 8, 8), np.float32)
    assert checked(OUTPUT, {"output": array}, ROWS) is array


@pytest.mark.parametrize("device", ["localhost", "localhost:grpc", ":8001", "http://"])
def test_a_device_that_is_no_address_is_one_sentence(tmp_path: Path, device: str) -> None:
    entry = remote_entry(tmp_path, device, RemoteModel(model="emoji_unet", sha256="ab").model_dump_json())
    with pytest.raises(DeviceNotFound, match="is no Triton server's address; write HOST:PORT"):
        get_backend("triton").load(tmp_path, entry, EngineOptions())


def test_a_server_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    entry = remote_entry(tmp_path, "127.0.0.1:1", RemoteModel(model="emoji_unet", sha256="ab").model_dump_json())
    with pytest.raises(DeviceNotFound, match=r"device 127.0.0.1:1: no Triton server answers there \(.*--device"):
        get_backend("triton").load(tmp_path, entry, EngineOptions())


def test_the_server_that_runs_a_model_is_named_in_that_model_alone(tmp_path: Path) -> None:
    entry = remote_entry(tmp_path, "inside", RemoteModel(model="emoji_unet", sha256="ab").model_dump_json())
    with pytest.raises(DeviceNotFound, match="device inside: is there in a model of Triton alone; name a server's"):
        get_backend("triton").load(tmp_path, entry, EngineOptions())


@pytest.mark.parametrize("content", ["", "{}", json.dumps({"model": "m", "sha256": "ab", "timeout_seconds": 0})])
def test_an_engine_file_that_names_no_model_is_one_sentence(tmp_path: Path, content: str) -> None:
    with pytest.raises(BundleError, match="names no model of Triton; export the bundle again"):
        get_backend("triton").load(tmp_path, remote_entry(tmp_path, "localhost:8001", content), EngineOptions())


class Gone:
    """A server that every call fails on."""

    def digest(self, model: str) -> str:
        raise CallFailed("it is not ready")

    def call(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], timeout_seconds: float
    ) -> Mapping[str, np.ndarray]:
        raise CallFailed(f"no answer within {timeout_seconds:g} s")

    def close(self) -> None:
        """Nothing is held."""


def test_a_failed_call_names_the_component_the_server_and_the_model() -> None:
    remote = RemoteModel(model="emoji_unet", sha256="ab", timeout_seconds=5)
    engine = TritonEngine(Gone(), remote, UNET, "gpu-host:8001", (1, 2))
    inputs = {name: np.zeros(shape, np.float32) for name, shape in UNET.input_shapes(2).items()}
    with pytest.raises(
        EngineFailed, match=r"unet failed on gpu-host:8001 at .* model emoji_unet: no answer within 5 s"
    ):
        engine.run(inputs)
    engine.close()
    with pytest.raises(EngineFailed, match="was closed"):
        engine.run(inputs)


class Echo(Gone):
    """A server whose outputs are the first input's rows, and that notes how many each call has."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def call(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], timeout_seconds: float
    ) -> Mapping[str, np.ndarray]:
        self.rows.append(len(inputs["sample"]))
        shapes = {tensor.name: tensor.axes for tensor in UNET.outputs}
        sizes = {"rows": self.rows[-1], "height": 8, "width": 8}
        blank = {
            name: np.zeros([sizes.get(a, a) if isinstance(a, str) else a for a in axes], np.float32)
            for name, axes in shapes.items()
        }
        return blank | {"output": inputs["sample"]}


@pytest.mark.parametrize(("counts", "called"), [((1, 2), [2, 1]), ((1,), [1, 1, 1]), ((4,), [4])])
def test_rows_go_to_the_server_in_the_counts_that_were_prepared(counts: tuple[int, ...], called: list[int]) -> None:
    server = Echo()
    engine = TritonEngine(server, RemoteModel(model="m", sha256="ab"), UNET, "gpu-host:8001", counts)
    inputs = {
        name: np.random.default_rng(0).random(shape, np.float32) for name, shape in UNET.input_shapes(3, {}).items()
    }
    outputs = engine.run(inputs)
    assert server.rows == called
    np.testing.assert_array_equal(outputs["output"], inputs["sample"])
