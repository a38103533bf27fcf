"""What is compared: data, start and the ratios to reach."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from .. import datasets


class Workload(NamedTuple):
    """Fits of one shape; `targets` is the least ratio of a peer's time to fastem's, `dgemm` the least share of it."""

    covariance_type: str
    n_samples: int
    n_features: int
    n_components: int
    spread: float = 2.0
    dtype: str = "float64"
    targets: Mapping[str, float] = MappingProxyType({})
    dgemm: float | None = None
    separated: bool = False  # start near the optimum: the parameters of 2000 labelled rows
    missing: float = 0.0  # part of the values

    @property
    def name(self) -> str:
        shape = f"{self.covariance_type} {self.n_samples} x {self.n_features}, K={self.n_components}"
        gaps = f", {self.missing:.0%} missing" if self.missing else ""
        kind = "" if self.dtype == "float64" else f" {self.dtype}"
        return shape + gaps + (" separated" if self.separated else "") + kind

    def smaller(self, n_samples: int) -> "Workload":
        return self._replace(n_samples=min(self.n_samples, n_samples))


WORKLOADS = [
    Workload("full", 200_000, 2, 8, targets={"onedal": 3, "sklearn": 40}),
    Workload("full", 200_000, 8, 16, targets={"onedal": 6, "sklearn": 60}),
    Workload("full", 200_000, 16, 16, targets={"onedal": 6, "sklearn": 50}, dgemm=0.75),
    Workload("full", 100_000, 32, 32, targets={"onedal": 3.5, "sklearn": 25}, dgemm=0.85),
    Workload("full", 50_000, 64, 16, targets={"onedal": 3}, dgemm=0.85),
    Workload("full", 200_000, 16, 64, spread=6.0, targets={"onedal": 20}, separated=True),
    Workload("diag", 500_000, 16, 16, targets={"sklearn": 25, "armadillo": 12, "onedal": 6}),
    Workload("spherical", 500_000, 16, 16, targets={"sklearn": 25}),
    Workload("tied", 200_000, 16, 16, targets={"sklearn": 60}),
    Workload("full", 200_000, 8, 16, dtype="float32", targets={"onedal": 3}),
    Workload("full", 200_000, 16, 16, dtype="float32"),
    Workload("full", 150, 4, 3),
    Workload("full", 100_000, 10, 1, targets={"rowwise": 50}, missing=0.2),
    Workload("full", 100_000, 10, 5, targets={"patternwise": 10}, missing=0.2),
    Workload("diag", 100_000, 10, 5, targets={"pomegranate": 10}, missing=0.2),
    Workload("full", 20_000, 30, 5, targets={"patternwise": 10}, missing=0.2),
]


def prepared(workload: Workload) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows, and the weights, means and covariances that every peer starts from."""
    n_samples, n_features, n_components = workload[1:4]
    X, labels = datasets.mixture(
        n_samples, n_features, n_components, workload.dtype, spread=workload.spread, return_labels=True
    )
    if workload.missing:
        X = datasets.punched(X, workload.missing)
    weights = np.full(n_components, 1 / n_components)
    if workload.separated:
        rows, labels = X[: 200 * n_components].astype(np.float64), labels[: 200 * n_components]
        groups = [rows[labels == k] for k in range(n_components)]
        means = np.array([group.mean(axis=0) for group in groups])
        full = np.array([np.cov(group.T) + 0.1 * np.eye(n_features) for group in groups])
        return X, {"weights": weights, "means": means, "covariances": full}
    rows = np.random.default_rng(1).choice(n_samples, n_components, replace=False)
    means, variance = X[rows].astype(np.float64), X.var(axis=0, dtype=np.float64)
    if workload.missing:
        means, variance = np.where(np.isnan(means), np.nanmean(X, axis=0), means), np.nanvar(X, axis=0)
    covariances = {
        "full": np.broadcast_to(np.diag(variance), (n_components, n_features, n_features)),
        "tied": np.diag(variance),
        "diag": np.broadcast_to(variance, (n_components, n_features)),
        "spherical": np.full(n_components, variance.mean()),
    }[workload.covariance_type]
    return X, {"weights": weights, "means": means, "covariances": covariances.copy()}


def mean_log_likelihood(X, covariance_type, weights, means, covariances) -> float:
    """Mean log-likelihood of rows in plain NumPy and float64: the same evaluation for every peer's parameters.

    NaN is missing: the likelihood is that of the others.
    """
    n_features = X.shape[1]
    if covariance_type == "tied":
        covariances = [covariances] * len(means)
    elif covariance_type != "full":
        covariances = [c * np.eye(n_features) for c in covariances]
    if np.isnan(X).any():
        total = 0.0
        patterns, which = np.unique(np.isnan(X), axis=0, return_inverse=True)
        for number, missing in enumerate(patterns):
            seen, rows = ~missing, X[which.ravel() == number]
            inner = [covariance[np.ix_(seen, seen)] for covariance in covariances]
            if seen.any():
                total += len(rows) * mean_log_likelihood(rows[:, seen], "full", weights, means[:, seen], inner)
        return total / len(X)
    scores = np.empty((len(X), len(means)))
    for k, (weight, mean, covariance) in enumerate(zip(weights, means, covariances, strict=True)):
        factor = np.linalg.cholesky(covariance)
        y = np.linalg.solve(factor, (X - mean).T)
        log_det = np.log(np.diag(factor)).sum()
        scores[:, k] = np.log(weight) - log_det - 0.5 * (y**2).sum(axis=0) - 0.5 * n_features * np.log(2 * np.pi)
    best = scores.max(axis=1)
    return float((best + np.log(np.exp(scores - best[:, None]).sum(axis=1))).mean())
