"""``mezzotint demo``: serve a bundle, paint one picture of it, stop the server. What ``make demo`` runs."""

import shlex
import subprocess
import sys
from pathlib import Path

import click

from mezzotint.cli.serve import READY
from mezzotint.engines.errors import Unavailable

_STOP_SECONDS = 60
_REQUEST = ("--steps", "25", "--guidance", "4", "--seed", "7", "--sampler", "dpmpp_2m")


@click.command(hidden=True)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default="shark.png", help="The picture's file.")
@click.option("--prompt", default="a shark on a blue background", help="What to paint.")
def command(bundle: Path, output: Path, prompt: str) -> None:
    """Serve BUNDLE on a free port, generate one picture, and stop the server, whatever happens."""
    server = subprocess.Popen(
        _said("serve", str(bundle), "--port", "0", "--no-metrics"), stdout=subprocess.PIPE, text=True
    )
    try:
        address = _address(server)
        generate = _said("generate", prompt, "--server", address, *_REQUEST, "-o", str(output))
        code = subprocess.run(generate, check=False).returncode
    finally:
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    if code:
        sys.exit(code)


def _said(*arguments: str) -> list[str]:
    """Show a command as one would type it, and return how to run it."""
    click.echo(f"$ mezzotint {shlex.join(arguments)}")
    return [sys.executable, "-m", "mezzotint", *arguments]


def _address(server: "subprocess.Popen[str]") -> str:
    """Wait for the server to say where it listens. Raises Unavailable where it ends first."""
    for line in server.stdout or ():
        click.echo(line, nl=False)
        if READY in line:
            return line.rpartition(READY)[2].strip()
    raise Unavailable("the server ended before it was ready; its messages are above")
