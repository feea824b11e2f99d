"""Turns pictures into figures with intervals, tables, and a grid of the first pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.quality.cases import Case, targets
from benchmarks.quality.judge import Judge, ground_as_asked, named_psnr_db
from benchmarks.quality.metrics import STATISTICS, Comparison, Floats, Pixels, bootstrap, compare, points, share
from benchmarks.quality.swap import Candidate
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.manifest import MANIFEST, read_manifest
from mezzotint.trainer.evaluation.sheets import sheet
from mezzotint.trainer.evaluation.statistics import Bools

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate's pictures at one number of steps, judged: arrays of [N], ``own`` against the first candidate's."""

    candidate: Candidate
    steps: int
    named_db: Floats
    retrieved: Bools
    ground: Bools
    own: Comparison


def judge_all(
    candidates: Sequence[Candidate], steps: int, pictures: Mapping[str, Pixels], cases: Sequence[Case], judge: Judge
) -> list[Judged]:
    """Judge pictures by candidate's name; the first candidate is what the others are compared with."""
    first = pictures[candidates[0].name]
    return [
        Judged(
            candidate,
            asked_steps(candidate, steps),
            named_psnr_db(pictures[candidate.name], cases),
            judge.retrieved(pictures[candidate.name], cases),
            ground_as_asked(pictures[candidate.name], cases),
            compare(first, pictures[candidate.name]),
        )
        for candidate in candidates
    ]


def named_row(found: Judged, first: Judged) -> Row:
    """Return the table's row about the named picture; differences are to ``first``, picture by picture."""
    row: Row = {"bundle": found.candidate.name, "steps": found.steps}
    row["PSNR to the named picture, dB"] = bootstrap(found.named_db).text(2)
    minus = "" if found is first else bootstrap(found.named_db - first.named_db).text(2)
    row[f"minus {first.candidate.name}'s"] = minus
    for title, own, other in (
        ("retrieval %", found.retrieved, first.retrieved),
        ("ground as asked %", found.ground, first.ground),
    ):
        row[title] = share(own).text(1)
        lost, won = int((other & ~own).sum()), int((own & ~other).sum())
        row[f"{title.split()[0]}: lost, won"] = "" if found is first else f"{lost}, {won}"
    return row


def own_row(found: Judged) -> Row:
    """Return the table's row about the first candidate's own picture."""
    row: Row = {"bundle": found.candidate.name, "steps": found.steps}
    for title, values, digits in (("PSNR dB", found.own.psnr_db, 1), ("SSIM", found.own.ssim, 4)):
        row |= {f"{title} {name}": bootstrap(values, name).text(digits) for name in STATISTICS}
    return row


def details_of(found: Judged, first: Judged) -> Row:
    """Return every figure with its interval, as JSON, and what was measured."""
    manifest = read_manifest(found.candidate.bundle)
    series = {
        "named_psnr_db": found.named_db,
        "named_psnr_db_minus_first": found.named_db - first.named_db,
        "own_psnr_db": found.own.psnr_db,
        "own_ssim": found.own.ssim,
    }
    return {
        "bundle": found.candidate.name,
        "steps": found.steps,
        "settings": dict(found.candidate.settings),
        "noise": found.candidate.noise,
        "digest": file_digest(found.candidate.bundle / MANIFEST),
        "engines": {
            f"{entry.component}/{entry.variant}": f"{entry.backend} {entry.backend_version} {entry.precision}"
            for entry in manifest.engines
        },
        "figures": {
            key: {name: bootstrap(values, name).rounded() for name in STATISTICS} for key, values in series.items()
        },
        "retrieval_percent": share(found.retrieved).rounded(),
        "ground_percent": share(found.ground).rounded(),
        "retrieval_minus_first_points": points(found.retrieved, first.retrieved).rounded(),
        "ground_minus_first_points": points(found.ground, first.ground).rounded(),
    }


def quick_line(candidate: Candidate, steps: int, named_db: Floats, first_named_db: Floats, own_db: Floats) -> str:
    """Return one line: what a candidate loses to the named picture, and how near it is to the first one's own."""
    own = ", ".join(f"{key} {float(STATISTICS[key](own_db)):.1f}" for key in ("median", "p10", "min"))
    loss = bootstrap(named_db - first_named_db).text(2)
    named = f"{float(named_db.mean()):.2f} dB to the named picture, {loss} against the first"
    return f"{candidate.name}, {asked_steps(candidate, steps)} steps, {len(named_db)} pictures: {named}; own {own} dB"


def asked_steps(candidate: Candidate, steps: int) -> int:
    """Return the steps that a candidate's pictures take: its own settings go before the run's."""
    return int(candidate.settings.get("steps", steps))


def grid(pictures: Mapping[str, Pixels], cases: Sequence[Case]) -> Image.Image:
    """Return a sheet: the named pictures in the first row, then a row for each name of ``pictures``."""
    rows = {"named": targets(cases), **{name: images[: len(cases)] for name, images in pictures.items()}}
    return sheet(rows, [f"{case.name}, {case.ground}" for case in cases])


def save_grid(pictures: Mapping[str, Pixels], cases: Sequence[Case], file: Path) -> None:
    """Write the sheet as PNG."""
    file.parent.mkdir(exist_ok=True)
    grid(pictures, cases).save(file, optimize=True)
