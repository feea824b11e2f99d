import grpc
import pytest
from google.rpc.error_details_pb2 import RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mezzotint.engines import errors
from mezzotint.server.status import refusal


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest("no"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.ModelNotFound("no"), grpc.StatusCode.NOT_FOUND),
        (errors.ShapeNotCompiled("no"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.RequestIdTaken("no"), grpc.StatusCode.ALREADY_EXISTS),
        (errors.QueueFull("no", retry_after_ms=7), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.DeadlineExpired("no"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.Cancelled("no"), grpc.StatusCode.CANCELLED),
        (errors.Unavailable("no"), grpc.StatusCode.UNAVAILABLE),
        (errors.BundleError("no"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.DeviceNotFound("no"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.LoadingOff("no"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.OverMemoryBudget("no"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.EngineFailed("no"), grpc.StatusCode.INTERNAL),
    ],
)
def test_an_error_of_ours_keeps_its_sentence_and_has_its_status(error: Exception, code: grpc.StatusCode) -> None:
    found = refusal(error, "id")
    assert (found.code, found.message) == (code, "no")
    assert ("request-id", "id") in found.metadata


def test_a_subclass_has_its_ancestors_status() -> None:
    class Odd(errors.InvalidRequest):
        pass

    assert refusal(Odd("odd"), "id").code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_full_queue_says_when_to_try_again() -> None:
    metadata = dict(refusal(errors.QueueFull("full", retry_after_ms=1250), "id").metadata)
    assert metadata["retry-after-ms"] == metadata["grpc-retry-pushback-ms"] == "1250"
    status = Status.FromString(metadata["grpc-status-details-bin"])
    assert (status.code, status.message) == (8, "full")
    retry, request = RetryInfo(), RequestInfo()
    assert status.details[0].Unpack(retry)
    assert status.details[1].Unpack(request)
    assert retry.retry_delay.ToMilliseconds() == 1250
    assert request.request_id == "id"


def test_any_other_error_is_internal_and_its_text_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    found = refusal(KeyError("secret"), "id")
    assert found.code is grpc.StatusCode.INTERNAL
    assert found.message == "request id: the server failed; its log says why under that id"
    assert "secret" in caplog.text
