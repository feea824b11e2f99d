"""Does a picture show what was asked? Distance to the named picture, the nearest name, and the ground."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.quality.cases import GROUNDS, Case, named_pictures, targets
from benchmarks.quality.metrics import Floats, Pixels, psnr_db
from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.component import Component
from mezzotint.engines.manifest import read_manifest
from mezzotint.trainer.evaluation.pictures import grounds_of
from mezzotint.trainer.evaluation.statistics import Bools


class Judge:
    """Finds the nearest named picture in the latents of one bundle's VAE encoder: one instrument for all candidates.

    Args:
        bundle: the folder of a bundle that has a ``vae_encoder``.

    Raises:
        BundleError: it has none.
    """

    def __init__(self, bundle: Path) -> None:
        entry = read_manifest(bundle).engine(Component.VAE_ENCODER)
        options = EngineOptions(row_counts=max(entry.row_classes, key=len))
        self._encoder = get_backend(entry.backend).load(bundle, entry, options)
        self._at_once = entry.axes["rows"].max
        self._named: dict[str, npt.NDArray[np.float32]] = {}

    def nearest(self, images: Pixels, cases: Sequence[Case]) -> npt.NDArray[np.int64]:
        """Return the index of the name whose picture, on the asked ground, is nearest by L2 in latents; int64 [N]."""
        latents = self._latents(images)
        found = [
            np.square(self._named_latents(case.ground) - own).sum(axis=1).argmin()
            for own, case in zip(latents, cases, strict=True)
        ]
        return np.array(found, dtype=np.int64)

    def retrieved(self, images: Pixels, cases: Sequence[Case]) -> Bools:
        """Return which pictures are nearest to the one that was named, bool [N]."""
        hits: Bools = self.nearest(images, cases) == np.array([case.index for case in cases])
        return hits

    def close(self) -> None:
        """Free the encoder."""
        self._encoder.close()

    def _named_latents(self, ground: str) -> npt.NDArray[np.float32]:
        if ground not in self._named:
            self._named[ground] = self._latents(named_pictures(ground))
        return self._named[ground]

    def _latents(self, images: Pixels) -> npt.NDArray[np.float32]:
        """Return the posterior's mean of uint8 [N, H, W, 3] pictures, float32 [N, C·h·w]."""
        inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
        parts = [
            self._encoder.run({"pixels": inputs[i : i + self._at_once]})["moments"]
            for i in range(0, len(inputs), self._at_once)
        ]
        moments = np.concatenate(parts)
        return moments[:, : moments.shape[1] // 2].reshape(len(moments), -1)  # the other half is the log variance


def named_psnr_db(images: Pixels, cases: Sequence[Case]) -> Floats:
    """Return each picture's PSNR to the named picture on the asked ground, in dB, float64 [N]."""
    return psnr_db(targets(cases), images)


def ground_as_asked(images: Pixels, cases: Sequence[Case]) -> Bools:
    """Return whose border has the asked colour, bool [N]: of all grounds it is the nearest to the border's median."""
    nearest = grounds_of(images, list(GROUNDS.values()))
    hits: Bools = nearest == np.array([list(GROUNDS).index(case.ground) for case in cases])
    return hits
