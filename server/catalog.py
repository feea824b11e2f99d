"""The bundles of one server by name, while they load and after. Knows no wire."""

from collections.abc import Iterable

from mezzotint.engines.errors import InvalidRequest, ModelNotFound, Unavailable
from mezzotint.server.core import Core


class Catalog:
    """What a server serves; a name without a core is still loading."""

    def __init__(self, names: Iterable[str]) -> None:
        self._cores: dict[str, Core | None] = dict.fromkeys(names)

    @property
    def cores(self) -> tuple[Core, ...]:
        """The bundles that are loaded."""
        return tuple(core for core in self._cores.values() if core is not None)

    def add(self, core: Core) -> None:
        """Serve a bundle that has been loaded, under its own name."""
        self._cores[core.model.name] = core

    def find(self, name: str) -> Core:
        """Return the bundle of a name; an empty name is the only one's.

        Raises:
            InvalidRequest: the name is empty and there are several.
            ModelNotFound: there is none of that name.
            Unavailable: it is still loading.
        """
        names = ", ".join(self._cores)
        if not name and len(self._cores) != 1:
            raise InvalidRequest(f"model: must be named where several are served; one of {names}")
        found = name or next(iter(self._cores))
        if found not in self._cores:
            raise ModelNotFound(f"model={name!r}: is not served here; use {names}")
        core = self._cores[found]
        if core is None:
            raise Unavailable(f"model {found} is still loading; try again in a moment")
        return core
