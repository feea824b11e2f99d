"""Our metrics on Triton's metrics port: what ``server/metrics.py`` counts of engine calls, under the same names."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import triton_python_backend_utils as pb_utils

from mezzotint.engines.image import Stage
from mezzotint.server.metrics import ROW_BUCKETS
from mezzotint.server.observer import Call, Observer


class Counts(Observer):
    """What a model has done; counted in a thread of its own, since Triton keeps the numbers in another process.

    Triton 2.51 has one number for all that count under the same name and labels, and frees it with the first of them
    (https://github.com/triton-inference-server/server/issues/8663): a model that is loaded again while the old one's
    process ends would count in freed memory. So what was made here is never given back, and goes on over reloads.
    """

    def __init__(self) -> None:
        made = pb_utils.MetricFamily
        self._busy = made("mezzotint_engine_seconds_total", "Seconds that engines ran.", made.COUNTER)
        self._rows = made("mezzotint_step_rows", "Rows of a UNet call.", made.HISTOGRAM)
        self._images = made("mezzotint_images_total", "Images that left, by how.", made.COUNTER)
        self._found: dict[tuple[str, ...], Any] = {}
        self._thread = ThreadPoolExecutor(1, "mezzotint-counts")

    def called(self, call: Call) -> None:
        """Count an engine call's seconds, and a UNet call's rows."""
        self._thread.submit(self._called, call)

    def left(self, model: str, outcome: str) -> None:
        """Count an image."""
        self._thread.submit(self._left, model, outcome)

    def close(self) -> None:
        """Count what has happened, and no more."""
        self._thread.shutdown()
        for family in (self._busy, self._rows, self._images):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(family))  # it has its metrics, and its end would be theirs

    def _called(self, call: Call) -> None:
        self._metric(self._busy, model=call.model, stage=call.stage).increment(call.ended - call.began)
        if call.stage is Stage.DENOISE:
            rows = self._metric(
                self._rows, [float(rows) for rows in ROW_BUCKETS], model=call.model, variant=call.variant
            )
            rows.observe(call.num_rows)

    def _left(self, model: str, outcome: str) -> None:
        self._metric(self._images, model=model, outcome=outcome).increment(1)

    def _metric(self, family: Any, buckets: list[float] | None = None, **labels: str) -> Any:
        key = (str(id(family)), *labels.values())
        if key not in self._found:
            texts = {name: str(value) for name, value in labels.items()}
            self._found[key] = family.Metric(labels=texts, **({"buckets": buckets} if buckets else {}))
        return self._found[key]
