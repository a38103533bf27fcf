"""A mixture that moves and is followed: `python -m benchmarks.moving_mixture` writes docs/moving_mixture.png.

Four clusters. One circles, one walks, one stays; the fourth goes away at 40 % of the rows, and a new one comes from
elsewhere at 60 %. The stream forgets by half in 1000 rows and moves components that have no rows left.
"""

import argparse
import pathlib

import numpy as np

from fastem import GaussianMixture, Online
from fastem.pictures import component_covariances, ellipse, new_figure, save_figure

N_ROWS, HALF_LIFE, BATCH = 60_000, 1000.0, 250
GONE, NEW = 0.40, 0.60  # of the rows
SHOWN = (0.10, 0.38, 0.61, 1.0)
SPREADS = np.array([[0.8, 0.5], [0.6, 0.6], [0.5, 1.0], [0.7, 0.7]])


def centers(time: float) -> np.ndarray:
    """Centres (4, 2) at a time in [0, 1]."""
    angle = 2 * np.pi * time
    fourth = [7.0, -6.0] if time > NEW else [-7.0, 6.0]
    return np.array([[6 * np.cos(angle), 6 * np.sin(angle)], [-8 + 16 * time, 8.0], [0.0, 0.0], fourth])


def rows(n_rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 2) in the order of their times (n,)."""
    times = np.arange(n_rows) / n_rows
    clusters = rng.integers(4, size=n_rows)
    absent = (clusters == 3) & (times > GONE) & (times < NEW)
    clusters[absent] = rng.integers(3, size=absent.sum())
    places = np.stack([centers(time)[k] for time, k in zip(times, clusters, strict=True)])
    return places + SPREADS[clusters] * rng.normal(size=(n_rows, 2)), times


def main(arguments: list[str] | None = None) -> int:
    """Learn the stream and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = pathlib.Path(__file__).parents[1] / "docs" / "moving_mixture.png"
    parser.add_argument("--out", type=pathlib.Path, default=default)
    parser.add_argument("--rows", type=int, default=N_ROWS)
    options = parser.parse_args(arguments)
    X, times = rows(options.rows, np.random.default_rng(0))
    online = Online(half_life=HALF_LIFE, starved="reseed")
    gm = GaussianMixture(4, random_state=0, batch_size=BATCH, online=online)

    figure = new_figure(11.0, 5.6)
    grid = figure.add_gridspec(2, len(SHOWN), height_ratios=[3, 2])
    scores, shown = [], iter(enumerate(SHOWN))
    number, due = next(shown)
    for first in range(0, len(X), BATCH):
        gm.partial_fit(X[first : first + BATCH])
        last = min(first + BATCH, len(X))
        scores.append((times[last - 1], getattr(gm, "drift_score_", np.nan)))
        if last >= due * len(X):
            _snapshot(figure.add_subplot(grid[0, number]), gm, X[max(0, last - 1000) : last], times[last - 1])
            number, due = next(shown, (0, np.inf))
    _timeline(figure.add_subplot(grid[1, :]), np.array(scores))
    save_figure(figure, options.out)
    print(f"wrote {options.out}; the last centres are\n{gm.means_.round(2)}\nand were\n{centers(1.0)}")
    return 0


def _snapshot(axes, gm: GaussianMixture, recent: np.ndarray, time: float) -> None:
    axes.scatter(*recent.T, s=3, color="0.6", linewidths=0)
    for k, (mean, covariance) in enumerate(zip(gm.means_, component_covariances(gm), strict=True)):
        axes.plot(*ellipse(mean, covariance, 2.0).T, color=f"C{k}", linewidth=1.8)
        axes.annotate(f"{k}", mean, color=f"C{k}", weight="bold", ha="center", va="center")
    axes.set(xlim=(-11, 11), ylim=(-10, 11), title=f"after {100 * time:.0f} % of the rows", aspect="equal")
    axes.tick_params(labelsize=7)


def _timeline(axes, scores: np.ndarray) -> None:
    axes.plot(*scores.T, color="0.3", linewidth=1.0)
    axes.axhline(3.0, color="0.7", linestyle="dashed", linewidth=1.0)
    for time, text in ((GONE, "a cluster goes"), (NEW, "another comes")):
        axes.axvline(time, color="C3", linewidth=1.0)
        axes.annotate(
            text, (time, 0.92), (4, 0), xycoords=("data", "axes fraction"), textcoords="offset points", color="C3"
        )
    for time in SHOWN:
        axes.axvline(time, color="0.8", linewidth=0.8, linestyle="dotted")
    axes.set(xlim=(0, 1), xlabel="part of the stream", ylabel="drift_score_", yscale="symlog")


if __name__ == "__main__":
    raise SystemExit(main())
