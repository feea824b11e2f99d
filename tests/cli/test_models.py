"""``mezzotint models``: what it says, on a server of fake engines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mezzotint.cli import cli
from mezzotint.cli.errors import run
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import LifecycleConfig
from tests.server.bundles import FakeLoader, write_bundle
from tests.threads import in_a_thread


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a server of one model, in a thread of its own."""
    write_bundle(tmp_path, "one", name="model")
    write_bundle(tmp_path, "two", name="model", sampler="euler")

    async def make() -> Server:
        server = Server(Catalog(), loader=FakeLoader(), lifecycle=LifecycleConfig(tmp_path))
        await server.lifecycle.start([tmp_path / "one"])
        return server

    with in_a_thread(make) as address:
        yield address


def test_models_are_listed_swapped_and_unloaded(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*arguments: str) -> str:
        assert run(cli, ["models", *arguments, "--server", address]) == 0
        return capsys.readouterr().out

    table = say().splitlines()
    assert table[0].split() == ["model", "version", "state", "pictures", "engines"]
    name, old, *rest = table[1].split()
    assert (name, rest) == ("model", ["ready", "32x32", "fp32", "fake"])
    swapped = say("load", "two").split()
    new = swapped[2]
    assert swapped == ["model:", "version", new, "is", "served,", "in", "place", "of", old]
    assert new in say("list")
    assert say("unload", "model") == "model: unloaded; it finished what it had accepted\n"
    assert say("list") == "no model is served; load one with `mezzotint models load NAME`\n"
    assert say("load", "one") == f"model: version {old} is served\n"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["load"], 2, "`load` needs a NAME."),
        (["list", "model"], 2, "`list` takes no NAME."),
        (["swap", "model"], 2, "'swap' is not one of"),
        (["load", "three"], 2, "mezzotint: bundle='three': is not in the model repository; it has one, two"),
        (["unload", "three"], 2, "mezzotint: model='three': is not served here; use model"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    address: str, arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["models", *arguments, "--server", address]) == code
    assert sentence in capsys.readouterr().err


def test_no_server_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["models", "--server", "127.0.0.1:1"]) == 5
    assert "no Mezzotint server answers there" in capsys.readouterr().err
