"""``mezzotint compile``: a checkpoint becomes a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mezzotint.cli.plan_options import plan_options, plan_target

if TYPE_CHECKING:
    from mezzotint.compile.job import LoraFile
    from mezzotint.engines.manifest import AxisRange

_EPILOG = """\b
Examples:
  mezzotint compile models/emoji --output build/emoji
  mezzotint compile stable-diffusion-v1-5 -o sd15 --precision unet=int8,vae=fp32
  mezzotint compile stable-diffusion-v1-5 -o sd15 --step-cache
  mezzotint compile stable-diffusion-v1-5 -o sd15-ada --backend tensorrt --compute-capability 8.9
  mezzotint compile dreambooth.safetensors -o dog --height 512 --width 512:512:768
  mezzotint compile stable-diffusion-v1-5 -o ink --lora ink.safetensors:0.8 --name ink
"""


def _axis(ctx: click.Context, param: click.Parameter, value: str | None) -> "AxisRange | None":
    """Read ``N``, one length in pixels, or ``MIN:OPT:MAX``, a range that is tuned at OPT."""
    from mezzotint.engines.manifest import AxisRange

    if value is None:
        return None
    parts = value.split(":")
    if len(parts) not in (1, 3) or not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"{value!r}: must be a number of pixels or MIN:OPT:MAX, such as 512 or 256:512:768")
    least, best, most = (int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    if not 1 <= least <= best <= most:
        raise click.BadParameter(f"{value!r}: must have 1 <= MIN <= OPT <= MAX")
    return AxisRange(min=least, opt=best, max=most)


def _precisions(ctx: click.Context, param: click.Parameter, value: str) -> dict[str, str]:
    """Read ``int8``, ``unet=int8,vae=fp32`` or ``bf16,vae=fp32``; the empty key is every other component's."""
    from mezzotint.compile.job import AUTO
    from mezzotint.engines.component import Precision, by_component

    try:
        found = {"": AUTO} | by_component(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if unknown := set(found.values()) - {AUTO, *Precision}:
        raise click.BadParameter(f"{min(unknown)!r} must be one of {', '.join([AUTO, *Precision])}")
    return found


def _loras(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> "tuple[LoraFile, ...]":
    """Read ``FILE`` or ``FILE:WEIGHT``; what is a path as it stands is one."""
    from mezzotint.compile.job import LoraFile

    found = []
    for value in values:
        file, colon, weight = value.rpartition(":")
        if not colon or Path(value).exists():
            found.append(LoraFile(Path(value)))
            continue
        try:
            found.append(LoraFile(Path(file), float(weight)))
        except ValueError:
            raise click.BadParameter(
                f"{value!r}: no such file, and after its colon {weight!r} must be a number such as 0.8"
            ) from None
    return tuple(found)


@click.command(epilog=_EPILOG)
@click.argument("source")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The bundle's folder; it is written last."
)
@click.option(
    "--backend",
    type=click.Choice(["openvino", "onnxruntime", "tensorrt"]),
    default="openvino",
    show_default=True,
    help="The runtime to build for. OpenVINO serves Intel and AMD CPUs; ONNX Runtime any execution provider; "
    "TensorRT builds for one kind of NVIDIA GPU, named by --compute-capability.",
)
@click.option(
    "--precision",
    callback=_precisions,
    metavar="P|COMPONENT=P,…",
    default="auto",
    show_default=True,
    help="auto, fp32, fp16, bf16, int8, int8-bf16, int8-hybrid, int8-weights, int4-weights or fp8, for all or by "
    "component (`unet=int8,vae=fp32`). auto builds what the device computes in and leaves fp32 only for what passes "
    "verification and is over 10 % faster here; fp32 is closest to the checkpoint. int8 rounds weights and "
    "activations, int8-bf16 too, with bfloat16 instead of float32 for all else, int8-hybrid the activations of "
    "convolutions alone, int8-weights none; int4-weights stores the UNet's linear layers in four bits (auto leaves the "
    "last and int8-hybrid out); fp8, for TensorRT alone, is as int8 with eight-bit floats (compute capability 8.9 on). "
    "TensorRT's auto is fp16, since nothing is timed without the GPU.",
)
@click.option(
    "--height",
    callback=_axis,
    metavar="N|MIN:OPT:MAX",
    help="Heights to build for, in pixels. [default: the checkpoint's own]",
)
@click.option(
    "--width",
    callback=_axis,
    metavar="N|MIN:OPT:MAX",
    help="Widths to build for, in pixels. [default: the checkpoint's own]",
)
@click.option(
    "--max-rows",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Most latents in one UNet call; a guided picture takes two. More lets busy servers batch more.",
)
@click.option(
    "--max-chunks",
    type=click.IntRange(1, 16),
    default=4,
    show_default=True,
    help="The longest prompts, in chunks of the text encoder's 75 tokens. Plain prompts cost nothing more, and each "
    "length is prepared when it is first asked for; 1 fixes the text axis of TensorRT's plans.",
)
@click.option(
    "--step-cache",
    is_flag=False,
    flag_value=0,
    type=click.IntRange(min=0),
    metavar="[BRANCH]",
    help="Build a second, shallow UNet that requests may call between full ones (DeepCache). BRANCH is how many more "
    "of its outer layers run: 0, the default, is fastest, each further one closer to the full UNet.",
)
@click.option(
    "--decoder-parts",
    type=click.IntRange(min=1),
    metavar="N",
    help="Cut the VAE decoder into N engines that are called in a row, with the same result; requests take turns "
    "between them. [default: as few as leave none longer than two guided UNet steps]",
)
@click.option(
    "--tiny-decoder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A diffusers folder of an AutoencoderTiny (TAESD) for this model: a second decoder, much faster and less "
    "exact, that requests may choose.",
)
@click.option(
    "--tile-decoder",
    is_flag=True,
    help="Build the VAE decoder a second time, for parts of pictures: the server then decodes pictures that it has no "
    "memory for as a whole in tiles of the bundle's default size (`serve --tiles-above`). Set it with a --height or "
    "--width well above that size.",
)
@click.option(
    "--with-safety-checker",
    is_flag=True,
    help="Compile the checkpoint's safety checker too: the server then looks at every picture, says which ones it "
    "flags, and blurs or refuses those where `serve --on-flagged` says so. It is one more engine (1.2 GB for SD 1.5).",
)
@click.option("--device", default="", help="The device to build for, by the runtime's name. [default: its CPU]")
@click.option(
    "--config",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A diffusers folder with the configs of a single-file checkpoint that is neither SD 1.5 nor 2.1.",
)
@click.option(
    "--lora",
    "loras",
    callback=_loras,
    multiple=True,
    metavar="FILE[:WEIGHT]",
    help="A LoRA that is merged into the checkpoint before anything else, as much of it as WEIGHT says (1, as it was "
    "trained, by default); repeat it for more. A file of diffusers, of kohya's scripts (A1111), or PEFT's with its "
    "adapter_config.json beside it, for UNet, text encoder or both. Requests cannot choose it then: compile a bundle "
    "for each, under a --name of its own.",
)
@click.option(
    "--base",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The bundle of the model that SOURCE was tuned from, compiled with the same cache. int8 then rounds over the "
    "ranges that were observed for it, if verification accepts that, and the bundle names it. Graphs and timings are "
    "reused without it. [default: what the checkpoint says of its base, if anything]",
)
@click.option(
    "--recalibrate",
    is_flag=True,
    help="Observe int8's ranges on SOURCE itself even where those of its base pass: slower to compile, closest to the "
    "checkpoint.",
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    help="A picture that verification paints, with torch and with the engines; repeat it for more. Name what your "
    "model was tuned for. [default: four plain ones]",
)
@click.option(
    "--calibration-prompts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text file of prompts, one a line, on whose pictures int8 learns the ranges of activations; about 16 that "
    "show what your model was tuned for. [default: 16 plain ones]",
)
@plan_options(required=False)
@click.option(
    "--onnx-only",
    is_flag=True,
    help="With --backend tensorrt: stop at the verified ONNX, which ONNX Runtime can serve too, and finish it on the "
    "GPU's machine with `mezzotint build`. For GPUs that plans cannot be built for ahead of time (A100, H100).",
)
@click.option("--name", default="", help="The name that clients ask for. [default: the checkpoint's]")
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where finished stages are kept for the next compile. [default: in the user's cache folder]",
)
def command(
    source: str,
    output: Path,
    backend: str,
    precision: dict[str, str],
    height: "AxisRange | None",
    width: "AxisRange | None",
    max_rows: int,
    max_chunks: int,
    step_cache: int | None,
    decoder_parts: int | None,
    tiny_decoder: Path | None,
    tile_decoder: bool,
    with_safety_checker: bool,
    device: str,
    config: Path | None,
    loras: "tuple[LoraFile, ...]",
    base: Path | None,
    recalibrate: bool,
    prompts: tuple[str, ...],
    calibration_prompts: Path | None,
    compute_capability: str | None,
    workspace: int,
    onnx_only: bool,
    name: str,
    cache: Path | None,
) -> None:
    """Compile SOURCE, a diffusers folder or a .safetensors or .ckpt file, into a bundle.

    Every stage is reused when nothing that it depends on has changed; the bundle is compared with the checkpoint
    before it is written, and a killed compile leaves none.
    """
    if (onnx_only or compute_capability) and backend != "tensorrt":
        raise click.UsageError("--onnx-only and --compute-capability are for --backend tensorrt")
    if backend == "tensorrt" and not onnx_only and not compute_capability:
        raise click.UsageError("--backend tensorrt needs --compute-capability, such as 8.9, or --onnx-only")
    from mezzotint.cli.progress import CompileProgress, quiet_libraries

    quiet_libraries()
    from mezzotint.compile.job import DEFAULT_PROMPTS, CompileJob, read_prompts
    from mezzotint.compile.pipeline import compile_checkpoint
    from mezzotint.engines.bundle import cache_folder

    job = CompileJob(
        source=source,
        output=output,
        cache=cache or cache_folder() / "compile",
        backend=backend,
        precision=precision,
        height=height,
        width=width,
        max_rows=max_rows,
        max_chunks=max_chunks,
        step_cache=step_cache,
        decoder_parts=decoder_parts or 0,
        tiny_decoder=tiny_decoder,
        tile_decoder=tile_decoder,
        with_safety_checker=with_safety_checker,
        config=config,
        loras=loras,
        base=base,
        recalibrate=recalibrate,
        name=name,
        device=device,
        prompts=prompts or DEFAULT_PROMPTS,
        calibration_prompts=read_prompts(calibration_prompts) if calibration_prompts else (),
    )
    with CompileProgress() as progress:
        if backend != "tensorrt" or onnx_only:
            bundle = compile_checkpoint(job, progress.report)
        else:
            from mezzotint.compile.tensorrt.compiled import compile_plans

            bundle = compile_plans(job, plan_target(compute_capability, workspace), progress.report)
    if onnx_only:
        click.echo(f"{bundle}: verified ONNX; finish it on the GPU's machine with `mezzotint build {bundle} …`")
        return
    click.echo(f"{bundle}: compiled; serve it with `mezzotint serve {bundle}`")
