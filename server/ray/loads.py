"""Which replica will be done with a request first, as one router foresees it. Pure; the clock is passed in.

A replica says every second or so how many seconds of work it has. What was sent to it since comes on top.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

SECONDS_LEFT, ROW_SECONDS, SERIAL = "seconds_left", "row_seconds", "serial"
"""What a replica's report has: the seconds of engine time that its requests still are, at its present pace; those of a
UNet row, as measured; and the report's number."""

_ON_ITS_WAY_SECONDS = 0.5  # a report of that age may not have known of a request
_MAX_OPEN = 65_536  # whose ends were never heard of

Who = TypeVar("Who", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Report:
    serial: int
    seconds_left: float
    row_seconds: float
    heard: float


@dataclass(frozen=True, slots=True)
class _Sent(Generic[Who]):
    who: Who
    request_id: str
    rows: int
    when: float


class Loads(Generic[Who]):
    """What is known of replicas, and of the requests that were sent to them and are open."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reports: dict[Who, _Report] = {}
        self._open: dict[Hashable, _Sent[Who]] = {}

    def hear(self, who: Who, report: Mapping[str, Any]) -> None:
        """Note a replica's last report, which may be one that is known or empty."""
        known = self._reports.get(who)
        if not report or (known is not None and known.serial == report[SERIAL]):
            return
        self._reports[who] = _Report(report[SERIAL], report[SECONDS_LEFT], report[ROW_SECONDS], self._clock())

    def send(self, key: Hashable, who: Who, request_id: str, rows: int) -> None:
        """Note that a request goes to a replica; ``key`` is this sending's own, and ``rows`` of the UNet its work."""
        when = self._open[key].when if key in self._open else self._clock()
        self._open[key] = _Sent(who, request_id, rows, when)
        while len(self._open) > _MAX_OPEN:
            del self._open[next(iter(self._open))]

    def end(self, key: Hashable) -> None:
        """Note that a request has ended."""
        self._open.pop(key, None)

    def waits(self) -> dict[Who, float]:
        """Return the seconds until each replica that ever said anything will be done with all that it has."""
        rows: Counter[Who] = Counter()
        for sent in self._open.values():
            report = self._reports.get(sent.who)
            if report is not None and sent.when > report.heard - _ON_ITS_WAY_SECONDS:
                rows[sent.who] += sent.rows
        return {who: report.seconds_left + rows[who] * report.row_seconds for who, report in self._reports.items()}

    def order(self, replicas: Iterable[Who], request_id: str, rows: int) -> list[Who]:
        """Return replicas, the best first: that which runs a request of this id, else by when it would be done.

        Where nothing is known of their work, the one with the fewest open requests goes first.
        """
        replicas = list(replicas)
        self._forget(set(replicas))
        homes = {sent.who for sent in self._open.values() if request_id and sent.request_id == request_id}
        num_open = Counter(sent.who for sent in self._open.values())
        done = {who: seconds + rows * self._reports[who].row_seconds for who, seconds in self.waits().items()}
        return sorted(replicas, key=lambda who: (who not in homes, done.get(who, 0.0), num_open[who]))

    def _forget(self, here: set[Who]) -> None:
        """Forget replicas that are gone, and what was sent to them."""
        if any(who not in here for who in self._reports):
            self._reports = {who: report for who, report in self._reports.items() if who in here}
            self._open = {key: sent for key, sent in self._open.items() if sent.who in here}
