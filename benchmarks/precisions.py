"""What does each precision cost and give? Size, speed and picture of every one, on one checkpoint.

    python -m benchmarks.precisions models/emoji --name emoji
    python -m benchmarks.precisions build/sd15-full --name sd15-size --rounds 4 -- --height 256 --width 256 --max-rows 2

What stands behind ``--`` goes to ``mezzotint compile``. Engines are timed in turns with fp32, two at a time, since a
large model's would not fit into memory together; milliseconds are the ratio of these turns times fp32's median of all
of them. Compile seconds are of the stages that were made and not taken from the cache. The picture's PSNR is the mean
of whole pictures against diffusers on torch, same seeds.
"""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import CpuShare, interleaved, publish
from benchmarks.processes import Failed, run_mezzotint
from mezzotint.compile.verify import load_one
from mezzotint.engines.backend import Engine
from mezzotint.engines.component import Component
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.timing import distinct_rows
from mezzotint.engines.variants import FULL, decoder_chain

PRECISIONS = ("fp32", "bf16", "fp16", "int8-weights", "int4-weights", "int8-hybrid", "int8", "int8-bf16")
ROWS = 2
_TIMED = (Component.UNET, Component.VAE_DECODER)


def compile_all(options: argparse.Namespace) -> tuple[dict[str, Path], dict[str, str]]:
    """Compile every precision in a process of its own, as a user does; returns bundles, and why others are none."""
    bundles, reasons = {}, {}
    for precision in PRECISIONS:
        bundle = options.work / f"{options.name}-{options.backend}-{precision}"
        how = ["--precision", precision, "--backend", options.backend, *options.compile]
        try:
            run_mezzotint("compile", options.checkpoint, "--output", bundle, *how)
        except Failed as failed:
            reasons[precision] = str(failed).rpartition("mezzotint: ")[2]
            continue
        bundles[precision] = bundle
    return bundles, reasons


def engines_of(bundle: Path, component: Component) -> list[Engine]:
    """Load a component's engine, or the decoder's parts, which are called in a row."""
    manifest = read_manifest(bundle)
    variants = decoder_chain(manifest, FULL) if component is Component.VAE_DECODER else (FULL,)
    return [load_one(bundle, manifest.engine(component, variant), "", (ROWS,)) for variant in variants]


def call(engines: Sequence[Engine], inputs: Mapping[str, Any]) -> None:
    """Run engines in a row, each on what the one before gives."""
    for engine in engines:
        inputs = engine.run(inputs)


def time_against_fp32(bundles: dict[str, Path], component: Component, rounds: int) -> dict[str, dict[str, float]]:
    """Return (ms, ratio to fp32, CPU over wall) of each precision's engines of one component, a call of ROWS rows."""
    ratios, shares, plain = {"fp32": 1.0}, {}, []
    for name, bundle in bundles.items():
        loaded = {key: engines_of(folder, component) for key, folder in {"fp32": bundles["fp32"], name: bundle}.items()}
        inputs = distinct_rows(loaded["fp32"][0].spec, ROWS)
        with CpuShare() as share:
            times = interleaved({key: partial(call, engines, inputs) for key, engines in loaded.items()}, rounds=rounds)
        ratios[name] = statistics.median(a / b for a, b in zip(times[name], times["fp32"], strict=True))
        shares[name] = share.value
        plain += times["fp32"]
        for engine in itertools.chain(*loaded.values()):
            engine.close()
    fp32_ms = statistics.median(plain)
    return {name: {"ms": ratios[name] * fp32_ms, "ratio": ratios[name], "share": shares[name]} for name in bundles}


def row_of(precision: str, bundle: Path, speed: dict[Component, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return a precision's line of the table."""
    manifest, report = read_manifest(bundle), read_report(bundle)
    unet, decoder = (speed[component][precision] for component in _TIMED)
    snr = {measured.component: measured.snr_db for measured in manifest.verified}
    return {
        "precision": precision,
        "bundle MB": round(sum(path.stat().st_size for path in bundle.iterdir()) / 1e6),
        f"UNet ms ({ROWS} rows)": round(unet["ms"], 1),
        "UNet × fp32": round(unet["ratio"], 2),
        "VAE ms (1 picture)": round(decoder["ms"] / ROWS, 1),
        "VAE × fp32": round(decoder["ratio"], 2),
        "UNet SNR dB": round(snr[Component.UNET], 1),
        "picture PSNR dB": round(statistics.mean(report["image_psnr_db"].values()), 1),
        "compile s": round(seconds_of(report)),
        "peak MiB": report["peak_memory_mib"],
        "cpu/wall": unet["share"],
        "why not": "",
    }


def read_report(bundle: Path) -> dict[str, Any]:
    """Return a bundle's compile report."""
    report: dict[str, Any] = json.loads((bundle / "compile_report.json").read_text(encoding="utf-8"))
    return report


def seconds_of(report: dict[str, Any]) -> float:
    """Return the seconds of the stages that were made."""
    return float(sum(stage["seconds"] for stage in report["stages"].values() if stage["status"] != "reused"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", required=True, help="of the result's files and of the bundles below --work")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--rounds", type=int, default=15, help="timed calls of each engine")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="where bundles are written")
    parser.usage = f"{parser.format_usage().removeprefix('usage: ').strip()} [-- OPTION OF COMPILE …]"
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end], argparse.Namespace(compile=sys.argv[end + 1 :]))
    bundles, reasons = compile_all(options)
    if "fp32" not in bundles:
        raise SystemExit(f"{options.checkpoint}: all is compared with fp32, and {reasons['fp32']}")
    speed = {component: time_against_fp32(bundles, component, options.rounds) for component in _TIMED}
    rows = [
        row_of(precision, bundles[precision], speed)
        if precision in bundles
        else {"precision": precision, "why not": reasons[precision]}
        for precision in PRECISIONS
    ]
    side = read_manifest(bundles["fp32"]).latents.default_height
    details = {
        "rounds": options.rounds,
        "side": side,
        "compile": options.compile,
        "stages": {name: read_report(bundle)["seconds"] for name, bundle in bundles.items()},
    }
    name = f"precisions-{options.name}" + ("" if options.backend == "openvino" else f"-{options.backend}")
    question = f"What does each precision cost and give? {options.name}, {options.backend}, {side} pixels"
    publish(name, question, rows, details)


if __name__ == "__main__":
    main()
