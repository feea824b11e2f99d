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


def test_each_instance_counts_with_engines_of_its_own(emoji_bundle: Path, least: int) -> None:
    def of_two(num_bytes: int) -> MemoryBudget:
        options = replace(HERE, memory_budget=num_bytes)
        return MemoryBudget(options, [options])

    assert of_two(PROCESS + least).missing_bytes(emoji_bundle) == least
    with pytest.raises(OverMemoryBudget, match="serve fewer bundles or instances"):
        of_two(PROCESS + 2 * least - 1).plan([emoji_bundle])
    (both,) = of_two(PROCESS + 2 * least).plan([emoji_bundle])
    assert both.num_bytes() == 2 * least
    parts = [both.of_instance(i) for i in range(2)]
    assert [part.num_bytes() for part in parts] == [least, least]
    assert parts[0].shapes is parts[1].shapes is both.shapes


def test_a_bundle_gives_up_the_row_counts_that_gain_least(emoji_bundle: Path, least: int) -> None:
    options = LoadOptions(devices={}, cache=False, memory_budget=64 << 30)
    roomy = MemoryBudget(options)
    (held,) = roomy.plan([emoji_bundle])
    most = held.num_bytes()
    least = sum(engine.least_bytes() for engine in held.engines)
    assert roomy.shrink(held, most - least + 1) is None
    smaller = roomy.shrink(held, most - least)
    assert smaller is not None
    assert smaller.num_bytes() == least
    assert all(len(engine.counts) == 1 for engine in smaller.engines)
    tight = MemoryBudget(replace(options, memory_budget=PROCESS + most + least // 2))
    (held,) = tight.plan([emoji_bundle])
    missing = tight.missing_bytes(emoji_bundle)
    assert missing > 0
    assert tight.shrink(held, missing) is not None
    assert tight.missing_bytes(emoji_bundle) <= 0
    assert len(tight.plan([emoji_bundle])) == 1  # of fewer row counts, as room is left
