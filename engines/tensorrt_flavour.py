"""Which of the two libraries is TensorRT here: ``tensorrt``, or ``tensorrt_rtx``, which has the same API.

A plan loads in the flavour and version that built it alone, so manifests name both. Imports neither until asked.
"""

import importlib
import importlib.util
from typing import Any

from mezzotint.engines.errors import BundleError

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
FLAVOURS = (TENSORRT, RTX)
"""In the order in which they are taken where both are installed."""


def find_flavour(wanted: str = "") -> tuple[str, Any]:
    """Return the name and the module of a flavour, or of the first that is installed. Raises BundleError."""
    installed = [name for name in FLAVOURS if importlib.util.find_spec(name) is not None]
    if not installed:
        raise BundleError(
            "backend tensorrt: neither tensorrt nor tensorrt_rtx is installed; `pip install 'mezzotint[tensorrt]'`"
        )
    if wanted and wanted not in installed:
        raise BundleError(
            f"backend tensorrt: {wanted} is not installed, found {', '.join(installed)}; plans load in the flavour "
            "that built them alone, so install it or build the bundle again"
        )
    name = wanted or installed[0]
    return name, importlib.import_module(name)
