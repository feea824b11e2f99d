"""The data of a run: pictures checked before anything else is done, and what Lightning is given of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule

from mezzotint.trainer import checks, latents
from mezzotint.trainer.base import Base
from mezzotint.trainer.batches import Batches, Share
from mezzotint.trainer.captions import Captions, captions_of, class_captions_of
from mezzotint.trainer.class_images import Painter, Progress, class_folder, class_pictures, fill_class_images
from mezzotint.trainer.config import Concept, TrainConfig
from mezzotint.trainer.examples import Examples, Moments, Pair, Pixels, Shot, Texts, Views, pair_up
from mezzotint.trainer.framing import Framing
from mezzotint.trainer.grounds import has_plain_ground
from mezzotint.trainer.identifier import identifier_of, identifier_warning
from mezzotint.trainer.pictures import Size, check_pictures, find_pictures


@dataclass(frozen=True, slots=True)
class ClassSet:
    """Pictures that the model is held to: where they are, of which prompt, and how many."""

    folder: Path
    prompt: str
    count: int


class DreamBoothData(LightningDataModule):
    """Instance and class pictures of every concept, as batches (``Examples``).

    Making one reads every instance picture, so that bad input ends before a class picture is painted. Then come
    ``fill_class_images`` and Lightning's own ``setup``, which reads class pictures and fills the caches.

    Attributes:
        notes: a sentence for each thing that a user might not expect.
        num_examples: examples of one epoch.
        examples: after ``setup``, all of them.

    Raises:
        TrainError: a folder has no picture, a picture cannot be used or has no caption, or the model cannot be trained
            or cannot take squares of that resolution.
    """

    def __init__(self, config: TrainConfig, base: Base) -> None:
        super().__init__()
        checks.check_trainable(base)
        checks.check_resolution(config.resolution, base)
        self._config = config
        self._base = base
        self._framing = Framing(config.resolution, config.center_crop, config.random_flip)
        self._sizes: dict[Path, Size] = {}
        self._instances = [self._shots(concept) for concept in config.all_concepts]
        num_priors = sum(own.count for own in self._class_sets(config.all_concepts[0]))
        self.num_examples = sum(max(len(own) * config.repeats, num_priors) for own in self._instances)
        self.notes = tuple(self._notes())

    def fill_class_images(self, painter: Painter, progress: Progress = lambda done, total: None) -> int:
        """Paint the class pictures that are missing; returns how many. See ``class_images.fill_class_images``."""
        config = self._config
        return sum(
            fill_class_images(
                own.folder,
                own.prompt,
                own.count,
                painter,
                self._base.digest,
                settings=config.painting,
                batch_size=config.sample_batch_size,
                progress=progress,
            )
            for concept in config.all_concepts
            for own in self._class_sets(concept)
        )

    def setup(self, stage: str) -> None:
        """Read class pictures and fill the caches, on the trainer's device."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        pairs: list[Pair] = []
        for concept, instances in zip(self._config.all_concepts, self._instances, strict=True):
            pairs += pair_up(instances, self._priors(concept), self._config.repeats)
        shots = [shot for pair in pairs for shot in (pair.instance, pair.prior) if shot]
        views, texts, config = self._views(shots, device), self._texts(shots, device), self._config
        self.examples = Examples(pairs, views, texts, config.seed, config.proportion_empty_prompts)

    def train_dataloader(self) -> Batches:
        """Return this process's batches, from the step that the trainer is at."""
        trainer, config = self.trainer, self._config
        assert trainer is not None, "Lightning attaches its trainer"
        share = Share(
            config.train_batch_size, config.gradient_accumulation_steps, trainer.global_rank, trainer.world_size
        )
        return Batches(self.examples, share, lambda: trainer.global_step, config.dataloader_num_workers)

    def _shots(self, concept: Concept) -> list[Shot]:
        pictures = find_pictures(concept.instance_data_dir)
        self._check(pictures)
        captions = captions_of(pictures, Captions(self._config.captions), concept.instance_prompt)
        shots = [Shot(path, caption) for path, caption in zip(pictures, captions, strict=True)]
        return shots + self._on_grounds(shots)

    def _on_grounds(self, shots: Sequence[Shot]) -> list[Shot]:
        """Return the pictures whose ground is plain once more on each of the configuration's."""
        grounds = self._config.instance_grounds
        plain = [shot for shot in shots if has_plain_ground(shot.read())] if grounds else []
        return [Shot(s.path, f"{s.caption} {name}", colour) for name, colour in grounds.items() for s in plain]

    def _priors(self, concept: Concept) -> list[Shot]:
        shots: list[Shot] = []
        for own in self._class_sets(concept):
            pictures = class_pictures(own.folder, own.count)
            self._check(pictures)
            captions = class_captions_of(pictures, Captions(self._config.captions), own.prompt)
            shots += [Shot(path, caption) for path, caption in zip(pictures, captions, strict=True)]
        return shots

    def _notes(self) -> Iterator[str]:
        config, tokenizer = self._config, self._base.tokenizer
        yield from checks.folder_notes(concept.instance_data_dir for concept in config.all_concepts)
        yield from checks.size_notes(self._sizes, self._framing, config.cache_latents)
        table = self._base.text_encoder.get_input_embeddings().weight
        for concept, shots in zip(config.all_concepts, self._instances, strict=True):
            identifier = config.identifier or identifier_of(concept.instance_prompt, concept.class_prompt)
            if warning := identifier_warning(identifier, tokenizer, table):
                yield warning
            captions = [shot.caption for shot in shots]
            if config.instance_grounds and all(shot.ground is None for shot in shots):
                yield f"{concept.instance_data_dir}: no picture has a plain ground; instance_grounds are left out"
            yield from checks.caption_notes(captions, concept.class_prompt, identifier, tokenizer)

    def _class_sets(self, concept: Concept) -> list[ClassSet]:
        config, digest, prompt = self._config, self._base.digest, concept.class_prompt
        if not config.with_prior_preservation:
            return []
        folder = concept.class_data_dir or class_folder(digest, prompt, config.painting)
        further = [(class_folder(digest, other, config.painting), other) for other in config.prior_prompts]
        return [
            ClassSet(folder, prompt, config.num_class_images),
            *(ClassSet(*each, config.num_prior_images) for each in further),
        ]

    def _check(self, pictures: Sequence[Path]) -> None:
        sizes = check_pictures(pictures, self._config.resolution)
        self._sizes.update(zip(pictures, sizes, strict=True))

    def _views(self, shots: Sequence[Shot], device: torch.device) -> Views:
        seed = self._config.seed
        if not self._config.cache_latents or not all(self._framing.is_fixed(self._sizes[shot.path]) for shot in shots):
            return Pixels(self._framing, seed)
        cache = latents.cached_moments(shots, self._framing, self._base.vae, device)
        return Moments(self._framing, seed, cache)

    def _texts(self, shots: Sequence[Shot], device: torch.device) -> Texts:
        captions = ["", *(shot.caption for shot in shots)]
        tokens = latents.tokens_of(captions, self._base.tokenizer)
        if self._config.train_text_encoder or not self._config.pre_compute_text_embeddings:
            return Texts("tokens", tokens)
        return Texts("states", latents.cached_states(tokens, self._base.text_encoder, device))
