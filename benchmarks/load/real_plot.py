"""Plots of the real run: how latencies are distributed, and how many pictures are in time."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.load.traffic import Floats


def plot_distributions(panels: Mapping[str, Mapping[str, tuple[Floats, Floats]]], path: Path) -> None:
    """Draw each load's share of pictures that have left after so many seconds, by way: real, and dashed simulated."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, all_axes = plt.subplots(
        rows, columns, figsize=(5 * columns, 4.5 * rows), layout="constrained", squeeze=False, sharey=True
    )
    for axes in all_axes.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, ways) in zip(all_axes.flat, panels.items(), strict=False):
        for i, (name, (real, simulated)) in enumerate(ways.items()):
            share = np.arange(1, len(real) + 1) / len(real)
            axes.step(np.sort(real), share, where="post", color=f"C{i}", label=name)
            axes.step(np.sort(simulated), share, where="post", color=f"C{i}", linestyle=":", lw=1)
        axes.set(title=f"load {title}", xlabel="seconds", xscale="log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.grid(alpha=0.3)
    for axes in all_axes[:, 0]:
        axes.set_ylabel("share of pictures that are there")
    all_axes[0, 0].legend(fontsize=8)
    figure.suptitle("Latency of each way on the same engines; dotted: simulated")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_goodput(lines: Mapping[str, Mapping[float, tuple[float, float]]], path: Path) -> None:
    """Draw the percentage of pictures in time over the load, by way: real, and dotted simulated."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for i, (name, found) in enumerate(lines.items()):
        loads = [f"{load:.0%}" for load in found]
        real, simulated = zip(*found.values(), strict=True)
        axes.plot(loads, real, marker="o", color=f"C{i}", label=name)
        axes.plot(loads, simulated, color=f"C{i}", linestyle=":", lw=1)
    axes.set(xlabel="load", ylabel="% in time", ylim=(0, 102))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.suptitle("Pictures in time on the same engines; dotted: simulated")
    figure.savefig(path, dpi=110)
    plt.close(figure)
