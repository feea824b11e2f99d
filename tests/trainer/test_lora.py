"""LoRA in training: what is trained, and files that diffusers, kohya's readers and the compiler agree on."""

from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.job import LoraFile
from mezzotint.compile.lora import merge_loras
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.errors import TrainError
from mezzotint.trainer.lora import DIFFUSERS_FILE, KOHYA_FILE, LoraSettings, add_lora, save_lora
from mezzotint.trainer.model_card import ModelCard
from tests.conftest import EMOJI
from tests.trainer.bases import Base, read_base

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SETTINGS = LoraSettings(rank=3, alpha=1.5)
CARD = ModelCard(
    name="sks", base_name="mini", base_digest="0" * 64, licence="", prompts=("a sks cat",), settings={}, is_lora=True
)
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def base() -> Base:
    return read_base(EMOJI)


def disturb(*modules: torch.nn.Module) -> None:
    """Give the second matrices, zero at the start, values as if they had been trained."""
    torch.manual_seed(1)
    for module in modules:
        for name, value in module.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(value, std=0.3)


def test_only_the_matrices_are_trained_and_at_first_they_do_nothing(base: Base) -> None:
    inputs = (torch.ones(1, 4, 16, 16), torch.tensor([3.0]), torch.ones(1, 24, 192))
    with torch.no_grad():
        before = base.unet(*inputs).sample
    add_lora(base.unet, None, SETTINGS, seed=0)
    trained = {name for name, value in base.unet.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in base.unet.named_parameters() if ".lora_" in name}
    assert {name.split(".lora_")[0].split(".", 5)[-1] for name in trained} >= {"attn1.to_q", "attn2.to_out.0"}
    assert not any(value.requires_grad and ".lora_" not in name for name, value in base.text_encoder.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(base.unet(*inputs).sample, before, rtol=0, atol=0)


def test_the_first_matrices_are_those_of_the_seed_whatever_was_drawn_before() -> None:
    found = []
    for drawn, seed in ((0, 5), (7, 5), (0, 6)):
        base = read_base(EMOJI)
        torch.manual_seed(1)
        torch.rand(drawn)
        state = torch.get_rng_state()
        add_lora(base.unet, base.text_encoder, SETTINGS, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        found.append(base.unet.get_submodule(LAYER).lora_A["default"].weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("text", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_both_files_are_the_same_lora_to_diffusers_and_to_the_compiler(text: bool, base: Base, tmp_path: Path) -> None:
    modules = {"unet": base.unet} | ({"text_encoder": base.text_encoder} if text else {})
    add_lora(base.unet, base.text_encoder if text else None, SETTINGS, seed=0)
    disturb(*modules.values())
    files = save_lora(modules, tmp_path / "run", CARD)
    assert [file.name for file in files] == [DIFFUSERS_FILE, KOHYA_FILE]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"README.md", DIFFUSERS_FILE, KOHYA_FILE}
    for file in files:
        assert file_digest(file) in (tmp_path / "run" / "README.md").read_text("utf-8")
    adapted = base.unet.get_submodule(LAYER)
    change = adapted.get_delta_weight("default")
    assert change.abs().max() > 0.01
    results = []
    for file in files:
        pipeline = load_checkpoint(EMOJI).pipeline()
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        merged = merge_loras(load_checkpoint(EMOJI), [LoraFile(file)])
        for component in ("unet", "text_encoder"):
            theirs = getattr(pipeline, component).state_dict()
            for name, value in getattr(merged, component).state_dict().items():
                torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-6)
        results.append(merged)
    weight = results[0].unet.state_dict()[f"{LAYER}.weight"]
    torch.testing.assert_close(weight, adapted.base_layer.weight + change, rtol=1e-6, atol=1e-6)
    plain = load_checkpoint(EMOJI).text_encoder.state_dict()
    changed = [
        name for name, value in results[1].text_encoder.state_dict().items() if not torch.equal(value, plain[name])
    ]
    assert len(changed) == (16 if text else 0)


def test_kohyas_keys_are_those_of_stable_diffusion_1_with_the_alpha_that_was_set(base: Base, tmp_path: Path) -> None:
    add_lora(base.unet, base.text_encoder, SETTINGS, seed=0)
    _, file = save_lora({"unet": base.unet, "text_encoder": base.text_encoder}, tmp_path, CARD)
    state = load_file(file)
    for layer, side in (
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0", 256),
        ("lora_te_text_model_encoder_layers_1_self_attn_q_proj", 192),
    ):
        assert state[f"{layer}.lora_down.weight"].shape == (3, side)
        assert state[f"{layer}.lora_up.weight"].shape == (side, 3)
        assert state[f"{layer}.alpha"].item() == 1.5


def test_a_file_is_written_over_whole(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_lora(base.unet, None, SETTINGS, seed=0)
    file, _ = save_lora({"unet": base.unet}, tmp_path, CARD)
    before = file_digest(file)

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "save_lora_weights", full)
    with pytest.raises(OSError, match="No space"):
        save_lora({"unet": base.unet}, tmp_path, CARD)
    assert file_digest(file) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_other_layers_and_ranks_are_trained_where_they_are_named(base: Base) -> None:
    add_lora(base.unet, None, LoraSettings(rank=2, alpha=2.0, layers=("conv1", "ff.net.2")), seed=0)
    trained = [name for name, value in base.unet.named_parameters() if value.requires_grad]
    assert trained
    assert all(".conv1.lora_" in name or ".ff.net.2.lora_" in name for name in trained)


@pytest.mark.parametrize(("layers", "reason"), [(("to_qq",), "not found"), (("norm1",), "not supported")])
def test_layers_that_are_not_there_are_one_sentence(layers: tuple[str, ...], reason: str, base: Base) -> None:
    with pytest.raises(
        TrainError, match=rf"LoRA's layers {layers[0]}: do not fit the unet .*{reason}.* such as to_k"
    ) as caught:
        add_lora(base.unet, None, LoraSettings(layers=layers), seed=0)
    assert "\n" not in str(caught.value)
