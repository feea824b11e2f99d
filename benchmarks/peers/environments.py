"""The peers' virtual environments: each has exactly what its list names, and nothing of ours is touched."""

import importlib.metadata
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.catalog import MEZZOTINT, Peer
from benchmarks.peers.stamps import NotMade, made
from benchmarks.processes import last_words

ROOT = Path(__file__).parents[2]


def bin_folder(peer: Peer, work: Path) -> Path:
    """Return where the peer's ``python`` is."""
    return Path(sys.executable).parent if peer.name == MEZZOTINT else (work / peer.name / "bin").absolute()


def ensure_environment(peer: Peer, work: Path) -> dict[str, str]:
    """Make the peer's environment where it is not there; returns its packages' versions. Raises NotMade."""
    if peer.name == MEZZOTINT:
        return {name: importlib.metadata.version(name) for name in peer.versions}
    source = {
        "requirements": list(peer.requirements),
        "unwanted": list(peer.unwanted),
        "build": dict(peer.build),
        "python": sys.version,
    }

    def make(folder: Path) -> dict[str, Any]:
        say(f"installing {peer.name}")
        venv.create(folder, with_pip=True)
        pip: list[str | Path] = [bin_folder(peer, work) / "python", "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "--quiet", *peer.requirements], peer.build, reason=f"{peer.name} does not install")
        if peer.unwanted:
            run([*pip, "uninstall", "--yes", *peer.unwanted], {}, reason=f"{peer.name}: {peer.unwanted} stays")
        listed = run([*pip, "list", "--format=json"], {}, reason=f"{peer.name}: pip lists nothing")
        return {"packages": {package["name"]: package["version"] for package in json.loads(listed)}}

    packages: dict[str, str] = made(work / peer.name, source, make)["packages"]
    return packages


def run(command: Sequence[str | Path], environment: Mapping[str, str], *, reason: str, timeout_s: int = 0) -> str:
    """Run a program to its end and return what it wrote to stdout. Raises NotMade with its last lines."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, **environment},
            timeout=timeout_s or None,
        )
    except subprocess.TimeoutExpired:
        raise NotMade(f"{reason}: not done after {timeout_s} s") from None
    if done.returncode:
        raise NotMade(f"{reason}: {last_words(done.stderr or done.stdout, done.returncode)}")
    return done.stdout


def say(text: str) -> None:
    """Tell whoever waits what happens now."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
