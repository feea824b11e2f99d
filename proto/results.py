"""Events and results out of messages, for both clients. Imports the stubs; numpy and Pillow only where asked for."""

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import grpc

from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.errors import MezzotintClientError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

FORMATS = {
    "png": pb.IMAGE_FORMAT_PNG,
    "jpeg": pb.IMAGE_FORMAT_JPEG,
    "jpg": pb.IMAGE_FORMAT_JPEG,
    "webp": pb.IMAGE_FORMAT_WEBP,
}
"""The picture formats by the names that the client takes."""

_STATES = {
    pb.MODEL_STATE_LOADING: "loading",
    pb.MODEL_STATE_UNLOADING: "unloading",
    pb.MODEL_STATE_UNAVAILABLE: "unavailable",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server has taken the request in; ``queue_position`` pictures wait before its first.

    If nobody else comes it will begin in ``start_in_ms`` and be done in ``finish_in_ms``; None where the server does
    not say.
    """

    request_id: str
    seeds: tuple[int, ...]
    steps: int
    queue_position: int
    warnings: tuple[str, ...]
    start_in_ms: float | None = None
    finish_in_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of one picture is done; ``preview`` is a small JPEG file, or empty.

    If nobody else comes the picture will be done in ``finish_in_ms``; None where the server does not say.
    """

    image_index: int
    step: int
    steps: int
    preview: bytes = field(repr=False)
    finish_in_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Where one picture's time went; a call that several pictures share counts in full for each."""

    queue_ms: float
    encode_ms: float
    denoise_ms: float
    decode_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture: ``data`` is its file, ``latents`` the message's Tensor if they were asked for.

    ``flagged`` is what the bundle's safety checker says of it; None where it has none and nothing looked.
    """

    image_index: int
    seed: int
    data: bytes = field(repr=False)
    format: str
    width: int
    height: int
    engine_digest: str
    timings: Timings
    tensor: pb.Tensor | None = field(default=None, repr=False, compare=False)
    flagged: bool | None = None

    @property
    def latents(self) -> "npt.NDArray[np.float32] | None":
        """float32 [C, h, w], if they were asked for."""
        if self.tensor is None:
            return None
        import numpy as np

        return np.frombuffer(self.tensor.data, dtype="<f4").reshape(tuple(self.tensor.shape)).astype(np.float32)

    def open(self) -> "Image.Image":
        """Return the picture as Pillow's."""
        from PIL import Image

        picture = Image.open(io.BytesIO(self.data))
        picture.load()
        return picture


Event: TypeAlias = Accepted | Progress | Picture


@dataclass(frozen=True, slots=True)
class Result:
    """All pictures of one request, in their order."""

    request_id: str
    pictures: tuple[Picture, ...]
    warnings: tuple[str, ...]

    @property
    def images(self) -> "list[Image.Image]":
        """The pictures as Pillow's."""
        return [picture.open() for picture in self.pictures]

    @property
    def files(self) -> list[bytes]:
        """The pictures' files, with their parameters inside."""
        return [picture.data for picture in self.pictures]

    @property
    def seeds(self) -> list[int]:
        """Each picture's own seed."""
        return [picture.seed for picture in self.pictures]

    @property
    def timings(self) -> list[Timings]:
        """Where each picture's time went."""
        return [picture.timings for picture in self.pictures]


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Pixels that a bundle was built for along one side."""

    min: int
    default: int
    max: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """One compiled component of a bundle; ``variant`` is ``full``, ``shallow``, ``part1``, … or ``tiny``."""

    component: str
    variant: str
    precision: str
    backend: str
    device: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A version of a served bundle, named by its digest, and what it was built for.

    ``state`` is ``ready``, ``loading``, ``unloading`` or ``unavailable``; ``reason`` may say why it is not ready.
    """

    name: str
    digest: str
    family: str
    width: SizeRange
    height: SizeRange
    size_multiple: int
    max_rows: int
    samplers: tuple[str, ...]
    default_sampler: str
    max_tokens: int
    engines: tuple[EngineInfo, ...]
    state: str = "ready"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A bundle that the server has loaded, and the digest of the version that it replaced, if there was one."""

    model: ModelInfo
    replaced_digest: str


def event_of(message: pb.GenerateEvent) -> Event | None:
    """Return the event in a message; None for a kind that a newer server knows and this client does not."""
    match message.WhichOneof("event"):
        case "accepted":
            accepted = message.accepted
            return Accepted(
                accepted.request_id,
                tuple(accepted.seeds),
                accepted.steps,
                accepted.queue_position,
                tuple(accepted.warnings),
                accepted.start_in_ms if accepted.HasField("start_in_ms") else None,
                accepted.finish_in_ms if accepted.HasField("finish_in_ms") else None,
            )
        case "progress":
            progress = message.progress
            finish = progress.finish_in_ms if progress.HasField("finish_in_ms") else None
            return Progress(progress.image_index, progress.step, progress.steps, progress.preview.data, finish)
        case "image":
            return _picture_of(message.image)
    return None


def model_of(message: pb.ModelInfo) -> ModelInfo:
    """Return a message's bundle."""
    return ModelInfo(
        name=message.name,
        digest=message.digest,
        family=message.family,
        width=SizeRange(message.width.min, message.width.default, message.width.max),
        height=SizeRange(message.height.min, message.height.default, message.height.max),
        size_multiple=message.size_multiple,
        max_rows=message.max_rows,
        samplers=tuple(message.samplers),
        default_sampler=message.default_sampler,
        max_tokens=message.max_tokens,
        engines=tuple(EngineInfo(e.component, e.variant, e.precision, e.backend, e.device) for e in message.engines),
        state=_STATES.get(message.state, "ready"),  # a server that says none lists what is ready alone
        reason=message.reason,
    )


def loaded_of(message: pb.LoadModelResponse) -> LoadedModel:
    """Return what a message says was loaded."""
    return LoadedModel(model_of(message.model), message.replaced_digest)


class Collector:
    """Gathers a request's events into its result."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._warnings: tuple[str, ...] = ()
        self._num_images = 0
        self._pictures: dict[int, Picture] = {}

    def add(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Accepted):
            self._warnings, self._num_images = event.warnings, len(event.seeds)
        elif isinstance(event, Picture):
            self._pictures[event.image_index] = event

    def result(self) -> Result:
        """Return the result at the stream's end. Raises MezzotintClientError where pictures are missing."""
        if not self._num_images or len(self._pictures) != self._num_images:
            raise MezzotintClientError(
                grpc.StatusCode.INTERNAL,
                f"the stream ended after {len(self._pictures)} of {self._num_images} pictures; send the request again",
                request_id=self._request_id,
            )
        pictures = tuple(picture for _, picture in sorted(self._pictures.items()))
        return Result(self._request_id, pictures, self._warnings)


def _picture_of(image: pb.ImageResult) -> Picture:
    spent = image.timings
    return Picture(
        image_index=image.image_index,
        seed=image.seed,
        data=image.data,
        format=next((name for name, code in FORMATS.items() if code == image.format), "png"),
        width=image.width,
        height=image.height,
        engine_digest=image.engine_digest,
        timings=Timings(spent.queue_ms, spent.encode_ms, spent.denoise_ms, spent.decode_ms, spent.total_ms),
        tensor=image.latents if image.HasField("latents") else None,
        flagged=image.flagged if image.HasField("flagged") else None,
    )
