"""Spans of requests for OpenTelemetry: one for each call for pictures, with its queue and its engines' stages inside.

Imported only where traces are wanted: it needs the extra ``otel``. No prompt is in any span.
"""

import threading
import time
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mezzotint.server.observer import Answer, Ending, Observer

_FLUSH_SECONDS = 2.0
_FAULTS = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))
"""What OpenTelemetry's conventions call an error of a gRPC server; other codes are the client's doing."""

_W3C = TraceContextTextMapPropagator()


def otlp(endpoint: str) -> SpanExporter:
    """Return the exporter over OTLP and gRPC; an empty endpoint is that of ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
    return OTLPSpanExporter(endpoint=endpoint or None)


class Traces(Observer):
    """Makes the spans and hands them over in batches, in a thread of its own.

    ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_TRACES_SAMPLER`` and ``OTEL_BSP_…`` do what
    OpenTelemetry says.

    Args:
        exporter: where spans go.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        ours = Resource.create({SERVICE_NAME: "mezzotint", SERVICE_VERSION: version("mezzotint")})
        self._exporter = exporter
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("mezzotint", version("mezzotint"))
        self._open: dict[Answer, Span] = {}

    def received(self, answer: Answer) -> None:
        """Begin the span of a client's call, in the client's trace if it named one."""
        span = self._tracer.start_span(
            "generate",
            context=_context(answer.traceparent),
            kind=SpanKind.SERVER,
            attributes={"mezzotint.request_id": answer.request_id},
        )
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(span))
        answer.traceparent = carrier["traceparent"]
        self._open[answer] = span

    def ended(self, ending: Ending) -> None:
        """Make the spans inside: the core has told when they were, and in which span."""
        context, now = _context(ending.traceparent), time.time_ns()

        def at(seconds: float) -> int:
            return now - round((ending.ended - seconds) * 1e9)

        started = ending.ended if ending.started is None else ending.started
        queued = self._tracer.start_span("queue", context, start_time=at(ending.arrival))
        queued.end(at(started))
        for stage, window in ending.windows.items():
            span = self._tracer.start_span(str(stage), context, start_time=at(window.began))
            span.set_attribute("mezzotint.engine_calls", window.num_calls)
            span.end(at(window.ended))

    def answered(self, answer: Answer) -> None:
        """End the span of a client's call."""
        span = self._open.pop(answer, None)
        if span is None:  # it was refused before it was received: strangers make no spans
            return
        span.set_attributes({"mezzotint.model": answer.model, "rpc.response.status_code": answer.code})
        if answer.code in _FAULTS:
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Hand over what is left, if that takes a moment: a collector that is away keeps no server from ending."""
        flushing = threading.Thread(target=self._provider.shutdown, name="mezzotint-traces", daemon=True)
        flushing.start()
        flushing.join(_FLUSH_SECONDS)
        if flushing.is_alive():
            self._exporter.shutdown()  # ends its waiting
            flushing.join(_FLUSH_SECONDS)


def _context(traceparent: str) -> Context:
    return _W3C.extract({"traceparent": traceparent}, Context())
