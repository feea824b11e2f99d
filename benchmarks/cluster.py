"""A Ray cluster of this machine's own, in an environment of its own, with our replicas on it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mezzotint.cli.serve import READY

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "build" / "cache"
FOLDER = ROOT / "build" / "ray"
START_SECONDS = 240
_ENDING = re.compile(r"request (\S+): model=\S+ .* outcome=(\w+)")


def environment_python() -> Path:
    """Return the Python of an environment with this tree and the extra `ray`, made once. Raises RuntimeError."""
    stamp, python, constraints = FOLDER / "installed.json", FOLDER / "bin" / "python", ROOT / "constraints.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in ("serve", "ray"))]
    source = json.dumps([sys.version, wanted, constraints.read_text(encoding="utf-8")])
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != source:
        shutil.rmtree(FOLDER, ignore_errors=True)
        venv.create(FOLDER, with_pip=True)
        pip: list[str | Path] = [
            python,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--constraint",
            constraints,
        ]
        done = subprocess.run([*pip, "--editable", f"{ROOT}[ray]"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the environment with Ray could not be made:\n{done.stderr}")
        stamp.write_text(source, encoding="utf-8")
    return python


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    """Replicas on a cluster that a command of ours started."""

    target: str
    process: "subprocess.Popen[str]"
    environment: dict[str, str]
    lines: list[str] = field(default_factory=list)

    def endings(self, request_id: str) -> list[str]:
        """Return the outcomes that replicas wrote into their logs for a request."""
        found = [_ENDING.search(line) for line in tuple(self.lines)]
        return [match[2] for match in found if match and match[1] == request_id]

    def deploy(self, bundle: Path, *options: str) -> None:
        """Deploy another version beside what runs, as a user does."""
        command: list[str | Path] = [*COMMAND, "--bundle", bundle, "--address", "auto", *options]
        done = subprocess.run(
            [environment_python(), *command], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert READY in done.stdout

    def wait_for(self, text: str, seconds: float) -> None:
        """Wait until the command or a replica says something. Raises RuntimeError where it does not."""
        until = time.monotonic() + seconds
        while not any(text in line for line in tuple(self.lines)):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"it never said {text!r}:\n{''.join(self.lines)}")
            time.sleep(0.1)


COMMAND = ("-m", "mezzotint", "deploy-ray")


@contextmanager
def cluster(bundle: Path, *options: str) -> Iterator[Cluster]:
    """Start a cluster on loopback with a bundle on it; it ends with the block."""
    python, port = environment_python(), free_port()
    with tempfile.TemporaryDirectory(prefix="mz-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MEZZOTINT_", "PYTHON"))
        }
        environment |= {
            "HOME": f"{folder}/home",
            "XDG_CACHE_HOME": str(CACHE),
            "RAY_TMPDIR": folder,
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
            "RAY_DEDUP_LOGS": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        os.mkdir(environment["HOME"])
        command: list[str | Path] = [
            python,
            *COMMAND,
            "--bundle",
            bundle,
            "--port",
            str(port),
            "--http-port",
            str(free_port()),
        ]
        process = subprocess.Popen(
            [*command, *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        made = Cluster(f"127.0.0.1:{port}", process, environment)
        reader = threading.Thread(target=_read, args=(process, made.lines))
        reader.start()
        try:
            made.wait_for(READY, START_SECONDS)
            yield made
        finally:
            process.terminate()
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # a session of its own, which is all that it started
                process.wait()
            reader.join(30)
            if process.stdout is not None:
                process.stdout.close()


def _read(process: "subprocess.Popen[str]", lines: list[str]) -> None:
    lines.extend(process.stdout or ())
