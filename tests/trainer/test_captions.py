"""Captions: one prompt for all, files' names, or text files beside them."""

from pathlib import Path

import pytest

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.captions import Captions, captions_of, class_captions_of, from_name

PROMPT = "a photo of a sks cat"


def test_the_prompt_is_every_picture_s() -> None:
    assert captions_of([Path("1.png"), Path("2.png")], Captions.PROMPT, PROMPT) == [PROMPT, PROMPT]


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("a sks cat on grass.png", "a sks cat on grass"),
        ("a_sks_cat (12).png", "a sks cat"),
        ("a sks cat-02.jpg", "a sks cat"),
        ("a_sks_cat_2.webp", "a sks cat"),
        ("a sks cat22.png", "a sks cat22"),
        ("a  sks\ncat.png", "a sks cat"),
        ("a sks cat, 3.5 m.png", "a sks cat, 3.5 m"),
        ("007.png", ""),
        ("a sks \udcff cat.png", ""),
    ],
)
def test_a_name_is_read_without_its_counter(name: str, caption: str) -> None:
    assert from_name(Path(name)) == caption


def test_text_files_are_read_as_one_line(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("﻿a sks cat\non grass \n", encoding="utf-8")
    assert captions_of([tmp_path / "1.png"], Captions.TXT, PROMPT) == ["a sks cat on grass"]


def test_all_pictures_without_a_caption_are_named(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("a sks cat", encoding="utf-8")
    (tmp_path / "2.txt").write_text(" \n", encoding="utf-8")
    pictures = [tmp_path / f"{i}.png" for i in (1, 2, 3)]
    with pytest.raises(TrainError, match=r"2\.png, .*3\.png: no caption, expected a text file of the same name"):
        captions_of(pictures, Captions.TXT, PROMPT)
    with pytest.raises(TrainError, match=r"1\.png, .*2\.png, .*3\.png: no caption, expected words in its name"):
        captions_of(pictures, Captions.FILENAME, PROMPT)


@pytest.mark.parametrize(("content", "why"), [(b"\xff\xfe\x00", "is not UTF-8 text"), (b"a" * 20_000, "is longer")])
def test_a_text_file_that_is_no_caption_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "1.txt").write_bytes(content)
    with pytest.raises(TrainError, match=why):
        captions_of([tmp_path / "1.png"], Captions.TXT, PROMPT)


def test_class_pictures_have_the_class_prompt_unless_a_text_file_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "2.txt").write_text("a black cat", encoding="utf-8")
    pictures = [tmp_path / "1.png", tmp_path / "2.png"]
    assert class_captions_of(pictures, Captions.TXT, "a cat") == ["a cat", "a black cat"]
    assert class_captions_of(pictures, Captions.FILENAME, "a cat") == ["a cat", "a cat"]
