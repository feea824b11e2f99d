"""Serve's request router by predicted queue time. Runs in every proxy; imports Ray, and Ray imports it by name."""

import time
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from mezzotint.server.ray.door import ROWS
from mezzotint.server.ray.loads import Loads


class QueueTimeRouter(RequestRouter):
    """Sends a request where it will be done first; one whose id runs already goes where that runs."""

    def initialize_state(self, **_: Any) -> None:
        """Begin knowing nothing."""
        self._loads: Loads[ReplicaID] = Loads(time.monotonic)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas, the best first and each alone, so that the next is asked only where one is full."""
        by_id = {replica.replica_id: replica for replica in candidate_replicas}
        for replica_id, replica in by_id.items():
            self._loads.hear(replica_id, replica.routing_stats)
        request_id, rows = _said(pending_request)
        order = self._loads.order(by_id, request_id, rows)
        if pending_request is not None and order:  # at once: others may be chosen for before this one is on its way
            self._loads.send(pending_request.metadata.internal_request_id, order[0], request_id, rows)
        return [[by_id[replica_id]] for replica_id in order]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """Note where a request went."""
        self._loads.send(pending_request.metadata.internal_request_id, replica_id, *_said(pending_request))

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Note that a request is over."""
        self._loads.end(internal_request_id)


def _said(pending: PendingRequest | None) -> tuple[str, int]:
    """Return a request's id and rows as the door noted them; calls that are not for pictures have neither."""
    context = pending.metadata.grpc_context if pending is not None else None
    rows = dict(context.invocation_metadata()).get(ROWS) if context is not None else None
    return ("", 0) if pending is None or rows is None else (pending.metadata.request_id, int(rows))
