"""``mezzotint build``: a bundle of verified ONNX becomes one of TensorRT plans, on the machine that has the GPU."""

from pathlib import Path

import click

from mezzotint.cli.plan_options import plan_options, plan_target


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The finished bundle's folder; BUNDLE stays."
)
@plan_options(required=True)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where plans and timings are kept for the next build. [default: in the user's cache folder]",
)
def command(bundle: Path, output: Path, compute_capability: str, workspace: int, cache: Path | None) -> None:
    """Build the TensorRT plans of BUNDLE, made by `compile --backend tensorrt --onnx-only`.

    Use it on the machine that will serve, where plans cannot be built ahead of time. It needs no torch and no
    checkpoint; what was verified is the ONNX, so look at a picture or two of the finished bundle.
    """
    from mezzotint.cli.progress import CompileProgress
    from mezzotint.compile.tensorrt.finish import finish
    from mezzotint.engines.bundle import cache_folder

    target = plan_target(compute_capability, workspace)
    with CompileProgress() as progress:
        made = finish(bundle, output, target, cache or cache_folder() / "compile", progress.report)
    click.echo(f"{made}: built; serve it with `mezzotint serve {made}`")
