"""From an exception to a sentence on stderr and an exit code; the one table of exit codes.

What is not in the table is a fault of ours and keeps its traceback.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import click

from mezzotint.engines import errors

INTERRUPTED = 130
NOT_INSTALLED = 3
STOPPED = 143  # as a shell says that SIGTERM ended a process

EXIT_CODES: Mapping[type[errors.MezzotintError], int] = MappingProxyType(
    {
        errors.MezzotintError: 1,
        errors.InvalidRequest: 2,
        errors.ModelNotFound: 2,
        errors.ShapeNotCompiled: 2,
        errors.RequestIdTaken: 2,
        errors.BundleError: 3,
        errors.CheckpointError: 3,
        errors.CredentialsError: 3,
        errors.DeviceNotFound: 3,
        errors.CompileError: 4,
        errors.TrainConfigError: 2,
        errors.TrainError: 4,
        errors.Unauthenticated: 5,
        errors.QueueFull: 5,
        errors.DeadlineExpired: 5,
        errors.Cancelled: 5,
        errors.Unavailable: 5,
        errors.FlaggedPicture: 5,
        errors.EngineFailed: 5,
        errors.TrainingStopped: STOPPED,
    }
)
"""An error's code is that of the nearest class above it; click's own usage errors exit with 2 as well."""

STATUS_EXIT_CODES: Mapping[str, int] = MappingProxyType(
    {"INVALID_ARGUMENT": 2, "NOT_FOUND": 2, "FAILED_PRECONDITION": 2, "ALREADY_EXISTS": 2, "OUT_OF_RANGE": 2}
)
"""The same for what a server answers, by gRPC status; any other status is 5."""


class Refused(Exception):
    """A server is away, or refused a request or failed at it; the code is its status's."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.exit_code = STATUS_EXIT_CODES.get(status, EXIT_CODES[errors.Unavailable])


class CannotWrite(Exception):
    """The result could not be written."""

    exit_code = 6

    def __init__(self, path: str | os.PathLike[str], error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        super().__init__(
            f"{click.format_filename(os.fspath(path))}: cannot be written ({reason}); choose another place or make room"
        )


def exit_code(error: errors.MezzotintError) -> int:
    """Return the exit code of an error's class, or of the nearest one above it."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; intended errors are one sentence on stderr."""
    try:
        code = command.main(list(arguments), prog_name="mezzotint", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return say(error.format_message(), error.exit_code)
    except (Refused, CannotWrite) as error:
        return say(str(error), error.exit_code)
    except errors.MezzotintError as error:
        return say(str(error), exit_code(error))
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout went away; without this the interpreter complains once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def say(sentence: str, code: int) -> int:
    """Say a sentence on stderr, and return the exit code that goes with it."""
    printable = sentence.encode("utf-8", "backslashreplace").decode("utf-8")
    click.echo(f"mezzotint: {printable}", err=True)
    return code
