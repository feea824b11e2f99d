"""Bearer tokens: made of random bits, kept as digests in a file of lines ``NAME: sha256:DIGEST``. Knows no wire.

A line that ends in ``operator`` is of a client that may also load and unload models.

A token is 256 random bits behind a prefix that scanners for leaked secrets can find. Nobody can try out that many, so
one SHA-256 is as strong as the token; a salt or a slow hash, which passwords need, would only cost the server time.
What has another form is never hashed, so that a password's digest in the file lets nobody in.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from mezzotint.engines.errors import CredentialsError, InvalidRequest

_PREFIX = "mzt_"
_TOKEN = re.compile(rf"{_PREFIX}[A-Za-z0-9_-]{{43}}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})(\s+operator)?")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Who may come in: names and the SHA-256 digests of their tokens; a name may have several, to change from one."""

    entries: tuple[tuple[str, bytes], ...]
    operators: frozenset[bytes] = frozenset()

    def is_operator(self, token: str) -> bool:
        """Whether a known token has the operator's role, in a time that says nothing of the digests."""
        digest = _digest(token)
        return sum(hmac.compare_digest(digest, known) for known in self.operators) > 0

    def name_of(self, token: str) -> str | None:
        """Return whose token it is, in a time that says nothing of the digests; None where it is nobody's."""
        if not _TOKEN.fullmatch(token):
            return None
        digest = _digest(token)
        matches = [name for name, known in self.entries if hmac.compare_digest(digest, known)]
        return matches[0] if matches else None


def new_token(name: str, *, operator: bool = False) -> tuple[str, str]:
    """Return a new token, and the line of it for the server's file. Raises InvalidRequest for a name that is none."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"name={name!r}: must be 1 to 64 letters, digits and ._@-, the first no sign")
    token = _PREFIX + secrets.token_urlsafe(32)
    return token, f"{name}: sha256:{_digest(token).hex()}{' operator' if operator else ''}"


def read_tokens(path: Path) -> Tokens:
    """Read a tokens file: an entry a line, ``#`` before comments. Raises CredentialsError with all that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise CredentialsError(
            f"{path}: cannot be read ({reason.lower()}); name one with lines of `mezzotint token NAME`"
        ) from None
    entries: dict[bytes, str] = {}
    operators: set[bytes] = set()
    problems = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, _, digest = (part.strip() for part in text.partition(":"))
        found = _DIGEST.fullmatch(digest)
        if not _NAME.fullmatch(name) or found is None:
            problems.append(f"line {number} is no NAME: sha256:DIGEST")
        elif entries.setdefault(bytes.fromhex(found[1]), name) != name:
            problems.append(f"line {number} is another's token")
        elif found[2]:
            operators.add(bytes.fromhex(found[1]))
    if not entries and not problems:
        problems.append("it has no entry")
    if problems:
        raise CredentialsError(f"{path}: {', '.join(problems)}; write lines as `mezzotint token NAME` prints them")
    return Tokens(tuple((name, digest) for digest, name in entries.items()), frozenset(operators))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
