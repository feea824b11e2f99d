"""The wheel: what is in it, and that it serves a picture in a venv that has never seen torch."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
HEAVY = ("torch", "diffusers", "transformers", "onnx", "onnxruntime")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(*command: str | Path, **changes: object) -> str:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False, **changes)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, so that a stale build folder cannot add to it."""
    source = tmp_path_factory.mktemp("source")
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in files:
        target = source / name
        if name.startswith("models/") or not (ROOT / name).exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to(os.readlink(ROOT / name))
        else:
            target.write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source)
    return next(out.glob("mezzotint-*.whl"))


@pytest.fixture(scope="module")
def serving(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a venv that holds the wheel with what serving needs and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    requirement = f"mezzotint[serve] @ {wheel.as_uri()}"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", CONSTRAINTS, requirement)
    return python


def test_the_wheel_holds_stubs_data_types_and_licences(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "mezzotint/py.typed",
        "mezzotint/cli/__init__.py",
        "mezzotint/engines/sampling/plan.py",
        "mezzotint/engines/backends/openvino.py",
        "mezzotint/server/kserve/tensors.py",
        "mezzotint/server/loop.py",
        "mezzotint/proto/kserve.proto",
        "mezzotint/proto/kserve_pb2.py",
        "mezzotint/proto/mezzotint.proto",
        "mezzotint/proto/mezzotint_pb2.py",
        "mezzotint/proto/mezzotint_pb2.pyi",
        "mezzotint/proto/mezzotint_pb2_grpc.py",
        "mezzotint/compile/data/clip_tokenizer/vocab.json",
        "mezzotint/compile/data/clip_tokenizer/merges.txt",
        "mezzotint/compile/data/sd15/unet/config.json",
        "mezzotint/compile/data/sd21/unet/config.json",
    ):
        assert wanted in names
    assert {Path(name).name for name in names if "dist-info/licenses" in name} >= {"LICENSE", "NOTICE"}
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "models", "build"))]


def test_a_venv_without_torch_serves_a_picture(serving: Path, emoji_bundle: Path, tmp_path: Path) -> None:
    command = serving.with_name("mezzotint")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [command, "serve", emoji_bundle, "--port", str(port)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert b"serving on" in server.stdout.readline()
        address = f"127.0.0.1:{port}"
        run(
            *(command, "generate", "a shark on a blue background", "--server", address, "--steps", "4"),
            *("--seed", "7", "-o", tmp_path / "shark.png"),
            cwd=tmp_path,
            env=environment,
        )
    finally:
        server.terminate()
        code = server.wait(60)
        if server.stdout is not None:
            server.stdout.close()
    assert code == 0
    assert (tmp_path / "shark.png").read_bytes().startswith(b"\x89PNG")


def test_the_serving_venv_holds_no_training_library_and_is_small(
    serving: Path, record_property: Callable[[str, object], None]
) -> None:
    assert importlib.util.find_spec("torch"), (
        "the test's own environment has torch, so its absence below means something"
    )
    code = f"import importlib.util, json; print(json.dumps([n for n in {HEAVY} if importlib.util.find_spec(n)]))"
    assert json.loads(run(serving, "-I", "-c", code)) == []
    site = next((serving.parents[1] / "lib").glob("python*")) / "site-packages"
    num_bytes = sum(f.stat().st_size for f in site.rglob("*") if f.is_file() and not f.is_symlink())
    record_property("size of the serving install", f"{num_bytes / 1e6:.0f} MB")
    assert num_bytes < 600e6
