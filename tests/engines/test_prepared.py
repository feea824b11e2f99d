"""Row counts: those that gain something, and of those the ones that fit in memory."""

import pytest

from mezzotint.engines.errors import BundleError
from mezzotint.engines.prepared import Wanted, fit, row_counts
from tests.fake_manifest import text_encoder, unets, whole_decoder

MIB = 1 << 20


def unet(step_ms: dict[int, float] | None = None, *, mib: int = 1000, packs: bool = True) -> Wanted:
    entry = unets(step_cache=False)[0]
    measured = {count: (mib + count) * MIB for count in (1, 2, 4)}
    ms = step_ms or {1: 10.0, 2: 19.0, 4: 30.0}
    return Wanted(entry.model_copy(update={"step_ms": ms, "resident_bytes": measured}), (1, 2, 4), 0, packs)


def text(mib: int = 100) -> Wanted:
    entry = text_encoder().model_copy(update={"step_ms": {1: 4.0, 2: 5.0}, "resident_bytes": {1: mib * MIB}})
    return Wanted(entry, (1, 2), mib * MIB, True)


def test_row_counts_stay_within_one_class_that_agrees_up_to_the_knee() -> None:
    entry = unets(step_cache=False)[0]
    flat = entry.model_copy(update={"step_ms": {1: 10.0, 2: 20.0, 4: 40.0, 8: 80.0}})
    steep = entry.model_copy(update={"step_ms": {1: 10.0, 2: 11.0, 4: 12.0, 8: 13.0}})
    apart = steep.model_copy(update={"row_classes": ((1,), (2, 4), (8,))})
    assert row_counts(flat) == (1, 2)  # what guidance takes
    assert row_counts(flat.model_copy(update={"row_classes": ((1,), (2, 4))})) == (2,)
    assert row_counts(text_encoder().model_copy(update={"step_ms": {1: 10.0, 2: 20.0}})) == (1,)
    assert row_counts(steep) == (1, 2, 4, 8)
    assert row_counts(apart) == (2, 4)
    assert row_counts(whole_decoder("full")) == (1,)


def test_everything_is_prepared_where_it_fits() -> None:
    assert fit([unet(), text()], 0, 10_000 * MIB) == [(1, 2, 4), (1, 2)]


def test_each_engine_has_its_smallest_row_count_where_nothing_more_fits() -> None:
    assert fit([unet(), text()], 0, 1140 * MIB) == [(1,), (1,)]


def test_room_goes_first_to_the_row_count_that_gains_the_most_time_for_its_bytes() -> None:
    # two rows of text save 3 ms for some 116 MiB; four rows of the UNet save 10 ms, but for a gigabyte
    assert fit([unet(), text()], 0, 2200 * MIB) == [(1,), (1, 2)]
    assert fit([unet(), text()], 0, 2300 * MIB) == [(1, 4), (1, 2)]


def test_the_process_itself_counts() -> None:
    assert fit([unet()], 0, 1100 * MIB) == [(1,)]
    with pytest.raises(
        BundleError, match=r"memory budget 1\.07 GiB: one row count of each engine needs 1\.19 GiB, 200"
    ):
        fit([unet()], 200 * MIB, 1100 * MIB)


def test_an_engine_whose_shapes_share_their_weights_takes_its_largest_row_count_alone() -> None:
    assert fit([unet(packs=False)], 0, 1100 * MIB) == [(1, 2, 4)]


def test_bytes_that_nobody_measured_are_guessed_from_the_files() -> None:
    entry = unets(step_cache=False)[0]
    assert Wanted(entry, (1,), 800 * MIB, True).num_bytes((1,)) == 1016 * MIB
