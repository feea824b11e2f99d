"""The parts of a model, each of which becomes an engine, and the precisions that an engine may have."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Component(StrEnum):
    """A part of the model that becomes one engine."""

    TEXT_ENCODER = "text_encoder"
    UNET = "unet"
    VAE_DECODER = "vae_decoder"
    VAE_ENCODER = "vae_encoder"
    SAFETY_CHECKER = "safety_checker"


SHORT_NAMES: Mapping[str, tuple[Component, ...]] = MappingProxyType(
    {"text": (Component.TEXT_ENCODER,), "vae": (Component.VAE_DECODER, Component.VAE_ENCODER)}
)
"""What users may type for one component or several."""


def by_component(text: str) -> dict[str, str]:
    """Read ``cpu``, or ``text=cpu,unet=gpu``, as a value by component; the empty key is every other component's.

    Raises:
        ValueError: a name is no component.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.rpartition("=")
        if name and name not in {*SHORT_NAMES, *Component}:
            raise ValueError(f"{part!r}: {name!r} is no component; use {', '.join([*SHORT_NAMES, *Component])}")
        found |= dict.fromkeys(SHORT_NAMES.get(name, (name,)), value)
    return found


class Precision(StrEnum):
    """How an engine stores its weights and computes.

    ``int8`` multiplies int8 weights with 8-bit activations; ``int8-bf16`` too, and computes all else in bfloat16
    instead of float32; ``int8-hybrid`` multiplies so in convolutions alone;
    ``int8-weights`` stores weights as int8 and leaves activations as they are; ``int4-weights`` stores those of linear
    layers in four bits; ``fp8`` multiplies weights and activations in eight-bit floats (E4M3).
    """

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT8_BF16 = "int8-bf16"
    INT8_HYBRID = "int8-hybrid"
    INT8_WEIGHTS = "int8-weights"
    INT4_WEIGHTS = "int4-weights"
    FP8 = "fp8"

    @property
    def is_calibrated(self) -> bool:
        """Whether it rounds activations, and so needs to know their ranges."""
        return self in (Precision.INT8, Precision.INT8_BF16, Precision.INT8_HYBRID, Precision.FP8)
