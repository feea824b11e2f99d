"""Requests to Triton as users of its client make them."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc as client

_DTYPES = {"BYTES": object, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32}
_TYPES = {"PROMPT": "BYTES", "SCHEDULER": "BYTES", "SEED": "INT64", "GUIDANCE_SCALE": "FP32", "IMAGE_FORMAT": "BYTES"}
Result = client.InferResult


def inputs(prompt: str = "a shark on a blue background", **values: Any) -> list[client.InferInput]:
    """Return the tensors of a request; values are named as the tensors, in small letters."""
    made = []
    for name, value in {"prompt": prompt, **values}.items():
        kind = _TYPES.get(name.upper(), "INT32")
        array = np.array([value.encode() if isinstance(value, str) else value], _DTYPES[kind])
        made.append(client.InferInput(name.upper(), [1], kind))
        made[-1].set_data_from_numpy(array)
    return made


def outputs(*names: str) -> list[client.InferRequestedOutput]:
    return [client.InferRequestedOutput(name) for name in names]


class Stream:
    """A stream to a decoupled model; requests on it are answered side by side."""

    def __init__(self, connection: client.InferenceServerClient) -> None:
        self._connection = connection
        self._answers: queue.Queue[tuple[Result | None, Exception | None]] = queue.Queue()
        connection.start_stream(lambda result, error: self._answers.put((result, error)))

    def ask(self, model: str, *names: str, prompt: str = "a cat", request_id: str = "", **values: Any) -> None:
        self._connection.async_stream_infer(
            model,
            inputs(prompt, **values),
            outputs=outputs(*names),
            request_id=request_id,
            enable_empty_final_response=True,
        )

    def next(self) -> Result:
        """Return the next response, or raise the error that came in its place."""
        result, error = self._answers.get(timeout=60)
        if error is not None:
            raise error
        assert result is not None
        return result

    def until_the_end(self) -> Iterator[Result]:
        """Give the responses of one request, without the empty last one."""
        while True:
            result = self.next()
            if result.get_response().parameters["triton_final_response"].bool_param:
                return
            yield result

    def cancel(self) -> None:
        self._connection.stop_stream(cancel_requests=True)


@contextmanager
def streaming(address: str) -> Iterator[Stream]:
    with client.InferenceServerClient(address) as connection:
        yield Stream(connection)


def names_of(result: Result) -> set[str]:
    return {output.name for output in result.get_response().outputs}


def eventually(condition: Any, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.05)
