"""A tokens file as its keeper writes it."""

from pathlib import Path

from mezzotint.server.tokens import new_token


class TokensFile:
    """A tokens file, and the tokens of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, str] = {}

    def add(self, name: str, *, operator: bool = False) -> str:
        token, self.lines[name] = new_token(name, operator=operator)
        self.write("\n".join(self.lines.values()))
        return token

    def write(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(self.path)
