"""What an engine takes in memory, measured in a process of its own."""

import sys
from pathlib import Path

import pytest

from mezzotint.compile.resident import resident_by_rows
from mezzotint.engines.component import Component
from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import read_manifest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what a process takes")


def test_each_row_count_takes_at_least_its_packed_weights_and_not_several_times_that(emoji_bundle: Path) -> None:
    unet = read_manifest(emoji_bundle).engine(Component.UNET)
    weights = (emoji_bundle / "unet.bin").stat().st_size
    found = resident_by_rows(emoji_bundle, unet, "", (1, 2))
    assert set(found) == {1, 2}
    for num_bytes in found.values():
        assert weights * 0.8 < num_bytes < weights * 4


def test_an_engine_that_does_not_load_is_one_sentence(emoji_bundle: Path, tmp_path: Path) -> None:
    unet = read_manifest(emoji_bundle).engine(Component.UNET)
    with pytest.raises(CompileError, match=r"unet: its memory cannot be measured: .*engine file is missing"):
        resident_by_rows(tmp_path, unet, "", (1,))
