"""What gRPC's reflection can describe: our protocol, the KServe one, and health, in one descriptor pool."""

from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from mezzotint.proto import kserve_pb2, mezzotint_pb2


def reflected() -> DescriptorPool:
    """Return the pool that the stubs of KServe have to themselves, with the other protocols in it."""
    pool: DescriptorPool = kserve_pb2.DESCRIPTOR.pool
    for module in (mezzotint_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
