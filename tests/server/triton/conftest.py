"""The demo model exported, served by the real Triton."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as client
from safetensors.numpy import save_file

from mezzotint.engines.embedding_file import EmbeddingPath
from mezzotint.engines.manifest import read_manifest
from mezzotint.server.triton.export import ExportOptions, export
from tests.server.triton.environment import Triton, tritonserver


@pytest.fixture(scope="module")
def word(emoji_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingPath:
    """A textual-inversion file whose word is `grim`: two of the demo model's own words."""
    table = np.load(emoji_bundle / read_manifest(emoji_bundle).text.embeddings, mmap_mode="r")
    path = tmp_path_factory.mktemp("words") / "two.safetensors"
    save_file({"emb_params": np.ascontiguousarray(table[[500, 900]], np.float32)}, path)
    return EmbeddingPath(path, "grim")


@pytest.fixture(scope="module")
def served(emoji_bundle: Path, word: EmbeddingPath, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Triton with the two models of the demo bundle, which may be unloaded and loaded again."""
    folder = tmp_path_factory.mktemp("triton")
    export(emoji_bundle, folder / "repository", ExportOptions(link=True, embeddings=(word,)))
    options = ("--model-control-mode=explicit", "--load-model=*")
    with tritonserver(folder / "repository", folder / "log", *options) as triton:
        yield triton


@pytest.fixture
def connection(served: Triton) -> Iterator[client.InferenceServerClient]:
    with client.InferenceServerClient(served.grpc) as made:
        yield made
