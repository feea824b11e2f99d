"""LoRA files merged into a checkpoint: every layout gives diffusers' weights, and what does not fit is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from mezzotint.compile.checkpoint import Checkpoint, load_checkpoint
from mezzotint.compile.job import LoraFile
from mezzotint.compile.lora import merge_loras
from mezzotint.compile.pipeline import calibration_base
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.errors import CheckpointError
from mezzotint.engines.manifest import MANIFEST, MergedEntry
from mezzotint.engines.model_index import BASE_DIGEST
from tests.compile.jobs import job
from tests.conftest import EMOJI
from tests.fake_manifest import fake_manifest
from tests.loras import PEFT_FILE, Lora, State

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Edit = Callable[[State], object]
QUERY = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def lora() -> Lora:
    return Lora(EMOJI)


@pytest.fixture(scope="module")
def base() -> Checkpoint:
    return load_checkpoint(EMOJI)


@pytest.fixture(scope="module")
def file(lora: Lora, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lora.as_diffusers(tmp_path_factory.mktemp("lora"))


def merged(folder: Path, *loras: LoraFile) -> Checkpoint:
    return merge_loras(load_checkpoint(folder), loras)


def weights_of(checkpoint: Any) -> State:
    return {
        f"{component}.{name}": value
        for component in ("text_encoder", "unet", "vae")
        for name, value in getattr(checkpoint, component).state_dict().items()
    }


def by_diffusers(folder: Path, file: Path, weight: float) -> State:
    """The weights that diffusers' own calls leave, from the file to the end."""
    pipeline = load_checkpoint(folder).pipeline()
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    pipeline.fuse_lora(lora_scale=weight)
    pipeline.unload_lora_weights()
    return weights_of(pipeline)


def assert_same(ours: State, theirs: State) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("layout", ["as_diffusers", "as_old_diffusers", "as_kohya"])
def test_each_layout_is_merged_as_diffusers_merges_it(
    layout: str, lora: Lora, base: Checkpoint, tmp_path: Path
) -> None:
    written: Path = getattr(lora, layout)(tmp_path if layout == "as_diffusers" else tmp_path / "l.safetensors")
    checkpoint = merged(EMOJI, LoraFile(written, 0.7))
    ours = weights_of(checkpoint)
    assert_same(ours, by_diffusers(EMOJI, written, 0.7))
    changed = {name for name, value in weights_of(base).items() if not torch.equal(ours[name], value)}
    assert changed == {
        f"{component}.{key.replace('.lora_A', '')}"
        for component, part in lora.parts.items()
        for key in part
        if ".lora_A" in key
    }
    assert checkpoint.digest != checkpoint.base_digest == base.digest
    assert checkpoint.merged == (MergedEntry(name=written.name, digest=file_digest(written), weight=0.7),)


def test_pefts_folders_are_merged_as_peft_merges_them(lora: Lora, tmp_path: Path) -> None:
    folders = [lora.as_peft(tmp_path / component, component) for component in ("unet", "text_encoder")]
    ours = merged(EMOJI, *map(LoraFile, folders))
    unet = peft.PeftModel.from_pretrained(load_checkpoint(EMOJI).unet, folders[0]).merge_and_unload()
    assert_same(
        {f"unet.{name}": value for name, value in unet.state_dict().items()},
        {name: value for name, value in weights_of(ours).items() if name.startswith("unet.")},
    )
    assert_same(weights_of(ours), weights_of(merged(EMOJI, LoraFile(lora.as_diffusers(tmp_path / "d")))))


def test_convolutions_and_layers_of_other_strength_keep_theirs(base: Checkpoint, tmp_path: Path) -> None:
    lora = Lora(EMOJI, text=False, layers=["conv1", "proj_in", "to_q", "ff.net.2"])
    written = lora.as_kohya(tmp_path / "l.safetensors")
    state = load_file(written)
    names = sorted(key for key in state if key.endswith("to_q.alpha"))
    for i, name in enumerate(names):  # as scripts that resize LoRAs leave them
        state[name] = torch.tensor(float(i))
    save_file(state, written)
    before, ours = base.unet.state_dict(), merged(EMOJI, LoraFile(written, -0.5)).unet.state_dict()
    for key, down in lora.parts["unet"].items():
        if ".lora_A" in key:
            layer, up = key.removesuffix(".lora_A.weight"), lora.parts["unet"][key.replace("lora_A", "lora_B")]
            alpha = state[f"lora_unet_{layer.replace('.', '_')}.alpha"].item()
            change = -0.5 * alpha / 3 * (up.flatten(1) @ down.flatten(1)).reshape(before[f"{layer}.weight"].shape)
            torch.testing.assert_close(ours[f"{layer}.weight"], before[f"{layer}.weight"] + change)


def test_two_loras_add_up_and_their_order_does_not_matter(lora: Lora, tmp_path: Path) -> None:
    first = LoraFile(lora.as_diffusers(tmp_path), 0.5)
    second = LoraFile(Lora(EMOJI, text=False, layers=["to_k"]).as_kohya(tmp_path / "k.safetensors"), 2.0)
    one, other = merged(EMOJI, first, second), merged(EMOJI, second, first)
    assert_same(weights_of(one), weights_of(other))
    assert [entry.weight for entry in one.merged] == [0.5, 2.0]
    assert one.base_digest == other.base_digest


def test_half_precision_and_pickled_files_are_read(lora: Lora, file: Path, tmp_path: Path) -> None:
    half = {key: value.half() for key, value in load_file(lora.as_kohya(tmp_path / "k.safetensors")).items()}
    torch.save(half, tmp_path / "k.pt")
    ours, theirs = (weights_of(merged(EMOJI, LoraFile(path))) for path in (tmp_path / "k.pt", file))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=3e-3)


def test_merging_into_a_fine_tune_names_the_fine_tune(file: Path, base: Checkpoint, tmp_path: Path) -> None:
    tuned = shutil.copytree(EMOJI, tmp_path / "tuned")
    weights = load_file(tuned / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(
        {key: value * 1.01 for key, value in weights.items()}, tuned / "unet" / "diffusion_pytorch_model.safetensors"
    )
    index = json.loads((tuned / "model_index.json").read_text("utf-8"))
    (tuned / "model_index.json").write_text(json.dumps({**index, BASE_DIGEST: base.digest}), encoding="utf-8")
    alone = load_checkpoint(tuned)
    assert alone.base_digest == base.digest != alone.digest
    ours = merged(tuned, LoraFile(file))
    assert ours.base_digest == alone.digest
    assert_same(weights_of(ours), by_diffusers(tuned, file, 1.0))
    diffusers.DiffusionPipeline.from_pretrained(tuned)  # knows nothing of our key and loads


def test_a_base_digest_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(EMOJI, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    (folder / "model_index.json").write_text(json.dumps({**index, BASE_DIGEST: "sd15"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model_index\.json: _base_digest is 'sd15', expected the SHA-256"):
        load_checkpoint(folder)


def edit_nan(state: State) -> None:
    state[f"{QUERY}.lora_A.weight"][0, 0] = torch.nan


def edit_lonely(state: State) -> None:
    del state[f"{QUERY}.lora_B.weight"]


def edit_shape(state: State) -> None:
    state[f"{QUERY}.lora_B.weight"] = torch.zeros(5, 3)


def edit_rank(state: State) -> None:
    state[f"{QUERY}.lora_A.weight"] = state[f"{QUERY}.lora_A.weight"][:2].clone()


def edit_layer(state: State) -> None:
    for side in "AB":
        state[f"unet.down_blocks.9.to_q.lora_{side}.weight"] = state.pop(f"{QUERY}.lora_{side}.weight")


def edit_norm(state: State) -> None:
    for side in "AB":
        state[f"unet.conv_norm_out.lora_{side}.weight"] = torch.zeros(2, 2)


def edit_dora(state: State) -> None:
    state[f"{QUERY}.lora_magnitude_vector.weight"] = torch.zeros(5)


def edit_second_encoder(state: State) -> None:
    for key in [key for key in state if key.startswith("text_encoder.")]:
        state[key.replace("text_encoder.", "text_encoder_2.", 1)] = state.pop(key)


def edit_missing_unet(state: State) -> None:
    for side in "AB":
        del state[f"{QUERY}.lora_{side}.weight"]


def edit_missing_text(state: State) -> None:
    for key in [key for key in state if key.startswith("text_encoder.encoder.layers.1.self_attn.v_proj")]:
        del state[key]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_nan, r"attn1\.to_q\.lora_A\.weight holds NaN or infinity, expected finite numbers; the file is damaged"),
        (edit_lonely, r"lacks one of the two matrices of 1 keys \(unet\.mid_block.*attn1\.to_q\), expected both"),
        (edit_shape, r"unet\.mid_block.*to_q are \(3, 256\) and \(5, 3\), expected \(rank, 256\) and \(256, rank\)"),
        (edit_rank, r"to_q are \(2, 256\) and \(256, 3\), expected \(rank, 256\) and \(256, rank\)"),
        (edit_layer, r"changes 1 keys \(down_blocks\.9\.to_q\), which this model's unet does not have"),
        (edit_norm, r"changes 1 keys \(conv_norm_out\), which this model's unet does not have as a linear layer"),
        (edit_dora, r"holds 1 keys \(unet\..*lora_magnitude_vector\.weight\), expected pairs of matrices of LoRA"),
        (edit_second_encoder, r"changes 16 keys \(text_encoder_2\.encoder\..*trained for another model"),
        (
            edit_missing_text,
            r"lacks 1 keys \(encoder\.layers\.1\.self_attn\.v_proj\) of the text_encoder, which its own",
        ),
        (edit_missing_unet, r"lacks 1 keys \(mid_block\..*attn1\.to_q\) of the unet, which its own config names"),
        (dict.clear, "holds nothing, expected pairs of matrices of LoRA"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(
    edit: Edit, message: str, file: Path, base: Checkpoint, tmp_path: Path
) -> None:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as header:
        metadata = header.metadata()
    state = load_file(file)
    edit(state)
    save_file(state, tmp_path / "bad.safetensors", metadata)
    with pytest.raises(CheckpointError, match=message) as caught:
        merge_loras(base, [LoraFile(tmp_path / "bad.safetensors")])
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "bad.safetensors") in str(caught.value)


def test_a_lora_of_another_model_is_refused(
    file: Path, base: Checkpoint, sd15_checkpoint: Path, tmp_path: Path
) -> None:
    other = Lora(sd15_checkpoint, text=False).as_kohya(tmp_path / "k.safetensors")
    for checkpoint, lora in ((load_checkpoint(sd15_checkpoint), file), (base, other)):
        with pytest.raises(CheckpointError, match="trained for another model"):
            merge_loras(checkpoint, [LoraFile(lora)])


def test_what_is_no_lora_file_is_refused(file: Path, lora: Lora, base: Checkpoint, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    peft_alone = shutil.copy(lora.as_peft(tmp_path / "peft", "unet") / PEFT_FILE, tmp_path / "alone.safetensors")
    other = tmp_path / "loha"
    shutil.copytree(tmp_path / "peft", other)
    peft.LoHaConfig(target_modules=["to_q"]).save_pretrained(other)
    for path, message in (
        (tmp_path / "none.safetensors", "no such file, nor a folder with pytorch_lora_weights.safetensors or adapter"),
        (half, "truncated or damaged"),
        (EMOJI / "unet" / "diffusion_pytorch_model.safetensors", "whole checkpoints do not merge"),
        (EMOJI / "model_index.json", r"a \.json file, expected \.safetensors or \.bin"),
        (peft_alone, r"has no adapter_config\.json beside it, which says how strong"),
        (other, "peft_type is LOHA, expected LORA"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            merge_loras(base, [LoraFile(Path(path))])
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="its weight is inf, expected a finite number"):
        merge_loras(base, [LoraFile(file, float("inf"))])
    assert merge_loras(base, ()) is base


def test_a_base_that_is_named_gives_its_ranges_though_loras_are_merged_into_another(
    base: Checkpoint, tmp_path: Path
) -> None:
    merged = replace(base, base_digest=base.digest, merged=(MergedEntry(name="a", digest="b" * 64, weight=1.0),))
    named = fake_manifest()
    (tmp_path / MANIFEST).write_text(named.model_dump_json(), encoding="utf-8")
    assert calibration_base(job(EMOJI, tmp_path / "b", base=tmp_path), merged) == named.source.digest
    assert calibration_base(job(EMOJI, tmp_path / "b"), merged) == base.digest
