"""The engines that a bundle is to hold, each with the float32 graph that it is made of: an export, whole or cut."""

import importlib.metadata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mezzotint.compile.export import ONNX_FILE, Part
from mezzotint.compile.graph import cut, modules, step_cache
from mezzotint.compile.stages import Stages, code_digest
from mezzotint.engines.manifest import AxisRange, Component, TensorSpec

FULL, SHALLOW = "full", "shallow"


@dataclass(frozen=True, slots=True)
class Target:
    """One engine to be made.

    Attributes:
        folder: the finished stage that its float32 graph lies in, named by the hash of all that went in.
        file: the graph's place in that folder.
        recorded_as: the name under which the reference has its inputs and outputs.
    """

    component: Component
    variant: str
    folder: Path
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: dict[str, AxisRange]
    recorded_as: str

    @classmethod
    def whole(cls, component: Component, folder: Path, part: Part, axes: dict[str, AxisRange]) -> "Target":
        """Return the target of a component as it was exported."""
        return cls(component, FULL, folder, ONNX_FILE, part.inputs, part.outputs, axes, component)

    @property
    def name(self) -> str:
        """What its stages and its files are called."""
        return self.component if self.variant == FULL else f"{self.component}_{self.variant}"

    @property
    def onnx(self) -> Path:
        """Its float32 graph."""
        return self.folder / self.file

    @property
    def source(self) -> str:
        """What stands for its graph in the inputs of later stages."""
        return f"{self.folder.name}/{self.file}"


def with_step_cache(unet: Target, module: str, stages: Stages) -> list[Target]:
    """Return the UNet that gives the output of ``module`` too, and the one that takes it and leaves the rest out."""

    def work(folder: Path) -> dict[str, Any]:
        full, shallow, feature = step_cache.split(cut.read(unet.onnx), module)
        cut.write(full, unet.onnx, folder / FULL / ONNX_FILE)
        cut.write(shallow, unet.onnx, folder / SHALLOW / ONNX_FILE)
        return feature.model_dump()

    found = stages.run("cut unet", _cut_inputs(unet, step_cache) | {"module": module}, work)
    feature = TensorSpec.model_validate(found.detail)
    full = replace(unet, folder=found.folder, file=f"{FULL}/{ONNX_FILE}")
    return [
        replace(full, outputs=(*unet.outputs, feature)),
        replace(full, variant=SHALLOW, file=f"{SHALLOW}/{ONNX_FILE}", inputs=(*unet.inputs, feature)),
    ]


def _cut_inputs(target: Target, how: Any) -> dict[str, Any]:
    return {
        "source": target.source,
        "code": code_digest(cut, modules, how),
        "onnx_ir": importlib.metadata.version("onnx_ir"),
    }
