"""A run's evaluation as files: a table in Markdown and HTML, every figure as JSON, and sheets of pictures."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mezzotint.trainer.evaluation.measures import COSINES, Cases, Found, Pictures
from mezzotint.trainer.evaluation.sheets import sheet
from mezzotint.trainer.evaluation.statistics import Estimate, bootstrap, share
from mezzotint.trainer.evaluation.suite import Group

FOLDER = "evaluation"
"""The evaluation's own folder in a run's."""

_COLUMNS = 10  # pictures of a row
Row = dict[str, str]


def estimate(values: npt.NDArray[Any]) -> Estimate:
    """Return a measure's figure with its interval: per cent of yes, or a mean."""
    return share(values) if values.dtype == np.bool_ else bootstrap(values)


def change(values: npt.NDArray[Any], others: npt.NDArray[Any]) -> Estimate:
    """Return how much higher ``values`` are than ``others`` of the same cases: points of a hundred, or a difference."""
    scale = 100.0 if values.dtype == np.bool_ else 1.0
    return bootstrap(scale * (values.astype(np.float64) - others))


def table_rows(found: Mapping[str, Found]) -> list[Row]:
    """Return a row for each measure, with 95 % intervals in brackets.

    ``found`` is by model: the base, its fine-tune, and other engines of that. The fine-tune is compared with the base,
    the others with the fine-tune, case by case.
    """
    columns = _estimates(found) | _changes(found)
    rows = []
    for name in dict.fromkeys(name for each in found.values() for name in each):
        digits = 3 if name in COSINES else 1
        row = {"measure": name if not _is_share(found, name) else f"{name}, %"}
        row |= {title: own[name].text(digits) if name in own else "" for title, own in columns.items()}
        rows.append(row)
    return rows


def figures(found: Mapping[str, Found]) -> dict[str, Any]:
    """Return every figure of each model and every change between two, with its interval, as JSON takes it."""
    columns = _estimates(found) | _changes(found)
    return {title: {name: each.rounded() for name, each in own.items()} for title, own in columns.items()}


def _estimates(found: Mapping[str, Found]) -> dict[str, dict[str, Estimate]]:
    return {model: {name: estimate(values) for name, values in each.items()} for model, each in found.items()}


def _changes(found: Mapping[str, Found]) -> dict[str, dict[str, Estimate]]:
    """Return by ``after minus before`` how each measure that both have has changed."""
    before, after, *others = found
    return {
        f"{model} minus {other}": {
            name: change(values, found[other][name]) for name, values in found[model].items() if name in found[other]
        }
        for model, other in [(after, before), *((other, after) for other in others)]
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def group_sheet(pictures: Mapping[str, Pictures], cases: Cases, group: Group) -> Any:
    """Return a sheet of one group: a row for each model, cases from all over the group."""
    asked = cases[group]
    picks = np.unique(np.linspace(0, len(asked) - 1, min(_COLUMNS, len(asked))).astype(int))
    rows = {model: each[group][picks] for model, each in pictures.items()}
    titles = [asked[i].thing + (f", {asked[i].ground}" if asked[i].ground else "") for i in picks]
    return sheet(rows, titles)


def write_report(
    folder: Path,
    title: str,
    found: Mapping[str, Found],
    pictures: Mapping[str, Pictures],
    cases: Cases,
    facts: Mapping[str, Any],
) -> Path:
    """Write everything into ``folder`` and return its page. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = table_rows(found)
    for group in cases:
        group_sheet(pictures, cases, group).save(folder / f"{group}.png", optimize=True)
    (folder / "table.md").write_text(f"# {title}\n\n{markdown(rows)}\n", encoding="utf-8")
    asked = {group: [[case.prompt, case.seed] for case in own] for group, own in cases.items()}
    content = {"title": title, **facts, "figures": figures(found), "rows": rows, "asked": asked}
    (folder / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    page = folder / "index.html"
    page.write_text(_page(title, rows, list(cases)), encoding="utf-8")
    return page


def _page(title: str, rows: Sequence[Row], groups: Sequence[Group]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows
    )
    sheets = "\n".join(f'<h2>{group.capitalize()}</h2>\n<img src="{group}.png" alt="{group}">' for group in groups)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{html.escape(title)}</title>
<style>body {{ font: 14px sans-serif; margin: 2em }} td, th {{ padding: .2em .8em; text-align: left }}
img {{ image-rendering: pixelated; max-width: 100% }}</style>
<h1>{html.escape(title)}</h1>
<p>In brackets 95 % intervals; differences are taken case by case.</p>
<table>
<tr>{head}</tr>
{body}
</table>
{sheets}
</html>
"""


def _is_share(found: Mapping[str, Found], name: str) -> bool:
    return any(name in each and each[name].dtype == np.bool_ for each in found.values())
