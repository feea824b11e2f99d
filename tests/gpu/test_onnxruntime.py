"""ONNX Runtime's CUDA and TensorRT providers beside its CPU: the same engines, the same pictures.

Run on one H200 with CUDA's provider, in float32 and float16; TensorRT's has not been run so far.
"""

import sys
from pathlib import Path

import pytest

from mezzotint.engines.backends.cuda import Gpu
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.device import xp
from mezzotint.engines.errors import DeviceNotFound
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.timing import distinct_rows
from tests.conftest import BUILD, EMOJI, compile_by_hand
from tests.gpu.bundles import assert_engines_agree, assert_pictures_agree, opened, step_times

pytestmark = pytest.mark.gpu


# What an engine may lose against the CPU in float32: nothing to speak of in fp32, halves in fp16.
TOLERANCES = {"fp32": (45.0, 2.0), "fp16": (35.0, 4.0)}


@pytest.fixture(scope="module")
def reference(gpu: Gpu) -> Model:
    options = ("--backend", "onnxruntime", "--precision", "fp32")
    return opened(compile_by_hand(EMOJI, BUILD / "emoji-onnxruntime", *options), "cpu")


@pytest.fixture(scope="module", params=TOLERANCES)
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(gpu: Gpu, precision: str) -> Path:
    options = ("--backend", "onnxruntime", "--device", "cuda", "--precision", precision)
    return compile_by_hand(EMOJI, BUILD / f"emoji-cuda-{precision}", *options)


@pytest.fixture(scope="module", params=["cuda", "tensorrt"])
def provided(bundle: Path, request: pytest.FixtureRequest) -> Model:
    """The bundle on a provider, which keeps what TensorRT builds."""
    try:
        return open_bundle(bundle, LoadOptions(devices={"": request.param}))
    except DeviceNotFound as error:
        if request.param == "cuda":
            raise
        pytest.skip(str(error))


def test_every_engine_computes_what_the_cpu_computes(provided: Model, reference: Model, precision: str) -> None:
    assert_engines_agree(provided, reference, TOLERANCES[precision][0])


def test_pictures_are_the_cpus_within_a_few_levels(provided: Model, reference: Model, precision: str) -> None:
    assert_pictures_agree(provided, reference, TOLERANCES[precision][1])


def test_a_picture_is_bit_equal_alone_and_in_company(bundle: Path) -> None:
    model = opened(bundle, "cuda")
    requests = [Request(prompt="a cat", steps=4, guidance=3.0, seed=i, return_latents=True) for i in range(3)]
    for alone, together in zip(generate(model, requests, together=False), generate(model, requests), strict=True):
        assert (alone[0].latents == together[0].latents).all()


def test_outputs_stay_on_the_gpu(provided: Model, gpu: Gpu) -> None:
    for engine in provided.engines.values():
        assert all(xp(output) is xp(gpu.like) for output in engine.run(distinct_rows(engine.spec, 2)).values())


def test_a_text_encoder_on_the_cpu_serves_a_unet_on_the_gpu(bundle: Path, reference: Model, precision: str) -> None:
    mixed = open_bundle(bundle, LoadOptions(devices={"": "cuda", "text_encoder": "cpu"}, cache=False))
    assert_pictures_agree(mixed, reference, TOLERANCES[precision][1])


def test_step_times_are_printed(provided: Model, capsys: pytest.CaptureFixture[str]) -> None:
    lines = step_times(provided)
    assert len(lines) == len(provided.engines)
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines, ""]))
