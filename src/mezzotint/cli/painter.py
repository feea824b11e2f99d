"""Paints pictures with the base model's bundle, in this process: what ``mezzotint train`` makes class pictures with.

The bundle is compiled and opened when the first picture is asked for, and not at all where none is missing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mezzotint.compile.job import Report
    from mezzotint.engines.model import Model
    from mezzotint.trainer.base import Base
    from mezzotint.trainer.class_images import Painter
    from mezzotint.trainer.config import TrainConfig


class EnginePainter:
    """A painter that runs compiled engines; to be entered, and left to free them.

    Args:
        bundle: gives the bundle's folder; called once, for the first picture.
        steps: denoising steps of each picture, with the checkpoint's own sampler and size.
        guidance: guidance scale.
        fallback: paints where the bundle cannot be made or opened; None is to raise.
        tell: hears a sentence when the fallback takes over.
    """

    def __init__(
        self,
        bundle: Callable[[], Path],
        *,
        steps: int,
        guidance: float,
        fallback: "Painter | None" = None,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._bundle = bundle
        self._steps = steps
        self._guidance = guidance
        self._fallback = fallback
        self._tell = tell
        self._model: Model | None = None
        self._paint: Painter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._model is not None:
            self._model.close()

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> "list[npt.NDArray[np.uint8]]":
        """Paint each prompt with its seed: uint8 [height, width, 3] each; they share the UNet's calls."""
        if self._paint is None:
            self._paint = self._opened()
        return self._paint(prompts, seeds)

    def _opened(self) -> "Painter":
        from mezzotint.engines.bundle import LoadOptions, open_bundle
        from mezzotint.engines.errors import MezzotintError

        try:
            self._model = open_bundle(self._bundle(), LoadOptions(devices={}))
        except (MezzotintError, ImportError) as error:
            if self._fallback is None:
                raise
            self._tell(f"class pictures are painted by torch, since the base's engines cannot be had: {error}")
            return self._fallback
        return partial(self._run, self._model)

    def _run(self, model: "Model", prompts: Sequence[str], seeds: Sequence[int]) -> "list[npt.NDArray[np.uint8]]":
        from mezzotint.engines.generate import generate
        from mezzotint.engines.request import Request

        requests = [
            Request(prompt=model.prompts.plain(prompt), seed=seed, steps=self._steps, guidance=self._guidance)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        made = [images[0].pixels for images in generate(model, requests)]
        return [pixels for pixels in made if pixels is not None]


def class_painter(base: "Base", config: "TrainConfig", tell: Callable[[str], None]) -> EnginePainter:
    """Return what paints a run's class pictures: its base's engines, compiled for it, or torch where that cannot be."""
    from mezzotint.cli.progress import CompileProgress
    from mezzotint.trainer.torch_painter import torch_painter

    def bundle() -> Path:
        with CompileProgress() as progress:
            return base_bundle(config.pretrained_model_name_or_path, base.digest, progress.report, config.base_config)

    steps, guidance = config.sample_steps, config.sample_guidance
    fallback = torch_painter(base, steps=steps, guidance=guidance)
    return EnginePainter(bundle, steps=steps, guidance=guidance, fallback=fallback, tell=tell)


def base_bundle(source: str, digest: str, tell: "Report", config: Path | None = None) -> Path:
    """Return the base model's bundle in the user's cache, compiled at fp32 where it is not there yet.

    Args:
        source: the checkpoint, as ``mezzotint compile`` takes it.
        digest: the checkpoint's.
        tell: hears of the compiler's stages.
        config: a diffusers folder with the configs of a single file.

    Raises:
        CompileError, CheckpointError, VerifyError: it does not compile.
    """
    from mezzotint.compile.job import CompileJob
    from mezzotint.compile.pipeline import compile_checkpoint
    from mezzotint.engines.backends import get_backend
    from mezzotint.engines.bundle import cache_folder
    from mezzotint.engines.errors import BundleError
    from mezzotint.engines.manifest import read_manifest

    folder = cache_folder() / "bases" / f"{digest[:16]}-openvino-{get_backend('openvino').version()}"
    try:
        if read_manifest(folder).source.digest == digest:
            return folder
    except BundleError:
        pass  # it is not there, or of another format
    job = CompileJob(
        source=source, output=folder, cache=cache_folder() / "compile", precision={"": "fp32"}, config=config
    )
    return compile_checkpoint(job, tell)
