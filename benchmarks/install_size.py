"""How large is a serving install? A venv that holds nothing but ``mezzotint[serve]``.

python -m benchmarks.install_size
"""

import argparse
import json
import subprocess
import tempfile
import venv
from pathlib import Path

from benchmarks.harness import publish

ROOT = Path(__file__).parents[1]
_LARGEST = 5


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder, with_pip=True)
        python = folder / "bin" / "python"
        before = folder_bytes(folder)
        install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-c", ROOT / "constraints.txt", f"{ROOT}[serve]"], check=True)
        listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
        site = next((folder / "lib").glob("python*")) / "site-packages"
        parts = {part.name: folder_bytes(part) for part in site.iterdir() if part.is_dir()}
        total = folder_bytes(folder) - before
        packages = [package["name"] for package in json.loads(listed.stdout)]
    rows = [{"part": "everything that `mezzotint[serve]` installs", "MB": round(total / 1e6)}]
    largest = sorted(parts, key=lambda part: -parts[part])[:_LARGEST]
    rows += [{"part": part, "MB": round(parts[part] / 1e6)} for part in largest]
    publish("install-size", "How large is a serving install?", rows, {"packages": packages})


if __name__ == "__main__":
    main()
