"""What is compared: data, start and the ratios to reach."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln, logsumexp

from .. import datasets


class Workload(NamedTuple):
    """Fits of one shape.

    model : a covariance type: a mixture of normals; 't' after it: of Student's t distributions; 'HMM': normals in a
        chain; or 'latent class'
    targets : the least ratio of a peer's time to fastem's
    dgemm : the least share of np.dot's rate
    separated : whether the start is near the optimum: the parameters of 200 labelled rows a component
    missing : part of the values that are NaN
    length : rows of each sequence of a chain
    compared : iterations after which log-likelihoods are compared
    """

    model: str
    n_samples: int
    n_features: int
    n_components: int
    spread: float = 2.0
    dtype: str = "float64"
    targets: Mapping[str, float] = MappingProxyType({})
    dgemm: float | None = None
    separated: bool = False
    missing: float = 0.0
    length: int | None = None
    compared: int = 10

    @property
    def name(self) -> str:
        rows = f"{self.n_samples}" if self.length is None else f"{self.n_samples // self.length} x {self.length}"
        shape = f"{self.fits} {rows} x {self.n_features}, K={self.n_components}"
        return shape + (" separated" if self.separated else "") + ("" if self.dtype == "float64" else f" {self.dtype}")

    @property
    def fits(self) -> str:
        """What an adapter has to name in FITS."""
        model = self.model if self.n_components > 1 else "normal"
        return model + (" missing" if self.missing else "")

    @property
    def options(self) -> dict[str, Any]:
        """What adapters are told beside rows, start and model."""
        return {} if self.length is None else {"lengths": [self.length] * (self.n_samples // self.length)}

    def smaller(self, n_samples: int) -> "Workload":
        if self.length is None:
            return self._replace(n_samples=min(self.n_samples, n_samples))
        length = min(self.length, n_samples)
        return self._replace(n_samples=min(self.n_samples, n_samples // length * length), length=length)


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
    Workload("full HMM", 1_000_000, 8, 8, length=10_000, targets={"hmmlearn": 10}, compared=3),
    Workload("diag HMM", 1_000_000, 8, 8, length=10_000, compared=3),
    Workload("full HMM", 200_000, 4, 3, length=10),
    Workload("full HMM", 200_000, 4, 4, length=200_000),
    Workload("latent class", 100_000, 20, 5, targets={"stepmix": 20}),
    Workload("full", 100_000, 10, 1, missing=0.2, targets={"rowwise": 50}, compared=3),
    Workload("diag", 100_000, 10, 5, missing=0.2, targets={"pomegranate": 10}),
    Workload("full", 100_000, 10, 5, missing=0.2),
    Workload("full", 20_000, 30, 5, missing=0.2, compared=3),
    Workload("full t", 200_000, 8, 8, targets={"componentwise": 20}),
]
_DEGREES_OF_FREEDOM = 4.0  # of rows with heavy tails
_FIRST_DEGREES = 10.0  # where their estimation starts


def prepared(workload: Workload) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows, and the parameters that every peer starts from, by the names of fastem's."""
    n_samples, n_features, n_components = workload[1:4]
    if workload.model == "latent class":
        X = datasets.latent_classes(n_samples, n_features, n_components)
        n_categories = int(X.max()) + 1
        probabilities = np.random.default_rng(1).dirichlet(np.full(n_categories, 5.0), (n_components, n_features))
        return X, {"weights": np.full(n_components, 1 / n_components), "probabilities": probabilities}
    if workload.length is not None:
        return _chain(workload)
    has_tails = workload.model.endswith(" t")
    X, labels = datasets.mixture(
        n_samples, n_features, n_components, workload.dtype, spread=workload.spread, return_labels=True,
        degrees_of_freedom=_DEGREES_OF_FREEDOM if has_tails else None,
    )  # fmt: skip
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
    }[workload.model.removesuffix(" t")]
    start = {"weights": weights, "means": means, "covariances": covariances.copy()}
    if has_tails:
        start["degrees_of_freedom"] = np.full(n_components, _FIRST_DEGREES)
    return X, start


def _chain(workload):
    """Rows of sequences one after another, and a start near what they were drawn from."""
    n_features, n_components = workload[2:4]
    X, means = datasets.chains(workload.n_samples // workload.length, workload.length, n_features, n_components)
    rng = np.random.default_rng(1)
    stay, equal = np.eye(n_components), np.full(n_components, 1 / n_components)
    unit = np.ones(means.shape)
    return X, {
        "startprob": equal,
        "transmat": 0.8 * stay + 0.2 * equal,
        "means": means + 0.3 * rng.normal(size=means.shape),
        "covariances": unit if workload.model.startswith("diag") else unit[:, :, None] * np.eye(n_features),
    }


def mean_log_likelihood(X, model, *parameters, length=None) -> float:
    """Mean log-likelihood of rows in plain NumPy and float64: the same evaluation for every peer's parameters.

    NaN is missing: the likelihood is that of the others.
    """
    if model == "latent class":
        weights, probabilities = parameters
        columns = np.arange(X.shape[1])
        scores = np.log([chances[columns, X.astype(np.int64)] for chances in probabilities]).sum(axis=2).T
        return float(logsumexp(np.log(weights) + scores, axis=1).mean())
    covariance_type, _, family = model.partition(" ")
    if family == "HMM":
        startprob, transmat, *normals = parameters
        scores = _log_densities(X, covariance_type, *normals).reshape(-1, length, len(startprob))
        return _chain_log_likelihood(scores, startprob, transmat) / len(X)
    weights, means, covariances, *degrees = parameters
    if np.isnan(X).any():
        total, full = 0.0, _full(covariance_type, means, covariances)
        patterns, which = np.unique(np.isnan(X), axis=0, return_inverse=True)
        for number, missing in enumerate(patterns):
            seen, rows = ~missing, X[which.ravel() == number]
            inner = [covariance[np.ix_(seen, seen)] for covariance in full]
            if seen.any():
                total += len(rows) * mean_log_likelihood(rows[:, seen], "full", weights, means[:, seen], inner)
        return total / len(X)
    scores = _log_densities(X, covariance_type, means, covariances, *degrees)
    return float(logsumexp(np.log(weights) + scores, axis=1).mean())


def _full(covariance_type, means, covariances):
    if covariance_type == "tied":
        return [covariances] * len(means)
    return covariances if covariance_type == "full" else [c * np.eye(means.shape[1]) for c in covariances]


def _log_densities(X, covariance_type, means, covariances, degrees_of_freedom=None):
    """Log-densities (N, K) of normal components, or of Student's t with so many degrees of freedom (K,)."""
    n_features = X.shape[1]
    scores = np.empty((len(X), len(means)))
    for k, (mean, covariance) in enumerate(zip(means, _full(covariance_type, means, covariances), strict=True)):
        factor = np.linalg.cholesky(covariance)
        distances = (np.linalg.solve(factor, (X - mean).T) ** 2).sum(axis=0)
        log_det = np.log(np.diag(factor)).sum()
        if degrees_of_freedom is None:
            scores[:, k] = -log_det - 0.5 * distances - 0.5 * n_features * np.log(2 * np.pi)
        else:
            nu = degrees_of_freedom[k]
            peak = gammaln(0.5 * (nu + n_features)) - gammaln(0.5 * nu) - 0.5 * n_features * np.log(nu * np.pi)
            scores[:, k] = peak - log_det - 0.5 * (nu + n_features) * np.log1p(distances / nu)
    return scores


def _chain_log_likelihood(scores, startprob, transmat):
    """Log-likelihood of sequences with log-densities (S, T, K), by the scaled forward recursion."""
    total, chances = 0.0, startprob
    for t, now in enumerate(np.swapaxes(scores, 0, 1)):
        best = now.max(axis=1, keepdims=True)
        chances = (chances if t == 0 else chances @ transmat) * np.exp(now - best)
        scale = chances.sum(axis=1, keepdims=True)
        total += float((best + np.log(scale)).sum())
        chances /= scale
    return total
