"""How long until a bundle serves, and what does it hold in memory then?

    python -m benchmarks.start build/emoji-fp32 build/sd15-int8 --starts 5

A first start has an empty cache, later ones find what it left; the cache is a temporary one. Memory is read when the
server says that it is ready, and again when all row counts are prepared: its resident set, and what of it no file
stands behind.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import percentiles, publish
from benchmarks.processes import cpu_seconds, memory_mib
from mezzotint.cli.serve import READY

_SETTLED_S = 1.0  # without any CPU time to speak of, and everything is prepared
_IDLE_SHARE = 0.05
_MAX_SETTLING_S = 120.0


class Served(NamedTuple):
    """A server's process, the seconds until it said that it was ready, and its address."""

    pid: int
    seconds: float
    address: str


@contextmanager
def served(bundle: Path, cache: Path | None = None, options: Sequence[str] = ()) -> Iterator[Served]:
    """Serve a bundle in a process of its own, which ends with the context; ``cache`` stands for the user's folder."""
    command = [sys.executable, "-m", "mezzotint", "serve", str(bundle), "--port", "0", "--metrics-port", "0", *options]
    begun = time.perf_counter()
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as p:
        assert p.stdout is not None
        try:
            line = p.stdout.readline()
            seconds = time.perf_counter() - begun
            if READY not in line:
                raise SystemExit(f"{bundle}: the server did not start; try `mezzotint serve {bundle}`")
            yield Served(p.pid, seconds, line.rpartition(READY)[2].strip())
        finally:
            p.terminate()


def settle(pid: int) -> None:
    """Wait until the process has used next to no CPU for a while."""
    until = time.perf_counter() + _MAX_SETTLING_S
    used = cpu_seconds(pid)
    while time.perf_counter() < until:
        time.sleep(_SETTLED_S)
        before, used = used, cpu_seconds(pid)
        if used - before < _IDLE_SHARE * _SETTLED_S:
            return


def measure(bundle: Path, num_starts: int, options: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the row of one bundle, and all that was measured."""
    with tempfile.TemporaryDirectory() as cache:
        with served(bundle, Path(cache), options) as first:
            settle(first.pid)
        later, ready, prepared = [], [], []
        for _ in range(num_starts):
            with served(bundle, Path(cache), options) as server:
                later.append(server.seconds)
                ready.append(memory_mib(server.pid))
                settle(server.pid)
                prepared.append(memory_mib(server.pid))
    found = percentiles(later)
    row = {
        "bundle": bundle.name,
        "options": " ".join(options),
        "first start s": round(first.seconds, 2),
        "later starts s, p50": round(found["p50"], 2),
        "p95": round(found["p95"], 2),
        "n": found["n"],
        "MiB at ready": ready[-1]["resident"],
        "anonymous": ready[-1]["anonymous"],
        "peak until then": ready[-1]["peak"],
        "MiB with all row counts": prepared[-1]["resident"],
    }
    return row, {"later_s": later, "ready": ready, "prepared": prepared}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--starts", type=int, default=5, help="later starts of each bundle")
    parser.add_argument("--memory-budget", default="", help="as of `mezzotint serve`")
    parser.add_argument("--name", default="start", help="what the results' files are called")
    given = parser.parse_args()
    options = ["--memory-budget", given.memory_budget] if given.memory_budget else []
    measured = {bundle.name: measure(bundle, given.starts, options) for bundle in given.bundles}
    rows = [row for row, _ in measured.values()]
    publish(
        given.name, "How long until a bundle serves?", rows, {name: all_of for name, (_, all_of) in measured.items()}
    )


if __name__ == "__main__":
    main()
