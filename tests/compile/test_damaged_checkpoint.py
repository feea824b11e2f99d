"""A checkpoint's folder with something missing, damaged or of another model is refused in one sentence."""

from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.engines.errors import CheckpointError
from tests.compile.folders import copy_emoji, edit_json

Edit = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the emoji model that a test may damage."""
    return copy_emoji(tmp_path)


def edit_weights(file: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(file)
    edit(weights)
    save_file(weights, file)


UNET = Path("unet", "diffusion_pytorch_model.safetensors")
TEXT = Path("text_encoder", "model.safetensors")


def index(**values: object) -> Edit:
    return lambda folder: edit_json(folder / "model_index.json", **values)


def config(component: str, **values: object) -> Edit:
    return lambda folder: edit_json(folder / component / "config.json", **values)


def scheduler(**values: object) -> Edit:
    return lambda folder: edit_json(folder / "scheduler" / "scheduler_config.json", **values)


def weights(file: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
    return lambda folder: edit_weights(folder / file, edit)


def remove(*names: str) -> Edit:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def truncate(file: Path) -> Edit:
    def edit(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])

    return edit


def write(name: str, text: str) -> Edit:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8") and None


def text_name(weights: dict[str, torch.Tensor], ending: str) -> str:
    return next(key for key in weights if key.endswith(ending))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("model_index.json"), r"model_index\.json: no such file; give a complete diffusers folder"),
        (write("model_index.json", "{"), r"model_index\.json: not valid JSON"),
        (write("unet/config.json", "[]"), r"config\.json: holds a JSON list, expected an object"),
        (write("vae/config.json", '{"a": '), r"vae/config\.json: not valid JSON"),
        (write("scheduler/scheduler_config.json", "no"), r"scheduler_config\.json: not valid JSON"),
        (write("tokenizer/tokenizer.json", "{}"), r"tokenizer: the tokenizer cannot be read"),
        (
            index(text_encoder=["transformers", "T5EncoderModel"]),
            "text_encoder is T5EncoderModel, expected CLIPTextModel",
        ),
        (index(unet=[None, None]), "unet is None, expected UNet2DConditionModel"),
        (index(vae=["diffusers"]), r"vae is \['diffusers'\], expected \[library, class\]"),
        (
            index(text_encoder_2=["transformers", "CLIPTextModel"]),
            r"unknown component text_encoder_2 \(CLIPTextModel\)",
        ),
        (index(scheduler=["diffusers", "NoSuchScheduler"]), "scheduler is NoSuchScheduler, expected a scheduler class"),
        (
            index(scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"]),
            "FlowMatchEulerDiscreteScheduler has no betas",
        ),
        (scheduler(prediction_type="flow_prediction"), "prediction_type is flow_prediction, expected one of epsilon"),
        (scheduler(beta_schedule="sawtooth"), r"DDIMScheduler cannot be made from scheduler_config\.json"),
        (remove("unet/config.json"), r"unet/config\.json: no such file"),
        (remove(str(UNET)), r"unet has no weights, expected diffusion_pytorch_model\.safetensors or"),
        (remove(str(TEXT)), r"text_encoder has no weights, expected model\.safetensors or pytorch_model\.bin"),
        (remove("tokenizer/tokenizer.json", "tokenizer/vocab.json"), r"no tokenizer, expected tokenizer\.json or both"),
        (truncate(UNET), r"unet/diffusion_pytorch_model\.safetensors: truncated or damaged .*fetch it again"),
        (truncate(TEXT), r"text_encoder/model\.safetensors: truncated or damaged"),
        (
            weights(UNET, lambda w: w.pop("conv_out.bias")),
            r"unet has weights 1 missing .* \(conv_out\.bias\), expected",
        ),
        (weights(UNET, lambda w: w.update(extra=torch.zeros(2))), r"unet has weights 1 unexpected \(extra\)"),
        (weights(TEXT, lambda w: w.pop(text_name(w, "final_layer_norm.bias"))), "text_encoder has weights 1 missing"),
        (weights(TEXT, lambda w: w.update(extra=torch.zeros(2))), r"text_encoder has weights 1 unexpected \(extra\)"),
        (weights(UNET, lambda w: w["conv_out.bias"].fill_(torch.nan)), r"unet parameter conv_out\.bias holds NaN"),
        (
            weights(TEXT, lambda w: w[text_name(w, "final_layer_norm.bias")].fill_(torch.inf)),
            r"text_encoder parameter .*final_layer_norm\.bias holds NaN or infinity",
        ),
        (config("unet", block_out_channels=[64, 128, 320]), "unet cannot be loaded|unet has weights"),
        (config("text_encoder", num_hidden_layers=5), "text_encoder has weights 16 missing"),
        (config("text_encoder", vocab_size=100), "text_encoder cannot be loaded|text_encoder has weights"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(damage: Edit, message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_shard_is_named(folder: Path) -> None:
    module = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
    module.save_pretrained(folder / "vae", max_shard_size="2MB")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    sorted((folder / "vae").glob("*-of-*"))[0].unlink()
    with pytest.raises(CheckpointError, match=r"00001-of-\d+\.safetensors: no such file, expected a shard of vae"):
        load_checkpoint(folder)


def test_components_of_two_models_are_refused(folder: Path) -> None:
    depth = diffusers.UNet2DConditionModel.from_config(
        {**diffusers.UNet2DConditionModel.load_config(folder / "unet"), "in_channels": 5}
    )
    depth.save_pretrained(folder / "unet")
    with pytest.raises(CheckpointError, match=r"in_channels is 5, expected 4 or 9 beside the VAE's latent_channels"):
        load_checkpoint(folder)
