"""The checkpoint in the peers' own formats: made once, by the peers' own tools."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.catalog import EXPORTS, PEERS, Export
from benchmarks.peers.environments import bin_folder, ensure_environment, run, say
from benchmarks.peers.layout import lay_out
from benchmarks.peers.stamps import fingerprint, made

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where things are made, and of what.

    Attributes:
        work: the folder of environments.
        models: the folder of this checkpoint's exports.
        checkpoint: a diffusers folder.
        digest: the checkpoint's fingerprint.
        height: pixels that exports with calibration are calibrated at, as is ``width``.
        samples: UNet calls that they are calibrated with.
    """

    work: Path
    models: Path
    checkpoint: Path
    digest: str
    height: int
    width: int
    samples: int


def place(checkpoint: Path, work: Path, name: str, *, height: int, width: int, samples: int) -> Workplace:
    """Return the place for one checkpoint's exports, its checkpoint laid out for every peer."""
    models = work / "models" / name
    laid_out = models / "checkpoint"
    made(laid_out, {"checkpoint": fingerprint(checkpoint)}, partial(lay_out, checkpoint))
    return Workplace(work, models, laid_out, fingerprint(laid_out), height, width, samples)


def ensure_export(export: Export, at: Workplace) -> Path:
    """Make an export, and what it is made from, where it is not there; returns its folder. Raises NotMade."""
    packages = ensure_environment(PEERS[export.peer], at.work)
    needed = ensure_export(EXPORTS[export.needs], at) if export.needs else at.checkpoint
    rest = ensure_export(EXPORTS[export.rest], at) if export.rest else None
    source: dict[str, Any] = {"checkpoint": at.digest, "packages": packages, "command": list(export.command)}
    if export.quantise:
        source |= {"quantise": dict(export.quantise), "size": [at.height, at.width], "samples": at.samples}
        source |= {"rest": export.rest} if export.rest else {}

    def make(folder: Path) -> dict[str, Any]:
        say(f"making {export.name}")
        programs = bin_folder(PEERS[export.peer], at.work)
        if export.command:
            filled = [part.format(checkpoint=needed.absolute(), target=folder.absolute()) for part in export.command]
            command: list[str | Path] = [programs / filled[0], *filled[1:]]
        else:
            job = folder / "quantise.json"
            stated = {"model": str(needed.absolute()), "target": str(folder.absolute())}
            stated |= {"rest": str(rest.absolute())} if rest else {}
            job.write_text(json.dumps({**source, **stated}), encoding="utf-8")
            command = [programs / "python", "-m", "benchmarks.peers.workers.openvino_quantise", job.absolute()]
        run(command, _OFFLINE, reason=f"{export.name} cannot be made")
        return {}

    folder = at.models / export.name
    made(folder, source, make)
    return folder
