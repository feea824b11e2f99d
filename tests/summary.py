"""Writes what full test runs found as a Markdown page: ``python -m tests.summary build/tests.xml… PAGE``."""

import platform
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

SLOW = "slow"
"""The property by which a test says that `make test` leaves it out."""
_LIBRARIES = ("openvino", "onnxruntime", "torch", "diffusers", "numpy")


def summary(*results: Path) -> str:
    """Return the page: counts and seconds for each test file by tier, and the versions that were tried."""
    from importlib.metadata import version

    cases = [case for path in results for case in ElementTree.parse(path).getroot().iter("testcase")]
    properties = [(str(p.get("name")), p.get("value")) for case in cases for p in case.iter("property")]
    measured = [f"- {name}: {value}" for name, value in properties if name != SLOW]
    counts: dict[str, Counter[str]] = {}
    seconds: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for case in cases:
        name = _file(case.get("classname", ""))
        outcomes = {child.tag for child in case}
        outcome = next((tag for tag in ("failure", "error", "skipped") if tag in outcomes), "passed")
        counts.setdefault(name, Counter())[outcome] += 1
        is_slow = any(p.get("name") == SLOW for p in case.iter("property"))
        seconds[is_slow][name] += round(float(case.get("time", 0)), 3)
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    rows = [
        f"| {name} | {c['passed']} | {c['failure'] + c['error']} | {c['skipped']} "
        f"| {seconds[False][name]:.1f} | {seconds[True][name]:.1f} |"
        for name, c in sorted(counts.items())
    ]
    total = sum(counts.values(), Counter[str]())
    return "\n".join(
        [
            "# Verification",
            "",
            f"Written by `make test-all`: Python {platform.python_version()}, {platform.machine()}; {versions}.",
            "",
            f"{total['passed']} passed, {total['failure'] + total['error']} failed, {total['skipped']} skipped.",
            "",
            *([*measured, ""] if measured else []),
            f"The tests of `make test` took {seconds[False].total():.0f} s, shared by two workers, the slow ones "
            f"{seconds[True].total():.0f} s more. What tests share, such as a compiled bundle, counts for the first "
            "that needs it.",
            "",
            "| tests | passed | failed | skipped | seconds | seconds of slow ones |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _file(classname: str) -> str:
    parts = classname.split(".")
    last = next((i for i, part in enumerate(parts) if part.startswith("test_")), len(parts) - 1)
    return "/".join(parts[: last + 1]) + ".py"


if __name__ == "__main__":
    *runs, page = map(Path, sys.argv[1:])
    page.write_text(summary(*runs), encoding="utf-8")
