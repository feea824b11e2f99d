"""The gRPC service ``inference.GRPCInferenceService``, the KServe v2 protocol with Triton's extensions.

Pictures are ``infer.py``'s; here are the calls about the server, its models and shared memory.
"""

import ipaddress
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import metadata
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from mezzotint.engines.errors import InvalidRequest, Unsupported
from mezzotint.engines.image import Stage
from mezzotint.proto import kserve_pb2 as pb
from mezzotint.server.client_identity import address_of, check_operator
from mezzotint.server.config import KserveConfig
from mezzotint.server.convert import parse_as, parsed
from mezzotint.server.intake import Intake, refusing
from mezzotint.server.kserve import models
from mezzotint.server.kserve.infer import Inference
from mezzotint.server.kserve.memory import Regions
from mezzotint.server.kserve.statistics import Counts, Duration, Statistics
from mezzotint.server.kserve.tensors import STREAM
from mezzotint.server.lifecycle import Lifecycle

SERVICE = "inference.GRPCInferenceService"

_FEW_BYTES = 65_536  # of a request that says names
_EXTENSIONS = ("model_repository", "model_configuration", "parameters", "statistics")
_REFUSED = {
    "CudaSharedMemoryStatus": "CUDA shared memory",
    "CudaSharedMemoryRegister": "CUDA shared memory",
    "CudaSharedMemoryUnregister": "CUDA shared memory",
    "TraceSetting": "trace settings",
    "LogSettings": "log settings",
}
_STAGES = {Stage.ENCODE: "compute_input", Stage.DENOISE: "compute_infer", Stage.DECODE: "compute_output"}

Context = grpc.aio.ServicerContext[Any, Any]


class KserveService:
    """Answers the calls of the protocol.

    Args:
        lifecycle: knows the models.
        intake: takes the requests for pictures in.
        config: what of it is served.
        statistics: what each bundle has done.
        is_ready: whether the server takes requests.
        max_request_bytes: of one message.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        intake: Intake,
        config: KserveConfig,
        statistics: Statistics,
        is_ready: Callable[[], bool],
        max_request_bytes: int,
    ) -> None:
        self._lifecycle = lifecycle
        self._catalog = lifecycle.catalog
        self._regions = Regions(is_open=config.shared_memory, max_bytes=max_request_bytes)
        self._inference = Inference(intake, lifecycle.catalog, self._regions)
        self._statistics = statistics
        self._is_ready = is_ready
        self._max_request_bytes = max_request_bytes

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to register; it reads requests itself, so that bad bytes get a sentence of ours."""
        infer = partial(parse_as, pb.ModelInferRequest, max_bytes=self._max_request_bytes)
        handlers = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(
                self._inference.infer, infer, pb.ModelInferResponse.SerializeToString
            ),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
                self._inference.stream_infer, infer, pb.ModelStreamInferResponse.SerializeToString
            ),
            **{name: _unary(answer, getattr(pb, f"{name}Request")) for name, answer in self._calls().items()},
            **{name: _unary(partial(_refuse, what), None) for name, what in _REFUSED.items()},
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def close(self) -> None:
        """Forget the shared memory that clients have registered."""
        self._regions.close()

    def _calls(self) -> dict[str, Callable[[Any, Context], Awaitable[Message]]]:
        return {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._memory_status,
            "SystemSharedMemoryRegister": self._memory_register,
            "SystemSharedMemoryUnregister": self._memory_unregister,
        }

    async def _server_live(self, _: pb.ServerLiveRequest, __: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=self._catalog.is_alive)

    async def _server_ready(self, _: pb.ServerReadyRequest, __: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def _server_metadata(self, _: pb.ServerMetadataRequest, __: Context) -> pb.ServerMetadataResponse:
        extensions = [*_EXTENSIONS, *(["system_shared_memory"] if self._regions.is_open else [])]
        return pb.ServerMetadataResponse(
            name=models.PLATFORM, version=metadata.version("mezzotint"), extensions=extensions
        )

    async def _model_ready(self, message: pb.ModelReadyRequest, _: Context) -> pb.ModelReadyResponse:
        known = {face.name for name in self._catalog.names for face in models.faces(name)}
        if message.name not in known or message.version not in ("", models.VERSION):
            return pb.ModelReadyResponse(ready=False)
        face = models.find(self._catalog, message.name)
        return pb.ModelReadyResponse(ready=self._catalog.takes_requests(face.bundle))

    async def _model_metadata(self, message: pb.ModelMetadataRequest, _: Context) -> pb.ModelMetadataResponse:
        return models.metadata(models.find(self._catalog, message.name, message.version))

    async def _model_config(self, message: pb.ModelConfigRequest, _: Context) -> pb.ModelConfigResponse:
        face = models.find(self._catalog, message.name, message.version)
        return pb.ModelConfigResponse(config=models.config(face, self._catalog.version(face.bundle).digest))

    async def _model_statistics(self, message: pb.ModelStatisticsRequest, _: Context) -> pb.ModelStatisticsResponse:
        if message.name:
            asked = [models.find(self._catalog, message.name, message.version)]
        else:
            asked = [face for name in self._catalog.names for face in models.faces(name)]
        counted = [_statistics_of(face, self._statistics.of(face.bundle)) for face in asked]
        return pb.ModelStatisticsResponse(model_stats=counted)

    # The model repository

    async def _repository_index(self, message: pb.RepositoryIndexRequest, _: Context) -> pb.RepositoryIndexResponse:
        served = [entry for version in self._catalog.versions for entry in models.index_of(version)]
        folders = {version.bundle.folder.name for version in self._catalog.versions if version.bundle}
        known = {entry.name for entry in served} | folders
        index = pb.RepositoryIndexResponse.ModelIndex
        served += [
            index(name=name, reason="it is not loaded") for name in self._lifecycle.loadable if name not in known
        ]
        entries = [entry for entry in served if entry.state == "READY" or not message.ready]
        return pb.RepositoryIndexResponse(models=entries)

    async def _load(self, message: pb.RepositoryModelLoadRequest, _: Context) -> pb.RepositoryModelLoadResponse:
        check_operator()
        if message.parameters:
            raise InvalidRequest("parameters: a bundle says itself what it is made of; load the model without them")
        name = message.model_name
        await self._lifecycle.load(name if name in self._lifecycle.loadable else name.removesuffix(STREAM))
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, message: pb.RepositoryModelUnloadRequest, _: Context) -> pb.RepositoryModelUnloadResponse:
        check_operator()
        name = models.find(self._catalog, message.model_name).bundle if message.model_name else ""
        await self._lifecycle.unload(name)
        return pb.RepositoryModelUnloadResponse()

    # Shared memory

    async def _memory_status(
        self, message: pb.SystemSharedMemoryStatusRequest, _: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        response = pb.SystemSharedMemoryStatusResponse()
        for name, region in self._regions.status(message.name).items():
            status = response.regions[name]
            status.name, status.key, status.offset, status.byte_size = name, region.key, region.offset, region.num_bytes
        return response

    async def _memory_register(
        self, message: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        place = message.offset, message.byte_size
        self._regions.register(message.name, message.key, *place, is_local=_is_local(context.peer()))
        return pb.SystemSharedMemoryRegisterResponse()

    async def _memory_unregister(
        self, message: pb.SystemSharedMemoryUnregisterRequest, _: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        self._regions.unregister(message.name)
        return pb.SystemSharedMemoryUnregisterResponse()


def _unary(
    answer: Callable[[Any, Context], Awaitable[Message]], kind: type[Message] | None
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Return a handler that ends a call whose work raises with that error's status; without a kind it reads nothing."""

    async def handle(message: Any, context: Context) -> Message | None:
        async with refusing(context):
            return await answer(parsed(message), context)
        return None

    read = bytes if kind is None else partial(parse_as, kind, max_bytes=_FEW_BYTES)
    return grpc.unary_unary_rpc_method_handler(handle, read, lambda message: message.SerializeToString())


async def _refuse(what: str, _: bytes, __: Context) -> Message:
    raise Unsupported(f"{what}: no part of this server; leave the call out")


def _statistics_of(face: models.Face, counts: Counts) -> pb.ModelStatistics:
    made = pb.ModelStatistics(
        name=face.name,
        version=models.VERSION,
        last_inference=counts.last_ms,
        inference_count=counts.num_pictures,
        execution_count=counts.num_executions,
    )
    stats = made.inference_stats
    _write(stats.success, counts.success)
    _write(stats.fail, counts.failure)
    _write(stats.queue, counts.queue)
    for stage, spent in counts.stages.items():
        _write(getattr(stats, _STAGES[stage]), spent)
    batches: dict[int, pb.InferBatchStatistics] = {}
    for (stage, num_rows), spent in sorted(counts.batches.items(), key=lambda item: item[0][1]):
        batch = batches.setdefault(num_rows, pb.InferBatchStatistics(batch_size=num_rows))
        _write(getattr(batch, _STAGES[stage]), spent)
    made.batch_stats.extend(batches.values())
    return made


def _write(duration: pb.StatisticDuration, spent: Duration) -> None:
    duration.count, duration.ns = spent.count, spent.ns


def _is_local(peer: str) -> bool:
    if peer.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(address_of(peer)).is_loopback
    except ValueError:
        return False
