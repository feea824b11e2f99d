"""A server behind a front door, its clients, and what none of its logs ever say; all as a user types it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mezzotint import Client, MezzotintClientError
from mezzotint.cli import cli
from mezzotint.cli.access_options import access_config
from mezzotint.cli.errors import run
from mezzotint.cli.serve import READY
from mezzotint.server.tokens import new_token, read_tokens
from tests.conftest import ROOT
from tests.server.certificates import Authority

PROMPT, NEGATIVE = "zebracrossing in moonlight", "quicksilver rain"


@dataclass
class Door:
    """A server with TLS and tokens, and what it takes to get in."""

    address: str
    ca: Path
    token: str
    log: Path
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def door(emoji_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("door")
    ours = Authority(folder / "ours")
    files = ours.issue("127.0.0.1")
    token, line = new_token("alice")
    (folder / "tokens").write_text(f"{line}\n", encoding="utf-8")
    options = {
        "--tls-cert": files.cert,
        "--tls-key": files.key,
        "--tokens": folder / "tokens",
        "--max-steps": 30,
        "--rate-limit": "0.5:100",
        "--log-level": "debug",
        "--log-format": "json",
    }
    typed = [str(part) for pair in options.items() for part in pair]
    log = folder / "log"
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mezzotint",
                "serve",
                emoji_bundle,
                "--port",
                "0",
                "--no-cache",
                "--no-metrics",
                *typed,
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if READY not in line:
                pytest.fail(f"the server did not start: {line}{log.read_text(encoding='utf-8')}")
            yield Door(line.rpartition(READY)[2].strip(), ours.path, token, log, process)
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEZZOTINT_TOKEN", raising=False)


def test_generate_comes_in_with_the_token_of_its_environment(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "a.png"
    asked = [
        "generate",
        "a cat",
        "--steps",
        "2",
        "--server",
        door.address,
        "-o",
        str(picture),
        "--tls-ca",
        str(door.ca),
    ]
    assert run(cli, asked) == 5
    assert "mezzotint: this server asks for a token" in capsys.readouterr().err
    monkeypatch.setenv("MEZZOTINT_TOKEN", door.token)
    assert run(cli, asked) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(cli, [*asked, "--steps", "31"]) == 2
    assert "steps=31: this server allows at most 30 steps; ask for fewer" in capsys.readouterr().err


def test_health_is_asked_over_tls_without_a_token(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["health", door.address, "--tls-ca", str(door.ca)]) == 0
    assert run(cli, ["health", door.address]) == 1
    assert run(cli, ["health", door.address, "--tls-ca", "missing"]) == 2
    assert "missing: cannot be read" in capsys.readouterr().err


def test_no_log_has_a_token_or_a_prompt(door: Door) -> None:
    stranger, _ = new_token("alice")
    refusals = 0
    for token in (door.token, stranger, "", "guess-me-not"):
        with Client(door.address, tls_ca=door.ca, token=token) as client:
            for wrong in ({}, {"sampler": PROMPT}, {"model": NEGATIVE}, {"steps": 31}, {"num_images": 60}):
                options = {"steps": 1, "negative_prompt": NEGATIVE} | wrong
                try:
                    client.generate(PROMPT, **options)  # type: ignore[arg-type]
                except MezzotintClientError:
                    refusals += 1
            with pytest.raises(MezzotintClientError):
                client.generate(PROMPT * 1000, steps=1)
            refusals += 1
    assert refusals == 4 * 6 - 1
    door.process.terminate()
    assert door.process.wait(timeout=60) == 0
    log = door.log.read_text(encoding="utf-8")
    assert log.count('"mezzotint.audit"') >= refusals
    assert "outcome" in log
    for secret in (door.token, stranger, "guess-me-not", PROMPT, NEGATIVE, *PROMPT.split(), *NEGATIVE.split()):
        if len(secret) > 4:
            assert secret not in log


def test_a_token_is_shown_once_and_its_line_opens_the_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["token", "alice"]) == 0
    shown = capsys.readouterr()
    (tmp_path / "tokens").write_text(shown.out, encoding="utf-8")
    token = shown.err.split()[-1]
    assert read_tokens(tmp_path / "tokens").name_of(token) == "alice"
    assert token not in shown.out
    assert run(cli, ["token", "a b"]) == 2
    assert "name='a b': must be 1 to 64 letters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--tls-cert", "a.pem"], 2, "`--tls-cert` and `--tls-key` must come together"),
        (["--tls-client-ca", "a.pem"], 2, "`--tls-client-ca` with both"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], 3, "a.pem and b.pem: are no certificate and its key (no such"),
        (["--tokens", "none"], 3, "none: cannot be read (no such file or directory); name one with lines of"),
        (["--rate-limit", "fast"], 2, "'fast' is no rate; write rows a second, as 100, or with a burst of rows"),
        (["--max-steps", "0"], 2, "'--max-steps'"),
    ],
)
def test_a_front_door_that_cannot_be_is_one_sentence(
    options: list[str], code: int, sentence: str, emoji_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["serve", str(emoji_bundle), "--port", "0", "--no-metrics", *options]) == code
    assert sentence in capsys.readouterr().err


def test_what_is_said_of_connections_and_unread_pictures_arrives() -> None:
    options: dict[str, Any] = dict.fromkeys(("tls_cert", "tls_key", "tls_client_ca", "tokens", "rate_limit"))
    found = access_config(**options, max_request_bytes=9, handshake_seconds=3.0, unread_seconds=4.0)
    assert (found.handshake_seconds, found.unread_seconds) == (3.0, 4.0)


def test_an_operators_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["token", "alice", "--operator"]) == 0
    shown = capsys.readouterr()
    (tmp_path / "tokens").write_text(shown.out, encoding="utf-8")
    assert read_tokens(tmp_path / "tokens").is_operator(shown.err.split()[-1])
