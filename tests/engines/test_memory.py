"""Sizes as people write them, and pages that are given back."""

import mmap
import sys
import time
from pathlib import Path

import pytest

from mezzotint.engines.memory import parse_size, release_mapped, releasing_mapped, resident_bytes, size_text


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("2.5GiB", 2684354560), ("800MB", 800_000_000), (" 1 kb ", 1000), ("123", 123), ("7B", 7), ("3 MiB", 3 << 20)],
)
def test_a_size_is_a_number_with_a_unit(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "2.5G", "1,5GiB", "1e9", "nan", "9" * 310, "9" * 308 + "GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no size; write 2\.5GiB, 800MB or a number of bytes"):
        parse_size(text)


def test_sizes_are_written_short() -> None:
    assert size_text(800 << 20) == "800 MiB"
    assert size_text(5 << 29) == "2.50 GiB"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what is mapped")
def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path: Path) -> None:
    path, size = tmp_path / "weights.bin", 64 << 20
    path.write_bytes(bytes(range(256)) * (size // 256))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        assert pages[:: mmap.PAGESIZE].count(0) == size // mmap.PAGESIZE
        before = resident_bytes()
        release_mapped(path)
        assert before - resident_bytes() > size // 2
        assert pages[1] == 1
        assert pages[size - 1] == 255


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what is mapped")
def test_pages_do_not_add_up_while_they_are_read_and_released(tmp_path: Path) -> None:
    path, size = tmp_path / "weights.bin", 32 << 20
    path.write_bytes(b"\1" * size)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        pages[:: mmap.PAGESIZE]
        before = resident_bytes()
        with releasing_mapped(path):
            for _ in range(100):
                if before - resident_bytes() > size // 2:
                    break
                time.sleep(0.05)
        assert before - resident_bytes() > size // 2


def test_a_file_that_is_not_mapped_or_not_there_is_no_matter(tmp_path: Path) -> None:
    release_mapped(tmp_path / "missing.bin")
    (tmp_path / "plain.bin").write_bytes(b"1234")
    release_mapped(tmp_path / "plain.bin")
    assert (tmp_path / "plain.bin").read_bytes() == b"1234"
