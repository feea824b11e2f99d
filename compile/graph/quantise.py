"""Where an int8 engine rounds its activations: one rule by kind and position of an operation, the same for all models.

Convolutions and linear layers with constant weights take uint8 activations with a zero point, and the product of
queries and keys takes int8 on both sides, since those are the forms that CPUs with VNNI, LPT in OpenVINO and QDQ in
ONNX Runtime multiply in int8. Everything else stays float32: norms, softmax and the probabilities after it (their
uint8 grid cannot hold an attention that is spread over hundreds of tokens), the residual stream, convolutions to and
from latents and pixels, and the layers on the timestep alone, whose few rows cost nothing.

The states of the text, too: their first token is larger than all others by tens (Zhao et al. 2024, MixDQ, arXiv
2405.17873, section 3.1), so that one grid for all leaves the words of a prompt a few steps. What is linear in a graph
input keeps float activations, and so do keys made of it; the weights are int8 like all others.

And what the search of ``benchmarks/sensitivity.py`` found to lose most for what it costs: the shortcuts of a UNet's
last up block, where residual streams of different blocks meet on one grid, and in each up block the last transformer's
second linear layer, whose input is a product. A third of all the noise came from these, which are 2 % of a call.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mezzotint.compile.graph.modules import path_of
from mezzotint.engines.component import Precision

MIN_CHANNELS = 16  # a convolution to or from fewer touches latents or pixels: int8 there costs 2–5 dB and saves nothing
_UINT8_STEPS, _INT8_STEPS = 255, 127
MAX_FLOAT8 = 448.0  # the largest E4M3 float
_LEAST_WIDTH = 1e-6
_KEEP_LINEAR = {"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Mul", "Div", "Cast", "Identity"}
_SHORTCUT = re.compile(r"unet\.(?P<of>up_blocks)\.(?P<number>\d+)\..*\.conv_shortcut")
_FEED_FORWARD = re.compile(r"unet\.(?P<of>up_blocks\.\d+)\.attentions\.(?P<number>\d+)\..*\.ff\.net\.2")

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Site:
    """An activation that is rounded: input ``index`` of ``node``; ``symmetric`` is int8 around 0, else uint8."""

    node: NodeProto
    index: int
    symmetric: bool

    @property
    def tensor(self) -> str:
        """The name of the activation."""
        return str(self.node.input[self.index])


def sites(model: ModelProto, precision: Precision) -> list[Site]:
    """Return what a precision rounds, in the order of the graph; nothing for those that keep activations."""
    if not precision.is_calibrated:
        return []
    convolutions_alone = precision is Precision.INT8_HYBRID
    return [site for site in _all_sites(model) if not convolutions_alone or site.node.op_type == "Conv"]


def sensitive(model: ModelProto) -> frozenset[str]:
    """Return the names of the nodes that keep float activations for where they are; the graph must still say so."""
    return frozenset(name for pattern in (_SHORTCUT, _FEED_FORWARD) for name in _last(model, pattern))


def _last(model: ModelProto, pattern: re.Pattern[str]) -> Iterator[str]:
    """Yield the names of nodes whose module's path matches, those with the highest number of their kind."""
    found = [(node.name, match) for node in model.graph.node if (match := pattern.fullmatch(path_of(node)))]
    last: dict[str, int] = {}
    for _, match in found:
        last[match["of"]] = max(int(match["number"]), last.get(match["of"], 0))
    yield from (name for name, match in found if int(match["number"]) == last[match["of"]])


def round_activations(
    model: ModelProto, precision: Precision, ranges: Ranges, unrounded: Collection[str] = (), *, symmetric: bool = False
) -> int:
    """Insert a QuantizeLinear and a DequantizeLinear before every site; returns how many sites there are.

    Nodes named in ``unrounded`` are left as they are. ``symmetric`` gives every grid its zero in the middle, since
    TensorRT knows no zero points.

    Sites of one tensor share a pair, so that runtimes quantise once. ``ranges`` holds the lowest and highest value
    that each tensor's grid covers. Raises KeyError for a tensor without a range.
    """
    found = [site for site in sites(model, precision) if site.node.name not in unrounded]
    pairs: dict[str, list[NodeProto]] = {}
    for site in found:
        name = site.tensor
        if name not in pairs:
            pairs[name] = _pair(model, name, ranges[name], precision, symmetric=symmetric or site.symmetric)
        site.node.input[site.index] = pairs[name][-1].output[0]
    _insert_behind(model, pairs)
    return len(found)


def _all_sites(model: ModelProto) -> Iterator[Site]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    before_softmax = {node.input[0] for node in model.graph.node if node.op_type == "Softmax"}
    of_states = _linear_in_inputs(model)
    for node in model.graph.node:
        if node.op_type == "MatMul" and not of_states.isdisjoint(node.input):
            continue
        weight = shapes.get(node.input[1]) if len(node.input) > 1 else None
        if (node.op_type == "Conv" and weight is not None and min(weight[:2]) >= MIN_CHANNELS) or (
            node.op_type == "MatMul" and weight is not None and len(weight) == 2
        ):
            yield Site(node, 0, symmetric=False)
        elif node.op_type == "MatMul" and weight is None and node.output[0] in before_softmax:
            yield Site(node, 0, symmetric=True)
            yield Site(node, 1, symmetric=True)


def _linear_in_inputs(model: ModelProto) -> set[str]:
    """Return the model's inputs, and what linear layers on them give, reshaped or scaled."""
    found = {value.name for value in model.graph.input}
    weights = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        layer = node.op_type == "MatMul" and node.input[1] in weights
        if node.input and node.input[0] in found and (layer or node.op_type in _KEEP_LINEAR):
            found.update(node.output)
    return found


def _pair(
    model: ModelProto, name: str, covered: tuple[float, float], precision: Precision, *, symmetric: bool
) -> list[NodeProto]:
    scale, zero = float8_grid(covered) if precision is Precision.FP8 else grid(covered, symmetric=symmetric)
    names = [f"{name}.scale", f"{name}.zero"]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value), n) for value, n in zip((scale, zero), names, strict=True)
    )
    rounded, restored = f"{name}.rounded", f"{name}.restored"
    return [
        helper.make_node("QuantizeLinear", [name, *names], [rounded], name=rounded),
        helper.make_node("DequantizeLinear", [rounded, *names], [restored], name=restored),
    ]


def grid(covered: tuple[float, float], *, symmetric: bool) -> tuple[np.float32, np.int8 | np.uint8]:
    """Return (scale, zero point) of the 8-bit grid over a range; 0 is always on it, since padding is made of zeros."""
    low, high = min(covered[0], 0.0), max(covered[1], 0.0)
    if symmetric:
        return np.float32(max(-low, high, _LEAST_WIDTH) / _INT8_STEPS), np.int8(0)
    scale = np.float32(max(high - low, _LEAST_WIDTH) / _UINT8_STEPS)
    return scale, np.uint8(np.clip(round(float(-low / scale)), 0, _UINT8_STEPS))


def float8_grid(covered: tuple[float, float]) -> tuple[np.float32, Any]:
    """Return (scale, zero) with which the larger end of a range is the largest E4M3 float."""
    return np.float32(max(-covered[0], covered[1], _LEAST_WIDTH) / MAX_FLOAT8), ml_dtypes.float8_e4m3fn(0)


def _insert_behind(model: ModelProto, pairs: Mapping[str, list[NodeProto]]) -> None:
    """Put each pair right behind the node that makes its tensor; those of graph inputs come first."""
    made = {output for node in model.graph.node for output in node.output}
    nodes = [node for name, pair in pairs.items() if name not in made for node in pair]
    for node in model.graph.node:
        nodes.append(node)
        for output in node.output:
            nodes.extend(pairs.get(output, ()))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def best_range(values: npt.NDArray[np.float32], low: float, high: float, *, symmetric: bool) -> tuple[float, float]:
    """Return the range whose 8-bit grid has the least mean square error on ``values``, [n] drawn from low…high.

    Values beyond the range are clipped to its ends, those inside are off by scale²/12 on average (Banner et al. 2019,
    arXiv 1810.05723, section 2): a search over shares of each end.
    """
    counts, edges = np.histogram(values, bins=512, range=(low, max(high, low + _LEAST_WIDTH)))
    centres = (edges[1:] + edges[:-1]) / 2
    share = counts / max(1, counts.sum())
    kept = np.linspace(0.3, 1.0, 36)
    if symmetric:
        ends = max(-low, high) * np.stack([-kept, kept], axis=1)
    else:
        lows, highs = np.meshgrid(min(low, 0.0) * kept, max(high, 0.0) * kept)
        ends = np.unique(np.stack([lows.ravel(), highs.ravel()], axis=1), axis=0)
    steps = 2 * _INT8_STEPS if symmetric else _UINT8_STEPS
    width = np.maximum(ends[:, 1] - ends[:, 0], _LEAST_WIDTH)
    beyond = np.maximum(ends[:, :1] - centres, 0) + np.maximum(centres - ends[:, 1:], 0)
    inside = (share * (beyond == 0)).sum(axis=1)
    error = (share * beyond**2).sum(axis=1) + inside * (width / steps) ** 2 / 12
    best = ends[int(np.argmin(error))]
    return float(best[0]), float(best[1])
