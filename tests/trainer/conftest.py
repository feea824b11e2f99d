"""What tests of the trainer share: the emoji model as a base, and pictures of a subject that it has never seen."""

from pathlib import Path

import pytest

from mezzotint.trainer.base import Base
from tests.conftest import EMOJI, ROOT
from tests.trainer.bases import read_base

SUBJECT = ROOT / "models" / "subject"


@pytest.fixture(scope="session")
def base() -> Base:
    """The emoji model; what reads it leaves it as it is."""
    return read_base(EMOJI)


@pytest.fixture(scope="session")
def subject() -> list[Path]:
    """Five pictures of a turquoise cat."""
    return sorted(SUBJECT.glob("*.png"))
