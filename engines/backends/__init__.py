"""The runtime libraries, one file each; listing them imports none of them."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator

from mezzotint.engines.backend import Backend
from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.tensorrt_flavour import FLAVOURS

_LIBRARIES = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "tensorrt": FLAVOURS,  # one API; either will do
    "triton": (),  # what it needs depends on the device: it asks itself
}
_EXTRA = {"openvino": "serve", "onnxruntime": "ort", "tensorrt": "tensorrt"}

BACKENDS = tuple(_LIBRARIES)


def get_backend(name: str) -> Backend:
    """Return a backend by name. Raises BundleError where it is unknown or its library is not installed."""
    if name not in _LIBRARIES:
        raise BundleError(f"backend {name!r}: must be one of {', '.join(BACKENDS)}")
    libraries = _LIBRARIES[name]
    if libraries and all(importlib.util.find_spec(library) is None for library in libraries):
        missing = " or ".join(libraries)
        raise BundleError(f"backend {name}: {missing} is not installed; `pip install 'mezzotint[{_EXTRA[name]}]'`")
    # OpenVINO's package reports its use over the network unless this one is missing, and forks to do so.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    with _without("openvino.tools.ovc"):  # the converter, whose import takes as long as the rest of the package
        module = importlib.import_module(f"mezzotint.engines.backends.{name}")
    backend: Backend = module.BACKEND
    return backend


def installed_version(entry: EngineEntry) -> str:
    """Return the installed version of what an engine was built for. Raises BundleError where that is not installed."""
    return get_backend(entry.backend).version(entry.flavour)


def check_runtime(bundle: str, entry: EngineEntry) -> None:
    """Compare the version that an engine was built for with the one that is installed. Raises BundleError."""
    installed = installed_version(entry)
    if installed != entry.backend_version:
        raise BundleError(
            f"bundle {bundle}: {entry.component} was built for {entry.flavour or entry.backend} "
            f"{entry.backend_version}, but {installed} is installed; install that version or compile the bundle again"
        )


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Let imports inside find no ``module``, unless it has been imported before."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
