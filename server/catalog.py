"""The bundles of one server by name, and the state that each of their versions is in. Pure; knows no wire.

A version is one bundle under a name, told apart by its digest. Its states, and what takes it from one to the next:

    LOADING → READY           loaded, and every engine has run once
    READY → UNLOADING         unloaded, or another version took its name: it finishes what it accepted and is gone
    READY → EVICTED           idle, and another bundle needed its memory
    EVICTED → WAKING → READY  a request asked for it, and waits
    READY → LOADING           its engine failed too often in a row
    LOADING → FAILED          it could not be loaded again

``lifecycle.py`` moves them; whatever changes does so in the event loop's thread.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mezzotint.engines.bundle import Loading
from mezzotint.engines.errors import InvalidRequest, ModelNotFound, Unavailable
from mezzotint.engines.manifest import Manifest
from mezzotint.server.health import Failures
from mezzotint.server.served import Served


class State(StrEnum):
    """Where a version is on its way."""

    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    EVICTED = "evicted"
    WAKING = "waking"
    FAILED = "failed"


TAKES_REQUESTS = frozenset((State.READY, State.EVICTED, State.WAKING))
"""The states in which a request is taken in, at once or after a wait."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as it was read from its folder, loaded or not."""

    folder: Path
    manifest: Manifest
    digest: str


@dataclass(slots=True, eq=False)
class Version:
    """One bundle under a name.

    Attributes:
        bundle: where it was read; None where it has not been, and for a model that was made elsewhere.
        reason: why it is not ready, one sentence; empty where its state says all.
        core: what answers its requests, once it is loaded.
        loading: its part of the memory budget, until its engines are closed.
        is_closing: whether they are being closed, and that part given back.
        failures: its calls that failed since it was loaded.
        was_reloaded: whether it has been loaded again because of them.
        used: when a request last asked for it, in seconds of the catalog's clock.
        num_waiting: requests that wait until it is loaded.
    """

    name: str
    bundle: Bundle | None = None
    state: State = State.LOADING
    reason: str = ""
    core: Served | None = None
    loading: Loading | None = None
    is_closing: bool = False
    failures: Failures | None = None
    was_reloaded: bool = False
    used: float = 0.0
    num_waiting: int = 0

    @property
    def digest(self) -> str:
        """The bundle's digest; empty where it is not known yet."""
        if self.core is not None:
            return self.core.model.digest
        return self.bundle.digest if self.bundle else ""

    @property
    def manifest(self) -> Manifest | None:
        """The bundle's manifest; None where it has not been read."""
        core = self.core
        if core is not None:
            return core.model.manifest
        return self.bundle.manifest if self.bundle else None

    @property
    def held_bytes(self) -> int:
        """Its part of the memory budget, as predicted."""
        return self.loading.num_bytes() if self.loading else 0


class Catalog:
    """What a server serves.

    Args:
        names: those that are going to be served.
        clock: seconds, never going back.
    """

    def __init__(self, names: Iterable[str] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._current = {name: Version(name) for name in names}
        self._others: list[Version] = []  # those that are loaded beside the current one, or leave

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are known."""
        return tuple(self._current)

    @property
    def versions(self) -> tuple[Version, ...]:
        """All versions, those that a name stands for first."""
        return (*self._current.values(), *self._others)

    @property
    def cores(self) -> tuple[Served, ...]:
        """The bundles that are loaded."""
        return tuple(core for version in self.versions if (core := version.core) is not None)

    @property
    def is_alive(self) -> bool:
        """Whether what makes the pictures of all bundles that are loaded runs."""
        return all(core.is_alive for core in self.cores)

    def takes_requests(self, name: str) -> bool:
        """Whether a request for a name is taken in, at once or after a wait."""
        version = self._current.get(name)
        return version is not None and version.state in TAKES_REQUESTS

    def is_current(self, version: Version) -> bool:
        """Whether its name stands for this version."""
        return self._current.get(version.name) is version

    def version(self, name: str) -> Version:
        """Return the version that a name stands for; an empty name is the only one's.

        Raises:
            InvalidRequest: the name is empty and there are several.
            ModelNotFound: there is none of that name.
        """
        names = ", ".join(self._current)
        if not names:
            raise ModelNotFound("no model is served here; load one with `mezzotint models load NAME`")
        if not name and len(self._current) != 1:
            raise InvalidRequest(f"model: must be named where several are served; one of {names}")
        found = name or next(iter(self._current))
        if found not in self._current:
            raise ModelNotFound(f"model={name!r}: is not served here; use {names}")
        return self._current[found]

    def find(self, name: str) -> Served:
        """Return what answers the requests for a name, and count that as its last use.

        Raises:
            InvalidRequest: the name is empty and there are several.
            ModelNotFound: there is none of that name.
            Unavailable: it is not loaded now.
        """
        version = self.version(name)
        version.used = self._clock()
        if version.core is None:
            raise Unavailable(version.reason or f"model {version.name} is still loading; try again in a moment")
        return version.core

    @property
    def leaving(self) -> tuple[Version, ...]:
        """The versions that finish what they have accepted, or are giving their memory back."""
        return tuple(version for version in self.versions if version.is_closing or version.state is State.UNLOADING)

    def idle(self) -> tuple[Version, ...]:
        """The versions that could be loaded again and that no request needs now, those used longest ago first."""
        found = (
            version
            for version in self._current.values()
            if version.state is State.READY and version.bundle and version.core
            if not version.core.num_open and not version.num_waiting
        )
        return tuple(sorted(found, key=lambda version: version.used))

    def begin(self, name: str, bundle: Bundle | None = None) -> Version:
        """Note that a version is being loaded: the first of its name, or one beside that which is served."""
        current = self._current.get(name)
        if current is not None and current.state is State.LOADING and current.bundle is None:
            current.bundle = bundle  # its name was known before it was
            return current
        version = Version(name, bundle)
        if current is None:
            self._current[name] = version
        else:
            self._others.append(version)
        return version

    def add(self, core: Served) -> Version:
        """Serve a model that was made elsewhere, under its own name."""
        version = self.begin(core.model.name)
        self.serve(version, core)
        return version

    def serve(self, version: Version, core: Served) -> Version | None:
        """Answer the requests for a name with a version from now on; returns the one that has to be retired, if any."""
        version.core, version.state, version.reason, version.used = core, State.READY, "", self._clock()
        replaced = self._current.get(version.name)
        self._current[version.name] = version
        self._others = [other for other in self._others if other is not version]
        if replaced is None or replaced is version or replaced.core is None:
            return None
        self._leave(replaced)
        return replaced

    def unload(self, name: str) -> Version:
        """Take a name out; its version has to be retired. Raises InvalidRequest, ModelNotFound."""
        if not name:
            raise InvalidRequest("name: must be that of the model to unload; `mezzotint models` lists them")
        version = self.version(name)
        del self._current[version.name]
        self._leave(version)
        return version

    def discard(self, version: Version) -> None:
        """Forget a version that has left or never came."""
        if self.is_current(version):
            del self._current[version.name]
        self._others = [other for other in self._others if other is not version]

    def stop(self, version: Version, state: State, reason: str) -> tuple[Served | None, Loading | None]:
        """Have a version answer no requests; returns what has to be closed and released, if anything and by nobody yet.

        Say ``freed`` when that is done.
        """
        stopped = version.core, None if version.is_closing else version.loading
        version.core, version.state, version.reason = None, state, reason
        version.is_closing |= stopped != (None, None)
        return stopped

    def freed(self, version: Version) -> None:
        """Note that a version has given its memory back."""
        version.loading, version.is_closing = None, False

    def _leave(self, version: Version) -> None:
        version.state = State.UNLOADING
        self._others.append(version)
