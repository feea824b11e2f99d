"""CLIP and DINO as the DreamBooth paper has them, where the user has their weights. Imports torch and transformers.

CLIP-I and DINO are the cosine between a picture of the subject and each of its true ones, on average; CLIP-T is that
between a picture and its prompt ("DreamBooth", section 4.2).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from mezzotint.engines.errors import TrainConfigError
from mezzotint.trainer.evaluation.measures import CLIP_I, CLIP_T, DINO, Found
from mezzotint.trainer.evaluation.statistics import Pixels

_AT_ONCE = 16  # pictures in one pass, to bound memory

Embed = Callable[[Sequence[Image.Image]], torch.Tensor]


class Clip:
    """A CLIP model with both its towers, from a folder in transformers' layout.

    Raises:
        TrainConfigError: the folder has none.
    """

    def __init__(self, folder: Path) -> None:
        self._model, self._processor = _loaded(folder, "CLIPModel")
        self._tokenizer = _tokenizer(folder)

    def measure(self, images: Pixels, prompts: Sequence[str], subjects: Sequence[Image.Image]) -> Found:
        """Return CLIP-I and CLIP-T of pictures of the subject, float64 [N] each."""
        own = _embedded(_pictures(images), self._images)
        true = _embedded(subjects, self._images)
        texts = torch.cat([self._texts(prompts[i : i + _AT_ONCE]) for i in range(0, len(prompts), _AT_ONCE)])
        return {
            CLIP_I: (own @ true.T).mean(dim=1).double().numpy(),
            CLIP_T: (own * texts).sum(dim=1).double().numpy(),
        }

    def _images(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        inputs = self._processor(images=list(pictures), return_tensors="pt")
        return _features(self._model.get_image_features(**inputs))

    @torch.no_grad()
    def _texts(self, prompts: Sequence[str]) -> torch.Tensor:
        inputs = self._tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        return _unit(_features(self._model.get_text_features(**inputs)))


class Dino:
    """A DINO or DINOv2 vision transformer from a folder in transformers' layout. Raises TrainConfigError."""

    def __init__(self, folder: Path) -> None:
        self._model, self._processor = _loaded(folder, "AutoModel")

    def measure(self, images: Pixels, subjects: Sequence[Image.Image]) -> Found:
        """Return DINO's score of pictures of the subject, float64 [N]."""
        own, true = (_embedded(pictures, self._images) for pictures in (_pictures(images), subjects))
        return {DINO: (own @ true.T).mean(dim=1).double().numpy()}

    def _images(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        inputs = self._processor(images=list(pictures), return_tensors="pt")
        states: torch.Tensor = self._model(**inputs).last_hidden_state
        return states[:, 0]  # the class token's


def _loaded(folder: Path, kind: str) -> tuple[Any, Any]:
    try:
        model = getattr(transformers, kind).from_pretrained(folder, local_files_only=True).float().eval()
        return model, transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, use_fast=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainConfigError(
            f"{folder}: holds no {kind} with its image processor in transformers' layout ({reason}); give a folder "
            "with config.json, model.safetensors and preprocessor_config.json"
        ) from None


def _tokenizer(folder: Path) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise TrainConfigError(f"{folder}: holds no tokenizer ({' '.join(str(error).split())[:200]}); add it") from None


def _features(found: Any) -> torch.Tensor:
    """Return projected features, which newer releases of transformers wrap."""
    return found if isinstance(found, torch.Tensor) else found.pooler_output


@torch.no_grad()
def _embedded(pictures: Sequence[Image.Image], embed: Embed) -> torch.Tensor:
    return torch.cat([_unit(embed(pictures[i : i + _AT_ONCE])) for i in range(0, len(pictures), _AT_ONCE)])


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def _pictures(images: Pixels) -> list[Image.Image]:
    return [Image.fromarray(np.ascontiguousarray(image)) for image in images]
