"""What the tests of faults share: clients that misbehave, and what a process holds."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from mezzotint.server.service import SERVICE
from tests.conftest import ROOT

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_NO_WINDOW = b"\x00\x04" + bytes(4)  # SETTINGS_INITIAL_WINDOW_SIZE 0: the server may send nothing of a stream

_LISTEN = """
import sys
from mezzotint import Client
with Client(sys.argv[1]) as client:
    for event in client.stream("a cat face", steps=900, request_id=sys.argv[2]):
        print(type(event).__name__, flush=True)
"""


class Held(NamedTuple):
    """What a process holds."""

    resident_mib: int
    num_files: int
    num_sockets: int
    num_threads: int


def held(pid: int) -> Held:
    """Return what a process holds at present."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    fields = {name: value.split()[0] for name, _, value in (line.partition(":") for line in status) if value.strip()}
    files = [_target(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    num_sockets = sum(target.startswith("socket:") for target in files)
    return Held(int(fields["VmRSS"]) >> 10, len(files), num_sockets, int(fields["Threads"]))


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed since it was listed
        return ""


def listening(address: str, request_id: str) -> "subprocess.Popen[str]":
    """Return a client in a process of its own, in the midst of a long request."""
    client = subprocess.Popen(
        [sys.executable, "-c", _LISTEN, address, request_id],
        env={"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    while client.stdout.readline() != "Progress\n":
        assert client.poll() is None
    return client


def deaf_client(address: str, message: bytes, method: str = f"/{SERVICE}/Generate") -> socket.socket:
    """Return the connection of a client that has asked for something, takes nothing of it, and reads nothing at all."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": address,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    connection.sendall(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, _NO_WINDOW)
        + _frame(_HEADERS, _END_HEADERS, 1, b"".join(_literal(*pair) for pair in headers.items()))
        + _frame(_DATA, _END_STREAM, 1, body)
    )
    return connection


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: str, value: str) -> bytes:
    """Return a header as HPACK has it where nothing is indexed or compressed."""
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
