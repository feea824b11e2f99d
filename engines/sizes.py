"""What an engine's call depends on beside its rows: picture size and tokens. Imports the manifest alone."""

from typing import NamedTuple

from mezzotint.engines.manifest import EngineEntry, Manifest

_ROWS = "rows"


class Size(NamedTuple):
    """Latent rows and columns, and tokens; 0 of what an engine's inputs do not have."""

    height: int
    width: int
    tokens: int

    @property
    def area(self) -> int:
        """Latent pixels; 1 of an engine that sees none."""
        return max(1, self.height) * max(1, self.width)

    def __str__(self) -> str:
        return "x".join(map(str, self))


def parse_size(text: str) -> Size:
    """Read what ``str`` gives. Raises ValueError."""
    height, width, tokens = map(int, text.split("x"))
    if min(height, width, tokens) < 0:
        raise ValueError(f"{text!r} has a negative length")
    return Size(height, width, tokens)


def own_size(manifest: Manifest) -> Size:
    """Return the size that a bundle's engines were tuned at."""
    latents = manifest.latents
    height, width = latents.default_height // latents.factor, latents.default_width // latents.factor
    return Size(height, width, manifest.text.max_tokens)


def size_of_engine(entry: EngineEntry, size: Size) -> Size:
    """Return the lengths of a size that an engine's inputs have."""
    axes = {axis for tensor in entry.inputs for axis in tensor.axes if isinstance(axis, str)}
    return Size(*(length if any(name in axis for axis in axes) else 0 for name, length in size._asdict().items()))


def axis_lengths(entry: EngineEntry, size: Size, own: Size) -> dict[str, int]:
    """Return the length of each named axis but the rows: those of ``own`` are the ones that it was tuned at."""
    lengths = {}
    for axis, built in entry.axes.items():
        name = next((field for field in Size._fields if field in axis), None)
        if name is not None and axis != _ROWS:
            lengths[axis] = built.opt * getattr(size, name) // getattr(own, name)
    return lengths
