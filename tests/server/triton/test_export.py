"""A real bundle as files of a model repository; that Triton loads them is shown by the slow tests."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mezzotint.cli import cli
from mezzotint.engines.bundle import served_entries
from mezzotint.engines.bundle_files import check_files
from mezzotint.engines.embedding_file import EmbeddingPath
from mezzotint.engines.errors import BundleError, EmbeddingError
from mezzotint.engines.manifest import MANIFEST, read_manifest
from mezzotint.engines.prompt import Prompts
from mezzotint.server.triton.export import Components, ExportOptions, export, write_remote_bundle
from mezzotint.server.triton.settings import Settings, read_settings


def test_both_models_and_the_whole_bundle_are_written(emoji_bundle: Path, tmp_path: Path) -> None:
    assert export(emoji_bundle, tmp_path / "repo", ExportOptions()) == ("emoji_stream", "emoji")
    copy = tmp_path / "repo" / "emoji_stream" / "1" / "bundle"
    assert not copy.is_symlink()
    assert (copy / MANIFEST).read_bytes() == (emoji_bundle / MANIFEST).read_bytes()
    check_files(copy, read_manifest(copy))
    for name in ("emoji_stream", "emoji"):
        assert "TritonPythonModel" in (tmp_path / "repo" / name / "1" / "model.py").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_linked_files_are_those_of_the_bundle(emoji_bundle: Path, tmp_path: Path) -> None:
    export(emoji_bundle, tmp_path / "repo", ExportOptions(link=True))
    assert (tmp_path / "repo" / "emoji_stream" / "1" / "bundle").resolve() == emoji_bundle.resolve()


def test_a_model_that_is_there_stays_and_nothing_is_added(emoji_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "emoji").mkdir()
    with pytest.raises(BundleError, match="emoji: is there already"):
        export(emoji_bundle, tmp_path, ExportOptions(link=True))
    assert [path.name for path in tmp_path.iterdir()] == ["emoji"]


def test_a_python_component_has_its_engine_alone(emoji_bundle: Path, tmp_path: Path) -> None:
    names = export(emoji_bundle, tmp_path, ExportOptions(Settings(device="CPU"), Components.PYTHON))
    components = ("text_encoder", "unet", "vae_decoder", "vae_encoder", "stream")
    assert names == (*(f"emoji_{component}" for component in components), "emoji")
    unet = tmp_path / "emoji_unet" / "1" / "bundle"
    manifest = read_manifest(unet)
    assert [entry.component for entry in manifest.engines] == ["unet"]
    check_files(unet, manifest)
    assert '"CPU"' in (tmp_path / "emoji_unet" / "config.pbtxt").read_text(encoding="utf-8")
    assert '"CPU"' not in (tmp_path / "emoji_stream" / "config.pbtxt").read_text(encoding="utf-8")
    assert {path.name for path in unet.iterdir()} == {MANIFEST, *manifest.engines[0].files}


def test_native_components_are_the_engines_files_alone(emoji_bundle: Path, tmp_path: Path) -> None:
    export(emoji_bundle, tmp_path, ExportOptions(components=Components.NATIVE))
    assert {path.name for path in (tmp_path / "emoji_unet" / "1").iterdir()} == {"unet.xml", "unet.bin"}
    inside = read_manifest(tmp_path / "emoji_stream" / "1" / "bundle")
    assert {(entry.backend, entry.device) for entry in inside.engines} == {("triton", "inside")}


def test_a_remote_bundle_is_whole_and_names_its_models(emoji_bundle: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    write_remote_bundle(emoji_bundle, remote, "gpu-host:8001", ExportOptions(components=Components.PYTHON))
    manifest = read_manifest(remote)
    check_files(remote, manifest)
    assert len(served_entries(manifest)) == 4
    unet = next(entry for entry in manifest.engines if entry.component == "unet")
    assert (unet.device, unet.flavour) == ("gpu-host:8001", "")
    assert json.loads((remote / "unet.json").read_text(encoding="utf-8"))["model"] == "emoji_unet"
    with pytest.raises(BundleError, match="is there already"):
        write_remote_bundle(emoji_bundle, remote, "gpu-host:8001", ExportOptions())


def test_the_command_says_what_it_wrote(emoji_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export-triton", str(emoji_bundle), "--repository", str(tmp_path), "--link", "--policy", "fcfs"]
    cli.main(arguments, standalone_mode=False)
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "emoji_stream"), str(tmp_path / "emoji")]
    assert 'string_value: "fcfs"' in (tmp_path / "emoji_stream" / "config.pbtxt").read_text(encoding="utf-8")


def write_word(path: Path, width: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_file({"emb_params": np.ones((2, width), np.float32)}, path)
    return path


def width_of(bundle: Path) -> int:
    return read_manifest(bundle).text.width


@pytest.mark.parametrize("link", [False, True])
def test_words_lie_beside_the_model_and_are_found_from_there(emoji_bundle: Path, tmp_path: Path, link: bool) -> None:
    width = width_of(emoji_bundle)
    one = write_word(tmp_path / "a=b.safetensors", width)
    folder = write_word(tmp_path / "words" / "moody.safetensors", width).parent
    given = (EmbeddingPath(one, "grim"), EmbeddingPath(folder))
    export(emoji_bundle, tmp_path / "repo", ExportOptions(link=link, embeddings=given))
    version = tmp_path / "repo" / "emoji_stream" / "1"
    config = (version.parent / "config.pbtxt").read_text(encoding="utf-8")
    said = "grim=embeddings/a=b.safetensors,=embeddings/words"
    assert f'string_value: "{said}"' in config
    found = read_settings({"embedding": said}).embeddings(version)
    assert found == (
        EmbeddingPath(version / "embeddings" / "a=b.safetensors", "grim"),
        EmbeddingPath(version / "embeddings" / "words"),
    )
    assert (version / "embeddings" / "a=b.safetensors").is_symlink() is link
    prompts = Prompts(emoji_bundle, read_manifest(emoji_bundle).text, found)
    assert [word.partition(":")[0] for word in prompts.words.hashes(["a grim moody cat"]).split(", ")] == [
        "grim",
        "moody",
    ]


def test_words_that_do_not_fit_are_refused_before_anything_is_written(emoji_bundle: Path, tmp_path: Path) -> None:
    width, repo = width_of(emoji_bundle), tmp_path / "repo"
    wide = write_word(tmp_path / "wide.safetensors", width + 1)
    twice = [write_word(tmp_path / name / "moody.safetensors", width) for name in ("a", "b")]
    for words, sentence in (
        ((EmbeddingPath(wide),), "wide"),
        (tuple(EmbeddingPath(path, f"word{i}") for i, path in enumerate(twice)), "is the second of its name"),
    ):
        with pytest.raises(EmbeddingError, match=sentence):
            export(emoji_bundle, repo, ExportOptions(embeddings=words))
        assert not repo.exists() or not list(repo.iterdir())
