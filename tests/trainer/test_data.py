"""The data of a run: real pictures, the emoji model's tokenizer and VAE, and Lightning's own trainer."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.base import Base
from mezzotint.trainer.config import Concept, TrainConfig
from mezzotint.trainer.data import DreamBoothData
from mezzotint.trainer.examples import CLASS_KEYS, Batch
from tests.miniatures import write_distilled_miniature, write_inpainting_miniature
from tests.trainer.bases import read_base


def paint(prompts: Sequence[str], seeds: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
    return [np.full((64, 64, 3), seed * 20, np.uint8) for seed in seeds]


@pytest.fixture
def config(tmp_path: Path, subject: list[Path]) -> TrainConfig:
    """Five pictures of the subject, three of its class, two examples a step."""
    return TrainConfig(
        instance_data_dir=subject[0].parent,
        instance_prompt="a photo of a sks cat",
        class_data_dir=tmp_path / "class",
        class_prompt="a photo of a cat",
        with_prior_preservation=True,
        num_class_images=3,
        output_dir=tmp_path / "run",
        resolution=64,
        train_batch_size=2,
        seed=0,
    )


def batch_of(config: TrainConfig, base: Base, numbers: range) -> Batch:
    data = DreamBoothData(config, base)
    data.fill_class_images(paint)
    data.setup("fit")
    return data.examples[numbers]


def test_a_batch_has_moments_and_tokens_of_instances_and_class(config: TrainConfig, base: Base) -> None:
    batch = batch_of(config.model_copy(update={"train_text_encoder": True}), base, range(2))
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "moments": ((4, 8, 16, 16), torch.float32),
        "tokens": ((4, 24), torch.int64),
        "keys": ((4,), torch.int64),
    }
    assert batch["keys"].tolist() == [0, 1, CLASS_KEYS, CLASS_KEYS + 1]


def test_pictures_on_plain_grounds_are_shown_on_others_too_and_captions_say_so(config: TrainConfig, base: Base) -> None:
    grounds = {"on a red background": (220, 50, 47), "on gray": (136, 136, 136)}
    data = DreamBoothData(config.model_copy(update={"instance_grounds": grounds}), base)
    data.fill_class_images(paint)
    data.setup("fit")
    shots = [pair.instance for pair in data.examples.pairs]
    own = "a photo of a sks cat"
    assert Counter(shot.caption for shot in shots) == {own: 5, f"{own} on a red background": 5, f"{own} on gray": 5}
    assert {shot.ground for shot in shots if shot.caption.endswith("red background")} == {(220, 50, 47)}
    assert len({data.examples[[n]]["moments"].numpy().tobytes() for n in range(15)}) == 15


def test_a_picture_without_a_plain_ground_stays_on_its_own(config: TrainConfig, base: Base, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste((0, 0, 0), (0, 0, 40, 40))
    picture.save(tmp_path / "own" / "1.png")
    grounds = {"on red": (220, 50, 47)}
    own = config.model_copy(update={"instance_data_dir": tmp_path / "own", "instance_grounds": grounds})
    data = DreamBoothData(own, base)
    assert any("no picture has a plain ground" in note for note in data.notes)


def test_without_caches_it_has_pixels(config: TrainConfig, base: Base) -> None:
    batch = batch_of(config.model_copy(update={"cache_latents": False, "train_text_encoder": True}), base, range(2))
    assert tuple(batch["pixels"].shape) == (4, 3, 64, 64)
    assert batch["pixels"].min() >= -1
    assert batch["pixels"].max() <= 1
    assert "moments" not in batch


def test_states_are_cached_where_the_text_encoder_is_frozen(config: TrainConfig, base: Base) -> None:
    cached = config.model_copy(update={"train_text_encoder": False, "pre_compute_text_embeddings": True})
    batch = batch_of(cached, base, range(2))
    assert tuple(batch["states"].shape) == (4, 24, 192)
    assert "tokens" not in batch


def test_pictures_that_are_not_square_are_cached_only_when_cropped_at_the_centre(
    config: TrainConfig, base: Base, tmp_path: Path
) -> None:
    (tmp_path / "wide").mkdir()
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "wide" / "1.png")
    free = config.model_copy(update={"instance_data_dir": tmp_path / "wide", "center_crop": False})
    assert any("latents are not cached" in note for note in DreamBoothData(free, base).notes)
    assert "pixels" in batch_of(free, base, range(2))
    centred = free.model_copy(update={"center_crop": True})
    assert "moments" in batch_of(centred, base, range(2))


def test_several_concepts_are_learned_side_by_side(
    config: TrainConfig, base: Base, subject: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "dog").mkdir()
    for i in range(2):
        Image.new("RGB", (64, 64), (90 * i, 60, 30)).save(tmp_path / "dog" / f"{i}.png")
    concepts = [
        Concept(
            instance_data_dir=subject[0].parent,
            instance_prompt="a sks cat",
            class_data_dir=tmp_path / "cats",
            class_prompt="a cat",
        ),
        Concept(
            instance_data_dir=tmp_path / "dog",
            instance_prompt="a zor dog",
            class_data_dir=tmp_path / "dogs",
            class_prompt="a dog",
        ),
    ]
    both = TrainConfig(
        concepts=concepts,
        with_prior_preservation=True,
        num_class_images=6,
        output_dir=tmp_path / "run",
        resolution=64,
        seed=0,
    )
    data = DreamBoothData(both, base)
    assert data.num_examples == 12
    assert data.fill_class_images(paint) == 12
    data.setup("fit")
    seen = [data.examples.pair(number) for number in range(12)]
    for name, own, own_class in (("a sks cat", "cat", "a cat"), ("a zor dog", "dog", "a dog")):
        pairs = [pair for pair in seen if pair.instance.caption == name]
        assert len(pairs) == 6
        assert {pair.prior.caption for pair in pairs if pair.prior} == {own_class}, own
    assert [pair.instance.caption for pair in seen] != sorted(pair.instance.caption for pair in seen)


def test_the_model_is_held_to_further_prompts_beside_the_class(
    config: TrainConfig, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    further = ("a dog on a red background", "an owl")
    data = DreamBoothData(config.model_copy(update={"prior_prompts": further, "num_prior_images": 4}), base)
    assert data.num_examples == 3 + 2 * 4
    assert data.fill_class_images(paint) == 11
    assert data.fill_class_images(paint) == 0
    data.setup("fit")
    seen = [pair.prior.caption for number in range(11) if (pair := data.examples.pair(number)).prior]
    assert Counter(seen) == {"a photo of a cat": 3, further[0]: 4, further[1]: 4}


def test_without_prior_preservation_further_prompts_count_for_nothing(config: TrainConfig, base: Base) -> None:
    alone = {"prior_prompts": ("an owl",), "with_prior_preservation": False}
    data = DreamBoothData(config.model_copy(update=alone), base)
    assert data.num_examples == 5
    assert data.fill_class_images(paint) == 0


def test_no_picture_and_a_broken_one_end_before_any_class_picture(
    config: TrainConfig, base: Base, subject: list[Path], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    update = {"instance_data_dir": own}
    with pytest.raises(TrainError, match="holds no picture"):
        DreamBoothData(config.model_copy(update=update), base)
    shutil.copy(subject[0], own)
    (own / "broken.png").write_bytes(subject[1].read_bytes()[:900])
    with pytest.raises(TrainError, match=r"1 of 2 pictures cannot be used.*broken\.png: cannot be read"):
        DreamBoothData(config.model_copy(update=update), base)
    Image.new("RGB", (2, 64)).save(own / "broken.png")
    with pytest.raises(TrainError, match=r"broken\.png: is 2x64 pixels, expected at least 8"):
        DreamBoothData(config.model_copy(update=update), base)


def test_a_resolution_that_the_model_cannot_take_is_refused(config: TrainConfig, base: Base) -> None:
    with pytest.raises(TrainError, match=r"resolution=100: must be a multiple of 16 .*; nearest 96, 112"):
        DreamBoothData(config.model_copy(update={"resolution": 100}), base)


def test_what_a_user_might_not_expect_is_said(
    config: TrainConfig, base: Base, subject: list[Path], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(subject[0], own / "a turquoise cat.png")
    Image.new("RGB", (20, 20)).save(own / "a sks cat.png")
    (own / "3.heic").touch()
    notes = DreamBoothData(config.model_copy(update={"instance_data_dir": own, "captions": "filename"}), base).notes
    said = "\n".join(notes)
    assert "3.heic is left out" in said
    assert "a sks cat.png is more than 2 times smaller than the resolution of 64" in said
    assert "'sks' is" in said
    assert "'a turquoise cat' is without the identifier 'sks'" in said


class Watcher:
    """What a run saw: the keys of each step, by a module that trains nothing of worth."""

    def __new__(cls, seen: list[list[int]]) -> Any:
        from lightning.pytorch import LightningModule

        class Module(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(()))

            def training_step(self, batch: Batch, index: int) -> torch.Tensor:
                seen.append(batch["keys"].tolist())
                return self.weight * batch["moments"].mean()

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameters(), 0.1)

        return Module()


def run(data: DreamBoothData, folder: Path, **given: Any) -> tuple[Any, list[list[int]]]:
    from lightning.pytorch import Trainer

    seen: list[list[int]] = []
    resumed = given.pop("resumed", None)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        **given,
    )
    trainer.fit(Watcher(seen), datamodule=data, ckpt_path=resumed)
    return trainer, seen


def test_a_subject_without_a_word_of_its_own_is_said(config: TrainConfig, base: Base) -> None:
    notes = DreamBoothData(config.model_copy(update={"instance_prompt": config.class_prompt}), base).notes
    assert any("it is the class itself that will change" in note for note in notes)


LIGHTNING = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # its own use of torch


@LIGHTNING
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_run_that_goes_on_sees_what_it_would_have_seen(
    config: TrainConfig, base: Base, tmp_path: Path, stop: int
) -> None:
    """Five examples and two a step: an epoch is three steps, so the run stops within, at the end of and after one."""
    data = DreamBoothData(config, base)
    data.fill_class_images(paint)
    _, whole = run(data, tmp_path, max_steps=7)
    assert len(whole) == 7
    assert [keys[:2] for keys in whole] == [[2 * i, 2 * i + 1] for i in range(7)]
    trainer, first = run(data, tmp_path, max_steps=stop)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    _, rest = run(data, tmp_path, max_steps=7, resumed=tmp_path / "stopped.ckpt")
    assert first + rest == whole


@LIGHTNING
def test_accumulation_sees_the_same_examples_a_step(config: TrainConfig, base: Base, tmp_path: Path) -> None:
    halved = config.model_copy(update={"train_batch_size": 1, "gradient_accumulation_steps": 2})
    data = DreamBoothData(halved, base)
    data.fill_class_images(paint)
    trainer, seen = run(data, tmp_path, max_steps=4, accumulate_grad_batches=2)
    assert trainer.global_step == 4
    assert [keys[0] for keys in seen] == list(range(8))


def test_models_that_take_more_than_noise_and_text_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    for write, sentence in (
        (write_inpainting_miniature, "its UNet takes 9 channels, since it was trained to inpaint"),
        (write_distilled_miniature, "its UNet takes guidance as an input, as distilled ones do"),
    ):
        with pytest.raises(TrainError, match=sentence):
            DreamBoothData(config, read_base(write(tmp_path / write.__name__)))
