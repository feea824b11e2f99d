"""Environments of packages that a few slow tests need, on top of this one; made once, under ``build/tests``."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.conftest import BUILD, ROOT

RTX = ("tensorrt-rtx==1.7.1.116",)
ORT_GPU = ("onnxruntime-gpu==1.31.1",)


def layered_python(name: str, *requirements: str) -> Path:
    """Return the interpreter of an environment that has ``requirements`` before this one's packages."""
    folder = BUILD / "environments" / name
    python, done = folder / "bin" / "python", folder / "done"
    if not done.is_file() or done.read_text() != str(requirements):
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        made = subprocess.run([*pip, *requirements], capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.fail(f"{requirements} cannot be installed:\n{made.stderr}")
        done.write_text(str(requirements))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    below = folder / "lib" / version / "site-packages" / "below.pth"
    # not the path alone: what is installed to be edited is found by .pth files of its own
    below.write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


def run_layered(python: Path, code: str, *arguments: str | Path) -> str:
    """Run ``code`` there and return what it wrote to stdout."""
    done = subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        pytest.fail(f"the code ended with {done.returncode}:\n{done.stderr}")
    return done.stdout
