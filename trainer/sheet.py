"""A run as something to look at: ``index.html`` and ``contact-sheet.png`` in its folder, made of the files there."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from mezzotint.trainer.atomic import write_file
from mezzotint.trainer.chart import chart
from mezzotint.trainer.loggers import LOSS, read_lines
from mezzotint.trainer.samples import samples_by_step

PAGE = "index.html"
SHEET = "contact-sheet.png"

_SIDE = 128  # of a picture on the sheet, in pixels
_MARGIN = 8
_MAX_ROWS = 12  # a long run shows some of its steps
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-weight:600}h2{margin-top:2rem;font-size:1.1rem}img{image-rendering:auto;border-radius:4px;margin:2px}
table{border-collapse:collapse}td{padding:.1rem 1.5rem .1rem 0;vertical-align:top}figure{margin:.5rem 0}
figcaption{color:#666}svg{width:100%;height:auto}
"""


def write_sheet(run: Path, title: str, facts: Mapping[str, str], pictures: Sequence[Path]) -> None:
    """Write the page and the contact sheet of a run.

    Args:
        run: its folder, with ``logs`` and ``samples``.
        title: what it is about, such as the instance prompt.
        facts: a table of names and values.
        pictures: those that it learns; they are copied into the page, small.

    Raises:
        OSError: the disk is full; what was there stays.
    """
    thumbnails = [_square(path) for path in pictures]
    samples = _thinned(samples_by_step(run / "samples"))
    rows = [("learned", thumbnails)] if thumbnails else []
    rows += [(f"step {step}", [_square(path) for path in paths]) for step, paths in samples.items()]
    if rows:
        write_file(run / SHEET, _png(contact_sheet(rows)))
    write_file(run / PAGE, _page(run, title, facts, thumbnails, samples).encode())


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Return rows of squares, each with its name on the left."""
    font, step = ImageFont.load_default(14), _SIDE + _MARGIN
    left = _MARGIN + int(max(font.getlength(name) for name, _ in rows)) + _MARGIN
    width = left + max(len(pictures) for _, pictures in rows) * step
    sheet = Image.new("RGB", (width, _MARGIN + len(rows) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows):
        top = _MARGIN + row * step
        draw.text((_MARGIN, top + _SIDE // 2), name, fill="black", font=font, anchor="lm")
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (left + column * step, top))
    return sheet


def _page(
    run: Path,
    title: str,
    facts: Mapping[str, str],
    thumbnails: Sequence[Image.Image],
    samples: Mapping[int, Sequence[Path]],
) -> str:
    lines = read_lines(run / "logs")
    parts = [f"<h1>{html.escape(title)}</h1>", _table({**facts, **_measured(lines)})]
    if thumbnails:
        images = "".join(f'<img alt="" src="data:image/png;base64,{_base64(image)}">' for image in thumbnails)
        parts.append(f"<h2>What it learned from</h2><figure>{images}</figure>")
    for name, heading in ((LOSS, "Loss"), ("val/loss", "Loss on fixed noise"), ("lr", "Learning rate")):
        points = [(step, values[name]) for step, values in lines.items() if name in values]
        if len(points) > 1:
            parts.append(f"<h2>{heading}</h2>{chart(points)}")
    if samples:
        parts.append("<h2>On the way</h2>")
    for step, paths in samples.items():
        images = "".join(f'<img alt="" width="{_SIDE}" src="samples/{html.escape(path.name)}">' for path in paths)
        parts.append(f"<figure>{images}<figcaption>step {step}</figcaption></figure>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _measured(lines: Mapping[int, Mapping[str, float]]) -> dict[str, str]:
    """Return what the logs say of the whole run."""
    latest = {name: value for values in lines.values() for name, value in values.items()}
    facts = {"steps": str(max(lines, default=0))}
    if "val/loss" in latest:
        losses = {step: values["val/loss"] for step, values in lines.items() if "val/loss" in values}
        best = min(losses, key=losses.__getitem__)
        facts["loss on fixed noise"] = f"{latest['val/loss']:.4f}, lowest {losses[best]:.4f} at step {best}"
    if "epoch_seconds" in latest:
        facts["an epoch"] = f"{latest['epoch_seconds']:.1f} s"
    for name, words in (("peak_memory_mib", "most memory"), ("peak_gpu_memory_mib", "most GPU memory")):
        if name in latest:
            facts[words] = f"{latest[name]:,.0f} MiB"
    return facts


def _table(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def _thinned(samples: Mapping[int, list[Path]]) -> dict[int, list[Path]]:
    """Return at most so many steps, evenly spread, the first and the last among them."""
    steps = list(samples)
    count = min(len(steps), _MAX_ROWS)
    kept = {steps[round(i * (len(steps) - 1) / max(count - 1, 1))] for i in range(count)}
    return {step: paths for step, paths in samples.items() if step in kept}


def _square(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return ImageOps.fit(ImageOps.exif_transpose(picture).convert("RGB"), (_SIDE, _SIDE))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _base64(picture: Image.Image) -> str:
    return base64.b64encode(_png(picture)).decode()
