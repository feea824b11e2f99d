"""The run itself: every configuration in turn, one process at a time, round by round; finished turns are kept."""

import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.catalog import MEZZOTINT, PEERS, Configuration
from benchmarks.peers.environments import ROOT, bin_folder, say
from benchmarks.peers.stamps import fingerprint
from benchmarks.peers.workers.protocol import Job
from benchmarks.processes import last_words

_GOLDEN = (5**0.5 - 1) / 2  # its multiples fall evenly into a circle, however many there are


@dataclass(frozen=True, slots=True)
class Ready:
    """A configuration whose environment and model are there.

    Attributes:
        configuration: what it is.
        job: what its worker is told, but for the folder of its output.
        key: changes with everything that could change a timing: model, settings, versions, the worker's own code.
    """

    configuration: Configuration
    job: Job
    key: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of one configuration in one round: ``result`` as its worker wrote it, or the ``reason`` of none."""

    configuration: str
    key: str
    round: int
    when: float
    result: dict[str, Any]
    reason: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether every picture was painted; one that was not is tried again by the next run."""
        return not self.reason and not any(picture.get("reason") for picture in self.result.get("pictures", []))


def ready(configuration: Configuration, job: Job, model_digest: str, packages: dict[str, str]) -> Ready:
    """Return the configuration with the key of its turns."""
    code = [fingerprint(ROOT / "benchmarks" / "peers" / "workers")]
    code += [fingerprint(ROOT / "engines")] if configuration.peer == MEZZOTINT else []
    environment = dict(configuration.environment)
    stated = [configuration.worker, vars(job), environment, model_digest, packages, code]
    key = hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest()
    return Ready(configuration, job, key)


def order(names: Sequence[str], the_round: int) -> list[str]:
    """Return who runs when in a round: each round begins with another, so that no drift meets always the same."""
    first = round(the_round * _GOLDEN * len(names)) % max(1, len(names))
    return [*names[first:], *names[:first]]


def read_turns(path: Path) -> list[Turn]:
    """Return the turns of earlier runs, oldest first; a line that was cut off is left out."""
    turns = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            turns.append(Turn(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    return turns


def run_rounds(
    entries: Iterable[Ready], rounds: int, folder: Path, work: Path, timeout_s: int, once: Sequence[str] = ()
) -> list[Turn]:
    """Take every turn that is missing and return all: ``rounds`` of each configuration, one of those named in ``once``.

    One that failed is not tried again in later rounds of this run; the next run tries it again.
    """
    by_name = {entry.configuration.name: entry for entry in entries}
    known = {(turn.key, turn.round): turn for turn in read_turns(folder / "turns.jsonl") if turn.is_whole}
    taken: list[Turn] = []
    failed: dict[str, Turn] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for the_round in range(rounds):
        names = [name for name in by_name if the_round == 0 or not any(part in name for part in once)]
        for name in order(names, the_round):
            entry = by_name[name]
            turn = known.get((entry.key, the_round)) or failed.get(name)
            if turn is None:
                say(f"round {the_round + 1} of {rounds}: {name}")
                turn = take_turn(entry, the_round, folder, work, timeout_s)
                with (folder / "turns.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({key: getattr(turn, key) for key in Turn.__slots__}) + "\n")
                if turn.reason:
                    say(f"  {turn.reason}")
                    failed[name] = turn
            taken.append(turn)
    return taken


def take_turn(entry: Ready, the_round: int, folder: Path, work: Path, timeout_s: int) -> Turn:
    """Run one worker from its start to its end."""
    name = entry.configuration.name
    output = output_folder(folder, entry)
    output.mkdir(parents=True, exist_ok=True)
    (output / "result.json").unlink(missing_ok=True)
    replace(entry.job, output=str(output.absolute())).write(output / "job.json")
    python = bin_folder(PEERS[entry.configuration.peer], work) / "python"
    module = f"benchmarks.peers.workers.{entry.configuration.worker}"
    began = time.time()
    with (output / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [python, "-m", module, (output / "job.json").absolute()],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **worker_environment(work), **entry.configuration.environment},
        )
        reason = ""
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            reason = f"not done after {timeout_s} s"
    try:
        result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        text = (output / "log.txt").read_text(encoding="utf-8", errors="replace")
        return Turn(name, entry.key, the_round, began, {}, reason or last_words(text, process.returncode))
    return Turn(name, entry.key, the_round, began, result)


def output_folder(folder: Path, entry: Ready) -> Path:
    """Return where a configuration leaves its pictures and its log; another key's are others."""
    name = re.sub(r"[^\w.]+", "-", entry.configuration.name)
    return folder / "turns" / f"{name}-{entry.key[:8]}"


def worker_environment(work: Path) -> dict[str, str]:
    """Return the variables that every worker runs with: no hub, and caches that belong to this benchmark alone."""
    caches = work.absolute() / "caches"
    return {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "XDG_CACHE_HOME": str(caches),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
    }
