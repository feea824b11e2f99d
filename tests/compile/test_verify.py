"""The line that verify draws, where numbers are none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.reference import record
from mezzotint.compile.verify import snr_db
from mezzotint.engines.errors import CompileError


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_as_far_off_as_can_be_on_either_side(bad: float) -> None:
    good, broken = np.ones(4, np.float32), np.array([1, 1, bad, 1], np.float32)
    assert snr_db(good, good) == 200
    assert snr_db(good, broken) == snr_db(broken, good) == snr_db(broken, broken) == -200


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::RuntimeWarning")
def test_a_model_of_which_torch_itself_makes_no_numbers_is_refused_in_a_sentence(sd15_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(sd15_checkpoint)
    torch.nn.init.constant_(checkpoint.unet.conv_out.weight, float("inf"))
    with pytest.raises(CompileError, match="torch itself makes NaN or infinity of the prompts"):
        record(checkpoint, ("a cat",), 64, 64, lambda done: None)
