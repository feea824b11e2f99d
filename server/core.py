"""The serving core of one bundle: requests in, events out. Knows no wire; front ends use it through ``submit`` alone.

Checking, tokenising, picture encoding and telling events run in a small executor, engines in the loop's thread: an
event told there would wake its stream, which then holds Python's lock while the next call could begin.
"""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from mezzotint.engines.batch import Batch
from mezzotint.engines.cpus import available_cpus
from mezzotint.engines.errors import Unavailable
from mezzotint.engines.image import Image
from mezzotint.engines.model import EngineKey, Model
from mezzotint.engines.picture import check_parameters
from mezzotint.engines.request import Request
from mezzotint.engines.rows import Curve
from mezzotint.engines.shapes import Uses
from mezzotint.engines.sizes import Size
from mezzotint.engines.variants import built_rows
from mezzotint.server.admission import check_priority
from mezzotint.server.config import CoreConfig
from mezzotint.server.costs import EngineCosts, later_size, size_of_image
from mezzotint.server.drain import too_late
from mezzotint.server.endings import cancelled, reason_of, report
from mezzotint.server.events import Accepted, Event, Failed, Finished, Progress
from mezzotint.server.flagged import without_previews
from mezzotint.server.forecast import Outlook
from mezzotint.server.handle import Handle
from mezzotint.server.job import ANYONE, Caller, Job, Worker
from mezzotint.server.learn import NOTHING, AskedSizes, Learning, Quiet, WarmUp
from mezzotint.server.loop import Loop, OnResult
from mezzotint.server.observer import Call, Observer, Watched
from mezzotint.server.pictures import Latents, PictureOptions, encode_preview, finish_picture, timings
from mezzotint.server.policy import POLICIES
from mezzotint.server.register import Register
from mezzotint.server.scheduler import Scheduler
from mezzotint.server.ticket import Departure, Outcome

_MAX_WORKERS = 4


class Core:
    """One bundle, served.

    Args:
        model: the bundle, loaded; the core closes it.
        config: its limits.
        on_result: hears in the loop's thread of every engine call's end, with its exception if it failed.
        clock: seconds, never going back; ``deadline`` is on it.
        observer: hears of engine calls, images that leave, and endings.
        quiet: shared by cores that share a host, so that they measure undisturbed.
    """

    def __init__(
        self,
        model: Model,
        config: CoreConfig,
        *,
        on_result: OnResult = lambda stage, failure, size: None,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer | None = None,
        quiet: Quiet | None = None,
    ) -> None:
        self.model = model
        self._observer = observer or Observer()
        self._on_flagged = config.on_flagged
        self._clock = clock
        self._priority_levels = config.priority_levels
        self._costs = EngineCosts(model.manifest)
        self._scheduler = Scheduler(
            max_rows=built_rows(model.manifest),
            max_queue_size=config.max_queue_size,
            max_started_images=config.max_started_images,
            policy=POLICIES[config.policy],
            costs=self._costs,
            row_cap=self._costs.max_rows,
            admit_late=config.admit_late,
        )
        engines = Watched(model, self._on_call, clock)
        self._loop = Loop(
            engines, self._scheduler, on_step=self._on_step, on_leave=self._on_leave, on_result=on_result, clock=clock
        )
        self._executor = ThreadPoolExecutor(min(_MAX_WORKERS, available_cpus()), f"mezzotint-{model.name}-worker")
        self._jobs: dict[Image, Job] = {}  # the loop thread's own, as is the outlook
        self._outlook: Outlook[Image] = Outlook(self._scheduler.forecast)
        self._open = Register()
        self._drained_by = math.inf
        self._asked = AskedSizes()
        quiet = quiet or Quiet()
        quiet.join(lambda: self._scheduler.idle)
        self._warm_up = WarmUp(model, self._loop.post, quiet, self._asked, self._learn)
        self._loop.start()

    def warm_up_rest(self, learning: Learning = NOTHING) -> None:
        """Prepare the engines' other row counts in a thread of its own, beside the requests; call it once.

        Then learn this host's step times between requests.
        """
        self._warm_up.start(learning)

    @property
    def num_open(self) -> int:
        """The requests that have not ended."""
        return len(self._open)

    @property
    def seconds_left(self) -> float:
        """The engine time that its requests still are, by prediction."""
        return self._scheduler.seconds_left(self._open.num_entering)

    @property
    def num_waiting(self) -> int:
        """The images that wait to be started; a request that is still being taken in counts as one."""
        return self._scheduler.num_waiting + self._open.num_entering

    @property
    def num_started(self) -> int:
        """The images in the making."""
        return self._scheduler.num_started

    @property
    def is_alive(self) -> bool:
        """Whether the loop's thread, without which no request ever ends, runs."""
        return self._loop.is_alive

    def cache_uses(self) -> Mapping[str, Uses]:
        """Return how often what the model kept was reused, by the cache's name."""
        return self.model.cache_uses()

    def submit(
        self,
        request: Request,
        *,
        request_id: str,
        on_event: Callable[[Event], None],
        picture: PictureOptions | None = None,
        deadline: float | None = None,
        caller: Caller = ANYONE,
    ) -> Handle:
        """Take a request in without waiting.

        ``on_event`` is called from other threads, the loop's too, and must not block: ``Accepted``, ``Progress`` and
        ``Picture``, and in any case exactly one ``Finished`` or ``Failed``, which is the last. The caller's toll may
        refuse the request's images, once they are known and before they wait.

        Raises:
            InvalidRequest: there is no such priority.
            QueueFull: the queue has no room.
            Unavailable: the server is stopping.
        """
        who = replace(caller, priority=check_priority(caller.priority, self._priority_levels))
        job = Job(request_id, request, picture or PictureOptions(), on_event, self._clock(), deadline, who)
        self._open.enter(job, Worker(self._executor, partial(self._give_up, job)), self._check_room)
        self._open.post(job, partial(self._enter, job))
        return Handle(job, self._loop.post, self._scheduler)

    def drain(self, timeout: float) -> bool:
        """Take no more requests and wait for those that are open; returns whether all of them have ended.

        Those that will not be done by then, as far as can be foreseen, end at once with ``Unavailable``.
        """
        self._drained_by = self._clock() + timeout
        self._open.close()
        self._loop.post(self._end_late)
        return self._open.wait(timeout)

    def close(self, why: str = "the server was stopped before the request was done; send it to another") -> None:
        """End what is still open with ``Unavailable``, whose sentence is ``why``, stop the thread, free the engines."""
        self._warm_up.stop()
        self._open.close()
        for job in self._open:
            self._end(job, Unavailable(why))
        self._loop.stop()
        for _ in range(len(self._jobs)):  # of each image that the loop has left behind
            self._jobs.popitem()
            self._observer.left(self.model.name, Outcome.CANCELLED)
        self._warm_up.join()
        self._executor.shutdown()
        self.model.close()

    # In the executor

    def _enter(self, job: Job) -> None:
        try:
            request, left_out = without_previews(job.request, self._on_flagged)
            images = self.model.start(request)
            check_parameters(request, job.picture.format)
            warnings = (*self.model.warnings(request), *left_out)
        except Exception:
            self._open.entered()
            raise
        self._loop.post(partial(self._admit, job, images, warnings))

    def _progress(self, job: Job, index: int, step: tuple[int, int], latents: Latents | None, finish: float) -> None:
        preview = None if latents is None else encode_preview(self.model, latents)
        job.emit(Progress(index, *step, preview, 1e3 * finish))

    def _deliver(self, job: Job, image: Image) -> None:
        if job.ended:
            return
        spent = timings((image,), arrival=job.arrival, started=job.started, now=self._clock())
        job.emit(finish_picture(self.model, image, job.picture, spent, self._on_flagged))
        job.num_undelivered -= 1
        if not job.num_undelivered:
            self._end(job, None)

    def _give_up(self, job: Job, error: Exception) -> None:
        """End a request one of whose pieces failed: its images take part in no further call."""
        if job.ticket is not None:
            self._loop.post(partial(self._scheduler.cancel, job.ticket))
        self._end(job, error)

    # In the loop's thread

    def _admit(self, job: Job, images: tuple[Image, ...], warnings: tuple[str, ...]) -> None:
        try:
            if job.cancelled:
                raise cancelled()
            who = job.caller
            with who.toll(images):
                ticket = self._scheduler.submit(
                    images, arrival=job.arrival, deadline=job.deadline, client=who.client, priority=who.priority
                )
        except Exception as error:
            self._end(job, error)
            return
        finally:
            self._open.entered()
        job.begin(ticket)
        for size in {size_of_image(images[0]), later_size(images[0])}:
            self._asked.note(size, len(images))
        self._jobs.update(dict.fromkeys(images, job))
        seeds = tuple(image.seed for image in images)
        when = (1e3 * seconds for seconds in self._outlook.of(images, self._clock()))
        accepted = Accepted(job.request_id, seeds, images[0].num_steps, ticket.position, warnings, *when)
        self._open.post(job, partial(job.emit, accepted))
        if self._open.closed:
            self._end_late()

    def _learn(self, key: EngineKey, size: Size, curve: Curve) -> None:
        """Let a curve of this host hold from the next call on."""
        self._costs.learn(key, size, curve)
        self.model.max_rows = self._costs.usual_max_rows()

    def _on_call(self, call: Call) -> None:
        for job in {self._jobs[image] for image in call.images}:
            job.called(call)
        self._observer.called(call)

    def _end_late(self) -> None:
        """End what a stopping server will not finish in time, so that its callers can go elsewhere now."""
        if not self._scheduler.knows_its_pace:
            return
        now = self._clock()
        for image in too_late(lambda: self._scheduler.forecast(now), self._drained_by - now):
            job = self._jobs[image]
            if job.ticket is not None:
                self._scheduler.cancel(job.ticket)
            self._end(job, Unavailable("the server is stopping and will not finish the request; send it to another"))

    def _on_step(self, batch: Batch) -> None:
        for image in batch.images:
            job = self._jobs[image]
            if job.stepped(image):
                finish = self._outlook.of((image,), self._clock()).finish
                step = image.step, image.num_steps
                self._open.post(job, partial(self._progress, job, image.index, step, image.preview, finish))

    def _on_leave(self, departure: Departure, failure: Exception | None) -> None:
        image = departure.image
        job = self._jobs.pop(image)
        self._observer.left(self.model.name, departure.outcome)
        if image.flagged:
            self._observer.flagged(self.model.name)
        if departure.outcome is Outcome.FINISHED:
            self._open.post(job, partial(self._deliver, job, image))
            return
        self._scheduler.cancel(departure.ticket)  # a request ends as a whole
        self._end(job, reason_of(departure, job, failure))

    # In any thread

    def _check_room(self, num_entering: int) -> None:
        if self._open.closed:
            raise Unavailable(f"model {self.model.name}: the server is stopping; send the request to another")
        if not self._scheduler.can_submit(num_entering):
            raise self._scheduler.queue_full(num_entering)

    def _end(self, job: Job, error: Exception | None) -> None:
        """Write a request's line in the log and tell its caller the ending, unless it has ended."""
        if not job.claim_ending():
            return
        report(self._observer, self.model.name, job, self._clock(), error)
        self._open.leave(job)
        job.tell(Finished() if error is None else Failed(error))
