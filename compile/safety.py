"""The checkpoint's safety checker: diffusers' StableDiffusionSafetyChecker, as far as it is arithmetic.

What it does with its scores is the server's matter (``engines/safety.py``); here they are made, and compared.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion import safety_checker as diffusers_checker

from mezzotint.compile.diffusers_folder import SAFETY_CHECKER, load_module, read_json
from mezzotint.compile.export import Part, tensor_spec
from mezzotint.compile.reference import Arrays
from mezzotint.compile.stages import code_digest
from mezzotint.engines import safety as preprocessing
from mezzotint.engines.errors import CheckpointError
from mezzotint.engines.manifest import SafetyEntry
from mezzotint.engines.safety import CLIP_PIXELS, CONCEPT_SCORES, SPECIAL_SCORES, clip_input

_CLASS = "StableDiffusionSafetyChecker"
_PREPROCESSOR = Path("feature_extractor") / "preprocessor_config.json"
# What CLIPImageProcessor takes for granted, and what ``clip_input`` can do.
_BICUBIC = 3
_FIXED = {
    **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), True),
    "resample": _BICUBIC,
    "rescale_factor": 1 / 255,
}
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_SIDE = 224


@dataclass(frozen=True, slots=True, eq=False)
class Checker:
    """A checkpoint's safety checker, float32, and how pictures become its input."""

    module: Any
    entry: SafetyEntry


class Scores(torch.nn.Module):
    """By how much a picture's cosine with each concept passes the concept's threshold; no rule, no rounding."""

    special_care_embeds: torch.Tensor
    special_care_embeds_weights: torch.Tensor
    concept_embeds: torch.Tensor
    concept_embeds_weights: torch.Tensor

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.vision_model = module.vision_model
        self.projection = module.visual_projection
        for name in ("special_care_embeds", "concept_embeds"):
            self.register_buffer(name, torch.nn.functional.normalize(getattr(module, name).detach()).T.contiguous())
            self.register_buffer(f"{name}_weights", getattr(module, f"{name}_weights").detach().clone())

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (special scores, concept scores), float32 [rows, concepts] each."""
        embeds = torch.nn.functional.normalize(self.projection(self.vision_model(pixels)[1]))
        special = embeds @ self.special_care_embeds - self.special_care_embeds_weights
        return special, embeds @ self.concept_embeds - self.concept_embeds_weights


def load_checker(folder: Path) -> Checker:
    """Load the safety checker of a diffusers folder. Raises CheckpointError."""
    _, found = read_json(folder / "model_index.json")[SAFETY_CHECKER]
    if found != _CLASS:
        raise CheckpointError(f"{folder}: its safety checker is of {found}, expected {_CLASS}; compile without it")
    own = folder / SAFETY_CHECKER
    module = load_module(diffusers_checker.StableDiffusionSafetyChecker, SAFETY_CHECKER, own, "model")
    entry = read_entry(folder / _PREPROCESSOR)
    side = module.config.vision_config.image_size
    if entry.crop != side:
        raise CheckpointError(
            f"{folder / _PREPROCESSOR}: crop_size is {entry.crop}, expected {side} as the safety checker takes; "
            "the two are not of one model"
        )
    return Checker(module, entry)


def read_entry(path: Path) -> SafetyEntry:
    """Read the ``preprocessor_config.json`` of a CLIPImageProcessor. Raises CheckpointError."""
    config = read_json(path)
    other = {name: config[name] for name, value in _FIXED.items() if config.get(name, value) != value}
    size = _side(config.get("size", _SIDE), "shortest_edge")
    crop = _side(config.get("crop_size", _SIDE), "height", "width")
    if other or size is None or crop is None or crop > size:
        said = other or {name: config.get(name, _SIDE) for name in ("size", "crop_size")}
        raise CheckpointError(
            f"{path}: says {said}, expected a bicubic resize of the shorter side and a square crop no larger, rescaled "
            "by 1/255 and normalised; no other preparation is served, compile without the safety checker"
        )
    return SafetyEntry(
        shortest_edge=size,
        crop=crop,
        mean=tuple(config.get("image_mean", _MEAN)),
        std=tuple(config.get("image_std", _STD)),
    )


def checker_part(checker: Checker) -> Part:
    """Return the safety checker, ready to be exported."""
    side = checker.entry.crop
    numbers = [len(getattr(checker.module, name)) for name in ("special_care_embeds", "concept_embeds")]
    outputs = [
        tensor_spec(name, name, "rows", number)
        for name, number in zip((SPECIAL_SCORES, CONCEPT_SCORES), numbers, strict=True)
    ]
    given = tensor_spec(CLIP_PIXELS, "image", "rows", 3, side, side)
    settings = {
        "module": checker.module.config.to_json_string(),
        "entry": checker.entry.model_dump(),
        "code": code_digest(sys.modules[__name__], preprocessing),
    }
    return Part(Scores(checker.module), (torch.randn(2, 3, side, side),), (given,), tuple(outputs), settings)


def record_checker(checker: Checker, recorded: Arrays) -> Arrays:
    """Return the scores that diffusers' own functions give the recorded pictures, and what they were given."""
    module = checker.module
    pixels = np.stack([clip_input(picture, checker.entry) for picture in recorded["images"]])
    with torch.no_grad():
        embeds = module.visual_projection(module.vision_model(torch.from_numpy(pixels))[1])
        special, concepts = (
            diffusers_checker.cosine_distance(embeds, getattr(module, name)) - getattr(module, f"{name}_weights")
            for name in ("special_care_embeds", "concept_embeds")
        )
    scores = {SPECIAL_SCORES: special.numpy(), CONCEPT_SCORES: concepts.numpy()}
    return {f"{SAFETY_CHECKER}/{name}": array for name, array in ({CLIP_PIXELS: pixels} | scores).items()}


def _side(said: object, *names: str) -> int | None:
    """Return the length that a number says, or a mapping that has it under each of ``names``; None for all else."""
    lengths = said if isinstance(said, dict) else dict.fromkeys(names, said)
    side = lengths.get(names[0])
    return side if isinstance(side, int) and lengths == dict.fromkeys(names, side) else None
