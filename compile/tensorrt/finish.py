"""A bundle of verified ONNX engines into one of TensorRT plans: what ``mezzotint build`` does, without torch."""

from collections.abc import Iterator
from pathlib import Path

from mezzotint.compile.folders import check_output, link
from mezzotint.compile.job import Report, StageEvent, Status
from mezzotint.compile.stages import Stages, code_digest
from mezzotint.compile.tensorrt import plan
from mezzotint.compile.tensorrt.plan import PlanOptions, build_plan, check_target
from mezzotint.engines.bundle_files import check_files, file_digest
from mezzotint.engines.component import Precision
from mezzotint.engines.errors import BundleError
from mezzotint.engines.folders import whole_folder
from mezzotint.engines.manifest import MANIFEST, EngineEntry, Manifest, read_manifest
from mezzotint.engines.tensorrt_flavour import RTX, find_flavour
from mezzotint.engines.variants import stem, title

_ONNX = "onnxruntime"
_FIRST_FP8 = 8.9


def finish(bundle: Path, output: Path, options: PlanOptions, cache: Path, tell: Report) -> Path:
    """Build a plan of every engine of ``bundle`` and write them as the bundle ``output``; returns it.

    Args:
        bundle: a bundle of ONNX engines; it stays as it is.
        output: the folder to write, at once and last.
        options: the GPU that plans are built for.
        cache: where plans are kept for the next run.
        tell: hears what is built.

    Raises:
        BundleError: the bundle is damaged or no ONNX, or no TensorRT is installed.
        CompileError: an engine cannot be built.
    """
    check_output(output)
    check_target(options)
    manifest = read_manifest(bundle)
    check_files(bundle, manifest)
    for entry in manifest.engines:
        if entry.backend != _ONNX:
            raise BundleError(
                f"{bundle}: {title(entry.component, entry.variant)} is built for {entry.backend}, expected ONNX; make "
                "the bundle with `mezzotint compile --backend tensorrt --onnx-only`"
            )
    flavour, _ = find_flavour(options.flavour)
    for sentence in undocumented(manifest, flavour, options.compute_capability):
        tell(StageEvent("plan", Status.NOTE, sentence))
    stages = Stages(cache, tell)
    with whole_folder(output) as folder:
        for name in _others(bundle, manifest):
            link(bundle / name, folder / name)
        engines = tuple(_planned(bundle, folder, entry, options, cache, stages) for entry in manifest.engines)
        text = manifest.model_copy(update={"engines": engines}).model_dump_json(indent=1)
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    return output


def undocumented(manifest: Manifest, flavour: str, compute_capability: str) -> Iterator[str]:
    """Yield a sentence for each engine whose precision NVIDIA does not say that the flavour or the GPU runs."""
    for entry in manifest.engines:
        if flavour == RTX and entry.precision in (Precision.INT8, Precision.INT8_HYBRID):
            yield (
                f"{title(entry.component, entry.variant)}: NVIDIA documents int8 activations for tensorrt, not for "
                "tensorrt_rtx, which may refuse the plan or run it in floats; int8-weights and fp16 are documented"
            )
        if entry.precision is Precision.FP8 and float(compute_capability) < _FIRST_FP8:
            yield (
                f"{title(entry.component, entry.variant)}: NVIDIA documents fp8 from compute capability {_FIRST_FP8} "
                f"on, not for {compute_capability}; int8-weights and fp16 are documented"
            )


def _others(bundle: Path, manifest: Manifest) -> list[str]:
    """Return a bundle's files that are neither its manifest nor an engine's."""
    engines = {name for entry in manifest.engines for name in entry.files}
    files = [str(path.relative_to(bundle)) for path in sorted(bundle.rglob("*")) if path.is_file()]
    return [name for name in files if name not in engines and name != MANIFEST]


def _planned(
    bundle: Path, folder: Path, entry: EngineEntry, options: PlanOptions, cache: Path, stages: Stages
) -> EngineEntry:
    """Build the plan of one engine into ``folder`` and return its entry."""
    flavour, trt = find_flavour(options.flavour)
    name, stage = f"{stem(entry.component, entry.variant)}.plan", f"plan {stem(entry.component, entry.variant)}"
    onnx = bundle / next(iter(entry.files))

    def work(target: Path) -> None:
        build_plan(onnx, target / name, entry, options, lambda done: stages.progress(stage, done, flavour), cache)

    inputs = {
        "onnx": dict(entry.files),
        "axes": {axis: length.model_dump() for axis, length in entry.axes.items()},
        "flavour": [flavour, trt.__version__],
        "options": [options.compute_capability, options.memory_bytes],
        "code": code_digest(plan),
    }
    built = stages.run(stage, inputs, work).folder / name
    link(built, folder / name)
    return entry.model_copy(
        update={
            "backend": "tensorrt",
            "backend_version": str(trt.__version__),
            "flavour": flavour,
            "compute_capability": options.compute_capability,
            "device": "cuda",
            "files": {name: file_digest(folder / name)},
            "row_classes": ((1,),),
            "step_ms": {},
            "resident_bytes": {},
        }
    )
