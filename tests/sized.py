"""A compiled bundle that is served in more sizes than it was tuned at: its engine files hold dynamic shapes."""

import json
import shutil
from pathlib import Path

from mezzotint.engines.manifest import MANIFEST


def sized(bundle: Path, folder: Path, times: int = 2) -> Path:
    """Copy a bundle of one size into ``folder``; the copy takes sides up to so many times as long."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for engine in manifest["engines"]:
        for name, axis in engine["axes"].items():
            if "height" in name or "width" in name:
                axis["max"] *= times
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder
