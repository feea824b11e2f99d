"""The Triton server that runs this process as a model of its python backend: requests from inside it.

A model may make them once it has started and Triton calls it with a request of its own, and not before.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import triton_python_backend_utils as pb_utils

from mezzotint.engines.backends.triton import CallFailed, Rows


class InsideServer:
    """The Triton server that this process runs in."""

    def digest(self, model: str) -> None:
        """Ask whether a model is ready; inside, nobody says what it runs."""
        if not pb_utils.is_model_ready(model):
            raise CallFailed("it is not ready")

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
