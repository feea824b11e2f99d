"""A real tritonserver in an environment of its own, with what `mezzotint[serve,ort]` needs; made once, under build/."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.stamps import made
from tests.conftest import ROOT

FOLDER = ROOT / "build" / "triton"
_TRITON = "nvidia-pytriton==0.7.0"  # without what it depends on: of it we take the server alone
_NUMPY = "numpy<2"  # with a newer one its python backend hands zeros to models, and says nothing
_SHARED = Path("/dev/shm")
_REGION = "triton_python_backend_shm_region_"
_READY_SECONDS, _STOP_SECONDS = 120.0, 60.0


@dataclass
class Triton:
    """A running tritonserver."""

    process: "subprocess.Popen[bytes]"
    log: Path
    grpc: str
    http: str
    metrics: str

    def scraped(self) -> dict[str, float]:
        """Return the numbers of the metrics port by name and labels."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] != "#"}


def environment() -> Path:
    """Return the folder with the environment and the server, made from scratch where it is not what it should be."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["serve"], *extras["ort"]]
    requirements = [line for line in needed if not line.startswith("mezzotint")]
    names = {line.partition(">")[0] for line in requirements}
    source = {
        "requirements": [_TRITON, _NUMPY, *requirements],
        "pins": [pin for pin in _pins() if pin.partition("==")[0] in names],  # others may change
        "code": str(ROOT),
        "python": sys.version,
    }
    made(FOLDER, source, lambda folder: _make(folder, source))
    return FOLDER


def _pins() -> list[str]:
    """Return the versions to install, but for numpy's."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith(("#", "numpy=="))]


def _make(folder: Path, source: dict[str, Any]) -> dict[str, Any]:
    venv.create(folder / "venv", with_pip=True)
    pins = folder / "pins.txt"
    pins.write_text("\n".join(_pins()), encoding="utf-8")
    triton, *others = source["requirements"]
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", triton], check=True, capture_output=True)
    subprocess.run([*pip, "--constraint", pins, *others], check=True, capture_output=True)
    subprocess.run([*pip, "--no-deps", "--editable", source["code"]], check=True, capture_output=True)
    packages = _packages(folder)
    shutil.copytree(packages / "pytriton" / "tritonserver", folder / "tritonserver")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = folder / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "tritonserver" / "backends" / "python")
    return {}


def _packages(folder: Path) -> Path:
    (found,) = (folder / "venv" / "lib").glob("python*/site-packages")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tritonserver(repository: Path, log: Path, *options: str) -> Iterator[Triton]:
    """Run Triton on a model repository; ends it, and takes away the shared memory that a crashed model left.

    No model's process may have crashed, on its way out neither.
    """
    folder = environment()
    grpc, http, metrics = (f"127.0.0.1:{_free_port()}" for _ in range(3))
    server = folder / "tritonserver"
    libraries = [_packages(folder) / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    before = _regions()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                server / "bin" / "tritonserver",
                f"--model-repository={repository}",
                f"--backend-directory={server / 'backends'}",
                "--disable-auto-complete-config",
                *(f"--{name}-address=127.0.0.1" for name in ("grpc", "http", "metrics")),
                *(
                    f"--{name}-port={address.rpartition(':')[2]}"
                    for name, address in (("grpc", grpc), ("http", http), ("metrics", metrics))
                ),
                *options,
            ],
            env={
                **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
                "PATH": f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}",
                "XDG_CACHE_HOME": str(folder / "cache"),
            },
            stdout=file,
            stderr=file,
        )
    try:
        triton = Triton(process, log, grpc, http, metrics)
        _wait_until_ready(triton)
        yield triton
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for region in _regions() - before - _regions_in_use():
            (_SHARED / region).unlink(missing_ok=True)
    text = log.read_text(encoding="utf-8", errors="replace")
    assert "Fatal Python error" not in text, f"a model's process crashed:\n{text}"


def _wait_until_ready(triton: Triton) -> None:
    until = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://{triton.http}/v2/health/ready", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            ended = triton.process.poll() is not None
            if ended or time.monotonic() > until:
                text = triton.log.read_text(encoding="utf-8", errors="replace")
                raise AssertionError(f"tritonserver did not become ready:\n{text}") from None
            time.sleep(0.1)


def _regions() -> set[str]:
    return {path.name for path in _SHARED.glob(f"{_REGION}*")}


def _regions_in_use() -> set[str]:
    """Return the regions that some process has mapped: those of other servers on this machine."""
    used = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        used |= {Path(line.split()[5]).name for line in lines if _REGION in line}
    return used
