"""How the benchmark beside other engines is told of Mezzotint's own rows, and what its catalogue has to hold."""

from argparse import ArgumentTypeError
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.peers.bundles import read_bundle
from benchmarks.peers.catalog import EXPORTS, PEERS, peers_configurations
from mezzotint.engines.request import Request


def test_a_bundle_is_a_name_a_folder_and_any_field_of_a_request() -> None:
    row = read_bundle("int8=build/x,cache_interval=3,guidance_end=0.6,decoder=tiny,cache_schedule=0:5:10")
    assert row.bundle == Path("build/x")
    assert row.settings == {
        "cache_interval": 3,
        "guidance_end": 0.6,
        "decoder": "tiny",
        "cache_schedule": (0, 5, 10),
    }
    assert Request(**row.settings).guidance_end == 0.6
    assert row.name == "Mezzotint: int8, cache_interval 3, guidance_end 0.6, decoder tiny, cache_schedule (0, 5, 10)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("build/x", "must be NAME=FOLDER"),
        ("int8=build/x,fast", "'fast' is no FIELD=VALUE"),
        ("int8=build/x,speed=9", "'speed' cannot be stated for one row"),
        ("int8=build/x,steps=2", "'steps' cannot be stated for one row"),
    ],
)
def test_what_is_no_bundle_is_refused_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ArgumentTypeError, match=says):
        read_bundle(text)


def test_rows_have_names_of_their_own_and_what_they_name_exists() -> None:
    found = peers_configurations()
    assert len({row.name for row in found}) == len(found)
    for row in found:
        assert row.peer in PEERS
        assert not row.export or row.export in EXPORTS
        assert find_spec(f"benchmarks.peers.workers.{row.worker}") is not None


def test_exports_are_made_by_their_own_peer_and_say_how() -> None:
    for export in EXPORTS.values():
        assert export.peer in PEERS
        assert bool(export.command) != bool(export.quantise)
        assert not export.needs or EXPORTS[export.needs].peer == export.peer


def test_every_peer_has_a_row_and_exact_versions() -> None:
    assert {row.peer for row in peers_configurations()} == PEERS.keys() - {"mezzotint"}
    torch = {part for peer in PEERS.values() for part in peer.requirements if part.startswith("torch==")}
    assert len(torch) == 1
    for peer in PEERS.values():
        named = [part for part in peer.requirements if part not in ("numpy", "pillow")]
        assert all("==" in part for part in named)
