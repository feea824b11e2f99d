"""The benchmark's one command: make what is missing, run what is missing, write the report."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.bundles import read_bundle
from benchmarks.peers.catalog import EXPORTS, PEERS, Configuration, peers_configurations
from benchmarks.peers.environments import ensure_environment, say
from benchmarks.peers.exports import Workplace, ensure_export, place
from benchmarks.peers.report import Row, instruction_sets, plot, psnr_db, rows
from benchmarks.peers.stamps import NotMade, fingerprint, read_stamp
from benchmarks.peers.turns import Ready, Turn, output_folder, ready, run_rounds
from benchmarks.peers.workers.protocol import Job
from mezzotint.engines.noise import NoiseStream

_REFERENCE = "diffusers: fp32 (default)"


def command_line() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a diffusers folder; the full-size architecture is written there")
    parser.add_argument("--name", required=True, help="of the result, and of this checkpoint's folder below --work")
    parser.add_argument("--bundle", type=read_bundle, action="append", default=[], metavar="NAME=FOLDER[,FIELD=VALUE…]")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="rows whose names contain it")
    parser.add_argument("--skip", action="append", default=[], metavar="TEXT", help="no rows whose names contain it")
    parser.add_argument(
        "--once", action="append", default=[], metavar="TEXT", help="such rows in the first round alone"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=lambda text: [int(part) for part in text.split(",")], default=[4, 20])
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--prompt", default="a photograph of an astronaut riding a horse")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=200, help="UNet calls that int8 exports are calibrated with")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds of one turn")
    parser.add_argument("--work", type=Path, default=Path("build/peers"))
    parser.add_argument("--prepare", action="store_true", help="make environments and exports, and time nothing")
    return parser


def chosen(options: argparse.Namespace) -> list[Configuration]:
    """Return the rows that ``--only`` and ``--skip`` leave."""
    return [
        row
        for row in [*peers_configurations(), *options.bundle]
        if (not options.only or any(part in row.name for part in options.only))
        and not any(part in row.name for part in options.skip)
    ]


def prepare(row: Configuration, at: Workplace, options: argparse.Namespace) -> Ready:
    """Make what a row needs, where it is missing. Raises NotMade."""
    peer = PEERS[row.peer]
    packages = ensure_environment(peer, at.work)
    if row.bundle:
        if not (row.bundle / "manifest.json").is_file():
            raise NotMade(f"{row.bundle} holds no bundle; compile one there")
        model, digest = row.bundle, fingerprint(row.bundle)
    elif row.export:
        model = ensure_export(EXPORTS[row.export], at)
        digest = json.dumps(read_stamp(model)["source"])  # gigabytes that nobody else writes
    else:
        model, digest = at.checkpoint, at.digest
    job = Job(
        model=str(model.absolute()),
        settings=dict(row.settings),
        prompt=options.prompt,
        negative_prompt="",
        steps=options.steps,
        warm_up_steps=min(2, *options.steps),
        guidance=options.guidance,
        height=options.side,
        width=options.side,
        seed=options.seed,
        noise=str(write_noise(at, options).absolute()),
        threads=len(os.sched_getaffinity(0)),
        versions=list(peer.versions),
        output="",
    )
    return ready(row, job, digest, packages)


def write_noise(at: Workplace, options: argparse.Namespace) -> Path:
    """Write what torch draws for the seed, for peers without torch; returns the file."""
    vae = json.loads((at.checkpoint / "vae" / "config.json").read_text(encoding="utf-8"))
    side = options.side // 2 ** (len(vae["block_out_channels"]) - 1)
    path = at.models / f"noise-{options.seed}-{side}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, NoiseStream(options.seed).normal((1, vae["latent_channels"], side, side)))
    return path


def against_reference(folder: Path, entries: Sequence[Ready], row: Row, steps: Sequence[int]) -> float | None:
    """Return the PSNR of a row's last picture against diffusers' of this run, or None where one is not there."""
    files = {entry.configuration.name: output_folder(folder, entry) / f"{max(steps)}.png" for entry in entries}
    if not row.painted or _REFERENCE not in files:
        return None
    return psnr_db(files[row.configuration], files[_REFERENCE])


def versions(turns: Sequence[Turn]) -> dict[str, dict[str, str]]:
    """Return what each configuration's process said of its packages."""
    return {turn.configuration: turn.result["versions"] for turn in turns if turn.result}


def write_report(
    options: argparse.Namespace,
    names: Sequence[str],
    entries: Sequence[Ready],
    turns: Sequence[Turn],
    unmade: dict[str, str],
    folder: Path,
) -> None:
    """Write table, JSON and plot into ``results``."""
    from benchmarks.harness import RESULTS, publish  # torch, which should not take memory while others are timed

    found = [
        replace(row, psnr_db=against_reference(folder, entries, row, options.steps))
        for row in rows(names, turns, options.steps, unmade)
    ]
    sets = instruction_sets(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    question = (
        f"How long does a picture take, beside other engines? {options.name}, {options.side}×{options.side} pixels, "
        f"DDIM, guidance {options.guidance:g}"
    )
    details: dict[str, Any] = {
        "instruction_sets": sets,
        "rounds": options.rounds,
        "steps": options.steps,
        "calibration_samples": options.samples,
        "rows": [asdict(row) for row in found],
        "versions": versions(turns),
        "turns": [{"configuration": t.configuration, "round": t.round, "when": t.when, **t.result} for t in turns],
    }
    name = f"peers-{options.name}"
    publish(name, question, [row.cells(options.steps) for row in found], details)
    plot(found, options.steps, question, RESULTS / f"{name}.png")
    page = RESULTS / f"{name}.md"
    listed = {" ".join(f"{k} {v}" for k, v in packages.items()) for packages in details["versions"].values()}
    more = [f"Instruction sets: {', '.join(sets)}.", "", *sorted(f"- {line}" for line in listed if line), ""]
    page.write_text(page.read_text(encoding="utf-8") + "\n" + "\n".join(more) + f"\n![seconds]({name}.png)\n")


def main() -> None:
    options = command_line().parse_args()
    if not (options.checkpoint / "model_index.json").is_file():
        from benchmarks.full_size_model import write_full_sd15  # torch, which only this needs

        say(f"writing {options.checkpoint}")
        write_full_sd15(options.checkpoint)
    at = place(
        *(options.checkpoint, options.work, options.name),
        height=options.side,
        width=options.side,
        samples=options.samples,
    )
    entries: list[Ready] = []
    unmade: dict[str, str] = {}
    names = [row.name for row in chosen(options)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SystemExit(f"{min(twice)}: is named twice; give each bundle and its settings a name of its own")
    for row in chosen(options):
        try:
            entries.append(prepare(row, at, options))
        except NotMade as reason:
            say(f"{row.name}: {reason}")
            unmade[row.name] = str(reason)
    if options.prepare:
        return
    folder = options.work / "runs" / options.name
    turns = run_rounds(entries, options.rounds, folder, options.work, options.timeout, options.once)
    write_report(options, names, entries, turns, unmade, folder)


if __name__ == "__main__":
    main()
