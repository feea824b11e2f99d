"""What a stopping server will not finish in time, as far as can be foreseen. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from mezzotint.server.forecast import Forecast

Who = TypeVar("Who")


def too_late(forecasts: Callable[[], Mapping[Who, Forecast]], seconds: float) -> Iterator[Who]:
    """Yield who will not be done in ``seconds``, the last first; whoever iterates has to take each away.

    The others are done sooner without it, so that the forecasts are asked for again after each.
    """
    while found := forecasts():
        last = max(found, key=lambda who: found[who].finish)
        if found[last].finish <= seconds:
            return
        yield last
