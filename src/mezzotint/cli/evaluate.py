"""``mezzotint evaluate``: what a fine-tune has learned and what it has kept, by its checkpoint and its engines."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli.errors import CannotWrite
from mezzotint.engines.errors import InvalidRequest, TrainConfigError

if TYPE_CHECKING:
    from mezzotint.compile.checkpoint import Checkpoint
    from mezzotint.trainer.class_images import Painter
    from mezzotint.trainer.config import TrainConfig
    from mezzotint.trainer.evaluation.gallery import Encode
    from mezzotint.trainer.evaluation.run import Looks

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_EPILOG = """\b
Examples:
  mezzotint evaluate build/sks
  mezzotint evaluate build/sks --before build/emoji --bundle fp32=build/sks-fp32 --bundle int8=build/sks-int8
  mezzotint evaluate build/dog --share 0.25 --clip clip-vit-base-patch32 --dino dinov2-small
"""


def _bundles(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for value in values:
        name, _, folder = value.partition("=")
        if not name or not folder or name in found or name == "before":
            raise InvalidRequest(f"bundle={value!r}: must be NAME=FOLDER, each name once, and none of them `before`")
        found[name] = Path(folder)
    return found


@click.command(epilog=_EPILOG)
@click.argument("run", type=_FOLDER)
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    metavar="NAME=FOLDER",
    callback=_bundles,
    help="A bundle that was compiled of the run's model; may be repeated. The first takes the place of the checkpoint, "
    "which is then not painted with torch; the others are compared with it.",
)
@click.option(
    "--before",
    type=_FOLDER,
    help="A bundle of the base model, whose pictures are much faster than torch's. [default: the run's base, in torch]",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="The share of the suite's pictures to paint; less is faster, and intervals grow.",
)
@click.option(
    "--identifier",
    default="",
    help="The word that stands for the subject; what follows it in the instance prompt is the class. [default: the "
    "run's own]",
)
@click.option("--steps", type=click.IntRange(min=1), help="Denoising steps. [default: the run's sample_steps]")
@click.option("--guidance", type=float, help="Guidance scale. [default: the run's sample_guidance]")
@click.option(
    "--clip",
    type=_FOLDER,
    help="A CLIP model in transformers' layout: adds CLIP-I (subject) and CLIP-T (prompt); for real models, whose "
    "pictures colours and pixels say little of.",
)
@click.option("--dino", type=_FOLDER, help="A DINO or DINOv2 model likewise: adds DINO's score of the subject.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where table, figures and pictures go. [default: evaluation/ in the run's folder]",
)
def command(run: Path, bundles: dict[str, Path], before: Path | None, output: Path | None, **options: Any) -> None:
    """Measure what the model of RUN, a training run's folder, has learned of its subject, and what it has kept.

    It is asked for the subject in other words and on other grounds, for its class, and for other things that the base
    knew; the base is asked the same. Pictures are compared one by one, and every figure has its 95 % interval.
    """
    from mezzotint.compile.checkpoint import load_checkpoint
    from mezzotint.trainer.config import CONFIG
    from mezzotint.trainer.config_file import load_config
    from mezzotint.trainer.evaluation import run as stages
    from mezzotint.trainer.evaluation.report import FOLDER, markdown, table_rows, write_report
    from mezzotint.trainer.evaluation.suite import Suite, Words, draw_cases
    from mezzotint.trainer.identifier import identifier_of

    config = load_config(run / CONFIG)
    concept = config.all_concepts[0]
    identifier = options["identifier"] or config.identifier
    identifier = identifier or identifier_of(concept.instance_prompt, concept.class_prompt)
    words = Words.of(concept.instance_prompt, identifier)
    base = load_checkpoint(config.pretrained_model_name_or_path, config=config.base_config)
    suite = Suite.read(Path(base.source))
    subjects = stages.read_subjects(concept.instance_data_dir)
    cases = draw_cases(suite, words, options["share"])
    settings = _settings(config, options)
    with ExitStack() as stack:
        painters = {stages.BEFORE: _engine(before, settings, stack) if before else _torch(base, settings)}
        painters |= {name: _engine(folder, settings, stack) for name, folder in bundles.items()}
        if not bundles:
            painters["checkpoint"] = _torch(_tuned(run, config), settings)
        done = stages.evaluate(
            painters, suite, words, cases, subjects, _encoder(base), _looks(options, subjects), _progress
        )
    title = f"{run.name}: {words.subject}, {settings['steps']} steps, guidance {settings['guidance']:g}"
    facts = {"base": base.digest, "settings": settings, "bundles": {name: str(path) for name, path in bundles.items()}}
    try:
        page = write_report(output or run / FOLDER, title, done.found, done.pictures, cases, facts)
    except OSError as error:
        raise CannotWrite(output or run / FOLDER, error) from None
    click.echo(markdown(table_rows(done.found)))
    click.echo(click.format_filename(page))


def _settings(config: "TrainConfig", options: dict[str, Any]) -> dict[str, Any]:
    steps, guidance = options["steps"], options["guidance"]
    return {
        "steps": config.sample_steps if steps is None else steps,
        "guidance": config.sample_guidance if guidance is None else guidance,
    }


def _engine(bundle: Path, settings: dict[str, Any], stack: ExitStack) -> "Painter":
    from mezzotint.cli.painter import EnginePainter

    return stack.enter_context(EnginePainter(lambda: bundle, **settings))


def _torch(checkpoint: "Checkpoint", settings: dict[str, Any]) -> "Painter":
    from mezzotint.cli.base import base_of
    from mezzotint.trainer.torch_painter import torch_painter

    return torch_painter(base_of(checkpoint), **settings)


def _tuned(run: Path, config: "TrainConfig") -> "Checkpoint":
    """Return the model that a run has written: whole, or its base with the run's LoRA in it."""
    from mezzotint.compile.checkpoint import load_checkpoint
    from mezzotint.compile.job import LoraFile
    from mezzotint.compile.lora import merge_loras
    from mezzotint.trainer.results import LORA, MODEL

    if (run / MODEL).is_dir():
        return load_checkpoint(run / MODEL)
    if not (run / LORA).is_dir():
        raise TrainConfigError(
            f"{run}: holds neither {MODEL}/ nor {LORA}/, expected what a run writes at its end; train it to "
            "its end, or give --bundle NAME=FOLDER"
        )
    base = load_checkpoint(config.pretrained_model_name_or_path, config=config.base_config)
    return merge_loras(base, [LoraFile(run / LORA)])


def _encoder(base: "Checkpoint") -> "Encode":
    """Return what turns pictures into the means of the base's VAE."""
    from mezzotint.trainer.evaluation.latents import vae_encoder

    return vae_encoder(base.vae)


def _looks(options: dict[str, Any], subjects: list[Any]) -> list["Looks"]:
    if not options["clip"] and not options["dino"]:
        return []
    from mezzotint.trainer.evaluation.vision import Clip, Dino

    looks: list[Looks] = []
    if options["clip"]:
        clip = Clip(options["clip"])
        looks.append(lambda images, prompts: clip.measure(images, prompts, subjects))
    if options["dino"]:
        dino = Dino(options["dino"])
        looks.append(lambda images, prompts: dino.measure(images, subjects))
    return looks


def _progress(model: str, done: int, total: int) -> None:
    click.echo(f"{model}: {done} of {total} pictures", err=True)
