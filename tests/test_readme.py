"""What README and docs say is true: every block runs, links lead somewhere, and the five lines are the code."""

import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mezzotint.cli.serve import READY
from tests.conftest import CACHE, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIVE_LINES = re.compile(r"<!-- five-lines:begin -->\n```text\n(.*?)```\n<!-- five-lines:end -->", re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)\)")


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(README) if found == language]


class Session:
    """A reader who types one block after the other in a folder that holds the models."""

    def __init__(self, folder: Path, precision: str) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        commands = folder / "bin"
        commands.mkdir()
        script = commands / "mezzotint"
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mezzotint "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        (folder / "models").symlink_to(ROOT / "models")
        self.environment = os.environ | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "MEZZOTINT_COMPILE_CACHE": str(CACHE),
            "MEZZOTINT_COMPILE_PRECISION": precision,
        }
        self.server: subprocess.Popen[str] | None = None

    def type(self, language: str, text: str) -> None:
        """Run one block; one that serves goes on in the background once it is ready."""
        text = text.replace("8001", self.port)
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        if text.startswith("mezzotint serve"):
            self.serve(text)
            return
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"

    def serve(self, text: str) -> None:
        self.server = subprocess.Popen(
            ["bash", "-c", f"exec {text}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.server.stdout is not None
        assert READY in self.server.stdout.readline()

    def end(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.communicate(timeout=60)
            assert self.server.returncode == 0


@pytest.fixture(params=["fp32", pytest.param("auto", marks=pytest.mark.slow)])
def session(request: pytest.FixtureRequest, tmp_path: Path, emoji_bundle: Path) -> Iterator[Session]:
    """A reader, once of a precision whose engines ``emoji_bundle`` has made, once of the one that README's words mean.

    ``auto`` builds and times several.
    """
    reader = Session(tmp_path, request.param)
    try:
        yield reader
    finally:
        reader.end()


def test_every_block_of_the_readme_runs_in_its_order(session: Session) -> None:
    typed = 0
    for language, text in BLOCK.findall(README):
        if language in ("sh", "python") and not text.startswith(("pip ", "make ")):
            session.type(language, text)
            typed += 1
    assert typed >= 6
    for picture in ("shark.png", "pet-0.png", "pet-2.png", "triton-shark.png"):
        assert (session.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_blocks_are_of_languages_that_are_run() -> None:
    assert {language for language, _ in BLOCK.findall(README)} <= {"sh", "python", "text"}


def test_every_extra_and_make_target_that_is_named_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [
        name for text in blocks("sh") for group in re.findall(r"\.\[([\w,-]+)\]", text) for name in group.split(",")
    ]
    assert named
    assert set(named) <= set(extras)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


def test_the_five_lines_are_the_code() -> None:
    code = " ".join((ROOT / "server" / "loop.py").read_text(encoding="utf-8").split())
    for page in (ROOT / "README.md", ROOT / "docs" / "server.md"):
        (lines,) = FIVE_LINES.findall(page.read_text(encoding="utf-8"))
        assert len(lines.splitlines()) == 5
        assert " ".join(lines.split()) in code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_documented_option_exists() -> None:
    from mezzotint.cli import cli

    context = cli.make_context("mezzotint", [], resilient_parsing=True)
    # pip's, docker's, Triton's
    others = ["--extra-index-url", "--rm", "--shm-size", "--disable-auto-complete-config"]
    options = {"--help", *others}
    for benchmark in (ROOT / "benchmarks").rglob("*.py"):
        options |= set(re.findall(r'"(--[a-z][a-z0-9-]+)"', benchmark.read_text(encoding="utf-8")))
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        options |= {option for param in command.get_params(context) for option in (*param.opts, *param.secondary_opts)}
    for page in PAGES:
        documented = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page.read_text(encoding="utf-8")))
        assert documented <= options, page.name


def test_the_page_of_options_is_what_help_says() -> None:
    from tests.reference import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(), "run `make reference`"


@pytest.mark.parametrize("folder", ["engines", "server", "server/kserve", "server/triton", "trainer"])
def test_every_module_of_a_package_is_on_its_page(folder: str) -> None:
    page = (ROOT / "docs" / f"{Path(folder).name}.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / folder).glob("*.py")):
        assert path.name == "__init__.py" or f"`{path.name}`" in page, path.name
