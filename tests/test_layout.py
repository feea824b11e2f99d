"""The layout that every tool relies on: links under src, who may import whom, and a serving process without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("compile", "engines", "proto", "server", "trainer")
HEAVY = ("torch", "diffusers", "transformers", "onnx")
RAYS_OWN = "mezzotint.server.ray.router"  # Ray imports it, in a process of its own
TRITONS_OWN = (
    "mezzotint.engines.backends.triton_inside",
    *(f"mezzotint.server.triton.{name}" for name in ("answer", "component", "counts", "stream", "whole")),
)  # Triton does


def python(code: str) -> str:
    """Run code in a fresh interpreter that sees the source tree; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_are_relative_links_to_the_folders_at_the_top(name: str) -> None:
    link = ROOT / "src" / "mezzotint" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../../{name}"
    assert (link / "__init__.py").is_file()


def test_nobody_imports_what_they_may_not() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_serving_process_loads_no_torch() -> None:
    loaded = python(
        "import pkgutil, sys, importlib\n"
        "import mezzotint.server, mezzotint.engines\n"
        "for package in (mezzotint.server, mezzotint.engines):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        f"        if module.name not in {(RAYS_OWN, *TRITONS_OWN)}:\n"
        "            importlib.import_module(module.name)\n"
        f"print([name for name in {(*HEAVY, 'ray')} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["serve", "--help"], ["generate", "--help"]])
def test_help_loads_no_engine_and_no_transport(arguments: list[str]) -> None:
    loaded = python(
        "import sys\n"
        "from mezzotint.cli import cli\n"
        f"cli.main({arguments}, standalone_mode=False)\n"
        f"print([name for name in {(*HEAVY, 'openvino', 'onnxruntime', 'grpc', 'numpy')} if name in sys.modules])"
    )
    assert loaded.splitlines()[-1] == "[]"


def test_listing_the_backends_imports_none() -> None:
    loaded = python(
        "import sys\n"
        "from mezzotint.engines.backends import BACKENDS\n"
        "assert BACKENDS\n"
        "print([name for name in ('openvino', 'onnxruntime') if name in sys.modules])"
    )
    assert loaded.strip() == "[]"
