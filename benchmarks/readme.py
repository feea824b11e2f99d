"""Fills the README's measured region from ``benchmarks/results``: no figure there is written by hand.

python -m benchmarks.readme
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, table

OURS = "Mezzotint"
README = Path(__file__).parents[1] / "README.md"
_REGION = re.compile(r"(<!-- measured:begin -->\n).*?(<!-- measured:end -->)", re.DOTALL)


def read(name: str) -> dict[str, Any]:
    """Return one script's results."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def precisions(name: str) -> str:
    """Return the table of one checkpoint's precisions, with what compiling it took."""
    rows = read(f"precisions-{name}")["rows"]
    columns = [key for key in rows[0] if key != "cpu/wall" and any(row.get(key) for row in rows)]
    return table([{key: row.get(key, "") for key in columns} for row in rows])


def beside_peers(name: str) -> tuple[str, str]:
    """Return a table of Mezzotint's rows and of each peer's fastest at every step count, and which peers lead."""
    found = read(f"peers-{name}")
    columns = [f"{count} steps{unit}" for count in found["details"]["steps"] for unit in (", s", " × best peer")]
    rows = [row for row in found["rows"] if row[columns[0]]]
    fastest = {
        min(_of(rows, label), key=lambda row: _seconds(row[column]))["configuration"]
        for label in {_label(row) for row in rows}
        for column in columns[::2]
    }
    shown = [row for row in rows if _label(row) == OURS or row["configuration"] in fastest]
    peers = [row for row in rows if _label(row) != OURS]
    leaders = [min(peers, key=lambda row: _seconds(row[column]))["configuration"] for column in columns[::2]]
    plain = [row for row in _of(rows, OURS) if "," not in row["configuration"]]
    text = " ".join(
        f"At {count} steps the best of them is “{leader}”; Mezzotint without shortcuts is "
        f"{max(float(row[ratio]) for row in plain):.2f} times as fast."
        for leader, count, ratio in zip(leaders, found["details"]["steps"], columns[1::2], strict=True)
    )
    return table([{key: row[key] for key in ("configuration", *columns, "peak MiB", "rounds")} for row in shown]), text


def _of(rows: list[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    return [row for row in rows if _label(row) == label]


def _label(row: dict[str, Any]) -> str:
    return str(row["configuration"]).partition(":")[0]


def _seconds(cell: str) -> float:
    return float(cell.split()[0]) if cell else float("inf")


def region() -> str:
    """Return the Markdown between the two marks."""
    peers, leaders = beside_peers("sd15-size")
    emoji, full, overhead = read("precisions-emoji"), read("precisions-sd15-size"), read("overhead")
    machine = full["machine"]
    versions = machine["versions"]
    own = [
        {"the server's own time": row["server's own time"], "p50": row["p50"], "p95": row["p95"]}
        for row in overhead["rows"]
    ]
    return "\n".join(
        [
            f"On {machine['host']}, OpenVINO {versions['openvino']}; a UNet call of two rows is one step of one guided "
            "picture. `× fp32` is a ratio of interleaved calls; SNR is that of the "
            "UNet's output against torch at the worst of ten timesteps, PSNR that of whole pictures against diffusers.",
            "",
            f"The bundled emoji model, {emoji['details']['side']} pixels (fp32's compile seconds hold export and "
            "torch's pictures, which the others reuse):",
            "",
            precisions("emoji"),
            "",
            f"The full-size Stable Diffusion 1.5 architecture with random weights, {full['details']['side']} pixels "
            "(fp32's compile seconds hold torch's pictures, int8's those that it is calibrated on; others reuse both; "
            "empty where the machine had other work):",
            "",
            precisions("sd15-size"),
            "",
            "Which precision is fastest depends on model and machine, so `--precision auto` measures it.",
            "",
            "A whole picture beside other engines, full size, 256 pixels, DDIM, guidance 7.5, the same noise; of each "
            "other engine its fastest settings ([all of them](benchmarks/results/peers-sd15-size.md)). "
            f"{leaders} Rows with shortcuts paint another picture than those without.",
            "",
            peers,
            "",
            "What the precisions do to pictures, counted against what was asked, is in "
            "[docs/benchmarks.md](docs/benchmarks.md#quality).",
            "",
            "The server's own time, outside the engines, on the emoji model:",
            "",
            table(own),
            "",
            f"`pip install '.[serve]'` takes {read('install-size')['rows'][0]['MB']} MB, half of it OpenVINO.",
            "",
        ]
    )


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    text = README.read_text(encoding="utf-8")
    content = region()
    README.write_text(_REGION.sub(lambda found: found.group(1) + content + found.group(2), text), encoding="utf-8")
    print(content)


if __name__ == "__main__":
    main()
