"""The model of one engine: a component of a bundle that other models and servers of ours call by rows."""

import faulthandler
import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends import check_runtime, get_backend
from mezzotint.engines.bundle_files import check_files
from mezzotint.engines.errors import MezzotintError
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.prepared import row_counts
from mezzotint.server.triton.layout import BUNDLE


class ComponentModel:
    """A model of the python backend that runs an engine by our backend for it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine beside ``model.py`` and run it once with each of its row counts."""
        faulthandler.enable()
        folder = Path(args["model_repository"]) / args["model_version"] / BUNDLE
        parameters = json.loads(args["model_config"])["parameters"]
        device, threads = (parameters[name]["string_value"] for name in ("device", "num_threads"))
        try:
            manifest = read_manifest(folder)
            check_files(folder, manifest)
            (entry,) = manifest.engines
            check_runtime(manifest.name, entry)
            options = EngineOptions(device, int(threads), row_counts(entry))
            self._engine = get_backend(entry.backend).load(folder, entry, options)
            for rows in options.row_counts:
                shapes = entry.input_shapes(rows)
                self._engine.prepare({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
        except MezzotintError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the engine for each request."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Free the engine."""
        self._engine.close()

    def _answer(self, request: Any) -> Any:
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            outputs = self._engine.run(inputs)
        except MezzotintError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        tensors = [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()]
        return pb_utils.InferenceResponse(tensors)
