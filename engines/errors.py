"""Every error that Mezzotint raises on purpose: one root, leaves of one sentence.

A message says what, what it got, what it expected and what to do. The table from class to gRPC status is in
``server/status.py``, the one to exit code in ``src/mezzotint/cli``. Imports nothing.
"""


def first_line(said: object) -> str:
    """Return the first line of what a library's error says."""
    return _lines(said)[0]


def last_line(said: object) -> str:
    """Return the last line of what a library's error says, which with tracebacks is the reason."""
    return _lines(said)[-1]


def _lines(said: object) -> list[str]:
    return str(said).strip().splitlines() or ["it gave no reason"]


class MezzotintError(Exception):
    """The root of all errors that a user can cause or mend; its text is one sentence."""


class InvalidRequest(MezzotintError):
    """A request's own fields are wrong, whatever the server's state; it never reaches an engine."""


class ModelNotFound(MezzotintError):
    """No bundle of that name is served."""


class ShapeNotCompiled(MezzotintError):
    """The request is well-formed but no engine of the bundle was built for its size."""


class RequestIdTaken(MezzotintError):
    """Another request of that id is running."""


class Unsupported(MezzotintError):
    """What was asked for is no part of this server, whatever the request's fields say."""


class QueueFull(MezzotintError):
    """The server is at its limit; try again after ``retry_after_ms``."""

    def __init__(self, message: str, *, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class RateLimited(QueueFull):
    """The client has used its own rate up; it may try again after ``retry_after_ms``."""


class Unauthenticated(MezzotintError):
    """The call came without a token that the server knows."""


class DeadlineTooSoon(QueueFull):
    """The request's deadline would pass before those are done who are here."""


class NotTaken(MezzotintError):
    """The client did not take its pictures for too long."""


class DeadlineExpired(MezzotintError):
    """The request's deadline passed before its last step."""


class Cancelled(MezzotintError):
    """The client went away or took the request back."""


class Unavailable(MezzotintError):
    """The server is loading, draining or unhealthy."""


class NotAllowed(MezzotintError):
    """The client is known, but may not do that."""


class EngineFailed(MezzotintError):
    """A compiled engine failed while running; the log has the traceback."""


class FlaggedPicture(MezzotintError):
    """The safety checker flagged a picture, and the server gives no such pictures."""


class BundleError(MezzotintError):
    """A bundle is missing, damaged, or made for another runtime."""


class EmbeddingError(BundleError):
    """A textual-inversion file cannot be read, or does not fit the bundle it is loaded with."""


class OverMemoryBudget(BundleError):
    """A bundle has no room in the memory budget, whatever idle ones leave; the message names bytes needed and had.

    It may have room after ``retry_after_ms``, when others are idle; None where nothing is foreseen to become so.
    """

    retry_after_ms: int | None = None


class LoadingOff(MezzotintError):
    """The server was not told from where it may load bundles."""


class CredentialsError(MezzotintError):
    """A certificate, a key or a file of tokens is missing or cannot be used."""


class DeviceNotFound(MezzotintError):
    """The device or execution provider asked for is not on this machine; the message names those that are."""


class CheckpointError(MezzotintError):
    """A checkpoint cannot be read: a file is missing, truncated, of an unknown class or holds NaN."""


class CompileError(MezzotintError):
    """A compile stage failed; nothing was written."""


class VerifyError(CompileError):
    """A built engine strays from the reference beyond its tolerance; the bundle was not written."""


class TrainError(MezzotintError):
    """A training run cannot start or go on: its pictures, its model, its machine or its loss."""


class TrainConfigError(TrainError):
    """An option of a training run is unknown, or its value cannot be used."""


class TrainingStopped(TrainError):
    """A training run was told to stop, and has saved itself; it can go on from there."""
