"""Noise equals torch's CPU generator, draw after draw."""

import numpy as np
import pytest
import torch

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.noise import MAX_SEED, NoiseStream

SEEDS = [0, 1, 42, 123456789, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 2**53 + 1, MAX_SEED]
SHAPE_SEQUENCES = [
    [(1, 4, 64, 64), (1, 4, 64, 64)],
    [(4, 8, 8), (4, 16, 16), (4, 7, 9)],
    [(16,), (17,), (31,), (32,), (33,)],
    [(3,), (16,), (1,), (2,), (5, 5), (15,), (1,)],
    [(), (), (20,), ()],
    [(7,), (0,), (4, 3, 5, 5), (1,), (4, 8, 8), (3, 0), (6,)],
]


@pytest.mark.parametrize("shapes", SHAPE_SEQUENCES, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_draws_of_any_size_continue_torchs_stream(seed: int, shapes: list[tuple[int, ...]]) -> None:
    generator = torch.Generator("cpu").manual_seed(seed)
    stream = NoiseStream(seed)
    for shape in shapes:
        expected = torch.randn(shape, generator=generator).numpy()
        drawn = stream.normal(shape)
        assert drawn.shape == shape
        assert drawn.dtype == np.float32
        np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-5)


def test_random_sequences_of_sizes_continue_torchs_stream() -> None:
    sizes = np.random.default_rng(0).integers(0, 70, size=(20, 30))
    for seed, row in enumerate(sizes.tolist()):
        generator = torch.Generator("cpu").manual_seed(seed)
        stream = NoiseStream(seed)
        drawn = np.concatenate([stream.normal((size,)) for size in row])
        expected = torch.cat([torch.randn((size,), generator=generator) for size in row]).numpy()
        np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-5)


def test_streams_do_not_disturb_each_other() -> None:
    alone = NoiseStream(5)
    expected = [alone.normal((4, 8, 8)), alone.normal((3,))]
    one, other = NoiseStream(5), NoiseStream(6)
    first = one.normal((4, 8, 8))
    other.normal((100,))
    np.testing.assert_array_equal(first, expected[0])
    np.testing.assert_array_equal(one.normal((3,)), expected[1])


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_out_of_range_is_refused_with_the_range(seed: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"seed={seed}: must be between 0 and 9223372036854775807"):
        NoiseStream(seed)
