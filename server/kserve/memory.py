"""Regions of system shared memory that clients of this machine register, to hand arrays over beside their messages.

They are read and written as files, never mapped: a client that shortens one cannot take the server down by it. POSIX
keeps them under ``/dev/shm``, where nothing but a plain file directly below is taken.
"""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mezzotint.engines.errors import InvalidRequest, ModelNotFound, RequestIdTaken, Unsupported

_ROOT = Path("/dev/shm")
_MAX_REGIONS = 1024
_OPEN = os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a shared memory object; ``offset`` and ``num_bytes`` are as it was registered."""

    name: str
    key: str
    offset: int
    num_bytes: int
    file: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lies: in a region, from ``offset`` on, at most ``num_bytes``."""

    region: str
    offset: int
    num_bytes: int


class Regions:
    """The regions that are registered.

    Args:
        is_open: whether there may be any.
        max_bytes: of one array that is read.
    """

    def __init__(self, *, is_open: bool, max_bytes: int) -> None:
        self.is_open = is_open
        self._max_bytes = max_bytes
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, num_bytes: int, *, is_local: bool) -> None:
        """Take a region in.

        Args:
            name: what requests call it.
            key: that of the shared memory object, as of ``shm_open``.
            offset: bytes from its beginning, as ``num_bytes``.
            num_bytes: its length.
            is_local: whether the caller is on this machine.

        Raises:
            Unsupported: the server takes none, or not from there.
            RequestIdTaken: there is one of that name.
            InvalidRequest: there is no such object, or it is too short.
        """
        if not self.is_open:
            raise Unsupported("shared memory: this server takes none; start it with `--shared-memory`, or send bytes")
        if not is_local:
            raise Unsupported("shared memory: only clients on the server's own machine can have it; send bytes")
        if name in self._regions:
            raise RequestIdTaken(f"shared memory region {name[:80]!r}: is registered; unregister it first")
        if not name or len(self._regions) >= _MAX_REGIONS:
            raise InvalidRequest(f"shared memory: needs a name, and at most {_MAX_REGIONS} are taken; unregister some")
        file = _open(key)
        if os.fstat(file).st_size < offset + num_bytes:
            os.close(file)
            raise InvalidRequest(
                f"shared memory region {name[:80]!r}: ends at {offset + num_bytes} bytes; its object is shorter"
            )
        self._regions[name] = Region(name, key, offset, num_bytes, file)

    def unregister(self, name: str) -> None:
        """Forget a region, or all where the name is empty; one that is not there is forgotten already."""
        for region in [self._regions.pop(each) for each in tuple(self._regions) if name in ("", each)]:
            os.close(region.file)

    def status(self, name: str) -> Mapping[str, Region]:
        """Return a region, or all where the name is empty. Raises ModelNotFound."""
        if not name:
            return dict(self._regions)
        return {name: self._find(name)}

    def check(self, what: str, place: Place) -> None:
        """Refuse a place that is not inside its region. Raises InvalidRequest, ModelNotFound."""
        region = self._find(place.region)
        if min(place.offset, place.num_bytes) < 0 or place.offset + place.num_bytes > region.num_bytes:
            raise InvalidRequest(
                f"{what}: {place.num_bytes} bytes from {place.offset} on do not lie inside region {region.name[:80]!r} "
                f"of {region.num_bytes} bytes"
            )

    def read(self, what: str, place: Place) -> bytes:
        """Return what lies at a place. Raises InvalidRequest, ModelNotFound."""
        self.check(what, place)
        if place.num_bytes > self._max_bytes:
            raise InvalidRequest(f"{what}: has {place.num_bytes} bytes; this server takes {self._max_bytes}")
        region = self._find(place.region)
        data = os.pread(region.file, place.num_bytes, region.offset + place.offset)
        if len(data) != place.num_bytes:
            raise InvalidRequest(f"{what}: its shared memory has become shorter than {place.num_bytes} bytes")
        return data

    def write(self, what: str, place: Place, data: bytes) -> None:
        """Put data at a place. Raises InvalidRequest, ModelNotFound."""
        self.check(what, place)
        check_room(what, place, len(data))
        region = self._find(place.region)
        if os.fstat(region.file).st_size < region.offset + place.offset + len(data):
            raise InvalidRequest(f"{what}: its shared memory has become shorter than {len(data)} bytes")
        os.pwrite(region.file, data, region.offset + place.offset)

    def close(self) -> None:
        """Forget all of them."""
        self.unregister("")

    def _find(self, name: str) -> Region:
        if name not in self._regions:
            raise ModelNotFound(f"shared memory region {name[:80]!r}: is not registered; register it first")
        return self._regions[name]


def check_room(what: str, place: Place, num_bytes: int) -> None:
    """Refuse a place that does not hold so many bytes. Raises InvalidRequest."""
    if num_bytes > place.num_bytes:
        raise InvalidRequest(f"{what}: has {num_bytes} bytes; its shared memory holds {place.num_bytes}")


def _open(key: str) -> int:
    """Open a shared memory object. Raises InvalidRequest."""
    name = key.lstrip("/")
    with suppress(OSError, ValueError):
        if name and name == Path(name).name and name != "..":
            file = os.open(_ROOT / name, _OPEN)
            if stat.S_ISREG(os.fstat(file).st_mode):
                return file
            os.close(file)
    raise InvalidRequest(f"shared memory key {key[:80]!r}: names no object of this machine that the server may open")
