import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mezzotint.engines.errors import MezzotintError
from mezzotint.server.ray.deploy import build


def deploy(*options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "mezzotint", "deploy-ray", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_without_ray_it_says_what_to_install(emoji_bundle: Path) -> None:
    assert importlib.util.find_spec("ray") is None, "this environment has none, so that the sentence is seen"
    assert deploy("--bundle", str(emoji_bundle)) == (
        1,
        "mezzotint: Ray is not installed; `pip install 'mezzotint[ray]'`\n",
    )


def test_a_bundle_that_is_not_there_is_said_before_any_cluster_is_started() -> None:
    code, said = deploy("--bundle", "nowhere")
    assert code == 3
    assert said.startswith("mezzotint: nowhere")


def test_a_word_that_cannot_be_read_is_said_before_any_cluster_is_started(emoji_bundle: Path) -> None:
    code, said = deploy("--bundle", str(emoji_bundle), "--embedding", "moody=nowhere.pt")
    assert code == 3
    assert said.startswith("mezzotint: embedding ")
    assert "nowhere.pt: cannot be read" in said


def test_options_are_checked_before_any_cluster_is_started() -> None:
    code, said = deploy("--bundle", "nowhere", "--autoscale", "8:2")
    assert (code, said) == (1, "mezzotint: autoscale=8:2: must be MIN:MAX with 1 <= MIN <= MAX\n")


def test_arguments_of_a_config_file_that_there_are_not_are_named(tmp_path: Path) -> None:
    with pytest.raises(MezzotintError, match=r"args: .*'replcas'"):
        build({"bundle": str(tmp_path), "replcas": 2})
