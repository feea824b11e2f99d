"""Which images share the next call, asked of a scheduler whose calls are made."""

import pytest

from mezzotint.engines.image import Stage
from mezzotint.engines.variants import FULL, SHALLOW
from tests.fakes import FakeImage
from tests.server.scheduling import make_scheduler, run_call, run_out


def test_requests_of_different_steps_samplers_and_guidance_share_calls() -> None:
    scheduler = make_scheduler()
    images = [
        FakeImage(rows=2, remaining=5, settings=("ddim", 7.5)),
        FakeImage(rows=1, remaining=2, settings=("heun", 1.0)),
        FakeImage(rows=2, remaining=3, settings=("euler_a", 4.0)),
    ]
    for image in images:
        scheduler.submit([image], arrival=0.0)
    calls = run_out(scheduler)
    assert [len(call) for stage, call in calls if stage is Stage.DENOISE] == [3, 3, 2, 1, 1]


def test_a_request_that_comes_later_joins_at_the_next_step() -> None:
    scheduler = make_scheduler()
    first, second = FakeImage(remaining=4), FakeImage(remaining=4)
    scheduler.submit([first], arrival=0.0)
    run_call(scheduler)
    assert run_call(scheduler) == [first]
    scheduler.submit([second], arrival=1.0)
    assert run_call(scheduler) == [second]  # it is encoded
    assert run_call(scheduler) == [first, second]


def test_an_image_that_does_not_fit_into_the_next_call_is_not_started() -> None:
    scheduler = make_scheduler()
    images = [FakeImage() for _ in range(5)]
    scheduler.submit(images, arrival=0.0)
    assert run_call(scheduler) == images[:4]
    assert run_call(scheduler) == images[:4]
    assert (scheduler.num_started, scheduler.num_waiting) == (4, 1)


def test_finished_images_are_decoded_one_by_one_before_new_ones_are_encoded() -> None:
    scheduler = make_scheduler()
    images = [FakeImage(remaining=1), FakeImage(remaining=1)]
    scheduler.submit(images, arrival=0.0)
    run_call(scheduler)
    run_call(scheduler)
    scheduler.submit([FakeImage()], arrival=1.0)
    assert run_call(scheduler) == images[:1]
    assert run_call(scheduler) == images[1:2]
    assert scheduler.next_stage(0.0) is Stage.ENCODE


@pytest.mark.parametrize("parts", [1, 3])
def test_images_in_the_making_wait_for_one_decoding_call_at_most(parts: int) -> None:
    scheduler = make_scheduler()
    done = [FakeImage(remaining=1, parts=parts) for _ in range(2)]
    other = FakeImage(remaining=9)
    scheduler.submit([*done, other], arrival=0.0)
    run_call(scheduler)
    run_call(scheduler)
    calls = run_out(scheduler)
    stages = [stage for stage, _ in calls]
    assert stages[: 4 * parts] == [Stage.DECODE, Stage.DENOISE] * 2 * parts
    assert stages[4 * parts :] == [Stage.DENOISE] * (8 - 2 * parts) + [Stage.DECODE]
    assert [call for stage, call in calls if stage is Stage.DECODE] == [[i] for i in done for _ in range(parts)] + [
        [other]
    ]


def test_parts_of_a_decoder_follow_each_other_where_no_image_is_in_the_making() -> None:
    scheduler = make_scheduler(max_started_images=1)
    image, waiting = FakeImage(remaining=1, parts=3), FakeImage(remaining=1)
    scheduler.submit([image, waiting], arrival=0.0)
    calls = run_out(scheduler)
    decode = (Stage.DECODE, [image])
    assert calls[:5] == [(Stage.ENCODE, [image]), (Stage.DENOISE, [image]), decode, decode, decode]
    assert calls[5] == (Stage.ENCODE, [waiting])


def test_new_images_are_encoded_between_two_parts_before_the_denoising_call() -> None:
    scheduler = make_scheduler()
    done, other, new = FakeImage(remaining=1, parts=2), FakeImage(remaining=9), FakeImage(remaining=9)
    scheduler.submit([done, other], arrival=0.0)
    run_call(scheduler)
    run_call(scheduler)
    assert run_call(scheduler) == [done]
    scheduler.submit([new], arrival=1.0)
    assert run_call(scheduler) == [new]
    assert run_call(scheduler) == [other, new]
    assert run_call(scheduler) == [done]
    assert done.stage is Stage.DONE


def test_full_and_shallow_calls_are_not_one_call() -> None:
    scheduler = make_scheduler()
    plain = FakeImage(remaining=3)
    cached = FakeImage(calls=((FULL, 2), (SHALLOW, 2), (FULL, 2)))
    scheduler.submit([plain], arrival=0.0)
    scheduler.submit([cached], arrival=1.0)
    calls = [images for stage, images in run_out(scheduler) if stage is Stage.DENOISE]
    assert calls == [[plain, cached], [plain], [plain], [cached], [cached]]


def test_each_variant_of_the_unet_has_its_own_most_rows() -> None:
    scheduler = make_scheduler(max_rows={FULL: 2, SHALLOW: 4})
    images = [FakeImage(calls=((FULL, 2), (SHALLOW, 2))) for _ in range(2)]
    for image in images:
        image.stage = Stage.DENOISE
    scheduler.submit(images, arrival=0.0)
    assert run_call(scheduler) == images[:1]
    images[1].remaining -= 1
    assert run_call(scheduler) == images


def test_an_image_takes_the_rows_of_its_next_call() -> None:
    scheduler = make_scheduler(max_rows={FULL: 2})
    images = [FakeImage(rows=2, calls=((FULL, 1), (FULL, 2), (FULL, 1))) for _ in range(2)]
    for image in images:
        image.stage = Stage.DENOISE
    scheduler.submit(images, arrival=0.0)
    calls = [call for stage, call in run_out(scheduler) if stage is Stage.DENOISE]
    first, second = images
    assert calls == [[first, second], [first], [first], [second], [second]]


def test_no_more_images_are_started_than_may_hold_arrays() -> None:
    scheduler = make_scheduler(max_started_images=3)
    scheduler.submit([FakeImage(rows=1) for _ in range(8)], arrival=0.0)
    while scheduler.next_stage(0.0) is not None:
        run_call(scheduler)
        assert scheduler.num_started <= 3
    assert scheduler.idle


def test_the_oldest_images_size_goes_first_and_no_size_starves() -> None:
    scheduler = make_scheduler()
    wide = FakeImage(size=128, remaining=2)
    scheduler.submit([wide], arrival=0.0)
    run_call(scheduler)
    later = [FakeImage(size=64) for _ in range(20)]
    for i, image in enumerate(later):
        scheduler.submit([image], arrival=1.0 + i)
    order = [call for stage, call in run_out(scheduler) if stage is Stage.DENOISE]
    assert order[:2] == [[wide], [wide]]


def test_a_smaller_image_does_not_overtake_one_of_its_size_that_does_not_fit() -> None:
    scheduler = make_scheduler(max_rows={FULL: 3})
    first, second, third = FakeImage(rows=2), FakeImage(rows=2), FakeImage(rows=1)
    for image in (first, second, third):
        image.stage = Stage.DENOISE
        scheduler.submit([image], arrival=0.0)
    assert run_call(scheduler) == [first]


def test_a_new_image_that_goes_first_is_started_though_the_next_call_is_full() -> None:
    scheduler = make_scheduler(
        max_rows={FULL: 2}, policy=lambda _: lambda arrival, size, remaining, deadline, now: remaining
    )
    long, short = FakeImage(remaining=9), FakeImage(remaining=2)
    scheduler.submit([long], arrival=0.0)
    run_call(scheduler)
    assert run_call(scheduler) == [long]
    scheduler.submit([short], arrival=1.0)
    assert [run_call(scheduler) for _ in range(4)] == [[short]] * 4  # encoded, denoised twice, decoded
    assert run_call(scheduler) == [long]


def test_no_place_for_new_images_leaves_the_started_ones_their_order() -> None:
    scheduler = make_scheduler(
        max_rows={FULL: 2},
        max_started_images=2,
        policy=lambda _: lambda arrival, size, remaining, deadline, now: remaining,
    )
    images = [FakeImage(remaining=steps) for steps in (9, 8, 1)]
    for i, image in enumerate(images):
        scheduler.submit([image], arrival=float(i))
        run_call(scheduler)
    assert scheduler.num_started == 2
    assert images[2].stage is Stage.ENCODE
    calls = [call for stage, call in run_out(scheduler) if stage is Stage.DENOISE]
    assert calls[:7] == [[images[1]]] * 7
    assert calls[7] == [images[2]]


def test_the_most_rows_of_a_call_are_those_of_its_size_and_may_change_between_two_steps() -> None:
    most = {64: 8, 128: 2}
    scheduler = make_scheduler(row_cap=lambda image, _: most[image.size])
    small, large = [FakeImage(size=64) for _ in range(3)], [FakeImage(size=128, remaining=4) for _ in range(3)]
    scheduler.submit(small, arrival=0.0)
    scheduler.submit(large, arrival=1.0)
    calls = [[image.size for image in call] for stage, call in run_out(scheduler) if stage is Stage.DENOISE]
    assert calls == [[64] * 3] * 3 + [[128]] * 12
    again = [FakeImage(size=128, remaining=2) for _ in range(3)]
    scheduler.submit(again, arrival=2.0)
    run_call(scheduler)
    assert run_call(scheduler) == again[:1]
    most[128] = 6
    assert run_call(scheduler) == again[1:]  # they are encoded
    assert run_call(scheduler) == again


def test_an_image_with_more_rows_than_gain_something_by_now_has_its_calls_to_itself() -> None:
    scheduler = make_scheduler(row_cap=lambda image, _: 1)
    wide, narrow = FakeImage(rows=2, remaining=2), FakeImage(rows=1, remaining=2)
    scheduler.submit([wide], arrival=0.0)
    scheduler.submit([narrow], arrival=0.0)
    assert [call for stage, call in run_out(scheduler) if stage is Stage.DENOISE] == 2 * [[wide]] + 2 * [[narrow]]


def test_an_image_whose_first_call_is_of_another_size_waits_and_takes_nobodys_place() -> None:
    scheduler = make_scheduler(max_started_images=2)
    head, other, urgent = FakeImage(remaining=9), FakeImage(size=128), FakeImage(size=128)
    scheduler.submit([head], arrival=0.0, priority=2)
    run_call(scheduler)
    scheduler.submit([other], arrival=1.0, priority=2)
    assert [run_call(scheduler) for _ in range(2)] == [[head]] * 2
    scheduler.submit([urgent], arrival=2.0, priority=1)
    assert run_call(scheduler) == [urgent]
    assert not other.has_begun


def test_new_images_begin_together_only_where_they_go_on_together() -> None:
    scheduler = make_scheduler()
    images = [FakeImage(size=size) for size in (64, 128, 64)]
    for image in images:
        scheduler.submit([image], arrival=0.0)
    assert run_call(scheduler) == [images[0], images[2]]


def test_a_new_image_begins_when_the_next_call_is_one_that_it_can_share() -> None:
    scheduler = make_scheduler()
    cached, new = FakeImage(calls=((FULL, 2), (SHALLOW, 2), (FULL, 2))), FakeImage()
    scheduler.submit([cached], arrival=0.0)
    run_call(scheduler)
    run_call(scheduler)
    scheduler.submit([new], arrival=1.0)
    assert [run_call(scheduler) for _ in range(3)] == [[cached], [new], [cached, new]]
