"""How the server logs: the line of each request, and records as text or as one JSON object a line.

Imports observers' words alone. What a record carries beside its message is under ``fields``, so that nothing else of a
record gets out.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mezzotint.engines.request import Request
from mezzotint.server.observer import Ending

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LINE = (
    "request %s: model=%s images=%d steps=%d outcome=%s queue_ms=%.1f encode_ms=%.1f denoise_ms=%.1f "
    "decode_ms=%.1f total_ms=%.1f"
)


class JsonFormatter(logging.Formatter):
    """Writes a record as a JSON object on one line: time, level, logger, message, and its own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is one string in it."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(level: str, log_format: str) -> None:
    """Log to stderr from here on: ``log_format`` is ``text``, or ``json``."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def about(request_id: str, **fields: object) -> Mapping[str, Mapping[str, object]]:
    """Return the ``extra`` of a record that is about a request."""
    return {"fields": {"request_id": request_id, **fields}}


def log_ending(logger: logging.Logger, ending: Ending, request: Request) -> None:
    """Write a request's one line; as JSON it also names the trace that the request belongs to, if any."""
    spent = ending.spent
    fields: dict[str, Any] = {
        "model": ending.model,
        "images": request.num_images,
        "steps": request.steps,
        "outcome": "finished" if ending.error is None else type(ending.error).__name__,
        "queue_ms": round(spent.queue_ms, 1),
        "encode_ms": round(spent.encode_ms, 1),
        "denoise_ms": round(spent.denoise_ms, 1),
        "decode_ms": round(spent.decode_ms, 1),
        "total_ms": round(spent.total_ms, 1),
    }
    trace = {"trace_id": ending.traceparent.split("-")[1]} if ending.traceparent else {}
    logger.info(_LINE, ending.request_id, *fields.values(), extra=about(ending.request_id, **fields, **trace))
