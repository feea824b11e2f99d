"""Who is let in, by token, certificate or address, over real sockets."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.errors import CredentialsError, MezzotintError
from mezzotint.server.access import AccessConfig, TlsConfig
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog
from mezzotint.server.front_door import FrontDoor
from mezzotint.server.tokens import new_token
from tests.server.certificates import Authority
from tests.server.conftest import Start
from tests.server.front_door import audit, paint, refusal
from tests.server.hosting import hosting, refusal_of
from tests.server.tokens_file import TokensFile

CODE = grpc.StatusCode


async def test_the_right_token_comes_in_and_a_wrong_one_or_none_does_not(
    start: Start, tokens: TokensFile, audited: pytest.LogCaptureFixture
) -> None:
    alice = tokens.add("alice")
    served = await start(access=AccessConfig(tokens=tokens.path))
    assert await paint(served, alice) == 1
    served.unet.calls.clear()
    missing, wrong = await refusal(served), await refusal(served, token=new_token("alice")[0])
    assert missing.code is wrong.code is CODE.UNAUTHENTICATED
    assert missing.message.startswith("this server asks for a token; send `authorization: Bearer TOKEN`, or set MEZZO")
    assert wrong.message.startswith("the token is not known here; ask the server's keeper for one")
    assert not served.unet.calls
    assert audit(audited) == ["client=address:127.0.0.1 code=UNAUTHENTICATED reason=Unauthenticated"] * 2
    assert alice not in audited.text


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "{token}"),),
        (("authorization", "Basic {token}"),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer {token}x"),),
        (("authorization", "Bearer {token}"), ("authorization", "Bearer {token}")),
        (("authorization-bin", b"Bearer"),),
        (("authorization", "Bearer " + "x" * 6000),),
    ],
)
async def test_a_header_of_another_form_is_no_token(
    start: Start, tokens: TokensFile, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    token = tokens.add("alice")
    served = await start(access=AccessConfig(tokens=tokens.path))
    sent = [(key, value if isinstance(value, bytes) else value.replace("{token}", token)) for key, value in metadata]
    call = served.channel.unary_stream("/mezzotint.v1.Mezzotint/Generate")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"", metadata=sent).read()
    assert refused.value.code() is CODE.UNAUTHENTICATED
    assert dict(refused.value.trailing_metadata() or ())["request-id"]


async def test_the_token_of_the_environment_is_sent_and_its_scheme_may_be_of_any_case(
    start: Start, tokens: TokensFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEZZOTINT_TOKEN", tokens.add("alice"))
    served = await start(access=AccessConfig(tokens=tokens.path))
    async with AsyncClient(served.target) as client:
        assert [model.name for model in await client.models()] == ["fake"]
    listing = served.channel.unary_unary("/mezzotint.v1.Mezzotint/ListModels")
    assert await listing(b"", metadata=(("authorization", f"bearer  {tokens.add('bob')}"),))


async def test_a_token_that_is_added_or_taken_out_holds_at_once_and_a_broken_file_changes_nothing(
    start: Start, tokens: TokensFile, audited: pytest.LogCaptureFixture
) -> None:
    alice = tokens.add("alice")
    served = await start(access=AccessConfig(tokens=tokens.path))
    async with AsyncClient(served.target, token=alice) as client:
        await client.models()
        bob = tokens.add("bob")
        assert await paint(served, bob) == 1
        tokens.write("alice = nothing\n")
        assert await paint(served, bob) == await paint(served, alice) == 1
        tokens.write(tokens.lines["bob"])
        with pytest.raises(MezzotintClientError, match="the token is not known here"):
            await client.models()  # on the same connection
        assert await paint(served, bob) == 1
    errors = [record.message for record in audited.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].startswith(f"{tokens.path}: line 1 is no NAME: sha256:DIGEST; write lines as")


async def test_health_is_open_and_nothing_else_is(start: Start, tokens: TokensFile) -> None:
    tokens.add("alice")
    served = await start(access=AccessConfig(tokens=tokens.path))
    answer = await health_pb2_grpc.HealthStub(served.channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    with pytest.raises(grpc.aio.AioRpcError, match="this server asks for a token"):
        await reflection.ServerReflectionInfo(asked).read()
    for method in ("/mezzotint.v1.Mezzotint/ListModels", "/any.Service/Method", "/grpc.health.v1.Healthy/Check"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.channel.unary_unary(method)(b"")
        assert refused.value.code() is CODE.UNAUTHENTICATED


async def test_a_client_is_known_by_its_token_before_its_certificate_before_its_address(
    start: Start, tokens: TokensFile, tmp_path: Path, audited: pytest.LogCaptureFixture
) -> None:
    ours = Authority(tmp_path / "ours")
    files, carl = ours.issue("127.0.0.1"), ours.issue("carl@example.org", common_name="carl")
    tls = TlsConfig(files.cert, files.key, ours.path)
    alice = tokens.add("alice")
    both, certificates, nothing = [
        await start(access=AccessConfig(tls=tls, tokens=tokens.path)),
        await start(access=AccessConfig(tls=tls)),
        await start(),
    ]
    mine = {"tls_ca": ours.path, "tls_cert": carl.cert, "tls_key": carl.key}
    for served, security in ((both, mine | {"token": alice}), (both, mine), (certificates, mine), (nothing, {})):
        async with AsyncClient(served.target, **security) as client:  # type: ignore[arg-type]
            with pytest.raises(MezzotintClientError):
                await client.generate("a cat", steps=0)
    bad_steps = "code=INVALID_ARGUMENT reason=InvalidRequest(steps)"
    assert audit(audited) == [
        f"client=token:alice {bad_steps}",
        "client=certificate:carl@example.org code=UNAUTHENTICATED reason=Unauthenticated",
        f"client=certificate:carl@example.org {bad_steps}",
        f"client=address:127.0.0.1 {bad_steps}",
    ]


def test_tokens_in_clear_on_a_network_are_warned_of(tokens: TokensFile, caplog: pytest.LogCaptureFixture) -> None:
    tokens.add("alice")

    async def serve(host: str) -> None:
        server = Server(Catalog(["a"]), access=AccessConfig(tokens=tokens.path))
        await server.start(host, 0)
        await server.stop(0.0)

    asyncio.run(serve("127.0.0.1"))
    assert "in clear" not in caplog.text
    asyncio.run(serve("0.0.0.0"))
    assert [record.message for record in caplog.records if record.name.startswith("mezzotint")] == [
        "tokens go over the network in clear to 0.0.0.0:0; serve with --tls-cert and --tls-key"
    ]


def test_files_that_are_not_there_stop_the_server(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    for access in (AccessConfig(tokens=nothing), AccessConfig(tls=TlsConfig(nothing, nothing))):
        with pytest.raises(CredentialsError, match="no such file or directory"):
            FrontDoor(access)


async def test_the_largest_settings_are_ones_that_grpc_takes() -> None:
    server = Server(Catalog(["a"]), access=AccessConfig(max_request_bytes=1 << 30, handshake_seconds=3600.0))
    await server.start("127.0.0.1", 0)
    await server.stop(0.0)


@pytest.mark.parametrize(
    "settings", [{"max_request_bytes": 0}, {"max_request_bytes": (1 << 30) + 1}, {"handshake_seconds": 0.0}]
)
def test_settings_that_cannot_be_are_one_sentence(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(MezzotintError, match=f"{name}=.*: must be "):
        AccessConfig(**settings)


async def test_only_operators_load_and_unload_where_tokens_are_asked_for(
    root: Path, tokens: TokensFile, audited: pytest.LogCaptureFixture
) -> None:
    alice, bob = tokens.add("alice", operator=True), tokens.add("bob")
    async with hosting(root, "one", access=AccessConfig(tokens=tokens.path)) as host:
        async with AsyncClient(host.target, token=bob) as client:
            for call in (client.load_model("a"), client.unload_model("model")):
                refused = await refusal_of(call)
                assert refused.code is CODE.PERMISSION_DENIED
                assert "ask the server's keeper for a token with that role" in refused.message
            assert (await client.generate("a cat", steps=1, seed=1)).files
            assert [model.name for model in await client.models()] == ["model"]
        async with AsyncClient(host.target, token=alice) as client:
            await client.load_model("a")
            await client.unload_model("model")
            assert [model.name for model in await client.models()] == ["a"]
    assert audit(audited) == ["client=token:bob code=PERMISSION_DENIED reason=NotAllowed"] * 2
