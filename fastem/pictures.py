"""Pictures of fitted Gaussian mixtures. Needs matplotlib: `pip install "fastem[plot]"`."""

import math
import os
from typing import Any

import numpy as np

from fastem.persistence import atomic_writer

_RADII = {1.0: "solid", 2.0: "dashed"}  # ellipses in standard deviations, and their lines


def new_figure(width: float, height: float) -> Any:
    """A figure to draw on, in inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib; install it with: pip install "fastem[plot]"') from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike) -> None:
    """Write a figure as PNG; an existing file stays whole until it is replaced."""
    with atomic_writer(path) as file:
        figure.savefig(file, format="png", dpi=120)


def component_covariances(mixture: Any) -> np.ndarray:
    """Covariances (K, D, D) of a fitted mixture, whatever its covariance_type."""
    n_components, n_features = mixture.means_.shape
    covariances = mixture.covariances_
    if mixture._model().family.form in ("full", "tied"):
        return np.broadcast_to(covariances, (n_components, n_features, n_features))
    return np.stack([np.eye(n_features) * variance for variance in covariances])


def ellipse(mean: np.ndarray, covariance: np.ndarray, radius: float, n_points: int = 100) -> np.ndarray:
    """Points (n_points, 2) at Mahalanobis distance `radius` from the mean."""
    angle = np.linspace(0.0, 2.0 * math.pi, n_points)
    return mean + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ np.linalg.cholesky(covariance).T


def density(mixture: Any, X: np.ndarray, names: tuple[str, str], title: str) -> Any:
    """Figure of rows (n, 2) coloured by component over the log-density, ellipses at 1 and 2 standard deviations."""
    figure = new_figure(7.5, 6.0)
    axes = figure.add_subplot()
    low, high = X.min(axis=0), X.max(axis=0)
    margin = 0.12 * (high - low)
    x, y = (np.linspace(*ends, 200) for ends in zip(low - margin, high + margin, strict=True))
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    log_density = mixture.score_samples(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    levels = np.unique(np.quantile(mixture.score_samples(X), [0.02, 0.1, 0.25, 0.5, 0.75, 0.95]))
    contours = axes.contourf(x, y, log_density, levels=levels, cmap="Greys", alpha=0.4, extend="max")
    colours = [*(f"C{k}" for k in range(len(mixture.means_))), "grey"]  # the last for rows of noise, of label -1
    axes.scatter(*X.T, c=np.array(colours)[mixture.predict(X)], s=14, linewidths=0)
    for k, (mean, covariance) in enumerate(zip(mixture.means_, component_covariances(mixture), strict=True)):
        for radius, style in _RADII.items():
            axes.plot(*ellipse(mean, covariance, radius).T, color=colours[k], linestyle=style, linewidth=1.8)
        axes.plot(*mean, marker="+", color="black", markersize=11, markeredgewidth=1.6)
        axes.annotate(f"{mixture.weights_[k]:.0%}", mean, xytext=(9, 9), textcoords="offset points", weight="bold")
    axes.set(xlabel=names[0], ylabel=names[1], title=title)
    figure.colorbar(contours, ax=axes, label="log-density (nats)")
    return figure


def segmentation(mixture: Any, image: np.ndarray, title: str) -> Any:
    """Figure of a photograph (height, width, 3) in 0..1, the same in mean colours of components, and their weights."""
    labels = mixture.predict(image.reshape(-1, 3))
    colours = np.clip(mixture.means_, 0.0, 1.0)
    figure = new_figure(12.0, 5.2)
    figure.suptitle(title)
    grid = figure.add_gridspec(2, 2, height_ratios=[8, 1])
    for column, (picture, name) in enumerate(
        [(image, "photograph"), (colours[labels].reshape(image.shape), "segments")]
    ):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(picture)
        axes.set_title(name)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    left = 0.0
    for k in np.argsort(-mixture.weights_):
        axes.barh(0, mixture.weights_[k], left=left, color=colours[k], edgecolor="white")
        ink = "black" if colours[k].mean() > 0.5 else "white"
        axes.text(left + mixture.weights_[k] / 2, 0, f"{mixture.weights_[k]:.0%}", ha="center", va="center", color=ink)
        left += mixture.weights_[k]
    axes.set(xlim=(0, 1), yticks=[], xticks=[], title="weights of the components")
    return figure


def selection(chosen: Any, title: str) -> Any:
    """Figure of the criterion of all candidates of a `fastem.Selection`, a line a structure; the best is ringed."""
    name = chosen.criterion.replace("-", "_")
    figure = new_figure(7.5, 5.0)
    axes = figure.add_subplot()
    for structure in dict.fromkeys(row.covariance_type for row in chosen.table):
        rows = sorted(row for row in chosen.table if row.covariance_type == structure)
        axes.plot([row.n_components for row in rows], [getattr(row, name) for row in rows], marker="o", label=structure)
    best = chosen.table[0]
    axes.plot(best.n_components, getattr(best, name), "o", markersize=14, fillstyle="none", color="black")
    axes.set(xlabel="components", ylabel=f"{chosen.criterion} (lower is better)", title=title)
    axes.legend()
    return figure
