"""What this process holds in memory, and giving back what it need not hold. Imports nothing of ours.

Everything here knows Linux's ``/proc``; elsewhere sizes are 0 and nothing is given back.
"""

import ctypes
import os
from pathlib import Path

_MADV_DONTNEED = 4
_PROC = Path("/proc/self")


def resident_bytes() -> int:
    """Return the resident set of this process, mapped files included; 0 where the system does not say."""
    return _status("VmRSS")


def anonymous_bytes() -> int:
    """Return the part of the resident set that no file stands behind; 0 where the system does not say."""
    return _status("RssAnon")


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


def trim_heap() -> None:
    """Give freed memory back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(field: str) -> int:
    try:
        lines = (_PROC / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
