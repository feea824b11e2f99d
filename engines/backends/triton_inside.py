"""The Triton server that runs this process as a model of its python backend: requests from inside it."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import triton_python_backend_utils as pb_utils

from mezzotint.engines.backends.triton import CallFailed, Rows

_LOAD_SECONDS = 300.0
_EVERY_SECONDS = 0.2


class InsideServer:
    """It. Its models are loaded side by side with ours, so that they are waited for."""

    def digest(self, model: str) -> None:
        """Wait until a model is ready; inside, nobody says what it runs."""
        until = time.monotonic() + _LOAD_SECONDS
        while not pb_utils.is_model_ready(model):
            if time.monotonic() > until:
                raise CallFailed(f"it is not ready after {_LOAD_SECONDS:g} s")
            time.sleep(_EVERY_SECONDS)

    def call(
        self, model: str, inputs: Mapping[str, Rows], outputs: Sequence[str], timeout_seconds: float
    ) -> dict[str, Rows]:
        """Run a model once."""
        request = pb_utils.InferenceRequest(
            model_name=model,
            inputs=[pb_utils.Tensor(name, array) for name, array in inputs.items()],
            requested_output_names=list(outputs),
            timeout=round(1e6 * timeout_seconds),
        )
        response = request.exec()
        if response.has_error():
            raise CallFailed(response.error().message())
        return {tensor.name(): np.array(tensor.as_numpy()) for tensor in response.output_tensors()}

    def close(self) -> None:
        """Nothing is held."""
