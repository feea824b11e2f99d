"""What a TensorRT engine's call is made of, as plain numbers: profiles, which of them holds a call, where outputs lie.

A *profile* is a bucket of rows that a plan was built for, with the least and the most of every axis. Imports no
runtime, so all of it is tested where there is no GPU.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mezzotint.engines.errors import BundleError, EngineFailed
from mezzotint.engines.manifest import EngineEntry

Shape: TypeAlias = tuple[int, ...]

FLOAT_BYTES = 4
_ALIGNMENT = 256  # bytes; what cudaMalloc gives, and more than any kernel asks for


@dataclass(frozen=True, slots=True)
class Profile:
    """A bucket: the least and the most lengths of every input's axes, by the input's name."""

    index: int
    least: Mapping[str, Shape]
    most: Mapping[str, Shape]

    def holds(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether a call of these input shapes lies inside."""
        return all(
            len(shape) == len(self.least[name])
            and all(low <= n <= high for low, n, high in zip(self.least[name], shape, self.most[name], strict=True))
            for name, shape in shapes.items()
        )

    @property
    def size(self) -> int:
        """The elements of its largest call, by which the tightest profile is told."""
        return sum(math.prod(shape) for shape in self.most.values())


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> Profile:
    """Return the tightest profile that holds a call. Raises EngineFailed."""
    holding = [profile for profile in profiles if profile.holds(shapes)]
    if not holding:
        built = "; ".join(f"{dict(profile.least)} to {dict(profile.most)}" for profile in profiles)
        raise EngineFailed(f"a call of {dict(shapes)} fits no profile of the plan; it was built for {built}")
    return min(holding, key=lambda profile: profile.size)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where arrays lie in one block of memory: byte offsets by name, and the block's bytes."""

    offsets: Mapping[str, int]
    num_bytes: int


def layout(shapes: Mapping[str, Shape]) -> Layout:
    """Lay float32 arrays out one after the other, each at an address that kernels like."""
    offsets: dict[str, int] = {}
    end = 0
    for name, shape in shapes.items():
        offsets[name] = end
        end += math.ceil(math.prod(shape) * FLOAT_BYTES / _ALIGNMENT) * _ALIGNMENT
    return Layout(offsets, end)


def check_tensors(spec: EngineEntry, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Compare a plan's inputs and outputs, dtypes by name, with the manifest's. Raises BundleError."""
    for kind, found, wanted in (("inputs", inputs, spec.inputs), ("outputs", outputs, spec.outputs)):
        expected = {tensor.name: tensor.dtype for tensor in wanted}
        if dict(found) != expected:
            raise BundleError(
                f"{spec.component}: the plan has the {kind} {dict(found)}, the manifest says {expected}; "
                "compile the bundle again"
            )


def check_capability(spec: EngineEntry, capability: str) -> None:
    """Compare the kind of GPU that a plan was built for with the one that is here. Raises BundleError."""
    if spec.compute_capability and spec.compute_capability != capability:
        raise BundleError(
            f"{spec.component}: the plan was built for GPUs of compute capability {spec.compute_capability}, but this "
            f"one has {capability}; compile the bundle again with `--compute-capability {capability}`"
        )
