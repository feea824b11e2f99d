"""The step of a run, on a miniature with random weights: what it trains, what it leaves, what its loss hangs on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from mezzotint.compile.checkpoint import module_digest
from mezzotint.trainer.base import Base
from mezzotint.trainer.config import TrainConfig
from mezzotint.trainer.config_file import make_config
from mezzotint.trainer.module import Batch, DreamBooth
from tests.miniatures import write_sd15_miniature
from tests.trainer.bases import read_base

PRIOR = {"class_prompt": "a photo of a cat"}
NUM_TOKENS = 77


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd15_miniature(tmp_path_factory.mktemp("bases") / "sd15")


@pytest.fixture
def base(miniature: Path) -> Base:
    return read_base(miniature)


def configured(**values: Any) -> TrainConfig:
    cat = {"instance_data_dir": "cats", "instance_prompt": "a photo of a sks cat", "learning_rate": 1e-4}
    return make_config(cat, values)


def batch_of(base: Base, *keys: int) -> Batch:
    """A batch as the data module makes it: each row follows from its key alone."""
    rows = [torch.Generator().manual_seed(key) for key in keys]
    return {
        "pixels": torch.stack([torch.rand(3, 64, 64, generator=row) * 2 - 1 for row in rows]),
        "tokens": torch.stack([torch.randint(0, 1000, (NUM_TOKENS,), generator=row) for row in rows]),
        "keys": torch.tensor(keys),
    }


class Feed:
    """Batches, one after the other; Lightning takes a list for several loaders."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


def fit(
    module: DreamBooth, batches: list[Batch], accumulate: int = 1, epochs: int = 1, resumed: Path | None = None
) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, Feed(batches), ckpt_path=resumed)
    return trainer


def digests(base: Base) -> dict[str, str]:
    parts = {"unet": base.unet, "text_encoder": base.text_encoder, "vae": base.vae}
    return {
        name: str([(key, value.double().sum().item()) for key, value in part.state_dict().items()])
        for name, part in parts.items()
    }


def test_both_halves_go_through_the_unet_in_one_call(base: Base) -> None:
    module = DreamBooth(configured(**PRIOR), base)
    rows: list[int] = []
    base.unet.register_forward_hook(lambda unet, given, output: rows.append(len(given[0])))
    found = module.losses(batch_of(base, 1, 2, 3, 4))
    assert rows == [4]
    assert found.prior is not None
    torch.testing.assert_close(found.total, found.instance + found.prior)


@pytest.mark.parametrize(("with_text", "trained"), [(False, {"unet"}), (True, {"unet", "text_encoder"})])
def test_what_is_trained_changes_and_nothing_else(base: Base, with_text: bool, trained: set[str]) -> None:
    vae, before = module_digest("vae", base.vae), digests(base)
    module = DreamBooth(configured(train_text_encoder=with_text, lr_scheduler="constant"), base)
    fit(module, [batch_of(base, 1, 2), batch_of(base, 3, 4)])
    after = digests(base)
    assert {name for name in before if before[name] != after[name]} == trained
    assert module_digest("vae", base.vae) == vae
    assert {name.partition(".")[0] for name in module.state_dict()} == trained


def test_a_run_that_goes_on_takes_the_rate_that_it_is_told_and_not_the_saved_one(
    miniature: Path, tmp_path: Path
) -> None:
    bases = [read_base(miniature), read_base(miniature)]
    batch = batch_of(bases[0], 1)
    fit(DreamBooth(configured(), bases[0]), [batch]).save_checkpoint(tmp_path / "saved.ckpt")
    lower = DreamBooth(configured(learning_rate=1e-6, adam_weight_decay=0.5), bases[1])
    (group,) = fit(lower, [batch], epochs=2, resumed=tmp_path / "saved.ckpt").optimizers[0].param_groups
    assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (1e-6, 1e-6, 0.5)


def test_trained_weights_lie_in_memory_as_files_hold_them(base: Base) -> None:
    fit(DreamBooth(configured(), base), [batch_of(base, 1)])
    assert all(value.is_contiguous() for value in base.unet.state_dict().values())


def test_weights_gathered_from_shards_are_the_models(miniature: Path) -> None:
    """Shards themselves need GPUs; what is done with the weights that come of them does not."""
    base, other = read_base(miniature), read_base(miniature)
    module = DreamBooth(configured(train_text_encoder=True), base)
    assert module.trained() is base
    module._gathered = {name: value + 1 for name, value in module.state_dict().items()}
    trained = module.trained()
    for part in ("unet", "text_encoder"):
        before, after = (getattr(each, part).state_dict() for each in (other, trained))
        assert all(value.equal(before[name] + 1) for name, value in after.items())
    assert trained.vae is base.vae


def test_two_batches_for_one_step_are_as_one_of_both(miniature: Path) -> None:
    bases = [read_base(miniature), read_base(miniature)]
    fit(DreamBooth(configured(optimizer="adafactor"), bases[0]), [batch_of(bases[0], 1, 2, 3, 4)])
    halves = [batch_of(bases[1], 1, 2), batch_of(bases[1], 3, 4)]
    fit(DreamBooth(configured(optimizer="adafactor"), bases[1]), halves, accumulate=2)
    whole, split = (each.unet.state_dict() for each in bases)
    for name in whole:
        torch.testing.assert_close(split[name], whole[name], rtol=1e-4, atol=1e-5)


def test_a_batch_has_the_same_loss_whenever_it_is_asked_for(base: Base) -> None:
    module, batch = DreamBooth(configured(), base), batch_of(base, 5)
    first = module.losses(batch).total
    module.losses(batch_of(base, 6))
    torch.manual_seed(3)
    assert torch.equal(module.losses(batch).total, first)


def test_cached_latents_and_states_have_the_loss_of_pictures_and_captions(base: Base) -> None:
    module, batch = DreamBooth(configured(), base), batch_of(base, 1, 2)
    with torch.no_grad():
        cached = {
            "moments": base.vae.encode(batch["pixels"]).latent_dist.parameters,
            "states": base.text_encoder(batch["tokens"])[0],
            "keys": batch["keys"],
        }
    torch.testing.assert_close(module.losses(cached).total, module.losses(batch).total)


@pytest.mark.parametrize("options", [{"snr_gamma": 1.0}, {"offset_noise": True}, {"prior_loss_weight": 0.1}])
def test_an_option_of_the_loss_changes_it(base: Base, options: dict[str, Any]) -> None:
    batch = batch_of(base, 1, 2)
    plain = DreamBooth(configured(**PRIOR), base).losses(batch).total
    assert not torch.isclose(DreamBooth(configured(**PRIOR, **options), base).losses(batch).total, plain)


def test_activations_computed_twice_have_the_same_gradients(miniature: Path) -> None:
    found = []
    for checkpointed in (False, True):
        base = read_base(miniature)
        config = configured(train_text_encoder=True, gradient_checkpointing=checkpointed)
        module = DreamBooth(config, base)
        module.losses(batch_of(base, 1)).total.backward()
        found.append([value.grad for value in module.parameters() if value.grad is not None])
    assert base.unet.is_gradient_checkpointing
    assert base.text_encoder.is_activation_checkpointing
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain)
