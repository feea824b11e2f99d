"""``mezzotint top``: what a server does now, from its metrics, in a terminal."""

import contextlib
import importlib.util
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

import click
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mezzotint.cli.scrape import Between, Snapshot, metrics_url, read
from mezzotint.engines.errors import MezzotintError, Unavailable

_WINDOW_SECONDS = 60.0
_WIDE = 120  # columns of a frame that is not shown on a terminal
_NOTHING = "–"
_EPILOG = """\b
Examples:
  mezzotint top
  mezzotint top gpu-box:8002 --interval 5
  mezzotint top --once | tee before.txt
"""


@click.command(epilog=_EPILOG)
@click.argument("url", metavar="[URL]", default="localhost:8002")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks; rates are those of the last minute, whatever it is.",
)
@click.option(
    "--once",
    is_flag=True,
    help="Print one frame, of all the time since the server started, and end: for pipes and reports. So it is wherever "
    "the output is no terminal.",
)
def command(url: str, interval: float, once: bool) -> None:
    """Watch a server at its metrics port: pictures running and waiting, rows a call, times of steps, memory, by model.

    Use it to see at a glance whether a server is busy, what requests wait for, and whether calls are shared; Prometheus
    and the dashboard in docs/ are for longer than a terminal is open. URL is HOST:PORT of `serve --metrics-port`. Press
    q or Ctrl-C to end.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise MezzotintError("top needs prometheus-client, which is missing; run `pip install 'mezzotint[serve]'`")
    address = metrics_url(url)
    console = Console(highlight=False)
    first = read(address, time.time())
    if not once and console.is_terminal:
        _watch(console, address, first, interval)
        return
    console = console if console.is_terminal else Console(highlight=False, width=_WIDE)
    console.print(frame(address, Between(None, first)))


def frame(address: str, between: Between, lost: str = "") -> Group:
    """Return what one look shows; ``lost`` is why the server does not answer any more."""
    now = between.after
    since = "since it started" if between.before is None else f"in the last {between.seconds:.0f} s"
    memory, files = now.total("process_resident_memory_bytes"), now.total("process_open_fds")
    version = ", ".join(now.values("mezzotint_build_info", "version"))
    lines = [
        f"[bold]mezzotint {escape(version)}[/] at {escape(address)}, {since}",
        f"memory {memory / 2**20:,.0f} MiB, {files:.0f} open files" if memory else "memory unknown",
    ]
    if lost:
        lines.append(f"[red]{escape(lost)}[/]")
    return Group(*(Text.from_markup(line) for line in lines), _models(between), _refusals(between))


def _models(between: Between) -> Table:
    names = ("running", "waiting", "images/min", "rows/call", "step ms", "p95", "queue s", "p95", "busy")
    table = Table("model", box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, justify="right")
    minutes = between.seconds / 60
    for model in between.after.values("mezzotint_images_waiting", "model"):
        at = {"model": model}
        steps, queue = "mezzotint_step_seconds", "mezzotint_queue_seconds"
        finished = between.more("mezzotint_images_total", outcome="finished", **at)
        busy = between.more("mezzotint_engine_seconds_total", **at)
        table.add_row(
            escape(model),
            f"{between.after.total('mezzotint_images_started', **at):.0f}",
            f"{between.after.total('mezzotint_images_waiting', **at):.0f}",
            f"{finished / minutes:.1f}" if minutes else _NOTHING,
            _number(between.mean("mezzotint_step_rows", **at), "{:.2f}"),
            _number(between.mean(steps, **at), "{:.1f}", 1e3),
            _number(between.quantile(0.95, steps, **at), "{:.1f}", 1e3),
            _number(between.mean(queue, **at), "{:.2f}"),
            _number(between.quantile(0.95, queue, **at), "{:.2f}"),
            f"{busy / between.seconds:.0%}" if between.seconds else _NOTHING,
        )
    return table


def _refusals(between: Between) -> Text:
    name = "mezzotint_requests_total"
    codes = {code: between.more(name, code=code) for code in between.after.values(name, "code")}
    text = ", ".join(f"{number:.0f} {code}" for code, number in codes.items() if number)
    return Text(f"requests: {text or 'none'}")


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return _NOTHING if value is None else form.format(value * factor)


def _watch(console: Console, address: str, first: Snapshot, interval: float) -> None:
    """Show one frame after the other until q or Ctrl-C; a server that is away may come back."""
    seen = deque([first])
    lost = ""
    with (
        contextlib.suppress(KeyboardInterrupt),
        _keys() as pressed_q,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            earlier = seen[0] if len(seen) > 1 else None
            live.update(frame(address, Between(earlier, seen[-1]), lost), refresh=True)
            if pressed_q(interval):
                return
            try:
                seen.append(read(address, time.time()))
                lost = ""
            except Unavailable as error:
                lost = str(error)
            while seen[-1].at - seen[0].at > _WINDOW_SECONDS and len(seen) > 2:
                seen.popleft()


def _only_wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Give a function that waits so many seconds and returns whether q was pressed meanwhile."""
    try:
        import termios
        import tty
    except ImportError:  # a system without terminals of that kind
        yield _only_wait
        return
    try:
        before = termios.tcgetattr(sys.stdin)
    except (OSError, ValueError, termios.error):  # not a terminal
        yield _only_wait
        return
    try:
        tty.setcbreak(sys.stdin)
        yield lambda seconds: bool(select.select([sys.stdin], [], [], seconds)[0]) and sys.stdin.read(1) in "qQ"
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
