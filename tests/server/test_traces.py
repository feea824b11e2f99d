"""Spans of requests: in memory, and through the real exporter at a collector over gRPC."""

import asyncio
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mezzotint import MezzotintClientError
from mezzotint.engines.errors import MezzotintError
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import WatchConfig
from mezzotint.server.observer import Answer
from mezzotint.server.traces import Traces, otlp
from mezzotint.server.watching import wants_traces, watching
from tests.conftest import ROOT
from tests.server.conftest import Running, Start, entered, eventually

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Traced:
    """A server whose spans stay in memory."""

    def __init__(self, memory: InMemorySpanExporter, served: Running) -> None:
        self._memory = memory
        self.served = served

    async def spans(self, number: int) -> list[ReadableSpan]:
        """All spans, once there are so many."""
        await eventually(lambda: len(self._memory.get_finished_spans()) >= number)
        return list(self._memory.get_finished_spans())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand spans over at once rather than every five seconds."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


@pytest.fixture
async def traced(start: Start, monkeypatch: pytest.MonkeyPatch) -> Traced:
    memory = InMemorySpanExporter()
    monkeypatch.setattr("mezzotint.server.traces.otlp", lambda _: memory)
    return Traced(memory, await start(watch=WatchConfig(otlp_endpoint="http://localhost:4317")))


def ns(time_ns: int | None) -> int:
    assert time_ns is not None
    return time_ns


async def paint(served: Running, request: pb.GenerateRequest, *metadata: tuple[str, str]) -> None:
    call = served.channel.unary_stream("/mezzotint.v1.Mezzotint/Generate")
    async for _ in call(request.SerializeToString(), metadata=metadata):
        pass
    await eventually(lambda: served.core.num_open == 0)


async def test_a_request_is_a_span_in_its_clients_trace_with_its_stages_inside(traced: Traced) -> None:
    request = pb.GenerateRequest(prompt="a secret cat", steps=3, num_images=2, request_id="mine", guidance=4)
    await paint(traced.served, request, ("traceparent", TRACEPARENT))
    spans = await traced.spans(5)
    by_name = {span.name: span for span in spans}
    assert sorted(by_name) == ["decode", "denoise", "encode", "generate", "queue"]
    assert len(spans) == 5
    outer = by_name.pop("generate")
    assert {f"{span.context.trace_id:032x}" for span in spans if span.context} == {TRACE}
    assert outer.parent is not None
    assert f"{outer.parent.span_id:016x}" == PARENT
    assert outer.attributes == {
        "mezzotint.request_id": "mine",
        "mezzotint.model": "fake",
        "rpc.response.status_code": "OK",
    }
    assert outer.context is not None
    for span in by_name.values():
        assert span.parent is not None
        assert span.parent.span_id == outer.context.span_id
    assert by_name["denoise"].attributes == {"mezzotint.engine_calls": 3}
    assert by_name["decode"].attributes == {"mezzotint.engine_calls": 2}
    assert "secret" not in "".join(span.to_json() for span in spans)
    order = [by_name[name] for name in ("queue", "encode", "denoise", "decode")]
    for before, after in itertools.pairwise(order):
        assert ns(before.start_time) <= ns(before.end_time) <= ns(after.start_time) + 1_000_000


async def test_spans_last_as_long_as_what_they_are_about(traced: Traced) -> None:
    served = traced.served
    served.unet.hold()
    asking = asyncio.ensure_future(served.client.generate("a cat", steps=1))
    await entered(served)
    await asyncio.sleep(0.25)
    served.unet.release()
    await asking
    seconds = {span.name: (ns(span.end_time) - ns(span.start_time)) / 1e9 for span in await traced.spans(5)}
    assert 0.25 <= seconds["denoise"] <= seconds["generate"]
    assert seconds["queue"] < 0.25
    assert seconds["decode"] < 0.25


async def test_refused_and_failed_requests_have_spans_too_and_without_a_trace_they_begin_one(traced: Traced) -> None:
    with pytest.raises(MezzotintClientError):
        await traced.served.client.generate("a cat", model="made-up")
    traced.served.unet.failures = 1
    with pytest.raises(MezzotintClientError):
        await traced.served.client.generate("a cat")
    spans = await traced.spans(4)
    outer = [span for span in spans if span.name == "generate"]
    codes = [dict(span.attributes or {})["rpc.response.status_code"] for span in outer]
    assert codes == ["NOT_FOUND", "INTERNAL"]
    assert [span.status.status_code is StatusCode.ERROR for span in outer] == [False, True]
    assert [span.parent for span in outer] == [None, None]
    assert [span.name for span in spans if span.name != "generate"] == ["queue", "encode"]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.services.add(about["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Collector, str]]:
    server, collector = grpc.server(ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


async def test_a_collector_receives_the_spans_of_a_real_server(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    async with collecting() as (collector, endpoint):
        served = await start(watch=WatchConfig(otlp_endpoint=endpoint))
        await paint(served, pb.GenerateRequest(prompt="a cat", steps=2), ("traceparent", TRACEPARENT))
        await eventually(lambda: len(collector.spans) == 5)
        assert collector.services == {"pictures"}
        spans = collector.spans
        assert sorted(span.name for span in spans) == ["decode", "denoise", "encode", "generate", "queue"]
        assert {span.trace_id.hex() for span in spans} == {TRACE}


def test_a_collector_that_is_away_keeps_no_server_from_ending() -> None:
    traces = Traces(otlp("http://127.0.0.1:9"))
    answer = Answer("one")
    traces.received(answer)
    answer.code = "OK"
    traces.answered(answer)
    began = time.monotonic()
    traces.close()
    assert time.monotonic() - began < 4.5


def test_traces_are_wanted_where_there_is_an_endpoint_and_nobody_forbids_them() -> None:
    assert not wants_traces("", {})
    assert wants_traces("http://localhost:4317", {})
    assert wants_traces("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"})
    assert wants_traces("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4317"})
    assert not wants_traces("http://localhost:4317", {"OTEL_SDK_DISABLED": "true"})
    assert not wants_traces("http://localhost:4317", {"OTEL_TRACES_EXPORTER": "none"})


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(MezzotintError, match="otlp_endpoint='localhost:4317': must be a URL of OTLP over gRPC"):
        WatchConfig(otlp_endpoint="localhost:4317")


def test_without_the_extra_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mezzotint.server.traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    config = WatchConfig(otlp_endpoint="http://localhost:4317")
    with pytest.raises(MezzotintError, match=re.escape("pip install 'mezzotint[otel]'")), watching(config, Catalog([])):
        pass


def test_nothing_of_opentelemetry_is_imported_while_it_is_off() -> None:
    code = (
        "import sys, mezzotint.server.app\n"
        "from mezzotint.server.catalog import Catalog\n"
        "from mezzotint.server.config import WatchConfig, MetricsConfig\n"
        "from mezzotint.server.watching import Watch\n"
        "Watch(WatchConfig(MetricsConfig(port=0)), Catalog([]))\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
