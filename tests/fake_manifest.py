"""The manifest of a bundle that has no files: 32 to 64 pixels, eight rows, eight tokens."""

import itertools

from mezzotint.engines.canvas import MASK, MASKED
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.manifest import (
    INNER,
    STATISTICS,
    AxisRange,
    EngineEntry,
    LatentEntry,
    Manifest,
    SafetyEntry,
    ScheduleEntry,
    SourceEntry,
    TensorSpec,
    TextEntry,
)
from mezzotint.engines.safety import CLIP_PIXELS, CONCEPT_SCORES, SPECIAL_SCORES
from mezzotint.engines.schedule import Prediction, Spacing
from mezzotint.engines.variants import FULL, SHALLOW, TILE, TINY

WIDTH, TOKENS, CHANNELS, FEATURES, FACTOR = 4, 8, 4, 2, 4
MAX_ROWS = 8
SIDE, PIXELS = AxisRange(min=8, opt=8, max=16), AxisRange(min=32, opt=32, max=64)
AXES = {
    "rows": AxisRange(min=1, opt=2, max=MAX_ROWS),
    "tokens": AxisRange(min=TOKENS, opt=TOKENS, max=3 * TOKENS),
    **{"height": SIDE, "width": SIDE, "pixel_height": PIXELS, "pixel_width": PIXELS},
}


def fake_manifest(
    name: str = "fake",
    *,
    step_cache: bool = False,
    cut_decoder: bool = False,
    tiny_decoder: bool = False,
    tile_decoder: bool = False,
    safety_checker: bool = False,
    vae_encoder: bool = False,
    fills_in: bool = False,
) -> Manifest:
    """Return a manifest with or without a shallow UNet, with a decoder that is whole or cut.

    There may be a tiny one beside it, and one for tiles.
    With ``safety_checker`` there is one that flags pictures brighter than a middle grey, with ``vae_encoder`` one that
    initial pictures go through, and with ``fills_in`` the UNet takes a mask and what it leaves of them.
    """
    decoders = decoder_parts() if cut_decoder else [whole_decoder(FULL)]
    decoders += [whole_decoder(TINY)] if tiny_decoder else []
    decoders += [decoder_for_tiles()] if tile_decoder else []
    others = ([checker()] if safety_checker else []) + ([encoder()] if vae_encoder else [])
    return Manifest(
        name=name,
        family="stable-diffusion",
        compiled_by="tests",
        source=SourceEntry(name=name, digest="0" * 64),
        engines=(text_encoder(), *unets(step_cache=step_cache, fills_in=fills_in), *decoders, *others),
        schedule=SCHEDULE,
        latents=LATENTS,
        text=TEXT,
        verified=(),
        safety=SAFETY if safety_checker else None,
    )


def text_encoder() -> EngineEntry:
    embeddings = spec("embeddings", "embeddings", "rows", TOKENS, WIDTH)
    return entry(Component.TEXT_ENCODER, FULL, (embeddings,), spec("states", "text", "rows", 1, TOKENS, WIDTH))


def unets(*, step_cache: bool, fills_in: bool = False) -> list[EngineEntry]:
    inputs: tuple[TensorSpec, ...] = (
        latents("sample"),
        spec("timestep", "timestep", "rows"),
        spec("text", "text", "rows", "tokens", WIDTH),
    )
    if fills_in:
        channels = {MASK: 1, MASKED: CHANNELS}
        inputs += tuple(spec(name, name, "rows", num, "height", "width") for name, num in channels.items())
    if not step_cache:
        return [entry(Component.UNET, FULL, inputs, latents("output"))]
    feature = spec("feature", "feature", "rows", FEATURES, "height", "width")
    return [
        entry(Component.UNET, FULL, inputs, latents("output"), feature),
        entry(Component.UNET, SHALLOW, (*inputs, feature), latents("output")),
    ]


def decoder_parts() -> list[EngineEntry]:
    """Three parts of the whole decoder: one colours, one makes it taller and one wider."""
    coloured = spec("coloured", "hidden", "rows", 3, "height", "width")
    taller = spec("taller", "hidden", "rows", 3, "pixel_height", "width")
    ends = [latents("latents"), coloured, taller, pixels()]
    return [
        entry(Component.VAE_DECODER, f"part{i}", (given,), made)
        for i, (given, made) in enumerate(itertools.pairwise(ends), 1)
    ]


def checker() -> EngineEntry:
    given = spec(CLIP_PIXELS, "image", "rows", 3, SAFETY.crop, SAFETY.crop)
    scores = [spec(name, name, "rows", 1) for name in (SPECIAL_SCORES, CONCEPT_SCORES)]
    return entry(Component.SAFETY_CHECKER, FULL, (given,), *scores)


def encoder() -> EngineEntry:
    moments = spec("moments", "moments", "rows", 2 * CHANNELS, "height", "width")
    return entry(Component.VAE_ENCODER, FULL, (pixels(),), moments)


def whole_decoder(variant: str) -> EngineEntry:
    return entry(Component.VAE_DECODER, variant, (latents("latents"),), pixels())


def decoder_for_tiles() -> EngineEntry:
    given, made = (spec(name, STATISTICS, "rows", 2, 1) for name in ("given", STATISTICS))
    inner = spec(INNER, INNER, "rows", 1)
    return entry(Component.VAE_DECODER, TILE, (latents("latents"), given, inner), pixels(), made)


def entry(component: Component, variant: str, inputs: tuple[TensorSpec, ...], *outputs: TensorSpec) -> EngineEntry:
    return EngineEntry(
        component=component,
        variant=variant,
        backend="fake",
        backend_version="1",
        device="FAKE",
        precision=Precision.FP32,
        files={},
        inputs=inputs,
        outputs=outputs,
        axes=AXES,
        row_classes=((1, 2, 4, 8),),
    )


def latents(name: str) -> TensorSpec:
    return spec(name, "latents", "rows", CHANNELS, "height", "width")


def pixels() -> TensorSpec:
    return spec("pixels", "pixels", "rows", 3, "pixel_height", "pixel_width")


def spec(name: str, role: str, *axes: int | str) -> TensorSpec:
    return TensorSpec(name=name, role=role, dtype="float32", axes=axes)


SCHEDULE = ScheduleEntry(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    trained_betas=None,
    prediction_type=Prediction.EPSILON,
    timestep_spacing=Spacing.LEADING,
    steps_offset=1,
    set_alpha_to_one=False,
    rescale_betas_zero_snr=False,
    default_sampler="ddim",
)
LATENTS = LatentEntry(
    channels=CHANNELS,
    factor=FACTOR,
    scaling=1.0,
    size_multiple=8,
    default_height=32,
    default_width=32,
    preview=((0.2, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.2), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)),
)
SAFETY = SafetyEntry(shortest_edge=8, crop=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
TEXT = TextEntry(
    tokenizer="tokenizer.json",
    embeddings="embeddings.npy",
    max_tokens=TOKENS,
    width=WIDTH,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=1,
    files={},
)
