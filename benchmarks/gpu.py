"""What does a GPU gain from calls of many rows, and are pictures made faster than by diffusers on the same GPU?

    python -m benchmarks.gpu build/sd15-cuda build/sd15-full --name sd15-size

The bundle is compiled for ONNX Runtime with `--device cuda` and at least 16 rows. diffusers runs in float16 where the
bundle's UNet does, else in float32, with PyTorch's own attention and nothing compiled: as its README starts.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from benchmarks.harness import interleaved, publish
from benchmarks.start import served
from mezzotint import Client
from mezzotint.engines import device
from mezzotint.engines.backend import Engine, OffHost
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.model import Model
from mezzotint.engines.timing import distinct_rows
from mezzotint.engines.variants import FULL

PROMPT = "a photo of an owl"
ROWS = (1, 2, 4, 8, 16)
AT_ONCE = (1, 4, 8)


def unet_calls(model: Model, unet: torch.nn.Module, rounds: int) -> list[dict[str, Any]]:
    """Return a line a row count: milliseconds of the engine's call and of diffusers', taken in turns."""
    engine, lines = model.engines[Component.UNET, FULL], []
    if not isinstance(engine, OffHost):
        raise SystemExit(f"{model.name}: its UNet runs on {engine.device}; compile it with --device cuda")
    weight = next(unet.parameters())
    for rows in (count for count in ROWS if count <= engine.spec.axes["rows"].max):
        given = {name: device.place(array, engine.like) for name, array in distinct_rows(engine.spec, rows).items()}
        told = {name: torch.from_numpy(device.to_host(array)).to(weight.device) for name, array in given.items()}
        times = interleaved(
            {
                "ours": partial(_run, engine, given),
                "diffusers": partial(_called, unet, told, weight.dtype),
            },
            rounds=rounds,
            warmup=5,
        )
        ours, theirs = (float(np.median(times[name])) for name in ("ours", "diffusers"))
        lines.append(
            {
                "what": f"a UNet call of {rows} rows, ms",
                "ours": round(ours, 2),
                "diffusers": round(theirs, 2),
                "times as fast": round(theirs / ours, 2),
                "ours, ms a row": round(ours / rows, 3),
            }
        )
    return lines


def _run(engine: Engine, given: Mapping[str, device.Array]) -> None:
    for output in engine.run(given).values():
        device.wait(output)


def _called(unet: torch.nn.Module, told: Mapping[str, torch.Tensor], dtype: torch.dtype) -> None:
    with torch.inference_mode():
        unet(told["sample"].to(dtype), told["timestep"], told["text"].to(dtype))
    _finish(told["sample"])


def _finish(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def pictures_a_second(target: str, steps: int, at_once: int, each: int) -> float:
    """Return pictures a second of a server whose ``at_once`` clients ask for ``each`` pictures, one by one."""
    with Client(target) as client, ThreadPoolExecutor(at_once) as clients:

        def ask(first: int, count: int) -> None:
            for i in range(count):
                client.generate(PROMPT, steps=steps, guidance=7.5, seed=first + i, sampler="ddim")

        for count in (2, each):  # the first warm it up
            begun = time.perf_counter()
            for done in [clients.submit(ask, i * each, count) for i in range(at_once)]:
                done.result()
        return at_once * each / (time.perf_counter() - begun)


def painted(paint: Callable[[int], object], at_once: int, each: int) -> float:
    """Return pictures a second of a pipeline that is called with batches of ``at_once`` pictures."""
    paint(at_once)
    begun = time.perf_counter()
    for _ in range(each):
        paint(at_once)
    return at_once * each / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoint", type=Path, help="the diffusers folder that the bundle was compiled from")
    parser.add_argument("--name", required=True, help="of the result's files")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=4, help="that each client asks for")
    options = parser.parse_args()
    manifest = read_manifest(options.bundle)
    precision = manifest.engine(Component.UNET).precision
    dtype = torch.float16 if precision is Precision.FP16 else torch.float32
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        options.checkpoint, torch_dtype=dtype, safety_checker=None, requires_safety_checker=False
    ).to(options.device)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    model = open_bundle(options.bundle, LoadOptions(devices={"": options.device}, cache=False))
    rows = unet_calls(model, pipeline.unet, options.rounds)
    model.close()
    height, width = manifest.latents.default_height, manifest.latents.default_width
    for at_once in AT_ONCE:
        with served(options.bundle, options=["--device", options.device]) as server:
            ours = pictures_a_second(server.address, options.steps, at_once, options.pictures)
        theirs = painted(
            lambda count: pipeline(
                PROMPT, num_inference_steps=options.steps, guidance_scale=7.5, num_images_per_prompt=count,
                height=height, width=width,
            ),
            at_once,
            options.pictures,
        )  # fmt: skip
        rows.append(
            {
                "what": f"pictures a second, {at_once} at once, {options.steps} steps",
                "ours": round(ours, 2),
                "diffusers": round(theirs, 2),
                "times as fast": round(ours / theirs, 2),
                "ours, ms a row": "",
            }
        )
    gpu = torch.cuda.get_device_name() if options.device.startswith("cuda") else "no GPU"
    question = (
        f"What does a GPU gain from calls of many rows? {options.name}, {precision}, {width}×{height}, {gpu}; "
        "served one picture a request, diffusers with one batch of as many"
    )
    publish(f"gpu-{options.name}", question, rows, {"gpu": gpu, "rounds": options.rounds, "precision": str(precision)})


if __name__ == "__main__":
    main()
