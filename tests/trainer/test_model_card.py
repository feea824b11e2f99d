"""A model's card: what hubs read in its head, and what people read below."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mezzotint.trainer.model_card import ModelCard, licence_of, public_name

CARD = ModelCard(
    name="sks-cat",
    base_name="emoji",
    base_digest="ab" * 32,
    licence="apache-2.0",
    prompts=("a photo of a sks cat", "a photo of a zwx dog"),
    settings={
        "max_train_steps": 100,
        "learning_rate": 5e-6,
        "optimizer": "a|b",
        "instance_data_dir": "/home/someone/cats",
        "resume_from_checkpoint": "/home/someone/run",
        "pretrained_model_name_or_path": "/home/someone/base",
        "base_config": "/home/someone/config",
        "output": Path("/home/someone"),
    },
)


def front_matter(text: str) -> dict[str, object]:
    head: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return head


def test_its_head_is_what_hubs_read() -> None:
    assert front_matter(CARD.text({})) == {
        "base_model": "emoji",
        "license": "apache-2.0",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "instance_prompt": "a photo of a sks cat",
        "tags": ["stable-diffusion", "dreambooth", "mezzotint"],
    }
    lora = front_matter(replace(CARD, licence="", is_lora=True).text({}))
    assert "license" not in lora
    assert lora["tags"] == ["stable-diffusion", "dreambooth", "mezzotint", "lora"]


def test_its_page_has_digests_and_settings_but_no_place_on_this_machine() -> None:
    page = CARD.text({"unet/a.safetensors": "cd" * 32}, "float16")
    for line in (
        f"(digest `{'ab' * 32}`)",
        f"| unet/a.safetensors | `{'cd' * 32}` |",
        "| max_train_steps | 100 |",
        "| learning_rate | 5e-06 |",
        "| optimizer | a&#124;b |",
        "torch_dtype=torch.float16",
    ):
        assert line in page
    assert "someone" not in page


def test_a_base_is_called_by_its_hub_id_but_never_by_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert public_name("runwayml/stable-diffusion-v1-5", "x") == "runwayml/stable-diffusion-v1-5"
    monkeypatch.chdir(tmp_path)
    Path("models/emoji").mkdir(parents=True)
    for local in ("models/emoji", str(tmp_path / "gone"), "../gone", "./gone", "~/gone", "a/b/gone", "gone.ckpt", ""):
        assert public_name(local, "x") == "x"


@pytest.mark.parametrize("is_lora", [True, False])
@pytest.mark.parametrize("prompts", [('a "sks" cat',), ()])
def test_its_code_is_python(is_lora: bool, prompts: tuple[str, ...]) -> None:
    page = replace(CARD, prompts=prompts, is_lora=is_lora).text({})
    compile(page.split("```python\n")[1].split("```")[0], "card", "exec")


@pytest.mark.parametrize(
    ("page", "licence"),
    [
        ("---\nlicense: creativeml-openrail-m\ntags: [a]\n---\n# x\n", "creativeml-openrail-m"),
        ("---\ntags: [a]\n---\n# x\n", ""),
        ("---\nlicense: [a, b]\n---\n", ""),
        ("---\nlicense: 'open\n---\n", ""),
        ("# x\nlicense: mit\n", ""),
        ("---\n", ""),
    ],
)
def test_the_bases_licence_is_what_its_own_card_says(page: str, licence: str, tmp_path: Path) -> None:
    assert licence_of(tmp_path) == ""
    (tmp_path / "README.md").write_text(page, encoding="utf-8")
    assert licence_of(tmp_path) == licence


def test_a_cards_own_head_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD.text({}), encoding="utf-8")
    assert licence_of(tmp_path) == "apache-2.0"
