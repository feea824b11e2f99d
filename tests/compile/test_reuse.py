"""A fine-tune takes what its base's compile left: graphs, timings and, where they do, ranges; weights are its own."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mezzotint.compile.export import ONNX_FILE, Part, export_graph, exported, fill
from mezzotint.compile.graph.structure import structure_digest
from mezzotint.compile.job import StageEvent, Status
from mezzotint.compile.stages import Stages
from mezzotint.engines.bundle_files import check_files, file_digest
from mezzotint.engines.component import Component
from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import Manifest, TensorSpec, read_manifest
from tests.compile.jobs import ends_of, events_of, job
from tests.conftest import BUILD, CACHE, EMOJI
from tests.fine_tunes import write_fine_tune

pytestmark = [
    # torch and diffusers warn of their own insides
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

X, Y = (TensorSpec(name=name, role=name, dtype="float32", axes=("rows", 8)) for name in ("x", "y"))


class Small(torch.nn.Module):
    """Weights that are exported as they are, transposed, under two names, and not at all; and a tensor that is none."""

    def __init__(self, *, seed: int = 0, width: int = 12, tied: bool = True, shift: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.gate, self.last = (
            torch.nn.Linear(8, width),
            torch.nn.Linear(8, width),
            torch.nn.Linear(width, 8),
        )
        self.norm, self.unused = torch.nn.LayerNorm(8), torch.nn.Linear(2, 2)
        if tied:
            self.gate.weight = self.first.weight
        self.register_buffer("kept", torch.full((8,), shift), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)[:, None] + self.get_buffer("kept")
        return self.last(torch.nn.functional.gelu(self.first(x)) * self.gate(x))[:, 0]  # type: ignore[no-any-return]


def part(module: torch.nn.Module, settings: dict[str, Any] | None = None) -> Part:
    for weight in module.parameters():
        torch.nn.init.normal_(weight)
    return Part(module.eval(), (torch.randn(3, 8),), (X,), (Y,), settings or {})


def run(model: Path, x: torch.Tensor) -> Any:
    return onnxruntime.InferenceSession(model).run(None, {"x": x.numpy()})[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``Small`` with its defaults has been exported."""
    cache = tmp_path_factory.mktemp("stages")
    exported(Stages(cache, lambda _: None), "small", part(Small()))
    return cache


def status_of_export(cache: Path, the_part: Part) -> tuple[Status, Path]:
    stages = Stages(cache, lambda _: None)
    folder = exported(stages, "small", the_part)
    return stages.results["export small"].status, folder / ONNX_FILE


def test_other_weights_in_an_exported_graph_give_the_file_that_exporting_them_gives(
    cache: Path, tmp_path: Path
) -> None:
    tuned = part(Small(seed=1))
    status, swapped = status_of_export(cache, tuned)
    assert status is Status.REUSED
    anew, own = status_of_export(tmp_path, tuned)
    assert anew is Status.BUILT
    assert swapped.read_bytes() == own.read_bytes()
    x = torch.randn(5, 8)
    with torch.no_grad():
        np.testing.assert_allclose(run(swapped, x), tuned.module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (Small(width=16), {}),
        (Small(tied=False), {}),  # what was one weight is two, of one name and shape each as before
        (Small(shift=2.0), {}),  # no weight, but a value that the graph holds
        (Small(), {"activation": "another"}),
    ],
    ids=["shape", "tied", "constant", "settings"],
)
def test_what_differs_in_more_than_weights_is_exported_anew(
    module: Small, settings: dict[str, Any], cache: Path
) -> None:
    the_part = part(module, settings)
    status, file = status_of_export(cache, the_part)
    assert status is Status.BUILT
    x = torch.randn(5, 8)
    with torch.no_grad():
        np.testing.assert_allclose(run(file, x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first.weight", torch.zeros(8, 12)),
        ("first.bias", torch.zeros(12, dtype=torch.int64)),
        ("second.bias", torch.zeros(12)),
    ],
    ids=["shape", "type", "name"],
)
def test_weights_that_are_not_the_graphs_are_refused(name: str, value: torch.Tensor, tmp_path: Path) -> None:
    the_part = part(Small())
    names, state = export_graph(the_part, tmp_path / "graph"), the_part.module.state_dict()
    with pytest.raises(CompileError, match=rf"{name}: is .* expected .* as the exported graph has it"):
        fill(tmp_path / "graph", {key: state[key] for key in names} | {name: value}, tmp_path / "model")


def test_the_structure_of_a_graph_is_all_but_its_weights(cache: Path, tmp_path: Path) -> None:
    files = [status_of_export(cache, part(module))[1] for module in (Small(), Small(seed=1), Small(width=20))]
    one, tuned, other = (structure_digest(file) for file in files)
    assert one == tuned != other


@pytest.fixture
def finished_stages() -> Iterator[Path]:
    """The shared cache as it is, linked, so that what a test adds is there in no later run."""
    with TemporaryDirectory(dir=BUILD) as folder:
        unfinished = shutil.ignore_patterns(".unfinished-*")
        yield Path(shutil.copytree(CACHE, Path(folder) / "cache", copy_function=os.link, ignore=unfinished))


def test_a_fine_tune_takes_graphs_and_timings_of_its_base_and_leaves_it_alone(
    sd15_checkpoint: Path, sd15_bundle: Path, finished_stages: Path, tmp_path: Path
) -> None:
    before = {path.name: file_digest(path) for path in sorted(sd15_bundle.iterdir())}
    tuned = write_fine_tune(sd15_checkpoint, tmp_path / "tuned", lambda _, weight: 1.01 * weight)
    ends = ends_of(events_of(job(tuned, tmp_path / "b", base=sd15_bundle, cache=finished_stages)))
    own = {stage for stage, status in ends.items() if status is Status.BUILT}
    trained = [f"{step} {part}" for part in ("unet", "text_encoder") for step in ("weights", "rewrite")]
    made = [f"{step} {part} fp32" for part in ("unet", "text_encoder") for step in ("derive", "build")]
    verified = [f"verify {component} fp32" for component in list(Component)[:4]]
    assert own == {"load", "reference", "bundle", *trained, *made, *verified}
    base, manifest = read_manifest(sd15_bundle), read_manifest(tmp_path / "b")
    check_files(tmp_path / "b", manifest)
    assert manifest.source.base_digest == base.source.digest != manifest.source.digest
    for component in (Component.VAE_DECODER, Component.VAE_ENCODER):
        assert manifest.engine(component) == base.engine(component)
    assert manifest.engine(Component.UNET).files != base.engine(Component.UNET).files
    assert {path.name: file_digest(path) for path in sorted(sd15_bundle.iterdir())} == before


def weights(manifest: Manifest) -> list[dict[str, str]]:
    """Return the digests of each engine's weights; its graph has names that OpenVINO numbers in a process."""
    files = [engine.files.items() for engine in manifest.engines]
    return [{name: digest for name, digest in each if name.endswith(".bin")} for each in files]


def compiled(source: Path, output: Path, **changes: Any) -> tuple[dict[str, Any], list[StageEvent]]:
    """Compile at int8; returns the report and what was said on the way."""
    events = events_of(job(source, output, precision={"": "int8"}, **changes))
    report: dict[str, Any] = json.loads((output / "compile_report.json").read_text(encoding="utf-8"))
    return report, events


@pytest.fixture(scope="module")
def base(sd15_checkpoint: Path, sd15_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's bundle at int8."""
    output = tmp_path_factory.mktemp("base") / "int8"
    compiled(sd15_checkpoint, output)
    return output


@pytest.mark.slow
def test_int8_takes_its_bases_ranges_while_verify_accepts_them_or_its_own_where_told(
    sd15_checkpoint: Path, base: Path, tmp_path: Path
) -> None:
    tuned = write_fine_tune(sd15_checkpoint, tmp_path / "tuned")
    report, events = compiled(tuned, tmp_path / "with", base=base)
    assert report["calibrated_on"] == {"unet": "base", "vae_decoder": "base"}
    assert report["seconds"]["calibration"] < 1
    assert "samples" not in ends_of(events)
    report, _ = compiled(tuned, tmp_path / "without")
    assert report["calibrated_on"] == {"unet": "own", "vae_decoder": "own"}
    report, _ = compiled(tuned, tmp_path / "told", base=base, recalibrate=True)
    assert report["calibrated_on"] == {"unet": "own", "vae_decoder": "own"}
    ways = {way: read_manifest(tmp_path / way) for way in ("with", "without", "told")}
    assert ways["without"].engines == ways["told"].engines
    assert ways["with"].engine(Component.UNET).files != ways["told"].engine(Component.UNET).files


@pytest.mark.slow
def test_a_fine_tune_that_its_bases_ranges_clip_is_calibrated_anew_and_says_so(
    sd15_checkpoint: Path, base: Path, tmp_path: Path
) -> None:
    def louder(name: str, weight: torch.Tensor) -> torch.Tensor:
        return weight * 8 if name.startswith("up_blocks.3.resnets") and ".norm2." in name else weight

    tuned = write_fine_tune(sd15_checkpoint, tmp_path / "tuned", louder)
    report, events = compiled(tuned, tmp_path / "b", base=base)
    assert report["calibrated_on"] == {"unet": "own", "vae_decoder": "base"}
    (said,) = [event.detail for event in events if event.status is Status.NOTE]
    assert "with the base's ranges it has" in said
    assert "calibrated anew" in said
    report, _ = compiled(tuned, tmp_path / "told", base=base, recalibrate=True)
    unets = [read_manifest(tmp_path / bundle).engine(Component.UNET) for bundle in ("b", "told")]
    assert unets[0] == unets[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_engines_of_a_fine_tune_are_those_of_an_empty_cache(precision: str, tmp_path: Path) -> None:
    tuned = write_fine_tune(EMOJI, tmp_path / "tuned")
    after, empty = tmp_path / "after", tmp_path / "empty"
    ends = {}
    for source, output, cache in ((EMOJI, "base", after), (tuned, "reused", after), (tuned, "anew", empty)):
        events = events_of(job(source, tmp_path / output, precision={"": precision}, cache=cache))
        ends[output] = ends_of(events)
    assert ends["reused"]["export unet"] is Status.REUSED
    assert ends["anew"]["export unet"] is Status.BUILT
    reused, anew = (read_manifest(tmp_path / output) for output in ("reused", "anew"))
    assert weights(reused) == weights(anew)
    assert reused.verified == anew.verified
