"""The text of a model's ``config.pbtxt``. Knows the tensors of both models and the engines of a bundle, not Triton."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from mezzotint.engines.component import Precision
from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import EngineEntry, TensorSpec
from mezzotint.engines.remote import DIGEST
from mezzotint.server.kserve.tensor import Tensor
from mezzotint.server.kserve.tensors import INPUTS, OUTPUTS, tensors_of

Fields: TypeAlias = Sequence[tuple[str, Any]]
"""Fields of a message by name; a value is text, a number, a ``Word``, a list of numbers, or fields again."""


_NATIVE = {"tensorrt": "tensorrt", "onnxruntime": "onnxruntime", "openvino": "openvino"}
_ABOUT = {
    "IMAGES": "uint8 RGB [n, height, width, 3]; a stream's responses have one picture each",
    "FILES": "image files of IMAGE_FORMAT with their parameters; name outputs to leave out what they cost",
    "SEEDS": "each picture's own",
    "FLAGGED": "1, 0, or -1 where no safety checker looked",
    "TIMINGS_MS": "queue, encode, denoise, decode, total",
    "LATENTS": "the final latents [n, C, height, width]",
    "IMAGE_INDEX": "which picture of its request a response is about",
    "STEP": "steps that are done; responses with it have no picture",
    "FINISH_IN_MS": "when the picture will be done if nobody else comes",
    "PREVIEW": "a small JPEG file, every PREVIEW_EVERY steps",
}


class Word(str):
    """The name of an enum's value or a truth value, which stands without quotes."""


def generation_config(name: str, *, decoupled: bool, parameters: Mapping[str, str]) -> str:
    """Return the configuration of a model that makes pictures.

    Args:
        name: the model's.
        decoupled: whether it is the one that streams.
        parameters: what it reads of its own settings.
    """
    inputs, outputs = (tensors_of(tensors, decoupled=decoupled) for tensors in (INPUTS, OUTPUTS))
    about = "Answers each step and then each picture." if decoupled else "Answers all pictures of a request at once."
    return text_of(
        [
            ("#", f"{about} Written by `mezzotint export-triton`; docs/triton.md explains it."),
            ("name", name),
            ("backend", "python"),
            ("#", "Requests are not batched here: pictures of all requests share calls step by step inside."),
            ("max_batch_size", 0),
            *([("model_transaction_policy", [("decoupled", Word("true"))])] if decoupled else []),
            *(_input(tensor) for tensor in inputs),
            *(_output(tensor) for tensor in outputs),
            ("#", "More instances would not share their calls."),
            ("instance_group", [("count", 1), ("kind", Word("KIND_CPU"))]),
            *_parameters(parameters),
        ]
    )


def component_config(name: str, entry: EngineEntry, *, native: bool, parameters: Mapping[str, str]) -> str:
    """Return the configuration of a model that runs one engine.

    Args:
        name: the model's.
        entry: the engine.
        native: whether Triton's own backend runs it, and not our code in its python backend.
        parameters: what the python model reads.

    Raises:
        BundleError: Triton has no backend that runs such an engine.
    """
    on_gpu = native and entry.device.lower().partition(":")[0] in ("cuda", "gpu")
    kind = Word("KIND_GPU" if on_gpu else "KIND_CPU")
    resources = [("resources", [("name", "mezzotint_engines"), ("count", 1)])]
    return text_of(
        [
            ("#", f"One engine, called by rows; {entry.precision}, built for {entry.backend} {entry.backend_version}."),
            ("name", name),
            ("backend", _native_backend(entry) if native else "python"),
            *([("default_model_filename", next(iter(entry.files)))] if native else []),
            ("#", "Calls come filled with rows; Triton must not wait for more."),
            ("max_batch_size", 0),
            *(("input", _engine_tensor(tensor)) for tensor in entry.inputs),
            *(("output", _engine_tensor(tensor)) for tensor in entry.outputs),
            ("#", "With `tritonserver --rate-limit=execution_count` no two of these engines run at once."),
            ("instance_group", [("count", 1), ("kind", kind), ("rate_limiter", resources)]),
            *_parameters(
                {**(_native_parameters(entry) if native else parameters), DIGEST: next(iter(entry.files.values()))}
            ),
        ]
    )


def text_of(fields: Fields, indent: str = "") -> str:
    """Return fields in protobuf's text format, one a line; what is named ``#`` is a comment."""
    lines = []
    for name, value in fields:
        match value:
            case _ if name == "#":
                lines.append(f"{indent}# {value}\n")
            case Word() | int():
                lines.append(f"{indent}{name}: {value}\n")
            case str():
                lines.append(f"{indent}{name}: {_quoted(value)}\n")
            case [int(), *_]:
                lines.append(f"{indent}{name}: [ {', '.join(map(str, value))} ]\n")
            case _:
                lines.append(f"{indent}{name} {{\n{text_of(value, indent + '  ')}{indent}}}\n")
    return "".join(lines)


def _input(tensor: Tensor) -> tuple[str, Fields]:
    fields = _named(tensor.name, tensor.datatype.config_name, tensor.dims)
    optional = [("optional", Word("true"))] if tensor.optional else []
    return "input", [("#", f"`{tensor.field}` of a request"), *fields, *optional]


def _output(tensor: Tensor) -> tuple[str, Fields]:
    return "output", [("#", _ABOUT[tensor.name]), *_named(tensor.name, tensor.datatype.config_name, tensor.dims)]


def _engine_tensor(tensor: TensorSpec) -> Fields:
    dims = [axis if isinstance(axis, int) else -1 for axis in tensor.axes]
    return [("#", f"{tensor.role}: {', '.join(map(str, tensor.axes))}"), *_named(tensor.name, "TYPE_FP32", dims)]


def _named(name: str, datatype: str, dims: Sequence[int]) -> Fields:
    return [("name", name), ("data_type", Word(datatype)), ("dims", list(dims))]


def _parameters(parameters: Mapping[str, str]) -> Fields:
    return [("parameters", [("key", name), ("value", [("string_value", text)])]) for name, text in parameters.items()]


def _native_backend(entry: EngineEntry) -> str:
    if entry.backend == "tensorrt" and "rtx" in entry.flavour:
        raise BundleError(
            f"{entry.component}: was built for TensorRT for RTX, whose plans Triton's tensorrt backend does not load; "
            "compile it with `tensorrt` itself, or export with `--components python`"
        )
    if entry.backend not in _NATIVE:
        raise BundleError(
            f"{entry.component}: was built for {entry.backend}, for which Triton has no backend; "
            f"there are those for {', '.join(_NATIVE)}"
        )
    return _NATIVE[entry.backend]


def _native_parameters(entry: EngineEntry) -> dict[str, str]:
    if entry.backend == "openvino" and entry.precision in (Precision.BF16, Precision.INT8_BF16):
        return {"HINT_BF16": "YES"}
    return {}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
