"""Several engine loops behind one bundle's name: a request goes to the one that has least to do, and stays there."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mezzotint.engines.backends import get_backend
from mezzotint.engines.bundle import LoadOptions, served_entries
from mezzotint.engines.component import Component
from mezzotint.engines.cpus import available_cpus
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.model import Model
from mezzotint.server.cache_uses import OfCaches, total
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.handle import Handle


def instance_options(load: LoadOptions, config: CoreConfig) -> tuple[LoadOptions, ...]:
    """Return how each instance is loaded: on a device of its own where the config says so, and its share of threads.

    Instances on one device share the threads; those of a device other than the CPU hardly need any.
    """
    devices = config.devices or (load.devices,) * config.instances
    if len(devices) == 1:
        return (replace(load, devices=devices[0]),)
    each = [replace(load, devices=device) for device in devices]
    places = [options.device_of(Component.UNET).lower() for options in each]
    threads = load.num_threads or available_cpus()
    return tuple(
        replace(options, num_threads=max(1, threads // places.count(place)))
        for options, place in zip(each, places, strict=True)
    )


def check_devices(manifest: Manifest, loads: Sequence[LoadOptions]) -> None:
    """Check that every device is there before an engine is loaded on any. Raises BundleError, DeviceNotFound."""
    for options in loads:
        for entry in served_entries(manifest):
            if name := options.device_of(entry.component):
                get_backend(entry.backend).precisions(name)


class Instances:
    """Cores of one bundle that share its host, each with engines, arrays and a thread of its own.

    They have no state in common, and together they are used as one core is.
    """

    def __init__(self, cores: Sequence[Core]) -> None:
        self._cores = tuple(cores)

    @property
    def model(self) -> Model:
        """The bundle, loaded; all have the same."""
        return self._cores[0].model

    @property
    def num_open(self) -> int:
        """The requests that have not ended."""
        return sum(core.num_open for core in self._cores)

    @property
    def num_waiting(self) -> int:
        """The images that wait to be started."""
        return sum(core.num_waiting for core in self._cores)

    @property
    def num_started(self) -> int:
        """The images in the making."""
        return sum(core.num_started for core in self._cores)

    @property
    def seconds_left(self) -> float:
        """The engine time that the requests still are of the core that has least, by prediction."""
        return min(core.seconds_left for core in self._cores)

    @property
    def is_alive(self) -> bool:
        """Whether all of the loops' threads run."""
        return all(core.is_alive for core in self._cores)

    def cache_uses(self) -> OfCaches:
        """Return how often what the models kept was reused, by the cache's name, over all of them."""
        return total(core.cache_uses() for core in self._cores)

    def submit(self, request: Any, **options: Any) -> Handle:
        """Take a request in where it waits least by prediction. Takes and raises what ``Core.submit`` does."""
        return self._least_busy().submit(request, **options)

    def drain(self, timeout: float) -> bool:
        """Take no more requests and wait for those that are open; returns whether all of them have ended."""
        return all(self._all(lambda core: core.drain(timeout)))

    def close(self, *reason: str) -> None:
        """End what is still open, and free the engines."""
        self._all(lambda core: core.close(*reason))

    def _all(self, act: Callable[[Core], Any]) -> list[Any]:
        with ThreadPoolExecutor(len(self._cores)) as pool:
            return list(pool.map(act, self._cores))

    def _least_busy(self) -> Core:
        """Return the core with the fewest seconds of work; with the fewest requests, where one's are not known yet."""
        work = {core: (core.seconds_left, core.num_open) for core in self._cores}
        if any(num_open and not seconds for seconds, num_open in work.values()):
            return min(work, key=lambda core: work[core][1])
        return min(work, key=work.__getitem__)
