"""``mezzotint serve`` and ``demo``: what they say, and how they end."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mezzotint import AsyncClient, Client, MezzotintClientError
from mezzotint.cli import cli
from mezzotint.cli.errors import run
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.picture import parse_parameters, read_parameters
from tests.cli.conftest import started
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["missing"], 3, "missing: no bundle there"),
        ([], 2, "Missing argument 'BUNDLE...'"),
        (["missing", "--port", "70000"], 2, "'--port'"),
        (["missing", "--device", "unett=cpu"], 3, "'unett' is no component"),
        (["missing", "--memory-budget", "2.5G"], 2, "'2.5G' is no size; write 2.5GiB, 800MB or a number of bytes"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["serve", *arguments]) == code
    assert sentence in capsys.readouterr().err


def test_an_embedding_that_cannot_be_used_is_one_sentence(
    emoji_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["serve", str(emoji_bundle), "--port", "0", "--embedding", str(tmp_path / "away.pt")]) == 3
    said = capsys.readouterr().err
    assert f"mezzotint: embedding {tmp_path / 'away.pt'}: cannot be read (No such file or directory)" in said


@pytest.mark.slow
def test_a_folder_of_embeddings_and_a_named_one_are_served(emoji_bundle: Path, tmp_path: Path) -> None:
    vectors = np.load(emoji_bundle / read_manifest(emoji_bundle).text.embeddings)[500:502].astype(np.float32)
    (tmp_path / "words").mkdir()
    save_file({"emb_params": vectors}, tmp_path / "words" / "grim.safetensors")
    save_file({"<learned>": vectors}, tmp_path / "other.safetensors")
    words = ("--embedding", str(tmp_path / "words"), "--embedding", f"moody={tmp_path / 'other.safetensors'}")
    with started(emoji_bundle, *words) as (_, address), Client(address) as client:
        files = [client.generate(f"a {word}", steps=2, seed=1).files[0] for word in ("grim", "moody")]
        (plain,) = client.generate("a shark", steps=2, seed=1).files
    used = [parse_parameters(read_parameters(file))["TI hashes"].partition(":")[0] for file in files]
    assert used == ["grim", "moody"]
    assert "TI hashes" not in parse_parameters(read_parameters(plain))


def test_a_bundle_without_a_safety_checker_hides_nothing_and_is_not_served_as_if_it_did(
    emoji_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["serve", str(emoji_bundle), "--port", "0", "--on-flagged", "refuse"]) == 3
    assert (
        "mezzotint: bundle emoji has no safety checker, so `--on-flagged refuse` would hide nothing; compile it with "
        "`--with-safety-checker`, or serve it with `--on-flagged mark`"
    ) in capsys.readouterr().err


def test_a_budget_that_is_too_small_names_what_is_needed_and_had(
    emoji_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["serve", str(emoji_bundle), "--port", "0", "--memory-budget", "100MiB"]) == 3
    assert re.search(
        r"memory budget 100 MiB: one row count of each engine needs \S+ [MG]iB, .*; allow that much",
        capsys.readouterr().err,
    )


def test_a_port_that_is_taken_is_one_sentence(server: str, emoji_bundle: Path) -> None:
    port = server.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "mezzotint", "serve", str(emoji_bundle), "--port", port],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert f"mezzotint: 127.0.0.1:{port}: cannot be listened on" in done.stderr


def paint(address: str, on_progress: Callable[[object], None]) -> None:
    with Client(address) as client:
        client.generate("a shark", steps=500, on_progress=on_progress)


def paint_async(address: str, on_progress: Callable[[object], None]) -> None:
    async def ask() -> None:
        async with AsyncClient(address) as client:
            await client.generate("a shark", steps=500, on_progress=on_progress)

    asyncio.run(ask())


@pytest.mark.parametrize("ask", [paint, paint_async])
def test_a_server_that_is_killed_while_it_paints_is_lost_and_not_absent(
    ask: Callable[[str, Callable[[object], None]], None], emoji_bundle: Path
) -> None:
    with started(emoji_bundle) as (process, address):
        with pytest.raises(MezzotintClientError) as failure:
            ask(address, lambda _: process.kill())
        process.wait(10)  # until then its port may be there
        with pytest.raises(MezzotintClientError, match=f"{address}: no Mezzotint server answers there"):
            ask(address, lambda _: None)
    assert str(failure.value).startswith(f"{address}: the server was lost with the request unfinished")


def test_the_demo_paints_a_picture_and_leaves_no_server(emoji_bundle: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mezzotint", "demo", str(emoji_bundle), "-o", str(tmp_path / "shark.png")],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'shark.png'}: 64x64, seed 7" in done.stdout
    assert (tmp_path / "shark.png").read_bytes().startswith(b"\x89PNG")
    assert "stopped" in done.stderr


def test_a_demo_of_no_bundle_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mezzotint", "demo", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert "no bundle there" in done.stderr


@pytest.mark.slow
def test_two_instances_paint_what_one_does(emoji_bundle: Path) -> None:
    with started(emoji_bundle, "--instances", "2") as (_, address), Client(address) as client:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda seed: client.generate("a cat face", steps=3, seed=seed), range(4)))
        info = client.models()
    with started(emoji_bundle) as (_, address), Client(address) as client:
        alone = [client.generate("a cat face", steps=3, seed=seed) for seed in range(4)]
    assert [model.name for model in info] == ["emoji"]
    assert [result.files for result in results] == [result.files for result in alone]


def test_two_instances_each_on_a_device_keep_a_memory_budget_together(emoji_bundle: Path) -> None:
    places = ("--device", "CPU", "--device", "unet=CPU", "--num-threads", "2")
    with started(emoji_bundle, *places, "--memory-budget", "700MiB") as (server, address), Client(address) as client:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda seed: client.generate("a cat face", steps=3, seed=seed), range(4)))
        resident = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())[0])
    assert all(result.files for result in results)
    assert resident << 10 <= 700 << 20


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--device", "CPU", "--device", "GPU.7"), "device GPU.7: OpenVINO finds no such device; found "),
        (("--device", "CPU", "--device", "CPU", "--instances", "3"), "instances=3: 2 devices are named"),
        (("--instances", "9", "--memory-budget", "400MiB"), "serve fewer bundles or instances"),
    ],
)
def test_instances_that_cannot_be_are_refused_with_one_sentence(
    emoji_bundle: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], sentence: str
) -> None:
    assert run(cli, ["serve", str(emoji_bundle), "--port", "0", *options, "--no-metrics"]) != 0
    assert sentence in capsys.readouterr().err
