"""Makes the engine of a target: derive, build and verify each precision that is wanted, choose one, measure it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mezzotint.compile import build, choose, float16_graph, measure, precision, resident, verify, weights
from mezzotint.compile.graph import modules, quantise, structure, zero_points
from mezzotint.compile.job import CompileJob
from mezzotint.compile.ranges import Calibration
from mezzotint.compile.reference import Arrays
from mezzotint.compile.stages import StageResult, Stages, code_digest
from mezzotint.compile.targets import Target, with_channels_last_norms
from mezzotint.engines import timing
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.cpus import available_cpus
from mezzotint.engines.errors import CompileError, EngineFailed
from mezzotint.engines.manifest import EngineEntry, Measured
from mezzotint.engines.prepared import row_counts
from mezzotint.engines.variants import stem


@dataclass(frozen=True, slots=True)
class Candidate:
    """A built engine that may go into the bundle, with the folder of its files and what verify says of it.

    Attributes:
        structure: stands for its graph without the values of weights: engines that share it are as fast.
        figures: the SNR in dB of each recorded call by output; none before verification.
        measured: what counts of them, beside the floors.
        calibrated_on: whose ranges its activations are rounded over, ``base`` or ``own``; empty where none are.
    """

    folder: Path
    entry: EngineEntry
    structure: str
    figures: Mapping[str, Sequence[float]]
    measured: tuple[Measured, ...]
    calibrated_on: str = ""


class Maker:
    """Runs the stages that make engines.

    Args:
        job: what is compiled, and for which backend and device.
        stages: runs them, or reuses their results.
        version: the backend's version.
        recorded: what torch made of the prompts.
        reference: what stands for ``recorded`` in the inputs of stages.
        calibration: knows the ranges of activations; None where no precision needs them.
    """

    def __init__(
        self,
        job: CompileJob,
        stages: Stages,
        version: str,
        recorded: Arrays,
        reference: str,
        calibration: Calibration | None,
    ) -> None:
        self._job = job
        self._stages = stages
        self._version = version
        self._recorded = recorded
        self._reference = reference
        self._calibration = calibration

    def best(self, target: Target) -> tuple[Candidate, dict[str, Any]]:
        """Return the engine at the precision that was asked for or measures fastest, with the timings that say so.

        Raises:
            VerifyError: it strays from torch beyond its tolerance.
            CompileError: it cannot be built, or does not run.
        """
        wanted = choose.precisions(self._job, target.component)
        if len(wanted) == 1:
            return self.at(wanted[0], target)[0], {}
        candidates: list[Candidate] = []
        left_out: dict[str, str] = {}
        for value in wanted:
            try:
                candidates += self._sound(value, target)
            except EngineFailed as error:
                left_out[value] = str(error)
        if not candidates:
            reasons = "; ".join(f"{value}: {reason}" for value, reason in left_out.items())
            raise CompileError(f"{target.name}: {self._job.device or 'the CPU'} runs it at no precision ({reasons})")
        if len(candidates) == 1 and not left_out:
            return candidates[0], {}
        return self._choose(target, candidates, left_out)

    def at(self, value: Precision, *targets: Target) -> list[Candidate]:
        """Return the engines of one component, or of its parts in a row, at one precision. Raises as ``best`` does."""
        try:
            made = self._sound(value, *targets)
        except EngineFailed as error:
            raise CompileError(f"{targets[-1].name} at {value}: {error}; use another precision") from error
        if not verify.passes(made[-1].measured):
            raise verify.refuse(made[-1].entry, made[-1].measured)
        return made

    def built(self, target: Target, value: Precision) -> Candidate:
        """Return the engine at one precision, not verified."""
        derived = self._derive(target, value)

        def work(folder: Path) -> dict[str, Any]:
            names = build.build(derived.folder / f"{target.name}.onnx", folder, self._job.runs_on)
            return {"files": {name: file_digest(folder / name) for name in names}, "derived": derived.detail["stats"]}

        inputs = {"derived": derived.folder.name, "version": self._version, "code": code_digest(build)}
        result = self._stages.run(f"build {target.name} {value}", inputs, work)
        entry = EngineEntry(
            component=target.component,
            variant=target.variant,
            backend=self._job.runs_on,
            backend_version=self._version,
            device=self._job.device or "CPU",
            precision=value,
            files=result.detail["files"],
            inputs=target.inputs,
            outputs=target.outputs,
            axes=target.axes,
            row_classes=((1,),),
        )
        whose = self._calibration.taken[target.name] if self._calibration and value.is_calibrated else ""
        return Candidate(result.folder, entry, derived.detail["structure"], {}, (), whose)

    def call_ms(self, candidate: Candidate) -> float:
        """Return the milliseconds of a call of one row."""
        entry = candidate.entry

        def work(_folder: Path) -> float:
            return measure.call_ms(candidate.folder, entry, self._job.device, 1)

        inputs = self._timed(measure, candidate)
        found: float = self._stages.run(f"time {stem(entry.component, entry.variant)}", inputs, work).detail
        return found

    def measured(self, candidate: Candidate) -> Candidate:
        """Return the candidate with its row classes, step times, and what it takes in memory."""
        entry = candidate.entry
        if self._job.backend != self._job.runs_on:
            return candidate  # only the GPU tells

        def work(_folder: Path) -> dict[str, Any]:
            classes, step_ms = measure.rows_and_times(candidate.folder, entry, self._job.device)
            return {"row_classes": classes, "step_ms": step_ms}

        inputs = self._timed(measure, candidate)
        found = self._stages.run(f"measure {stem(entry.component, entry.variant)}", inputs, work).detail
        entry = EngineEntry.model_validate(entry.model_dump() | found)
        return replace(candidate, entry=entry.model_copy(update={"resident_bytes": self._resident(candidate, entry)}))

    def _resident(self, candidate: Candidate, entry: EngineEntry) -> dict[int, int]:
        """Return the bytes that a large engine takes by the row counts that servers prepare it for."""
        num_bytes = sum((candidate.folder / name).stat().st_size for name in entry.files)
        asks = self._job.tile_decoder and entry.component is Component.VAE_DECODER  # whether it has room, by its pixels
        if num_bytes < resident.LEAST_BYTES and not asks:
            return {}  # a memory budget goes by its files
        counts = row_counts(entry)

        def work(_folder: Path) -> dict[int, int]:
            return resident.resident_by_rows(candidate.folder, entry, self._job.device, counts)

        inputs = self._timed(resident, candidate) | {"counts": counts}
        found = self._stages.run(f"weigh {stem(entry.component, entry.variant)}", inputs, work).detail
        return {int(count): num_bytes for count, num_bytes in found.items()}  # JSON's keys are text

    def _derive(self, target: Target, value: Precision) -> StageResult:
        ranges = None
        if self._calibration and value.is_calibrated:
            ranges = self._calibration.ranges(target)
            if target.component is Component.VAE_DECODER and self._job.backend == self._job.runs_on:
                target = with_channels_last_norms(target, self._stages)

        # A decoder's pictures are so large that its borders' constants would take more memory than its weights.
        fold = self._job.backend == "openvino" and target.component is not Component.VAE_DECODER

        def work(folder: Path) -> dict[str, Any]:
            file, backend = folder / f"{target.name}.onnx", self._job.backend
            stats = precision.derive(target.onnx, file, value, backend, ranges, without_zero_points=fold)
            return {"stats": asdict(stats), "structure": structure.structure_digest(file)}

        inputs = {"source": target.source, "precision": value, "backend": self._job.backend, "ranges": ranges}
        code = {"code": code_digest(precision, weights, float16_graph, modules, quantise, structure, zero_points)}
        return self._stages.run(f"derive {target.name} {value}", inputs | code, work)

    def _sound(self, value: Precision, *targets: Target) -> list[Candidate]:
        """Return built and verified engines, calibrated anew where the base's ranges do not pass."""
        made = [self.built(target, value) for target in targets]
        made[-1] = self._verified(targets[-1], made)
        unsound = value.is_calibrated and not verify.passes(made[-1].measured)
        if unsound and self._calibration and self._calibration.renew(*targets):
            stage, found = f"verify {targets[-1].name} {value}", verify.worst(made[-1].measured).snr_db
            self._stages.note(stage, f"with the base's ranges it has {found:.1f} dB, so it is calibrated anew")
            made = [self.built(target, value) for target in targets]
            made[-1] = self._verified(targets[-1], made)
        return made

    def _verified(self, target: Target, chain: Sequence[Candidate]) -> Candidate:
        """Return the last of engines that are called in a row, with the figures of them all."""

        def work(_folder: Path) -> dict[str, list[float]]:
            engines = [verify.load_one(c.folder, c.entry, self._job.device, (2, 1)) for c in chain]
            try:
                return verify.measure(engines, self._recorded, target.recorded_as)
            finally:
                for engine in engines:
                    engine.close()

        last = chain[-1]
        built = [candidate.folder.name for candidate in chain]
        inputs = self._here(verify) | {"built": built, "reference": self._reference}
        figures = self._stages.run(f"verify {target.name} {last.entry.precision}", inputs, work).detail
        return replace(last, figures=figures, measured=verify.judge(last.entry, figures))

    def _choose(
        self, target: Target, candidates: list[Candidate], left_out: dict[str, str]
    ) -> tuple[Candidate, dict[str, Any]]:
        sound = {c.entry.precision: c for c in candidates if verify.passes(c.measured)}
        if candidates[0].entry.precision not in sound:  # the first is the finest that the device has
            raise verify.refuse(candidates[0].entry, candidates[0].measured)
        for candidate in candidates:
            if candidate.entry.precision not in sound:
                output = verify.worst(candidate.measured)
                left_out[candidate.entry.precision] = (
                    f"{output.snr_db:.1f} dB, below the tolerance of {output.floor_db:.0f} dB"
                )

        def work(_folder: Path) -> dict[str, Any]:
            engines = {
                name: verify.load_one(c.folder, c.entry, self._job.device, choose.ROWS) for name, c in sound.items()
            }
            try:
                return choose.fastest(engines)
            finally:
                for engine in engines.values():
                    engine.close()

        inputs = self._timed(choose, *candidates) | {"sound": list(sound)}
        timings = self._stages.run(f"choose {target.name}", inputs, work).detail
        return sound[Precision(timings["chosen"])], timings | {"left_out": left_out}

    def _timed(self, code: Any, *candidates: Candidate) -> dict[str, Any]:
        """Return the inputs of stages that take the time or the size of engines, which no weight's value changes."""
        engines = [[c.structure, c.entry.precision, c.entry.backend, c.entry.backend_version] for c in candidates]
        axes = {name: axis.model_dump() for name, axis in candidates[0].entry.axes.items()}
        return self._here(code) | {"engines": engines, "axes": axes, "built_by": code_digest(build)}

    def _here(self, code: Any) -> dict[str, Any]:
        """Return the inputs that all stages have which run engines."""
        return {
            "device": self._job.device,
            "device_name": measure.device_name(self._job.runs_on, self._job.device),
            "host": measure.host(),
            "cpus": available_cpus(),
            "code": code_digest(code, timing) + measure.backend_digest(self._job.runs_on),
        }
