"""A real server, started as a user starts it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mezzotint.cli.serve import READY
from tests.conftest import ROOT

_PORT = ("--metrics-port", "0")  # several servers run side by side


@contextmanager
def started(*arguments: str | Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a bundle in a process of its own, with whatever options; gives it and its address, and ends it.

    Its log goes to a file, ``log_of`` it, since a pipe that nobody reads would be full at some time.
    """
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mezzotint", "serve", *arguments, "--port", str(port), "--no-cache", *_PORT],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if READY not in line:
                process.wait(60)
                pytest.fail(f"the server did not start: {line}{Path(log.name).read_text(encoding='utf-8')}")
            yield process, line.rpartition(READY)[2].strip()
        finally:
            process.terminate()
            process.communicate(timeout=60)
        if process.returncode > 0:
            log_text = Path(log.name).read_text(encoding="utf-8")
            pytest.fail(f"the server ended with {process.returncode}:\n{log_text}")


def log_of(process: "subprocess.Popen[str]") -> str:
    """Return what a running server has logged."""
    return Path(f"/proc/{process.pid}/fd/2").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def server(emoji_bundle: Path) -> Iterator[str]:
    """The address of a server of the demo model; it must stop cleanly in the end."""
    with started(emoji_bundle) as (process, address):
        yield address
    assert process.returncode == 0
