"""Our stubs of the protocol are those that Triton's clients have, and both live in one process."""

import subprocess
import sys

import pytest
from google.protobuf.descriptor import Descriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from mezzotint.proto import kserve_pb2

THEIRS = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
OURS = kserve_pb2.DESCRIPTOR


def check_same(ours: Descriptor, theirs: Descriptor) -> None:
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)
    for nested in ours.nested_types:
        check_same(nested, theirs.nested_types_by_name[nested.name])


@pytest.mark.parametrize("name", OURS.message_types_by_name)
def test_a_message_has_fields_of_the_names_numbers_and_types_that_triton_has(name: str) -> None:
    check_same(OURS.message_types_by_name[name], THEIRS[name])


def test_the_calls_and_datatypes_are_tritons() -> None:
    (ours,) = OURS.services_by_name.values()
    theirs = service_pb2.DESCRIPTOR.services_by_name[ours.name]
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert (method.input_type.name, method.output_type.name) == (other.input_type.name, other.output_type.name)
    assert kserve_pb2.DataType.items() == model_config_pb2.DataType.items()


@pytest.mark.parametrize("first", ["mezzotint.proto.kserve_pb2", "tritonclient.grpc"])
def test_both_stubs_are_imported_in_either_order(first: str) -> None:
    code = f"import {first}, mezzotint.proto.kserve_pb2, tritonclient.grpc, mezzotint.server.app"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_serving_needs_no_client_of_tritons() -> None:
    code = (
        "import sys; sys.modules['tritonclient'] = None; import mezzotint.server.app, mezzotint.server.kserve.service"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
