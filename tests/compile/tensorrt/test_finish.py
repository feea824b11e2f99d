"""Whole bundles of plans, of real and of miniature models; what is refused before and after."""

import subprocess
import sys
from pathlib import Path

import pytest

from mezzotint.cli import cli
from mezzotint.cli.errors import run
from mezzotint.compile.job import StageEvent, Status
from mezzotint.compile.pipeline import compile_checkpoint
from mezzotint.compile.tensorrt.compiled import compile_plans
from mezzotint.compile.tensorrt.finish import finish, undocumented
from mezzotint.compile.tensorrt.plan import PlanOptions
from mezzotint.engines.bundle_files import check_files
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import read_manifest
from tests.compile.jobs import job
from tests.conftest import CACHE, EMOJI
from tests.fake_manifest import fake_manifest

# torch and diffusers warn of their own insides
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ADA = PlanOptions("8.9", memory_bytes=1 << 30)
CALIBRATED = (Component.UNET, Component.VAE_DECODER)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "fp8", "int8", "int8-weights"])
@pytest.mark.parametrize("model", ["emoji", "sd15", "sd21"])
def test_every_component_becomes_a_plan_of_verified_onnx(
    model: str, precision: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = EMOJI if model == "emoji" else request.getfixturevalue(f"{model}_checkpoint")
    events: list[StageEvent] = []
    compile_plans(job(source, tmp_path / "b", backend="tensorrt", precision={"": precision}), ADA, events.append)
    manifest = read_manifest(tmp_path / "b")
    check_files(tmp_path / "b", manifest)
    assert {entry.component for entry in manifest.engines} == set(Component) - {Component.SAFETY_CHECKER}
    for entry in manifest.engines:
        assert (entry.backend, entry.flavour, entry.compute_capability) == ("tensorrt", "tensorrt_rtx", "8.9")
        (file,) = entry.files
        assert file == f"{entry.component}.plan"
        coarse = precision in ("fp8", "int8") and entry.component not in CALIBRATED
        assert entry.precision == (Precision.INT8_WEIGHTS if coarse else precision)
    assert all(measured.snr_db >= measured.floor_db for measured in manifest.verified)
    notes = [event.detail for event in events if event.status is Status.NOTE]
    assert any("int8 activations" in note for note in notes) == (precision == "int8")
    assert not list(CACHE.glob("onnx-*"))


@pytest.mark.slow
def test_an_onnx_bundle_is_finished_without_torch_into_the_same_plans(sd15_checkpoint: Path, tmp_path: Path) -> None:
    wanted = job(sd15_checkpoint, tmp_path / "onnx", backend="tensorrt", precision={"": "auto"})
    compile_checkpoint(wanted, lambda _: None)
    onnx = read_manifest(tmp_path / "onnx")
    assert {(entry.backend, entry.precision) for entry in onnx.engines} == {("onnxruntime", Precision.FP16)}
    code = (
        "import sys; from mezzotint.cli import cli; from mezzotint.cli.errors import run\n"
        f"code = run(cli, ['build', {str(tmp_path / 'onnx')!r}, '-o', {str(tmp_path / 'plans')!r}, "
        f"'--compute-capability', '8.9', '--workspace', '1024', '--cache', {str(CACHE)!r}])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_files(tmp_path / "plans", read_manifest(tmp_path / "plans"))
    at_once = compile_plans(
        job(sd15_checkpoint, tmp_path / "b", backend="tensorrt", precision={"": "auto"}), ADA, lambda _: None
    )
    assert read_manifest(at_once).engines == read_manifest(tmp_path / "plans").engines
    with pytest.raises(BundleError, match="is built for tensorrt, expected ONNX"):
        finish(tmp_path / "plans", tmp_path / "again", ADA, CACHE, lambda _: None)


@pytest.mark.parametrize(
    ("precision", "flavour", "capability", "words"),
    [
        (Precision.INT8, "tensorrt_rtx", "8.9", "int8 activations for tensorrt, not for tensorrt_rtx"),
        (Precision.INT8, "tensorrt", "9.0", ""),
        (Precision.FP8, "tensorrt_rtx", "8.6", "fp8 from compute capability 8.9 on, not for 8.6"),
        (Precision.FP8, "tensorrt_rtx", "12.0", ""),
        (Precision.INT8_WEIGHTS, "tensorrt_rtx", "7.5", ""),
    ],
)
def test_what_nvidia_does_not_document_is_said(precision: Precision, flavour: str, capability: str, words: str) -> None:
    manifest = fake_manifest()
    unet = manifest.engine(Component.UNET).model_copy(update={"precision": precision})
    sentences = list(undocumented(manifest.model_copy(update={"engines": (unet,)}), flavour, capability))
    assert len(sentences) == bool(words)
    assert words in "".join(sentences)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "tensorrt"], "needs --compute-capability"),
        (["--compute-capability", "8.9"], "are for --backend tensorrt"),
        (["--onnx-only"], "are for --backend tensorrt"),
    ],
)
def test_options_of_plans_go_with_tensorrt(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["compile", "model", "-o", "bundle", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_no_bundle_is_not_built(tmp_path: Path) -> None:
    assert run(cli, ["build", str(tmp_path), "-o", str(tmp_path / "b"), "--compute-capability", "8.9"]) == 3
