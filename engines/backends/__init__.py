"""The runtime libraries, one file each; listing them imports none of them."""

import importlib
import importlib.util
import sys

from mezzotint.engines.backend import Backend
from mezzotint.engines.errors import BundleError

_LIBRARY = {"openvino": "openvino", "onnxruntime": "onnxruntime"}
_EXTRA = {"openvino": "serve", "onnxruntime": "ort"}

BACKENDS = tuple(_LIBRARY)


def get_backend(name: str) -> Backend:
    """Return a backend by name. Raises BundleError where it is unknown or its library is not installed."""
    if name not in _LIBRARY:
        raise BundleError(f"backend {name!r}: must be one of {', '.join(BACKENDS)}")
    if importlib.util.find_spec(_LIBRARY[name]) is None:
        raise BundleError(
            f"backend {name}: {_LIBRARY[name]} is not installed; `pip install 'mezzotint[{_EXTRA[name]}]'`"
        )
    # OpenVINO's package reports its use over the network unless this one is missing, and forks to do so.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    module = importlib.import_module(f"mezzotint.engines.backends.{name}")
    backend: Backend = module.BACKEND
    return backend
