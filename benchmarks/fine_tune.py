"""What does a fine-tune's compile take once its base has been compiled?

    python -m benchmarks.fine_tune models/emoji --fine-tune build/sks/model --rounds 5

Each round begins with an empty cache: the base is compiled, then the fine-tune, in a process each as a user does it.
Without ``--fine-tune`` one is made of the base, with noise of 3 % on every weight of UNet and text encoder: what a
compile takes does not hang on values. The machine should be idle; seconds are those of the compile reports.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.harness import publish
from benchmarks.processes import run_mezzotint

KINDS = ("export", "build", "calibration", "verification", "timing")
_NOISE = 0.03
_TRAINED = ("unet", "text_encoder")


def disturbed(base: Path, target: Path) -> Path:
    """Write a copy of a diffusers folder with noise on what DreamBooth trains; returns it."""
    shutil.copytree(base, target)
    noise = np.random.default_rng(0)
    for file in sorted(file for part in _TRAINED for file in (target / part).glob("*.safetensors")):
        weights = load_file(file)
        for name, weight in weights.items():
            step = _NOISE * weight.astype(np.float32).std() * noise.standard_normal(weight.shape, np.float32)
            weights[name] = (weight + step).astype(weight.dtype)
        save_file(weights, file, metadata={"format": "pt"})
    return target


def compiled(checkpoint: Path, bundle: Path, cache: Path, options: Sequence[str]) -> dict[str, Any]:
    """Compile in a process of its own; returns the compile report. Raises Failed."""
    run_mezzotint("compile", checkpoint, "--output", bundle, "--cache", cache, *options)
    report: dict[str, Any] = json.loads((bundle / "compile_report.json").read_text(encoding="utf-8"))
    return report


def one_round(base: Path, fine_tune: Path, work: Path, options: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the reports of base, fine-tune, and fine-tune calibrated anew, the latter two after the base."""
    cache = work / "cache"
    bundle = work / "base"
    found = {"first compile": compiled(base, bundle, cache, options)}
    apart = work / "apart"
    shutil.copytree(cache, apart)  # what the one leaves is not for the other
    given = ["--base", str(bundle), *options]
    found["fine-tune"] = compiled(fine_tune, work / "tuned", cache, given)
    found["fine-tune, --recalibrate"] = compiled(fine_tune, work / "anew", apart, ["--recalibrate", *given])
    return found


def row(name: str, reports: Sequence[dict[str, Any]], first: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of one way to compile, and the medians of its rounds' ratios to the first compile."""
    spent = [{kind: report["seconds"][kind] for kind in KINDS} for report in reports]
    pairs = list(zip(first, reports, strict=True))
    return {
        "compile": name,
        **{f"{kind} s": round(statistics.median(each[kind] for each in spent), 1) for kind in KINDS},
        "export + build s": round(statistics.median(map(made, reports)), 2),
        "export + build, times as fast": round(statistics.median(made(one) / made(own) for one, own in pairs), 1),
        "all stages s": round(statistics.median(map(whole, reports)), 1),
        "all stages, times as fast": round(statistics.median(whole(one) / whole(own) for one, own in pairs), 1),
        "ranges": ", ".join(f"{part} {whose}" for part, whose in reports[-1]["calibrated_on"].items()),
        "UNet SNR dB": next(v["snr_db"] for v in reports[-1]["verify"] if v["component"] == "unet"),
    }


def made(report: dict[str, Any]) -> float:
    """Return the seconds of export and build."""
    return float(report["seconds"]["export"] + report["seconds"]["build"])


def whole(report: dict[str, Any]) -> float:
    """Return the seconds of all stages."""
    return float(sum(report["seconds"][kind] for kind in KINDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("--fine-tune", type=Path, help="a fine-tune of it; one is made where none is given")
    parser.add_argument("--name", default="emoji")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-rows", type=int, default=8)
    parser.add_argument("--prompt", action="append", default=[], help="what verification paints; fewer is faster")
    parser.add_argument("--work", type=Path, help="a folder for caches and bundles, which are removed again")
    parser.add_argument("--note", default="", help="what a reader should know of this run")
    given = parser.parse_args()
    options = ["--precision", given.precision, "--max-rows", str(given.max_rows)]
    options += [word for prompt in given.prompt for word in ("--prompt", prompt)]
    rounds: list[dict[str, dict[str, Any]]] = []
    if given.work:
        given.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        fine_tune = given.fine_tune or disturbed(given.base, Path(folder) / "fine-tune")
        for turn in range(given.rounds):
            work = Path(folder) / f"round{turn}"
            work.mkdir()
            rounds.append(one_round(given.base, fine_tune, work, options))
            shutil.rmtree(work)
    first = [found["first compile"] for found in rounds]
    rows = [row(name, [found[name] for found in rounds], first) for name in rounds[0]]
    details = {
        "rounds": [{name: report["seconds"] for name, report in found.items()} for found in rounds],
        "stages": {name: report["stages"] for name, report in rounds[-1].items()},
        "precision": given.precision,
        "note": given.note,
    }
    question = f"What does a fine-tune's compile take after its base's? {given.name}, {given.precision}"
    publish(f"fine-tune-{given.name}", f"{question}{given.note and f' ({given.note})'}", rows, details)


if __name__ == "__main__":
    main()
