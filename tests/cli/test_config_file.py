"""``--config`` and ``--print-config`` of a command of its own, and of ``serve``."""

from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mezzotint.cli import cli
from mezzotint.cli.config_file import ConfigurableCommand
from mezzotint.cli.errors import run

FILE = """\
bundles: [one, two]
port: 9000
num_threads: 3
drain-seconds: 5
strict: true
memory-budget: 2.5GiB
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


def effective(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """Return what ``serve`` would run with."""
    assert run(cli, ["serve", "--print-config", *map(str, arguments)]) == 0
    printed: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return printed


def test_the_file_goes_before_the_defaults(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = effective(capsys, "--config", config)
    assert found["bundles"] == ["one", "two"]
    assert (found["port"], found["num-threads"], found["drain-seconds"], found["strict"]) == (9000, 3, 5.0, True)
    assert found["memory-budget"] == int(2.5 * 2**30)
    assert found["max-queue-size"] == 256


def test_the_environment_goes_before_the_file_and_the_command_line_before_both(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEZZOTINT_SERVE_PORT", "9001")
    monkeypatch.setenv("MEZZOTINT_SERVE_NUM_THREADS", "4")
    monkeypatch.setenv("MEZZOTINT_SERVE_CONFIG", str(config))
    found = effective(capsys, "three", "--num-threads", "5")
    assert (found["bundles"], found["port"], found["num-threads"]) == (["three"], 9001, 5)


def test_variables_have_the_names_of_the_options(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEZZOTINT_SERVE_DEVICE", "vae=cpu")
    assert "cpu" in str(effective(capsys, "--config", config)["device"]).lower()


def test_the_environment_names_several_bundles_as_a_path_does(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEZZOTINT_SERVE_BUNDLES", "a:b")
    assert effective(capsys, "--config", config)["bundles"] == ["a", "b"]


def test_what_is_printed_is_a_file_that_gives_the_same(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = effective(capsys, "--config", config, "--host", "::1")
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(first), encoding="utf-8")
    assert effective(capsys, "--config", again) == first


def test_everything_that_is_wrong_is_said_in_one_sentence(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(
        "port: 70000\nprot: 1\nmax-queue-size: many\nmax_queue_size: 3\nstrict: 1\nhost: no\nbundles: one\n"
        "drain-seconds: true\nlog-level: loud\nmemory-budget: 2.5G\nconfig: other.yaml\nnum-threads:\n7: 8\n",
        encoding="utf-8",
    )
    assert run(cli, ["serve", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"mezzotint: {config}: port: 70000 is not in the range")
    assert len(said.splitlines()) == 1
    for problem in (
        "prot: is no option of mezzotint serve (did you mean port?)",
        "max-queue-size: must be a whole number, not 'many'",
        "max_queue_size: is given twice",
        "strict: must be true or false, not 1",
        "host: must be text (in quotes where it looks like something else), not true or false",
        "bundles: must be a list, not 'one'",
        "drain-seconds: must be a number, not true or false",
        "log-level: 'loud' is not one of",
        "memory-budget: '2.5G' is no size",
        "config: is no option of mezzotint serve",
        "num-threads: must be a whole number, not nothing",
        "7: is no option of mezzotint serve",
    ):
        assert problem in said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port: [", "is not YAML in UTF-8"),
        ("- port", "must be a mapping, `option: value` on each line"),
        ("!!python/object/apply:os.system ['true']: 1", "is not YAML in UTF-8"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_sentence(
    text: str, sentence: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(text, encoding="utf-8")
    assert run(cli, ["serve", "--config", str(config)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["serve", "--config", str(tmp_path / "none.yaml")]) == 2
    assert f"{tmp_path / 'none.yaml'}: cannot be read (no such file or directory)" in capsys.readouterr().err


def test_an_empty_file_changes_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("# nothing yet\n", encoding="utf-8")
    assert effective(capsys, "a", "--config", config) == effective(capsys, "a")


def test_an_option_that_a_command_gets_later_is_a_key_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command(cls=ConfigurableCommand)
    @click.option("--tag", "tags", multiple=True, type=click.IntRange(max=9))
    @click.option("--other-name", "short")
    def command(tags: tuple[int, ...], short: str | None) -> None:
        click.echo(f"{tags} {short}")

    config.write_text("tag: [1, 2]\nother_name: x\n", encoding="utf-8")
    assert run(command, ["--config", str(config)]) == 0
    assert capsys.readouterr().out == "(1, 2) x\n"
    config.write_text("tags: [1, ten, 11]\n", encoding="utf-8")
    assert run(command, ["--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert "tags: must be a whole number, not 'ten'; tags: 11 is not in the range" in said


def test_a_file_really_starts_a_server_where_it_says(emoji_bundle: Path, config: Path) -> None:
    from tests.cli.conftest import started

    config.write_text(f"bundles: [{emoji_bundle}]\nport: 0\nhost: localhost\nno-cache: true\n", encoding="utf-8")
    with started("--config", config) as (process, address):
        assert address.startswith("localhost:")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "devices"), [("device: cpu", ["cpu"]), ("device: [cpu, gpu.0]", ["cpu", "gpu.0"]), ("port: 1", [])]
)
def test_an_option_that_may_be_given_several_times_needs_no_list_for_one(
    text: str, devices: list[str], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(f"{text}\nhandshake-seconds: 3\nunread-seconds: 4\n", encoding="utf-8")
    found = effective(capsys, "one", "--config", config)
    assert (found["device"], found["handshake-seconds"], found["unread-seconds"]) == (devices, 3.0, 4.0)
