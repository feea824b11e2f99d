import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.engines.errors import CredentialsError, InvalidRequest
from mezzotint.server.tokens import Tokens, new_token, read_tokens


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_a_token_is_known_by_its_line_alone(path: Path) -> None:
    (alice, first), (old_bob, second), (new_bob, third) = new_token("alice"), new_token("bob"), new_token("bob")
    path.write_text(f"# our clients\n\n{first}  # since May\n{second}\n  {third}\n", encoding="utf-8")
    tokens = read_tokens(path)
    assert [tokens.name_of(token) for token in (alice, old_bob, new_bob)] == ["alice", "bob", "bob"]
    assert tokens.name_of(new_token("alice")[0]) is None
    assert not any(token in path.read_text(encoding="utf-8") for token in (alice, old_bob, new_bob))


def test_tokens_are_long_and_never_the_same() -> None:
    made = {new_token("a")[0] for _ in range(1000)}
    assert len(made) == 1000
    assert all(token.startswith("mzt_") and len(token) == 47 for token in made)


@given(st.text(max_size=60))
def test_what_has_not_the_form_of_a_token_is_nobodys_even_where_its_digest_is_there(text: str) -> None:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    assert Tokens((("eve", digest),)).name_of(text) is None


@pytest.mark.parametrize("name", ["", "a b", "-a", "a:b", "a\nb", "é", "a" * 65, "#a"])
def test_a_name_that_would_break_a_line_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"name=.*: must be 1 to 64 letters, digits and \._@-"):
        new_token(name)


def test_everything_that_is_wrong_with_a_file_is_said_at_once(path: Path) -> None:
    _, line = new_token("alice")
    path.write_text(f"alice\n{line}\nbob: secret\n{line.replace('alice', 'carl')}\n{line}\n", encoding="utf-8")
    with pytest.raises(CredentialsError) as refused:
        read_tokens(path)
    assert str(refused.value) == (
        f"{path}: line 1 is no NAME: sha256:DIGEST, line 3 is no NAME: sha256:DIGEST, line 4 is another's token; "
        "write lines as `mezzotint token NAME` prints them"
    )
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "it has no entry"),
        (b"# nobody\n", "it has no entry"),
        (b"\xff\xfe", "cannot be read (it is no utf-8 text)"),
    ],
)
def test_a_file_without_tokens_is_refused(path: Path, data: bytes, sentence: str) -> None:
    path.write_bytes(data)
    with pytest.raises(CredentialsError, match=r"tokens: ") as refused:
        read_tokens(path)
    assert sentence in str(refused.value)


def test_a_file_that_is_not_there_is_one_sentence(path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"tokens: cannot be read \(no such file or directory\); name one with"):
        read_tokens(path)


def test_a_line_may_carry_the_operators_role(path: Path) -> None:
    (alice, first), (bob, second) = new_token("alice", operator=True), new_token("bob")
    path.write_text(f"{first}  # runs the server\n{second}\n", encoding="utf-8")
    tokens = read_tokens(path)
    assert [tokens.name_of(token) for token in (alice, bob)] == ["alice", "bob"]
    assert [tokens.is_operator(token) for token in (alice, bob)] == [True, False]
    path.write_text(f"{second} admin\n", encoding="utf-8")
    with pytest.raises(CredentialsError, match="line 1 is no NAME: sha256:DIGEST"):
        read_tokens(path)
