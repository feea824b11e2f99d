"""``mezzotint train``: a few pictures of a subject become a model that paints it, and a server of that."""

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli.train_options import given, train_options

if TYPE_CHECKING:
    from mezzotint.compile.checkpoint import Checkpoint
    from mezzotint.trainer.config import TrainConfig

_EPILOG = """\b
Examples:
  mezzotint train models/emoji --instance-data models/subject --instance-prompt "a photo of a sks cat" \\
    --class-prompt "a photo of a cat" --output build/sks
  mezzotint train stable-diffusion-v1-5 --config run.yaml --lora-rank 8 --output build/lora
  mezzotint train --config build/sks/config.yaml --output build/again
"""


class _TrainCommand(click.Command):
    """A command that asks for its options only when it is run or explained: they come from the configuration."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        names = {param.name for param in self.params}
        self.params += [option for option in train_options() if option.name not in names]
        return super().get_params(ctx)


@click.command(cls=_TrainCommand, epilog=_EPILOG)
@click.argument("base", required=False)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A YAML file with values of these options, and of `concepts`; the command line goes before it. A run's own "
    "config.yaml starts the same run anew.",
)
@click.option(
    "--then-serve",
    is_flag=True,
    help="Compile the trained model into the run's folder and serve it, as `mezzotint compile` and `mezzotint serve` "
    "do without options; to have a model to ask in one command.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="The port of --then-serve."
)
def command(base: str | None, file: Path | None, then_serve: bool, port: int, **options: Any) -> None:
    """Train BASE, a diffusers folder or a .safetensors or .ckpt file, on pictures of one subject (DreamBooth).

    The run's folder has the model, single files of it, checkpoints, logs, pictures and its whole configuration.
    """
    from mezzotint.cli.progress import PaintProgress, quiet_libraries

    quiet_libraries()
    from mezzotint.cli.base import base_of
    from mezzotint.cli.painter import class_painter
    from mezzotint.compile.checkpoint import load_checkpoint
    from mezzotint.trainer.config_file import read_values
    from mezzotint.trainer.run import train

    for name in ("lightning.pytorch", "lightning.fabric"):  # they set their own levels when they are imported
        logging.getLogger(name).setLevel(logging.WARNING)
    layers = [read_values(file) if file else {}, given(options)]
    source = base or layers[0].get("pretrained_model_name_or_path")
    if not source:
        raise click.UsageError("Missing argument 'BASE'; without one, say it in --config.")
    base_config = next((Path(each["base_config"]) for each in layers[::-1] if each.get("base_config")), None)
    checkpoint = load_checkpoint(source, config=base_config)
    config, model = resolved(checkpoint, *layers), base_of(checkpoint)
    with PaintProgress() as progress:
        result = train(config, model, class_painter(model, config, _note), _note, progress.report)
    if result.rank:
        return
    compiled = compile_arguments(config)
    then = "" if then_serve else f"; compile it with `mezzotint {shlex.join(compiled)}`"
    click.echo(f"{result.folder}: trained {result.num_steps} steps{then}")
    if then_serve:
        _compile_and_serve(compiled, result.folder / "bundle", port)


def resolved(checkpoint: "Checkpoint", *layers: dict[str, Any]) -> "TrainConfig":
    """Return what the run is told: the model's own size and recipe, then ``layers``, later ones going first."""
    from mezzotint.trainer.config import RECIPE
    from mezzotint.trainer.config_file import make_config, read_values

    unet, vae = checkpoint.unet.config, checkpoint.vae.config
    size = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    recipe = Path(checkpoint.source) / RECIPE
    own = read_values(recipe) if recipe.is_file() else {}
    return make_config({"resolution": size}, own, *layers, {"pretrained_model_name_or_path": checkpoint.source})


def _note(sentence: str) -> None:
    click.echo(f"note: {sentence}", err=True)


def compile_arguments(config: "TrainConfig") -> list[str]:
    """Return the command that compiles what a run has trained."""
    from mezzotint.trainer.results import LORA, MODEL

    folder = config.output_dir
    merged = [config.pretrained_model_name_or_path, "--lora", str(folder / LORA)]
    merged += ["--config", str(config.base_config)] if config.base_config else []
    source = merged if config.lora_rank else [str(folder / MODEL)]
    return ["compile", *source, "--output", str(folder / "bundle")]


def _compile_and_serve(arguments: list[str], bundle: Path, port: int) -> None:
    """Compile a run's model, and become its server: what training took is given back."""
    from mezzotint.cli import cli

    click.echo(f"$ mezzotint {shlex.join(arguments)}")
    cli.main(arguments, prog_name="mezzotint", standalone_mode=False)
    served = ["serve", str(bundle), "--port", str(port)]
    click.echo(f"$ mezzotint {shlex.join(served)}")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "mezzotint", *served])
