"""Options that belong together, as one decorator."""

from collections.abc import Callable
from typing import Any

Command = Callable[..., Any]
Option = Callable[[Command], Command]


def option_group(*options: Option) -> Option:
    """Return a decorator that adds options to a command, in the order of its help."""

    def decorated(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated
