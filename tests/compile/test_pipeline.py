"""The whole compiler on a miniature: what it writes, reuses, refuses, and leaves behind when it is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mezzotint.compile.folders import check_output
from mezzotint.compile.job import Status
from mezzotint.compile.pipeline import compile_checkpoint
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.bundle_files import check_files
from mezzotint.engines.component import Component
from mezzotint.engines.errors import CompileError, InvalidRequest
from mezzotint.engines.generate import generate
from mezzotint.engines.manifest import AxisRange, read_manifest
from mezzotint.engines.request import Request
from tests.compile.jobs import ends_of, events_of, job
from tests.conftest import BUILD, CACHE, ROOT

pytestmark = [
    # torch and diffusers warn of their own insides
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("sd15_bundle"),  # has the exports made, once for all workers
]


def test_a_second_compile_reuses_every_stage(sd15_checkpoint: Path, tmp_path: Path) -> None:
    events_of(job(sd15_checkpoint, tmp_path / "first"))
    ends = ends_of(events_of(job(sd15_checkpoint, tmp_path / "second")))
    assert {stage for stage, status in ends.items() if status is not Status.REUSED} == {"load", "bundle"}
    assert ends["export unet"] is Status.REUSED
    first, second = read_manifest(tmp_path / "first"), read_manifest(tmp_path / "second")
    assert first == second


@pytest.mark.parametrize(
    ("checkpoint", "predicts", "counts"),
    [
        ("sd15_checkpoint", "epsilon", (1, 2)),
        pytest.param("sd21_checkpoint", "v_prediction", (1, 2, 4), marks=pytest.mark.slow),
    ],
)
def test_a_bundle_says_what_it_is(
    checkpoint: str, predicts: str, counts: tuple[int, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(checkpoint)
    compile_checkpoint(job(source, tmp_path / "b", name="mini", max_rows=counts[-1]), lambda _: None)
    manifest = read_manifest(tmp_path / "b")
    check_files(tmp_path / "b", manifest)
    unet = manifest.engine(Component.UNET)
    assert manifest.name == "mini"
    assert manifest.schedule.prediction_type == predicts
    assert manifest.latents.size_multiple == 64
    assert manifest.text.max_tokens == 77
    assert unet.axes["tokens"] == AxisRange(min=77, opt=77, max=4 * 77)
    assert unet.axes["rows"] == AxisRange(min=1, opt=2, max=counts[-1])
    assert unet.row_classes == (counts,)
    assert tuple(unet.step_ms) == counts
    assert all(measured.snr_db >= measured.floor_db for measured in manifest.verified)
    report = json.loads((tmp_path / "b" / "compile_report.json").read_text())
    assert len(next(v for v in report["verify"] if v["component"] == "unet")["all_db"]) == 10
    assert report["peak_memory_mib"] > 100
    assert (tmp_path / "b" / "compile_report.png").stat().st_size > 1000
    assert "## Stages" in (tmp_path / "b" / "compile_report.md").read_text()


@pytest.mark.slow
def test_auto_leaves_fp32_only_for_a_verified_gain_and_says_so(sd15_checkpoint: Path, tmp_path: Path) -> None:
    compile_checkpoint(job(sd15_checkpoint, tmp_path / "b", precision={"": "auto"}), lambda _: None)
    report = json.loads((tmp_path / "b" / "compile_report.json").read_text())
    chosen = {engine.component: engine.precision for engine in read_manifest(tmp_path / "b").engines}
    assert set(report["choice"]) == {"text_encoder", "unet", "vae_decoder"}
    for component, choice in report["choice"].items():
        ratios = choice["ratio_to_finest"]
        assert choice["chosen"] == chosen[Component(component)]
        assert choice["host"]
        assert choice["chosen"] == "fp32" or ratios[choice["chosen"]] == min(ratios.values()) < 1 / 1.1
    assert "Why unet is" in (tmp_path / "b" / "compile_report.md").read_text()


def test_a_bundle_is_built_for_a_range_of_sizes(sd15_checkpoint: Path, tmp_path: Path) -> None:
    sizes = AxisRange(min=64, opt=128, max=192)
    compile_checkpoint(job(sd15_checkpoint, tmp_path / "b", height=sizes, width=sizes), lambda _: None)
    model = open_bundle(tmp_path / "b", LoadOptions(devices={}, cache=False))
    made = generate(model, [Request(steps=2, height=192, width=64), Request(steps=2)])
    assert [image.pixels.shape for (image,) in made if image.pixels is not None] == [(192, 64, 3), (128, 128, 3)]


def test_a_size_that_the_model_cannot_take_is_refused(sd15_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="height=100: must be a multiple of 64"):
        compile_checkpoint(
            job(sd15_checkpoint, tmp_path / "b", height=AxisRange(min=100, opt=100, max=100)), lambda _: None
        )


def test_a_folder_of_something_else_is_not_overwritten(sd15_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(CompileError, match="is no name for a bundle; name a folder"):
        check_output(Path())
    with pytest.raises(CompileError, match="holds something that is no bundle"):
        compile_checkpoint(job(sd15_checkpoint, tmp_path), lambda _: None)
    assert (tmp_path / "diary.txt").read_text() == "mine"


def test_an_unknown_precision_is_one_sentence(sd15_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="precision='fp7': must be one of auto, fp32"):
        compile_checkpoint(job(sd15_checkpoint, tmp_path / "b", precision={"": "fp7"}), lambda _: None)


@pytest.mark.slow
def test_a_damaged_stage_is_built_again(sd15_checkpoint: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(CACHE, cache, copy_function=os.link)
    events_of(job(sd15_checkpoint, tmp_path / "a", cache=cache))
    for index in cache.glob("build-text_encoder-fp32-*/text_encoder.bin"):
        content = bytearray(index.read_bytes())
        content[100] ^= 1
        index.unlink()  # it is a hard link into the cache of all tests
        index.write_bytes(content)
    ends = ends_of(events_of(job(sd15_checkpoint, tmp_path / "b", cache=cache)))
    assert ends["build text_encoder fp32"] is Status.BUILT
    assert ends["build unet fp32"] is Status.REUSED


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs takes root")
@pytest.mark.parametrize("full", [pytest.param("cache", marks=pytest.mark.slow), "output"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(sd15_checkpoint: Path, tmp_path: Path, full: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        output = disk / "bundle" if full == "output" else tmp_path / "bundle"
        cache = disk / "cache" if full == "cache" else CACHE
        with pytest.raises(CompileError, match="No space left on device"):
            compile_checkpoint(job(sd15_checkpoint, output, cache=cache), lambda _: None)
        assert not output.exists()
        assert not [path for path in disk.rglob("*") if path.name.startswith(".")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from mezzotint.compile.pipeline import compile_checkpoint
from tests.compile.jobs import job
source, output, cache = map(Path, sys.argv[1:4])
stage = sys.argv[4]
def report(event):
    if event.stage == stage and event.status == "started":
        import threading
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
compile_checkpoint(job(source, output, cache=cache), report)
"""
STAGES = [
    "load", "reference", "export text_encoder", "export unet", "weights unet", "export vae_decoder",
    "export vae_encoder", "derive unet fp32", "build unet fp32", "verify unet fp32", "measure unet", "weigh unet",
    "verify vae_decoder fp32", "bundle",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_in_each_stage_leaves_no_bundle_and_the_next_run_finishes(sd15_checkpoint: Path, tmp_path: Path) -> None:
    output, cache = tmp_path / "bundle", tmp_path / "cache"
    for stage in STAGES:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(sd15_checkpoint), str(output), str(cache), stage],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        if done.returncode == 0:  # the stage was over before the blow fell; whole, then
            open_bundle(output, LoadOptions(devices={}, cache=False))
            shutil.rmtree(output)
            continue
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not output.exists()
    events_of(job(sd15_checkpoint, output, cache=cache))
    open_bundle(output, LoadOptions(devices={}, cache=False))
    assert not list(tmp_path.glob(".*"))
    assert not list(cache.glob(".*"))


def painted(checkpoint: Path, backend: str, precision: str) -> npt.NDArray[np.float32]:
    """Compile, paint one picture and return its latents."""
    output = BUILD / f"sd15-{backend}-{precision}"
    compile_checkpoint(job(checkpoint, output, backend=backend, precision={"": precision}), lambda _: None)
    assert read_manifest(output).engine(Component.UNET).precision == precision
    model = open_bundle(output, LoadOptions(devices={}, cache=False))
    latents = generate(model, [Request(prompt="a cat", steps=4, seed=1, return_latents=True)])[0][0].latents
    model.close()
    assert latents is not None
    return latents


NARROW = [
    ("onnxruntime", "fp32", 1e-3),
    ("openvino", "int8", 5e-1),
    *(
        pytest.param(backend, precision, limit, marks=pytest.mark.slow)
        for backend, precision, limit in (
            ("openvino", "fp16", 2e-2),
            ("onnxruntime", "fp16", 2e-2),
            ("openvino", "int8-weights", 1e-1),
            ("onnxruntime", "int8-weights", 1e-1),
            ("openvino", "int4-weights", 2e-1),
            ("onnxruntime", "int4-weights", 2e-1),
            ("onnxruntime", "int8", 5e-1),
            ("openvino", "int8-bf16", 5e-1),
        )
    ),
]


@pytest.mark.parametrize(("backend", "precision", "limit"), NARROW)
def test_a_narrow_bundle_paints_nearly_what_fp32_does(
    backend: str, precision: str, limit: float, sd15_checkpoint: Path
) -> None:
    truth = painted(sd15_checkpoint, "openvino", "fp32")
    latents = painted(sd15_checkpoint, backend, precision)
    assert np.linalg.norm(latents - truth) / np.linalg.norm(truth) <= limit
