"""The compiled shapes of a process's engines, within a memory limit. Imports nothing of ours.

Each shape of an engine has packed weights of its own, so shapes are what a process's memory is made of. Those that were
used longest ago make room for new ones.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, TypeAlias

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
"""The shape of each input of an engine."""

_MAX_SHAPES = 16  # of one engine; a server that is asked for many sizes once each need not keep them all


@dataclass(slots=True)
class Uses:
    """How often a cache had what it was asked for, and how often not."""

    hits: int = 0
    misses: int = 0


class CompiledShapes:
    """What engines have compiled, by owner and input shapes; safe to use from several threads.

    Args:
        limit_bytes: what all of it may take, by its owners' own account; None is no limit.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[tuple[object, Shapes], tuple[Any, int]] = OrderedDict()
        self._uses: dict[object, Uses] = {}
        self._lock = threading.Lock()

    def limit(self, num_bytes: int) -> None:
        """Change the limit; what is over it goes when the next shapes come."""
        self._limit = num_bytes

    @property
    def limit_bytes(self) -> int | None:
        """What all of it may take; None is no limit."""
        return self._limit

    @property
    def num_bytes(self) -> int:
        """What is kept, claimed room included."""
        return sum(num_bytes for _, num_bytes in self._kept.values())

    def has(self, owner: object, shapes: Shapes) -> bool:
        """Whether these shapes are compiled and ready; asking is no use."""
        return self._kept.get((owner, shapes), (None, 0))[0] is not None

    def get(self, owner: object, shapes: Shapes) -> Any:
        """Return what was kept for these shapes, and count that as its last use; None where there is nothing."""
        with self._lock:
            uses = self._uses.setdefault(owner, Uses())
            if not self.has(owner, shapes):
                uses.misses += 1
                return None
            uses.hits += 1
            self._kept.move_to_end((owner, shapes))
            return self._kept[owner, shapes][0]

    def uses(self, owner: object) -> Uses:
        """Return how often an owner's shapes were there when it asked for them, and how often not."""
        return self._uses.get(owner, Uses())

    def claim(self, owner: object, shapes: Shapes, num_bytes: int) -> None:
        """Make room for shapes that are about to be compiled, by dropping those that were used longest ago."""
        with self._lock:
            if not self.has(owner, shapes):
                self._kept[owner, shapes] = None, num_bytes
            dropped = self._dropped(owner, (owner, shapes))
        del dropped  # outside of the lock: freeing a compiled model takes a while

    def keep(self, owner: object, shapes: Shapes, compiled: Any, num_bytes: int) -> None:
        """Keep what was compiled; where it came out larger than was claimed, others make room for it."""
        with self._lock:
            self._kept[owner, shapes] = compiled, num_bytes
            self._kept.move_to_end((owner, shapes))
            dropped = self._dropped(owner, (owner, shapes))
        del dropped

    def drop(self, owner: object, shapes: Shapes | None = None) -> None:
        """Forget these shapes of an owner, or all of them."""
        with self._lock:
            gone = [key for key in self._kept if key[0] is owner and shapes in (None, key[1])]
            dropped = [self._kept.pop(key) for key in gone]
            if shapes is None:
                self._uses.pop(owner, None)
        del dropped

    def _dropped(self, owner: object, spared: tuple[object, Shapes]) -> list[Any]:
        """Take out what is over the limits, oldest first, but never ``spared``; returns it."""
        dropped = []
        others = [key for key in self._kept if key != spared]
        own = sum(key[0] is owner for key in self._kept)
        for key in others:
            over = self._limit is not None and self.num_bytes > self._limit
            if over or (own > _MAX_SHAPES and key[0] is owner):
                own -= key[0] is owner
                dropped.append(self._kept.pop(key))
        return dropped
