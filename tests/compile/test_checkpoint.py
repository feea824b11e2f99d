import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mezzotint.compile.checkpoint import Checkpoint, load_checkpoint, schedule_settings
from mezzotint.engines.errors import CheckpointError
from tests.conftest import EMOJI
from tests.miniatures import write_sd15_miniature

Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def emoji() -> Checkpoint:
    return load_checkpoint(EMOJI)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the emoji model that a test may damage."""
    return shutil.copytree(EMOJI, tmp_path / "emoji", ignore=shutil.ignore_patterns("*.png"))


def test_a_folder_gives_float32_modules_tokens_and_schedule(emoji: Checkpoint) -> None:
    assert (emoji.source, emoji.name, emoji.notes) == (str(EMOJI), "emoji", ())
    for module in (emoji.text_encoder, emoji.unet, emoji.vae):
        assert not module.training
        assert all(weight.dtype == torch.float32 and not weight.requires_grad for weight in module.parameters())
    assert (emoji.max_tokens, emoji.bos_token_id, emoji.eos_token_id, emoji.pad_token_id) == (24, 3217, 3218, 3218)
    assert json.loads(emoji.tokenizer_json) == json.loads((EMOJI / "tokenizer" / "tokenizer.json").read_text("utf-8"))
    schedule = emoji.schedule
    assert (schedule.scheduler_class, schedule.prediction_type) == ("DDIMScheduler", "v_prediction")
    assert (schedule.num_train_timesteps, schedule.beta_start, schedule.beta_end) == (1000, 0.00085, 0.012)
    assert (schedule.beta_schedule, schedule.trained_betas, schedule.timestep_spacing) == (
        "scaled_linear",
        None,
        "leading",
    )
    assert (schedule.steps_offset, schedule.set_alpha_to_one, schedule.rescale_betas_zero_snr) == (1, False, False)


def test_the_pipeline_draws_what_diffusers_own_draws(emoji: Checkpoint) -> None:
    # Left alone, transformers 5 keeps the text encoder in the half precision of its file and the pipeline fails.
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(EMOJI).to(torch.float32)
    pictures = [draw(pipeline) for pipeline in (emoji.pipeline(), theirs)]
    np.testing.assert_array_equal(*pictures)
    assert pictures[0].std() > 0.05


def draw(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(3)
    return pipeline("a shark on a blue background", num_inference_steps=4, generator=generator, output_type="np").images


def test_two_pipelines_share_no_scheduler(emoji: Checkpoint) -> None:
    assert emoji.pipeline().scheduler is not emoji.pipeline().scheduler


def test_vocabulary_and_merges_do_for_a_tokenizer(emoji: Checkpoint, folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    checkpoint = load_checkpoint(folder)
    assert json.loads(checkpoint.tokenizer_json) == json.loads(emoji.tokenizer_json)
    assert checkpoint.digest == emoji.digest


def test_the_digest_knows_content_not_storage(emoji: Checkpoint, folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = {key: value.float() for key, value in load_file(file).items()}
    diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").save_pretrained(
        folder / "unet", max_shard_size="20MB"
    )
    file.unlink()
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    assert load_checkpoint(folder).digest == emoji.digest

    weights["conv_out.bias"][0] += 1e-3
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    torch.save(weights, folder / "unet" / "diffusion_pytorch_model.bin")
    assert load_checkpoint(folder).digest != emoji.digest


def test_the_digest_knows_the_schedule(emoji: Checkpoint, folder: Path) -> None:
    edit_json(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    assert load_checkpoint(folder).digest != emoji.digest


def test_a_half_precision_variant_alone_is_enough(emoji: Checkpoint, folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(
        folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    )
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / "model.fp16.safetensors")
    assert load_checkpoint(folder).digest == emoji.digest


def test_pickled_weights_load_where_there_is_no_safetensors(emoji: Checkpoint, folder: Path) -> None:
    for component, stem, name in (
        ("vae", "diffusion_pytorch_model", "diffusion_pytorch_model.bin"),
        ("text_encoder", "model", "pytorch_model.bin"),
    ):
        file = folder / component / f"{stem}.safetensors"
        torch.save(load_file(file), folder / component / name)
        file.unlink()
    assert load_checkpoint(folder).digest == emoji.digest


def test_the_old_names_of_the_vaes_attention_load(tmp_path: Path) -> None:
    folder = write_sd15_miniature(tmp_path / "model")
    digest = load_checkpoint(folder).digest
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    old = load_file(file)
    for new_name, old_name in names.items():
        old = {key.replace(new_name, old_name): value for key, value in old.items()}
    save_file(old, file)
    assert load_checkpoint(folder).digest == digest


def test_a_safety_checker_is_named_in_the_notes(folder: Path) -> None:
    edit_json(folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert load_checkpoint(folder).notes == (
        "the checkpoint's safety checker is left out, so pictures are served unchecked; "
        "compile with `--with-safety-checker` to include it",
    )


def test_a_hub_id_is_read_from_the_local_cache(
    emoji: Checkpoint, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = "0123456789" * 4
    repository = tmp_path / "hub" / "models--someone--emoji"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    checkpoint = load_checkpoint("someone/emoji")
    assert (checkpoint.digest, checkpoint.name) == (emoji.digest, "emoji")


def test_a_hub_id_that_is_nowhere_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = "someone/nothing: no such file or folder, not in the local hub cache, and the hub cannot be reached"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint("someone/nothing")


def test_a_path_that_is_nowhere_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no such file or folder, nor a hub id \(owner/name\); give a"):
        load_checkpoint(tmp_path / "nowhere")


def test_configs_for_a_folder_are_refused() -> None:
    with pytest.raises(CheckpointError, match="only for single files"):
        load_checkpoint(EMOJI, config=EMOJI)


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), encoding="utf-8")


def edit_weights(file: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(file)
    edit(weights)
    save_file(weights, file)


UNET = Path("unet", "diffusion_pytorch_model.safetensors")
TEXT = Path("text_encoder", "model.safetensors")
FINAL = "text_model.final_layer_norm.bias"


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


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [
        (diffusers.PNDMScheduler(skip_prk_steps=True), "plms"),
        (diffusers.PNDMScheduler(), "pndm"),
        (diffusers.LCMScheduler(), "lcm"),
        (diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True), "dpmpp_2m karras"),
        (
            diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", use_exponential_sigmas=True),
            "dpmpp_2m_sde exponential",
        ),
        (diffusers.UniPCMultistepScheduler(solver_type="bh1"), "unipc_bh1"),
        (diffusers.DDIMInverseScheduler(), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoints_sampler_is_that_of_its_schedulers_class_and_settings(scheduler: Any, sampler: str) -> None:
    assert schedule_settings(scheduler).sampler == sampler
