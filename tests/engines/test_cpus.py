"""Made-up system files of machines and containers; what the real one says is in the last test."""

import os
from pathlib import Path

import pytest

from mezzotint.engines.cpus import available_cpus

V2 = "31 23 0:28 {mounted} {point} rw - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {mounted} {point} rw - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def system(root: Path, membership: str, mount: str, files: dict[str, str], *, mounted: str = "/") -> Path:
    """Write the files that say which groups a process is in, where they are mounted, and what they allow."""
    point = "/sys/fs/cgroup"
    content = {
        "proc/self/cgroup": membership,
        "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda rw\n" + mount.format(mounted=mounted, point=point),
    } | {f"{point[1:]}/{name}": text for name, text in files.items()}
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


def test_without_any_group_all_cores_are_there(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == 16


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 16), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("3200000 100000", 16)],
)
def test_a_quota_of_version_2_is_rounded_up_and_at_least_one_core(tmp_path: Path, limit: str, expected: int) -> None:
    assert available_cpus(system(tmp_path, "0::/", V2, {"cpu.max": limit})) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("250000", 3), ("50000", 1)])
def test_a_quota_of_version_1_is_rounded_up_and_at_least_one_core(tmp_path: Path, quota: str, expected: int) -> None:
    files = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000"}
    assert available_cpus(system(tmp_path, "4:cpu,cpuacct:/\n0::/", V1, files)) == expected


def test_the_tightest_group_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {"cpu.max": "max 100000", "pods/cpu.max": "300000 100000", "pods/mine/cpu.max": "800000 100000"}
    assert available_cpus(system(tmp_path, "0::/pods/mine", V2, files)) == 3


def test_a_container_that_sees_the_machines_path_reads_its_own_mount(tmp_path: Path) -> None:
    files = {"cpu.max": "400000 100000"}
    own = "/docker/0123"
    assert available_cpus(system(tmp_path, f"0::{own}", V2, files, mounted=own)) == 4


def test_a_path_that_is_not_below_the_mount_falls_back_to_the_mount(tmp_path: Path) -> None:
    files = {"cpu.max": "400000 100000"}
    assert available_cpus(system(tmp_path, "0::/docker/01234", V2, files, mounted="/docker/0123")) == 4


def test_affinity_counts_where_it_is_the_tighter_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert available_cpus(system(tmp_path, "0::/", V2, {"cpu.max": "800000 100000"})) == 2


def test_this_machine_has_at_least_one_and_no_more_than_its_cores() -> None:
    assert 1 <= available_cpus() <= 16
