"""``mezzotint inspect``: what a bundle is made of, read from its manifest, with every digest checked."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mezzotint.cli.progress import size_text

if TYPE_CHECKING:
    from mezzotint.engines.manifest import AxisRange, EngineEntry, Manifest, Measured

_WIDE = 136  # columns of a table that is not shown on a terminal


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, digest and sizes as JSON, for scripts.")
def command(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE is made of and check every file's digest; loads no engine.

    Use it to see which sizes, precisions and row counts a bundle was built for, and whether it is whole.
    """
    from mezzotint.engines.bundle_files import check_files, file_digest
    from mezzotint.engines.manifest import MANIFEST, read_manifest

    manifest = read_manifest(bundle)
    check_files(bundle, manifest)
    digest = file_digest(bundle / MANIFEST)
    if as_json:
        sizes = {_label(e): _size(bundle, e) for e in manifest.engines}
        about = {"digest": digest, "engine_bytes": sizes, "manifest": manifest.model_dump(mode="json")}
        click.echo(json.dumps(about, indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    console.print(
        f"[bold]{escape(manifest.name)}[/]  bundle {digest[:12]}, every file's digest is right", soft_wrap=True
    )
    for line in _facts(manifest):
        console.print(escape(line), soft_wrap=True)
    console.print(_engines(bundle, manifest))
    if manifest.verified:
        console.print(_verified(manifest))


def _facts(manifest: "Manifest") -> list[str]:
    from mezzotint.engines.prompts.rows import max_chunks

    chunks = max_chunks(manifest)
    schedule, latents, text = manifest.schedule, manifest.latents, manifest.text
    spacing = schedule.timestep_spacing or "each sampler's own"
    predicts = schedule.prediction_type.removesuffix("_prediction")
    source = f"source    {manifest.source.name}, digest {manifest.source.digest[:12]}"
    if manifest.source.base_digest:
        how = "merged into" if manifest.source.merged else "fine-tuned from"
        source += f", {how} {manifest.source.base_digest[:12]}"
    return [
        source,
        *(f"merged    {m.weight:g} × {m.name}, digest {m.digest[:12]}" for m in manifest.source.merged),
        f"compiled  by {manifest.compiled_by}; family {manifest.family}",
        f"schedule  {schedule.beta_schedule}, {schedule.num_train_timesteps} timesteps, "
        f"predicts {predicts}, {spacing} spacing; sampler {schedule.default_sampler}",
        f"pictures  {latents.default_width}x{latents.default_height} by default, sides in multiples of "
        f"{latents.size_multiple}",
        f"prompts   up to {chunks} chunk{'s' * (chunks > 1)} of {text.max_tokens - 2} tokens, without the special ones",
        *(f"note      {note}" for note in manifest.notes),
    ]


def _engines(folder: Path, manifest: "Manifest") -> Table:
    table = Table(
        "engine", "backend", "precision", "device", "size", "axes", "bit-equal rows", "ms by rows", "MiB by rows"
    )
    for entry in manifest.engines:
        flavour = f" {entry.flavour}" if entry.flavour else ""
        table.add_row(
            _label(entry),
            f"{entry.backend} {entry.backend_version}{flavour}",
            str(entry.precision),
            entry.device,
            size_text(_size(folder, entry)),
            "\n".join(f"{name} {_range(axis)}" for name, axis in entry.axes.items()),
            "\n".join(" ".join(map(str, group)) for group in entry.row_classes),
            "\n".join(f"{rows}: {ms:.1f}" for rows, ms in sorted(entry.step_ms.items())),
            "\n".join(f"{rows}: {size >> 20}" for rows, size in sorted(entry.resident_bytes.items())),
        )
    return table


def _verified(manifest: "Manifest") -> Table:
    table = Table("verified", "output", "signal to noise", "had to reach")
    for measured in manifest.verified:
        table.add_row(_label(measured), measured.output, f"{measured.snr_db:.1f} dB", f"{measured.floor_db:.1f} dB")
    return table


def _label(engine: "EngineEntry | Measured") -> str:
    from mezzotint.engines.variants import title

    return title(engine.component, engine.variant)


def _range(axis: "AxisRange") -> str:
    return str(axis.opt) if axis.min == axis.max else f"{axis.min}:{axis.opt}:{axis.max}"


def _size(folder: Path, entry: "EngineEntry") -> int:
    return sum((folder / name).stat().st_size for name in entry.files)
