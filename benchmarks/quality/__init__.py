"""Are an engine's pictures as good as fp32's? The emoji model knows what it should paint, so that can be counted.

    python -m benchmarks.quality --bundle fp32=build/emoji-fp32 --bundle int8=build/emoji-int8
    python -m benchmarks.quality --quick 200 --bundle fp32=build/emoji-fp32 --bundle "try=build/emoji-fp32,unet=try.xml"

For scripts: ``paint(bundle, draw_cases(200), steps)`` gives pictures, ``compare`` says how far two sets are apart, and
``named_psnr_db`` how far pictures are from what they should show.
"""

from benchmarks.quality.cases import Case, draw_cases
from benchmarks.quality.judge import Judge, ground_as_asked, named_psnr_db
from benchmarks.quality.metrics import Comparison, compare
from benchmarks.quality.paint import paint
from benchmarks.quality.swap import with_engine

__all__ = [
    "Case",
    "Comparison",
    "Judge",
    "compare",
    "draw_cases",
    "ground_as_asked",
    "named_psnr_db",
    "paint",
    "with_engine",
]
