"""The exported UNet after some of the compiler's passes, as models of one fixed shape."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov

from mezzotint.compile.export import ONNX_FILE
from mezzotint.compile.graph import quantise, rewrite
from mezzotint.compile.precision import derive
from mezzotint.engines.component import Precision

CONFIG: dict[str, Any] = {
    "INFERENCE_PRECISION_HINT": "f32",  # unless the precision says otherwise
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
    "NUM_STREAMS": 1,
}
NOMINAL_RANGE = (-4.0, 8.0)

Keep = Callable[[quantise.Site], bool]


@dataclass(frozen=True, slots=True)
class Variant:
    """A row: a precision, the rewrites before it, and what of int8 is left out.

    Attributes:
        name: what the row says.
        against: the row that its gain is counted from; empty where there is none.
        in_float: sites that keep float activations, though the precision rounds them.
        everything: whether layers are rounded, too, that the compiler leaves in float.
        folded: whether padded convolutions have no zero points.
        kept: whether the compiler does so; those that it does not show why.
        covered: the range of every activation; it changes no time, but by its zero point.
    """

    name: str
    precision: Precision
    rewrites: tuple[rewrite.Rewrite, ...] = ()
    against: str = ""
    in_float: Keep = field(default=lambda _site: False)
    everything: bool = False
    folded: bool = False
    kept: bool = True
    covered: tuple[float, float] = NOMINAL_RANGE

    @property
    def properties(self) -> dict[str, Any]:
        """What OpenVINO is told beside CONFIG."""
        return {"INFERENCE_PRECISION_HINT": "bf16"} if self.computes_bf16 else {}

    @property
    def computes_bf16(self) -> bool:
        """Whether what is not int8 is computed in bfloat16."""
        return "bf16" in self.precision or self.precision is Precision.INT4_WEIGHTS


def make(variant: Variant, exported: Path, work: Path) -> Path:
    """Return the variant's ONNX graph, derived with one nominal range for all activations."""
    folder = work / variant.name.replace(" ", "-").replace("+", "and")
    target = folder / ONNX_FILE
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / "rewritten.onnx"
        rewrite.rewrite(exported, source, variant.rewrites)
        graph = onnx.load(source, load_external_data=False)
        sites = quantise.sites(graph, variant.precision)
        sensitive = frozenset[str]() if variant.everything else quantise.sensitive(graph)
        unrounded = sensitive | {site.node.name for site in sites if variant.in_float(site)}
        ranges = {site.tensor: variant.covered for site in sites}
        derive(
            source,
            target,
            variant.precision,
            "openvino",
            ranges,
            unrounded=unrounded,
            without_zero_points=variant.folded,
        )
        for file in folder.glob(f"{source.name}*"):
            file.unlink()
    return target


def read(file: Path, inputs: Mapping[str, npt.NDArray[np.float32]]) -> ov.Model:
    """Return the model with the shapes of ``inputs``."""
    model = ov.Core().read_model(file)
    model.reshape({value: ov.PartialShape(list(inputs[value.get_any_name()].shape)) for value in model.inputs})
    return model


def compiled(model: ov.Model, **properties: Any) -> ov.CompiledModel:
    """Compile for the CPU, in all cores; ``properties`` are further ones of OpenVINO."""
    return ov.Core().compile_model(model, "CPU", CONFIG | properties)
