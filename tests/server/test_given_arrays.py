"""Initial noise, prompt states and noise levels that a client gives, through a server of the real demo model."""

from pathlib import Path

import grpc
import numpy as np
import pytest

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.component import Component
from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.schedule import Spacing
from mezzotint.engines.variants import FULL
from tests.server.real import serving


async def test_what_a_client_gives_stands_for_seed_prompt_and_schedule(emoji_bundle: Path) -> None:
    async with serving(emoji_bundle) as (model, address), AsyncClient(address) as client:
        prompts = [model.prompts.chunks(prompt).ids[0] for prompt in ("", "a cat face")]
        states = model.engines[Component.TEXT_ENCODER, FULL].run({"embeddings": model.prompts.embed(np.stack(prompts))})
        negative, positive = (np.array(state[0]) for state in states["states"])
        schedule = model.manifest.schedule.noise_schedule()
        sigmas = schedule.sigmas_at(schedule.timesteps(4, Spacing.LEADING)).tolist()
        common = {"steps": 4, "guidance": 4.0, "sampler": "euler", "spacing": "leading"}
        common |= {"return_latents": True, "seed": 7}
        (plain,) = (await client.generate("a cat face", **common)).pictures
        assert plain.latents is not None
        noise = NoiseStream(7).normal((1, *plain.latents.shape))
        (noised,) = (await client.generate("a cat face", latents=noise, **common)).pictures
        (told,) = (await client.generate(prompt_states=positive, negative_prompt_states=negative, **common)).pictures
        (levels,) = (await client.generate("a cat face", custom_sigmas=sigmas, **common)).pictures
        assert noised.data == plain.data
        assert np.array_equal(told.latents, plain.latents)
        assert levels.latents is not None
        assert np.linalg.norm(levels.latents - plain.latents) <= 1e-3 * np.linalg.norm(plain.latents)
        for field, value in (
            ("latents", noise[:, :1]), ("latents", noise * np.inf), ("prompt_states", positive[:2]),
            ("prompt_states", positive), ("custom_sigmas", sigmas[::-1]), ("custom_sigmas", sigmas[:2]),
        ):  # fmt: skip
            with pytest.raises(MezzotintClientError, match=field) as refused:
                await client.generate("a cat face", **{field: value}, **common)
            assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
