"""The sizes that a bundle is built for: all of them from the checkpoint's own files and the job."""

from collections.abc import Mapping

from mezzotint.compile.checkpoint import Checkpoint
from mezzotint.compile.export import latent_factor, latent_multiple
from mezzotint.compile.job import CompileJob
from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.manifest import AxisRange, LatentEntry

SIDES = ("height", "width")


def pixel_ranges(job: CompileJob, checkpoint: Checkpoint) -> dict[str, AxisRange]:
    """Return the pixels to build for along each side; the checkpoint's own size where the job names none.

    Raises InvalidRequest where a length is no multiple of what the model can take.
    """
    factor = latent_factor(checkpoint)
    multiple = factor * latent_multiple(checkpoint)
    own = checkpoint.unet.config.sample_size
    own_height, own_width = (own, own) if isinstance(own, int) else own
    ranges = {}
    for side, latent in zip(SIDES, (own_height, own_width), strict=True):
        pixels = latent * factor
        asked = job.height if side == "height" else job.width
        ranges[side] = asked or AxisRange(min=pixels, opt=pixels, max=pixels)
        for length in (ranges[side].min, ranges[side].opt, ranges[side].max):
            if length % multiple:
                raise InvalidRequest(f"{side}={length}: must be a multiple of {multiple} for {checkpoint.name}")
        if not ranges[side].min <= ranges[side].opt <= ranges[side].max:
            raise InvalidRequest(f"{side}: {ranges[side]} must rise from min over opt to max")
    return ranges


def latent_entry(
    checkpoint: Checkpoint, ranges: Mapping[str, AxisRange], preview: tuple[tuple[float, float, float], ...]
) -> LatentEntry:
    """Return what the manifest says of the latent space."""
    config = checkpoint.vae.config
    factor = latent_factor(checkpoint)
    return LatentEntry(
        channels=config.latent_channels,
        factor=factor,
        scaling=config.scaling_factor,
        shift=config.shift_factor or 0.0,
        size_multiple=factor * latent_multiple(checkpoint),
        default_height=ranges["height"].opt,
        default_width=ranges["width"].opt,
        preview=preview,
    )


def row_axis(max_rows: int) -> AxisRange:
    """Return the range of an engine's rows; it is tuned at those of a guided picture."""
    return AxisRange(min=1, opt=min(2, max_rows), max=max_rows)


def engine_axes(
    checkpoint: Checkpoint,
    ranges: Mapping[str, AxisRange],
    max_rows: int,
    component: Component,
    max_chunks: int = 1,
) -> dict[str, AxisRange]:
    """Return the ranges of one engine's named axes; it is tuned at prompts of one chunk."""
    factor = latent_factor(checkpoint)
    axes = {"rows": row_axis(max_rows)}
    latent = {
        side: AxisRange(min=r.min // factor, opt=r.opt // factor, max=r.max // factor) for side, r in ranges.items()
    }
    match component:
        case Component.TEXT_ENCODER:
            return axes
        case Component.UNET:
            tokens = checkpoint.max_tokens
            return axes | latent | {"tokens": AxisRange(min=tokens, opt=tokens, max=tokens * max_chunks)}
        case _:
            return axes | latent | {f"pixel_{side}": r for side, r in ranges.items()}
