"""``python -m benchmarks.quality``: see the package."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import benchmarks.quality
from benchmarks.quality.cases import Case, draw_cases
from benchmarks.quality.judge import Judge, named_psnr_db
from benchmarks.quality.metrics import Pixels, psnr_db
from benchmarks.quality.paint import STORE, paint
from benchmarks.quality.report import details_of, judge_all, named_row, own_row, quick_line, save_grid
from benchmarks.quality.swap import Candidate, read_candidate
from mezzotint.engines.errors import InvalidRequest, MezzotintError

_GRID = 8


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=benchmarks.quality.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--bundle",
        action="append",
        required=True,
        metavar="NAME=FOLDER[,FIELD=VALUE]…",
        help="what to paint with; others are compared with the first. FIELD is a request's (sampler=euler), "
        "`noise`, or COMPONENT[/VARIANT] with the engine file to take instead ([PRECISION:]FILE)",
    )
    parser.add_argument("--count", type=int, default=1000, help="prompt × seed pairs")
    parser.add_argument(
        "--steps", type=int, action="append", default=[], help="may be repeated; unsaid 25, and 4 where all is judged"
    )
    parser.add_argument("--disturb", type=float, default=1e-3, help="noise of the yardstick on the first; 0 is none")
    parser.add_argument("--quick", type=int, default=0, metavar="COUNT", help="a line a bundle, nothing is published")
    parser.add_argument("--name", default="quality", help="what the files in benchmarks/results begin with")
    parser.add_argument("--store", type=Path, default=STORE, help="where pictures are kept for the next run")
    return parser.parse_args(argv)


def read_candidates(options: argparse.Namespace) -> list[Candidate]:
    """Return what is compared, the yardstick of disturbed noise included. Raises InvalidRequest, BundleError."""
    candidates = [read_candidate(text, options.store) for text in options.bundle]
    if options.disturb and not options.quick:
        first = candidates[0]
        name = f"{first.name}, noise {options.disturb:g} off"
        candidates.append(Candidate(name, first.bundle, first.settings, options.disturb))
    twice = {c.name for c in candidates if sum(c.name == other.name for other in candidates) > 1}
    if twice:
        raise InvalidRequest(f"bundle {min(twice)}: is named twice; give each a name of its own")
    return candidates


def paint_all(candidates: Sequence[Candidate], cases: Sequence[Case], steps: int, store: Path) -> dict[str, Pixels]:
    """Return every candidate's pictures by its name."""
    return {c.name: paint(c.bundle, cases, steps, settings=c.settings, noise=c.noise, store=store) for c in candidates}


def quick(candidates: Sequence[Candidate], cases: Sequence[Case], steps: int, store: Path) -> None:
    """Print a line for each candidate."""
    pictures = paint_all(candidates, cases, steps, store)
    first = pictures[candidates[0].name]
    first_named = named_psnr_db(first, cases)
    for candidate in candidates:
        images = pictures[candidate.name]
        print(quick_line(candidate, steps, named_psnr_db(images, cases), first_named, psnr_db(first, images)))


def full(
    candidates: Sequence[Candidate], cases: Sequence[Case], all_steps: Sequence[int], name: str, store: Path
) -> None:
    """Judge everything, and write two tables with their JSON and a grid for each number of steps."""
    # the harness knows compile's timings, whose import brings torch along; quick lines need none
    from benchmarks.harness import RESULTS, publish

    judge = Judge(candidates[0].bundle)
    judged = []
    for steps in all_steps:
        pictures = paint_all(candidates, cases, steps, store)
        judged.append(judge_all(candidates, steps, pictures, cases, judge))
        save_grid(pictures, cases[:_GRID], RESULTS / f"{name}-{steps}-steps.png")
    judge.close()
    details = {
        "pairs": len(cases),
        "seeds": [cases[0].seed, cases[-1].seed],
        "prompts": [case.prompt for case in cases[:_GRID]],
        "found": [details_of(found, group[0]) for group in judged for found in group],
    }
    of = f"{len(cases)} prompt × seed pairs, emoji model; in brackets 95 % intervals"
    rows = [named_row(found, group[0]) for group in judged for found in group]
    publish(f"{name}-named", f"Do the pictures show what was asked? {of}", rows, details)
    rows = [own_row(found) for group in judged for found in group[1:]]
    if rows:
        publish(f"{name}-own", f"How far are they from {candidates[0].name}'s own pictures? {of}", rows, {})


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    try:
        candidates = read_candidates(options)
        cases = draw_cases(options.quick or options.count)
        if options.quick:
            for steps in options.steps or [25]:
                quick(candidates, cases, steps, options.store)
        else:
            full(candidates, cases, options.steps or [25, 4], options.name, options.store)
    except MezzotintError as error:
        sys.exit(f"benchmarks.quality: {error}")


if __name__ == "__main__":
    main()
