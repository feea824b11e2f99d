"""A checkpoint laid out as those of the hub are, so that every peer reads the same weights and the same words.

transformers 5 writes less than older versions and stable-diffusion.cpp can read, and reads what they do. Without this
transformers 5.5 paints with a random text encoder and says so in its log alone.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save_file

_PREFIX = "text_model."


def lay_out(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Write ``checkpoint`` to ``folder``: hard links, but for the text encoder's names and the tokenizer's files."""
    shutil.copytree(checkpoint, folder, copy_function=_link, dirs_exist_ok=True)
    name_tensors(folder / "text_encoder" / "model.safetensors")
    split_tokenizer(folder / "tokenizer")
    return {}


def name_tensors(path: Path) -> None:
    """Give the text encoder's tensors the prefix that transformers 5 drops."""
    with safe_open(path, framework="np") as file:
        names = list(file.keys())
        if any(name.startswith(_PREFIX) for name in names):
            return
        tensors = {_PREFIX + name: file.get_tensor(name) for name in names}
    path.unlink()  # a link: writing into it would change the checkpoint
    save_file(tensors, path, metadata={"format": "pt"})


def split_tokenizer(folder: Path) -> None:
    """Write vocabulary and merges, which tokenizer.json holds as well, as files of their own."""
    if (folder / "vocab.json").exists() or not (folder / "tokenizer.json").exists():
        return
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
