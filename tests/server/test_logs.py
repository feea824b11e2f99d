"""Logs as text and as JSON."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from mezzotint import MezzotintClientError
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.logs import JsonFormatter, about
from tests.server.conftest import Running, eventually

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Lines(logging.Handler):
    """Keeps what the JSON formatter writes."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def about(self, request_id: str) -> list[dict[str, object]]:
        read = [json.loads(line) for line in self.lines]
        return [line for line in read if line.get("request_id") == request_id]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    handler = Lines()
    caplog.set_level(logging.INFO, "mezzotint")
    logging.getLogger("mezzotint").addHandler(handler)
    yield handler
    logging.getLogger("mezzotint").removeHandler(handler)


async def test_a_requests_line_has_its_fields_under_the_clients_own_id(
    served: Running, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    result = await served.client.generate("a secret cat", steps=3, num_images=2, request_id="mine-1")
    await eventually(lambda: bool(lines.about("mine-1")))
    (line,) = lines.about("mine-1")
    assert {key: line[key] for key in ("level", "logger", "model", "images", "steps", "outcome")} == {
        "level": "INFO",
        "logger": "mezzotint.server.endings",
        "model": "fake",
        "images": 2,
        "steps": 3,
        "outcome": "finished",
    }
    assert str(line["time"]).endswith("+00:00")
    for name in ("queue_ms", "encode_ms", "denoise_ms", "decode_ms", "total_ms"):
        assert f"{name}={line[name]:.1f}" in str(line["message"])
    assert isinstance(line["total_ms"], float)
    assert line["total_ms"] >= max(timing.denoise_ms for timing in result.timings)
    assert "trace_id" not in line
    assert "secret" not in "".join(lines.lines)
    assert line["message"] in caplog.messages  # as text it is what it always was


async def test_the_id_goes_from_the_client_through_metadata_into_every_record(served: Running, lines: Lines) -> None:
    served.unet.failures = 1
    with pytest.raises(MezzotintClientError) as failure:
        await served.client.generate("a cat", request_id="mine-2")
    assert failure.value.request_id == "mine-2"
    error, ending = (line for line in lines.about("mine-2") if line["logger"] == "mezzotint.server.endings")
    assert (error["level"], ending["level"]) == ("ERROR", "INFO")
    assert "EngineFailed: the fake engine was told to fail" in str(error["traceback"])
    assert ending["outcome"] == "EngineFailed"
    assert all("\n" not in line for line in lines.lines)


async def test_a_refusals_line_has_its_fields_and_nothing_of_the_request(served: Running, lines: Lines) -> None:
    with pytest.raises(MezzotintClientError):
        await served.client.generate("a secret cat", model="secret", request_id="mine-3")
    (line,) = lines.about("mine-3")
    assert (line["logger"], line["code"], line["reason"]) == ("mezzotint.audit", "NOT_FOUND", "ModelNotFound(model)")
    assert line["client"]
    assert "secret" not in "".join(lines.lines)


async def test_a_line_names_the_trace_that_the_client_is_in(served: Running, lines: Lines) -> None:
    for given, traced in ((TRACEPARENT, True), ("00-nonsense", False), (f"00-{'0' * 32}-b7ad6b7169203331-01", False)):
        lines.lines.clear()
        call = served.channel.unary_stream("/mezzotint.v1.Mezzotint/Generate")
        async for _ in call(pb.GenerateRequest(prompt="a cat").SerializeToString(), metadata=(("traceparent", given),)):
            pass
        await eventually(lambda: any('"outcome"' in line for line in lines.lines))
        (line,) = (read for read in map(json.loads, lines.lines) if "outcome" in read)
        assert ("trace_id" in line) is traced
        if traced:
            assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


def test_whatever_a_message_holds_a_record_is_one_line_of_json() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord(
            "any", logging.ERROR, __file__, 1, 'bad %s "q" \u2028\ud800', ("two\nlines",), sys.exc_info()
        )
    record.__dict__.update(about("id", size=1.5, odd=object()))
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    read = json.loads(line)
    assert read["message"] == 'bad two\nlines "q" \u2028\ud800'
    assert (read["request_id"], read["size"]) == ("id", 1.5)
    assert "second" in read["traceback"]
