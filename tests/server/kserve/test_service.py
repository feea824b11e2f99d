"""What a server says of itself, its models and its repository, and what it has no part in."""

import asyncio
from pathlib import Path

import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from mezzotint.server.catalog import State
from mezzotint.server.config import KserveConfig
from mezzotint.server.kserve.service import SERVICE
from mezzotint.server.kserve.tensors import INPUTS, OUTPUTS
from tests.server.bundles import write_bundle
from tests.server.conftest import Start, entered
from tests.server.hosting import hosting
from tests.server.kserve.conftest import Triton, inputs


async def test_a_server_is_live_and_ready_until_it_drains(host: Triton) -> None:
    client = host.client
    assert await client.is_server_live()
    assert await client.is_server_ready()
    about = await client.get_server_metadata()
    assert about.name == "mezzotint"
    assert {"model_repository", "statistics", "system_shared_memory"} <= set(about.extensions)
    await host.served.server.set_ready(False)
    assert not await client.is_server_ready()
    assert await client.is_server_live()


async def test_a_bundle_is_two_models_one_of_them_decoupled(host: Triton) -> None:
    for name, decoupled in (("fake", False), ("fake_stream", True)):
        assert await host.client.is_model_ready(name)
        assert await host.client.is_model_ready(name, "1")
        config = (await host.client.get_model_config(name)).config
        assert (config.name, config.max_batch_size, config.backend) == (name, 0, "mezzotint")
        assert config.model_transaction_policy.decoupled is decoupled
        assert config.parameters["digest"].string_value == "f" * 64
        about = await host.client.get_model_metadata(name)
        assert (about.name, list(about.versions), about.platform) == (name, ["1"], "mezzotint")
        for told, of_config, tensors in ((about.inputs, config.input, INPUTS), (about.outputs, config.output, OUTPUTS)):
            wanted = [tensor for tensor in tensors if decoupled or not tensor.streamed]
            assert [(t.name, t.datatype, tuple(t.shape)) for t in told] == [
                (t.name, t.datatype, t.dims) for t in wanted
            ]
            assert [tuple(t.dims) for t in of_config] == [t.dims for t in wanted]
        assert [tensor.name for tensor in config.input if not tensor.optional] == ["PROMPT"]
    assert not await host.client.is_model_ready("sdxl")
    assert not await host.client.is_model_ready("fake", "2")
    code, sentence = await host.refusal(host.client.get_model_config("sdxl"))
    assert (code, sentence) == ("NOT_FOUND", "model='sdxl': is not served here; use fake")


async def test_a_bundle_that_is_named_as_anothers_stream_is_itself(host: Triton) -> None:
    host.served.server.catalog.begin("other_stream")
    assert not (await host.client.get_model_config("other_stream")).config.model_transaction_policy.decoupled
    assert (await host.client.get_model_config("other_stream_stream")).config.model_transaction_policy.decoupled


async def test_what_is_no_part_of_it_is_unimplemented_in_a_sentence(host: Triton) -> None:
    calls = (
        host.client.get_cuda_shared_memory_status(),
        host.client.register_cuda_shared_memory("a", b"aaaa", 0, 8),
        host.client.unregister_cuda_shared_memory(),
        host.client.get_trace_settings(),
        host.client.get_log_settings(),
    )
    for call in calls:
        code, sentence = await host.refusal(call)
        assert code == "UNIMPLEMENTED"
        assert sentence.endswith(": no part of this server; leave the call out")


async def test_statistics_count_pictures_calls_and_times(host: Triton) -> None:
    await host.client.infer("fake", inputs(STEPS=3, SAMPLES=2, GUIDANCE_SCALE=2.0))
    await host.served.client.generate("a cat", steps=2, guidance=1.0)
    await host.refusal(host.client.infer("fake", inputs(STEPS=2, WIDTH=41)))
    for name in ("fake", "fake_stream"):
        (counted,) = (await host.client.get_inference_statistics(name)).model_stats
        assert (counted.name, counted.version) == (name, "1")
        assert counted.inference_count == 3
        assert counted.execution_count == len(host.served.unet.calls)
        assert counted.last_inference > 1e12
        stats = counted.inference_stats
        assert (stats.success.count, stats.fail.count, stats.queue.count, stats.cache_hit.count) == (2, 1, 2, 0)
        assert stats.success.ns >= stats.compute_infer.ns > 0
        rows = {batch.batch_size: batch.compute_infer.count for batch in counted.batch_stats}
        assert {size: count for size, count in rows.items() if count} == {
            size: host.served.unet.calls.count(size) for size in set(host.served.unet.calls)
        }
        assert all(batch.compute_infer.ns > 0 for batch in counted.batch_stats if batch.compute_infer.count)
    assert len((await host.client.get_inference_statistics()).model_stats) == 2


async def test_without_the_option_only_our_own_protocol_is_served(start: Start) -> None:
    served = await start()
    client = InferenceServerClient(served.target)
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
        await client.is_server_live()
    await client.close()


async def test_reflection_describes_both_protocols(host: Triton) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(host.served.channel)
    for symbol in (SERVICE, "mezzotint.v1.Mezzotint", "grpc.health.v1.Health"):
        asked = iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)])
        (answer,) = [answer async for answer in stub.ServerReflectionInfo(asked)]
        assert answer.file_descriptor_response.file_descriptor_proto, symbol


async def test_models_are_loaded_and_unloaded_by_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_bundle(tmp_path, name)
    async with hosting(tmp_path, "one", kserve=KserveConfig()) as hosted:
        client = InferenceServerClient(hosted.target)

        async def index() -> dict[str, tuple[str, str]]:
            return {m.name: (m.state, m.reason) for m in (await client.get_model_repository_index()).models}

        assert await index() == {"one": ("READY", ""), "one_stream": ("READY", ""), "two": ("", "it is not loaded")}
        await client.load_model("two_stream")
        assert {name: state for name, (state, _) in (await index()).items()} == dict.fromkeys(
            ("one", "one_stream", "two", "two_stream"), "READY"
        )
        assert (await client.infer("two", inputs(STEPS=1))).as_numpy("IMAGES").shape == (1, 32, 32, 3)
        await client.unload_model("one")
        assert not await client.is_model_ready("one_stream")
        assert "one_stream" not in await index()
        assert (await client.get_model_repository_index()).models[0].name == "two"
        for call, code in (
            (client.load_model("three"), "NOT_FOUND"),
            (client.load_model("../two"), "INVALID_ARGUMENT"),
            (client.load_model("two", config="{}"), "INVALID_ARGUMENT"),
            (client.unload_model("one"), "NOT_FOUND"),
            (client.unload_model(""), "INVALID_ARGUMENT"),
        ):
            with pytest.raises(InferenceServerException, match=f"StatusCode.{code}"):
                await call
        await client.close()


async def test_a_server_without_a_repository_loads_nothing(host: Triton) -> None:
    code, sentence = await host.refusal(host.client.load_model("fake"))
    assert code == "FAILED_PRECONDITION"
    assert "start it with `--model-repository FOLDER`" in sentence


async def test_the_index_says_why_a_model_is_away(host: Triton) -> None:
    version = host.served.server.catalog.begin("late")
    version.state, version.reason = State.FAILED, "it is broken"
    told = {model.name: model for model in (await host.client.get_model_repository_index()).models}
    assert (told["late_stream"].state, told["late_stream"].reason) == ("UNAVAILABLE", "it is broken")
    assert not await host.client.is_model_ready("late")


async def test_a_stopping_server_finishes_what_it_has_accepted_and_refuses_more(host: Triton) -> None:
    host.served.unet.hold()
    call = asyncio.create_task(host.client.infer("fake", inputs(STEPS=2)))
    await entered(host.served)
    draining = asyncio.create_task(asyncio.to_thread(host.served.core.drain, 10.0))
    await asyncio.sleep(0.2)
    code, sentence = await host.refusal(host.client.infer("fake", inputs(STEPS=2)))
    assert code == "UNAVAILABLE"
    assert "the server is stopping" in sentence
    host.served.unet.release()
    assert (await call).as_numpy("SEEDS").tolist() == [0]
    assert await draining
