"""Fills the README's measured region from ``benchmarks/results``: no figure there is written by hand.

python -m benchmarks.readme
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, table

README = Path(__file__).parents[1] / "README.md"
_REGION = re.compile(r"(<!-- measured:begin -->\n).*?(<!-- measured:end -->)", re.DOTALL)


def read(name: str) -> dict[str, Any]:
    """Return one script's results."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def precisions(name: str) -> str:
    """Return the table of one checkpoint's precisions, with what compiling it took."""
    found = read(f"precisions-{name}")
    details = found["details"]
    columns = [key for key in found["rows"][0] if key != "cpu/wall"]
    rows = [
        {key: row[key] for key in columns}
        | {
            "compile s": round(details["compile_seconds"][row["precision"]]),
            "peak MiB": details["peak_memory_mib"][row["precision"]],
        }
        for row in found["rows"]
    ]
    return table(rows)


def region() -> str:
    """Return the Markdown between the two marks."""
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
            f"The bundled emoji model, {emoji['details']['side']} pixels (compile seconds reuse the ONNX export):",
            "",
            precisions("emoji"),
            "",
            f"The full-size Stable Diffusion 1.5 architecture with random weights, {full['details']['side']} pixels "
            "(fp32's compile seconds hold the ONNX export, which the others reuse):",
            "",
            precisions("sd15-size"),
            "",
            "Which precision is fastest depends on model and machine, so `--precision auto` measures it.",
            "",
            "The server's own time, outside the engines, on the emoji model:",
            "",
            table(own),
            "",
            f"`pip install '.[serve]'` takes {read('install-size')['rows'][0]['MB']} MB, OpenVINO most of it.",
            "",
        ]
    )


def main() -> None:
    text = README.read_text(encoding="utf-8")
    content = region()
    README.write_text(_REGION.sub(lambda found: found.group(1) + content + found.group(2), text), encoding="utf-8")
    print(content)


if __name__ == "__main__":
    main()
