"""The demo model exported, served by the real Triton."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as client

from mezzotint.server.triton.export import ExportOptions, export
from tests.server.triton.environment import Triton, tritonserver


@pytest.fixture(scope="module")
def served(emoji_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Triton with the two models of the demo bundle, which may be unloaded and loaded again."""
    folder = tmp_path_factory.mktemp("triton")
    export(emoji_bundle, folder / "repository", ExportOptions(link=True))
    options = ("--model-control-mode=explicit", "--load-model=*")
    with tritonserver(folder / "repository", folder / "log", *options) as triton:
        yield triton


@pytest.fixture
def connection(served: Triton) -> Iterator[client.InferenceServerClient]:
    with client.InferenceServerClient(served.grpc) as made:
        yield made
