"""What does each precision cost and give? Size, speed and picture of every one, on one checkpoint.

    python -m benchmarks.precisions models/emoji --name emoji
    python -m benchmarks.precisions build/sd15-full --name sd15-size --side 256 --rounds 4 --max-rows 2 --prompt "a cat"

Engines are timed in turns with fp32, two at a time, since a large model's would not fit into memory together. The last
column is the mean PSNR of whole pictures against diffusers on torch, same seeds.
"""

import argparse
import json
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import CpuShare, interleaved, publish
from mezzotint.compile.verify import load_one
from mezzotint.engines.component import Component
from mezzotint.engines.errors import MezzotintError
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.timing import distinct_rows

PRECISIONS = ("fp32", "bf16", "fp16", "int8-weights", "int4-weights", "int8-hybrid", "int8", "int8-bf16")
ROWS = 2


def compile_one(checkpoint: Path, target: Path, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compile in a process of its own, as a user does; returns the seconds of all stages and peak memory."""
    command = [sys.executable, "-m", "mezzotint", "compile", str(checkpoint), "--output", str(target)]
    command += ["--precision", precision, "--backend", options.backend]
    command += ["--max-rows", str(options.max_rows)]
    if options.side:
        command += ["--height", str(options.side), "--width", str(options.side)]
    for prompt in options.prompt:
        command += ["--prompt", prompt]
    if not (options.reuse and (target / "compile_report.json").is_file()):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MezzotintError(done.stderr.strip().splitlines()[-1])
    report = json.loads((target / "compile_report.json").read_text())
    seconds = sum(stage["seconds"] for stage in report["stages"].values())
    return {"seconds": seconds, "peak_memory_mib": report["peak_memory_mib"], "report": report}


def time_against_fp32(bundles: dict[str, Path], component: Component, rounds: int) -> dict[str, dict[str, float]]:
    """Return (ms, ratio to fp32, CPU over wall) of each precision's engine of one component."""
    timed: dict[str, dict[str, float]] = {}
    for name, bundle in bundles.items():
        pair = {"fp32": bundles["fp32"]} | {name: bundle}
        engines = {
            key: load_one(folder, read_manifest(folder).engine(component), "", (ROWS,)) for key, folder in pair.items()
        }
        inputs = distinct_rows(engines["fp32"].spec, ROWS)
        calls = {key: partial(engine.run, inputs) for key, engine in engines.items()}
        with CpuShare() as share:
            times = interleaved(calls, rounds=rounds)
        ratio = statistics.median(a / b for a, b in zip(times[name], times["fp32"], strict=True))
        timed[name] = {"ms": statistics.median(times[name]), "ratio": ratio, "cpu_over_wall": share.value}
        for engine in engines.values():
            engine.close()
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--side", type=int, default=0, help="pixels; 0 is the checkpoint's own size")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--reuse", action="store_true", help="take bundles that an earlier run has left")
    parser.add_argument("--max-rows", type=int, default=8)
    parser.add_argument("--prompt", action="append", default=[], help="what verification paints; fewer is faster")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    bundles: dict[str, Path] = {}
    compiled: dict[str, dict[str, Any]] = {}
    for precision in PRECISIONS:
        target = options.work / f"{options.name}-{options.backend}-{precision}"
        try:
            found = compile_one(options.checkpoint, target, precision, options)
        except MezzotintError as error:
            print(f"{precision}: left out, {error}")
            continue
        compiled[precision], bundles[precision] = found, target
    speed = {
        component: time_against_fp32(bundles, component, options.rounds)
        for component in (Component.UNET, Component.VAE_DECODER)
    }
    rows = []
    for precision, bundle in bundles.items():
        manifest, report = read_manifest(bundle), compiled[precision]["report"]
        unet, decoder = speed[Component.UNET][precision], speed[Component.VAE_DECODER][precision]
        snr = {measured.component: measured.snr_db for measured in manifest.verified}
        size = sum(path.stat().st_size for path in bundle.iterdir())
        rows.append(
            {
                "precision": precision,
                "bundle MB": round(size / 1e6),
                f"UNet ms ({ROWS} rows)": round(unet["ms"], 1),
                "UNet × fp32": round(unet["ratio"], 2),
                "VAE ms": round(decoder["ms"] / ROWS, 1),
                "VAE × fp32": round(decoder["ratio"], 2),
                "UNet SNR dB": round(snr[Component.UNET], 1),
                "picture PSNR dB": round(statistics.mean(report["image_psnr_db"].values()), 1),
                "cpu/wall": unet["cpu_over_wall"],
            }
        )
    details = {
        "compile_seconds": {name: round(found["seconds"], 1) for name, found in compiled.items()},
        "peak_memory_mib": {name: found["peak_memory_mib"] for name, found in compiled.items()},
        "rounds": options.rounds,
        "side": options.side or read_manifest(bundles["fp32"]).latents.default_height,
    }
    question = f"What does each precision cost and give? {options.name}, {options.backend}, {details['side']} pixels"
    publish(f"precisions-{options.name}", question, rows, details)


if __name__ == "__main__":
    main()
