"""What this process holds in memory, and giving back what it need not hold. Imports nothing of ours.

Everything here knows Linux's ``/proc``; elsewhere sizes are 0 and nothing is given back.
"""

import contextlib
import ctypes
import gc
import math
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_MADV_DONTNEED = 4
_RELEASE_EVERY_S = 0.2
_PROC = Path("/proc/self")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def resident_bytes() -> int:
    """Return the resident set of this process, mapped files included; 0 where the system does not say."""
    return _status("VmRSS")


def anonymous_bytes() -> int:
    """Return the part of the resident set that no file stands behind; 0 where the system does not say."""
    return _status("RssAnon")


def parse_size(text: str) -> int:
    """Read ``2.5GiB``, ``800 MB`` or a number of bytes. Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or math.isinf(num_bytes := float(found[1]) * unit):
        raise ValueError(f"{text[:40]!r} is no size; write 2.5GiB, 800MB or a number of bytes")
    return int(num_bytes)


def size_text(num_bytes: int) -> str:
    """Return bytes as people read them: ``812 MiB``, ``2.50 GiB``."""
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def release_mapped(path: Path) -> None:
    """Drop the resident pages of every read-only mapping of ``path``; what is read again comes from the page cache."""
    try:
        inode = path.stat().st_ino
        lines = (_PROC / "maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    libc = ctypes.CDLL(None)
    for line in lines:
        span, access, _offset, _device, found, *name = line.split(maxsplit=5)
        if int(found) == inode and access.startswith("r--") and name == [os.path.realpath(path)]:
            begin, end = (int(side, 16) for side in span.split("-"))
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


@contextlib.contextmanager
def releasing_mapped(path: Path) -> Iterator[None]:
    """Drop the pages of ``path`` again and again while something reads through it, so that they never add up."""
    done = threading.Event()

    def release() -> None:
        while not done.wait(_RELEASE_EVERY_S):
            release_mapped(path)

    thread = threading.Thread(target=release, name="mezzotint-release", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def give_back() -> None:
    """Free what only cycles of references hold, and give it back to the system; takes some ten milliseconds."""
    gc.collect()
    trim_heap()


def trim_heap() -> None:
    """Give freed memory back to the system, where the C library keeps it and can."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _status(field: str) -> int:
    try:
        lines = (_PROC / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
