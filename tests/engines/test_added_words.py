"""Textual-inversion files: every format gives diffusers' picture, and what does not fit is one sentence."""

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.verify import psnr_db
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.embedding_file import EmbeddingPath, parse_embedding_path
from mezzotint.engines.errors import EmbeddingError
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.model import Model
from mezzotint.engines.prompt import Prompts
from mezzotint.engines.request import Request
from tests.conftest import EMOJI
from tests.engines.by_hand import paint, same
from tests.fake_manifest import TEXT, WIDTH
from tests.fakes import fake_model

Vectors = torch.Tensor
Write = Callable[[Path, Vectors], Path]

HERE = LoadOptions(devices={}, cache=False)
PROMPT = "a <toy>, on a blue background"


def a1111(path: Path, vectors: Vectors) -> Path:
    held = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors.requires_grad_()},
        "name": "other",
        "step": 9,
    }
    torch.save(held | {"sd_checkpoint": None, "sd_checkpoint_name": None}, path / "toy.pt")
    return path / "toy.pt"


def a1111_safe(path: Path, vectors: Vectors) -> Path:
    save_file({"emb_params": vectors}, path / "toy.safetensors")
    return path / "toy.safetensors"


def learned_embeds(path: Path, vectors: Vectors) -> Path:
    save_file({"<toy>": vectors.half() if len(vectors) > 1 else vectors[0].half()}, path / "learned_embeds.safetensors")
    return path / "learned_embeds.safetensors"


def learned_embeds_bin(path: Path, vectors: Vectors) -> Path:
    torch.save({"<toy>": vectors if len(vectors) > 1 else vectors[0]}, path / "learned_embeds.bin")
    return path / "learned_embeds.bin"


@pytest.fixture(scope="module")
def table(emoji_bundle: Path) -> np.ndarray[Any, Any]:
    entry = read_manifest(emoji_bundle).text
    return np.array(np.load(emoji_bundle / entry.embeddings))


def learned(table: np.ndarray[Any, Any], num_vectors: int) -> Vectors:
    """Vectors as training leaves them: of no word, but as long as those of words."""
    rng = np.random.default_rng(num_vectors)
    mixed = [table[rng.integers(300, 3000, 3)].mean(axis=0) * 1.7 for _ in range(num_vectors)]
    return torch.tensor(np.array(mixed, np.float32)).half().float()


def with_words(model: Model, bundle: Path, *files: Path | EmbeddingPath) -> Model:
    """Return the model on the same engines with files loaded."""
    given = [file if isinstance(file, EmbeddingPath) else EmbeddingPath(file) for file in files]
    prompts = Prompts(bundle, model.manifest.text, given)
    return Model(model.manifest, model.digest, prompts, model.engines, model.max_rows)  # type: ignore[arg-type]


def paint_with_diffusers(vectors: Vectors, prompt: str) -> np.ndarray[Any, Any]:
    pipeline = load_checkpoint(EMOJI).pipeline()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_textual_inversion({"<toy>": vectors})
    generator = torch.Generator("cpu").manual_seed(7)
    made = pipeline(prompt, num_inference_steps=8, guidance_scale=4.0, generator=[generator], output_type="np")
    return np.asarray((made.images[0] * 255).round().astype(np.uint8))


REQUEST = Request(prompt=PROMPT, steps=8, guidance=4.0, seed=7)


@pytest.mark.filterwarnings("ignore:.*__array:DeprecationWarning")
@pytest.mark.parametrize("num_vectors", [1, 3])
def test_a_trigger_word_paints_what_diffusers_paints(
    emoji: Model, emoji_bundle: Path, table: np.ndarray[Any, Any], tmp_path: Path, num_vectors: int
) -> None:
    vectors = learned(table, num_vectors)
    model = with_words(emoji, emoji_bundle, EmbeddingPath(a1111(tmp_path, vectors), "<toy>"))
    made = paint(model, REQUEST).pixels
    truth = paint_with_diffusers(vectors.detach(), PROMPT)
    assert made is not None
    assert psnr_db(truth, made) >= 45
    without = paint(emoji, REQUEST).pixels
    assert without is not None
    assert psnr_db(truth, without) < 30


@pytest.mark.parametrize("num_vectors", [1, 3])
def test_every_format_gives_the_same_picture(
    emoji: Model, emoji_bundle: Path, table: np.ndarray[Any, Any], tmp_path: Path, num_vectors: int
) -> None:
    formats: list[tuple[Write, str]] = [
        (a1111, "toy"),
        (a1111_safe, "toy"),
        (learned_embeds, ""),
        (learned_embeds_bin, ""),
    ]
    pictures = []
    for write, name in formats:
        file = write(tmp_path, learned(table, num_vectors))
        model = with_words(emoji, emoji_bundle, file)
        pictures.append(paint(model, Request(prompt=f"a {name or '<toy>'} face", steps=2, seed=7)))
    assert all(same(pictures[0], other) for other in pictures[1:])
    assert not same(pictures[0], paint(emoji, Request(prompt="a toy face", steps=2, seed=7)))


def test_a_word_is_found_in_capitals_and_beside_signs_and_not_inside_of_others(
    emoji: Model, emoji_bundle: Path, table: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    file = renamed(a1111_safe(tmp_path, learned(table, 2)), "mytoy")
    prompts = with_words(emoji, emoji_bundle, file).prompts
    first = len(table)
    for text in ("a mytoy", "MyToy", "(mytoy:1.2)", "mytoy,", "a cat-mytoy"):
        ids = prompts.chunks(text).ids[0].tolist()
        assert [i for i in ids if i >= first] == [first, first + 1], text
    for text in ("mytoys", "amytoy", "my toy"):
        assert prompts.chunks(text).ids.max() < first, text


def test_the_vectors_of_a_word_stay_in_one_chunk_and_have_its_weight(
    emoji: Model, emoji_bundle: Path, table: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    prompts = with_words(emoji, emoji_bundle, a1111_safe(tmp_path, learned(table, 3))).prompts
    room, first = prompts.special.room, len(table)
    made = prompts.chunks("a " * (room - 2) + "(toy:1.2) a")
    assert [np.count_nonzero(ids >= first) for ids in made.ids] == [0, 3]
    assert made.weights[1, 1:5].tolist() == pytest.approx([1.2, 1.2, 1.2, 1.0])


def renamed(path: Path, name: str) -> Path:
    return path.rename(path.with_stem(name))


def test_prompts_without_the_word_and_the_bundles_files_stay_as_they_were(
    emoji: Model, emoji_bundle: Path, table: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    before = {file.name: hashlib.sha256(file.read_bytes()).digest() for file in emoji_bundle.iterdir()}
    model = with_words(emoji, emoji_bundle, a1111_safe(tmp_path, learned(table, 2)))
    request = Request(prompt="a shark", steps=2, seed=7)
    assert same(paint(model, request), paint(emoji, request))
    assert before == {file.name: hashlib.sha256(file.read_bytes()).digest() for file in emoji_bundle.iterdir()}


def test_hashes_name_the_words_that_prompts_have(
    emoji: Model, emoji_bundle: Path, table: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    first, second = (
        a1111_safe(tmp_path, learned(table, 1)),
        renamed(a1111_safe(tmp_path / "b", learned(table, 2)), "grim"),
    )
    words = with_words(emoji, emoji_bundle, first, second).prompts.words
    digest = hashlib.sha256(first.read_bytes()).hexdigest()[:12]
    assert words.hashes(("a toy", "")) == f"toy: {digest}"
    assert re.fullmatch(rf"toy: {digest}, grim: [0-9a-f]{{12}}", words.hashes(("(a TOY:1.2)", "grim")))
    assert words.hashes(("a shark", "")) == emoji.prompts.words.hashes(("a toy", "")) == ""


def refusal(folder: Path, file: Path, name: str = "") -> str:
    fake_model(folder)
    with pytest.raises(EmbeddingError) as refused:
        Prompts(folder, TEXT, [EmbeddingPath(file, name)])
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


GOOD = torch.ones(2, WIDTH)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cat", "embedding 'cat': its name is a word that the model knows, which every prompt with it would then mean; "
         "name it `--embedding NAME=FILE`"),
        ("two words", "embedding 'two words': its name must be one word without"),
        ("a:b", "embedding 'a:b': its name must be one word without"),
        ("BREAK", "embedding 'BREAK': its name must be one word without"),
        ("x" * 101, "its name must be one word without"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_trigger_word_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, a1111_safe(tmp_path, GOOD), name)


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        (torch.ones(2, WIDTH + 1), f"'toy': its vectors have a width of {WIDTH + 1}, and this model takes {WIDTH}: it "
         "was made for another one; leave it out"),
        (torch.ones(7, WIDTH), "'toy': it has 7 vectors, and a prompt has room for 6; leave it out"),
        (torch.full((1, WIDTH), torch.nan), "its vectors have values that are no finite numbers"),
        (torch.full((1, WIDTH), torch.inf), "its vectors have values that are no finite numbers"),
        (torch.ones(0, WIDTH), "its tensor is none of vectors; expected floats [vectors, width]"),
        (torch.ones(1, 1, WIDTH), "its tensor is none of vectors; expected floats [vectors, width]"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("write", [a1111, a1111_safe])
def test_vectors_that_do_not_fit_are_refused(tmp_path: Path, write: Write, vectors: Vectors, sentence: str) -> None:
    assert sentence in refusal(tmp_path, write(tmp_path, vectors.clone()))


def test_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.safetensors"
    save_file({"clip_g": GOOD, "clip_l": GOOD.clone()}, path)
    assert "toy.safetensors: cannot be used: it holds clip_g, clip_l, where one token's" in refusal(tmp_path, path)
    save_file({"emb_params": GOOD.int()}, path)
    assert "its tensor is of I32, where floats are expected" in refusal(tmp_path, path)
    path.write_bytes(path.read_bytes()[:20])
    assert "it is damaged (" in refusal(tmp_path, path)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "toy.pt")
    assert "it holds more than plain values and tensors" in refusal(tmp_path, tmp_path / "toy.pt")
    torch.save([GOOD], tmp_path / "toy.pt")
    assert "it holds list, where one token's vectors are expected" in refusal(tmp_path, tmp_path / "toy.pt")
    (tmp_path / "toy.png").write_bytes(b"x")
    assert "its suffix is none of .safetensors, .pt, .bin" in refusal(tmp_path, tmp_path / "toy.png")
    assert "cannot be read (No such file or directory)" in refusal(tmp_path, tmp_path / "away.pt")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    fake_model(tmp_path)
    file = a1111_safe(tmp_path, GOOD)
    with pytest.raises(EmbeddingError, match="embedding 'TOY': another file has that name; name it"):
        Prompts(tmp_path, TEXT, [EmbeddingPath(file), EmbeddingPath(file, "TOY")])


def test_of_a_folder_what_fits_is_learned_and_the_rest_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_model(tmp_path)
    folder = tmp_path / "words"
    folder.mkdir()
    a1111_safe(folder, GOOD)
    renamed(a1111_safe(folder, torch.ones(1, WIDTH + 4)), "wide")
    a1111(folder, GOOD.clone()).rename(folder / "other.pt")
    (folder / "readme.txt").write_text("no embedding")
    a1111_safe(folder, GOOD)
    with caplog.at_level(logging.WARNING):
        prompts = Prompts(tmp_path, TEXT, [EmbeddingPath(folder)])
    assert prompts.words.hashes(("toy other wide",)).count(":") == 2
    (left_out,) = caplog.messages
    assert left_out.startswith("left out: embedding 'wide': its vectors have a width of 8")


def test_a_folder_without_files_or_with_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty: holds no file of .safetensors, .pt, .bin; name the file" in refusal(tmp_path, tmp_path / "empty")
    a1111_safe(tmp_path / "empty", GOOD)
    assert "empty: is a folder, and a name is one file's" in refusal(tmp_path, tmp_path / "empty", "toy")


def test_what_the_option_says_is_a_path_or_a_name_and_one(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.pt"
    odd.touch()
    assert parse_embedding_path(str(odd)) == EmbeddingPath(odd)
    assert parse_embedding_path("toy=x/y.pt") == EmbeddingPath(Path("x/y.pt"), "toy")
    assert parse_embedding_path("x/y.pt") == EmbeddingPath(Path("x/y.pt"))


def test_a_bundle_opens_with_files_and_refuses_those_that_do_not_fit(
    emoji_bundle: Path, table: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    file = a1111_safe(tmp_path, learned(table, 2))
    model = open_bundle(emoji_bundle, replace(HERE, embeddings=(EmbeddingPath(file),)))
    assert model.start(Request(prompt="a toy"))[0].rows[1].texts[0].ids.max() == len(table) + 1
    model.close()
    with pytest.raises(EmbeddingError, match="embedding 'Shark': its name is a word that the model knows"):
        open_bundle(emoji_bundle, replace(HERE, embeddings=(EmbeddingPath(file, "Shark"),)))
    wide = a1111_safe(tmp_path, torch.ones(1, 8))
    with pytest.raises(
        EmbeddingError, match="embedding 'toy': its vectors have a width of 8, and this model takes 192"
    ):
        open_bundle(emoji_bundle, replace(HERE, embeddings=(EmbeddingPath(wide),)))
