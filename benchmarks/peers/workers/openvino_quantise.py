"""optimum-intel's hybrid and full int8 exports, calibrated on prompts that are here instead of a data set of the hub.

The quantisation is optimum-intel's own, in the settings of its command line. Its data sets cannot be reached offline,
and it would calibrate at the checkpoint's own size, with PNDM; here the same tool collects at the size and with the
sampler that are painted with.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import nncf
import torch
from optimum.intel import (
    OVConfig,
    OVPipelineQuantizationConfig,
    OVQuantizationConfig,
    OVQuantizer,
    OVStableDiffusionPipeline,
    OVWeightQuantizationConfig,
)
from optimum.intel.openvino.quantization import InferRequestWrapper, OVCalibrationDataset

from benchmarks.peers.workers.diffusers_pipeline import use_ddim

_STEPS = 20
_GUIDANCE = 7.5
_MOST_PICTURES = 200  # a decoder is run once a picture, so that its own samples are few

PROMPTS = (
    "a photograph of an astronaut riding a horse on the beach",
    "an oil painting of a harbour at sunset, boats and gulls",
    "a bowl of ripe fruit on a wooden table, soft window light",
    "a red fox asleep in fresh snow",
    "a city street at night in the rain, neon signs reflected",
    "portrait of an old fisherman with a grey beard",
    "a watercolour of a mountain lake in autumn",
    "a steam locomotive crossing a stone viaduct",
    "a close-up of a bee on a sunflower",
    "an isometric drawing of a small library",
    "a plate of pancakes with blueberries and syrup",
    "a lighthouse in a storm, waves breaking over the rocks",
    "two children flying a kite in a green field",
    "a blueprint of an antique pocket watch",
    "a tabby cat looking out of a window",
    "a desert canyon under a sky full of stars",
)


def collect(pipeline: Any, components: list[str], job: dict[str, Any]) -> dict[str, list[Any]]:
    """Paint until the UNet was called ``samples`` times; returns the inputs of each component's calls."""
    parts = {name: pipeline.vae.decoder if name == "vae_decoder" else getattr(pipeline, name) for name in components}
    inputs: dict[str, list[Any]] = {name: [] for name in components}
    pipeline.compile()
    requests = {name: part.request for name, part in parts.items()}
    for name, part in parts.items():
        part.request = InferRequestWrapper(part.request, inputs[name])
    height, width = job["size"]
    for picture in range(_MOST_PICTURES):
        pipeline(
            prompt=PROMPTS[picture % len(PROMPTS)],
            height=height,
            width=width,
            num_inference_steps=_STEPS,
            guidance_scale=_GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(picture),
        )
        if (picture + 1) * _STEPS >= job["samples"]:
            break
    for name, part in parts.items():
        part.request = requests[name]
    return {name: calls[: job["samples"]] for name, calls in inputs.items()}


def quantisation(components: dict[str, str], samples: dict[str, int]) -> Any:
    """Return the configuration that optimum-intel's command line makes of the same wish."""
    configs = {
        name: OVWeightQuantizationConfig(bits=8, quant_method="hybrid", num_samples=samples[name])
        if kind == "hybrid"
        else OVQuantizationConfig(bits=8, num_samples=samples[name])
        for name, kind in components.items()
    }
    return OVPipelineQuantizationConfig(configs, default_config=OVWeightQuantizationConfig(bits=8))


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    source, target, components = Path(job["model"]), Path(job["target"]), job["quantise"]
    pipeline = OVStableDiffusionPipeline.from_pretrained(
        source, compile=False, ov_config={"INFERENCE_PRECISION_HINT": "f32"}, safety_checker=None
    )
    use_ddim(pipeline)
    calls = collect(pipeline, list(components), job)
    pipeline.clear_requests()
    config = quantisation(components, {name: len(found) for name, found in calls.items()})
    dataset = OVCalibrationDataset({name: nncf.Dataset(found) for name, found in calls.items()})
    OVQuantizer(pipeline).quantize(calibration_dataset=dataset, ov_config=OVConfig(quantization_config=config))
    pipeline.save_pretrained(target)
    if "rest" in job:
        for part in sorted(Path(job["rest"]).glob("*/openvino_model.xml")):
            if part.parent.name not in components:
                shutil.copytree(part.parent, target / part.parent.name, dirs_exist_ok=True)
    # openvino.genai reads the scheduler's file and the converted tokenizer
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(source / name, target / name, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
