"""The audit log: one line for each request that is refused. No prompt, no token and nothing else that a client sent.

The sentence that the client gets repeats its own words; the line names the error and the field alone.
"""

import logging
import re

import grpc

from mezzotint.server.client_identity import Client
from mezzotint.server.logs import about

logger = logging.getLogger("mezzotint.audit")

_FIELD = re.compile(r"([a-z_]+)[=:]")  # how a sentence about a request's field begins


def log_refusal(request_id: str, client: Client, code: grpc.StatusCode, error: Exception) -> None:
    """Write the line of a request that was refused before it was accepted."""
    field = _FIELD.match(str(error))
    reason = f"{type(error).__name__}({field[1]})" if field else type(error).__name__
    fields = {"client": str(client), "code": code.name, "reason": reason}
    logger.info(
        "refused request=%s client=%s code=%s reason=%s",
        request_id,
        *fields.values(),
        extra=about(request_id, **fields),
    )
