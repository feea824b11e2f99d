"""Each bundle as two models of Triton's, since one of those is decoupled or not: ``NAME``, and ``NAME_stream``."""

from collections.abc import Iterator
from dataclasses import dataclass

from mezzotint.engines.errors import ModelNotFound
from mezzotint.proto import kserve_pb2 as pb
from mezzotint.server.catalog import Catalog, State, Version
from mezzotint.server.kserve.tensors import INPUTS, OUTPUTS, STREAM, tensors_of

PLATFORM = "mezzotint"
VERSION = "1"
"""Triton's versions are numbers; a bundle's is its digest, which the configuration's parameters say."""

_STATES = {
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.UNLOADING: "UNLOADING",
    State.EVICTED: "READY",  # the next request has it loaded
    State.WAKING: "READY",
    State.FAILED: "UNAVAILABLE",
}


@dataclass(frozen=True, slots=True)
class Face:
    """A bundle under one of its two names."""

    bundle: str
    decoupled: bool

    @property
    def name(self) -> str:
        """The model's name."""
        return self.bundle + STREAM * self.decoupled


def find(catalog: Catalog, name: str, version: str = "") -> Face:
    """Return the model of a name. Raises ModelNotFound, and InvalidRequest where it is empty and there are several."""
    decoupled = is_decoupled(catalog, name)
    face = Face(catalog.version(name.removesuffix(STREAM) if decoupled else name).name, decoupled)
    if version not in ("", VERSION):
        raise ModelNotFound(f"model={face.name!r}: has no version {version[:20]!r}; it has {VERSION} alone")
    return face


def is_decoupled(catalog: Catalog, name: str) -> bool:
    """Return whether a name is that of a model that streams."""
    return name not in catalog.names and name.endswith(STREAM) and name.removesuffix(STREAM) in catalog.names


def faces(bundle: str) -> tuple[Face, Face]:
    """Return both models of a bundle."""
    return Face(bundle, decoupled=False), Face(bundle, decoupled=True)


def metadata(face: Face) -> pb.ModelMetadataResponse:
    """Return the names, types and shapes of a model's tensors."""
    tensor = pb.ModelMetadataResponse.TensorMetadata
    inputs, outputs = (
        [
            tensor(name=each.name, datatype=each.datatype, shape=each.dims)
            for each in tensors_of(some, decoupled=face.decoupled)
        ]
        for some in (INPUTS, OUTPUTS)
    )
    return pb.ModelMetadataResponse(
        name=face.name, versions=[VERSION], platform=PLATFORM, inputs=inputs, outputs=outputs
    )


def config(face: Face, digest: str) -> pb.ModelConfig:
    """Return a model's configuration; batches are made of steps, so that a request has no batch axis."""
    made = pb.ModelConfig(name=face.name, platform=PLATFORM, backend=PLATFORM, max_batch_size=0)
    made.model_transaction_policy.decoupled = face.decoupled
    made.parameters["digest"].string_value = digest
    for each in tensors_of(INPUTS, decoupled=face.decoupled):
        data_type = pb.DataType.Value(each.datatype.config_name)
        made.input.add(name=each.name, data_type=data_type, dims=each.dims, optional=each.optional)
    for each in tensors_of(OUTPUTS, decoupled=face.decoupled):
        made.output.add(name=each.name, data_type=pb.DataType.Value(each.datatype.config_name), dims=each.dims)
    return made


def index_of(version: Version) -> Iterator[pb.RepositoryIndexResponse.ModelIndex]:
    """Return what the index of the repository says of a bundle's models."""
    for face in faces(version.name):
        yield pb.RepositoryIndexResponse.ModelIndex(
            name=face.name, version=VERSION, state=_STATES[version.state], reason=version.reason
        )
