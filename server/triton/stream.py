"""The model that streams: our core inside a process of Triton's python backend, answering steps and then pictures.

All of Triton's concurrent requests come to the one core, so that they share denoising steps.
"""

import faulthandler
import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from mezzotint.engines.errors import MezzotintError, Unavailable
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.memory import give_back
from mezzotint.engines.remote import INSIDE
from mezzotint.server import logs
from mezzotint.server.app import load_core
from mezzotint.server.convert import id_or_fresh
from mezzotint.server.core import Core
from mezzotint.server.events import Event, Failed, Finished, Picture, Progress
from mezzotint.server.joins import Handle
from mezzotint.server.kserve.tensors import Asked, picture_outputs, progress_outputs, read_inputs
from mezzotint.server.triton.answer import Answer, own_array
from mezzotint.server.triton.counts import Counts
from mezzotint.server.triton.layout import BUNDLE
from mezzotint.server.triton.settings import read_settings
from mezzotint.server.triton.watch import Watch
from mezzotint.server.triton.wording import TAKE_BACK, TICKET

_DRAIN_SECONDS = 30.0


class StreamModel:
    """A decoupled model of the python backend."""

    _core: Core | None = None

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle beside ``model.py`` and start its loop; see ``_opened`` for when that is done later."""
        faulthandler.enable()
        logs.set_up("info", "text")
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        folder = Path(args["model_repository"]) / args["model_version"] / BUNDLE
        parameters = json.loads(args["model_config"])["parameters"]
        self._counts = Counts()
        self._tickets: dict[str, Taken] = {}
        self._watch = Watch()
        try:
            settings = read_settings({name: value["string_value"] for name, value in parameters.items()})
            calls_models = any(entry.device == INSIDE for entry in read_manifest(folder).engines)
            # unloading must not meet a call that measures
            load = replace(settings.load, cache=not calls_models, embeddings=settings.embeddings(folder.parent))
            self._load = partial(load_core, folder, load, settings.core, observer=self._counts)
            self._core = None if calls_models else self._load()
        except MezzotintError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def execute(self, requests: list[Any]) -> None:
        """Take requests in; they are answered from other threads."""
        for request in requests:
            taken = Taken(request, id_or_fresh(request.request_id()), self._tickets)
            try:
                self._take(request, taken)
            except Exception as error:
                taken.answer.fail(error)

    def finalize(self) -> None:
        """Finish what was taken in, and free the engines."""
        if self._core is not None:
            self._core.drain(_DRAIN_SECONDS)
            self._core.close()
        self._watch.close()
        self._counts.close()
        vars(self).clear()  # an object of Triton's that is freed as the process ends crashes it
        give_back()

    def _opened(self) -> Core:
        """Return the core, loaded for the first request where its engines are other models of this Triton.

        Triton lets no model call others, nor ask for them, before it has started.
        """
        if self._core is None:
            try:
                self._core = self._load()
            except MezzotintError as error:
                raise Unavailable(f"the bundle cannot be loaded: {error}") from error
        return self._core

    def _take(self, request: Any, taken: "Taken") -> None:
        now, timeout_us = time.monotonic(), request.timeout()
        parameters = json.loads(request.parameters() or "{}")
        if TAKE_BACK in parameters:
            other = self._tickets.get(parameters[TAKE_BACK])
            if other is not None:
                other.take_back()
            taken.answer.end()
            return
        taken.name(parameters.get(TICKET, ""))
        inputs = {tensor.name(): own_array(tensor) for tensor in request.inputs()}
        taken.asked = read_inputs(inputs, request.requested_output_names(), decoupled=True)
        taken.handle = self._opened().submit(
            taken.asked.request,
            request_id=taken.answer.request_id,
            on_event=taken.hear,
            picture=taken.asked.picture,
            deadline=now + timeout_us / 1e6 if timeout_us else None,
        )
        self._watch.add(taken.answer)


class Taken:
    """A request that the core may have."""

    asked: Asked
    handle: Handle | None = None

    def __init__(self, request: Any, request_id: str, tickets: "dict[str, Taken]") -> None:
        self.answer = Answer(request, request_id, self.take_back, self._forget)
        self._tickets = tickets
        self._ticket = ""

    def name(self, ticket: str) -> None:
        """Let it be taken back by its ticket, if it has one."""
        if ticket:
            self._ticket, self.answer.for_twin = ticket, True
            self._tickets[ticket] = self

    def take_back(self) -> None:
        """Have it end before its next step."""
        if self.handle is not None:
            self.handle.cancel()

    def hear(self, event: Event) -> None:
        """Answer with what the core says."""
        wanted = self.asked.outputs
        match event:
            case Progress() if self.asked.wants_progress:
                self.answer.send(progress_outputs(event, wanted))
            case Picture():
                self.answer.send(picture_outputs([event], wanted))
            case Finished():
                self.answer.end()
            case Failed():
                self.answer.fail(event.error)

    def _forget(self) -> None:
        self._tickets.pop(self._ticket, None)
