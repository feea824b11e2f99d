"""An engine's ONNX into a backend's engine files."""

from pathlib import Path

from mezzotint.compile.folders import link
from mezzotint.engines.errors import CompileError, last_line


def build(onnx: Path, target: Path, backend: str) -> list[str]:
    """Write the files of one engine into the folder ``target``, named as ``onnx`` is; returns those, first to load."""
    match backend:
        case "openvino":
            return _openvino(onnx, target)
        case "onnxruntime":
            return _onnxruntime(onnx, target)
    raise CompileError(f"backend {backend!r}: cannot be built for; use openvino or onnxruntime")


def _openvino(onnx: Path, target: Path) -> list[str]:
    import openvino as ov

    name = f"{onnx.stem}.xml"
    try:
        model = ov.Core().read_model(onnx)
        ov.save_model(model, target / name, compress_to_fp16=False)
    except RuntimeError as error:
        raise CompileError(f"{onnx.stem}: OpenVINO cannot read the exported graph: {last_line(error)}") from error
    return [name, f"{onnx.stem}.bin"]


def _onnxruntime(onnx: Path, target: Path) -> list[str]:
    """ONNX Runtime loads ONNX itself: hard links where the file system has them, since weights are large."""
    names = [path.name for path in sorted(onnx.parent.glob(f"{onnx.name}*"))]
    for name in names:
        link(onnx.parent / name, target / name)
    return names
