"""The options of devices that are not the CPU, and sizes in memory as options take them."""

from collections.abc import Callable
from typing import Any

import click


class MemorySize(click.ParamType[int]):
    """A size in memory: a number with a unit, or of bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes; fails with one sentence."""
        from mezzotint.engines.memory import parse_size

        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


MEMORY_SIZE = MemorySize()


def gpu_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``allow_cpu_fallback`` and ``device_memory`` to a command."""
    command = click.option(
        "--device-memory",
        type=MEMORY_SIZE,
        default=None,
        metavar="SIZE",
        help="What the arena of one ONNX Runtime engine may take on a GPU, as 4GiB; set it where others use the GPU "
        "too. [default: what is there]",
    )(command)
    return click.option(
        "--allow-cpu-fallback",
        is_flag=True,
        help="Serve on the CPU, with a warning, where the execution provider that was asked for does not start; it is "
        "refused otherwise, since a GPU's load on a CPU is worse than none.",
    )(command)
