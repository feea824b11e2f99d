"""Pictures made by a plain loop, one engine call of one row after the other: what batches must equal bit for bit."""

from typing import Any

import numpy as np

from mezzotint.engines.backend import Engine
from mezzotint.engines.component import Component
from mezzotint.engines.evaluations import unet_calls
from mezzotint.engines.generate import generate
from mezzotint.engines.image import Image
from mezzotint.engines.model import Model
from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import NUM_KEPT, advance, get_sampler, plan
from mezzotint.engines.schedule import Spacing
from mezzotint.engines.variants import FULL, SHALLOW


def paint(model: Model, request: Request) -> Image:
    return generate(model, [request])[0][0]


def widened(model: Model) -> Model:
    """Return the model with room for eight rows in a call, where this machine gains nothing from so many."""
    return Model(model.manifest, model.digest, model.prompts, model.engines, dict.fromkeys(model.max_rows, 8))


def same(a: Image, b: Image) -> bool:
    assert a.pixels is not None
    assert b.pixels is not None
    return np.array_equal(a.pixels, b.pixels)


def evaluate(engine: Engine, inputs: dict[str, Any], features: dict[str, Any], row: str) -> Any:
    """Return one row's output; the full engine leaves the row's feature, which the shallow one takes."""
    outputs = engine.run(inputs | ({"feature": features[row]} if engine.spec.variant == SHALLOW else {}))
    if "feature" in outputs:
        features[row] = outputs["feature"].copy()
    return outputs["output"].copy()


def by_hand(model: Model, request: Request) -> np.ndarray[Any, Any]:
    """Return the final latents [C, height, width] of a loop over evaluations, one engine call of one row at a time."""
    sampler, _ = get_sampler(request.sampler or model.manifest.schedule.default_sampler)
    spacing = model.manifest.schedule.timestep_spacing or sampler.default_spacing
    the_plan = plan(sampler, model.manifest.schedule.noise_schedule(), request.steps, spacing=Spacing(spacing))
    texts = (request.negative_prompt, *(part.text for part in request.parts))
    prompts = np.stack([model.prompts.chunks(text).ids[0] for text in texts])
    states = model.engines[Component.TEXT_ENCODER, FULL].run({"embeddings": model.prompts.embed(prompts)})["states"]
    uncond, *conds = [states[i : i + 1, 0].copy() for i in range(len(texts))]
    parts, scale = [part.weight for part in request.parts], max(1.0, request.guidance)
    entry = model.manifest.latents
    shape = (1, entry.channels, entry.default_height // entry.factor, entry.default_width // entry.factor)
    state = np.zeros((1, 1 + NUM_KEPT, *shape[1:]), np.float32)
    state[0, 0] = NoiseStream(request.seed).normal(shape)[0] * the_plan.initial_scale
    features: dict[str, Any] = {}
    complete = 0
    for e, call in enumerate(unet_calls(the_plan, request)):
        at = {"sample": state[:, 0] * the_plan.input_scales[e], "timestep": the_plan.timesteps[e : e + 1]}
        engine = model.engines[Component.UNET, call.variant]
        rows = [evaluate(engine, at | {"text": cond}, features, f"cond {i}") for i, cond in enumerate(conds)]
        weights = [part / sum(parts) for part in parts]
        if request.guidance_start <= complete / request.steps < request.guidance_end:
            rows.insert(0, evaluate(engine, at | {"text": uncond}, features, "uncond"))
            weights = [1 - scale * sum(parts), *(scale * part for part in parts)]
        guided = sum(row * np.float32(weight) for row, weight in zip(rows, weights, strict=True))
        state = advance(state, guided, None, the_plan.coefficients[e : e + 1])
        complete = int(the_plan.steps[e])
    return state[0, 0]
