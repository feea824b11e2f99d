"""The model of one response: all pictures of a request at once, made by the streaming one in the same Triton."""

import threading
import uuid
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from mezzotint.engines.memory import give_back
from mezzotint.server.kserve.tensors import STREAM
from mezzotint.server.triton.answer import Answer, own_array
from mezzotint.server.triton.watch import Watch
from mezzotint.server.triton.wording import TAKE_BACK, TICKET, code_of, joined, names_to_ask


class WholeModel:
    """A model of the python backend that answers each request once, many of them at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Find out whom to ask."""
        self._stream = args["model_name"] + STREAM
        self._watch = Watch()

    def execute(self, requests: list[Any]) -> None:
        """Ask for each request's pictures in a thread of its own: waiting for a stream takes one.

        How many there are is bounded by the streaming model, which refuses what its queue does not hold.
        """
        for request in requests:
            inputs = [pb_utils.Tensor(tensor.name(), own_array(tensor)) for tensor in request.inputs()]
            args = (request, inputs)
            threading.Thread(target=self._answer, args=args, name="mezzotint-request", daemon=True).start()

    def finalize(self) -> None:
        """Look after nobody any more."""
        self._watch.close()
        vars(self).clear()  # what lives on of Triton's objects crashes the ending process
        give_back()

    def _answer(self, request: Any, inputs: list[Any]) -> None:
        ticket = uuid.uuid4().hex
        answer = Answer(request, request.request_id() or ticket, lambda: self._take_back(request, ticket))
        self._watch.add(answer)
        try:
            self._pass_on(request, inputs, ticket, answer)
        except Exception as error:
            answer.refuse("UNAVAILABLE", f"{self._stream}: {error}")

    def _pass_on(self, request: Any, inputs: list[Any], ticket: str, answer: Answer) -> None:
        wanted = request.requested_output_names()
        asked = pb_utils.InferenceRequest(
            model_name=self._stream,
            request_id=request.request_id(),
            inputs=inputs,
            requested_output_names=names_to_ask(wanted),
            timeout=request.timeout(),
            parameters={TICKET: ticket},
        )
        parts, failure = [], None
        for response in asked.exec(decoupled=True):
            if response.has_error():
                failure = response.error()
            elif response.output_tensors():
                parts.append({tensor.name(): own_array(tensor) for tensor in response.output_tensors()})
        if failure is not None:
            answer.refuse(*code_of(failure.message()))
        else:
            answer.send(joined(parts, wanted), last=True)

    def _take_back(self, request: Any, ticket: str) -> None:
        """Take a request back whose client has gone."""
        prompt = pb_utils.Tensor("PROMPT", np.array([b""], object))
        asked = pb_utils.InferenceRequest(
            model_name=self._stream,
            inputs=[prompt],
            requested_output_names=names_to_ask(()),
            parameters={TAKE_BACK: ticket},
        )
        for _ in asked.exec(decoupled=True):
            pass
