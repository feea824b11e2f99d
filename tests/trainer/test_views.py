import io
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mezzotint.trainer import progress
from mezzotint.trainer.chart import chart
from mezzotint.trainer.ema import MovingAverage
from mezzotint.trainer.loggers import make_loggers, read_lines
from mezzotint.trainer.progress import RunProgress
from mezzotint.trainer.samples import Samples, samples_by_step
from mezzotint.trainer.sheet import PAGE, SHEET, contact_sheet, write_sheet
from tests.conftest import ROOT
from tests.trainer.toy import Options, Toy, run, toy_trainer

Pictures = list[npt.NDArray[np.uint8]]


def paint(prompts: Sequence[str], seeds: Sequence[int]) -> Pictures:
    """Paint grey squares, after drawing a random number, which a run must not notice."""
    torch.rand(1)
    return [np.full((16, 24, 3), 40 * seed, np.uint8) for seed in seeds]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy]:
    """A run with sample pictures and TensorBoard."""
    folder = tmp_path_factory.mktemp("watched")
    module = Toy(Options())
    samples = Samples(folder / "samples", "a photo of a sks cat", 2, 3, paint)
    trainer, keys = toy_trainer(folder, Options(), module, samples)
    trainer.loggers = make_loggers("tensorboard", folder / "logs", "toy")
    trainer.fit(module, keys)
    return folder, module


def test_every_step_has_its_loss_and_rate_and_every_epoch_its_time_and_memory(watched: tuple[Path, Toy]) -> None:
    lines = read_lines(watched[0] / "logs")
    losses = {step: loss / Options.accumulation for step, loss in watched[1].losses.items()}
    assert sorted(lines) == list(range(8))
    assert {step: lines[step]["train/loss"] for step in range(1, 8)} == pytest.approx(losses)
    assert [lines[step]["lr"] for step in range(1, 8)] == pytest.approx([0.1 / step for step in range(1, 8)])
    assert [step for step in lines if "val/loss" in lines[step]] == [0, 3, 6, 7]
    assert [step for step in lines if "epoch_seconds" in lines[step]] == [3, 6, 7]
    assert 10 < lines[3]["peak_memory_mib"] < 100_000
    assert lines[7]["val/loss"] < lines[0]["val/loss"]


def test_tensorboard_has_the_same_numbers_and_the_pictures(watched: tuple[Path, Toy]) -> None:
    lines = read_lines(watched[0] / "logs")
    events = EventAccumulator(str(watched[0] / "logs" / "tensorboard"))
    events.Reload()
    for name in ("train/loss", "val/loss", "lr"):
        written = {event.step: event.value for event in events.Scalars(name)}
        assert written == pytest.approx({step: values[name] for step, values in lines.items() if name in values})
    assert {event.step for event in events.Images("samples")} == {0, 3, 6, 7}


def test_watching_changes_nothing_of_a_run(watched: tuple[Path, Toy], tmp_path: Path) -> None:
    assert run(tmp_path, Options(validate=100)).losses == watched[1].losses


def test_samples_lie_by_step_and_number(watched: tuple[Path, Toy]) -> None:
    samples = samples_by_step(watched[0] / "samples")
    assert {step: [path.name for path in paths] for step, paths in samples.items()} == {
        step: [f"step-{step:06d}-0.png", f"step-{step:06d}-1.png"] for step in (0, 3, 6, 7)
    }
    with Image.open(samples[3][1]) as picture:
        assert picture.getpixel((0, 0)) == (40, 40, 40)


def test_an_average_is_shown_on_the_way_and_taken_away_again(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    module = Toy(Options())

    def look(prompts: Sequence[str], seeds: Sequence[int]) -> Pictures:
        seen.append(module.trained.bias.detach().clone())
        assert not module.dropout.training
        return paint(prompts, seeds)

    trainer, keys = toy_trainer(tmp_path, Options(), module)
    average = next(each for each in trainer.callbacks if isinstance(each, MovingAverage))
    trainer.callbacks.insert(-1, Samples(tmp_path / "samples", "a cat", 1, 3, look, average.shown))
    trainer.fit(module, keys)
    assert module.dropout.training
    state = torch.load(tmp_path / "checkpoints" / "last" / "state.ckpt", weights_only=True)
    assert torch.equal(seen[-1], state["state_dict"]["trained.bias"])
    assert torch.equal(module.trained.bias, seen[-1])  # a run ends with the average
    assert not torch.equal(seen[-1], state["current_model_state"]["trained.bias"])


@pytest.mark.gpu
def test_an_average_lies_on_the_device_of_the_weights_that_it_is_of() -> None:
    module, average, trainer = Toy(Options()), MovingAverage(0.9), Trainer(logger=False)
    average.setup(trainer, module, "fit")  # as Lightning does, while the module is on the CPU
    module.to("cuda")
    average.on_train_start(trainer, module)
    assert average._average_model is not None
    assert {weight.device.type for weight in average._average_model.parameters()} == {"cuda"}
    average._average_model.update_parameters(module)


class _Page(HTMLParser):
    """Collects what a page shows."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_run_has_a_page_that_shows_what_it_learned_and_painted(
    watched: tuple[Path, Toy], subject: list[Path]
) -> None:
    folder = watched[0]
    write_sheet(folder, "a photo of a <sks> cat", {"base": "emoji", "model": "0123456789ab"}, subject)
    page = _Page()
    page.feed((folder / PAGE).read_text(encoding="utf-8"))
    embedded = [source for source in page.sources if source.startswith("data:image/png;base64,")]
    linked = [source for source in page.sources if source not in embedded]
    assert len(embedded) == 5
    assert len(linked) == 8
    assert all((folder / source).is_file() for source in linked)
    for words in ("a photo of a <sks> cat", "emoji", "Loss on fixed noise", "Learning rate", "most memory", "step 7"):
        assert words in page.text
    with Image.open(folder / SHEET) as sheet:
        assert sheet.height == 8 + 5 * 136  # the subject, and four steps
        assert sheet.width > 5 * 136
        shown = np.asarray(sheet.convert("RGB"))
    assert (shown[8 + 2 * 136 + 64] == 40).any()  # the second sample of step 3
    assert len({tuple(pixel) for pixel in shown[8:136].reshape(-1, 3)}) > 100  # the subject's colours


def test_a_run_without_samples_or_pictures_has_a_page_of_numbers_alone(tmp_path: Path) -> None:
    run(tmp_path)
    write_sheet(tmp_path, "a run", {}, [])
    assert "<svg" in (tmp_path / PAGE).read_text(encoding="utf-8")
    assert not (tmp_path / SHEET).exists()


def test_a_contact_sheet_has_a_row_for_each_name() -> None:
    red, blue = (Image.new("RGB", (128, 128), colour) for colour in ("red", "blue"))
    sheet = np.asarray(contact_sheet([("learned", [red]), ("step 100", [blue, red])]))
    assert (sheet[70] == (255, 0, 0)).all(axis=-1).sum() == 128
    assert (sheet[206] == (0, 0, 255)).all(axis=-1).sum() == 128
    assert (sheet[206] == (255, 0, 0)).all(axis=-1).sum() == 128


@pytest.mark.parametrize("values", [[1.0, 1.0], [3.0, float(2), 1.0], list(range(200, 0, -1))])
def test_a_chart_is_a_picture_whose_points_lie_within_it(values: list[float]) -> None:
    drawn = ET.fromstring(chart(list(enumerate(values, 1))))
    lines = [line.attrib["points"].split() for line in drawn.iter("polyline")]
    assert len(lines) == (2 if len(values) >= 50 else 1)
    points = np.array([[float(part) for part in point.split(",")] for line in lines for point in line])
    assert (points >= 0).all()
    assert (points <= (800, 200)).all()
    assert f"step {len(values)}" in "".join(drawn.itertext())


def test_a_terminal_sees_a_bar_with_loss_and_time_left(tmp_path: Path) -> None:
    screen = io.StringIO()
    run(tmp_path, Options(), RunProgress(Console(file=screen, force_terminal=True, width=100)))
    assert "7/7" in screen.getvalue()
    assert "loss 0." in screen.getvalue()
    assert "left" in screen.getvalue()


def test_a_log_file_gets_lines_and_no_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    screen = io.StringIO()
    run(tmp_path, Options(), RunProgress(Console(file=screen)))
    lines = screen.getvalue().splitlines()
    assert lines[-1].startswith("step 7 of 7, loss ")
    assert lines[-1].endswith(", 0:00 left")
    assert "\x1b" not in screen.getvalue()


@pytest.mark.slow
def test_weights_and_biases_gets_numbers_and_pictures_without_a_network(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
from tests.trainer.toy import Options, Toy, toy_trainer
from mezzotint.trainer.loggers import make_loggers
from mezzotint.trainer.samples import Samples
folder = Path(sys.argv[1])
module = Toy(Options())
paint = lambda prompts, seeds: [np.full((16, 24, 3), 40 * seed, np.uint8) for seed in seeds]
trainer, keys = toy_trainer(folder, Options(), module, Samples(folder / "samples", "a cat", 2, 3, paint))
trainer.loggers = make_loggers("all", folder / "logs", "toy")
trainer.fit(module, keys)
trainer.loggers[-1].experiment.finish()
"""
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(tmp_path), "WANDB_SILENT": "true"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**environment, **nowhere},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb")
    content = written.read_bytes()
    assert all(name in content for name in (b"train/loss", b"val/loss", b"samples"))
    assert len(list(written.parent.glob("files/media/images/*.png"))) == 8


def test_only_what_is_asked_for_is_told(tmp_path: Path) -> None:
    assert len(make_loggers("none", tmp_path, "toy")) == 1
    assert isinstance(make_loggers("tensorboard", tmp_path, "toy")[1], TensorBoardLogger)


def test_a_line_that_a_killed_process_left_half_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 2, "a": 1}\n{"step": 1, "a": 3}\n{"step": 2, "b": 2}\n{"step": 3, "a'
    )
    assert read_lines(tmp_path) == {1: {"a": 3}, 2: {"a": 1, "b": 2}}
