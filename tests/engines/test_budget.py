"""What the bundles of one process hold of its memory budget, as they come and go."""

from dataclasses import replace
from pathlib import Path

import pytest

from mezzotint.engines.budget import MemoryBudget
from mezzotint.engines.bundle import LoadOptions, wanted_engines
from mezzotint.engines.errors import OverMemoryBudget
from mezzotint.engines.memory import size_text

HERE = LoadOptions(devices={}, strict=True, cache=False)  # one row count, whatever this host gains from more
PROCESS = 400 << 20


@pytest.fixture
def least(emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of one row count of each of the demo model's engines, in a process that takes ``PROCESS``."""
    monkeypatch.setattr("mezzotint.engines.budget.process_bytes", lambda: PROCESS)
    return sum(engine.least_bytes() for engine in wanted_engines(emoji_bundle, HERE).values())


def budget(num_bytes: int | None) -> MemoryBudget:
    return MemoryBudget(replace(HERE, memory_budget=num_bytes))


def test_without_a_limit_nothing_is_missing(emoji_bundle: Path) -> None:
    unlimited = budget(None)
    assert all(unlimited.plan([emoji_bundle]) for _ in range(9))
    assert unlimited.missing_bytes(emoji_bundle) == 0


def test_a_bundle_holds_its_part_until_it_is_released(emoji_bundle: Path, least: int) -> None:
    tight = budget(PROCESS + least)
    assert tight.missing_bytes(emoji_bundle) == 0
    (held,) = tight.plan([emoji_bundle])
    assert (held.num_bytes(), tight.missing_bytes(emoji_bundle)) == (least, least)
    with pytest.raises(OverMemoryBudget, match="one row count of each engine needs"):
        tight.plan([emoji_bundle])
    tight.release(held)
    assert tight.missing_bytes(emoji_bundle) == 0
    assert len(tight.plan([emoji_bundle])) == 1


def test_all_bundles_share_one_place_for_compiled_shapes(emoji_bundle: Path, least: int) -> None:
    roomy = budget(PROCESS + 4 * least)
    (first,), (second,) = roomy.plan([emoji_bundle]), roomy.plan([emoji_bundle])
    assert first.shapes is second.shapes is not None
    first.shapes.claim("engine", ((1,),), 3 * least)
    first.shapes.keep("engine", ((2,),), "compiled", 2 * least)  # together more than the process has beside itself
    assert not first.shapes.has("engine", ((1,),))
    assert first.shapes.num_bytes == 2 * least


def test_a_refusal_names_what_is_needed_and_had(emoji_bundle: Path, least: int) -> None:
    tight = budget(PROCESS + least // 2)
    sentence = str(tight.refusal(emoji_bundle, 3 << 20))
    assert sentence.startswith(f"emoji: one row count of each engine needs {size_text(least)}, but ")
    assert f"{size_text(least // 2)} of the memory budget of" in sentence
    assert "idle bundles hold 3 MiB; unload one" in sentence
