"""TensorRT plans beside ONNX Runtime on the CPU: the same engines, the same pictures. Not run so far."""

import sys
from pathlib import Path

import pytest

from mezzotint.engines.backends.cuda import Gpu
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.device import xp
from mezzotint.engines.errors import BundleError, ShapeNotCompiled
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.timing import distinct_rows
from tests.conftest import BUILD, EMOJI, compile_by_hand
from tests.gpu.bundles import assert_engines_agree, assert_pictures_agree, need_library, opened, step_times

pytestmark = pytest.mark.gpu

# What a plan may lose against ONNX Runtime in float32: TF32 in an fp32 plan, halves in an fp16 one.
TOLERANCES = {"fp32": (45.0, 2.0), "fp16": (35.0, 4.0)}


@pytest.fixture(scope="module", params=TOLERANCES)
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(gpu: Gpu, precision: str) -> Path:
    need_library("tensorrt")
    options = ("--backend", "tensorrt", "--compute-capability", gpu.capability, "--precision", precision)
    return compile_by_hand(EMOJI, BUILD / f"emoji-tensorrt-{precision}", *options)


@pytest.fixture(scope="module")
def planned(bundle: Path) -> Model:
    return opened(bundle)


@pytest.fixture(scope="module")
def reference(gpu: Gpu) -> Model:
    options = ("--backend", "onnxruntime", "--precision", "fp32")
    return opened(compile_by_hand(EMOJI, BUILD / "emoji-onnxruntime", *options), "cpu")


def test_every_engine_computes_what_onnxruntime_computes(planned: Model, reference: Model, precision: str) -> None:
    assert_engines_agree(planned, reference, TOLERANCES[precision][0])


def test_pictures_are_onnxruntimes_within_a_few_levels(planned: Model, reference: Model, precision: str) -> None:
    assert_pictures_agree(planned, reference, TOLERANCES[precision][1])


def test_outputs_stay_on_the_gpu(planned: Model, gpu: Gpu) -> None:
    for engine in planned.engines.values():
        assert all(xp(output) is xp(gpu.like) for output in engine.run(distinct_rows(engine.spec, 2)).values())


def test_a_picture_is_bit_equal_alone_and_in_company(planned: Model) -> None:
    requests = [Request(prompt="a cat", steps=4, guidance=3.0, seed=i, return_latents=True) for i in range(3)]
    for alone, together in zip(generate(planned, requests, together=False), generate(planned, requests), strict=True):
        assert (alone[0].latents == together[0].latents).all()


def test_step_times_are_printed(planned: Model, capsys: pytest.CaptureFixture[str]) -> None:
    lines = step_times(planned)
    assert len(lines) == len(planned.engines)
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines, ""]))


def test_a_plan_for_another_gpu_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in bundle.iterdir():
        if file.name != "manifest.json":
            (other / file.name).symlink_to(file)
    text = (bundle / "manifest.json").read_text()
    capability = open_bundle(bundle, LoadOptions(devices={}, cache=False)).manifest.engines[0].compute_capability
    (other / "manifest.json").write_text(text.replace(f'"{capability}"', '"1.0"'))
    with pytest.raises(BundleError, match=r"built for GPUs of compute capability 1\.0"):
        opened(other)


def test_a_size_that_no_profile_holds_is_refused_before_the_engine(planned: Model) -> None:
    with pytest.raises(ShapeNotCompiled):
        generate(planned, [Request(prompt="a cat", steps=1, width=512, height=512)])
