"""One compiler for every kind of source: a single file becomes the same bundle as its folder."""

from pathlib import Path

import pytest
from safetensors.torch import save_file

from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.engines.manifest import read_manifest
from mezzotint.trainer.single_file import compvis_state
from tests.conftest import BUILD, EMOJI, compile_by_hand

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.slow
def test_a_single_file_with_a_config_becomes_the_folders_bundle(emoji_bundle: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(EMOJI)
    file = tmp_path / "emoji.safetensors"
    save_file(compvis_state(checkpoint.text_encoder, checkpoint.unet, checkpoint.vae), file)
    bundle = compile_by_hand(file, BUILD / "emoji-file", "--config", str(EMOJI), "--precision", "fp32")
    assert read_manifest(bundle).source.digest == read_manifest(emoji_bundle).source.digest
    assert read_manifest(bundle).engines == read_manifest(emoji_bundle).engines
