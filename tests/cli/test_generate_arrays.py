"""Arrays that ``mezzotint generate`` takes from files and gives into them, against a real server."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from mezzotint.cli import cli
from mezzotint.cli.errors import run
from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.picture import parse_parameters, read_parameters
from tests.cli.test_generate import generate

SHAPE = (4, 16, 16)


def noise(seed: int) -> np.ndarray:
    return NoiseStream(seed).normal((1, *SHAPE))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_the_noise_of_a_seed_gives_its_picture_and_latents_come_back(server: str, tmp_path: Path, suffix: str) -> None:
    given, out = tmp_path / f"noise{suffix}", tmp_path / f"final{suffix}"
    if suffix == ".npy":
        np.save(given, noise(7))
    else:
        safetensors.numpy.save_file({"other": noise(8), "latents": noise(7)}, given)
    assert generate(server, "--seed", "7", "-o", str(tmp_path / "a.png")) == 0
    arrays = ["--latents", str(given), "--latents-out", str(out)]
    assert generate(server, "--seed", "1", *arrays, "-o", str(tmp_path / "b.png")) == 0
    final = np.load(out) if suffix == ".npy" else safetensors.numpy.load_file(out)["latents"]
    assert final.shape == SHAPE
    assert final.dtype == np.float32
    parameters = parse_parameters(read_parameters((tmp_path / "b.png").read_bytes()))
    assert parameters["Seed"] == "1"
    pictures = [np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png")]
    np.testing.assert_array_equal(*pictures)


def test_latents_of_several_pictures_are_numbered(server: str, tmp_path: Path) -> None:
    out = tmp_path / "final.npy"
    assert generate(server, "--num-images", "2", "--latents-out", str(out), "-o", str(tmp_path / "a.png")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0.png", "a-1.png", "final-0.npy", "final-1.npy"]


def test_custom_levels_say_how_many_steps_there_are(server: str, tmp_path: Path) -> None:
    path, levels = tmp_path / "a.png", tmp_path / "levels.npy"
    arguments = ["generate", "a cat", "--server", server, "--sampler", "euler", "-o", str(path), "--seed", "3"]
    assert run(cli, [*arguments, "--custom-sigmas", "14.6,3.2,0.5"]) == 0
    assert parse_parameters(read_parameters(path.read_bytes()))["Steps"] == "3"
    first = path.read_bytes()
    np.save(levels, np.array([14.6, 3.2, 0.5]))
    assert run(cli, [*arguments, "--custom-sigmas", str(levels)]) == 0
    assert path.read_bytes() == first


def test_prompt_states_stand_in_for_the_prompt(server: str, tmp_path: Path) -> None:
    states = tmp_path / "states.npy"
    np.save(states, np.random.default_rng(0).standard_normal((24, 192)))  # float64 becomes float32
    plain, own = tmp_path / "plain.png", tmp_path / "own.png"
    assert generate(server, "--guidance", "1", "--seed", "3", "-o", str(plain)) == 0
    assert generate(server, "--guidance", "1", "--seed", "3", "--prompt-states", str(states), "-o", str(own)) == 0
    assert plain.read_bytes() != own.read_bytes()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--latents", "{missing}"], "latents: "),
        (["--latents", "{text}"], "is no array of numbers"),
        (["--prompt-states", "{pickled}"], "is no array of numbers"),
        (["--latents", "{cut}"], "is no array of numbers"),
        (["--latents", "{tensors}"], "none of its tensors is called latents"),
        (["--custom-sigmas", "14,x"], "custom_sigmas='14,x': must be noise levels between commas"),
        (["--latents-out", "{text}"], "must end in .npy or .safetensors"),
        (["--latents", "{small}"], "latents: "),
    ],
)
def test_what_is_no_array_is_one_sentence(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    files = {name: tmp_path / f"{name}.npy" for name in ("missing", "pickled", "small")}
    files |= {"text": tmp_path / "text.txt", "tensors": tmp_path / "tensors.safetensors", "cut": tmp_path / "cut.npz"}
    files["cut"].write_bytes(b"PK\3\4")
    files["text"].write_text("no array")
    np.save(files["pickled"], np.array([{}]), allow_pickle=True)
    np.save(files["small"], noise(1)[..., :8])
    safetensors.numpy.save_file({"a": noise(1), "b": noise(2)}, files["tensors"])
    arguments = [option.format(**files) for option in options]
    assert generate(server, *arguments, "-o", str(tmp_path / "a.png")) != 0
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in said
    assert not (tmp_path / "a.png").exists()
