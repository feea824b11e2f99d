"""TLS and mutual TLS over real sockets, with real certificates."""

import asyncio
import logging
import socket
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mezzotint import AsyncClient, Client, MezzotintClientError
from mezzotint.engines.errors import CredentialsError
from mezzotint.server.access import AccessConfig, TlsConfig
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog
from mezzotint.server.tls import server_credentials
from tests.server.certificates import Authority
from tests.server.conftest import Running, Start


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
async def served(start: Start, ours: Authority) -> Running:
    files = ours.issue("127.0.0.1")
    return await start(access=AccessConfig(TlsConfig(files.cert, files.key)))


@pytest.fixture
async def closed(start: Start, ours: Authority) -> Running:
    """A server that asks its clients for certificates of ours."""
    files = ours.issue("127.0.0.1")
    return await start(access=AccessConfig(TlsConfig(files.cert, files.key, ours.path)))


async def refusal(target: str, **security: object) -> str:
    async with AsyncClient(target, **security) as client:
        with pytest.raises(MezzotintClientError) as refused:
            await client.generate("a cat", steps=1)
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    return str(refused.value).removeprefix(f"{target}: ")


async def test_both_clients_draw_over_tls_with_the_authoritys_file(served: Running, ours: Authority) -> None:
    def ask() -> list[bytes]:
        with Client(served.target, tls_ca=ours.path) as client:
            assert [model.name for model in client.models()] == ["fake"]
            return client.generate("a cat", steps=2, seed=3).files

    async with AsyncClient(served.target, tls_ca=str(ours.path)) as client:
        assert [model.name for model in await client.models()] == ["fake"]
        result = await client.generate("a cat", steps=2, seed=3)
    assert await asyncio.to_thread(ask) == result.files


async def test_a_server_whom_nobody_vouches_for_is_not_talked_to(served: Running, strangers: Authority) -> None:
    stranger = "its certificate is out of date, or not vouched for by the authority that was given; check the CA file"
    assert await refusal(served.target, tls_ca=strangers.path) == stranger
    assert await refusal(served.target, tls=True) == stranger


async def test_a_certificate_of_another_host_is_not_enough(start: Start, ours: Authority) -> None:
    files = ours.issue("elsewhere.example")
    served = await start(access=AccessConfig(TlsConfig(files.cert, files.key)))
    other = "its certificate is for another host; connect to the name that it was made for"
    assert await refusal(served.target, tls_ca=ours.path) == other


async def test_tls_and_plaintext_do_not_meet(start: Start, served: Running, ours: Authority, tmp_path: Path) -> None:
    assert (await refusal(served.target)).startswith("the connection was closed at once; a server with TLS may want")
    plain = await start()
    assert (await refusal(plain.target, tls_ca=ours.path)).startswith("no TLS is spoken there; connect without")


async def test_a_client_with_a_certificate_of_ours_comes_in(closed: Running, ours: Authority) -> None:
    alice = ours.issue("alice@example.org", common_name="alice")
    async with AsyncClient(closed.target, tls_ca=ours.path, tls_cert=alice.cert, tls_key=alice.key) as client:
        assert len((await client.generate("a cat", steps=1)).files) == 1


async def test_clients_without_a_certificate_or_with_a_strangers_or_an_expired_one_stay_out(
    closed: Running, ours: Authority, strangers: Authority
) -> None:
    eve, late = strangers.issue("eve@example.org"), ours.issue("late@example.org", days=-1)
    out = "the connection was closed at once; a server with TLS may want a CA file of its clients, or a certificate"
    assert await refusal(closed.target, tls_ca=ours.path) == out
    for files in (eve, late):
        assert await refusal(closed.target, tls_ca=ours.path, tls_cert=files.cert, tls_key=files.key) == out
    assert not closed.unet.calls


async def test_a_renewed_certificate_holds_for_new_connections_and_old_ones_go_on(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    files, others = old.issue("127.0.0.1"), new.issue("127.0.0.1")
    served = await start(access=AccessConfig(TlsConfig(files.cert, files.key)))
    async with AsyncClient(served.target, tls_ca=old.path) as before:
        await before.generate("a cat", steps=1)
        others.cert.replace(files.cert)  # its key is not there yet
        async with AsyncClient(served.target, tls_ca=old.path) as meanwhile:
            await meanwhile.generate("a cat", steps=1)
        assert "are no certificate and its key (key values mismatch)" in caplog.text
        others.key.replace(files.key)
        async with AsyncClient(served.target, tls_ca=new.path) as after:
            await after.generate("a cat", steps=1)
        assert "not vouched for" in await refusal(served.target, tls_ca=old.path)
        await before.generate("a cat", steps=1)
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 1


def storm(target: list[str], stop: threading.Event) -> None:
    """Begin handshakes and go away, without an end."""
    while not stop.is_set():
        host, _, port = target[0].rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1) as connection:
                connection.sendall(b"\x16\x03\x01\x00")
                time.sleep(0.003)
        except OSError:
            time.sleep(0.003)


async def test_servers_start_and_stop_amid_handshakes_and_renewals_without_ever_hanging(ours: Authority) -> None:
    target, stop = ["127.0.0.1:1"], threading.Event()
    threads = [threading.Thread(target=storm, args=(target, stop)) for _ in range(2)]
    for thread in threads:
        thread.start()

    async def ask() -> None:
        credentials = grpc.ssl_channel_credentials(ours.path.read_bytes())
        async with grpc.aio.secure_channel(target[0], credentials) as channel:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)

    try:
        for _ in range(20):
            files = ours.issue("127.0.0.1")
            server = Server(Catalog(["a"]), access=AccessConfig(TlsConfig(files.cert, files.key)))
            target[0] = f"127.0.0.1:{await server.start('127.0.0.1', 0)}"
            asking = [asyncio.ensure_future(ask()) for _ in range(4)]
            files.cert.touch()
            await asyncio.gather(*asking)
            await asyncio.wait_for(server.stop(0.0), 10)
    finally:
        stop.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)


async def test_an_authority_that_is_taken_back_lets_its_clients_in_no_more(start: Start, tmp_path: Path) -> None:
    servers, clients, others = (Authority(tmp_path / name) for name in ("servers", "clients", "others"))
    files, alice, bob = servers.issue("127.0.0.1"), clients.issue("alice@a.example"), others.issue("bob@b.example")
    trusted = clients.path
    served = await start(access=AccessConfig(TlsConfig(files.cert, files.key, trusted)))
    async with AsyncClient(served.target, tls_ca=servers.path, tls_cert=alice.cert, tls_key=alice.key) as client:
        await client.generate("a cat", steps=1)
    others.path.replace(trusted)
    await refusal(served.target, tls_ca=servers.path, tls_cert=alice.cert, tls_key=alice.key)
    async with AsyncClient(served.target, tls_ca=servers.path, tls_cert=bob.cert, tls_key=bob.key) as client:
        await client.generate("a cat", steps=1)


def test_files_that_do_not_fit_are_one_sentence(ours: Authority, strangers: Authority, tmp_path: Path) -> None:
    good, other, nothing = ours.issue("a.example"), strangers.issue("b.example"), tmp_path / "nothing"
    nothing.touch()
    for config, sentence in (
        (
            TlsConfig(good.cert, other.key),
            f"{other.key}: are no certificate and its key (key values mismatch); name PEM",
        ),
        (TlsConfig(tmp_path / "x", good.key), "are no certificate and its key (no such file or directory)"),
        (TlsConfig(good.cert, good.cert), "are no certificate and its key (it is no pem)"),
        (TlsConfig(good.cert, good.key, nothing), f"{nothing}: has no certificate of an authority"),
        (TlsConfig(good.cert, good.key, tmp_path), "has no certificate of an authority (is a directory)"),
    ):
        with pytest.raises(CredentialsError) as refused:
            server_credentials(config)
        assert sentence in str(refused.value)
        assert "\n" not in str(refused.value)


def test_an_encrypted_key_is_refused_and_asks_nobody_for_its_password(ours: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s

    good = ours.issue("a.example")
    key = s.load_pem_private_key(good.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"secret")))
    with pytest.raises(
        CredentialsError, match=r"are no certificate and its key \(.*\); name PEM files, the key not enc"
    ):
        server_credentials(TlsConfig(good.cert, locked))
