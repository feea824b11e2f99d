"""A model's ``README.md``: what it was made from and how, with the digests of its files, in the form that hubs read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = "README.md"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PLACES = ("_dir", "_path", "_checkpoint", "base_config")  # ends of the names of settings that may be local paths
_FENCE = "---\n"
_WHOLE = """\
pipeline = DiffusionPipeline.from_pretrained("{name}", torch_dtype={dtype})"""
_LORA = """\
pipeline = DiffusionPipeline.from_pretrained("{base}")
pipeline.load_lora_weights("{name}")"""
_PAGE = """\
# {name}

{what} {base} (digest `{digest}`), trained with Mezzotint{prompts}.

```python
import torch
from diffusers import DiffusionPipeline

{load}
picture = pipeline({prompt!r}).images[0]
```

## Files
| file | SHA-256 |
| --- | --- |
{files}

## Settings
| setting | value |
| --- | --- |
{settings}
"""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a card says.

    Attributes:
        name: the model's.
        base_name: what it was made from, as ``public_name`` has it.
        base_digest: of that, as the compiler has it.
        licence: the base's, as its own card names it; empty where it does not.
        prompts: what its pictures were trained under, if that is one for many; the first is the one to try.
        settings: the run's; those that name places on this machine do not appear.
        is_lora: a LoRA for the base, and no whole model.
    """

    name: str
    base_name: str
    base_digest: str
    licence: str
    prompts: Sequence[str]
    settings: Mapping[str, object]
    is_lora: bool = False

    def text(self, digests: Mapping[str, str], dtype: str = "float32") -> str:
        """Return the page; ``digests`` are the SHA-256 of the model's files by name, ``dtype`` is torch's name."""
        load = _LORA if self.is_lora else _WHOLE
        settings = {name: value for name, value in self.settings.items() if _is_public(name, value)}
        page = _PAGE.format(
            name=self.name,
            what="A LoRA for" if self.is_lora else "A DreamBooth fine-tune of",
            base=self.base_name,
            digest=self.base_digest,
            prompts=" on " + ", ".join(f"`{prompt}`" for prompt in self.prompts) if self.prompts else "",
            load=load.format(name=self.name, base=self.base_name, dtype=f"torch.{dtype}"),
            prompt=self._prompt,
            files=_rows({name: f"`{digest}`" for name, digest in digests.items()}),
            settings=_rows(settings),
        )
        return f"{_FENCE}{yaml.safe_dump(self._front_matter(), sort_keys=False, allow_unicode=True)}{_FENCE}{page}"

    @property
    def _prompt(self) -> str:
        return self.prompts[0] if self.prompts else ""

    def _front_matter(self) -> dict[str, Any]:
        kind = ["lora"] if self.is_lora else []
        licence = {"license": self.licence} if self.licence else {}
        return {
            "base_model": self.base_name,
            **licence,
            "library_name": "diffusers",
            "pipeline_tag": "text-to-image",
            "instance_prompt": self._prompt,
            "tags": ["stable-diffusion", "dreambooth", "mezzotint", *kind],
        }


def public_name(source: str, name: str) -> str:
    """Return what a card calls a base: the hub id that it came from, and otherwise its name, which is no path."""
    return source if _HUB_ID.fullmatch(source) and not Path(source).exists() else name


def licence_of(folder: Path) -> str:
    """Return the licence that a model's own card names in its first lines; empty where there is none."""
    try:
        page = (folder / FILE).read_text(encoding="utf-8")
        matter = yaml.safe_load(page.split(_FENCE)[1]) if page.startswith(_FENCE) else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ""
    licence = matter.get("license") if isinstance(matter, dict) else None
    return licence if isinstance(licence, str) else ""


def _is_public(name: str, value: object) -> bool:
    return isinstance(value, str | int | float | bool) and not name.endswith(_PLACES)


def _rows(values: Mapping[str, object]) -> str:
    return "\n".join(f"| {name} | {str(value).replace('|', '&#124;')} |" for name, value in values.items())
