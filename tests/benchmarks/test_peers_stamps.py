"""What the benchmark beside other engines makes is kept, made again when it must be, and never harms the checkpoint."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from benchmarks.peers.layout import lay_out, name_tensors
from benchmarks.peers.stamps import fingerprint, made
from tests.conftest import EMOJI


def test_a_folder_is_made_once_for_one_source(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> dict[str, int]:
        calls.append(folder)
        (folder / "weights").write_text(str(len(calls)))
        return {"made": len(calls)}

    assert [made(tmp_path / "x", {"version": 1}, make)["made"] for _ in range(2)] == [1, 1]
    assert made(tmp_path / "x", {"version": 2}, make)["made"] == 2
    assert (tmp_path / "x" / "weights").read_text() == "2"


def test_a_folder_that_was_not_finished_is_made_again_from_nothing(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        made(tmp_path / "x", {}, interrupted)
    assert made(tmp_path / "x", {}, lambda folder: {"left": len(list(folder.iterdir()))})["left"] == 0


def test_a_fingerprint_follows_names_and_contents_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3_000_000) + b"one")
    digests = [fingerprint(tmp_path)]
    (tmp_path / "a").write_bytes(bytes(3_000_000) + b"two")
    digests.append(fingerprint(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    digests.append(fingerprint(tmp_path))
    assert len(set(digests)) == 3
    assert fingerprint(tmp_path) == digests[-1]


def test_a_laid_out_checkpoint_gives_the_same_text_states_and_leaves_the_original_alone(tmp_path: Path) -> None:
    before = fingerprint(EMOJI)
    lay_out(EMOJI, tmp_path / "laid-out")
    ids = torch.arange(24)[None]
    states = [
        transformers.CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)(ids)[0]
        for folder in (EMOJI, tmp_path / "laid-out")
    ]
    assert torch.equal(*states)
    assert fingerprint(EMOJI) == before
    named = (tmp_path / "laid-out" / "text_encoder" / "model.safetensors").read_bytes()
    assert b"text_model.embeddings" in named[:100_000]
    name_tensors(tmp_path / "laid-out" / "text_encoder" / "model.safetensors")
    assert (tmp_path / "laid-out" / "text_encoder" / "model.safetensors").read_bytes() == named


def test_a_tokenizer_gets_the_files_that_older_readers_need(sd15_checkpoint: Path, tmp_path: Path) -> None:
    lay_out(sd15_checkpoint, tmp_path / "laid-out")
    folder = tmp_path / "laid-out" / "tokenizer"
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    assert json.loads((folder / "vocab.json").read_text()) == model["vocab"]
    header, *merges = (folder / "merges.txt").read_text().splitlines()
    assert header.startswith("#version")
    assert [merge.split() for merge in merges] == [list(merge) for merge in model["merges"]]
