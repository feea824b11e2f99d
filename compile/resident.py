"""What an engine takes in memory, by row count, measured in a fresh process: the compiler's own has torch in it.

``python -m mezzotint.compile.resident`` is that process; it imports engines alone.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.memory import resident_bytes, trim_heap

LEAST_BYTES = 8 << 20  # of an engine's files: smaller ones decide nothing, and measuring one takes seconds


def resident_by_rows(folder: Path, entry: EngineEntry, device: str, counts: Sequence[int]) -> dict[int, int]:
    """Return the bytes that a process gains which is prepared for each of these row counts alone.

    Empty where the system does not say what a process takes. Raises CompileError.
    """
    given = json.dumps({"folder": str(folder), "entry": entry.model_dump_json(), "device": device, "counts": [*counts]})
    command = [sys.executable, "-m", "mezzotint.compile.resident"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CompileError(f"{entry.component}: its memory cannot be measured: {reason}")
    return {int(count): num_bytes for count, num_bytes in json.loads(done.stdout).items() if num_bytes > 0}


def gained_bytes(folder: Path, entry: EngineEntry, device: str, count: int) -> int:
    """Return what this process gains while it has the engine prepared for one row count; freed again after."""
    trim_heap()
    before = resident_bytes()
    engine = get_backend(entry.backend).load(folder, entry, EngineOptions(device=device, row_counts=(count,)))
    inputs = {name: np.zeros(shape, dtype=np.float32) for name, shape in entry.input_shapes(count).items()}
    engine.prepare(inputs)
    engine.run(inputs)  # reads again what it needs of the weights file, whose pages are given back when prepared
    gained = resident_bytes() - before
    engine.close()
    return gained


def main() -> None:
    """Measure what stdin asks for and write it to stdout."""
    given = json.load(sys.stdin)
    folder, entry = Path(given["folder"]), EngineEntry.model_validate_json(given["entry"])
    gained_bytes(folder, entry, given["device"], given["counts"][0])  # the first time loads the runtime's libraries
    found = {count: gained_bytes(folder, entry, given["device"], count) for count in given["counts"]}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
