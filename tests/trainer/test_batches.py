"""The order of a run's examples: the same however batches are cut, by whom, and from where a run goes on."""

from collections.abc import Sequence
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.trainer.batches import Batches, Share
from mezzotint.trainer.examples import CLASS_KEYS, Batch, Examples, Pair, Shot, Texts, pair_up
from mezzotint.trainer.validation import validation_batches


class Names:
    """Views whose row is the picture's own number and the key."""

    name = "pixels"

    def row(self, shot: Shot, key: int) -> torch.Tensor:
        return torch.tensor([float(shot.path.stem), float(key)])


def shots(*numbers: int, caption: str = "a sks cat") -> list[Shot]:
    return [Shot(Path(f"{number}.png"), caption) for number in numbers]


ROWS = {"a sks cat": torch.tensor([1, 2]), "a cat": torch.tensor([1, 3]), "": torch.tensor([1, 0])}
TEXTS = Texts("tokens", ROWS)


def examples(pairs: Sequence[Pair], seed: int = 0) -> Examples:
    return Examples(pairs, Names(), TEXTS, seed)


def numbers(batch: Batch) -> list[int]:
    return batch["keys"].tolist()


def test_an_epoch_has_as_many_examples_as_the_longer_list() -> None:
    pairs = pair_up(shots(1, 2), shots(11, 12, 13, 14, 15, caption="a cat"), repeats=2)
    assert [pair.instance.path.stem for pair in pairs] == ["1", "2", "1", "2", "1"]
    assert [pair.prior and pair.prior.path.stem for pair in pairs] == ["11", "12", "13", "14", "15"]
    assert len(pair_up(shots(1, 2), [], repeats=3)) == 6
    assert len(pair_up(shots(1, 2), shots(11), repeats=3)) == 6


def test_instances_come_first_and_as_many_class_rows_follow() -> None:
    pairs = pair_up(shots(1, 2, 3), shots(11, 12, 13, caption="a cat"), repeats=1)
    batch = examples(pairs)[range(3, 5)]
    assert batch["keys"].tolist() == [3, 4, 3 + CLASS_KEYS, 4 + CLASS_KEYS]
    assert batch["keys"].dtype == torch.int64
    assert batch["tokens"].tolist() == [[1, 2], [1, 2], [1, 3], [1, 3]]
    instances, priors = batch["pixels"][:2, 0], batch["pixels"][2:, 0]
    assert (priors - instances).tolist() == [10, 10]


def test_an_instance_row_draws_the_same_with_and_without_class_rows() -> None:
    own = shots(1, 2, 3)
    alone, beside = examples(pair_up(own, [], 1)), examples(pair_up(own, shots(11, 12, 13, caption="a cat"), 1))
    assert torch.equal(alone[range(5)]["pixels"], beside[range(5)]["pixels"][:5])


def test_a_share_of_the_class_rows_and_no_instance_has_an_empty_caption() -> None:
    pairs = pair_up(shots(1, 2, 3), shots(11, 12, 13, caption="a cat"), repeats=1)
    count, share = 2000, 0.2
    tokens = Examples(pairs, Names(), TEXTS, seed=0, empty=share)[range(count)]["tokens"][:, 1]
    assert set(tokens[:count].tolist()) == {2}
    assert set(tokens[count:].tolist()) == {0, 3}
    assert abs(float((tokens[count:] == 0).float().mean()) - share) < 4 * (share * (1 - share) / count) ** 0.5


def test_validations_instances_keep_their_captions_too() -> None:
    pairs = pair_up(shots(1, 2, 3), shots(11, 12, 13, caption="a cat"), repeats=1)
    (batch,) = validation_batches(Examples(pairs, Names(), TEXTS, seed=0, empty=0.9), 16, 16)
    assert set(batch["tokens"][:16, 1].tolist()) == {2}
    assert 0 in batch["tokens"][16:, 1].tolist()


def test_every_epoch_has_every_example_once_in_an_order_of_its_own() -> None:
    data = examples(pair_up(shots(*range(20)), [], 1))
    epochs = [[data.pair(number).instance.path.stem for number in range(20 * e, 20 * e + 20)] for e in range(3)]
    assert all(sorted(epoch, key=int) == [str(i) for i in range(20)] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    other = examples(data.pairs, seed=1)
    assert [other.pair(number).instance.path.stem for number in range(20)] != epochs[0]


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 50))
def test_a_step_sees_the_same_examples_however_its_batch_is_cut(
    batch_size: int, accumulation: int, num_processes: int, step: int
) -> None:
    seen = [
        number
        for i in range(accumulation)
        for rank in range(num_processes)
        for number in Share(batch_size, accumulation, rank, num_processes).numbers(step * accumulation + i)
    ]
    size = batch_size * accumulation * num_processes
    assert seen == list(range(step * size, step * size + size))


def test_a_step_is_always_whole() -> None:
    data = examples(pair_up(shots(*range(5)), [], 1))
    epoch = Batches(data, Share(2, accumulation=2), lambda: 0)
    assert len(epoch) == 4
    assert [numbers(batch) for batch in epoch] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_an_epoch_goes_on_where_the_run_is() -> None:
    data = examples(pair_up(shots(*range(5)), [], 1))
    step = 0
    epoch = Batches(data, Share(1, accumulation=2), lambda: step)
    step = 3
    assert [numbers(batch) for batch in epoch][:3] == [[6], [7], [8]]


def test_reading_ahead_in_other_processes_gives_the_same_and_leaves_torch_s_numbers_alone() -> None:
    data = examples(pair_up(shots(*range(5)), [], 1))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ahead = list(Batches(data, Share(2), lambda: 1, num_workers=2))
    assert torch.equal(torch.get_rng_state(), before)
    here = list(Batches(data, Share(2), lambda: 1))
    assert len(ahead) == len(here) == 3
    for one, other in zip(ahead, here, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)
