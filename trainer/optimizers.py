"""Optimizers and schedules by name; their libraries are imported when they are asked for."""

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch.optim.lr_scheduler import LambdaLR

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.config import TrainConfig

Groups = Sequence[Mapping[str, Any]]

_TOLD = ("initial_lr", "betas", "eps", "weight_decay")  # the first is what a schedule's factors multiply


def parameter_groups(
    config: TrainConfig, unet: Iterable[torch.nn.Parameter], text: Iterable[torch.nn.Parameter], scale: float
) -> list[dict[str, Any]]:
    """Return what is trained of both, each with its rate; ``scale`` multiplies rates where ``scale_lr`` says so."""
    scale = scale if config.scale_lr else 1.0
    rates = (config.learning_rate, config.text_encoder_lr or config.learning_rate)
    groups = [
        {"params": [weight for weight in weights if weight.requires_grad], "lr": rate * scale}
        for weights, rate in zip((unet, text), rates, strict=True)
    ]
    return [group for group in groups if group["params"]]


def check_optimizer(config: TrainConfig, device: str) -> None:
    """Refuse an optimizer that does not run on a kind of device. Raises TrainError."""
    if config.optimizer != "adamw-8bit" or (device == "cuda" and importlib.util.find_spec("bitsandbytes")):
        return
    lacks = "bitsandbytes is not installed" if device == "cuda" else f"this run is on {device}"
    raise TrainError(
        f"optimizer=adamw-8bit: {lacks}, expected an NVIDIA GPU and `pip install 'mezzotint[adam8bit]'`; "
        "adamw learns the same, and adafactor takes as little memory"
    )


def make_optimizer(config: TrainConfig, groups: Groups) -> torch.optim.Optimizer:
    """Return the optimizer of that name over groups of parameters."""
    makers = {"adamw": _adamw, "adamw-8bit": _adamw_8bit, "prodigy": _prodigy, "adafactor": _adafactor}
    return makers[config.optimizer](config, groups)


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer, num_steps: int) -> Any:
    """Return the rate's schedule over a run of ``num_steps`` optimizer steps, diffusers' own."""
    return get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=num_steps,
        num_cycles=config.lr_num_cycles,
        power=config.lr_power,
    )


def told_options(optimizer: torch.optim.Optimizer) -> Groups:
    """Return what a new optimizer's groups were told by the configuration, once it has its schedule."""
    return [{name: group[name] for name in _TOLD if name in group} for group in optimizer.param_groups]


def follow(optimizer: torch.optim.Optimizer, schedule: LambdaLR, told: Groups) -> None:
    """Let an optimizer and its schedule, as a checkpoint restored them, go on with what this run was told.

    A restored group brings along the rates and decays of the run that saved it. What the optimizer has found itself
    stays: its state, and Prodigy's ``d``.
    """
    for group, own, factor in zip(optimizer.param_groups, told, schedule.lr_lambdas, strict=True):
        group.update(own)
        group["lr"] = own["initial_lr"] * factor(schedule.last_epoch)
    schedule.base_lrs = [own["initial_lr"] for own in told]


def _adam_options(config: TrainConfig) -> dict[str, Any]:
    return {
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay,
        "eps": config.adam_epsilon,
    }


def _adamw(config: TrainConfig, groups: Groups) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_copied(groups), **_adam_options(config))


def _adamw_8bit(config: TrainConfig, groups: Groups) -> torch.optim.Optimizer:
    import bitsandbytes

    optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(_copied(groups), **_adam_options(config))
    return optimizer


def _prodigy(config: TrainConfig, groups: Groups) -> torch.optim.Optimizer:
    import prodigyopt

    # It prints what it was told. Warm-up and decoupling are as in diffusers' advanced DreamBooth scripts.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        optimizer: torch.optim.Optimizer = prodigyopt.Prodigy(
            _copied(groups),
            decouple=True,
            use_bias_correction=True,
            safeguard_warmup=True,
            **_adam_options(config),
        )
    return optimizer


def _adafactor(config: TrainConfig, groups: Groups) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(_copied(groups), weight_decay=config.adam_weight_decay)


def _copied(groups: Groups) -> list[dict[str, Any]]:
    """Return groups that the optimizer may write into."""
    return [dict(group) for group in groups]
