"""A line over steps as SVG, for a page that needs nothing else."""

from collections.abc import Sequence

WIDTH, HEIGHT = 800, 200
_LEFT, _BOTTOM, _TOP = 70, 24, 10
_SMOOTHED_FROM = 50  # points from which a line of averages helps


def chart(points: Sequence[tuple[int, float]]) -> str:
    """Return a chart of values by step; many points are drawn pale, with their running average over them."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = min(values), max(values)
    scale_x = (WIDTH - _LEFT - 10) / max(steps[-1] - steps[0], 1)
    scale_y = (HEIGHT - _TOP - _BOTTOM) / ((high - low) or 1.0)

    def line(heights: Sequence[float], colour: str) -> str:
        at = (
            f"{_LEFT + (s - steps[0]) * scale_x:.1f},{_TOP + (high - h) * scale_y:.1f}"
            for s, h in zip(steps, heights, strict=True)
        )
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{" ".join(at)}"/>'

    many = len(values) >= _SMOOTHED_FROM
    lines = line(values, "#b8cbe0" if many else "#2b6cb0")
    lines += line(_smoothed(values), "#2b6cb0") if many else ""
    bottom = HEIGHT - _BOTTOM
    labels = (
        (_LEFT - 6, _TOP + 4, "end", f"{high:.4g}"),
        (_LEFT - 6, bottom + 4, "end", f"{low:.4g}"),
        (_LEFT, HEIGHT - 6, "start", f"step {steps[0]}"),
        (WIDTH - 10, HEIGHT - 6, "end", f"step {steps[-1]}"),
    )
    texts = "".join(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in labels)
    axes = f'<path d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - 10}" fill="none" stroke="#999"/>'
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" fill="#555">{axes}{lines}{texts}</svg>'


def _smoothed(values: Sequence[float]) -> list[float]:
    width = max(len(values) // 20, 1)
    return [sum(part := values[max(0, i - width) : i + width + 1]) / len(part) for i in range(len(values))]
