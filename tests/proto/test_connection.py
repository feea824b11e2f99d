from pathlib import Path
from typing import Any

import pytest

from mezzotint import AsyncClient, Client, MezzotintClientError
from mezzotint.proto.connection import TOKEN_VARIABLE, connection, is_local

TOKEN = "mzt_" + "x" * 43


@pytest.mark.parametrize(
    "target",
    ["localhost", "localhost:8001", "127.0.0.1:8001", "127.9.9.9:1", "[::1]:8001", "ipv4:127.0.0.1:8001",
     "ipv6:[::1]:8001", "ipv6:%5B::1%5D:8001", "dns:///localhost:8001", "dns:localhost:8001", "unix:/run/m.sock"],
)  # fmt: skip
def test_these_targets_stay_on_this_machine(target: str) -> None:
    assert is_local(target)
    assert connection(target, token=TOKEN) == (None, (("authorization", f"Bearer {TOKEN}"),))


@pytest.mark.parametrize(
    "target",
    ["example.org:8001", "10.0.0.1:8001", "[2001:db8::1]:8001", "localhost.example.org:8001", "0.0.0.0:8001",
     "127.0.0.1.example.org:80", "dns://8.8.8.8/localhost:8001", "ipv4:127.0.0.1:80,10.0.0.1:80", "xds:///localhost:1"],
)  # fmt: skip
def test_a_token_is_never_sent_in_clear_to_another_machine(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_local(target)
    sentence = f"{target}: the token would go there in clear; connect with TLS, such as by a CA file"
    for client in (Client, AsyncClient):
        with pytest.raises(MezzotintClientError) as refused:
            client(target, token=TOKEN)
        assert str(refused.value) == sentence
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with pytest.raises(MezzotintClientError, match="the token would go there in clear"):
        connection(target)
    assert connection(target, token="") == (None, ())
    credentials, metadata = connection(target, tls=True)
    assert credentials is not None
    assert metadata == (("authorization", f"Bearer {TOKEN}"),)


def test_a_token_that_is_said_goes_before_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection("localhost:1") == (None, ())
    monkeypatch.setenv(TOKEN_VARIABLE, "other")
    assert connection("localhost:1")[1] == (("authorization", "Bearer other"),)
    assert connection("localhost:1", token=TOKEN)[1] == (("authorization", f"Bearer {TOKEN}"),)


@pytest.mark.parametrize(
    ("security", "sentence"),
    [
        ({"tls_ca": "missing.pem"}, "missing.pem: cannot be read (no such file or directory); name a PEM file"),
        ({"tls_cert": "a.pem"}, "tls_cert and tls_key: must come together; name the certificate's file and its key's"),
        ({"token": "a\nb"}, "token: has characters that no token has; take it as `mezzotint token NAME` printed it"),
        ({"token": "é"}, "token: has characters that no token has; take it as `mezzotint token NAME` printed it"),
    ],
)
def test_what_cannot_be_connected_with_is_one_sentence(
    security: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MezzotintClientError) as refused:
        Client("localhost:1", **security)
    assert str(refused.value) == sentence
