"""``mezzotint compile``: its options become a job; what it shows works on a terminal and in a log."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mezzotint.cli import cli
from mezzotint.cli.compile import command
from mezzotint.cli.errors import run
from mezzotint.cli.progress import CompileProgress, size_text
from mezzotint.compile.job import LoraFile, StageEvent, Status, read_prompts
from mezzotint.engines.manifest import AxisRange


def options(*arguments: str) -> dict[str, Any]:
    return command.make_context("compile", ["model", "-o", "bundle", *arguments]).params


@pytest.mark.parametrize(
    ("text", "axis"),
    [("512", AxisRange(min=512, opt=512, max=512)), ("256:512:768", AxisRange(min=256, opt=512, max=768))],
)
def test_a_side_is_one_length_or_a_range(text: str, axis: AxisRange) -> None:
    assert options("--height", text)["height"] == axis
    assert options("--width", text)["width"] == axis
    assert options()["height"] is None


@pytest.mark.parametrize("text", ["", "a", "1:2", "512:256:768", "0", "-64", "1:2:3:4", "٥"])
def test_a_side_that_is_neither_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["compile", "model", "-o", "bundle", "--height", text]) == 2
    assert "'--height'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("int8", {"": "int8"}),
        ("unet=int8,vae=fp32", {"": "auto", "unet": "int8", "vae_decoder": "fp32", "vae_encoder": "fp32"}),
        ("bf16, text=fp32", {"": "bf16", "text_encoder": "fp32"}),
    ],
)
def test_a_precision_is_for_all_or_by_component(text: str, precision: dict[str, str]) -> None:
    assert options("--precision", text)["precision"] == precision
    assert options()["precision"] == {"": "auto"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("int9", "'int9' must be one of auto, fp32"),
        ("unett=int8", "'unett' is no component; use text, vae"),
        ("unet=", "'' must be one of"),
    ],
)
def test_a_precision_that_is_unknown_is_a_usage_error(text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["compile", "model", "-o", "bundle", "--precision", text]) == 2
    assert says in capsys.readouterr().err


def test_a_file_without_prompts_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "prompts.txt"
    empty.write_text("\n \n")
    assert run(cli, ["compile", "model", "-o", str(tmp_path / "b"), "--calibration-prompts", str(empty)]) != 0
    assert f"{empty}: holds no prompt; write one a line" in capsys.readouterr().err
    empty.write_text("a cat\n\n a dog \n", encoding="utf-8")
    assert read_prompts(empty) == ("a cat", "a dog")


def test_an_option_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEZZOTINT_COMPILE_PRECISION", "int9")
    assert run(cli, ["compile", "model", "-o", "bundle"]) == 2
    assert "int9" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing"
    assert run(cli, ["compile", str(missing), "-o", str(tmp_path / "b"), "--cache", str(tmp_path / "c")]) == 3
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mezzotint: ")]
    assert str(missing) in sentence
    assert not (tmp_path / "b").exists()


EVENTS = (
    StageEvent("export unet", Status.STARTED),
    StageEvent("export unet", Status.PROGRESS, "step 1", 0.5),
    StageEvent("export unet", Status.BUILT, seconds=12.34, num_bytes=45_600_000),
    StageEvent("verify [unet]", Status.REUSED, "71 dB", seconds=0.01),
    StageEvent("build vae", Status.FAILED, "no room", seconds=1.0),
)


@pytest.mark.parametrize("terminal", [True, False])
def test_each_finished_stage_is_one_line_on_a_terminal_and_in_a_log(terminal: bool) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=160, highlight=False, color_system=None)
    with CompileProgress(console) as progress:
        for event in EVENTS:
            progress.report(event)
    lines = [" ".join(line.split()) for line in shown.getvalue().splitlines()]
    wanted = [
        "export unet BUILT 12.3 s 45.6 MB",
        "verify [unet] REUSED 0.0 s 71 dB",
        "build vae FAILED 1.0 s no room",
    ]
    if terminal:
        assert all(any(want in line for line in lines) for want in wanted)
    else:
        assert lines == wanted


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (843, "843 B"), (1200, "1.2 kB"), (45_600_000, "45.6 MB"), (999_600, "1.0 MB"), (3.5e9, "3.5 GB")],
)
def test_sizes_read_as_people_say_them(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text


@pytest.mark.parametrize(("arguments", "branch"), [((), None), (("--step-cache",), 0), (("--step-cache", "1"), 1)])
def test_step_caching_is_off_or_of_a_branch(arguments: tuple[str, ...], branch: int | None) -> None:
    assert options(*arguments)["step_cache"] == branch
    assert options(*arguments, "--name", "x")["step_cache"] == branch


@pytest.mark.parametrize("option", [("--step-cache", "x"), ("--decoder-parts", "0"), ("--tiny-decoder", "missing")])
def test_a_variant_that_cannot_be_is_a_usage_error(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["compile", "model", "-o", "bundle", *option]) == 2
    assert f"'{option[0]}'" in capsys.readouterr().err


def test_the_decoders_parts_are_measured_unless_they_are_counted(tmp_path: Path) -> None:
    assert options()["decoder_parts"] is None
    given = options("--decoder-parts", "3", "--tiny-decoder", str(tmp_path))
    assert (given["decoder_parts"], given["tiny_decoder"]) == (3, tmp_path)


def test_a_lora_is_a_file_with_or_without_a_weight(tmp_path: Path) -> None:
    named = tmp_path / "of:2"
    named.write_bytes(b"")
    found = options("--lora", "ink.safetensors", "--lora", "a/wash.pt:-0.5", "--lora", str(named))["loras"]
    assert found == (LoraFile(Path("ink.safetensors")), LoraFile(Path("a/wash.pt"), -0.5), LoraFile(named))
    assert options()["loras"] == ()


def test_a_lora_with_a_weight_that_is_no_number_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["compile", "model", "-o", "bundle", "--lora", "ink.safetensors:much"]) == 2
    assert "'much' must be a number such as 0.8" in capsys.readouterr().err
