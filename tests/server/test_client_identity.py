import asyncio
from collections.abc import Iterable, Mapping

import pytest

from mezzotint.server.client_identity import Client, KnownBy, client_of, note_token


class FakeContext:
    """A call's peer and certificate."""

    def __init__(self, peer: str = "ipv4:192.0.2.7:4000", **certificate: Iterable[bytes]) -> None:
        self._peer = peer
        self._certificate = certificate

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._certificate


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("ipv4:192.0.2.7:4000", "192.0.2.7"),
        ("ipv6:%5B2001:db8::1%5D:4000", "2001:db8::1"),
        ("ipv6:[::1]:50", "::1"),
        ("unix:", "unix:"),
        ("unix:/run/a\nb", "unix:/run/a\\nb"),
    ],
)
def test_a_client_without_credentials_is_its_address_whatever_the_port(peer: str, name: str) -> None:
    assert client_of(FakeContext(peer)) == Client(name, KnownBy.ADDRESS)


def test_a_certificate_goes_before_the_address_and_its_alternative_name_before_the_common_one() -> None:
    names = {"x509_common_name": [b"alice"], "x509_subject_alternative_name": [b"spiffe://a/alice", b"b"]}
    assert client_of(FakeContext(**names)) == Client("spiffe://a/alice", KnownBy.CERTIFICATE)
    assert client_of(FakeContext(x509_common_name=[b"alice"])) == Client("alice", KnownBy.CERTIFICATE)
    assert client_of(FakeContext(x509_common_name=[b"al\nice\xff"])).name == "al\\nice\\\\xff"
    assert str(client_of(FakeContext(transport_security_type=[b"ssl"]))) == "address:192.0.2.7"


async def test_a_token_goes_before_both_in_its_own_task_alone() -> None:
    context = FakeContext(x509_common_name=[b"alice"])

    async def serve(token: str) -> Client:
        note_token(token)
        await asyncio.sleep(0)
        return client_of(context)

    assert await asyncio.gather(*(asyncio.ensure_future(serve(token)) for token in ("bob", "carl"))) == [
        Client("bob", KnownBy.TOKEN),
        Client("carl", KnownBy.TOKEN),
    ]
    assert client_of(context).known_by is KnownBy.CERTIFICATE


def test_one_name_from_two_sources_is_two_clients() -> None:
    assert Client("10.0.0.1", KnownBy.TOKEN) != Client("10.0.0.1", KnownBy.ADDRESS)
