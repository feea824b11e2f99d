"""What stands behind a bundle's name, as the rest of the server uses it. Knows no wire."""

from collections.abc import Callable, Mapping
from typing import Protocol

from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.shapes import Uses
from mezzotint.server.events import Event
from mezzotint.server.job import ANYONE, Caller
from mezzotint.server.joins import Handle
from mezzotint.server.pictures import PictureOptions


class Served(Protocol):
    """What stands behind a name and answers its requests: a ``Core``, or several of them."""

    @property
    def model(self) -> Model:
        """The bundle, loaded."""
        ...

    @property
    def num_open(self) -> int:
        """The requests that have not ended."""
        ...

    @property
    def num_waiting(self) -> int:
        """The images that wait to be started."""
        ...

    @property
    def num_started(self) -> int:
        """The images in the making."""
        ...

    @property
    def seconds_left(self) -> float:
        """The engine time that its requests still are, by prediction."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether what makes its pictures runs."""
        ...

    def cache_uses(self) -> Mapping[str, Uses]:
        """Return how often what was kept was reused, by the cache's name."""
        ...

    def submit(
        self,
        request: Request,
        *,
        request_id: str,
        on_event: Callable[[Event], None],
        picture: PictureOptions | None = None,
        deadline: float | None = None,
        caller: Caller = ANYONE,
    ) -> Handle:
        """Take a request in without waiting. Raises InvalidRequest, QueueFull, Unavailable."""
        ...

    def drain(self, timeout: float) -> bool:
        """Take no more requests and wait for those that are open, or end them; returns whether all have ended."""
        ...

    def close(self, why: str = ...) -> None:
        """End what is still open with ``Unavailable``, whose sentence is ``why``, and free the engines."""
        ...
