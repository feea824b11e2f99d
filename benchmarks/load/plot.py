"""The frontier of policies: mean against p99 of latency, and p99 of slowdown as the size of a point."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.load.statistics import Interval


def plot_frontier(panels: Mapping[str, Mapping[str, Mapping[str, Interval]]], path: Path) -> None:
    """Draw one panel for each engine and load: ratios of each way to first come, first served."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    columns = 3
    figure, all_axes = plt.subplots(
        -(-len(panels) // columns), columns, figsize=(15, 9), layout="constrained", squeeze=False
    )
    for axes, (title, ways) in zip(all_axes.flat, panels.items(), strict=False):
        for name, found in ways.items():
            mean, p99, slowdown = (found[key] for key in ("mean", "p99", "p99 slowdown"))
            axes.errorbar(mean.mean, p99.mean, xerr=mean.half, yerr=p99.half, fmt="none", color="0.6", lw=0.8)
            axes.scatter(mean.mean, p99.mean, s=20 + 160 * min(slowdown.mean, 2.0), alpha=0.6)
            axes.annotate(name, (mean.mean, p99.mean), fontsize=7, xytext=(5, 5), textcoords="offset points")
        axes.set(title=title, xlabel="mean latency ×", ylabel="p99 latency ×")
        axes.grid(alpha=0.3)
    figure.suptitle("Ratios to first come, first served; larger points: larger p99 slowdown")
    figure.savefig(path, dpi=110)
    plt.close(figure)
