"""ONNX Runtime's CUDA and TensorRT providers beside its CPU: the same engines, the same pictures. Not run so far."""

import sys
from pathlib import Path

import pytest

from mezzotint.engines.backends import get_backend
from mezzotint.engines.backends.cuda import Gpu
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.device import xp
from mezzotint.engines.model import Model
from mezzotint.engines.timing import distinct_rows
from tests.conftest import BUILD, EMOJI, compile_by_hand
from tests.gpu.bundles import assert_engines_agree, assert_pictures_agree, opened, step_times

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def bundle(gpu: Gpu) -> Path:
    options = ("--backend", "onnxruntime", "--precision", "fp32")
    return compile_by_hand(EMOJI, BUILD / "emoji-onnxruntime", *options)


@pytest.fixture(scope="module", params=["cuda", "tensorrt"])
def provided(bundle: Path, request: pytest.FixtureRequest) -> Model:
    """The bundle on a provider, which keeps what TensorRT builds."""
    found = get_backend("onnxruntime").devices()
    if not any(name.lower().startswith(request.param) for name in found):
        pytest.skip(f"this onnxruntime has no {request.param} provider; found {', '.join(found)}")
    return open_bundle(bundle, LoadOptions(devices={"": request.param}))


def test_engines_and_pictures_are_the_cpus_within_tolerance(provided: Model, bundle: Path) -> None:
    reference = opened(bundle, "cpu")
    assert_engines_agree(provided, reference, 45.0)
    assert_pictures_agree(provided, reference, 2.0)


def test_outputs_stay_on_the_gpu(provided: Model, gpu: Gpu) -> None:
    for engine in provided.engines.values():
        assert all(xp(output) is xp(gpu.like) for output in engine.run(distinct_rows(engine.spec, 2)).values())


def test_a_text_encoder_on_the_cpu_serves_a_unet_on_the_gpu(bundle: Path, gpu: Gpu) -> None:
    mixed = open_bundle(bundle, LoadOptions(devices={"": "cuda", "text_encoder": "cpu"}, cache=False))
    assert_pictures_agree(mixed, opened(bundle, "cpu"), 2.0)


def test_step_times_are_printed(provided: Model, capsys: pytest.CaptureFixture[str]) -> None:
    lines = step_times(provided)
    assert len(lines) == len(provided.engines)
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines, ""]))
