"""One line of what a library's error says, whatever it says."""

import pytest

from mezzotint.engines.errors import first_line, last_line


@pytest.mark.parametrize(
    ("said", "first", "last"),
    [
        ("a reason", "a reason", "a reason"),
        ("\nException from core\n\nshapes differ\n", "Exception from core", "shapes differ"),
        ("", "it gave no reason", "it gave no reason"),
        (" \n", "it gave no reason", "it gave no reason"),
    ],
)
def test_a_line_is_found_in_whatever_a_library_says(said: str, first: str, last: str) -> None:
    assert first_line(said) == first
    assert last_line(RuntimeError(said)) == last
