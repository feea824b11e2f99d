"""The model of one response: all pictures of a request at once, made by the streaming one in the same Triton."""

import faulthandler
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from mezzotint.engines.memory import give_back
from mezzotint.server.kserve.tensors import STREAM
from mezzotint.server.triton.answer import Answer, own_array
from mezzotint.server.triton.watch import Watch
from mezzotint.server.triton.wording import TAKE_BACK, TICKET, code_of, joined, names_to_ask

_HELD_SECONDS = 5.0


class Held:
    """Responses of another model that are over, held for longer than Triton needs to let go of them.

    It does so in a thread of its own, and in 2.51 without Python's lock: the last to hold them, it would free their
    arrays beside Python's threads, and the process would crash.
    """

    def __init__(self, responses: Any) -> None:
        self._responses = responses
        self._until = time.monotonic() + _HELD_SECONDS

    def look(self) -> bool:
        """Tell whether they are to be held on."""
        return time.monotonic() < self._until


class WholeModel:
    """A model of the python backend that answers each request once, many of them at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Find out whom to ask."""
        faulthandler.enable()
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
        for response in self._responses(asked):
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
        for _ in self._responses(asked):
            pass

    def _responses(self, asked: Any) -> Iterator[Any]:
        """Give the responses to a request, as they come."""
        responses = asked.exec(decoupled=True)
        try:
            yield from responses
        finally:
            self._watch.add(Held(responses))
