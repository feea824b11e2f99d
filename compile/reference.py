"""What torch makes of a few prompts: the truth that engines are verified against, recorded once per checkpoint.

The pipeline is diffusers' own, untouched: nothing of ours is in the reference but the request.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import PIL.Image
import torch

from mezzotint.compile.checkpoint import Checkpoint
from mezzotint.compile.export import part
from mezzotint.engines import guidance
from mezzotint.engines.canvas import MASK, MASKED
from mezzotint.engines.component import Component
from mezzotint.engines.errors import CompileError

NUM_STEPS = 10
GUIDANCE = 5.0
FIRST_SEED = 1000
FILE = "reference.npz"

Arrays = dict[str, npt.NDArray[Any]]


def record(
    checkpoint: Checkpoint,
    prompts: tuple[str, ...],
    height: int,
    width: int,
    progress: Callable[[float], None],
    feature_module: str = "",
) -> Arrays:
    """Paint the prompts with diffusers' DDIM and keep the inputs and outputs of every component on the way.

    Returns arrays named ``component/tensor``: the UNet's [NUM_STEPS, rows, …], the others' [rows, …]; and ``images``,
    uint8 [prompts, H, W, 3], and ``latents``, float32 [prompts, C, h, w], the final samples. The UNet's ``feature`` is
    among them where the path of the module that gives it is. Raises CompileError where any is not finite.
    """
    pipeline = checkpoint.pipeline()
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    features: list[npt.NDArray[Any]] = []

    def keep_feature(_module: Any, _args: Any, output: Any) -> None:
        features.append(_numpy(output[0] if isinstance(output, tuple) else output))

    hooks = []
    if feature_module:
        hooks.append(checkpoint.unet.get_submodule(feature_module).register_forward_hook(keep_feature))
    try:
        with recorded_calls(checkpoint, lambda num: progress(num / NUM_STEPS)) as calls:
            final = final_latents(pipeline, prompts, (height, width), NUM_STEPS, GUIDANCE, FIRST_SEED)
    finally:
        for hook in hooks:
            hook.remove()
    arrays = {f"unet/{name}": np.stack([call[name] for call in calls]) for name in calls[0]}
    if features:
        arrays["unet/feature"] = np.stack(features)
    arrays["latents"] = _numpy(final)
    arrays |= _components(checkpoint, prompts, final)
    pixels = arrays["vae_decoder/pixels"].transpose(0, 2, 3, 1)
    _check_finite(checkpoint, arrays)
    arrays["images"] = (np.clip(pixels / 2 + 0.5, 0, 1) * 255).round().astype(np.uint8)
    return arrays


def final_latents(
    pipeline: Any,
    prompts: Sequence[str],
    size: tuple[int, int],
    steps: int,
    guidance: float,
    first_seed: int,
    share_kept: float = 0.0,
) -> torch.Tensor:
    """Run a diffusers pipeline; returns its final samples, float32 [prompts, C, h, w], of ``first_seed`` and on.

    ``size`` is (height, width) in pixels. One that inpaints keeps the upper ``share_kept`` of a grey ramp.
    """
    height, width = size
    start: dict[str, Any] = {}
    if isinstance(pipeline, diffusers.StableDiffusionInpaintPipeline):
        ramp = PIL.Image.linear_gradient("L").resize((width, height)).convert("RGB")
        mask = PIL.Image.new("L", (width, height), "white")
        mask.paste("black", (0, 0, width, round(share_kept * height)))
        start = {"image": [ramp] * len(prompts), "mask_image": mask, "strength": 1.0}
    final: torch.Tensor = pipeline(
        list(prompts),
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(first_seed + i) for i in range(len(prompts))],
        output_type="latent",
        **start,
    ).images
    return final


@contextmanager
def recorded_calls(checkpoint: Checkpoint, step: Callable[[int], None]) -> Iterator[list[Arrays]]:
    """Collect the inputs and the output of every UNet call while it is entered; ``step`` hears their number."""
    calls: list[Arrays] = []

    def keep(_module: Any, args: Any, kwargs: Any, output: Any) -> None:
        sample, timestep = args
        parts = (sample,)
        if checkpoint.fills_in:
            parts = sample.split((output[0].shape[1], 1, output[0].shape[1]), dim=1)
        calls.append(
            {
                **{name: _numpy(part) for name, part in zip(("sample", MASK, MASKED), parts, strict=False)},
                "timestep": np.full(sample.shape[0], float(timestep), np.float32),
                "text": _numpy(kwargs["encoder_hidden_states"]),
                "output": _numpy(output[0]),
            }
        )
        if kwargs.get("timestep_cond") is not None:
            calls[-1][guidance.GUIDANCE] = _numpy(kwargs["timestep_cond"])
        step(len(calls))

    hook = checkpoint.unet.register_forward_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def write(arrays: Arrays, folder: Path) -> None:
    """Keep the recorded arrays."""
    np.savez(folder / FILE, allow_pickle=False, **arrays)


def read(folder: Path) -> Arrays:
    """Read what ``write`` kept."""
    with np.load(folder / FILE, allow_pickle=False) as file:
        return dict(file)


def preview_fit(arrays: Arrays) -> tuple[tuple[float, float, float], ...]:
    """Fit RGB in 0…1 = (latents, 1) · fit to the decoder by least squares: float [channels + 1, 3]."""
    latents, pixels = arrays["latents"], arrays["vae_decoder/pixels"]
    num, channels, height, width = latents.shape
    factor = pixels.shape[-1] // width
    small = pixels.reshape(num, 3, height, factor, width, factor).mean(axis=(3, 5)) / 2 + 0.5
    known = latents.transpose(0, 2, 3, 1).reshape(-1, channels)
    known = np.concatenate([known, np.ones((len(known), 1), known.dtype)], axis=1)
    fit = np.linalg.lstsq(known, small.transpose(0, 2, 3, 1).reshape(-1, 3), rcond=None)[0]
    return tuple((float(r), float(g), float(b)) for r, g, b in np.round(fit.astype(np.float64), 6))


def _components(checkpoint: Checkpoint, prompts: tuple[str, ...], final: torch.Tensor) -> Arrays:
    """Run text encoder, VAE decoder and VAE encoder on the prompts and the final latents."""
    vae = checkpoint.vae.config
    ids = checkpoint.tokenizer(
        ["", *prompts], padding="max_length", max_length=checkpoint.max_tokens, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        embeddings = checkpoint.text_encoder.get_input_embeddings()(ids)
        latents = final / vae.scaling_factor + (vae.shift_factor or 0.0)
        states = part(checkpoint, Component.TEXT_ENCODER).module(embeddings)
        pixels = part(checkpoint, Component.VAE_DECODER).module(latents)
        moments = part(checkpoint, Component.VAE_ENCODER).module(pixels.clamp(-1, 1))
    return {
        "text_encoder/embeddings": _numpy(embeddings),
        "text_encoder/states": _numpy(states),
        "vae_decoder/latents": _numpy(latents),
        "vae_decoder/pixels": _numpy(pixels),
        "vae_encoder/pixels": _numpy(pixels.clamp(-1, 1)),
        "vae_encoder/moments": _numpy(moments),
    }


def _check_finite(checkpoint: Checkpoint, arrays: Arrays) -> None:
    """Refuse what no engine can be compared with. Raises CompileError."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CompileError(
                f"{checkpoint.source}: torch itself makes NaN or infinity of the prompts ({name}), expected finite "
                "numbers; its weights are damaged or overflow, take another checkpoint"
            )


def _numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    return np.array(tensor.detach())
