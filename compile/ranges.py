"""Whose ranges an engine's activations are rounded over: those of the base, while verify accepts them, or its own.

A base's are found in the cache by its digest, without its weights; a checkpoint's own take torch's pictures.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mezzotint.compile import calibrate
from mezzotint.compile.calibrate import between, beyond, observe, subset
from mezzotint.compile.graph import quantise, structure
from mezzotint.compile.reference import Arrays, read, write
from mezzotint.compile.stages import Stages, code_digest
from mezzotint.compile.targets import Target
from mezzotint.engines.component import Component
from mezzotint.engines.manifest import INNER, STATISTICS
from mezzotint.engines.variants import TINY

Ranges = dict[str, tuple[float, float]]

_INNER_ROLES = ("feature", "hidden")  # what another engine of the component takes
BASE, OWN = "base", "own"


class Calibration:
    """The ranges of each engine's activations, observed when they are first asked for.

    Args:
        stages: keeps what was observed.
        sample: records a checkpoint's own calls, when they are first needed; returns their folder.
        own: that folder's name, which stands for the checkpoint's weights.
        base: the same of the base; None where there is none, or its ranges are not wanted.
    """

    def __init__(self, stages: Stages, sample: Callable[[], Path], own: str, base: str | None) -> None:
        self._stages = stages
        self._sample = sample
        self._names = {OWN: own} | ({BASE: base} if base else {})
        self._arrays: Arrays = {}
        self._asked: dict[Component, list[Target]] = {}
        self._given: dict[str, Arrays] = {}  # by component: what its engines, called in a row, have given so far
        self._ranges: dict[str, Ranges] = {}
        self._graphs: dict[Path, str] = {}
        self._renewed: set[Component] = set()
        self.taken: dict[str, str] = {}
        """By target's name: ``base`` or ``own``, as was last asked for."""

    def give(self, samples: Path) -> None:
        """Take the folder of the checkpoint's own calls, which need not be recorded later then."""
        self._sample = lambda: samples

    def ranges(self, target: Target) -> Ranges:
        """Return the range of every activation of a target that int8 rounds, by tensor.

        Inputs that torch did not record are outputs of the component's engine before it, which was asked for first.
        """
        asked = self._asked.setdefault(target.component, [])
        if target not in asked:
            asked.append(target)
        if target.component not in self._renewed and self.has_base(target):
            self.taken[target.name] = BASE
            return self._observed(target, BASE)
        self.taken[target.name] = OWN
        for earlier in asked[: asked.index(target)]:
            self._observed(earlier, OWN)
        return self._observed(target, OWN)

    def has_base(self, target: Target) -> bool:
        """Return whether the base's ranges of a target are known."""
        return BASE in self._names and self._stages.has(_stage(target), self._inputs(target, BASE))

    def renew(self, *targets: Target) -> bool:
        """Forget the base's ranges of the targets' component; returns whether they had been taken for any of these."""
        self._renewed |= {target.component for target in targets}
        return any(self.taken.get(target.name) == BASE for target in targets)

    def _observed(self, target: Target, whose: str) -> Ranges:
        key = f"{whose} {target.name} {target.source}"
        if key not in self._ranges:
            inputs = self._inputs(target, whose)
            if not self._arrays and not self._stages.has(_stage(target), inputs):
                self._arrays = read(self._sample())
            found = self._stages.run(_stage(target), inputs, lambda folder: self._observe(target, folder))
            if whose == OWN:
                self._given.setdefault(target.component, {}).update(read(found.folder))
            self._ranges[key] = {name: (low, high) for name, (low, high) in found.detail.items()}
        return self._ranges[key]

    def _observe(self, target: Target, folder: Path) -> dict[str, Any]:
        known = subset(self._arrays, target.component) | self._given.get(target.component, {})

        def progress(done: float) -> None:
            self._stages.progress(_stage(target), done, "float32 runs on the samples")

        rows = len(next(iter(known.values())))
        nothing = {
            tensor.name: np.zeros((rows, *map(int, tensor.axes[1:])), np.float32)
            for tensor in target.inputs
            if tensor.role in (STATISTICS, INNER)
        }
        feeds = {tensor.name: (known | nothing)[tensor.name] for tensor in target.inputs}
        choose = beyond if target.component is Component.VAE_DECODER else between
        ranges, outputs = observe(target.onnx, feeds, folder, progress, choose)
        inner = {tensor.name for tensor in target.outputs if tensor.role in _INNER_ROLES}
        write({name: array for name, array in outputs.items() if name in inner}, folder)
        return ranges

    def _inputs(self, target: Target, whose: str) -> dict[str, Any]:
        """Return what the ranges depend on; all weights but a tiny decoder's are those of the sampled checkpoint."""
        if target.onnx not in self._graphs:
            self._graphs[target.onnx] = structure.structure_digest(target.onnx)
        inputs = {
            "graph": self._graphs[target.onnx],
            "samples": self._names[whose],
            "code": code_digest(calibrate, quantise, sys.modules[__name__]),
        }
        return inputs | ({"source": target.source} if target.variant == TINY else {})


def _stage(target: Target) -> str:
    return f"calibrate {target.name}"
