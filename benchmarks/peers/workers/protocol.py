"""What every worker does: read a job, load, warm up, paint a picture per step count, write what it took, and exit.

Runs in the peers' own environments, so it imports numpy, Pillow, the standard library and ``processes`` alone.
"""

import functools
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.processes import memory_mib

TEXT, UNET, DECODE = "text", "unet", "decode"


@dataclass(frozen=True)
class Job:
    """One turn of one configuration, as a file tells it to a worker.

    Attributes:
        model: the folder of the model in the peer's own format.
        settings: what differs from the peer's defaults; each worker knows its own.
        steps: one picture is painted for each count.
        warm_up_steps: steps of the picture that is painted before, untimed.
        noise: an .npy file, float32 [1, C, height, width] of latent pixels: what torch draws for ``seed``.
        threads: the cores of the machine, for settings that name a number of threads.
        versions: the distributions to report.
        output: the folder of pictures and of ``result.json``.
    """

    model: str
    settings: dict[str, Any]
    prompt: str
    negative_prompt: str
    steps: list[int]
    warm_up_steps: int
    guidance: float
    height: int
    width: int
    seed: int
    noise: str
    threads: int
    versions: list[str]
    output: str

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read the file that ``write`` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write the job for a worker."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


class Clock:
    """Seconds of the stages of one picture, in the order of their calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def note(self, stage: str, seconds: float) -> None:
        """Add one call's seconds."""
        self.seconds.setdefault(stage, []).append(seconds)

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call``, its seconds noted."""

        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            result = call(*args, **kwargs)
            self.note(stage, time.perf_counter() - begun)
            return result

        return timed


Paint = Callable[[int], npt.NDArray[np.uint8]]
"""Paints the job's picture in so many steps; returns uint8 [height, width, 3]."""


def serve(load: Callable[[Job, Clock], Paint]) -> None:
    """Do the job that the command line names. ``load`` gets the model ready and returns what paints."""
    begun = time.perf_counter()
    job, clock = Job.read(Path(sys.argv[1])), Clock()
    paint = load(job, clock)
    loaded = time.perf_counter()
    paint(job.warm_up_steps)
    warm = time.perf_counter()
    # importing packages is left out; caches of the worker before, where an engine has one, are there
    result: dict[str, Any] = {"load_s": loaded - begun, "warm_up_s": warm - loaded}
    result |= {"pictures": [_picture(job, clock, paint, steps) for steps in job.steps]}
    result |= {"peak_rss_mib": memory_mib(os.getpid())["peak"]}
    result |= {"versions": _versions(job.versions)}
    (Path(job.output) / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


def _picture(job: Job, clock: Clock, paint: Paint, steps: int) -> dict[str, Any]:
    clock.seconds.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        pixels = paint(steps)
    except Exception:  # a setting can fit one step count and not another, and a peer can raise what it likes
        traceback.print_exc()
        return {"steps": steps, "reason": traceback.format_exc().strip().splitlines()[-1]}
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if pixels.shape != (job.height, job.width, 3):
        return {"steps": steps, "reason": f"painted {pixels.shape}, not {(job.height, job.width, 3)}"}
    Image.fromarray(pixels).save(Path(job.output) / f"{steps}.png")
    return {"steps": steps, "total_s": wall, "cpu_s": cpu, "stages": dict(clock.seconds)}


def _versions(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # an extra that this environment does without
            continue
    return found
