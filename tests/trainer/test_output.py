"""The trained model as a diffusers folder and as a single file: read again, it is the same to the last bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from mezzotint.compile.checkpoint import load_checkpoint, module_digest
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.errors import TrainError
from mezzotint.trainer.model_card import ModelCard
from mezzotint.trainer.output import save_model
from mezzotint.trainer.single_file import write_single_file
from tests.conftest import EMOJI
from tests.miniatures import write_sd15_miniature, write_sd21_miniature
from tests.trainer.bases import Base, read_base

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CARD = ModelCard(
    name="sks-cat",
    base_name="emoji",
    base_digest="0" * 64,
    licence="",
    prompts=("a photo of a sks cat",),
    settings={"max_train_steps": 100},
)


def emoji(_: Path) -> Path:
    return EMOJI


WRITERS = [
    emoji,
    *(pytest.param(write, marks=pytest.mark.slow) for write in (write_sd15_miniature, write_sd21_miniature)),
]


@pytest.fixture
def trained() -> Base:
    """The emoji model with changed UNet and text encoder, in values that half precision does not hold."""
    base = read_base(EMOJI)
    torch.manual_seed(0)
    with torch.no_grad():
        for module in (base.unet, base.text_encoder):
            for value in module.parameters():
                value.add_(torch.randn_like(value) * 1e-3)
    return base


def picture(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(3)
    return pipeline("a cat", num_inference_steps=2, generator=generator, output_type="np").images


def assert_same_weights(left: Any, right: Any) -> None:
    for component in ("text_encoder", "unet", "vae"):
        ours, theirs = getattr(left, component).state_dict(), getattr(right, component).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("write", WRITERS)
def test_a_base_that_was_not_trained_is_written_as_it_came(write: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "base")
    base = load_checkpoint(folder)
    save_model(read_base(folder), tmp_path / "model", CARD)
    again = load_checkpoint(tmp_path / "model")
    assert again.digest == again.base_digest == base.digest
    assert json.loads(again.tokenizer_json) == json.loads(base.tokenizer_json)
    assert again.schedule == base.schedule


def test_the_folder_is_what_diffusers_and_the_compiler_read(trained: Base, tmp_path: Path) -> None:
    save_model(trained, tmp_path / "model", CARD)
    theirs, ours = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "model"), load_checkpoint(tmp_path / "model")
    assert_same_weights(trained, theirs)
    assert_same_weights(trained, ours)
    assert (picture(theirs) == picture(ours.pipeline())).all()
    base = load_checkpoint(EMOJI)
    assert module_digest("vae", ours.vae) == module_digest("vae", base.vae)
    assert ours.digest != ours.base_digest == base.digest
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    for path in (tmp_path / "model").rglob("*.safetensors"):
        assert f"| {path.relative_to(tmp_path / 'model')} | `{file_digest(path)}` |" in card


def test_the_half_precision_copy_is_half_as_large_and_leaves_the_model_alone(trained: Base, tmp_path: Path) -> None:
    save_model(trained, tmp_path / "model", CARD)
    save_model(trained, tmp_path / "half", CARD, dtype=torch.float16)
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / name).rglob("*.safetensors")) for name in ("half", "model")
    ]
    assert sizes[0] / sizes[1] == pytest.approx(0.5, rel=0.02)
    assert trained.unet.dtype == trained.vae.dtype == torch.float32
    half = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "half", torch_dtype=torch.float16)
    assert half.unet.dtype == half.text_encoder.dtype == half.vae.dtype == torch.float16
    ours = load_checkpoint(tmp_path / "half")
    for key, value in trained.unet.state_dict().items():
        assert torch.equal(ours.unet.state_dict()[key], value.half().float())


def test_a_weight_that_half_precision_cannot_hold_is_named(trained: Base, tmp_path: Path) -> None:
    with torch.no_grad():
        trained.unet.conv_out.bias[0] = 1e5
    for save in (
        lambda: save_model(trained, tmp_path / "half", CARD, dtype=torch.float16),
        lambda: write_single_file(trained, tmp_path / "half.safetensors", dtype=torch.float16),
    ):
        with pytest.raises(TrainError, match=r"its largest weight is 100000, which float16 cannot hold"):
            save()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_folder(trained: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(trained, tmp_path / "model", CARD)

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trained.vae, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        save_model(trained, tmp_path / "model", CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert_same_weights(trained, load_checkpoint(tmp_path / "model"))


@pytest.mark.parametrize("write", WRITERS)
def test_a_single_file_is_read_again_weight_for_weight(write: Any, tmp_path: Path) -> None:
    base = read_base(write(tmp_path / "base"))
    config = EMOJI if base.name == "emoji" else tmp_path / "base"
    write_single_file(base, tmp_path / "sks.safetensors")
    again = load_checkpoint(tmp_path / "sks.safetensors", config=config)
    assert_same_weights(base, again)
    assert again.digest == base.digest
    write_single_file(base, tmp_path / "half.safetensors", dtype=torch.float16)
    half = load_checkpoint(tmp_path / "half.safetensors", config=config)
    for key, value in base.vae.state_dict().items():
        assert torch.equal(half.vae.state_dict()[key], value.half().float())


def test_diffusers_reads_the_single_file_too(trained: Base, tmp_path: Path) -> None:
    write_single_file(trained, tmp_path / "sks.safetensors")
    save_model(trained, tmp_path / "model", CARD)
    theirs = diffusers.StableDiffusionPipeline.from_single_file(
        tmp_path / "sks.safetensors", config=str(tmp_path / "model"), local_files_only=True
    )
    assert_same_weights(trained, theirs)


def test_averaged_weights_are_what_is_given(trained: Base, tmp_path: Path) -> None:
    save_model(replace(trained, unet=read_base(EMOJI).unet), tmp_path / "model", CARD)
    ours = load_checkpoint(tmp_path / "model")
    assert module_digest("unet", ours.unet) == module_digest("unet", load_checkpoint(EMOJI).unet)
    assert_same_weights(replace(trained, unet=ours.unet), ours)
