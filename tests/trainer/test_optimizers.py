"""Optimizers and schedules: each goes downhill on a parabola, with the rates that it was told."""

from typing import Any

import pytest
import torch

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.config import TrainConfig
from mezzotint.trainer.config_file import make_config
from mezzotint.trainer.optimizers import (
    check_optimizer,
    follow,
    make_optimizer,
    make_schedule,
    parameter_groups,
    told_options,
)


def configured(**values: Any) -> TrainConfig:
    return make_config({"instance_data_dir": "cats", "instance_prompt": "a photo of a sks cat"}, values)


def descend(config: TrainConfig, steps: int, device: str = "cpu") -> float:
    weights = torch.nn.Parameter(torch.full((64, 64), 2.0, device=device))
    optimizer = make_optimizer(config, parameter_groups(config, [weights], [], 1.0))
    for _ in range(steps):
        optimizer.zero_grad()
        weights.square().sum().backward()
        optimizer.step()
    return weights.detach().abs().mean().item()


@pytest.mark.parametrize(("name", "rate"), [("adamw", 0.05), ("adafactor", 0.05), ("prodigy", 1.0)])
def test_each_optimizer_goes_downhill(name: str, rate: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert descend(configured(optimizer=name, learning_rate=rate), 200) < 1.0
    assert capsys.readouterr().out == ""


@pytest.mark.gpu
def test_eight_bit_adam_goes_downhill_on_a_gpu() -> None:
    config = configured(optimizer="adamw-8bit", learning_rate=0.05)
    check_optimizer(config, "cuda")
    assert descend(config, 60, "cuda") < 1.0


def test_eight_bit_adam_is_refused_where_it_does_not_run() -> None:
    with pytest.raises(TrainError, match=r"adamw-8bit: this run is on cpu, expected an NVIDIA GPU and `pip install"):
        check_optimizer(configured(optimizer="adamw-8bit"), "cpu")
    check_optimizer(configured(optimizer="adamw"), "cpu")


def test_the_text_encoder_has_its_own_rate_and_frozen_weights_none() -> None:
    unet, text = (torch.nn.Linear(2, 2) for _ in range(2))
    text.bias.requires_grad_(False)
    config = configured(learning_rate=1e-5, text_encoder_lr=1e-6, scale_lr=True)
    groups = parameter_groups(config, unet.parameters(), text.parameters(), 8.0)
    assert [len(group["params"]) for group in groups] == [2, 1]
    assert [group["lr"] for group in groups] == pytest.approx([8e-5, 8e-6])
    assert [group["lr"] for group in parameter_groups(configured(), unet.parameters(), (), 8.0)] == [5e-6]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("constant_with_warmup", [0.0, 0.5, 1.0, 1.0]),
        ("linear", [0.0, 0.5, 1.0, 0.5]),
        ("cosine", [0.0, 0.5, 1.0, 0.5]),
        ("polynomial", [0.0, 0.5, 1.0, 0.5]),
    ],
)
def test_the_rate_goes_as_its_schedule_says(name: str, expected: list[float]) -> None:
    config = configured(lr_scheduler=name, lr_warmup_steps=2, learning_rate=1.0)
    optimizer = make_optimizer(config, parameter_groups(config, [torch.nn.Parameter(torch.ones(1))], [], 1.0))
    schedule = make_schedule(config, optimizer, 4)
    rates = []
    for _ in expected:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected, abs=1e-4)  # diffusers' polynomial ends at a ten-thousandth


def started(config: TrainConfig) -> tuple[torch.optim.Optimizer, Any]:
    """An optimizer of one weight, and its schedule over ten steps."""
    weights = torch.nn.Parameter(torch.full((4, 4), 2.0))
    optimizer = make_optimizer(config, parameter_groups(config, [weights], [], 1.0))
    return optimizer, make_schedule(config, optimizer, 10)


def step(optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    (weights,) = optimizer.param_groups[0]["params"]
    weights.grad = weights.detach().clone()
    optimizer.step()
    schedule.step()


@pytest.mark.parametrize("name", ["adamw", "adafactor", "prodigy"])
def test_an_optimizer_that_goes_on_has_its_own_state_and_the_options_that_it_is_told_now(name: str) -> None:
    way = {"optimizer": name, "lr_scheduler": "cosine", "lr_warmup_steps": 2}
    saved = started(configured(**way, learning_rate=0.4))
    for _ in range(4):
        step(*saved)
    new = {"learning_rate": 0.1, "adam_weight_decay": 0.5, "adam_beta1": 0.8, "adam_epsilon": 1e-6}
    optimizer, schedule = started(configured(**way, **new))
    told = told_options(optimizer)
    for mine, theirs in zip((optimizer, schedule), saved, strict=True):
        mine.load_state_dict(theirs.state_dict())
    follow(optimizer, schedule, told)
    group, old = optimizer.param_groups[0], saved[0].param_groups[0]
    assert group["lr"] == pytest.approx(old["lr"] / 4)
    assert group["weight_decay"] == 0.5
    if name != "adafactor":
        assert (group["betas"], group["eps"]) == ((0.8, 0.999), 1e-6)
    assert group.get("d") == old.get("d")
    for each in ((optimizer, schedule), saved):
        step(*each)
    assert group["lr"] == pytest.approx(old["lr"] / 4)


def test_an_optimizer_that_is_told_the_same_goes_on_as_it_was_to_the_bit() -> None:
    config = configured(lr_scheduler="cosine", lr_warmup_steps=3, learning_rate=0.3)
    optimizer, schedule = started(config)
    told = told_options(optimizer)
    for _ in range(5):
        step(optimizer, schedule)
        before = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
        follow(optimizer, schedule, told)
        assert {name: optimizer.param_groups[0][name] for name in before} == before
