"""The contract between a runtime library and the rest of Mezzotint, on one screen. Imports errors, manifest, shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from mezzotint.engines.component import Precision
from mezzotint.engines.errors import EngineFailed
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.shapes import CompiledShapes, Uses

Array: TypeAlias = Any
"""An array of the Python array API that lives on its engine's device: numpy on a CPU, CuPy on CUDA."""


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """What the host decides of devices that are not its CPU.

    Attributes:
        allow_cpu_fallback: run on the CPU where the device that was asked for does not start, instead of refusing.
        memory_limit: bytes that one engine's arena may take on its device; None is what is there.
    """

    allow_cpu_fallback: bool = False
    memory_limit: int | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the host decides when it loads an engine; nothing of it changes a result.

    Attributes:
        device: the runtime's own name of a device or execution provider; empty is the one it was built for.
        num_threads: CPU threads of one call; 0 is all that this process may keep busy (``cpus.py``).
        row_counts: the rows of a call that the engine prepares for; other counts are split into these.
        cache_dir: where the runtime may keep its compiled blobs; None is nowhere.
        shapes: keeps what is compiled, within the process's memory limit; None is a place of the engine's own.
        shape_bytes: what each row count is predicted to take in memory.
        gpu: what concerns other devices than the CPU.
    """

    device: str = ""
    num_threads: int = 0
    row_counts: tuple[int, ...] = (1,)
    cache_dir: Path | None = None
    shapes: CompiledShapes | None = None
    shape_bytes: Mapping[int, int] = field(default_factory=dict)
    gpu: GpuOptions = GpuOptions()


class Engine(Protocol):
    """One compiled component, loaded."""

    @property
    def spec(self) -> EngineEntry:
        """What the manifest says of it: names, dtypes and axes of its inputs and outputs."""
        ...

    @property
    def device(self) -> str:
        """The device that it runs on, by the runtime's own name."""
        ...

    @property
    def row_counts(self) -> tuple[int, ...]:
        """The row counts that it is meant to have ready; a call of others is split into these."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run once; outputs are valid until this engine's next run. Raises EngineFailed.

        ``inputs`` are on the host or on the engine's device, outputs on its device; it may not have finished by then.
        """
        ...

    def prepare(self, inputs: Mapping[str, Array]) -> None:
        """Get ready for calls of exactly these shapes, in any thread, while others run. Raises EngineFailed."""
        ...

    def close(self) -> None:
        """Free the runtime's memory; the engine cannot run any more."""
        ...


def closed(spec: EngineEntry) -> EngineFailed:
    """Return what an engine raises that is run after ``close``."""
    return EngineFailed(f"{spec.component} was closed; load its bundle again")


@runtime_checkable
class CompilesShapes(Protocol):
    """An engine that compiles each shape that it is called with."""

    @property
    def shape_uses(self) -> Uses:
        """How often a call's shapes were compiled already, and how often it had to wait for that."""
        ...


@runtime_checkable
class KnowsReady(Protocol):
    """An engine whose calls of some sizes would wait for its compiler."""

    def is_ready(self, inputs: Mapping[str, Array]) -> bool:
        """Whether a call of this size, of any rows, would wait for nothing; any thread may ask."""
        ...


@runtime_checkable
class OffHost(Protocol):
    """An engine whose arrays live on a device of its own."""

    @property
    def like(self) -> Array:
        """An array of that device, which others are placed beside."""
        ...


class Backend(Protocol):
    """One runtime library.

    Attributes:
        name: what manifests call it.
        packs_each_shape: whether each row count of an engine holds packed weights of its own.
    """

    name: str
    packs_each_shape: bool

    def version(self, flavour: str = "") -> str:
        """The version of the runtime that is installed, of a flavour of it where it has several. Raises BundleError."""
        ...

    def precisions(self, device: str) -> tuple[Precision, ...]:
        """The precisions that a device has kernels for, fp32 first. Raises DeviceNotFound."""
        ...

    def load(self, folder: Path, spec: EngineEntry, options: EngineOptions) -> Engine:
        """Load one engine of the bundle in ``folder``. Raises BundleError, DeviceNotFound."""
        ...
