"""Randomness by counter: the same for an example whoever asks, and different for everything else."""

import torch

from mezzotint.trainer import draws


def test_an_example_draws_the_same_alone_and_in_any_batch() -> None:
    batch = draws.normal(7, [3, 1, 2], "noise", (4, 2, 2))
    for row, key in zip(batch, (3, 1, 2), strict=True):
        assert torch.equal(row, draws.normal(7, [key], "noise", (4, 2, 2))[0])
    assert torch.equal(draws.timesteps(7, [3, 1], 1000), torch.cat([draws.timesteps(7, [k], 1000) for k in (3, 1)]))


def test_seed_key_and_purpose_each_change_what_is_drawn() -> None:
    first = draws.normal(7, [1], "noise", (8,))
    for other in ((8, 1, "noise"), (7, 2, "noise"), (7, 1, "vae"), (7, 1 + (1 << 40), "noise")):
        assert not torch.equal(first, draws.normal(other[0], [other[1]], other[2], (8,)))


def test_what_was_drawn_before_changes_nothing() -> None:
    torch.manual_seed(1)
    first = draws.normal(7, [1], "noise", (8,))
    torch.randn(3)
    assert torch.equal(first, draws.normal(7, [1], "noise", (8,)))


def test_noise_is_normal_and_timesteps_are_uniform() -> None:
    noise = draws.normal(0, range(2000), "noise", (4,))
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    steps = draws.timesteps(0, range(4000), 10)
    assert steps.min() == 0
    assert steps.max() == 9
    assert (torch.bincount(steps) - 400).abs().max() < 80
