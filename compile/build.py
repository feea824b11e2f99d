"""A component's ONNX into a backend's engine files."""

import os
import shutil
from pathlib import Path

from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import Component


def build(onnx: Path, target: Path, backend: str, component: Component) -> list[str]:
    """Write the engine files of one component into ``target``; returns their names, the one to load first."""
    match backend:
        case "openvino":
            return _openvino(onnx, target, component)
        case "onnxruntime":
            return _onnxruntime(onnx, target)
    raise CompileError(f"backend {backend!r}: cannot be built for; use openvino or onnxruntime")


def _openvino(onnx: Path, target: Path, component: Component) -> list[str]:
    import openvino as ov

    name = f"{component}.xml"
    try:
        model = ov.Core().read_model(onnx)
        ov.save_model(model, target / name, compress_to_fp16=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CompileError(f"{component}: OpenVINO cannot read the exported graph: {reason}") from error
    return [name, f"{component}.bin"]


def _onnxruntime(onnx: Path, target: Path) -> list[str]:
    """ONNX Runtime loads ONNX itself: hard links where the file system has them, since weights are large."""
    names = [path.name for path in sorted(onnx.parent.glob(f"{onnx.name}*"))]
    for name in names:
        try:
            os.link(onnx.parent / name, target / name)
        except OSError:
            shutil.copyfile(onnx.parent / name, target / name)
    return names
