"""The safety checker: compiled for real, and held to diffusers' own on the same pictures."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file

from mezzotint.compile.architecture import weights_digest
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.job import StageEvent, Status
from mezzotint.compile.safety import Checker, load_checker, read_entry
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.bundle_files import check_files
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import CheckpointError
from mezzotint.engines.generate import generate
from mezzotint.engines.manifest import Manifest, SafetyEntry, read_manifest
from mezzotint.engines.request import Request
from mezzotint.engines.safety import CONCEPT_SCORES, SPECIAL_SCORES, SafetyChecker, clip_input, is_flagged
from mezzotint.engines.variants import FULL
from tests.compile.jobs import events_of, job
from tests.conftest import EMOJI, Checked

# torch and diffusers warn of their own insides
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

UNCHECKED = (
    "the checkpoint's safety checker is left out, so pictures are served unchecked; "
    "compile with `--with-safety-checker` to include it"
)
ENTRY = SafetyEntry(
    shortest_edge=224,
    crop=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def compiled(source: Path, output: Path, backend: str, **changes: Any) -> tuple[Manifest, list[StageEvent]]:
    events = events_of(job(source, output, backend=backend, **changes))
    check_files(output, read_manifest(output))
    return read_manifest(output), events


def truth(checked: Checked) -> list[bool]:
    """What diffusers' pipeline says of the pictures."""
    processor = transformers.CLIPImageProcessorPil.from_pretrained(checked.folder / "feature_extractor")
    pixels = processor(checked.pictures, return_tensors="pt").pixel_values
    _, flags = checked.module(clip_input=pixels, images=[np.zeros((8, 8, 3)) for _ in checked.pictures])
    return [bool(flag) for flag in flags]


@pytest.mark.parametrize("backend", [pytest.param("openvino", marks=pytest.mark.slow), "onnxruntime"])
def test_an_engine_flags_what_diffusers_flags(checked: Checked, tmp_path: Path, backend: str) -> None:
    manifest, events = compiled(checked.folder, tmp_path / "b", backend, with_safety_checker=True)
    assert not [event for event in events if event.status is Status.NOTE]
    assert UNCHECKED not in manifest.notes
    engine = manifest.engine(Component.SAFETY_CHECKER)
    assert engine.precision is Precision.FP32
    assert {m.output: m.snr_db >= m.floor_db == 70 for m in manifest.verified if m.component == engine.component} == {
        SPECIAL_SCORES: True,
        CONCEPT_SCORES: True,
    }
    model = open_bundle(tmp_path / "b", LoadOptions(devices={}, cache=False))
    assert manifest.safety is not None
    checker = SafetyChecker(model.engines[Component.SAFETY_CHECKER, FULL], manifest.safety)
    flags = checker.flags(checked.pictures)
    assert flags == truth(checked) == [True, True, False, False, False, False, False]
    images = generate(model, [Request(**checked.request, seed=seed) for seed in range(1, 5)])
    model.close()
    assert [image.flagged for (image,) in images] == flags[:4]


def test_the_second_picture_is_flagged_by_special_care_alone(checked: Checked) -> None:
    weights = checked.module.special_care_embeds_weights
    before = weights.clone()
    weights.fill_(9.0)  # no cosine passes that
    try:
        assert truth(checked) == [True, *[False] * 6]
    finally:
        weights.copy_(before)


@pytest.mark.parametrize("size", [(224, 224), (512, 512), (512, 768), (768, 512), (64, 64), (300, 301), (240, 1000)])
def test_pictures_are_prepared_bit_for_bit_as_transformers_does(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = transformers.CLIPImageProcessorPil()(pixels, return_tensors="np").pixel_values[0]
    assert np.array_equal(clip_input(pixels, ENTRY), wanted)


class FixedCosines(StableDiffusionSafetyChecker):
    """diffusers' rule alone: its picture embedding is what it is given."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.vision_model = lambda given: (None, given)
        self.visual_projection = torch.nn.Identity()


def test_the_rule_is_diffusers_at_every_edge() -> None:
    module: Any = FixedCosines()
    rng = np.random.default_rng(0)
    module.special_care_embeds, module.concept_embeds = torch.eye(4)[:2], torch.eye(4)[2:]
    flags = []
    for _ in range(400):
        embeds = torch.from_numpy(rng.standard_normal((1, 4)).astype(np.float32))
        embeds /= embeds.norm()
        near = rng.choice([0.02, 0.0015, 0.0006, 0.0004, -0.0004, -0.0094, -0.0096, -0.02], 4).astype(np.float32)
        thresholds = embeds[0] - torch.from_numpy(near)
        module.special_care_embeds_weights, module.concept_embeds_weights = thresholds[:2], thresholds[2:]
        _, (wanted,) = module(embeds, [np.zeros((1, 1, 3))])
        normal = torch.nn.functional.normalize(embeds)[0]
        scores = (normal - thresholds).numpy()
        flags.append(wanted)
        assert is_flagged(scores[:2], scores[2:]) == wanted
    assert 50 < sum(flags) < 350


def test_a_checker_that_is_left_out_is_said_to_be_in_output_and_manifest(checked: Checked, tmp_path: Path) -> None:
    manifest, events = compiled(checked.folder, tmp_path / "b", "openvino")
    assert [event.detail for event in events if event.status is Status.NOTE] == [UNCHECKED]
    assert UNCHECKED in manifest.notes
    assert manifest.safety is None
    model = open_bundle(tmp_path / "b", LoadOptions(devices={}, cache=False))
    ((image,),) = generate(model, [Request(**checked.request)])
    model.close()
    assert image.flagged is None


def test_a_checkpoint_without_one_is_one_sentence(sd15_checkpoint: Path) -> None:
    sentence = "has no safety checker to compile; give a diffusers folder that has one, or leave"
    for source in (sd15_checkpoint, EMOJI):
        with pytest.raises(CheckpointError, match=sentence):
            load_checkpoint(source, with_safety_checker=True)


def test_a_checker_of_another_class_or_size_or_without_files_is_one_sentence(checked: Checked, tmp_path: Path) -> None:
    folder = tmp_path / "checked"
    shutil.copytree(checked.folder, folder)
    said = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(said | {"safety_checker": ["x", "OtherChecker"]}))
    with pytest.raises(CheckpointError, match="its safety checker is of OtherChecker, expected StableDiffusionSafety"):
        load_checker(folder)
    (folder / "model_index.json").write_text(json.dumps(said))
    config = folder / "feature_extractor" / "preprocessor_config.json"
    config.write_text(json.dumps({"size": 224, "crop_size": 224}))
    with pytest.raises(CheckpointError, match="crop_size is 224, expected 32 as the safety checker takes"):
        load_checker(folder)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: no such file"):
        load_checker(folder)
    (folder / "safety_checker" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safety_checker has no weights"):
        load_checker(folder)


def test_a_checker_saved_with_older_names_is_the_same(checked: Checked, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(checked.folder, folder)
    file = folder / "safety_checker" / "model.safetensors"
    weights = {name.replace("vision_model.", "vision_model.vision_model."): v for name, v in load_file(file).items()}
    weights["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(weights, file, metadata={"format": "pt"})
    found: list[Checker] = [load_checker(checked.folder), load_checker(folder)]
    digests = {weights_digest(checker.module.state_dict()) for checker in found}
    assert len(digests) == 1


@pytest.mark.parametrize(
    "said",
    [
        {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}},
        {"size": 224, "crop_size": 224, "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3},
        {},
    ],
)
def test_new_and_old_settings_of_pictures_are_read(said: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(said))
    assert read_entry(tmp_path / "c.json") == ENTRY


@pytest.mark.parametrize(
    "said",
    [
        {"size": {"height": 224, "width": 224}},
        {"crop_size": {"height": 224, "width": 200}},
        {"crop_size": 300},
        {"resample": 2},
        {"do_center_crop": False},
        {"rescale_factor": 1.0},
    ],
)
def test_settings_that_prepare_pictures_otherwise_are_refused(said: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=r"c\.json: says .*, expected a bicubic resize"):
        read_entry(tmp_path / "c.json")
