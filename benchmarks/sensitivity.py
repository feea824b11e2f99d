"""Which layers lose what int8 loses, and what would they cost in float? By kind and position of a layer.

    python -m benchmarks.sensitivity models/emoji --name emoji

All weights are int8 throughout. A group's noise is what the UNet's output loses when the activations of that group
alone are rounded, against none; small roundings add up, so the groups' noises make up that of them all. A group's
price is what a call takes longer when it alone keeps float activations, all others rounded, timed in turns. Inputs are
guided trajectories of prompts that calibration has not seen.
"""

import argparse
import re
import statistics
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.harness import CpuShare, interleaved, publish
from benchmarks.unet_call import variants
from mezzotint.compile import export, samples
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.graph.modules import path_of
from mezzotint.compile.graph.quantise import Ranges, sites
from mezzotint.compile.job import CompileJob, read_prompts
from mezzotint.compile.precision import derive
from mezzotint.compile.ranges import Calibration
from mezzotint.compile.sizes import engine_axes, pixel_ranges
from mezzotint.compile.stages import Stages
from mezzotint.compile.targets import Target, rewritten
from mezzotint.engines.bundle import cache_folder
from mezzotint.engines.component import Component, Precision

ROWS = 2
_ROOT = "unet."  # the module that is exported
# A linear layer on float activations and int8 weights would round them, group by group, in the call.
_NO_ROUNDING_OF_ITS_OWN = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
_HELD_OUT = slice(16, 32)  # prompts after those that calibration takes
_INSIDE_A_BLOCK = re.compile(r"(resnets|attentions|transformer_blocks|upsamplers|downsamplers)\.\d+\.?")
_PRICED = 12

Call = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Group:
    """Layers of one kind at one position: ``up_blocks.1 attn1.to_q``, with the names of their nodes."""

    name: str
    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Source:
    """The graph whose activations are rounded, their ranges, and the calls that it is tried on."""

    onnx: Path
    ranges: Ranges
    calls: Sequence[Call]

    def engine(self, unrounded: Collection[str], work: Path) -> Any:
        """Return a request for one call, of int8 with float activations in the nodes named."""
        target = work / "model.onnx"
        derive(self.onnx, target, Precision.INT8, "openvino", self.ranges, unrounded=unrounded)
        model = variants.read(target, self.calls[0])
        return variants.compiled(model, **_NO_ROUNDING_OF_ITS_OWN).create_infer_request()

    def outputs(self, unrounded: Collection[str], work: Path) -> npt.NDArray[np.float64]:
        """Return the outputs of all calls, float64 [calls, rows, …]."""
        request = self.engine(unrounded, work)
        return np.stack([request.infer(dict(call), share_inputs=True)[0].astype(np.float64) for call in self.calls])


def groups(model: onnx.ModelProto) -> list[Group]:
    """Return all rounded layers by position and kind, in the order of the graph."""
    found: dict[str, set[str]] = {}
    for site in sites(model, Precision.INT8):
        found.setdefault(position_and_kind(site.node), set()).add(site.node.name)
    return [Group(name, frozenset(nodes)) for name, nodes in found.items()]


def position_and_kind(node: onnx.NodeProto) -> str:
    """Return where a layer is and what it is, from the path of its torch module; numbers of its like are left out."""
    parts = (path_of(node) or node.name).removeprefix(_ROOT).split(".")
    length = 2 if parts[0].endswith("_blocks") else 1
    position, rest = ".".join(parts[:length]), ".".join(parts[length:])
    return f"{position} {_INSIDE_A_BLOCK.sub('', rest)}".strip()


def held_out_calls(checkpoint: Any, height: int, width: int, most: int) -> list[Call]:
    """Return calls of two rows, guided and not, drawn evenly over trajectories of unseen prompts."""
    prompts = read_prompts(Path(samples.__file__).parent / "data" / "calibration_prompts.txt")[_HELD_OUT]
    arrays = samples.record(checkpoint, prompts, height, width, lambda _done: None)
    names = ("sample", "timestep", "text")
    count = len(arrays[f"{Component.UNET}/sample"]) // ROWS
    chosen = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    return [{n: arrays[f"{Component.UNET}/{n}"][ROWS * i : ROWS * (i + 1)] for n in names} for i in chosen]


def source_of(checkpoint_path: str, most: int) -> Source:
    """Export, rewrite and calibrate as the compiler does; what it has done before is reused."""
    checkpoint = load_checkpoint(checkpoint_path)
    stages = Stages(cache_folder() / "compile", lambda _event: None)
    job = CompileJob(source=checkpoint_path, output=Path(), cache=cache_folder() / "compile")
    ranges = pixel_ranges(job, checkpoint)
    height, width = ranges["height"].opt, ranges["width"].opt
    part = export.part(checkpoint, Component.UNET)
    exported = export.exported(stages, Component.UNET, part)
    axes = engine_axes(checkpoint, ranges, ROWS, Component.UNET)
    target = Target.whole(Component.UNET, rewritten(Component.UNET, exported, stages), part, axes)
    recorded = samples.sampled(stages, job, checkpoint, height, width)
    calibration = Calibration(stages, lambda: recorded, recorded.name, None)
    return Source(target.onnx, calibration.ranges(target), held_out_calls(checkpoint, height, width, most))


def noise_to_signal(outputs: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> float:
    """Return the power of the difference over that of the truth."""
    return float(np.square(outputs - truth).sum() / np.square(truth).sum())


def noises(source: Source, found: Sequence[Group], work: Path) -> tuple[dict[str, float], float]:
    """Return each group's noise to signal when it alone is rounded, and that of all groups together."""
    everything = frozenset[str]().union(*(group.nodes for group in found))
    truth = source.outputs(everything, work)
    alone = {}
    for i, group in enumerate(found, start=1):
        alone[group.name] = noise_to_signal(source.outputs(everything - group.nodes, work), truth)
        print(f"\r{i} of {len(found)} groups", end="", flush=True)
    print()
    return alone, noise_to_signal(source.outputs((), work), truth)


def prices(source: Source, found: Sequence[Group], rounds: int, work: Path) -> dict[str, tuple[float, float]]:
    """Return (milliseconds more, ratio) of a call in which a group keeps float activations, timed in turns."""
    requests = {"": source.engine((), work)}
    requests |= {group.name: source.engine(group.nodes, work) for group in found}
    call = dict(source.calls[0])
    calls = {name: partial(request.infer, call, share_inputs=True) for name, request in requests.items()}
    times = interleaved(calls, rounds=rounds)
    return {
        group.name: (
            statistics.median(a - b for a, b in zip(times[group.name], times[""], strict=True)),
            statistics.median(a / b for a, b in zip(times[group.name], times[""], strict=True)),
        )
        for group in found
    }


def rows_of(
    found: Sequence[Group], alone: Mapping[str, float], total: float, priced: Mapping[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    """Return the table's rows, the loudest group first; shares are of the groups' sum."""
    whole = sum(alone.values())
    return [
        {
            "layers": group.name,
            "nodes": len(group.nodes),
            "share of the noise %": round(100 * alone[group.name] / whole, 1),
            "SNR alone, dB": round(_db(alone[group.name]), 1),
            "SNR without it, dB": round(_db(max(total - alone[group.name], 1e-12)), 2),
            "price in float, ms": round(priced[group.name][0], 3) if group.name in priced else "",
            "call ×": round(priced[group.name][1], 3) if group.name in priced else "",
        }
        for group in sorted(found, key=lambda group: -alone[group.name])
    ]


def _db(noise: float) -> float:
    return -10 * float(np.log10(noise))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a diffusers folder")
    parser.add_argument("--name", required=True, help="of the result")
    parser.add_argument("--calls", type=int, default=40, help="of two rows, that the noise is measured on")
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each group's price")
    options = parser.parse_args()
    source = source_of(options.checkpoint, options.calls)
    found = groups(onnx.load(source.onnx, load_external_data=False))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        alone, total = noises(source, found, work)
        loudest = sorted(found, key=lambda group: -alone[group.name])[:_PRICED]
        with CpuShare() as cpu:
            priced = prices(source, loudest, options.rounds, work)
    rows = rows_of(found, alone, total, priced)
    question = (
        f"Which layers lose what int8 loses? {options.name}, all together {_db(total):.1f} dB, the sum of each alone "
        f"{_db(sum(alone.values())):.1f} dB; cpu/wall {cpu.value} while timing"
    )
    publish(f"sensitivity-{options.name}", question, rows[: 2 * _PRICED], {"all": rows})


if __name__ == "__main__":
    main()
