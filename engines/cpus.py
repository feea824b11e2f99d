"""How many CPU cores this process may keep busy: its affinity, and its control groups' quota. Imports nothing of ours.

A container's limit (``docker run --cpus 2``, Kubernetes' ``limits.cpu``) is a quota of time, which leaves all cores of
the machine visible. More threads than the quota pays for are stopped together for the rest of each period.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """Return the threads that one engine call should take: cores or quota, whichever is less, rounded up; at least 1.

    Args:
        root: where the system's files are found; for tests.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _groups(root) for quota in (_v2_quota(folder), _v1_quota(folder)) if quota]
    return max(1, math.ceil(min([cores, *quotas])))


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups for CPU time and of those above them, of both versions."""
    own = {controller: path for controllers, path in _memberships(root) for controller in controllers.split(",")}
    for mounted, point, kind, options in _mounts(root):
        path = own.get("") if kind == "cgroup2" else own.get("cpu") if "cpu" in options.split(",") else None
        if path is None:
            continue
        # Inside a container the mount shows a part of the tree: its own group, even where the path names the whole.
        top = root / point.lstrip("/")
        inside = f"{path}/".startswith(f"{mounted.rstrip('/')}/")
        below = path.removeprefix(mounted.rstrip("/")).strip("/") if inside else ""
        folder = top / below
        while folder != top:
            yield folder
            folder = folder.parent
        yield top


def _memberships(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (controllers, path) of each hierarchy that this process is in; version 2 has no controllers' names."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        yield controllers, path


def _mounts(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield (path in the hierarchy, mount point, type, the file system's options) of each control group mount."""
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            _, _, _, mounted, point, *_ = mount.split(" ")
            yield mounted, point, kind, options


def _v2_quota(folder: Path) -> float | None:
    """Return the cores that ``cpu.max`` pays for; None without a limit."""
    for line in _lines(folder / "cpu.max"):
        limit, period = line.split()
        return None if limit == "max" else int(limit) / int(period)
    return None


def _v1_quota(folder: Path) -> float | None:
    """Return the cores that ``cpu.cfs_quota_us`` pays for; None without a limit, which is -1 there."""
    limit, period = (next(_lines(folder / f"cpu.cfs_{name}_us"), "-1") for name in ("quota", "period"))
    return int(limit) / int(period) if int(limit) > 0 and int(period) > 0 else None


def _lines(path: Path) -> Iterator[str]:
    """Yield a file's lines; none where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return
    yield from text.splitlines()
