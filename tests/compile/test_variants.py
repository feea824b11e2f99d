"""Step caching, decoders in parts and tiny decoders, through the whole compiler; and the line that verify draws."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mezzotint.compile import decoder
from mezzotint.compile.decoder import even_parts, fewest_parts, guided_step_ms
from mezzotint.compile.job import Status
from mezzotint.compile.pipeline import compile_checkpoint
from mezzotint.compile.stages import StageResult, Stages
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.bundle_files import check_files
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import CheckpointError, InvalidRequest, VerifyError
from mezzotint.engines.generate import generate
from mezzotint.engines.manifest import Manifest, read_manifest
from mezzotint.engines.request import Request
from tests.compile.jobs import ends_of, events_of, job
from tests.miniatures import write_tiny_decoder

pytestmark = [
    # torch and diffusers warn of their own insides
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("sd15_bundle"),  # has the exports made, once for all workers
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_decoder(tmp_path_factory.mktemp("tiny") / "taesd-miniature", num_levels=4)


@pytest.fixture(scope="module")
def bundle(sd15_checkpoint: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every variant that there is."""
    output = tmp_path_factory.mktemp("bundles") / "all"
    compile_checkpoint(job(sd15_checkpoint, output, step_cache=1, decoder_parts=2, tiny_decoder=tiny), lambda _: None)
    return output


def variants(manifest: Manifest, component: Component) -> list[str]:
    return [entry.variant for entry in manifest.engines if entry.component is component]


def test_a_bundle_holds_every_variant_that_was_asked_for(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    check_files(bundle, manifest)
    assert variants(manifest, Component.UNET) == ["full", "shallow"]
    assert variants(manifest, Component.VAE_DECODER) == ["part1", "part2", "tiny"]
    full, shallow = (manifest.engine(Component.UNET, variant) for variant in ("full", "shallow"))
    assert [tensor.name for tensor in full.outputs] == ["output", "feature"]
    assert [tensor.name for tensor in shallow.inputs] == ["sample", "timestep", "text", "feature"]
    assert shallow.inputs[-1] == full.outputs[-1]
    assert shallow.inputs[-1].axes == ("rows", 64, "height", "width")
    assert shallow.axes == full.axes
    parts = [manifest.engine(Component.VAE_DECODER, name) for name in ("part1", "part2")]
    assert [parts[0].inputs[0].name, parts[1].outputs[0].name] == ["latents", "pixels"]
    assert [(a.outputs, b.inputs) for a, b in pairwise(parts)] == [(parts[0].outputs, parts[1].inputs)]
    for entry in parts:
        assert set(entry.axes) == {a for t in (*entry.inputs, *entry.outputs) for a in t.axes if isinstance(a, str)}


def test_every_variant_is_verified_against_torch(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    found = {(m.component, m.variant, m.output): m for m in manifest.verified}
    assert {key for key in found if key[0] in (Component.UNET, Component.VAE_DECODER)} == {
        (Component.UNET, "full", "output"),
        (Component.UNET, "full", "feature"),
        (Component.UNET, "shallow", "output"),
        (Component.VAE_DECODER, "part2", "pixels"),
        (Component.VAE_DECODER, "tiny", "pixels"),
    }
    assert all(measured.snr_db >= measured.floor_db == 70 for measured in found.values())
    report = json.loads((bundle / "compile_report.json").read_text())
    calls = {(v["component"], v["variant"], v["output"]): len(v["all_db"]) for v in report["verify"]}
    assert calls[Component.UNET, "shallow", "output"] == calls[Component.UNET, "full", "feature"] == 10
    assert "| vae_decoder (part1) | " in (bundle / "compile_report.md").read_text()


def test_the_tiny_decoder_paints_what_diffusers_does_with_it(bundle: Path, tiny: Path) -> None:
    model = open_bundle(bundle, LoadOptions(devices={}, cache=False))
    request = Request(prompt="a cat", steps=2, seed=1, return_latents=True, decoder="tiny")
    ((image,),) = generate(model, [request])
    model.close()
    vae = diffusers.AutoencoderTiny.from_pretrained(tiny)
    assert image.latents is not None
    assert image.pixels is not None
    with torch.no_grad():
        pixels = vae.decode(torch.from_numpy(image.latents[None]) / vae.config.scaling_factor).sample[0].numpy()
    truth = (np.clip(pixels / 2 + 0.5, 0, 1) * 255).round().transpose(1, 2, 0)
    assert np.abs(image.pixels - truth).max() <= 1


def test_a_second_compile_reuses_the_variants(sd15_checkpoint: Path, bundle: Path, tiny: Path, tmp_path: Path) -> None:
    wanted = job(sd15_checkpoint, tmp_path / "b", step_cache=1, decoder_parts=2, tiny_decoder=tiny)
    ends = ends_of(events_of(wanted))
    assert {stage for stage, status in ends.items() if status is not Status.REUSED} == {"load", "bundle"}
    assert {"cut unet", "cut vae_decoder parts", "verify vae_decoder_tiny fp32"} <= set(ends)
    assert read_manifest(tmp_path / "b") == read_manifest(bundle)


def test_a_decoder_that_takes_longer_than_two_steps_is_cut(
    sd15_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "MAX_STEPS", 1e6)  # what it takes beside a busy neighbour is another matter
    compile_checkpoint(job(sd15_checkpoint, tmp_path / "a", decoder_parts=0), lambda _: None)
    manifest = read_manifest(tmp_path / "a")
    entry = manifest.engine(Component.VAE_DECODER)
    assert entry.step_ms[1] < 1e6 * guided_step_ms(manifest.engine(Component.UNET))
    monkeypatch.setattr(decoder, "MAX_STEPS", 1e-6)
    compile_checkpoint(job(sd15_checkpoint, tmp_path / "b", decoder_parts=0), lambda _: None)
    assert variants(read_manifest(tmp_path / "b"), Component.VAE_DECODER) == [f"part{i}" for i in range(1, 7)]


def test_a_variant_that_there_cannot_be_is_one_sentence(sd15_checkpoint: Path, tiny: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], sentence: str, **changes: Any) -> None:
        with pytest.raises(error, match=sentence):
            compile_checkpoint(job(sd15_checkpoint, tmp_path / "b", **changes), lambda _: None)
        assert not (tmp_path / "b").exists()

    refused(InvalidRequest, "step_cache=2: must be a branch of this UNet's last up block, 0 to 1", step_cache=2)
    refused(InvalidRequest, "decoder_parts=7: this decoder can be cut into 6 parts at most", decoder_parts=7)
    vae = sd15_checkpoint / "vae"
    refused(CheckpointError, "vae: its config.json is of AutoencoderKL, expected AutoencoderTiny", tiny_decoder=vae)
    refused(CheckpointError, "config.json: no such file", tiny_decoder=tmp_path)
    small = write_tiny_decoder(tmp_path / "small", num_levels=3)
    refused(CheckpointError, "decodes 4 channels to 3 at 4 times the size, expected 4 to 3 at 8", tiny_decoder=small)


def spoil(monkeypatch: pytest.MonkeyPatch, engine: str, factor: float, precision: Precision = Precision.FP32) -> None:
    """Let the compiler make one engine of one precision with every weight off by a factor; the others stay."""
    run = Stages.run

    def spoilt(self: Stages, name: str, inputs: dict[str, Any], work: Callable[[Path], Any]) -> StageResult:
        if name != f"derive {engine} {precision}":
            return run(self, name, inputs, work)

        def derive(folder: Path) -> Any:
            detail = work(folder)
            multiply_weights(folder / f"{engine}.onnx", factor)
            return detail

        return run(self, name, inputs | {"spoilt by": factor}, derive)

    monkeypatch.setattr(Stages, "run", spoilt)


def multiply_weights(file: Path, factor: float) -> None:
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2:
            array = numpy_helper.to_array(tensor)
            if array.size > 1:
                tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(np.float32), tensor.name))
    onnx.save(model, file)


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("unet", r"unet: output '(output|feature)' has"),
        ("unet_shallow", r"unet \(shallow\): output 'output' has"),
        ("vae_decoder_part1", r"vae_decoder \(part2\): output 'pixels' has"),
        ("vae_decoder_tiny", r"vae_decoder \(tiny\): output 'pixels' has"),
    ],
)
def test_an_engine_with_weights_five_percent_off_is_refused(
    sd15_checkpoint: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, sentence: str
) -> None:
    (tmp_path / "out").mkdir()
    spoil(monkeypatch, engine, 1.05)
    changes: dict[str, Any] = {"step_cache": 1, "decoder_parts": 2, "tiny_decoder": tiny}
    with pytest.raises(VerifyError, match=rf"{sentence} \d+\.\d dB .* tolerance of 70\.0 dB"):
        compile_checkpoint(job(sd15_checkpoint, tmp_path / "out" / "b", **changes), lambda _: None)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_int8_is_calibrated_on_what_engines_before_it_give(sd15_checkpoint: Path, tmp_path: Path) -> None:
    wanted = job(sd15_checkpoint, tmp_path / "b", precision={"": "int8"}, step_cache=1, decoder_parts=2)
    compile_checkpoint(wanted, lambda _: None)
    manifest = read_manifest(tmp_path / "b")
    rounded = {(e.component, e.variant) for e in manifest.engines if e.precision is Precision.INT8}
    assert rounded >= {("unet", "full"), ("unet", "shallow"), ("vae_decoder", "part1"), ("vae_decoder", "part2")}
    assert manifest.engine(Component.TEXT_ENCODER).precision is Precision.INT8_WEIGHTS


@pytest.mark.slow
def test_a_tiny_decoder_that_a_precision_spoils_is_built_at_fp32(
    sd15_checkpoint: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "vae_decoder_tiny", 1.5, Precision.INT8_WEIGHTS)
    events = events_of(job(sd15_checkpoint, tmp_path / "b", precision={"": "int8-weights"}, tiny_decoder=tiny))
    manifest = read_manifest(tmp_path / "b")
    assert manifest.engine(Component.VAE_DECODER).precision is Precision.INT8_WEIGHTS
    assert manifest.engine(Component.VAE_DECODER, "tiny").precision is Precision.FP32
    (note,) = [event.detail for event in events if event.status is Status.NOTE]
    assert note == "the tiny decoder is built at fp32, since it strays too far from torch at int8-weights"


@pytest.mark.parametrize(
    ("costs", "num_parts", "ends"),
    [([1, 1, 1, 1], 2, (2, 4)), ([9, 1, 1, 1], 2, (1, 4)), ([1, 2, 3, 4, 5], 3, (3, 4, 5)), ([5, 5], 2, (1, 2))],
)
def test_parts_are_cut_so_that_the_dearest_is_as_cheap_as_can_be(
    costs: list[float], num_parts: int, ends: tuple[int, ...]
) -> None:
    assert even_parts(costs, num_parts) == ends


@pytest.mark.parametrize(
    ("limit", "ends"), [(20, (4,)), (10, (4,)), (9, (3, 4)), (6, (3, 4)), (4, (2, 3, 4)), (1, (1, 2, 3, 4))]
)
def test_as_few_parts_as_keep_the_limit(limit: float, ends: tuple[int, ...]) -> None:
    assert fewest_parts([1, 2, 3, 4], limit) == ends
