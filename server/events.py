"""What a request's caller hears: accepted, progress and pictures, and one ending. Knows no wire."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mezzotint.engines.image import Stage


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is in the queue, behind ``queue_position`` pictures; ``seeds`` are its pictures' own.

    If nobody else comes it will begin in ``start_in_ms`` and be done in ``finish_in_ms``.
    """

    request_id: str
    seeds: tuple[int, ...]
    steps: int
    queue_position: int
    warnings: tuple[str, ...]
    start_in_ms: float
    finish_in_ms: float


@dataclass(frozen=True, slots=True)
class Preview:
    """A small JPEG file of a picture in the making."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of one picture is done; if nobody else comes it will be finished in ``finish_in_ms``."""

    image_index: int
    step: int
    steps: int
    preview: Preview | None
    finish_in_ms: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where one picture's time went; a call that several pictures share counts in full for each."""

    queue_ms: float
    encode_ms: float
    denoise_ms: float
    decode_ms: float
    total_ms: float

    @property
    def stage_ms(self) -> Mapping[Stage, float]:
        """Those of its engine calls, by stage."""
        return {Stage.ENCODE: self.encode_ms, Stage.DENOISE: self.denoise_ms, Stage.DECODE: self.decode_ms}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A finished picture: its file, and its latents float32 [C, height, width] if they were asked for.

    ``flagged`` is what the bundle's safety checker says of it; None where it has none.
    """

    image_index: int
    seed: int
    data: bytes
    format: str
    width: int
    height: int
    digest: str
    latents: npt.NDArray[np.float32] | None
    timings: Timings
    flagged: bool | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The ending of a request whose pictures are all there."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The ending of any other request."""

    error: Exception


Event: TypeAlias = Accepted | Progress | Picture | Finished | Failed
