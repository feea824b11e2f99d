"""Processes of benchmarks: ``mezzotint`` in one of its own, what one that failed said, what one takes in memory.

Imports nothing but the standard library, for the processes that are measured.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

_ERROR_LINES = 3
_MEMORY = {"VmRSS": "resident", "RssAnon": "anonymous", "VmHWM": "peak"}


class Failed(Exception):
    """A command ended with an error; the message has its last words."""


def run_mezzotint(*arguments: str | Path, stdin: str = "") -> float:
    """Run a ``mezzotint`` command to its end; returns its seconds. Raises Failed."""
    begun = time.perf_counter()
    run_python("-m", "mezzotint", *arguments, stdin=stdin)
    return time.perf_counter() - begun


def run_python(*arguments: str | Path, stdin: str = "") -> str:
    """Run this Python in a process of its own; returns what it wrote to stdout. Raises Failed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command[1:])}: {last_words(done.stderr, done.returncode)}")
    return done.stdout


def last_words(text: str, returncode: int) -> str:
    """Return the sentence in which a program failed, as far as it said one."""
    if returncode < 0:
        return f"ended by signal {-returncode}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return " ".join((errors or lines)[-_ERROR_LINES:]) or f"exit status {returncode}"


def memory_mib(pid: int) -> dict[str, int]:
    """Return a process's resident set, its anonymous part and its highest value so far, in MiB.

    The highest is that of the program which runs: what the process that started it had taken before is not in it, as
    it is in ``getrusage``'s.
    """
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) >> 10 for line in lines if ":" in line and line.endswith("kB")}
    return {name: found[field] for field, name in _MEMORY.items()}


def forget_peak() -> None:
    """Let this process's highest value be what it takes now (Linux, proc(5), ``clear_refs``)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
