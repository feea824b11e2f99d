"""The engine loop: the only thread that runs a model's engines and the only one that calls its scheduler."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from mezzotint.engines import guidance
from mezzotint.engines.batch import Batch
from mezzotint.engines.errors import EngineFailed
from mezzotint.engines.image import Stage
from mezzotint.server.observer import Engines
from mezzotint.server.scheduler import Scheduler
from mezzotint.server.ticket import Departure

logger = logging.getLogger(__name__)

Command: TypeAlias = Callable[[], None]
OnResult: TypeAlias = Callable[[Stage, Exception | None, tuple[int, int] | None], None]


class Loop:
    """One thread that makes one engine call after the other.

    Args:
        model: whose engines to run.
        scheduler: chooses the images of each call.
        on_step: hears of every denoising call that is done.
        on_leave: hears of every image that left, with the exception of the call that failed, if one did.
        on_result: hears of every call's end, after the images that it ended, with its exception if it failed, and of
            the size of its latents; of one that failed when it was shared, and again alone, it hears once.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        model: Engines,
        scheduler: Scheduler,
        *,
        on_step: Callable[[Batch], None],
        on_leave: Callable[[Departure, Exception | None], None],
        on_result: OnResult = lambda stage, failure, size: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._scheduler = scheduler
        self._on_step = on_step
        self._on_leave = on_leave
        self._on_result = on_result
        self._clock = clock
        self._inbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._calls = {Stage.ENCODE: self._encode, Stage.DENOISE: self._denoise, Stage.DECODE: self._decode}
        self._thread = threading.Thread(target=self._run, name=f"mezzotint-{model.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def post(self, command: Command) -> None:
        """Have the thread carry ``command`` out before its next call; the way to the scheduler from other threads."""
        self._inbox.put(command)

    def stop(self) -> None:
        """Stop after the call that is running, and wait for that."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                command = self._inbox.get(block=self._scheduler.idle)
            except queue.Empty:
                self._turn()
                continue
            if command is None:
                return
            command()

    def _turn(self) -> None:
        """Make one call and report it; a call that fails fails its own images at most, and the loop lives on."""
        now = self._clock()
        failure: Exception | None = None
        self._scheduler.drop(now)
        stage = self._scheduler.next_stage(now)
        if stage is not None:
            try:
                self._calls[stage](now)
            except Exception as error:
                logger.error("the %s call of %s failed: %r", stage, self._model.name, error)
                self._scheduler.fail(unchanged=isinstance(error, EngineFailed))
                failure = error
        for departure in self._scheduler.departures():
            self._on_leave(departure, failure)
        if stage is not None and not (failure and self._scheduler.is_repeated):  # which the shared call's stands for
            self._on_result(stage, failure, self._scheduler.last_size)

    def _denoise(self, now: float) -> None:
        scheduler, model, clock = self._scheduler, self._model, self._clock
        batch = scheduler.next_batch(now)  # images, each at its own step, whose next call has one signature
        output = model.denoise(batch)  # one engine call: rows at different timesteps, prompts, samplers
        guided = guidance.combine(output, batch.weights)  # each image's rows, weighted and summed
        batch.advance(guided)  # each image's own sampler plan; one expression over all images
        scheduler.settle(batch, clock())  # finished, cancelled and expired images leave; others may join
        self._on_step(batch)

    def _encode(self, now: float) -> None:
        batch = self._scheduler.next_batch(now)
        self._model.encode(batch)
        self._scheduler.settle(batch, self._clock())

    def _decode(self, now: float) -> None:
        batch = self._scheduler.next_batch(now)
        self._model.decode(batch)
        self._scheduler.settle(batch, self._clock())
