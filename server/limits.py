"""What one request may ask of this server, beside what its bundle can do. Pure; imports engines alone."""

from dataclasses import dataclass, fields

from mezzotint.engines.errors import InvalidRequest, MezzotintError
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.request import Request, final_size_of

_MAX_LENGTHS = dict.fromkeys(("sampler", "sigmas", "spacing", "decoder", "resize_mode", "hires_upscaler"), 256)
_MAX_LENGTHS |= dict.fromkeys(("custom_sigmas", "cache_schedule"), 4096)


def check_lengths(request: Request) -> None:
    """Refuse names and lists that no request needs, before anything looks into them. Raises InvalidRequest."""
    for field in _MAX_LENGTHS:
        owner = next(group for group in (request, request.start, request.hires) if hasattr(group, field))
        check_length(field, len(getattr(owner, field)))


def check_length(field: str, length: int) -> None:
    """Refuse a name or a list of a request by its length. Raises InvalidRequest."""
    most = _MAX_LENGTHS[field]
    if length > most:
        raise InvalidRequest(f"{field}: has a length of {length}; the limit is {most}, shorten it")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The most that a request may ask for; None is whatever its bundle can do.

    Attributes:
        max_steps: denoising steps, of both walks where hires fix makes two.
        max_pixels: of one picture, width × height, in the end.
        max_images: pictures.
    """

    max_steps: int | None = None
    max_pixels: int | None = None
    max_images: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            most = getattr(self, field.name)
            if most is not None and most < 1:
                raise MezzotintError(f"{field.name}={most}: must be at least 1")

    def check(self, request: Request, manifest: Manifest) -> None:
        """Refuse a request that asks for more, before anything is done for it. Raises InvalidRequest."""
        height, width = final_size_of(request, manifest)
        steps = request.steps + (request.hires.num_made(request.steps) if request.hires else 0)
        asked = (
            (f"steps={steps}", steps, self.max_steps, "steps"),
            (f"width × height = {width} × {height}", width * height, self.max_pixels, "pixels a picture"),
            (f"num_images={request.num_images}", request.num_images, self.max_images, "pictures a request"),
        )
        for what, amount, most, unit in asked:
            if most is not None and amount > most:
                raise InvalidRequest(f"{what}: this server allows at most {most} {unit}; ask for fewer")
