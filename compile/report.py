"""The compile report: ``compile_report.json`` for programs, ``compile_report.md`` and a picture grid for people."""

import json
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Picture

from mezzotint.compile.measure import host
from mezzotint.compile.stages import StageResult
from mezzotint.compile.verify import psnr_db
from mezzotint.engines.component import Component
from mezzotint.engines.manifest import EngineEntry, Manifest, Measured
from mezzotint.engines.variants import title

JSON_FILE = "compile_report.json"
MARKDOWN_FILE = "compile_report.md"
GRID_FILE = "compile_report.png"

Pixels = npt.NDArray[np.uint8]

# What stages are for, by the first word of their names.
_KINDS = {
    **dict.fromkeys(("export", "weights", "rewrite", "cut"), "export"),
    **dict.fromkeys(("norms", "statistics", "derive", "build"), "build"),
    **dict.fromkeys(("samples", "calibrate"), "calibration"),
    **dict.fromkeys(("reference", "verify"), "verification"),
    **dict.fromkeys(("choose", "time", "measure", "weigh"), "timing"),
}


def grid(reference: Sequence[Pixels], painted: Sequence[Pixels]) -> Picture.Image:
    """Return torch's pictures above the engines', and below them the difference, ten times as strong."""
    rows = [
        np.concatenate(list(images), axis=1)
        for images in (
            reference,
            painted,
            [difference(a, b) for a, b in zip(reference, painted, strict=True)],
        )
    ]
    return Picture.fromarray(np.concatenate(rows, axis=0))


def difference(reference: Pixels, painted: Pixels) -> Pixels:
    """Return |reference − painted| · 10."""
    gap = np.abs(reference.astype(np.int16) - painted.astype(np.int16)) * 10
    amplified: Pixels = np.minimum(gap, 255).astype(np.uint8)
    return amplified


def as_json(
    manifest: Manifest,
    stages: Mapping[str, StageResult],
    figures: Mapping[tuple[Component, str, str], Sequence[float]],
    speed: Mapping[str, Any],
    prompts: Sequence[str],
    calibrated: Mapping[str, str],
    reference: Sequence[Pixels],
    painted: Sequence[Pixels],
) -> dict[str, Any]:
    """Return everything that was measured, as JSON.

    ``figures`` are each call's by component, variant and output; ``calibrated`` says whose ranges each engine of the
    bundle has that rounds its activations.
    """
    images = {
        prompt: round(psnr_db(truth, image), 2)
        for prompt, truth, image in zip(prompts, reference, painted, strict=True)
    }
    return {
        "host": host(),
        "source": manifest.source.model_dump(),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "stages": {
            name: {
                "status": result.status,
                "seconds": round(result.seconds, 3),
                "bytes": result.num_bytes,
                "detail": result.detail,
            }
            for name, result in stages.items()
        },
        "seconds": seconds_by_kind(stages),
        "verify": [
            m.model_dump() | {"all_db": [round(f, 2) for f in figures[m.component, m.variant, m.output]]}
            for m in manifest.verified
        ],
        "choice": {component: timing for component, timing in speed.items() if timing},
        "calibrated_on": dict(calibrated),
        "image_psnr_db": images,
    }


def seconds_by_kind(stages: Mapping[str, StageResult]) -> dict[str, float]:
    """Return what export, build, calibration, verification and timing took in all, in this order."""
    seconds = dict.fromkeys(_KINDS.values(), 0.0)
    for name, result in stages.items():
        seconds[_KINDS[name.split()[0]]] += result.seconds
    return {kind: round(spent, 3) for kind, spent in seconds.items()}


def as_markdown(manifest: Manifest, report: Mapping[str, Any], sizes: Sequence[int]) -> str:
    """Return the report as a page; ``sizes`` are the bytes of each engine."""
    lines = [
        f"# {manifest.name}: compile report",
        "",
        f"{manifest.compiled_by} on {report['host']}; peak memory {report['peak_memory_mib']} MiB.",
        "",
        *(f"Merged into {_base(manifest)}: {m.weight:g} × {m.name}.\n" for m in manifest.source.merged),
        "| engine | backend | precision | size | SNR against torch | tolerance | ms a call by rows |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_engine_row(entry, manifest.verified, size) for entry, size in zip(manifest.engines, sizes, strict=True)]
    lines += ["", f"![torch, engines, difference × 10]({GRID_FILE})", "", "| prompt | PSNR to torch |", "| --- | --- |"]
    lines += [f"| {prompt} | {db:.1f} dB |" for prompt, db in report["image_psnr_db"].items()]
    for component, timing in report["choice"].items():
        lines += ["", f"## Why {component} is {timing['chosen']}", ""]
        lines += [f"Timed in turns on {timing['host']}, {timing['rows']} rows a call:", ""]
        lines += ["| precision | ms | ratio to the finest |", "| --- | --- | --- |"]
        lines += [f"| {name} | {ms} | {timing['ratio_to_finest'][name]} |" for name, ms in timing["ms"].items()]
        lines += [f"- {name} was left out: {reason}" for name, reason in timing["left_out"].items()]
    lines += ["", "## Stages", "", f"Seconds: {_listed(report['seconds'])}."]
    whose = [f"{name} {owner}" for name, owner in report["calibrated_on"].items()]
    lines += ["", f"Whose ranges activations are rounded over: {', '.join(whose)}."] if whose else []
    lines += ["", "| stage | | seconds | bytes |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | {s['status']} | {s['seconds']:.1f} | {s['bytes']} |" for name, s in report["stages"].items()]
    lines += ["", *(f"- {note}" for note in manifest.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _base(manifest: Manifest) -> str:
    return f"{manifest.source.name} ({(manifest.source.base_digest or '')[:12]})"


def write(folder: Path, report: dict[str, Any], markdown: str, picture: Picture.Image) -> None:
    """Write the three files."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (folder / JSON_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / MARKDOWN_FILE).write_text(markdown, encoding="utf-8")
    picture.save(folder / GRID_FILE)


def _listed(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {spent:.1f}" for kind, spent in seconds.items())


def _engine_row(entry: EngineEntry, verified: Sequence[Measured], num_bytes: int) -> str:
    own = [m for m in verified if (m.component, m.variant) == (entry.component, entry.variant)]
    snr = ", ".join(f"{m.output} {m.snr_db:.1f} dB" for m in own) or "with the last part"
    floor = f"{own[0].floor_db:.0f} dB" if own else ""
    times = ", ".join(f"{rows}: {ms:.1f}" for rows, ms in entry.step_ms.items())
    return (
        f"| {title(entry.component, entry.variant)} | {entry.backend} {entry.backend_version} | {entry.precision} "
        f"| {num_bytes / 1e6:.1f} MB "
        f"| {snr} | {floor} | {times} |"
    )
