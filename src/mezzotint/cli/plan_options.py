"""The options of commands that build TensorRT plans."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mezzotint.compile.tensorrt.plan import PlanOptions


def plan_options(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds ``compute_capability`` and ``workspace`` to a command."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--workspace",
            type=click.IntRange(min=64),
            default=4096,
            show_default=True,
            metavar="MIB",
            help="The scratch memory on the GPU that a layer of a TensorRT plan may take; less leaves room for others, "
            "and may cost speed.",
        )(command)
        return click.option(
            "--compute-capability",
            metavar="X.Y",
            required=required,
            help="The NVIDIA GPU that TensorRT plans are built for, by NVIDIA's number: 8.6 for RTX 30, 8.9 for RTX 40 "
            "and L4, 12.0 for RTX 50. tensorrt_rtx builds for it without a GPU; tensorrt for the GPU that is here.",
        )(command)

    return add


def plan_target(compute_capability: str | None, workspace: int) -> "PlanOptions":
    """Return what plans are built for."""
    from mezzotint.compile.tensorrt.plan import PlanOptions

    return PlanOptions(compute_capability or "", workspace << 20)
