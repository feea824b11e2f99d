import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from mezzotint.cli import cli


def capacity(bundle: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["capacity", str(bundle), *options])
    return done.exit_code, done.output


def enough(output: str) -> int:
    """Return the number of replicas in the row that says so."""
    (found,) = re.findall(r"│\s+(\d+) │[^\n]*enough", output)
    return int(found)


def test_more_pictures_a_second_need_more_replicas_and_the_table_says_how_many(emoji_bundle: Path) -> None:
    found = []
    for rate in ("1", "60", "600"):
        code, output = capacity(emoji_bundle, "--rate", rate, "--p99", "20", "--steps", "8:0.7", "--steps", "25:0.3")
        assert code == 0, output
        assert "pictures a second at the most" in output
        found.append(enough(output))
    assert found == sorted(set(found))


def test_a_picture_that_takes_too_long_alone_is_said_in_one_sentence(emoji_bundle: Path) -> None:
    code, output = capacity(emoji_bundle, "--rate", "1", "--p99", "0.0001")
    assert code == 1
    assert "no number of replicas is enough" in output


@pytest.mark.parametrize("steps", ["0", "a", "8:0", "8:-1", "8:inf", "8:0.5:2", ""])
def test_steps_that_are_none_are_refused(emoji_bundle: Path, steps: str) -> None:
    code, output = capacity(emoji_bundle, "--rate", "1", "--p99", "1", "--steps", steps)
    assert code == 2
    assert "STEPS or STEPS:SHARE" in output
