"""``mezzotint generate`` against a real server."""

import io
from pathlib import Path

import pytest
from PIL import Image

from mezzotint.cli import cli
from mezzotint.cli.errors import CannotWrite, run
from mezzotint.cli.files import write_file
from mezzotint.engines.picture import parse_parameters, read_parameters
from tests.cli.conftest import started

SHARK = "a shark on a blue background"


def generate(server: str, *arguments: str) -> int:
    return run(cli, ["generate", SHARK, "--server", server, "--steps", "2", *arguments])


def test_the_same_seed_gives_the_same_file(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    assert generate(server, "--seed", "7", "-o", str(first)) == 0
    assert generate(server, "--seed", "7", "-o", str(second)) == 0
    assert first.read_bytes() == second.read_bytes()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{first}: 64x64, seed 7, ")
    assert "denoise" in said[0]
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_seed_that_was_drawn_is_shown_and_inside(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    assert generate(server, "-o", str(path)) == 0
    parameters = parse_parameters(read_parameters(path.read_bytes()))
    assert f"seed {parameters['Seed']}," in capsys.readouterr().out
    assert parameters["Prompt"] == SHARK


@pytest.mark.parametrize(("suffix", "format_"), [(".png", "PNG"), (".JPG", "JPEG"), (".webp", "WEBP")])
def test_the_suffix_is_the_format(server: str, tmp_path: Path, suffix: str, format_: str) -> None:
    path = tmp_path / f"a{suffix}"
    assert generate(server, "-o", str(path)) == 0
    assert Image.open(io.BytesIO(path.read_bytes())).format == format_


def test_several_pictures_are_numbered_and_have_seeds_in_a_row(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(server, "--num-images", "3", "--seed", "5", "-o", str(tmp_path / "a.png")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0.png", "a-1.png", "a-2.png"]
    said = capsys.readouterr().out
    assert all(f"a-{i}.png: 64x64, seed {5 + i}," in said for i in range(3))


def test_previews_lie_beside_the_picture(server: str, tmp_path: Path) -> None:
    assert generate(server, "--preview-every", "1", "-o", str(tmp_path / "a.png")) == 0
    assert Image.open(io.BytesIO((tmp_path / "a.preview.jpg").read_bytes())).format == "JPEG"


def test_an_interval_of_guidance_is_sent_and_written(server: str, tmp_path: Path) -> None:
    plain, ended, whole = (tmp_path / f"{name}.png" for name in ("plain", "ended", "whole"))
    assert generate(server, "--seed", "7", "-o", str(plain)) == 0
    assert generate(server, "--seed", "7", "--guidance-end", "0.5", "-o", str(ended)) == 0
    assert generate(server, "--seed", "7", "--guidance-start", "0", "--guidance-end", "1", "-o", str(whole)) == 0
    assert parse_parameters(read_parameters(ended.read_bytes()))["Guidance interval"] == "0-0.5"
    assert plain.read_bytes() == whole.read_bytes() != ended.read_bytes()


def test_variations_are_sent_written_and_numbered_by_their_subseeds(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variation = ("--seed", "7", "--subseed-strength", "0.2", "--subseed", "20", "--num-images", "2")
    assert generate(server, *variation, "-o", str(tmp_path / "a.png")) == 0
    written = [parse_parameters(read_parameters((tmp_path / f"a-{i}.png").read_bytes())) for i in range(2)]
    assert [(text["Seed"], text["Variation seed"]) for text in written] == [("7", "20"), ("7", "21")]
    assert all(text["Variation seed strength"] == "0.2" for text in written)
    assert capsys.readouterr().out.count("seed 7,") == 2


@pytest.mark.slow
def test_what_will_not_be_done_is_a_warning(
    distilled_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(distilled_bundle) as (_, address):
        assert generate(address, "--negative-prompt", "a cat", "--steps", "1", "-o", str(tmp_path / "a.png")) == 0
    assert "warning: negative_prompt: is not looked at" in capsys.readouterr().err


def test_long_weighted_and_changing_prompts_are_sent_as_they_are_written(server: str, tmp_path: Path) -> None:
    prompt, file = "a (shark:1.3), [blue:red:0.5] " * 5, tmp_path / "a.png"
    options = ["--steps", "2", "--clip-skip", "2", "--negative-prompt", "[cat] BREAK dog", "-o", str(file)]
    assert run(cli, ["generate", prompt, "--server", server, *options]) == 0
    written = parse_parameters(read_parameters(file.read_bytes()))
    assert (written["Prompt"], written["Negative prompt"]) == (prompt, "[cat] BREAK dog")
    assert written["Clip skip"] == "2"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--steps", "0"], "steps=0: must be between"),
        (["--height", "500"], "height=500: must be a multiple of 16"),
        (["--height", "128"], "height=128: bundle emoji was built for 64"),
        (["--sampler", "best"], "sampler='best': must be one of"),
        (["--model", "cat"], "model='cat'"),
        (["--seed", "-1"], "seed=-1: must be between"),
        (["--guidance-start", "0.9", "--guidance-end", "0.1"], "guidance_start=0.9: must be below guidance_end=0.1"),
        (["--guidance-rescale", "2"], "guidance_rescale=2.0: must be between 0 and 1"),
        (["--subseed-strength", "2"], "subseed_strength=2.0: must be between 0 and 1"),
        (["--subseed", "-1"], "subseed=-1: must be between 0 and"),
        (["--cache-interval", "3"], "cache_interval=3: bundle emoji was built without step caching"),
        (["--cache-schedule", "0,1"], "cache_schedule: bundle emoji was built without step caching"),
        (["--cache-schedule", "0,x"], "cache_schedule='0,x': must be evaluations between commas; such as 0,3,7"),
        (["--decoder", "tiny"], "decoder='tiny': bundle emoji was built without one"),
        (["--clip-skip", "4"], "clip_skip=4: must be between 0 and 3"),
        (
            ["--negative-prompt", "cat " * 100],
            "negative_prompt: fills 5 chunks of 22 tokens, but bundle emoji was built",
        ),
    ],
)
def test_a_wrong_field_is_one_sentence_and_exit_code_2(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert generate(server, *arguments, "-o", str(tmp_path / "a.png")) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"mezzotint: {sentence}")
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_is_exit_code_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate("127.0.0.1:1", "-o", str(tmp_path / "a.png")) == 5
    assert "127.0.0.1:1: no Mezzotint server answers there" in capsys.readouterr().err


def test_a_prompt_that_is_no_text_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["generate", "shark \udcff"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "is not valid UTF-8" in said


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["-o", "a.gif"], 2, "its suffix must be one of .png, .jpg"),
        (["-o", "a"], 2, "its suffix must be one of"),
        (["-o", "a.png", "--format", "webp"], 2, "is named png, but `--format` says webp"),
        (["-o", "missing/a.png"], 6, "missing/a.png: cannot be written (its folder does not exist)"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_anything_is_painted(
    arguments: list[str],
    code: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert generate("127.0.0.1:1", *arguments) == code
    assert sentence in capsys.readouterr().err


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    taken = tmp_path / "a.png"
    taken.mkdir()
    with pytest.raises(CannotWrite, match=r"a\.png: cannot be written \(is a directory\)"):
        write_file(taken, b"data")
    assert list(tmp_path.iterdir()) == [taken]
