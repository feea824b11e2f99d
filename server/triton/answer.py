"""One request of Triton's, answered from any thread, and ended exactly once.

What Triton's module has beside its functions is there only once the model is loaded, so that no annotation names it.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from mezzotint.server.kserve.tensors import Array
from mezzotint.server.status import refusal
from mezzotint.server.triton.wording import CODES, INTERNAL, with_code


class Answer:
    """What goes back for a request.

    Attributes:
        for_twin: whether it goes to our other model: Triton loses errors' codes on the way, so that they go as text.

    Args:
        request: Triton's, as its python backend hands it over.
        request_id: its name in errors.
        on_gone: hears that its client has gone away.
        on_end: hears that it was ended.
    """

    def __init__(
        self,
        request: Any,
        request_id: str,
        on_gone: Callable[[], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.request_id = request_id
        self.for_twin = False
        self._sender = request.get_response_sender()
        self._on_gone = on_gone
        self._on_end = on_end
        self._lock = threading.Lock()  # the sender must not be asked anything once it has sent the end
        self._ended = False

    def send(self, outputs: Mapping[str, Array], *, last: bool = False) -> None:
        """Send a response; ``last`` is the end as well."""
        tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
        self._send(pb_utils.InferenceResponse(tensors), last)

    def end(self) -> None:
        """Say that there is no more."""
        self._send(None, True)

    def fail(self, error: Exception) -> None:
        """End with an error of ours."""
        refused = refusal(error, self.request_id)
        self.refuse(CODES.get(refused.code, INTERNAL), refused.message)

    def refuse(self, code: str, message: str) -> None:
        """End with an error of Triton's, its code by name."""
        text = with_code(code, message) if self.for_twin else message
        error = pb_utils.TritonError(text, getattr(pb_utils.TritonError, code))
        self._send(pb_utils.InferenceResponse(error=error), True)

    def look(self) -> bool:
        """Tell where the client has gone away; returns whether that can still happen."""
        with self._lock:
            if self._ended:
                return False
            gone = bool(self._sender.is_cancelled())
        if gone:
            self._on_gone()
        return not gone

    def _send(self, response: Any, last: bool) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = last
            flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
            if response is None:
                self._sender.send(flags=flags)
            else:
                self._sender.send(response, flags=flags)
        if last:
            self._on_end()


def own_array(tensor: Any) -> Array:
    """Return a tensor's values in memory of our own: Triton's is given back before the request has ended."""
    return np.array(tensor.as_numpy())
