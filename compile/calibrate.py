"""The ranges of the activations that int8 rounds, seen in float32 on the samples of ``samples.py``."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from mezzotint.compile.graph import cut
from mezzotint.compile.graph.quantise import best_range, sites
from mezzotint.compile.reference import Arrays
from mezzotint.engines.component import Component, Precision

_MAX_ROWS = 160  # more samples move no range by a step of its grid
_ROWS_OF_CALL = 4
_VALUES_OF_CALL = 4096
_MARGIN = 1.2  # of what a decoder's activations reached on the few pictures that it was shown


class Observer:
    """What has been seen of one tensor: its lowest and highest value, and a share of all values."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self._values: list[npt.NDArray[np.float32]] = []

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The values that were kept, float32 [n]."""
        return np.concatenate(self._values)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take in the values of one call; evenly spaced ones are kept."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        flat = values.reshape(-1)
        stride = max(1, flat.size // _VALUES_OF_CALL) | 1  # odd, so as not to meet the same channels each time
        self._values.append(flat[::stride].copy())


def between(seen: Observer, *, symmetric: bool) -> tuple[float, float]:
    """Return the range halfway between that of the least mean square error and all that was seen.

    The first alone serves most pictures best, but clips what a few of them live by: on the emoji model at 4 steps, of
    200 pictures the one furthest from float32's is then at 27 dB instead of 31, and the median no higher.
    """
    low, high = best_range(seen.values, seen.low, seen.high, symmetric=symmetric)
    return (low + min(seen.low, 0.0)) / 2, (high + max(seen.high, 0.0)) / 2


def beyond(seen: Observer, *, symmetric: bool) -> tuple[float, float]:
    """Return all that was seen, and a fifth more.

    For a decoder: it is shown few latents, no later step makes up for what it clips, and a clipped place is seen. The
    furthest of the pictures above is at 37 dB with it, at 22 dB with the least mean square error, and the median 1 dB
    further up, too.
    """
    del symmetric
    return _MARGIN * seen.low, _MARGIN * seen.high


Choose: TypeAlias = Callable[..., tuple[float, float]]
"""Makes the range of an observed tensor, ``choose(observer, symmetric=…)``."""


def observe(
    source: Path,
    feeds: Arrays,
    work: Path,
    progress: Callable[[float], None],
    choose: Choose = between,
) -> tuple[dict[str, Any], Arrays]:
    """Run a float32 graph on samples and return (the range of every tensor that int8 rounds, the graph's outputs).

    Args:
        source: the ONNX model.
        feeds: its inputs, float32 [rows, …] each.
        work: a folder for what this needs on disk; it is emptied again.
        progress: hears the fraction that is done.
        choose: makes a range of what was seen.
    """
    model = onnx.load(source, load_external_data=False)
    kinds = {site.tensor: site.symmetric for site in sites(model, Precision.INT8)}
    own = [output.name for output in model.graph.output]
    inner = [name for name in kinds if name not in feeds]
    session = _session(source, inner, work)
    outputs = [output.name for output in session.get_outputs()]
    observers = {name: Observer() for name in kinds}
    kept: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in own}
    batches = list(_batches(feeds))
    for i, batch in enumerate(batches):
        values = batch | dict(zip(outputs, session.run(outputs, batch), strict=True))
        for name, observer in observers.items():
            observer.add(values[name])
        for name, arrays in kept.items():
            arrays.append(values[name])
        progress((i + 1) / len(batches))
    ranges = {name: choose(observer, symmetric=kinds[name]) for name, observer in observers.items()}
    return ranges, {name: np.concatenate(arrays) for name, arrays in kept.items()}


def subset(arrays: Arrays, component: Component) -> Arrays:
    """Return a component's inputs by name, at most _MAX_ROWS rows of them, drawn evenly over all."""
    own = {name.split("/")[1]: array for name, array in arrays.items() if name.startswith(f"{component}/")}
    rows = len(next(iter(own.values())))
    keep = np.unique(np.linspace(0, rows - 1, min(rows, _MAX_ROWS)).round().astype(int))
    return {name: array[keep] for name, array in own.items()}


def _session(source: Path, inner: Iterable[str], work: Path) -> onnxruntime.InferenceSession:
    """Return a session of the model that gives ``inner`` tensors too."""
    model = cut.read(source)
    made = {value.name: value for node in model.graph for value in node.outputs}
    for name in inner:
        if not made[name].is_graph_output():
            made[name].dtype = ir.DataType.FLOAT
            model.graph.outputs.append(made[name])
    target = work / "observed.onnx"
    before = set(work.iterdir())
    cut.write(model, source, target)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(target, options, providers=["CPUExecutionProvider"])
    finally:
        for file in set(work.iterdir()) - before:
            file.unlink()


def _batches(feeds: Arrays) -> Iterable[Arrays]:
    rows = len(next(iter(feeds.values())))
    for first in range(0, rows, _ROWS_OF_CALL):
        yield {name: array[first : first + _ROWS_OF_CALL] for name, array in feeds.items()}
