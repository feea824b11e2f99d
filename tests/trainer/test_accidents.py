"""Runs in processes of their own, to which something really happens."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.checkpoint_folder import CheckpointFolder
from mezzotint.trainer.checkpoints import StateFile, disk_error, disk_guard
from mezzotint.trainer.loggers import LINES
from tests.trainer.toy import Options, Toy, run

LARGE = Options(steps=6, every=1, width=1_000_000, validate=100, accumulation=1)
"""A checkpoint of it has 64 MB: long enough in the writing to be hit there."""


def command(folder: Path, options: Options) -> list[str]:
    told = [
        f"{name}={value if name == 'resume' else repr(value)}"
        for name, value in asdict(options).items()
        if value is not None
    ]
    return [sys.executable, "-m", "tests.trainer.toy", str(folder), *told]


@contextmanager
def started(folder: Path, options: Options) -> Iterator[subprocess.Popen[str]]:
    """Start a run; whatever happens, it does not outlive its test."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command(folder, options), stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], path: Path, num_bytes: int) -> None:
    """Wait until a file of that size is there, looking a thousand times a second."""
    end = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size >= num_bytes):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("num_bytes", [0, 1 << 20, 60 << 20])
def test_kill_9_in_the_middle_of_a_save_loses_no_step_that_was_saved_before(tmp_path: Path, num_bytes: int) -> None:
    checkpoints = tmp_path / "checkpoints"
    with started(tmp_path, LARGE) as process:
        wait_for(process, checkpoints / ".step-000004.part" / "state.ckpt", num_bytes)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert (checkpoints / ".step-000004.part").exists(), "it was killed within the save"
    assert not (checkpoints / "step-000004").exists()
    last = CheckpointFolder(checkpoints).last()
    assert last is not None
    assert last.step == 3  # with a checkpoint every step, the step that it was killed in is all that is lost
    resumed = run(tmp_path, replace(LARGE, resume="latest"))
    uninterrupted = run(tmp_path / "whole", LARGE)
    assert resumed.losses == {step: loss for step, loss in uninterrupted.losses.items() if step > 3}
    assert not list(checkpoints.glob(".*"))  # what was half is gone


@pytest.mark.slow
def test_a_process_told_to_stop_saves_says_so_and_is_ended_by_the_signal_as_shells_say(tmp_path: Path) -> None:
    options = Options(steps=100_000, every=1_000_000, validate=1_000_000)
    with started(tmp_path, options) as process:
        wait_for(process, tmp_path / "logs" / "metrics.jsonl", 2000)
        os.kill(process.pid, signal.SIGUSR1)
        wait_for(process, tmp_path / "checkpoints" / "last" / "checkpoint.json", 1)
        assert process.poll() is None, "SIGUSR1 goes on"
        os.kill(process.pid, signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert "TrainingStopped: stopped by SIGTERM after step" in error
    assert len(CheckpointFolder(tmp_path / "checkpoints").saved()) == 2


@pytest.mark.slow
def test_a_disk_that_has_no_room_ends_the_run_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    small = replace(LARGE, width=100_000)
    uninterrupted = run(tmp_path / "whole", small)
    run(tmp_path, replace(small, steps=2))
    limit = 1 << 20  # bytes that a file may have, less than a checkpoint
    done = subprocess.run(
        command(tmp_path, replace(small, resume="latest")),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "step 3: the checkpoint cannot be written to" in done.stderr
    assert "(file too large); make room and go on from step-000002, the last good checkpoint" in done.stderr
    assert not list((tmp_path / "checkpoints").glob(".*"))
    resumed = run(tmp_path, replace(small, resume="latest"))
    assert resumed.losses == {step: loss for step, loss in uninterrupted.losses.items() if step > 2}


def test_a_full_disk_under_the_logs_is_a_sentence_with_what_is_left(tmp_path: Path) -> None:
    small, checkpoints = Options(steps=2, every=1), CheckpointFolder(tmp_path / "checkpoints")
    run(tmp_path, small)
    (tmp_path / "logs" / LINES).unlink()
    (tmp_path / "logs" / LINES).symlink_to("/dev/full")
    left = r"cannot be written \(no space left on device\); make room and go on from step-000002, the last good"
    with pytest.raises(TrainError, match=left), disk_guard(checkpoints):
        run(tmp_path, replace(small, steps=4, resume="latest"))


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ZeroDivisionError), disk_guard(checkpoints):
        raise ZeroDivisionError
    with pytest.raises(TrainError, match=r"^said already$"), disk_guard(checkpoints):
        raise TrainError("said already") from full


def test_a_full_disk_is_found_among_what_torchs_writer_says_of_it() -> None:
    module = Toy(Options(width=100_000))
    with pytest.raises((OSError, RuntimeError)) as found:
        StateFile(module).save_checkpoint({"state_dict": module.state_dict()}, "/dev/full")
    assert disk_error(found.value) == "no space left on device"
    assert disk_error(TrainError("something else")) is None
    assert disk_error(torch.OutOfMemoryError("CUDA out of memory")) is None
