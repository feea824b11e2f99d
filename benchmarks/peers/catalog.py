"""Who is timed and at which settings: peers, the models made for them, and the configurations that become rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEZZOTINT = "mezzotint"
_TORCH = "torch==2.13.0"


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that paints pictures, and the environment that it lives in.

    Attributes:
        name: the environment's folder.
        requirements: what pip installs, in exact versions.
        unwanted: what those pull in and what then has to go.
        build: environment variables of pip, where it builds from source.
        versions: the distributions whose versions a row depends on.
    """

    name: str
    requirements: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    build: Mapping[str, str] = field(default_factory=dict)
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Export:
    """A checkpoint in a peer's own format, made once.

    Attributes:
        name: its folder.
        peer: in whose environment it is made.
        command: what follows the environment's ``bin`` folder; ``{checkpoint}`` and ``{target}`` are filled in.
        needs: the export that it is made from, or the checkpoint where empty.
        quantise: settings of ``workers/openvino_quantise.py``, which makes it where there is no command.
        rest: the export that all other components are copied from.
    """

    name: str
    peer: str
    command: tuple[str, ...] = ()
    needs: str = ""
    quantise: Mapping[str, Any] = field(default_factory=dict)
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One row: a peer, its model and its settings.

    Attributes:
        name: how the row is called.
        peer: whose environment it runs in; Mezzotint's is the one that this runs in.
        worker: the module of ``workers/`` that paints.
        export: the model's export; empty is the checkpoint, or ``bundle``.
        settings: what the worker does differently from the peer's defaults.
        environment: environment variables that are read when the peer is loaded.
        bundle: Mezzotint's model.
    """

    name: str
    peer: str
    worker: str
    export: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    bundle: Path | None = None


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "diffusers",
            (_TORCH, "diffusers==0.42.1", "transformers==5.23.0", "accelerate==1.15.0"),
            versions=("diffusers", "torch", "transformers"),
        ),
        Peer(
            "optimum-onnx",
            (
                *(_TORCH, "optimum-onnx==0.1.0", "optimum==2.1.0", "onnxruntime==1.32.0", "onnx==1.23.2"),
                *("transformers==4.57.6", "diffusers==0.36.0", "accelerate==1.15.0"),
            ),
            versions=("optimum-onnx", "optimum", "onnxruntime", "torch", "diffusers"),
        ),
        Peer(
            "optimum-intel",
            (
                *(_TORCH, "optimum-intel==2.2.0", "openvino==2026.4.1", "openvino-tokenizers==2026.4.1.0"),
                *("nncf==3.4.0", "transformers==5.5.4", "diffusers==0.39.0", "accelerate==1.15.0"),
            ),
            # a build for CUDA, which torch's build for CPUs cannot import
            unwanted=("torchvision",),
            versions=("optimum-intel", "openvino", "nncf", "torch", "diffusers"),
        ),
        Peer(
            "openvino-genai",
            # the tokenizers' library and that of genai are one build: versions that differ do not load
            ("openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0", "openvino==2026.4.1", "pillow"),
            versions=("openvino-genai", "openvino"),
        ),
        Peer(
            "stable-diffusion.cpp",
            ("stable-diffusion-cpp-python==0.4.7", "numpy"),
            build={"CMAKE_ARGS": "-DGGML_NATIVE=ON"},
            versions=("stable-diffusion-cpp-python",),
        ),
        Peer(MEZZOTINT, versions=("mezzotint", "openvino", "onnxruntime")),
    )
}


def _openvino_cli(weights: str) -> tuple[str, ...]:
    made_as = ("--task", "text-to-image", "--weight-format", weights)
    return ("optimum-cli", "export", "openvino", "--model", "{checkpoint}", *made_as, "{target}")


EXPORTS = {
    export.name: export
    for export in (
        Export("openvino-fp32", "optimum-intel", _openvino_cli("fp32")),
        Export("openvino-int8-weights", "optimum-intel", _openvino_cli("int8")),
        # what `--weight-format int8 --dataset …` and `--quant-mode int8 --dataset …` do, on prompts that are here
        Export("openvino-hybrid", "optimum-intel", needs="openvino-fp32", quantise={"unet": "hybrid"}),
        Export("openvino-int8", "optimum-intel", needs="openvino-fp32", quantise={"unet": "int8"}),
        Export(
            "openvino-int8-vae",
            "optimum-intel",
            needs="openvino-fp32",
            quantise={"vae_decoder": "int8"},
            rest="openvino-int8",
        ),
        Export(
            "onnx-fp32",
            "optimum-onnx",
            (
                *("optimum-cli", "export", "onnx", "--model", "{checkpoint}", "--task", "text-to-image"),
                *("--dtype", "fp32", "{target}"),
            ),
        ),
    )
}

_OPENVINO_MODELS = {
    "openvino-fp32": "fp32",
    "openvino-int8-weights": "int8 weights",
    "openvino-hybrid": "hybrid int8",
    "openvino-int8": "full int8",
    "openvino-int8-vae": "full int8, VAE too",
}
# Which hint is faster depends on the CPU: bf16 is OpenVINO's own choice where there are instructions for it.
_BEST_OPENVINO: dict[str, dict[str, Any]] = {
    f"static, {hint} hint": {"static": True, "properties": {"INFERENCE_PRECISION_HINT": hint}}
    for hint in ("f32", "bf16")
}


def _diffusers() -> list[Configuration]:
    freezing = {"TORCHINDUCTOR_FREEZING": "1"}
    rows: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        "fp32 (default)": ({}, {}),
        "fp32, channels_last": ({"channels_last": True}, {}),
        "bf16, channels_last": ({"channels_last": True, "dtype": "bfloat16"}, {}),
        "torch.compile, fp32": ({"compile": True}, {}),
        "torch.compile, fp32, channels_last, freezing": ({"compile": True, "channels_last": True}, freezing),
        "torch.compile, bf16, channels_last, freezing": (
            {"compile": True, "channels_last": True, "dtype": "bfloat16"},
            freezing,
        ),
    }
    return [
        Configuration(f"diffusers: {name}", "diffusers", "diffusers_torch", settings=settings, environment=environment)
        for name, (settings, environment) in rows.items()
    ]


def _optimum_onnx() -> list[Configuration]:
    rows = {
        "fp32 (default)": {},
        "fp32, all optimisations, threads, denormals as zero": {"tuned": True},
    }
    return [
        Configuration(f"ONNX Runtime (optimum): {name}", "optimum-onnx", "optimum_onnx", "onnx-fp32", settings)
        for name, settings in rows.items()
    ]


def _openvino(label: str, peer: str, worker: str, *, defaults: tuple[str, ...]) -> list[Configuration]:
    rows = [
        Configuration(f"{label}: {_OPENVINO_MODELS[export]} (default)", peer, worker, export) for export in defaults
    ]
    return rows + [
        Configuration(f"{label}: {model}, {name}", peer, worker, export, settings)
        for export, model in _OPENVINO_MODELS.items()
        for name, settings in _BEST_OPENVINO.items()
    ]


def _stable_diffusion_cpp() -> list[Configuration]:
    tuned = {"diffusion_flash_attn": True, "diffusion_conv_direct": True, "vae_conv_direct": True}
    rows: dict[str, dict[str, Any]] = {
        "as stored": {},
        "q8_0": {"wtype": "q8_0"},
        "as stored, flash attention, direct convolutions": tuned,
        "q8_0, UCache": {"wtype": "q8_0", "generate": {"cache_mode": "ucache"}},
    }
    name = "stable-diffusion.cpp"
    return [Configuration(f"{name}: {row}", name, "stable_diffusion_cpp", settings=rows[row]) for row in rows]


def peers_configurations() -> list[Configuration]:
    """Return every configuration of every peer."""
    return [
        *_diffusers(),
        *_optimum_onnx(),
        *_openvino("optimum-intel", "optimum-intel", "optimum_intel", defaults=("openvino-fp32",)),
        *_openvino("openvino.genai", "openvino-genai", "openvino_genai", defaults=tuple(_OPENVINO_MODELS)),
        *_stable_diffusion_cpp(),
    ]
