"""What bundles are compared by: the same calls to two engines, and the same pictures of two models."""

from pathlib import Path

import numpy as np
import pytest

from mezzotint.engines.backends import get_backend
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.device import to_host
from mezzotint.engines.errors import MezzotintError
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.timing import call_times, distinct_rows

REQUESTS = [
    Request(prompt="a cat face", steps=8, guidance=4.0, seed=1, sampler="dpmpp_2m", return_latents=True),
    Request(prompt="a shark on a blue background", steps=8, guidance=4.0, seed=7, sampler="euler_a"),
]


def need_library(backend: str) -> None:
    """Skip with the sentence that says what is not installed."""
    try:
        get_backend(backend)
    except MezzotintError as error:
        pytest.skip(str(error))


def opened(bundle: Path, device: str = "") -> Model:
    """Open a bundle on a device."""
    return open_bundle(bundle, LoadOptions(devices={"": device}, cache=False))


def assert_engines_agree(ours: Model, reference: Model, snr_db: float) -> None:
    """Compare the outputs of all engines that both have, by their signal-to-noise ratio."""
    for key, engine in ours.engines.items():
        inputs = distinct_rows(engine.spec, 2)
        found, expected = engine.run(inputs), reference.engines[key].run(inputs)
        for name, truth in expected.items():
            wanted, got = to_host(truth).astype(np.float64), to_host(found[name])
            measured = 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - got) ** 2))
            assert measured > snr_db, f"{key}: {name} has {measured:.1f} dB"


def assert_pictures_agree(ours: Model, reference: Model, levels: float) -> None:
    """Compare whole pictures, by the mean difference of their 256 levels."""
    for found, expected in zip(generate(ours, REQUESTS), generate(reference, REQUESTS), strict=True):
        for a, b in zip(found, expected, strict=True):
            assert a.pixels is not None
            assert b.pixels is not None
            assert np.abs(a.pixels.astype(int) - b.pixels).mean() < levels


def step_times(model: Model) -> list[str]:
    """Return a line of milliseconds for each engine, at one to eight rows a call."""
    lines = []
    for (component, variant), engine in model.engines.items():
        found = {rows: call_times({"": engine}, distinct_rows(engine.spec, rows))[""] for rows in (1, 2, 4, 8)}
        times = ", ".join(f"{rows} rows {np.median(ms):.2f} ms" for rows, ms in found.items())
        lines.append(f"{component} {variant} on {engine.device}: {times}")
    return lines
