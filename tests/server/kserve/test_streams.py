"""Streams whose client takes one answer after the other, slowly: all that wait for their turn stay."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from mezzotint.proto import kserve_pb2 as pb
from mezzotint.server.access import AccessConfig
from tests.server.kserve.conftest import Begin

UNREAD_SECONDS = 0.3
WRITE_SECONDS = 0.05
NUM_REQUESTS = 8  # one waits longer for its turn than a client may leave an answer


class SlowContext:
    """A call's context whose client takes a while for each answer."""

    def __init__(self) -> None:
        self.answers: list[pb.ModelStreamInferResponse] = []

    def time_remaining(self) -> None:
        return None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> Mapping[str, Any]:
        return {}

    async def write(self, answer: pb.ModelStreamInferResponse) -> None:
        await asyncio.sleep(WRITE_SECONDS)
        self.answers.append(answer)


async def requests() -> AsyncIterator[pb.ModelInferRequest]:
    for number in range(NUM_REQUESTS):
        message = pb.ModelInferRequest(model_name="fake_stream", id=str(number))
        for name, datatype, data in (
            ("PROMPT", "BYTES", b"\5\0\0\0a cat"),
            ("SAMPLES", "INT32", b"\2\0\0\0"),
            ("STEPS", "INT32", b"\1\0\0\0"),
        ):
            message.inputs.add(name=name, datatype=datatype, shape=[1])
            message.raw_input_contents.append(data)
        message.outputs.add(name="IMAGES")
        yield message


async def test_who_reads_all_the_time_loses_nothing_though_each_request_waits_for_its_turn(begin: Begin) -> None:
    host = await begin(access=AccessConfig(unread_seconds=UNREAD_SECONDS))
    service = host.served.server._kserve
    assert service is not None
    context: Any = SlowContext()
    await service._inference.stream_infer(requests(), context)
    assert [answer.error_message for answer in context.answers if answer.error_message] == []
    assert len(context.answers) == 2 * NUM_REQUESTS
