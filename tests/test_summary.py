"""The page of a full run: what plain and slow tests leave in it, told by a real run of pytest."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.conftest import ROOT
from tests.summary import summary

TESTS = """
import pytest


def test_plain(record_property):
    record_property("size of it", "3 MB")


@pytest.mark.slow
def test_slow():
    pass


@pytest.mark.slow
def test_wrong():
    assert False
"""
SECONDS = {"test_plain": "0.6", "test_slow": "20.5", "test_wrong": "3.5"}


def test_seconds_of_slow_tests_stand_apart(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_collection_modifyitems\n")
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    runs = {"not slow": tmp_path / "tests.xml", "slow": tmp_path / "slow-tests.xml"}
    for marks, results in runs.items():
        options = ("-m", marks, f"--junit-xml={results}", str(tmp_path))
        subprocess.run([*command, *options], capture_output=True, check=False, cwd=ROOT)
        found = ElementTree.parse(results)
        for case in found.iter("testcase"):
            case.set("time", SECONDS[case.get("name", "")])
        found.write(results)
    page = summary(*runs.values())
    assert "2 passed, 1 failed, 0 skipped." in page
    assert "The tests of `make test` took 1 s, shared by two workers, the slow ones 24 s more." in page
    assert "- size of it: 3 MB" in page
    assert "- slow" not in page
    (row,) = [line for line in page.splitlines() if "test_one.py" in line]
    assert row.split(" | ")[1:] == ["2", "1", "0", "0.6", "24.0 |"]
