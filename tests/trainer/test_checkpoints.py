import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from mezzotint.engines.errors import TrainError, TrainingStopped
from mezzotint.trainer.checkpoint_folder import CheckpointFolder, check_model, read_checkpoint
from mezzotint.trainer.checkpoints import STATE, StateFile
from mezzotint.trainer.steps import StepCallback
from tests.trainer.toy import MODEL, Options, Toy, run

EVERY_STEP = Options(every=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy]:
    """A run that nothing interrupts, with a checkpoint of every step."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, EVERY_STEP)


class At(StepCallback):
    """Sends this process a signal within a step."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Any) -> None:
        if trainer.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)

    def on_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        pass


def names(folder: Path) -> list[str]:
    return [each.path.name for each in CheckpointFolder(folder / "checkpoints").saved()]


@pytest.mark.parametrize("step", range(1, 8))  # the last one trains no step, and has the same weights none the less
def test_a_run_resumed_after_any_step_has_the_same_losses_and_weights_to_the_bit(
    whole: tuple[Path, Toy], tmp_path: Path, step: int
) -> None:
    folder, uninterrupted = whole
    name = f"step-{step:06d}"
    shutil.copytree(folder / "checkpoints" / name, tmp_path / "checkpoints" / name)
    resumed = run(tmp_path, replace(EVERY_STEP, resume="latest"))
    assert resumed.losses == {at: loss for at, loss in uninterrupted.losses.items() if at > step}
    for theirs, ours in zip(uninterrupted.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(theirs, ours)
    states = [torch.load(at / "checkpoints" / "step-000007" / STATE, weights_only=True) for at in (folder, tmp_path)]
    for key in ("state_dict", "current_model_state"):  # the average, and what it is an average of
        assert states[0][key].keys() == states[1][key].keys() == {"trained.weight", "trained.bias"}
        assert all(torch.equal(states[0][key][name], states[1][key][name]) for name in states[0][key])
    assert not torch.equal(states[0]["state_dict"]["trained.bias"], states[0]["current_model_state"]["trained.bias"])


def test_random_numbers_and_the_schedule_are_part_of_what_is_resumed(whole: tuple[Path, Toy], tmp_path: Path) -> None:
    folder, uninterrupted = whole
    shutil.copytree(folder / "checkpoints" / "step-000003", tmp_path / "checkpoints" / "step-000003")
    state = torch.load(tmp_path / "checkpoints" / "step-000003" / STATE, weights_only=True)
    state["random"][0]["cpu"] = torch.Generator().manual_seed(1).get_state()
    torch.save(state, tmp_path / "checkpoints" / "step-000003" / STATE)
    assert run(tmp_path, replace(EVERY_STEP, resume="latest")).losses[4] != uninterrupted.losses[4]


def test_checkpoints_come_every_so_many_steps_at_the_end_and_where_the_validation_loss_is_lowest(
    tmp_path: Path,
) -> None:
    run(tmp_path, Options(every=4, validate=3))
    assert names(tmp_path) == ["step-000003", "step-000004", "step-000006", "step-000007"]
    best, last = (read_checkpoint((tmp_path / "checkpoints" / name).resolve()) for name in ("best", "last"))
    assert best is not None
    assert last is not None
    assert (best.step, last.step) == (7, 7)
    lines = [json.loads(line) for line in (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}
    assert sorted(losses) == [0, 3, 6, 7]
    assert best.val_loss == losses[7] == min(losses.values())


def test_of_too_many_checkpoints_the_last_and_the_best_stay(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, limit=2)
    for step, loss in [(1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, 1.5)]:
        folder.begin(step)
        folder.commit(step, loss, MODEL)
    assert [each.step for each in folder.saved()] == [2, 5]
    assert os.readlink(tmp_path / "best") == "step-000002"
    assert os.readlink(tmp_path / "last") == "step-000005"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last", "step-000002", "step-000005"]


def test_with_room_for_one_the_last_stays_and_is_the_best_of_all(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, limit=1)
    for step, loss in [(1, 1.0), (2, 2.0), (3, None)]:
        folder.begin(step)
        folder.commit(step, loss, MODEL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step-000003"]


def test_a_step_that_is_come_to_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for content in ("first", "second"):
        (folder.begin(1) / "content").write_text(content)
        folder.commit(1, None, MODEL)
    assert (tmp_path / "step-000001" / "content").read_text() == "second"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_that_goes_on_from_an_earlier_step_has_its_own_checkpoints_as_the_last(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, limit=2)
    for step in (2, 4, 6, 3):
        folder.begin(step)
        folder.commit(step, None, MODEL)
    last = folder.find("latest")
    assert last is not None
    assert last.step == 3
    assert [each.step for each in folder.saved()] == [6, 3]
    assert os.readlink(tmp_path / "last") == "step-000003"


def test_sigusr1_saves_and_goes_on(tmp_path: Path) -> None:
    run(tmp_path, Options(every=100, validate=100), At(2, signal.SIGUSR1))
    assert names(tmp_path) == ["step-000002", "step-000007"]


def test_sigterm_saves_and_stops_and_the_run_goes_on_as_if_nothing_had_been(
    whole: tuple[Path, Toy], tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    options = Options(every=100, validate=100)
    with pytest.raises(TrainingStopped, match="SIGTERM after step 4, which is saved"):
        run(tmp_path, options, At(4, signal.SIGTERM))
    assert names(tmp_path) == ["step-000004"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == before
    resumed = run(tmp_path, replace(options, resume="latest"))
    assert resumed.losses == {step: loss for step, loss in whole[1].losses.items() if step > 4}


def test_a_loss_that_is_no_number_stops_the_run_and_says_where_and_what_is_left(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"step 5: the loss is nan; .* go on from step-000004, the last good"):
        run(tmp_path, Options(nan_at=5))
    assert names(tmp_path)[-1] == "step-000004"
    state = torch.load(tmp_path / "checkpoints" / "last" / STATE, weights_only=True)
    assert all(torch.isfinite(weight).all() for weight in state["current_model_state"].values())
    assert max(run(tmp_path, Options(resume="latest")).losses) == 7


def test_weights_that_a_gradient_has_spoilt_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"step 4: trained\.weight holds .* go on from step-000003"):
        run(tmp_path, Options(nan_weight_at=4))
    assert names(tmp_path) == ["step-000002", "step-000003"]


def test_a_checkpoint_of_another_model_is_refused_with_both_named(whole: tuple[Path, Toy]) -> None:
    last = CheckpointFolder(whole[0] / "checkpoints").last()
    assert last is not None
    check_model(last, MODEL)
    with pytest.raises(TrainError, match=r"another model \(base toy\) than this run's \(base other\); resume with"):
        check_model(last, {**MODEL, "base": "other"})
    with pytest.raises(TrainError, match=r"\(rank none\) than this run's \(rank 4\)"):
        check_model(last, {**MODEL, "rank": "4"})


def test_what_is_no_checkpoint_is_refused_with_those_there_are(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.find("latest") is None
    folder.refuse_to_mix()
    folder.begin(3)
    saved = folder.commit(3, None, MODEL)
    for which in ("step-000003", str(saved.path), "last", "latest"):
        found = folder.find(which)
        assert found is not None
        assert found.step == 3
    with pytest.raises(TrainError, match=r"step-000004: is no checkpoint; .* has step-000003: name one"):
        folder.find("step-000004")
    with pytest.raises(TrainError, match="has checkpoints of an earlier run, up to step-000003"):
        folder.refuse_to_mix()


def test_a_damaged_checkpoint_is_refused_with_one_sentence(whole: tuple[Path, Toy], tmp_path: Path) -> None:
    shutil.copytree(whole[0] / "checkpoints" / "step-000003", tmp_path / "checkpoints" / "step-000003")
    path = tmp_path / "checkpoints" / "step-000003" / STATE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainError, match=r"state\.ckpt: cannot be read as a checkpoint .* resume from another one"):
        run(tmp_path, replace(EVERY_STEP, resume="latest"))


@pytest.mark.parametrize("content", [b"", b"a text of two lines,\nand no checkpoint\n", b"PK\x03\x04"])
def test_what_is_no_checkpoint_s_file_is_one_sentence_too(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(
        TrainError, match=r"state\.ckpt: cannot be read as a checkpoint \(.+\); resume from another one"
    ):
        StateFile(Toy(Options())).load_checkpoint(tmp_path / STATE)


def test_an_error_that_says_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*given: Any, **how: Any) -> None:
        raise EOFError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(TrainError, match=r"cannot be read as a checkpoint \(EOFError\)"):
        StateFile(Toy(Options())).load_checkpoint(tmp_path / STATE)
