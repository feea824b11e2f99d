"""The compiler as a visible line of stages, each in a file of its own.

Load, reference, export, derive, build, verify, choose, measure, paint, bundle. This file only hands results on; what
was done before with the same inputs is reused.
"""

import gc
import importlib.metadata
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mezzotint.compile import build, choose, export, float16_graph, measure, precision, reference, report, verify
from mezzotint.compile.bundle import Contents, assemble, check_output, paint, publish, unfinished_folder
from mezzotint.compile.checkpoint import Checkpoint, load_checkpoint
from mezzotint.compile.job import CompileJob, Report, StageEvent, Status
from mezzotint.compile.sizes import engine_axes, latent_entry, pixel_ranges
from mezzotint.compile.stages import StageResult, Stages
from mezzotint.engines.backends import get_backend
from mezzotint.engines.bundle import file_digest
from mezzotint.engines.errors import CompileError, EngineFailed
from mezzotint.engines.manifest import AxisRange, Component, EngineEntry, Measured, Precision, TensorSpec

_EXPORTERS = ("torch", "onnx", "onnxscript", "transformers", "diffusers")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A built engine that may become the component's, with the folder of its files and what verify says of it."""

    folder: Path
    entry: EngineEntry
    figures: tuple[float, ...]
    measured: Measured


def compile_checkpoint(job: CompileJob, tell: Report) -> Path:
    """Compile a checkpoint into the bundle ``job.output``; returns it.

    Nothing is written there unless every engine passes verification, and then at once.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        CompileError: a stage failed, the disk is full, or the output folder is something else.
        VerifyError: an engine strays from torch beyond its tolerance.
        DeviceNotFound: the backend has no such device.
    """
    check_output(job.output)
    backend = get_backend(job.backend)
    choose.check_precisions(job)
    try:
        return _Compilation(job, Stages(job.cache, tell), tell, backend.version()).run()
    except OSError as error:
        place = error.filename or job.output
        raise CompileError(f"{place}: {error.strerror or error}; no bundle was written") from error


class _Compilation:
    """One run: the checkpoint's parts on their way through the stages."""

    def __init__(self, job: CompileJob, stages: Stages, tell: Report, version: str) -> None:
        self.job = job
        self.stages = stages
        self.tell = tell
        self.version = version

    def run(self) -> Path:
        checkpoint = self._load()
        ranges = pixel_ranges(self.job, checkpoint)
        recorded = self._record(checkpoint, ranges)
        exports = {component: self._export(checkpoint, component) for component in Component}
        contents = Contents.of(checkpoint, latent_entry(checkpoint, ranges, reference.preview_fit(recorded)))
        tensors = {c: (p.inputs, p.outputs) for c in Component for p in [export.part(checkpoint, c)]}
        axes = {component: engine_axes(checkpoint, ranges, self.job.max_rows, component) for component in Component}
        del checkpoint
        gc.collect()  # torch's weights are not needed any more; engines take their place
        chosen: dict[Component, Candidate] = {}
        speed: dict[str, Any] = {}
        for component in Component:
            candidates, left_out = self._candidates(
                component, exports[component], recorded, tensors[component], axes[component]
            )
            picked, timings = self._choose(component, candidates, left_out)
            chosen[component] = self._measured(picked)
            speed[component] = timings
        return self._bundle(contents, chosen, recorded, speed)

    def _load(self) -> Checkpoint:
        self.tell(StageEvent("load", Status.STARTED))
        started = time.perf_counter()
        checkpoint = load_checkpoint(self.job.source, config=self.job.config)
        seconds = time.perf_counter() - started
        self.tell(
            StageEvent("load", Status.BUILT, f"{checkpoint.name}, digest {checkpoint.digest[:12]}", seconds=seconds)
        )
        for note in checkpoint.notes:
            self.tell(StageEvent("load", Status.NOTE, note))
        return checkpoint

    def _record(self, checkpoint: Checkpoint, ranges: Mapping[str, AxisRange]) -> reference.Arrays:
        height, width = ranges["height"].opt, ranges["width"].opt
        inputs = {
            "digest": checkpoint.digest,
            "prompts": self.job.prompts,
            "size": [height, width],
            "code": _code_digest(reference),
            "versions": _versions(),
        }

        def work(folder: Path) -> None:
            def progress(done: float) -> None:
                self.stages.progress("reference", done, "torch paints the prompts that verify compares")

            arrays = reference.record(checkpoint, self.job.prompts, height, width, progress)
            reference.write(arrays, folder)

        return reference.read(self.stages.run("reference", inputs, work).folder)

    def _export(self, checkpoint: Checkpoint, component: Component) -> StageResult:
        inputs = {"digest": checkpoint.digest, "code": _code_digest(export), "versions": _versions()}
        return self.stages.run(
            f"export {component}", inputs, lambda folder: export.export(export.part(checkpoint, component), folder)
        )

    def _candidates(
        self,
        component: Component,
        exported: StageResult,
        recorded: reference.Arrays,
        tensors: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        axes: dict[str, AxisRange],
    ) -> tuple[list[Candidate], dict[str, str]]:
        """Build and verify every precision that is wanted; those whose engine does not run come with the reason."""
        wanted = choose.precisions(self.job, component)
        candidates: list[Candidate] = []
        left_out: dict[str, str] = {}
        for value in wanted:
            built = self._build(component, exported, value)
            entry = EngineEntry(
                component=component,
                backend=self.job.backend,
                backend_version=self.version,
                device=self.job.device or "CPU",
                precision=value,
                files=built.detail["files"],
                inputs=tensors[0],
                outputs=tensors[1],
                axes=axes,
                row_classes=((1,),),
            )
            try:
                figures = self._verify(built, entry, recorded)
            except EngineFailed as error:
                if len(wanted) == 1:
                    raise CompileError(f"{component} at {value}: {error}; use another precision") from error
                left_out[value] = str(error)
                continue
            measured = verify.judge(entry, figures)
            if len(wanted) == 1 and not verify.passes(measured):
                raise verify.refuse(measured, value)
            candidates.append(Candidate(built.folder, entry, tuple(figures), measured))
        return candidates, left_out

    def _build(self, component: Component, exported: StageResult, value: Precision) -> StageResult:
        inputs = {"export": exported.folder.name, "precision": value, "backend": self.job.backend}
        derived = self.stages.run(
            f"derive {component} {value}",
            inputs | {"code": _code_digest(precision, float16_graph)},
            lambda folder: asdict(
                precision.derive(
                    exported.folder / export.ONNX_FILE, folder / f"{component}.onnx", value, self.job.backend
                )
            ),
        )

        def work(folder: Path) -> dict[str, Any]:
            names = build.build(derived.folder / f"{component}.onnx", folder, self.job.backend, component)
            return {"files": {name: file_digest(folder / name) for name in names}, "derived": derived.detail}

        return self.stages.run(
            f"build {component} {value}",
            {"derived": derived.folder.name, "version": self.version, "code": _code_digest(build)},
            work,
        )

    def _verify(self, built: StageResult, entry: EngineEntry, recorded: reference.Arrays) -> list[float]:
        inputs = {
            "built": built.folder.name,
            "device": self.job.device,
            "reference": self.stages.results["reference"].folder.name,
            "code": _code_digest(verify),
            "host": measure.host(),
        }

        def work(_folder: Path) -> list[float]:
            engine = verify.load_one(built.folder, entry, self.job.device, (2, 1))
            try:
                return verify.measure(engine, recorded, entry.component)
            finally:
                engine.close()

        result: list[float] = self.stages.run(f"verify {entry.component} {entry.precision}", inputs, work).detail
        return result

    def _choose(
        self, component: Component, candidates: list[Candidate], left_out: dict[str, str]
    ) -> tuple[Candidate, dict[str, Any]]:
        if len(candidates) == 1 and not left_out:
            return candidates[0], {}
        sound = {c.entry.precision: c for c in candidates if verify.passes(c.measured)}
        if Precision.FP32 not in sound:
            raise verify.refuse(candidates[0].measured, Precision.FP32)
        left_out |= {
            c.entry.precision: f"{c.measured.snr_db:.1f} dB, below the tolerance of {c.measured.floor_db:.0f} dB"
            for c in candidates
            if c.entry.precision not in sound
        }

        def work(_folder: Path) -> dict[str, Any]:
            engines = {
                name: verify.load_one(c.folder, c.entry, self.job.device, choose.ROWS) for name, c in sound.items()
            }
            try:
                return choose.fastest(engines)
            finally:
                for engine in engines.values():
                    engine.close()

        inputs = {
            "built": [c.folder.name for c in candidates],
            "device": self.job.device,
            "host": measure.host(),
            "code": _code_digest(choose),
            "sound": list(sound),
        }
        timings = self.stages.run(f"choose {component}", inputs, work).detail
        return sound[Precision(timings["chosen"])], timings | {"left_out": left_out}

    def _measured(self, candidate: Candidate) -> Candidate:
        """Return the candidate with its row classes and step times."""
        entry = candidate.entry
        inputs = {
            "built": candidate.folder.name,
            "axes": {name: axis.model_dump() for name, axis in entry.axes.items()},
            "device": self.job.device,
            "host": measure.host(),
            "code": _code_digest(measure),
        }

        def work(_folder: Path) -> dict[str, Any]:
            classes, step_ms = measure.rows_and_times(candidate.folder, entry, self.job.device)
            return {"row_classes": classes, "step_ms": step_ms}

        found = self.stages.run(f"measure {entry.component}", inputs, work).detail
        entry = EngineEntry.model_validate(entry.model_dump() | found)
        return Candidate(candidate.folder, entry, candidate.figures, candidate.measured)

    def _bundle(
        self,
        contents: Contents,
        chosen: Mapping[Component, Candidate],
        recorded: reference.Arrays,
        speed: Mapping[str, Any],
    ) -> Path:
        """Assemble the bundle beside its place, paint with it, report, and move it there."""
        self.tell(StageEvent("bundle", Status.STARTED))
        started = time.perf_counter()
        job = self.job
        folder = unfinished_folder(job.output)
        try:
            engines = {candidate.folder: candidate.entry for candidate in chosen.values()}
            manifest = assemble(folder, job, contents, engines, [c.measured for c in chosen.values()])
            painted = paint(folder, job, reference.NUM_STEPS, reference.GUIDANCE, reference.FIRST_SEED)
            truth = list(recorded["images"])
            figures = {component: candidate.figures for component, candidate in chosen.items()}
            found = report.as_json(manifest, self.stages.results, figures, speed, job.prompts, truth, painted)
            sizes = {
                entry.component: sum((folder / f).stat().st_size for f in entry.files) for entry in manifest.engines
            }
            report.write(folder, found, report.as_markdown(manifest, found, sizes), report.grid(truth, painted))
            publish(folder, job.output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        seconds = time.perf_counter() - started
        num_bytes = sum(path.stat().st_size for path in job.output.iterdir())
        self.tell(StageEvent("bundle", Status.BUILT, str(job.output), seconds=seconds, num_bytes=num_bytes))
        return job.output


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _EXPORTERS}


def _code_digest(*modules: Any) -> str:
    return "".join(file_digest(Path(module.__file__))[:16] for module in modules)
