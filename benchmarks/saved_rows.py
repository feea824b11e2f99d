"""What does it cost in quality to leave UNet rows out: guidance for a part of the steps, shallow calls, fewer steps?

    python -m benchmarks.saved_rows build/emoji-fp32-step-cache --count 200

Every way is asked for the same prompts and seeds of the emoji model, DDIM, guidance 4. Rows are those of a picture, a
shallow call's counted apart; nothing is timed, so the machine may do other things.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import publish
from benchmarks.quality import draw_cases, paint
from benchmarks.quality.judge import Judge
from benchmarks.quality.metrics import bootstrap, share
from benchmarks.quality.paint import DEFAULTS, STORE, request_for
from benchmarks.quality.report import Judged, judge_all
from benchmarks.quality.swap import Candidate
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.component import Component
from mezzotint.engines.model import Model
from mezzotint.engines.variants import SHALLOW, has_variant

STEPS = 25
WAYS: Mapping[str, Mapping[str, Any]] = {
    "all of 25 steps guided": {},
    "guided until 0.8": {"guidance_end": 0.8},
    "guided until 0.6": {"guidance_end": 0.6},
    "guided until 0.4": {"guidance_end": 0.4},
    "guided until 0.2": {"guidance_end": 0.2},
    "guided from 0.2": {"guidance_start": 0.2},
    "guided from 0.2 until 0.8": {"guidance_start": 0.2, "guidance_end": 0.8},
    "no guidance": {"guidance": 1.0},
    "rescaled by 0.7": {"guidance_rescale": 0.7},
    "every 2nd call whole": {"cache_interval": 2},
    "every 3rd call whole": {"cache_interval": 3},
    "every 3rd whole, guided until 0.6": {"cache_interval": 3, "guidance_end": 0.6},
    "20 steps": {"steps": 20},
    "15 steps": {"steps": 15},
    "10 steps": {"steps": 10},
}


def rows_of(model: Model, settings: Mapping[str, Any]) -> tuple[int, int]:
    """Return the rows of whole and of shallow UNet calls of one picture."""
    request = request_for(model, draw_cases(1)[0], {**DEFAULTS, "steps": STEPS, **settings})
    calls = model.start(request)[0].calls
    shallow = sum(len(call.weights) for call in calls if call.variant == SHALLOW)
    return sum(len(call.weights) for call in calls) - shallow, shallow


def row(found: Judged, first: Judged, rows: tuple[int, int], all_rows: int) -> dict[str, Any]:
    """Return the table's row of one way."""
    whole, shallow = rows
    apart = found is not first
    return {
        "way": found.candidate.name,
        "whole rows": whole,
        "shallow rows": shallow or "",
        "whole rows saved %": round(100 * (1 - whole / all_rows)),
        "PSNR to the named picture, dB": bootstrap(found.named_db).text(2),
        "minus all guided": bootstrap(found.named_db - first.named_db).text(2) if apart else "",
        "PSNR to its own picture, median dB": bootstrap(found.own.psnr_db, "median").text(1) if apart else "",
        "retrieval %": share(found.retrieved).text(1),
        "ground as asked %": share(found.ground).text(1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=200, help="prompt × seed pairs")
    parser.add_argument("--store", type=Path, default=STORE, help="where pictures are kept for the next run")
    options = parser.parse_args()
    model = open_bundle(options.bundle, LoadOptions(devices={}))
    can_cache = has_variant(model.manifest, Component.UNET, SHALLOW)
    ways = {name: fields for name, fields in WAYS.items() if can_cache or "cache_interval" not in fields}
    candidates = [Candidate(name, options.bundle, fields) for name, fields in ways.items()]
    cases = draw_cases(options.count)
    pictures = {
        c.name: paint(c.bundle, cases, STEPS, settings=c.settings, store=options.store) for c in candidates
    }  # fmt: skip
    judge = Judge(options.bundle)
    judged = judge_all(candidates, STEPS, pictures, cases, judge)
    judge.close()
    counted = [rows_of(model, c.settings) for c in candidates]
    rows = [row(found, judged[0], own, counted[0][0]) for found, own in zip(judged, counted, strict=True)]
    question = (
        f"What do left-out UNet rows cost in quality? {len(cases)} prompt × seed pairs, emoji model, DDIM, guidance 4; "
        "in brackets 95 % intervals; its own picture is that of all 25 steps guided"
    )
    publish("saved-rows", question, rows, {"pairs": len(cases), "steps": STEPS})


if __name__ == "__main__":
    main()
