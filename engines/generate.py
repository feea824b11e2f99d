"""The server's loop without a server: all pictures of some requests, made in the calling thread."""

from mezzotint.engines import guidance
from mezzotint.engines.batch import Batch
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.variants import FULL


def generate(model: Model, requests: list[Request], *, together: bool = True) -> list[list[Image]]:
    """Make all pictures of the requests in this thread: the server's loop without a server.

    Images that can share a call do, up to the model's row limit; ``together=False`` makes them one by one.
    """
    made = [list(model.start(request)) for request in requests]
    open_images = [image for images in made for image in images]
    while open_images:
        head = _next(model, open_images, together)
        most = model.max_rows[head.variant] if head.stage is Stage.DENOISE and together else 0
        images: list[Image] = []
        for image in open_images:
            fits = image is head or sum(i.num_rows for i in images) + image.num_rows <= most
            if image.signature == head.signature and fits:
                images.append(image)
        run_call(model, Batch(tuple(images)))
        open_images = [image for image in open_images if image.stage is not Stage.DONE]
    return made


def _next(model: Model, images: list[Image], together: bool) -> Image:
    """Return the image whose call is next: a new one as long as the UNet's calls have room for it, else the first."""
    started = [image for image in images if image.stage is not Stage.ENCODE]
    new = [image for image in images if image.stage is Stage.ENCODE]
    room = model.max_rows[FULL] - sum(image.num_rows for image in started) if together else 0
    return new[0] if new and (not started or new[0].num_rows <= room) else started[0]


def run_call(model: Model, batch: Batch) -> None:
    """Make the call that a batch waits for."""
    match batch.stage:
        case Stage.ENCODE:
            model.encode(batch)
        case Stage.DENOISE:
            batch.advance(guidance.combine(model.denoise(batch), batch.weights))
        case _:
            model.decode(batch)
