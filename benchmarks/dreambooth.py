"""DreamBooth of the turquoise cat: what is learned of five pictures, what is kept, and what prior preservation does.

    python -m benchmarks.dreambooth

Trains with the emoji model's own recipe, and once more without prior preservation; compiles both; paints with the
engines what ``models/emoji/evaluation.yaml`` asks; measures as ``mezzotint evaluate`` does. What is there already, of a
run that was killed, is taken up: runs and bundles by their folders, pictures by the bundles' digests.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, publish
from benchmarks.processes import run_mezzotint
from benchmarks.quality import paint
from benchmarks.quality.cases import MODEL
from benchmarks.quality.paint import STORE
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.engines.manifest import MANIFEST
from mezzotint.trainer.evaluation.gallery import Gallery
from mezzotint.trainer.evaluation.latents import vae_encoder
from mezzotint.trainer.evaluation.measures import Cases, Found, Pictures
from mezzotint.trainer.evaluation.report import change, figures, group_sheet, table_rows
from mezzotint.trainer.evaluation.run import BEFORE, make_gallery, measure_all, read_subjects
from mezzotint.trainer.evaluation.suite import Group, Suite, Words, draw_cases

SUBJECT = MODEL.parent / "subject"
PROMPTS = ("--instance-prompt", "a photo of a sks cat", "--class-prompt", "a photo of a cat")
WORDS = Words("sks cat", "cat")
WITHOUT = "without prior"
SEEDS = "fp32, other seeds"
_SHIFT = 500_000

How = tuple[int, float, Path]
"""Steps, guidance, and where pictures are kept."""


def trained(folder: Path, *options: str) -> float:
    """Train into a folder unless it is there; returns the seconds that it took, the last time where it was resumed."""
    note = folder.with_suffix(".seconds")
    if not note.is_file():
        going_on = ("--resume-from-checkpoint", "latest") if (folder / "checkpoints" / "last").exists() else ()
        given = ("--instance-data", SUBJECT, *PROMPTS, "--output", folder, *options, *going_on)
        seconds = run_mezzotint("train", MODEL, *given)
        note.write_text(f"{seconds:.1f}", encoding="utf-8")
    return float(note.read_text(encoding="utf-8"))


def compiled(checkpoint: Path, folder: Path, precision: str) -> Path:
    """Compile a checkpoint unless its bundle is there."""
    if not (folder / MANIFEST).is_file():
        run_mezzotint("compile", checkpoint, "--output", folder, "--precision", precision)
    return folder


def painted(bundle: Path, cases: Cases, steps: int, guidance: float, store: Path) -> Pictures:
    """Return a bundle's pictures of every case."""
    return {
        group: paint(bundle, asked, steps, settings={"guidance": guidance}, store=store)
        for group, asked in cases.items()
    }


def shifted(cases: Cases) -> Cases:
    """Return the same cases with other seeds."""
    return {group: [replace(case, seed=case.seed + _SHIFT) for case in asked] for group, asked in cases.items()}


def from_seed_to_seed(found: Found, other: Found, int8: Found) -> list[dict[str, Any]]:
    """Return int8's change of each measure beside how far fp32's own may be from one set of seeds to another."""
    rows = []
    for name in found:
        if name not in other or len(found[name]) != len(other[name]):
            continue
        seeds, own = change(other[name], found[name]), change(int8[name], found[name])
        spread = max(abs(seeds.low), abs(seeds.high))
        rows.append(
            {
                "measure": name,
                "int8 minus fp32": own.text(2),
                "fp32, other seeds minus fp32": seeds.text(2),
                "int8 changes no more": "yes" if abs(own.value) <= spread else "no",
            }
        )
    return rows


def save_sheets(pictures: Mapping[str, Pictures], cases: Cases) -> None:
    """Write a sheet of each group."""
    for group in cases:
        group_sheet(pictures, cases, group).save(RESULTS / f"dreambooth-{group}.png", optimize=True)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/dreambooth"), help="where runs and bundles are kept")
    parser.add_argument("--store", type=Path, default=STORE, help="where pictures are kept")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--share", type=float, default=1.0, help="of the suite's pictures")
    parser.add_argument("--seeds", action="store_true", help="paint fp32's with other seeds too")
    return parser.parse_args(argv)


def main() -> None:
    options = arguments()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    seconds = {
        "with prior": trained(work / "with-prior"),
        WITHOUT: trained(work / "without-prior", "--no-with-prior-preservation"),
    }
    bundles = {
        BEFORE: compiled(MODEL, work / "base-fp32", "fp32"),
        "fp32": compiled(work / "with-prior" / "model", work / "with-prior-fp32", "fp32"),
        "int8": compiled(work / "with-prior" / "model", work / "with-prior-int8", "int8"),
        WITHOUT: compiled(work / "without-prior" / "model", work / "without-prior-fp32", "fp32"),
    }
    suite = Suite.read(MODEL)
    cases = draw_cases(suite, WORDS, options.share)
    how = (options.steps, options.guidance, options.store)
    pictures = {name: painted(bundle, cases, *how) for name, bundle in bundles.items()}
    gallery = make_gallery(suite, WORDS, None, read_subjects(SUBJECT), vae_encoder(load_checkpoint(MODEL).vae))
    found = measure_all(pictures, cases, gallery, WORDS)
    save_sheets(pictures, cases)
    details = {
        "training_seconds": seconds,
        "steps": options.steps,
        "guidance": options.guidance,
        "asked": {group: len(asked) for group, asked in cases.items()},
        "recipe": (MODEL / "dreambooth.yaml").read_text(encoding="utf-8"),
        "figures": figures(found),
    }
    counts = f"{len(cases[Group.SUBJECT])} pictures of the subject, {len(cases[Group.CLASS])} of its class, "
    counts += f"{len(cases[Group.OTHERS])} of other things; in brackets 95 % intervals"
    publish("dreambooth", f"What has DreamBooth learned and kept? {counts}", table_rows(found), details)
    if options.seeds:
        publish_seeds(bundles, cases, how, gallery, found)


def publish_seeds(
    bundles: Mapping[str, Path],
    cases: Cases,
    how: How,
    gallery: Gallery,
    found: Mapping[str, Found],
) -> None:
    """Paint base and fine-tune with other seeds, and publish int8's change beside fp32's own."""
    others = shifted(cases)
    pictures = {name: painted(bundles[name], others, *how) for name in (BEFORE, "fp32")}
    again = measure_all(pictures, others, gallery, WORDS)["fp32"]
    rows = from_seed_to_seed(found["fp32"], again, found["int8"])
    publish("dreambooth-seeds", "Does int8 change more than other seeds do?", rows, {})


if __name__ == "__main__":
    main()
