"""What may be loaded, and what leads out of the repository."""

from pathlib import Path

import pytest

from mezzotint.engines.errors import BundleError, InvalidRequest, LoadingOff, MezzotintError, ModelNotFound
from mezzotint.engines.manifest import MANIFEST, read_manifest
from mezzotint.server.repository import ModelRepository
from tests.server.bundles import write_bundle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "elsewhere", "secret")
    write_bundle(tmp_path / "repository", "emoji")
    return tmp_path / "repository"


def test_a_bundle_is_found_by_its_folders_name(root: Path) -> None:
    assert ModelRepository(root).find("emoji") == root / "emoji"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../elsewhere/secret", "/etc", "emoji/", "emoji/..", "a/b", "a\0", "a\n"]
)
def test_a_path_is_refused(root: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="must be the name of a folder in the model repository, no path"):
        ModelRepository(root).find(name)


def test_an_unknown_name_lists_those_there_are(root: Path) -> None:
    (root / "empty").mkdir()
    for name in ("sdxl", "empty"):
        with pytest.raises(ModelNotFound, match=f"bundle='{name}': is not in the model repository; it has emoji"):
            ModelRepository(root).find(name)


def test_links_that_lead_out_are_refused_and_others_are_not(root: Path) -> None:
    (root / "away").symlink_to(root.parent / "elsewhere" / "secret")
    (root / "again").symlink_to(root / "emoji")
    write_bundle(root, "mixed")
    (root / "mixed" / "unet.bin").symlink_to("/etc/hostname")
    for name in ("away", "mixed"):
        with pytest.raises(InvalidRequest, match=f"bundle='{name}': leads out of the model repository"):
            ModelRepository(root).find(name)
    assert ModelRepository(root).find("again") == root / "emoji"


@pytest.mark.parametrize("name", ["/etc/passwd", "../emoji/unet.bin", ""])
def test_a_manifest_names_no_file_outside_its_bundle(root: Path, name: str) -> None:
    path = root / "emoji" / MANIFEST
    path.write_text(path.read_text().replace('"files":{}', f'"files":{{"{name}":"{"0" * 64}"}}', 1))
    with pytest.raises(BundleError, match="is no path inside the bundle"):
        read_manifest(root / "emoji")


def test_without_a_repository_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(LoadingOff, match="start it with `--model-repository FOLDER`"):
        ModelRepository(None).find("emoji")
    with pytest.raises(MezzotintError, match="missing: no folder there"):
        ModelRepository(tmp_path / "missing")


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128])
def test_a_name_that_no_folder_can_have_is_refused(root: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="must be the name of a folder in the model repository, no path"):
        ModelRepository(root).find(name)


def test_what_cannot_be_read_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(BundleError, match=r"bundle='emoji': cannot be read \(Permission denied\); check its folder"):
        ModelRepository(root).find("emoji")
