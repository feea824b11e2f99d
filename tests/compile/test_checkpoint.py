import json
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
from tests.compile.folders import copy_emoji, edit_json
from tests.conftest import EMOJI
from tests.miniatures import write_sd15_miniature


@pytest.fixture(scope="module")
def emoji() -> Checkpoint:
    return load_checkpoint(EMOJI)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the emoji model that a test may change."""
    return copy_emoji(tmp_path)


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
