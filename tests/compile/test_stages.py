"""Stages that run at the same time."""

import subprocess
import sys
from pathlib import Path

from mezzotint.compile.stages import Stages
from tests.conftest import ROOT

OTHER = """
import sys
from pathlib import Path
from mezzotint.compile.stages import Stages
Stages(Path(sys.argv[1]), print).run("derive x", {"a": 1}, lambda folder: (folder / "file").write_text("theirs"))
"""


def test_two_compiles_can_run_the_same_stage(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "file").write_text("ours")
        subprocess.run([sys.executable, "-c", OTHER, str(tmp_path)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        assert (folder / "file").read_text() == "ours"

    result = Stages(tmp_path, lambda _: None).run("derive x", {"a": 1}, work)
    assert (result.folder / "file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == [result.folder.name]
