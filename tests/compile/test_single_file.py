from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import save_file

from mezzotint.compile.checkpoint import Checkpoint, load_checkpoint, schedule_settings
from mezzotint.compile.diffusers_folder import load_scheduler, load_tokenizer, read_json
from mezzotint.compile.single_file import DATA, _recognise
from mezzotint.engines.errors import CheckpointError
from mezzotint.trainer.single_file import State, compvis_state
from tests.conftest import EMOJI
from tests.miniatures import write_inpainting_miniature, write_sd15_miniature, write_sd21_miniature


@pytest.fixture(scope="module")
def emoji() -> Checkpoint:
    return load_checkpoint(EMOJI)


@pytest.fixture(scope="module")
def emoji_state(emoji: Checkpoint) -> State:
    return compvis_state(emoji.text_encoder, emoji.unet, emoji.vae)


def test_the_emoji_model_as_a_single_file_is_the_folder_weight_for_weight(
    emoji: Checkpoint, emoji_state: State, tmp_path: Path
) -> None:
    file = tmp_path / "Emoji One.safetensors"
    save_file(emoji_state, file)
    single = load_checkpoint(file, config=EMOJI)
    assert_same_weights(single, emoji)
    assert single.digest == emoji.digest
    assert single.name == "emoji-one"
    assert single.tokenizer_json == emoji.tokenizer_json
    assert single.schedule == emoji.schedule


@pytest.mark.parametrize("write", [write_sd15_miniature, write_sd21_miniature])
def test_a_ckpt_of_a_miniature_is_the_folder_weight_for_weight(write: Any, tmp_path: Path) -> None:
    folder = load_checkpoint(write(tmp_path / "folder"))
    state = compvis_state(folder.text_encoder, folder.unet, folder.vae)
    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": state, "global_step": 7}, file)
    single = load_checkpoint(file, config=tmp_path / "folder")
    assert_same_weights(single, folder)
    assert single.digest == folder.digest


def test_a_file_says_itself_that_its_model_was_trained_to_inpaint(tmp_path: Path) -> None:
    folder = load_checkpoint(write_inpainting_miniature(tmp_path / "inpainting"))
    file = tmp_path / "model.safetensors"
    save_file(compvis_state(folder.text_encoder, folder.unet, folder.vae), file)
    single = load_checkpoint(file, config=write_sd15_miniature(tmp_path / "plain"))
    assert single.fills_in
    assert_same_weights(single, folder)


def test_half_precision_files_load_as_float32(emoji: Checkpoint, emoji_state: State, tmp_path: Path) -> None:
    file = tmp_path / "half.safetensors"
    save_file({key: value.half() for key, value in emoji_state.items()}, file)
    single = load_checkpoint(file, config=EMOJI)
    assert single.unet.dtype == single.vae.dtype == single.text_encoder.dtype == torch.float32
    assert single.digest == emoji.digest  # the folder's own weights are stored in half precision


def test_weights_beside_the_model_are_left_out_and_averaged_ones_named(emoji_state: State, tmp_path: Path) -> None:
    file = tmp_path / "full.ckpt"
    extra = {
        "betas": torch.zeros(1000),
        "model_ema.diffusion_modelout2bias": torch.zeros(4),
        "first_stage_model.loss.logvar": torch.zeros(1),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(24)[None],
    }
    torch.save({**emoji_state, **extra}, file)
    assert load_checkpoint(file, config=EMOJI).notes == (
        "the file also holds averaged (EMA) weights, which are not used: the plain ones are",
    )


def edit_drop(state: State) -> None:
    del state["model.diffusion_model.out.2.bias"]


def edit_add(state: State) -> None:
    state["model.diffusion_model.label_emb.0.0.weight"] = torch.zeros(3)


def edit_reshape(state: State) -> None:
    state["first_stage_model.decoder.conv_out.bias"] = torch.zeros(5)


def edit_nan(state: State) -> None:
    state["first_stage_model.decoder.conv_out.bias"] = torch.full((3,), torch.nan)


def edit_no_text(state: State) -> None:
    for key in [key for key in state if key.startswith("cond_stage_model.")]:
        del state[key]


def edit_other_depth(state: State) -> None:
    for key in [key for key in state if ".layers.3." in key]:
        del state[key]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_drop, r"unet has weights 1 missing or of another shape \(conv_out\.bias\), expected exactly those"),
        (edit_add, r"unet has weights 1 unexpected \(model\.diffusion_model\.label_emb\.0\.0\.weight\)"),
        (edit_reshape, r"vae has weights 1 missing or of another shape \(decoder\.conv_out\.bias\)"),
        (edit_nan, r"vae parameter decoder\.conv_out\.bias holds NaN or infinity"),
        (edit_no_text, r"holds no text_encoder, expected keys that begin with cond_stage_model\.transformer\."),
        (edit_other_depth, r"text_encoder has weights 16 missing or of another shape \(encoder\.layers\.3"),
    ],
)
def test_a_file_with_other_weights_than_its_configs_is_refused(
    edit: Any, message: str, emoji_state: State, tmp_path: Path
) -> None:
    state = dict(emoji_state)
    edit(state)
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(file, config=EMOJI)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_truncated_file_is_named(suffix: str, emoji_state: State, tmp_path: Path) -> None:
    file = tmp_path / f"model{suffix}"
    save_file(emoji_state, file) if suffix == ".safetensors" else torch.save(emoji_state, file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=rf"model\{suffix}: truncated or damaged .* fetch it again"):
        load_checkpoint(file, config=EMOJI)


def test_a_pickle_with_other_objects_than_tensors_is_not_executed(tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": {}, "callbacks": Path("x")}, file)
    with pytest.raises(CheckpointError, match="not a pickle of tensors alone"):
        load_checkpoint(file, config=EMOJI)


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"a \.md file, expected \.safetensors or \.ckpt"):
        load_checkpoint(EMOJI / "README.md")


def test_a_bare_component_is_no_checkpoint() -> None:
    with pytest.raises(CheckpointError, match=r"holds no unet, expected keys that begin with model\.diffusion_model\."):
        load_checkpoint(EMOJI / "unet" / "diffusion_pytorch_model.safetensors")


def test_a_file_of_unknown_size_asks_for_its_configs(emoji_state: State, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(emoji_state, file)
    message = r"begins with \(64, 4, 3, 3\) weights and reads text of width 192, .* pass --config"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(file)


@pytest.mark.parametrize("width", [768, 1024])
def test_full_size_files_are_recognised_without_configs(width: int, tmp_path: Path) -> None:
    # Two real shapes are enough to be recognised; the next thing that the reader looks for is missing.
    file = tmp_path / "model.safetensors"
    first = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(320, width),
    }
    save_file(first, file)
    with pytest.raises(CheckpointError, match="holds no text_encoder"):
        load_checkpoint(file)


def test_of_full_size_files_that_inpaint_the_second_is_no_v_prediction(tmp_path: Path) -> None:
    names = ("input_blocks.0.0.weight", "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    for channels, width, unlike in ((9, 1024, {"prediction_type": "epsilon"}), (4, 1024, None), (9, 768, None)):
        shapes = ((320, channels, 3, 3), (320, width))
        state = {f"model.diffusion_model.{name}": torch.zeros(shape) for name, shape in zip(names, shapes, strict=True)}
        assert _recognise(tmp_path, state).unlike.get("scheduler") == unlike


@pytest.mark.parametrize(
    ("name", "unet", "text_encoder"), [("sd15", 859_520_964, 123_060_480), ("sd21", 865_910_724, 340_387_840)]
)
def test_the_bundled_configs_make_models_of_the_published_sizes(name: str, unet: int, text_encoder: int) -> None:
    folder = DATA / name
    with torch.device("meta"):
        models = (
            diffusers.UNet2DConditionModel.from_config(read_json(folder / "unet" / "config.json")),
            transformers.CLIPTextModel(
                transformers.CLIPTextConfig(**read_json(folder / "text_encoder" / "config.json"))
            ),
            diffusers.AutoencoderKL.from_config(read_json(folder / "vae" / "config.json")),
        )
    assert [sum(weight.numel() for weight in model.parameters()) for model in models] == [
        unet,
        text_encoder,
        83_653_863,
    ]


def test_the_bundled_vocabulary_is_clips() -> None:
    tokenizer = load_tokenizer(DATA / "clip_tokenizer")
    assert tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(tokenizer) == 49408


def test_the_bundled_schedules_are_those_of_the_models_and_say_what_they_leave_open() -> None:
    sd15 = schedule_settings(load_scheduler(DATA / "sd15" / "scheduler", "PNDMScheduler"))
    sd21 = schedule_settings(load_scheduler(DATA / "sd21" / "scheduler", "DDIMScheduler"))
    assert (sd15.prediction_type, sd21.prediction_type) == ("epsilon", "v_prediction")
    for schedule in (sd15, sd21):
        assert (schedule.beta_start, schedule.beta_end, schedule.beta_schedule) == (0.00085, 0.012, "scaled_linear")
        assert (schedule.steps_offset, schedule.set_alpha_to_one) == (1, False)
        assert "timestep_spacing" in schedule.unstated


def assert_same_weights(left: Checkpoint, right: Checkpoint) -> None:
    for component in ("text_encoder", "unet", "vae"):
        ours, theirs = getattr(left, component).state_dict(), getattr(right, component).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
