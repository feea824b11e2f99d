"""Several engine loops behind one bundle's name: a request goes to the one that has least to do, and stays there."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mezzotint.engines.model import Model
from mezzotint.server.core import Core
from mezzotint.server.handle import Handle


class Instances:
    """Cores of one bundle that share its host, each with engines, arrays and a thread of its own.

    They have no state in common, and together they are used as one core is.
    """

    def __init__(self, cores: Sequence[Core]) -> None:
        self._cores = tuple(cores)

    @property
    def model(self) -> Model:
        """The bundle, loaded; all have the same."""
        return self._cores[0].model

    @property
    def num_open(self) -> int:
        """The requests that have not ended."""
        return sum(core.num_open for core in self._cores)

    @property
    def num_waiting(self) -> int:
        """The images that wait to be started."""
        return sum(core.num_waiting for core in self._cores)

    @property
    def num_started(self) -> int:
        """The images in the making."""
        return sum(core.num_started for core in self._cores)

    @property
    def seconds_left(self) -> float:
        """The engine time that the requests still are of the core that has least, by prediction."""
        return min(core.seconds_left for core in self._cores)

    @property
    def is_alive(self) -> bool:
        """Whether all of the loops' threads run."""
        return all(core.is_alive for core in self._cores)

    def submit(self, request: Any, **options: Any) -> Handle:
        """Take a request in where it waits least by prediction. Takes and raises what ``Core.submit`` does."""
        return min(self._cores, key=lambda core: (core.seconds_left, core.num_open)).submit(request, **options)

    def drain(self, timeout: float) -> bool:
        """Take no more requests and wait for those that are open; returns whether all of them have ended."""
        return all(self._all(lambda core: core.drain(timeout)))

    def close(self, *reason: str) -> None:
        """End what is still open, and free the engines."""
        self._all(lambda core: core.close(*reason))

    def _all(self, act: Callable[[Core], Any]) -> list[Any]:
        with ThreadPoolExecutor(len(self._cores)) as pool:
            return list(pool.map(act, self._cores))
