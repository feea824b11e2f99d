"""The demo model's gallery, with a stand-in for its VAE, and pictures as noisy as a model's."""

from functools import cache

import numpy as np

from mezzotint.trainer.evaluation.gallery import Gallery, cut_outs
from mezzotint.trainer.evaluation.pictures import Floats32
from mezzotint.trainer.evaluation.run import read_subjects
from mezzotint.trainer.evaluation.statistics import Pixels
from mezzotint.trainer.evaluation.suite import Suite, read_reference
from tests.conftest import EMOJI, ROOT

SUITE = Suite.read(EMOJI)


def coarse(images: Pixels) -> Floats32:
    """Stands in for a VAE's latents: means of 4×4 pixels."""
    n, h, w, c = images.shape
    return images.reshape(n, h // 4, 4, w // 4, 4, c).mean(axis=(2, 4)).reshape(n, -1).astype(np.float32)


@cache
def gallery() -> Gallery:
    assert SUITE.reference is not None
    names, things = read_reference(SUITE.reference)
    subjects = cut_outs(read_subjects(ROOT / "models" / "subject"), cut=True)
    return Gallery(names, things, subjects, SUITE.grounds, coarse)


def noisy(images: Pixels) -> Pixels:
    """As a model's pictures are: at some 24 dB."""
    noise = np.random.default_rng(0).normal(0, 16, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)
