"""A real server, started as a user starts it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mezzotint.cli.serve import READY

ROOT = Path(__file__).parents[2]


@contextmanager
def started(*arguments: str | Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a bundle in a process of its own, with whatever options; gives it and its address, and ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mezzotint", "serve", *arguments, "--port", str(port), "--no-cache"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if READY not in line:
            pytest.fail(f"the server did not start: {line}{process.communicate(timeout=60)[1]}")
        yield process, line.rpartition(READY)[2].strip()
    finally:
        process.terminate()
        _, process_log = process.communicate(timeout=60)
    if process.returncode > 0:
        pytest.fail(f"the server ended with {process.returncode}:\n{process_log}")


@pytest.fixture(scope="session")
def server(emoji_bundle: Path) -> Iterator[str]:
    """The address of a server of the demo model; it must stop cleanly in the end."""
    with started(emoji_bundle) as (process, address):
        yield address
    assert process.returncode == 0
