"""The compiler as a visible line of stages, each in a file of its own.

Load, reference, export, cut; then for each engine derive, build, verify, choose and measure (``maker.py``); then paint
and bundle. This file only hands results on; what was done before with the same inputs is reused.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mezzotint.compile import (
    choose,
    export,
    reference,
    report,
    safety,
    samples,
    tile_decoder,
    tiny_decoder,
    torch_modules,
)
from mezzotint.compile.bundle import Contents, assemble, paint
from mezzotint.compile.checkpoint import Checkpoint, load_checkpoint
from mezzotint.compile.decoder import decoder_engines
from mezzotint.compile.folders import check_output
from mezzotint.compile.graph.decoder import block_modules
from mezzotint.compile.graph.step_cache import feature_module
from mezzotint.compile.job import CompileJob, Report, StageEvent, Status
from mezzotint.compile.lora import merge_loras
from mezzotint.compile.maker import Candidate, Maker
from mezzotint.compile.ranges import Calibration
from mezzotint.compile.sizes import engine_axes, latent_entry, pixel_ranges, row_axis
from mezzotint.compile.stages import Stages, code_digest, exporter_versions
from mezzotint.compile.targets import Target, for_tiles, rewritten, with_step_cache
from mezzotint.engines.backends import get_backend
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import CompileError, VerifyError
from mezzotint.engines.folders import whole_folder
from mezzotint.engines.manifest import AxisRange, read_manifest
from mezzotint.engines.variants import FULL, TILE, TINY, stem


def compile_checkpoint(job: CompileJob, tell: Report) -> Path:
    """Compile a checkpoint into the bundle ``job.output``; returns it.

    Nothing is written there unless every engine passes verification, and then at once.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        CompileError: a stage failed, the disk is full, or the output folder is something else.
        InvalidRequest: the model has no such size, branch or number of parts.
        VerifyError: an engine strays from torch beyond its tolerance.
        DeviceNotFound: the backend has no such device.
    """
    check_output(job.output)
    backend = get_backend(job.runs_on)
    choose.check_precisions(job)
    try:
        return _Compilation(job, Stages(job.cache, tell), tell, backend.version()).run()
    except OSError as error:
        place = error.filename or job.output
        raise CompileError(f"{place}: {error.strerror or error}; no bundle was written") from error


def calibration_base(job: CompileJob, checkpoint: Checkpoint) -> str | None:
    """Return the digest of the model whose ranges may do: the one that is named, or what the checkpoint says of it.

    A checkpoint that LoRAs were merged into says what those were merged into; its manifest does too, whatever is named.
    """
    return read_manifest(job.base).source.digest if job.base else checkpoint.base_digest


class _Compilation:
    """One run: the checkpoint's parts on their way through the stages."""

    def __init__(self, job: CompileJob, stages: Stages, tell: Report, version: str) -> None:
        self.job = job
        self.stages = stages
        self.tell = tell
        self.version = version
        self.speed: dict[str, Any] = {}

    def run(self) -> Path:
        checkpoint = self._load()
        ranges = pixel_ranges(self.job, checkpoint)
        cached = "" if self.job.step_cache is None else feature_module(checkpoint.unet, self.job.step_cache)
        tiny = self.job.tiny_decoder and tiny_decoder.load_tiny(self.job.tiny_decoder, checkpoint)
        checker = checkpoint.safety_folder and safety.load_checker(checkpoint.safety_folder)
        recorded, name = self._record(checkpoint, ranges, cached)
        targets = self._targets(checkpoint, ranges, cached)
        extras: list[tuple[Target, reference.Arrays, str]] = []
        if tiny:
            extras.append(self._tiny(tiny, checkpoint, targets, recorded))
        if self.job.tile_decoder:
            extras.append(self._tile(checkpoint, targets, recorded))
        if checker:
            extras.append(self._checker(checker, recorded))
        for target, arrays, stands_for in extras:
            targets, recorded, name = [*targets, target], recorded | arrays, f"{name} {stands_for}"
        latents = latent_entry(checkpoint, ranges, reference.preview_fit(recorded))
        contents = Contents.of(checkpoint, latents, checker.entry if checker else None)
        calibration = self._calibration(checkpoint, ranges, targets)
        modules = block_modules(checkpoint.vae)
        del checkpoint, tiny, checker
        gc.collect()  # torch's weights are not needed any more; engines take their place
        maker = Maker(self.job, self.stages, self.version, recorded, name, calibration)
        engines = self._engines(targets, maker, modules)
        return self._bundle(contents, engines, recorded)

    def _load(self) -> Checkpoint:
        self.tell(StageEvent("load", Status.STARTED))
        started = time.perf_counter()
        checkpoint = load_checkpoint(
            self.job.source, config=self.job.config, with_safety_checker=self.job.with_safety_checker
        )
        if self.job.base:
            checkpoint = replace(checkpoint, base_digest=read_manifest(self.job.base).source.digest)
        checkpoint = merge_loras(checkpoint, self.job.loras)
        seconds = time.perf_counter() - started
        merged = "".join(f" + {lora.weight:g} × {lora.name}" for lora in checkpoint.merged)
        detail = f"{checkpoint.name}{merged}, digest {checkpoint.digest[:12]}"
        self.tell(StageEvent("load", Status.BUILT, detail, seconds=seconds))
        for note in checkpoint.notes:
            self.tell(StageEvent("load", Status.NOTE, note))
        return checkpoint

    def _record(
        self, checkpoint: Checkpoint, ranges: Mapping[str, AxisRange], cached: str
    ) -> tuple[reference.Arrays, str]:
        """Return the reference and what stands for it in the inputs of later stages."""
        height, width = ranges["height"].opt, ranges["width"].opt
        inputs = {
            "digest": checkpoint.digest,
            "prompts": self.job.prompts,
            "size": [height, width],
            "feature": cached,
            "code": code_digest(reference, export, torch_modules),
            "versions": exporter_versions(),
        }

        def work(folder: Path) -> None:
            def progress(done: float) -> None:
                self.stages.progress("reference", done, "torch paints the prompts that verify compares")

            arrays = reference.record(checkpoint, self.job.prompts, height, width, progress, cached)
            reference.write(arrays, folder)

        folder = self.stages.run("reference", inputs, work).folder
        return reference.read(folder), folder.name

    def _calibration(
        self, checkpoint: Checkpoint, ranges: Mapping[str, AxisRange], targets: list[Target]
    ) -> Calibration | None:
        """Record what int8 is calibrated on, if anything is and the ranges of the base are not known."""
        calibrated = [target for target in targets if choose.is_calibrated(self.job, target.component)]
        if not calibrated:
            return None
        size = ranges["height"].opt, ranges["width"].opt
        own = samples.place(self.stages, self.job, checkpoint.digest, *size)
        known = None if self.job.recalibrate else calibration_base(self.job, checkpoint)
        base = known and samples.place(self.stages, self.job, known, *size)
        calibration = Calibration(self.stages, lambda: self._sampled(self._load(), size), own, base)
        if not all(calibration.has_base(target) for target in calibrated):
            calibration.give(self._sampled(checkpoint, size))  # now, while the weights are in memory
        return calibration

    def _sampled(self, checkpoint: Checkpoint, size: tuple[int, int]) -> Path:
        return samples.sampled(self.stages, self.job, checkpoint, *size)

    def _targets(self, checkpoint: Checkpoint, ranges: Mapping[str, AxisRange], cached: str) -> list[Target]:
        """Export every component and return the engines to be made of it."""
        targets: list[Target] = []
        for component in export.COMPONENTS:
            part = export.part(checkpoint, component)
            folder = export.exported(self.stages, component, part)
            axes = engine_axes(checkpoint, ranges, self.job.max_rows, component, self.job.max_chunks)
            folder = rewritten(component, folder, self.stages)
            whole = Target.whole(component, folder, part, axes)
            has_cache = component is Component.UNET and cached
            targets += with_step_cache(whole, cached, self.stages) if has_cache else [whole]
        return targets

    def _tiny(
        self, tiny: Any, checkpoint: Checkpoint, targets: list[Target], recorded: reference.Arrays
    ) -> tuple[Target, reference.Arrays, str]:
        """Export a tiny decoder; returns its engine, what torch makes of it, and what stands for that."""
        name, the_part = tiny_decoder.NAME, tiny_decoder.tiny_part(tiny, checkpoint)
        exported, arrays, stands_for = self._beside(name, the_part, lambda: tiny_decoder.record_tiny(tiny, recorded))
        decoder = next(target for target in targets if target.component is Component.VAE_DECODER)
        return replace(decoder, variant=TINY, folder=exported, recorded_as=name), arrays, stands_for

    def _tile(
        self, checkpoint: Checkpoint, targets: list[Target], recorded: reference.Arrays
    ) -> tuple[Target, reference.Arrays, str]:
        """Return the decoder for parts of pictures, what torch measures in its norms, and what stands for that."""
        decoder = next(target for target in targets if target.component is Component.VAE_DECODER)

        def work(folder: Path) -> None:
            reference.write(tile_decoder.record_tile(checkpoint, recorded), folder)

        inputs = {
            "reference": self.stages.results["reference"].folder.name,
            "code": code_digest(tile_decoder, export, torch_modules),
            "versions": exporter_versions(),
        }
        folder = self.stages.run(f"reference {tile_decoder.NAME}", inputs, work).folder
        return for_tiles(decoder, self.stages), reference.read(folder), folder.name

    def _checker(self, checker: safety.Checker, recorded: reference.Arrays) -> tuple[Target, reference.Arrays, str]:
        """Export a safety checker; returns its engine, what torch makes of it, and what stands for that."""
        component, the_part = Component.SAFETY_CHECKER, safety.checker_part(checker)
        exported, arrays, stands_for = self._beside(
            component, the_part, lambda: safety.record_checker(checker, recorded)
        )
        return Target.whole(component, exported, the_part, {"rows": row_axis(self.job.max_rows)}), arrays, stands_for

    def _beside(
        self, name: str, the_part: export.Part, record: Callable[[], reference.Arrays]
    ) -> tuple[Path, reference.Arrays, str]:
        """Export what not every checkpoint has, and record what torch makes of it.

        Returns the graph's folder, what was recorded, and what stands for that in the inputs of later stages.
        """
        whole = export.exported(self.stages, name, the_part)
        inputs = {
            "part": whole.name,
            "reference": self.stages.results["reference"].folder.name,
            "versions": exporter_versions(),
        }
        folder = self.stages.run(f"reference {name}", inputs, lambda folder: reference.write(record(), folder)).folder
        return rewritten(name, whole, self.stages), reference.read(folder), folder.name

    def _engines(self, targets: list[Target], maker: Maker, modules: tuple[str, ...]) -> list[Candidate]:
        """Make every engine; the other variants of a component have the precision that its full engine got."""
        made: dict[Component, list[Candidate]] = {}
        for target in targets:
            if target.variant == FULL:
                picked, self.speed[target.component] = maker.best(target)
                engines = [picked]
            else:
                engines = [self._variant(target, maker, made[target.component][0].entry.precision)]
            if target.component is Component.VAE_DECODER and target.variant == FULL:
                unet = made[Component.UNET][0].entry
                engines = decoder_engines(self.job, self.stages, maker, target, picked, unet, modules)
            made.setdefault(target.component, []).extend(maker.measured(engine) for engine in engines)
        return [candidate for candidates in made.values() for candidate in candidates]

    def _variant(self, target: Target, maker: Maker, value: Precision) -> Candidate:
        """Make a variant at the precision of its full engine; a second decoder at float32 where that is too coarse."""
        try:
            return maker.at(value, target)[0]
        except VerifyError:
            if target.variant not in (TINY, TILE) or value is Precision.FP32:
                raise
            note = f"the {target.variant} decoder is built at fp32, since it strays too far from torch at {value}"
            self.tell(StageEvent(f"verify {target.name} {value}", Status.NOTE, note))
            return maker.at(Precision.FP32, target)[0]

    def _bundle(self, contents: Contents, made: list[Candidate], recorded: reference.Arrays) -> Path:
        """Assemble the bundle beside its place, paint with it, report, and move it there."""
        self.tell(StageEvent("bundle", Status.STARTED))
        started = time.perf_counter()
        job = self.job
        with whole_folder(job.output) as folder:
            engines = {candidate.folder: candidate.entry for candidate in made}
            manifest = assemble(folder, job, contents, engines, [m for candidate in made for m in candidate.measured])
            painted = paint(folder, job, reference.NUM_STEPS, reference.GUIDANCE, reference.FIRST_SEED)
            truth = list(recorded["images"])
            figures = {
                (c.entry.component, c.entry.variant, output): calls for c in made for output, calls in c.figures.items()
            }
            stages, prompts = self.stages.results, job.prompts
            calibrated = {stem(c.entry.component, c.entry.variant): c.calibrated_on for c in made if c.calibrated_on}
            found = report.as_json(manifest, stages, figures, self.speed, prompts, calibrated, truth, painted)
            sizes = [sum((folder / f).stat().st_size for f in entry.files) for entry in manifest.engines]
            report.write(folder, found, report.as_markdown(manifest, found, sizes), report.grid(truth, painted))
        seconds = time.perf_counter() - started
        num_bytes = sum(path.stat().st_size for path in job.output.iterdir())
        self.tell(StageEvent("bundle", Status.BUILT, str(job.output), seconds=seconds, num_bytes=num_bytes))
        return job.output
