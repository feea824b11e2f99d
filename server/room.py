"""Which versions make room for another: those to evict now, and when there could be. Pure; knows the catalog alone."""

from collections.abc import Iterable

from mezzotint.server.catalog import Version

_SOON_MS = 1000


def choose_victims(missing_bytes: int, idle: Iterable[Version]) -> list[Version] | None:
    """Return the first of the idle versions that together hold so many bytes; None where all are too little."""
    victims = []
    for version in idle:
        if missing_bytes <= 0:
            break
        victims.append(version)
        missing_bytes -= version.held_bytes
    return victims if missing_bytes <= 0 else None


def room_in_ms(missing_bytes: int, versions: Iterable[Version]) -> int | None:
    """Return when so many bytes could be free, because versions have become idle or left; None where they hold less."""
    seconds = {
        version: version.core.seconds_left if version.core and version.core.num_open else 0.0
        for version in versions
        if version.core or version.is_closing
    }
    chosen = choose_victims(missing_bytes, sorted(seconds, key=lambda version: seconds[version]))
    return max(_SOON_MS, round(1e3 * seconds[chosen[-1]])) if chosen else None
