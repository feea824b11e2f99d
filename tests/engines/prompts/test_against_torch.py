"""Prompts of the demo model against torch and diffusers with the same checkpoint, float32."""

from typing import Any

import numpy as np
import pytest
import torch

from mezzotint.compile.checkpoint import Checkpoint, load_checkpoint
from mezzotint.compile.verify import psnr_db, snr_db
from mezzotint.engines.batch import Batch
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from tests.conftest import BUILD, EMOJI, compile_by_hand
from tests.engines.by_hand import same, widened
from tests.engines.test_against_diffusers import paint_with_diffusers

ROOM = 22  # tokens of a prompt in the demo model's chunk
LONG = "a shark on a blue background, a cat face with heart eyes and a red hat, " * 3 + "a turtle and an (octopus:1.4)"
WEIGHTED = "a (shark:1.3) on a [blue] background with ((a red hat))"
CHANGING = f"(a cat:1.2) BREAK [a dog:a fox:0.5] BREAK {WEIGHTED}, [red|blue]"

# diffusers' schedulers hand torch tensors to numpy functions, which numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*__array:DeprecationWarning")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(EMOJI)


def tokens_of(checkpoint: Checkpoint, texts: list[tuple[str, float]]) -> list[tuple[int, float]]:
    each = [(checkpoint.tokenizer(text, add_special_tokens=False).input_ids, weight) for text, weight in texts]
    return [(token, weight) for ids, weight in each for token in ids]


def torch_states(checkpoint: Checkpoint, texts: list[list[tuple[str, float]]], clip_skip: int = 1) -> torch.Tensor:
    """Return what A1111's rule makes of weighted texts, a chunk each: float32 [tokens, width]."""
    return states_of(checkpoint, [tokens_of(checkpoint, text) for text in texts], clip_skip)


def states_of(checkpoint: Checkpoint, chunks: list[list[tuple[int, float]]], clip_skip: int = 1) -> torch.Tensor:
    """Return what A1111's rule makes of chunks of weighted tokens: float32 [tokens, width]."""
    made = []
    for tokens in chunks:
        fill = checkpoint.max_tokens - 1 - len(tokens)
        ids = [checkpoint.bos_token_id, *(token for token, _ in tokens), *[checkpoint.eos_token_id] * fill]
        weights = torch.tensor([1.0, *(weight for _, weight in tokens), *[1.0] * fill])
        with torch.no_grad():
            encoder = checkpoint.text_encoder
            hidden = encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states[-clip_skip]
            states = getattr(encoder, "text_model", encoder).final_layer_norm(hidden)[0]
        scaled = states * weights[:, None]
        made.append(scaled * (states.mean() / scaled.mean()))
    return torch.cat(made)


def our_states(model: Model, prompt: str, **fields: Any) -> list[np.ndarray[Any, Any]]:
    """Return the states of each text of a prompt."""
    (image,) = model.start(Request(prompt=prompt, guidance=1.0, **fields))
    model.encode(Batch((image,)))
    return [np.asarray(states) for states in (image.text or ())[0]]


@pytest.mark.parametrize("clip_skip", [0, 1, 2, 3])
def test_weighted_states_are_torchs(emoji: Model, checkpoint: Checkpoint, clip_skip: int) -> None:
    (states,) = our_states(emoji, WEIGHTED, clip_skip=clip_skip)
    chunk = [("a ", 1.0), ("shark", 1.3), (" on a ", 1.0), ("blue", 1 / 1.1), (" background with ", 1.0)]
    truth = torch_states(checkpoint, [[*chunk, ("a red hat", 1.21)]], max(1, clip_skip))
    assert snr_db(truth.numpy(), states) >= 80


def test_a_long_prompts_states_are_torchs_chunk_by_chunk(emoji: Model, checkpoint: Checkpoint) -> None:
    (states,) = our_states(emoji, LONG)
    tokens = tokens_of(checkpoint, [(LONG.removesuffix("(octopus:1.4)"), 1.0), ("octopus", 1.4)])
    ((comma, _),) = tokens_of(checkpoint, [(",", 1.0)])
    chunks: list[list[tuple[int, float]]] = []
    while len(tokens) > ROOM:
        cut = max(i + 1 for i in range(ROOM) if tokens[i][0] == comma)
        chunks, tokens = [*chunks, tokens[:cut]], tokens[cut:]
    assert len(chunks) >= 2
    truth = states_of(checkpoint, [*chunks, tokens])
    assert snr_db(truth.numpy(), states) >= 80


def test_chunks_are_bit_for_bit_what_each_is_alone(emoji: Model) -> None:
    parts = ["a cat", WEIGHTED, "a turtle, a fox"]
    (together,) = our_states(emoji, " BREAK ".join(parts))
    alone = np.concatenate([our_states(emoji, part)[0] for part in parts])
    np.testing.assert_array_equal(together, alone)


def paint(model: Model, **fields: Any) -> np.ndarray[Any, Any]:
    pixels = generate(model, [Request(steps=8, guidance=4.0, seed=7, sampler="ddim", **fields)])[0][0].pixels
    assert pixels is not None
    return pixels


def truth_of(checkpoint: Checkpoint, **options: Any) -> np.ndarray[Any, Any]:
    made = paint_with_diffusers(checkpoint, "ddim", [7], "np", num_inference_steps=8, guidance_scale=4.0, **options)[0]
    return (made * 255).round().astype(np.uint8)


@pytest.mark.parametrize("clip_skip", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_clip_skip_gives_diffusers_picture_of_that_layer(emoji: Model, checkpoint: Checkpoint, clip_skip: int) -> None:
    # as in A1111 both prompts are of that layer; diffusers' own clip_skip leaves the negative prompt at the last one
    positive, negative = (torch_states(checkpoint, [[(text, 1.0)]], clip_skip)[None] for text in ("a shark", "a cat"))
    truth = truth_of(checkpoint, prompt_embeds=positive, negative_prompt_embeds=negative)
    assert psnr_db(truth, paint(emoji, prompt="a shark", negative_prompt="a cat", clip_skip=clip_skip)) >= 45
    assert psnr_db(truth, paint(emoji, prompt="a shark", negative_prompt="a cat")) < 45


def test_a_long_weighted_prompt_gives_diffusers_picture_of_its_states(emoji: Model, checkpoint: Checkpoint) -> None:
    made = paint(emoji, prompt="a (shark:1.3) BREAK on a blue background", negative_prompt="a [cat]")
    positive = torch_states(checkpoint, [[("a ", 1.0), ("shark", 1.3)], [("on a blue background", 1.0)]])
    negative = torch_states(checkpoint, [[("a ", 1.0), ("cat", 1 / 1.1)], []])
    truth = truth_of(checkpoint, prompt_embeds=positive[None], negative_prompt_embeds=negative[None])
    assert psnr_db(truth, made) >= 45


def test_a_prompt_that_changes_gives_the_picture_of_a_pipeline_whose_prompt_is_exchanged(
    emoji: Model, checkpoint: Checkpoint
) -> None:
    made = paint(emoji, prompt="a [shark:turtle:3] on a blue background")
    texts = (f"a {word} on a blue background" for word in ("shark", "turtle"))
    first, then, empty = (torch_states(checkpoint, [[(text, 1.0)]]) for text in (*texts, ""))

    def exchange(_pipeline: Any, step: int, _timestep: Any, _tensors: Any) -> dict[str, torch.Tensor]:
        return {"prompt_embeds": torch.stack([empty, then])} if step == 2 else {}

    truth = truth_of(
        checkpoint, prompt_embeds=first[None], negative_prompt_embeds=empty[None], callback_on_step_end=exchange
    )
    assert psnr_db(truth, made) >= 45


def test_prompts_of_any_length_and_schedule_stay_bit_equal_in_company(emoji: Model) -> None:
    wide = widened(emoji)
    requests = [
        Request(prompt=CHANGING, steps=5, guidance=4.0, seed=1, sampler="heun"),
        Request(prompt="a shark", steps=6, guidance=4.0, seed=2),
        Request(prompt=LONG, negative_prompt="(cat:1.3)", steps=6, guidance=3.0, seed=3, sampler="euler_a"),
        Request(prompt="a [cat|dog]", steps=5, guidance=2.0, seed=4, clip_skip=2, num_images=2),
        Request(prompt=CHANGING, negative_prompt=LONG, steps=4, guidance=5.0, guidance_end=0.6, seed=5),
        Request(prompt="a shark BREAK a cat BREAK a dog", steps=3, guidance=1.0, seed=6),
    ]
    together = generate(wide, requests)
    for request, images in zip(requests, together, strict=True):
        alone = generate(emoji, [request], together=False)[0]
        assert all(map(same, images, alone))


@pytest.mark.slow
def test_another_runtimes_text_axis_is_as_long(emoji: Model) -> None:
    bundle = compile_by_hand(EMOJI, BUILD / "emoji-ort", "--precision", "fp32", "--backend", "onnxruntime")
    other = open_bundle(bundle, LoadOptions(devices={}, cache=False))
    fields = {"prompt": "a (shark:1.3) BREAK on a [blue:red:4] background", "negative_prompt": "a [cat]"}
    assert psnr_db(paint(emoji, **fields), paint(other, **fields)) >= 45
    other.close()
