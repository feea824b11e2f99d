"""What a manifest may hold: a component is whole, or in parts that follow each other."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from mezzotint.engines.component import Component
from mezzotint.engines.manifest import EngineEntry, Manifest
from tests.fake_manifest import fake_manifest

Entries = list[EngineEntry]


def changed(change: Callable[[Entries], Entries]) -> Manifest:
    """Validate a manifest again whose decoder's parts ``change`` has replaced."""
    manifest = fake_manifest(cut_decoder=True)
    parts = [entry for entry in manifest.engines if entry.component is Component.VAE_DECODER]
    rest = [entry for entry in manifest.engines if entry not in parts]
    return Manifest.model_validate(manifest.model_dump() | {"engines": [*rest, *change(parts)]})


def renamed(entry: EngineEntry, variant: str) -> EngineEntry:
    return entry.model_copy(update={"variant": variant})


def test_parts_in_any_order_are_accepted() -> None:
    assert changed(lambda parts: parts) == fake_manifest(cut_decoder=True)
    changed(lambda parts: parts[::-1])


def test_missing_or_doubtful_parts_are_refused() -> None:
    expected = r"vae_decoder has the engines .*, expected full, or part1 to partN"
    with pytest.raises(ValidationError, match=expected):
        changed(lambda parts: parts[1:])
    with pytest.raises(ValidationError, match=expected):
        changed(lambda parts: [*parts[:-1], renamed(parts[-1], "part9")])
    with pytest.raises(ValidationError, match=expected):
        changed(lambda parts: [*parts, renamed(parts[0], "full")])


def test_parts_that_do_not_fit_are_refused() -> None:
    def other_input(parts: Entries) -> Entries:
        (tensor,) = parts[1].inputs
        other = parts[1].model_copy(update={"inputs": (tensor.model_copy(update={"name": "else"}),)})
        return [parts[0], other, *parts[2:]]

    with pytest.raises(ValidationError, match=r"vae_decoder part1 gives .* but part2 takes .*else"):
        changed(other_input)
