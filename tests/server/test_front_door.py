"""Tokens, limits, rates and the audit log over real sockets."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.errors import CredentialsError, MezzotintError
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.access import AccessConfig, TlsConfig
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog
from mezzotint.server.front_door import FrontDoor
from mezzotint.server.limits import RequestLimits
from mezzotint.server.rates import RateLimit
from mezzotint.server.tokens import new_token
from tests.server.certificates import Authority
from tests.server.conftest import Running, Start, entered, eventually, refused

CODE = grpc.StatusCode


class TokensFile:
    """A tokens file, and the tokens of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, str] = {}

    def add(self, name: str) -> str:
        token, self.lines[name] = new_token(name)
        self.write("\n".join(self.lines.values()))
        return token

    def write(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(self.path)


@pytest.fixture
def tokens(tmp_path: Path) -> TokensFile:
    return TokensFile(tmp_path / "tokens")


@pytest.fixture
def audited(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "mezzotint"):
        yield caplog


def audit(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the audit lines without their ids."""
    lines = [record.message.split() for record in log.records if record.name == "mezzotint.audit"]
    return [" ".join(line[2:]) for line in lines]


async def refusal(served: Running, *, token: str | None = "", **options: Any) -> MezzotintClientError:
    async with AsyncClient(served.target, token=token) as client:
        with pytest.raises(MezzotintClientError) as refused:
            await client.generate("a cat", **{"steps": 1} | options)
    return refused.value


async def paint(served: Running, token: str, **options: Any) -> int:
    async with AsyncClient(served.target, token=token) as client:
        return len((await client.generate("a cat", **{"steps": 1} | options)).files)


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


async def test_a_message_that_is_too_large_is_refused_and_one_that_is_far_too_large_is_never_read(
    start: Start, audited: pytest.LogCaptureFixture
) -> None:
    served = await start(access=AccessConfig(max_request_bytes=10_000))
    error = await refused(served, pb.GenerateRequest(prompt="a" * 15_000).SerializeToString())
    assert error.code() is CODE.INVALID_ARGUMENT
    assert error.details() == "the request has 15003 bytes; this server takes 10000, send smaller arrays"
    error = await refused(served, b"\x1a" * 30_000)
    assert (error.code(), error.details()) == (
        CODE.RESOURCE_EXHAUSTED,
        "SERVER: Received message larger than max (30000 vs. 20000)",
    )
    assert audit(audited) == ["client=address:127.0.0.1 code=INVALID_ARGUMENT reason=InvalidRequest"]
    assert await paint(served, "", latents=np.ones((1, 4, 8, 8), np.float32)) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 11}, "steps=11: this server allows at most 10 steps; ask for fewer"),
        ({"num_images": 3}, "num_images=3: this server allows at most 2 pictures a request; ask for fewer"),
        ({"width": 64}, "width × height = 64 × 32: this server allows at most 2000 pixels a picture; ask for fewer"),
    ],
)
async def test_a_request_over_a_limit_is_refused_before_anything_is_encoded(
    start: Start, options: dict[str, int], sentence: str, audited: pytest.LogCaptureFixture
) -> None:
    served = await start(access=AccessConfig(limits=RequestLimits(max_steps=10, max_pixels=2000, max_images=2)))
    error = await refusal(served, request_id="mine", **options)
    assert (error.code, error.message) == (CODE.INVALID_ARGUMENT, sentence)
    assert "refused request=mine client=address:127.0.0.1 code=INVALID_ARGUMENT reason=InvalidRequest" in audited.text
    assert not any(engine.calls for engine in served.engines.values())
    assert await paint(served, "", steps=10, num_images=2) == 2


async def test_a_client_over_its_rate_is_told_when_to_come_again_and_comes_in_then(
    start: Start, tokens: TokensFile, audited: pytest.LogCaptureFixture
) -> None:
    alice, bob = tokens.add("alice"), tokens.add("bob")
    served = await start(access=AccessConfig(tokens=tokens.path, rate=RateLimit(100.0, 40.0)))
    assert await paint(served, alice, steps=10, num_images=2) == 2
    error = await refusal(served, token=alice, steps=10)
    assert error.code is CODE.RESOURCE_EXHAUSTED
    assert error.message.startswith("the request runs 20 rows of the UNet, and this client has ")
    assert error.retry_after_ms is not None
    assert 0 < error.retry_after_ms <= 200
    assert audit(audited) == ["client=token:alice code=RESOURCE_EXHAUSTED reason=RateLimited"]
    assert await paint(served, bob, steps=10, num_images=2) == 2
    await asyncio.sleep(error.retry_after_ms / 1e3)
    assert await paint(served, alice, steps=10) == 1


async def test_a_refusal_by_rate_has_the_hints_of_a_full_queue(start: Start) -> None:
    served = await start(access=AccessConfig(rate=RateLimit(1.0, 10.0)))
    await paint(served, "", steps=6)
    error = await refused(served, pb.GenerateRequest(steps=5, guidance=1.0).SerializeToString())
    metadata = dict(error.trailing_metadata() or ())
    retry = RetryInfo()
    assert Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(retry)
    hint = int(metadata["grpc-retry-pushback-ms"])
    assert 6000 < hint <= 7000
    assert retry.retry_delay.ToMilliseconds() == hint


async def test_what_a_full_queue_refuses_costs_its_client_nothing(start: Start) -> None:
    served = await start(access=AccessConfig(rate=RateLimit(0.001, 25.0)), max_queue_size=2, max_started_images=1)
    served.unet.hold()
    async with AsyncClient(served.target) as client:
        first = asyncio.ensure_future(client.generate("a cat", steps=4, guidance=1.0))
        await entered(served)
        waiting = asyncio.ensure_future(client.generate("a cat", steps=1, guidance=1.0))
        await eventually(lambda: served.core.num_open == 2)
        for _ in range(3):
            two_more = asyncio.ensure_future(refusal(served, steps=4, num_images=2))  # 16 rows
            await eventually(lambda: served.core.num_open == 3)
            await asyncio.sleep(0.05)  # they are tokenised
            served.unet.step()
            assert (await two_more).message.startswith("the queue is full")
        served.unet.release()
        await asyncio.gather(first, waiting)
    assert await paint(served, "", steps=10) == 1  # all of the 20 rows that are left
    assert (await refusal(served, steps=1)).code is CODE.RESOURCE_EXHAUSTED


async def test_a_sentence_that_repeats_a_long_field_is_cut_and_still_arrives(served: Running) -> None:
    for request in (
        pb.GenerateRequest(sampler="ü" * 250),
        pb.GenerateRequest(cache_schedule=[7] * 4000),
    ):
        error = await refused(served, request.SerializeToString())
        assert error.code() is CODE.INVALID_ARGUMENT
        assert len((error.details() or "").encode()) < 2100
    error = await refused(served, pb.GenerateRequest(model="a" * 300).SerializeToString())
    assert error.details() == "model: has a length of 300; the limit is 256, shorten it"
    error = await refused(served, pb.GenerateRequest(latents=pb.Tensor(shape=[2] * 100_000)).SerializeToString())
    assert error.details() == "latents: has 100000 axes; the limit is 4"


def test_tokens_in_clear_on_a_network_are_warned_of(tokens: TokensFile, caplog: pytest.LogCaptureFixture) -> None:
    tokens.add("alice")

    async def serve(host: str) -> None:
        server = Server(Catalog(["a"]), access=AccessConfig(tokens=tokens.path))
        await server.start(host, 0)
        await server.stop(0.0)

    asyncio.run(serve("127.0.0.1"))
    assert not caplog.records
    asyncio.run(serve("0.0.0.0"))
    assert [record.message for record in caplog.records] == [
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
