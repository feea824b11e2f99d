"""The engines that a bundle is to hold, each with the float32 graph that it is made of: an export, whole or cut."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from mezzotint.compile.export import ONNX_FILE, Part
from mezzotint.compile.graph import cut, decoder, modules, nodes, norms, rewrite, statistics, step_cache
from mezzotint.compile.stages import Stages, code_digest
from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.manifest import AxisRange, TensorSpec
from mezzotint.engines.tiles import RING
from mezzotint.engines.variants import FULL, SHALLOW, TILE, stem


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
        return stem(self.component, self.variant)

    @property
    def onnx(self) -> Path:
        """Its float32 graph."""
        return self.folder / self.file

    @property
    def source(self) -> str:
        """What stands for its graph in the inputs of later stages."""
        return f"{self.folder.name}/{self.file}"


def rewritten(name: str, exported: Path, stages: Stages) -> Path:
    """Return the folder of an export's graph after the rewrites that make it cheaper to run."""

    def work(folder: Path) -> dict[str, int]:
        return rewrite.rewrite(exported / ONNX_FILE, folder / ONNX_FILE)

    inputs = {
        "source": exported.name,
        "code": code_digest(rewrite, nodes),
        "onnx_ir": importlib.metadata.version("onnx_ir"),
    }
    return stages.run(f"rewrite {name}", inputs, work).folder


def with_channels_last_norms(target: Target, stages: Stages) -> Target:
    """Return the target with its group norms as int8 engines run them fastest."""

    def work(folder: Path) -> dict[str, int]:
        model = cut.read(target.onnx)
        count = norms.channels_last_norms(model)
        nodes.drop_unused_weights(model)
        cut.write(model, target.onnx, folder / ONNX_FILE)
        return {"norms": count}

    folder = stages.run(f"norms {target.name}", _cut_inputs(target, norms), work).folder
    return replace(target, folder=folder, file=ONNX_FILE)


def for_tiles(decoder: Target, stages: Stages) -> Target:
    """Return the decoder whose norms give their statistics and take a whole picture's.

    Raises:
        InvalidRequest: it is built for pictures that are border alone.
    """
    least = min(decoder.axes[side].min for side in ("height", "width"))
    if least <= 2 * RING:
        raise InvalidRequest(
            f"tile_decoder: needs pictures of more than {2 * RING} latent pixels, but {decoder.name} is built for "
            f"{least} too; build for larger ones"
        )
    variant = replace(decoder, variant=TILE, file=ONNX_FILE, recorded_as=stem(decoder.component, TILE))

    def work(folder: Path) -> list[dict[str, Any]]:
        model = cut.read(decoder.onnx)
        specs = statistics.with_statistics(model)
        nodes.drop_unused_weights(model)
        cut.write(model, decoder.onnx, folder / ONNX_FILE)
        return [spec.model_dump() for spec in specs]

    inputs = _cut_inputs(decoder, statistics) | {"norms": code_digest(norms), "ring": RING}
    found = stages.run(f"statistics {variant.name}", inputs, work)
    *given, made = (TensorSpec.model_validate(spec) for spec in found.detail)
    return replace(variant, folder=found.folder, inputs=(*decoder.inputs, *given), outputs=(*decoder.outputs, made))


def with_step_cache(unet: Target, module: str, stages: Stages) -> list[Target]:
    """Return the UNet that gives the output of ``module`` too, and the one that takes it and leaves the rest out."""

    def work(folder: Path) -> dict[str, Any]:
        full, shallow, feature = step_cache.split(cut.read(unet.onnx), module)
        cut.write(full, unet.onnx, folder / FULL / ONNX_FILE)
        cut.write(shallow, unet.onnx, folder / SHALLOW / ONNX_FILE)
        return feature.model_dump()

    found = stages.run(f"cut {unet.name}", _cut_inputs(unet, step_cache) | {"module": module}, work)
    feature = TensorSpec.model_validate(found.detail)
    full = replace(unet, folder=found.folder, file=f"{FULL}/{ONNX_FILE}")
    return [
        replace(full, outputs=(*unet.outputs, feature)),
        replace(full, variant=SHALLOW, file=f"{SHALLOW}/{ONNX_FILE}", inputs=(*unet.inputs, feature)),
    ]


def in_parts(whole: Target, modules: Sequence[str], ends: Sequence[int] | None, stages: Stages) -> list[Target]:
    """Return a decoder's parts, each a run of sections up to one of ``ends``; None makes a part of every section."""
    word = "section" if ends is None else "part"

    def work(folder: Path) -> list[Any]:
        sections = decoder.Sections(cut.read(whole.onnx), modules)
        stops = range(1, len(sections) + 1) if ends is None else ends
        hidden = []
        for i, (first, end) in enumerate(pairwise((0, *stops)), start=1):
            part, *specs = sections.part(first, end)
            cut.write(part, whole.onnx, folder / f"{word}{i}" / ONNX_FILE)
            hidden.append([None if spec is None else spec.model_dump() for spec in specs])
        return hidden

    inputs = _cut_inputs(whole, decoder) | {"modules": modules, "ends": ends}
    found = stages.run(f"cut {whole.name} {word}s", inputs, work)
    return [
        _part(whole, f"{word}{i}", found.folder, *(spec and TensorSpec.model_validate(spec) for spec in specs))
        for i, specs in enumerate(found.detail, start=1)
    ]


def _part(whole: Target, variant: str, folder: Path, taken: TensorSpec | None, given: TensorSpec | None) -> Target:
    inputs = (taken,) if taken else whole.inputs
    outputs = (given,) if given else whole.outputs
    names = [axis for tensor in (*inputs, *outputs) for axis in tensor.axes if isinstance(axis, str)]
    axes = {name: _axis(whole, name) for name in dict.fromkeys(names)}
    file = f"{variant}/{ONNX_FILE}"
    return replace(whole, variant=variant, folder=folder, file=file, inputs=inputs, outputs=outputs, axes=axes)


def _axis(whole: Target, name: str) -> AxisRange:
    """Return the range of an axis of the whole, or of one that is so many times as long as its name says."""
    base, _, scale = name.partition(decoder.TIMES)
    own, factor = whole.axes[base], int(scale or 1)
    return AxisRange(min=own.min * factor, opt=own.opt * factor, max=own.max * factor)


def _cut_inputs(target: Target, how: Any) -> dict[str, Any]:
    return {
        "source": target.source,
        "code": code_digest(cut, modules, nodes, how),
        "onnx_ir": importlib.metadata.version("onnx_ir"),
    }
