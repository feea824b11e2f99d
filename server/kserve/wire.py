"""Between the protocol's messages and arrays. With ``infer.py`` and ``service.py`` all that knows its protobuf here."""

import itertools
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mezzotint.engines.errors import InvalidRequest
from mezzotint.proto import kserve_pb2 as pb
from mezzotint.server.kserve.memory import Place, Regions
from mezzotint.server.kserve.tensor import Datatype, Tensor
from mezzotint.server.kserve.tensors import OUTPUTS, Array, input_tensor
from mezzotint.server.limits import check_length

_CONTENTS = {
    Datatype.INT32: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.UINT8: "uint_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.BYTES: "bytes_contents",
}
_DATATYPES = {tensor.name: tensor.datatype for tensor in OUTPUTS}
_MAX_AXES = 8
_REGION, _OFFSET, _NUM_BYTES = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"
_RESERVED = frozenset(
    ("priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "headers", "binary_data_output")
)
_OF_TRITON = "triton_"
_EMPTY_FINAL = "triton_enable_empty_final_response"
_KIND = "parameter_choice"


def arrays_of(message: pb.ModelInferRequest, regions: Regions, *, decoupled: bool) -> dict[str, Array]:
    """Return a request's inputs by name, of the dtypes that they should have.

    Raises:
        InvalidRequest: an input is none of the model's, comes twice, or its bytes are not what its shape says.
        ModelNotFound: it lies in a region of shared memory that is not registered.
    """
    arrays: dict[str, Array] = {}
    raw = iter(message.raw_input_contents)
    for given in message.inputs:
        tensor = input_tensor(given.name, decoupled=decoupled)
        if given.name in arrays:
            raise InvalidRequest(f"input {given.name!r}: comes twice; send it once")
        shape = _shape(tensor, given)
        place = place_of(f"input {given.name!r}", given.parameters)
        if place is not None:
            data: bytes | None = regions.read(f"input {given.name!r}", place)
        else:
            data = next(raw, None) if message.raw_input_contents else None
            if data is None and message.raw_input_contents:
                raise InvalidRequest(f"input {given.name!r}: has no raw_input_contents; send one for each input")
        if data is None:
            arrays[given.name] = _typed(tensor, given.contents, shape)
        elif given.HasField("contents"):
            raise InvalidRequest(f"input {given.name!r}: has contents beside its bytes; send one of them")
        else:
            arrays[given.name] = _from_bytes(tensor, data, shape)
    if next(raw, None) is not None:
        raise InvalidRequest("raw_input_contents: are more than the inputs that are not in shared memory")
    return arrays


def places_of(message: pb.ModelInferRequest, regions: Regions) -> dict[str, Place]:
    """Return where outputs are to be put that shall lie in shared memory. Raises InvalidRequest, ModelNotFound."""
    places = {}
    for output in message.outputs:
        what = f"output {output.name[:80]!r}"
        if "classification" in output.parameters:
            raise InvalidRequest(f"{what}: has no classes; leave `classification` out")
        place = place_of(what, output.parameters)
        if place is not None:
            regions.check(what, place)
            places[output.name] = place
    return places


def place_of(what: str, parameters: Mapping[str, pb.InferParameter]) -> Place | None:
    """Return where in shared memory a tensor lies; None where it does not. Raises InvalidRequest."""
    if _REGION not in parameters:
        return None
    offset = integer(f"{what}: {_OFFSET}", parameters[_OFFSET]) if _OFFSET in parameters else 0
    if _NUM_BYTES not in parameters or parameters[_REGION].WhichOneof(_KIND) != "string_param":
        raise InvalidRequest(f"{what}: needs {_REGION}, a string, and {_NUM_BYTES} to lie in shared memory")
    return Place(parameters[_REGION].string_param, offset, integer(f"{what}: {_NUM_BYTES}", parameters[_NUM_BYTES]))


def parameter(message: pb.ModelInferRequest, name: str) -> int:
    """Return an integer of a request's parameters that may not be negative; 0 where it is not there.

    Raises:
        InvalidRequest: it is another, or one of the parameters is none that Triton has.
    """
    for given in message.parameters:
        if given not in _RESERVED and not given.startswith(_OF_TRITON):
            raise InvalidRequest(
                f"parameter {given[:80]!r}: means nothing here; what a request asks for are its inputs"
            )
    return integer(f"parameter {name!r}", message.parameters[name]) if name in message.parameters else 0


def wants_empty_final(message: pb.ModelInferRequest) -> bool:
    """Whether the last answer of a decoupled model is followed by an empty one. Raises InvalidRequest."""
    if _EMPTY_FINAL not in message.parameters:
        return False
    given = message.parameters[_EMPTY_FINAL]
    if given.WhichOneof(_KIND) != "bool_param":
        raise InvalidRequest(f"parameter {_EMPTY_FINAL!r}: must be a bool_param")
    return given.bool_param


def integer(what: str, given: pb.InferParameter) -> int:
    """Return a parameter's integer. Raises InvalidRequest."""
    kind = given.WhichOneof(_KIND)
    value = getattr(given, kind) if kind in ("int64_param", "uint64_param") else -1
    if value < 0:
        raise InvalidRequest(f"{what}: must be an integer, 0 or more")
    return int(value)


def fill(
    response: pb.ModelInferResponse, outputs: Mapping[str, Array], places: Mapping[str, Place], regions: Regions
) -> None:
    """Put outputs into a response, or where they shall lie in shared memory. Raises InvalidRequest, ModelNotFound."""
    for name, array in outputs.items():
        data = _to_bytes(array)
        output = response.outputs.add(name=name, datatype=_DATATYPES[name], shape=array.shape)
        if (place := places.get(name)) is None:
            response.raw_output_contents.append(data)
            continue
        regions.write(f"output {name!r}", place, data)
        response.raw_output_contents.append(b"")  # clients count on one for each
        output.parameters[_REGION].string_param = place.region
        output.parameters[_NUM_BYTES].int64_param = len(data)
        if place.offset:
            output.parameters[_OFFSET].int64_param = place.offset


def _shape(tensor: Tensor, given: pb.ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    shape = tuple(given.shape[: _MAX_AXES + 1])
    if (
        given.datatype != tensor.datatype
        or len(shape) > _MAX_AXES
        or min(shape, default=0) < 0
        or not tensor.fits(shape)
    ):
        raise InvalidRequest(
            f"input {tensor.name!r}: is {given.datatype[:16]!r} {list(shape)}; must be {tensor}, -1 being any length"
        )
    if tensor.dims == (-1,):
        check_length(tensor.field, math.prod(shape))
    return shape


def _typed(tensor: Tensor, contents: pb.InferTensorContents, shape: tuple[int, ...]) -> Array:
    """Return what is in the field of an input's type; what is in others is a mistake. Raises InvalidRequest."""
    field = _CONTENTS[tensor.datatype]
    values = getattr(contents, field)
    others = [other.name for other, _ in contents.ListFields() if other.name != field]
    if others or len(values) != math.prod(shape):
        raise InvalidRequest(
            f"input {tensor.name!r}: must have {math.prod(shape)} values in {field}; has {len(values)}"
            + (f", and {', '.join(others)} beside them" if others else "")
        )
    if tensor.datatype is Datatype.BYTES:
        return _objects(values, shape)
    try:
        return np.array(values, tensor.datatype.dtype).reshape(shape)
    except OverflowError:
        raise InvalidRequest(f"input {tensor.name!r}: has a value that {tensor.datatype} does not hold") from None


def _from_bytes(tensor: Tensor, data: bytes, shape: tuple[int, ...]) -> Array:
    """Return little-endian bytes, or elements each behind its length, as an array. Raises InvalidRequest."""
    num_values, dtype = math.prod(shape), tensor.datatype.dtype
    if tensor.datatype is not Datatype.BYTES:
        if len(data) != num_values * dtype.itemsize:
            raise InvalidRequest(
                f"input {tensor.name!r}: has {len(data)} bytes for {tensor.datatype} {list(shape)}; "
                f"must be {num_values * dtype.itemsize}"
            )
        return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)
    values = list(itertools.islice(_elements(data), num_values + 1))  # of as many as a message holds, no more
    if None in values or len(values) != num_values:
        raise InvalidRequest(
            f"input {tensor.name!r}: has {len(data)} bytes that are not the {num_values} elements of {list(shape)}; "
            "must be each element behind its length, four bytes little-endian"
        )
    return _objects(values, shape)


def _elements(data: bytes) -> Iterator[bytes | None]:
    """Return the elements of BYTES; None stands for one that is cut off."""
    at = 0
    while at < len(data):
        start = at + 4
        length = struct.unpack_from("<I", data, at)[0] if start <= len(data) else len(data)
        at = start + length
        yield data[start:at] if at <= len(data) else None


def _objects(values: Any, shape: tuple[int, ...]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def _to_bytes(array: Array) -> bytes:
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(value)) + value for value in array.ravel())
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
