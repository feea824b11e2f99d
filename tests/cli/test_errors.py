"""Exit codes and sentences: the one table, and what is not in it."""

import os
import subprocess
import sys

import click
import pytest

from mezzotint.cli import cli
from mezzotint.cli.errors import EXIT_CODES, INTERRUPTED, CannotWrite, exit_code, run
from mezzotint.engines import errors
from tests.conftest import ROOT


def command(error: BaseException) -> click.Command:
    @click.command()
    def fails() -> None:
        raise error

    return fails


def every_error() -> list[type[errors.MezzotintError]]:
    found = [errors.MezzotintError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return found


@pytest.mark.parametrize("kind", every_error())
def test_every_error_is_one_sentence_and_a_code(
    kind: type[errors.MezzotintError], capsys: pytest.CaptureFixture[str]
) -> None:
    error = (
        kind("what, got, expected", retry_after_ms=1)
        if issubclass(kind, errors.QueueFull)
        else kind("what, got, expected")
    )
    code = run(command(error), [])
    assert code == exit_code(error) != 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "mezzotint: what, got, expected\n")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidRequest, 2),
        (errors.BundleError, 3),
        (errors.CheckpointError, 3),
        (errors.CompileError, 4),
        (errors.VerifyError, 4),
        (errors.TrainConfigError, 2),
        (errors.TrainError, 4),
        (errors.Unavailable, 5),
        (errors.DeadlineExpired, 5),
    ],
)
def test_the_codes_are_the_documented_ones(kind: type[errors.MezzotintError], code: int) -> None:
    assert exit_code(kind("x")) == code
    assert EXIT_CODES[errors.MezzotintError] == 1


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(command(ZeroDivisionError()), [])


def test_a_package_that_is_not_installed_is_named_with_the_extra_that_has_it() -> None:
    code = "import sys; sys.modules['transformers'] = None; from mezzotint.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "compile", "models/emoji", "-o", "never"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": "src"}, cwd=ROOT
    )
    assert done.returncode == 3
    assert done.stderr.endswith("mezzotint: transformers is not installed; run `pip install 'mezzotint[compile]'`\n")
    assert not (ROOT / "never").exists()


def test_control_c_exits_as_shells_expect() -> None:
    assert run(command(KeyboardInterrupt()), []) == INTERRUPTED == 130


def test_what_cannot_be_written_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(CannotWrite("a.png", OSError(28, "No space left on device"))), []) == 6
    assert capsys.readouterr().err == (
        "mezzotint: a.png: cannot be written (no space left on device); choose another place or make room\n"
    )


def test_bytes_that_are_no_text_do_not_break_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(errors.InvalidRequest("prompt 'a\udcff'")), []) == 2
    assert capsys.readouterr().err == "mezzotint: prompt 'a\\udcff'\n"


def test_an_unknown_command_or_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["paint"]) == 2
    assert "No such command 'paint'" in capsys.readouterr().err
    assert run(cli, ["inspect", "--colour"]) == 2


def test_help_lists_the_commands_that_people_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("compile", "serve", "generate", "inspect"))
    assert "demo" not in out
