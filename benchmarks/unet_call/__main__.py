"""``python -m benchmarks.unet_call``: see the package."""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

import benchmarks.unet_call
from benchmarks.harness import CpuShare, interleaved, publish
from benchmarks.unet_call import operations, variants
from benchmarks.unet_call.peak import measure_peaks
from benchmarks.unet_call.variants import Variant
from mezzotint.compile import export
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.graph.norms import channels_last_norms
from mezzotint.compile.graph.rewrite import REWRITES, Rewrite
from mezzotint.compile.stages import Stages
from mezzotint.compile.verify import snr_db
from mezzotint.engines.bundle import cache_folder
from mezzotint.engines.component import Component, Precision

ROWS = 2
PASSES = (*REWRITES, channels_last_norms)
TOKENS = 77
_LARGEST = 14

Inputs = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one variant took and did.

    GFLOP are counted in its own graph; milliseconds are of each call and of the other's; CPU over wall is of all these.
    """

    variant: Variant
    gflop: float
    int8_gflop: float
    int8_share: float
    ms: list[float]
    against_ms: list[float]
    cpu_over_wall: float

    @property
    def median_ms(self) -> float:
        """The median of all timed calls."""
        return statistics.median(self.ms)


def all_variants(rewrites: Sequence[Rewrite] = REWRITES) -> list[Variant]:
    """Return the rows: fp32, int8 with ever more rewrites, what was tried and dropped, and the other precisions."""

    def is_product(site: Any) -> bool:
        return bool(site.symmetric)

    int8 = Precision.INT8
    rows = [Variant("int8 as exported", int8, against="fp32 as exported", everything=True)]
    for i, applied in enumerate(rewrites, start=1):
        rows.append(Variant(f"+ {applied.__name__}", int8, tuple(rewrites[:i]), rows[-1].name, everything=True))
    last, passes = rows[-1].name, tuple(rewrites)
    norms, positive = (*passes, channels_last_norms), (0.0, 8.0)
    folded, floats, ours = "+ fold_zero_points", "fp32, rewrites", "+ sensitive layers in float"
    rows += [
        Variant("+ channels_last_norms", int8, norms, last, everything=True, kept=False),
        Variant("+ no zero points by range", int8, passes, last, everything=True, kept=False, covered=positive),
        Variant(folded, int8, passes, last, everything=True, folded=True),
        Variant(
            "+ queries and keys in float", int8, passes, folded, is_product, everything=True, folded=True, kept=False
        ),
        Variant(ours, int8, passes, folded, folded=True),
        Variant("int8-bf16", Precision.INT8_BF16, passes, ours, folded=True),
        Variant(floats, Precision.FP32, passes, "fp32 as exported"),
        Variant("bf16", Precision.BF16, passes, floats),
        Variant("int8-hybrid", Precision.INT8_HYBRID, passes, floats, folded=True),
        Variant("int8-weights", Precision.INT8_WEIGHTS, passes, floats),
        Variant("int4-weights", Precision.INT4_WEIGHTS, passes, floats),
        Variant("int8", int8, passes, floats, folded=True),
    ]
    return [Variant("fp32 as exported", Precision.FP32), *rows]


def inputs_of(model: ov.Model, side: int, tokens: int) -> Inputs:
    """Return a call of two rows, at one size in latent pixels."""
    rng = np.random.default_rng(0)
    found = {}
    for value in model.inputs:
        name = value.get_any_name()
        shape = [ROWS, *(d.get_length() if d.is_static else None for d in list(value.get_partial_shape())[1:])]
        filled = [d if d is not None else (tokens if name == "text" else side) for d in shape]
        found[name] = rng.standard_normal(filled, dtype=np.float32)
    found["timestep"] = np.full(found["timestep"].shape, 500, np.float32)
    return found


def measure_all(rows: Sequence[Variant], exported: Path, side: int, rounds: int, work: Path) -> list[Measured]:
    """Build every variant and time it in turns with the one that its gain is counted from.

    Two are loaded at a time, since a large model's variants would not fit into memory together.
    """
    by_name = {row.name: row for row in rows}
    found = []
    for row in rows:
        file = variants.make(row, exported, work)
        inputs = inputs_of(ov.Core().read_model(file), side, TOKENS)
        model = variants.read(file, inputs)
        gflop, in_graph = operations.counted(model), operations.rounded(model)
        compiled = variants.compiled(model, **row.properties)
        share = operations.int8_share(compiled, gflop, in_graph)
        calls = {row.name: _caller(compiled, inputs)}
        if row.against in by_name:
            before = by_name[row.against]
            other = variants.read(variants.make(before, exported, work), inputs)
            calls[before.name] = _caller(variants.compiled(other, **before.properties), inputs)
        del model
        with CpuShare() as cpu:
            times = interleaved(calls, rounds=rounds, warmup=1)
        total = sum(gflop.values())
        before_ms = times.get(row.against, [])
        found.append(Measured(row, total, total * share, share, times[row.name], before_ms, cpu.value))
        print(f"{row.name}: {found[-1].median_ms:.1f} ms", flush=True)
    return found


def _caller(compiled: ov.CompiledModel, inputs: Inputs) -> Any:
    request = compiled.create_infer_request()
    return lambda: request.infer(dict(inputs), share_inputs=True)


def exactness(rewrites: Sequence[Rewrite], exported: Path, side: int, work: Path) -> dict[str, float]:
    """Return the SNR in dB of fp32 after each rewrite alone, against the graph as exported."""
    outputs = {}
    for name, applied in {"": (), **{r.__name__: (r,) for r in rewrites}}.items():
        with tempfile.TemporaryDirectory(dir=work) as folder:  # a large model's float graphs would fill the disk
            file = variants.make(Variant(f"exact {name}", Precision.FP32, applied), exported, Path(folder))
            inputs = inputs_of(ov.Core().read_model(file), side, TOKENS)
            request = variants.compiled(variants.read(file, inputs)).create_infer_request()
            outputs[name] = request.infer(dict(inputs))[0].copy()
    return {name: snr_db(outputs[""], output) for name, output in outputs.items() if name}


def profile(row: Variant, exported: Path, side: int, work: Path) -> list[operations.Kind]:
    """Return where one call of a variant spends its time, by kind of node and kernel."""
    file = variants.make(row, exported, work)
    inputs = inputs_of(ov.Core().read_model(file), side, TOKENS)
    model = variants.read(file, inputs)
    compiled = variants.compiled(model, PERF_COUNT=True, **row.properties)
    request = compiled.create_infer_request()
    for _ in range(3):
        request.infer(dict(inputs))
    return operations.kinds(compiled, request.profiling_info, operations.counted(model))


def cells(found: Sequence[Measured], peaks: Mapping[str, float], exact: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a table row for each variant; what is predicted is the work alone, at the machine's peak."""
    by_name = {m.variant.name: m for m in found}
    rows = []
    for m in found:
        before = by_name.get(m.variant.against)
        at_peak = _at_peak_ms(m, peaks)
        ratio = statistics.median(a / b for a, b in zip(m.ms, m.against_ms, strict=True)) if before else 1.0
        rows.append(
            {
                "UNet": m.variant.name,
                "kept": "yes" if m.variant.kept else "no",
                "against": m.variant.against,
                "GFLOP": round(m.gflop, 1),
                "in int8 %": round(100 * m.int8_share, 1),
                "ms at peak": round(at_peak, 1),
                "ms": round(m.median_ms, 1),
                "share of peak %": round(100 * at_peak / m.median_ms),
                "predicted": round(at_peak / _at_peak_ms(before, peaks), 3) if before else "",
                "measured": round(ratio, 3) if before else "",
                "exact, dB": round(exact[m.variant.name[2:]], 1) if m.variant.name[2:] in exact else "",
                "cpu/wall": m.cpu_over_wall,
            }
        )
    return rows


def _at_peak_ms(m: Measured, peaks: Mapping[str, float]) -> float:
    rest = peaks["bf16" if m.variant.computes_bf16 else "fp32"]
    return 1e3 * (m.int8_gflop / peaks["int8"] + (m.gflop - m.int8_gflop) / rest)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unet_call",
        description=benchmarks.unet_call.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="a diffusers folder")
    parser.add_argument("--name", required=True, help="of the result")
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="measure this row; may be repeated")
    parser.add_argument("--work", type=Path, help="where graphs are kept for the next run")
    options = parser.parse_args()
    if unknown := set(options.only) - {row.name for row in all_variants()}:
        parser.error(f"--only {min(unknown)!r}: no such row; there are {', '.join(row.name for row in all_variants())}")
    checkpoint = load_checkpoint(options.checkpoint)
    stages = Stages(cache_folder() / "compile", lambda _event: None)
    part = export.part(checkpoint, Component.UNET)
    folder = export.exported(stages, Component.UNET, part)
    side = options.side // export.latent_factor(checkpoint)
    del checkpoint, part
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = [row for row in all_variants() if not options.only or row.name in options.only]
        last = next(row for row in all_variants() if row.precision is Precision.INT8_BF16)
        exact = {} if options.only else exactness(PASSES, folder / export.ONNX_FILE, side, work)
        peaks = measure_peaks()
        found = measure_all(rows, folder / export.ONNX_FILE, side, options.rounds, work)
        spent = profile(last, folder / export.ONNX_FILE, side, work)
    report(options, side, found, peaks, exact, spent)


def report(
    options: argparse.Namespace,
    side: int,
    found: Sequence[Measured],
    peaks: Mapping[str, float],
    exact: Mapping[str, float],
    spent: Sequence[operations.Kind],
) -> None:
    """Write both tables: what each pass gives, and where the time of the last one goes."""
    at = f"{options.name}, {ROWS} rows of {side}×{side} latents"
    details = {
        "peak_gflops": {name: round(value, 1) for name, value in peaks.items()},
        "ms": {m.variant.name: [round(ms, 2) for ms in m.ms] for m in found},
    }
    question = (
        f"What does each pass give to a UNet call? {at}; peak {peaks['fp32']:.0f} GFLOP/s in fp32, "
        f"{peaks['bf16']:.0f} in bf16, {peaks['int8']:.0f} GOP/s in int8"
    )
    publish(f"unet-call-{options.name}-{side}", question, cells(found, peaks, exact), details)
    total = sum(kind.ms for kind in spent)
    rows = [
        {
            "node": kind.kind,
            "kernel": kind.kernel,
            "count": kind.count,
            "ms": round(kind.ms, 1),
            "% of the call": round(100 * kind.ms / total, 1),
            "G(FL)OP": round(kind.gflop, 1),
            "G(FL)OP/s": round(1e3 * kind.gflop / kind.ms) if kind.gflop and kind.ms else "",
        }
        for kind in spent[:_LARGEST]
    ]
    question = f"Where does the time of an int8-bf16 UNet call go? {at}; one profiled call"
    publish(f"unet-kinds-{options.name}-{side}", question, rows, {"all": [asdict(kind) for kind in spent]})


if __name__ == "__main__":
    main()
