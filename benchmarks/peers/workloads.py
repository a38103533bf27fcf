"""What is compared: data, start and the ratios to reach."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from .. import datasets


class Workload(NamedTuple):
    """Fits of one shape; covariance_type 'latent class': categorical columns. `targets` is the least ratio of a peer's time to fastem's, `dgemm` the least share of it."""

    covariance_type: str
    n_samples: int
    n_features: int
    n_components: int
    spread: float = 2.0
    dtype: str = "float64"
    targets: Mapping[str, float] = MappingProxyType({})
    dgemm: float | None = None
    separated: bool = False  # start near the optimum: the parameters of 2000 labelled rows

    @property
    def name(self) -> str:
        shape = f"{self.covariance_type} {self.n_samples} x {self.n_features}, K={self.n_components}"
        return shape + (" separated" if self.separated else "") + ("" if self.dtype == "float64" else f" {self.dtype}")

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
]
LATENT_CLASSES = [Workload("latent class", 100_000, 20, 5, targets={"stepmix": 20, "onehot": 10})]
N_CATEGORIES = 4


def prepared(workload: Workload) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows, and the weights, means and covariances that every peer starts from.

    Of latent classes the means are the probabilities of all categories, and the covariances their numbers.
    """
    n_samples, n_features, n_components = workload[1:4]
    if workload.covariance_type == "latent class":
        X = datasets.latent_classes(n_samples, n_features, n_components, N_CATEGORIES)
        first = np.random.default_rng(1).dirichlet(np.full(N_CATEGORIES, 5.0), (n_components, n_features))
        weights, sizes = np.full(n_components, 1 / n_components), np.full(n_features, float(N_CATEGORIES))
        return X, {"weights": weights, "means": first.reshape(n_components, -1), "covariances": sizes}
    X, labels = datasets.mixture(
        n_samples, n_features, n_components, workload.dtype, spread=workload.spread, return_labels=True
    )
    weights = np.full(n_components, 1 / n_components)
    if workload.separated:
        rows, labels = X[: 200 * n_components].astype(np.float64), labels[: 200 * n_components]
        groups = [rows[labels == k] for k in range(n_components)]
        means = np.array([group.mean(axis=0) for group in groups])
        full = np.array([np.cov(group.T) + 0.1 * np.eye(n_features) for group in groups])
        return X, {"weights": weights, "means": means, "covariances": full}
    rows = np.random.default_rng(1).choice(n_samples, n_components, replace=False)
    variance = X.var(axis=0, dtype=np.float64)
    covariances = {
        "full": np.broadcast_to(np.diag(variance), (n_components, n_features, n_features)),
        "tied": np.diag(variance),
        "diag": np.broadcast_to(variance, (n_components, n_features)),
        "spherical": np.full(n_components, variance.mean()),
    }[workload.covariance_type]
    return X, {"weights": weights, "means": X[rows].astype(np.float64), "covariances": covariances.copy()}


def mean_log_likelihood(X, covariance_type, weights, means, covariances) -> float:
    """Mean log-likelihood of rows in plain NumPy and float64: the same evaluation for every peer's parameters."""
    n_features = X.shape[1]
    if covariance_type == "latent class":
        places = X.astype(np.int64) + np.arange(n_features) * int(covariances[0])
        scores = np.log(weights) + np.log(means).T[places].sum(axis=1)
        best = scores.max(axis=1)
        return float((best + np.log(np.exp(scores - best[:, None]).sum(axis=1))).mean())
    if covariance_type == "tied":
        covariances = [covariances] * len(means)
    elif covariance_type != "full":
        covariances = [c * np.eye(n_features) for c in covariances]
    scores = np.empty((len(X), len(means)))
    for k, (weight, mean, covariance) in enumerate(zip(weights, means, covariances, strict=True)):
        factor = np.linalg.cholesky(covariance)
        y = np.linalg.solve(factor, (X - mean).T)
        log_det = np.log(np.diag(factor)).sum()
        scores[:, k] = np.log(weight) - log_det - 0.5 * (y**2).sum(axis=0) - 0.5 * n_features * np.log(2 * np.pi)
    best = scores.max(axis=1)
    return float((best + np.log(np.exp(scores - best[:, None]).sum(axis=1))).mean())
