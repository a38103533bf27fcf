"""Mixtures of factor analysers: `Mixture` with a pass of its own, and loadings that start from rows."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastem.data import Block, Data
from fastem.families.factor_analyzer import FactorAnalyzer, FactorMoments
from fastem.kernels._jit import use_threads
from fastem.kernels.low_rank import LowRankSums, low_rank_statistics
from fastem.kernels.sweep import LABEL, LOG_DENSITY
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams, log_of, same_bits

_CHUNK = 2**20  # values of rows that are held at once
_ROWS, _ROWS_PER_FACTOR = 1000, 20  # by which first loadings are found: at least, and for each factor of a component


class FactorStats(NamedTuple):
    """Additive statistics of rows under some parameters."""

    weight: float
    log_likelihood: float
    counts: np.ndarray
    first: np.ndarray
    squares: np.ndarray
    cross: np.ndarray
    factors: np.ndarray
    inner: np.ndarray


@dataclass(frozen=True, eq=False)
class FactorAnalyzers(Mixture):
    """Mixture of K factor analysers; see `Mixture`.

    Statistics belong to the loadings they were found under, so that such a model does not learn from streams.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 20)) + 0.1 * rng.normal(size=(500, 20))
    >>> result = fastem.fit(fastem.FactorAnalyzers(fastem.FactorAnalyzer(2)), X, tol=1e-6, max_iter=500)
    >>> float(np.sqrt(result.params.components.noise).mean().round(2))
    0.1
    """

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.family, FactorAnalyzer):
            raise TypeError(f"family must be a fastem.FactorAnalyzer; got {self.family!r}")

    # what the driver asks before it offers streams and passes of many M-steps
    @property
    def condense(self) -> Any:
        raise AttributeError("statistics of factors belong to their parameters and cannot be mixed")

    @same_bits
    def initialize(self, data: Data, rng: np.random.Generator) -> Any:
        """Start parameters: first responsibilities, and the principal axes of the rows that they give a component."""
        params = super().initialize(data, rng)
        if self.components_init is not None:
            return params
        family, components = self.family, params.components
        n_rows = max(_ROWS, _ROWS_PER_FACTOR * family.n_factors * self.n_components)
        if data.n_samples > n_rows:
            data = data.take(data.draw(n_rows, rng))
        (block,) = data.whole()
        rows, weight = block.X.astype(np.float64), block.counts
        variances = components.noise + (components.loadings**2).sum(axis=2)
        scores = log_of(params.weights) - 0.5 * np.log(variances).sum(axis=1)
        gaps = np.stack(
            [((rows - mean) ** 2 / v).sum(axis=1) for mean, v in zip(components.means, variances, strict=True)]
        )
        labels = np.argmax(scores[:, None] - 0.5 * gaps, axis=0)
        loadings = np.stack(
            [
                self._axes(rows[labels == k] - components.means[k], weight[labels == k], variances[k])
                for k in range(self.n_components)
            ]
        )
        loadings = np.where(loadings.any(axis=(1, 2), keepdims=True), loadings, components.loadings)
        return params._replace(components=family.started(components.means, variances, loadings))

    def _axes(self, gaps: np.ndarray, weight: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """Loadings (D, q) on the principal axes of scaled rows (n, D); 0 if they are too few to tell.

        Tipping & Bishop (1999), equation 3.8: the roots of what the largest eigenvalues exceed the mean of the others.
        """
        n_features, q = gaps.shape[1], self.family.n_factors
        gaps, weight = gaps[weight > 0], weight[weight > 0]
        if len(gaps) <= q:
            return np.zeros((n_features, q))
        deviations = np.sqrt(np.maximum(variances, self.family._floor))
        scaled = gaps / deviations * np.sqrt(weight / weight.sum())[:, None]
        _, values, axes = np.linalg.svd(scaled, full_matrices=False)
        values = values**2
        rest = max(n_features - values[:q].sum(), 0.0) / (n_features - q)
        return deviations[:, None] * axes[:q].T * np.sqrt(np.maximum(values[:q] - rest, 0.01 * values[:q]))

    @same_bits
    def e_step(self, params: MixtureParams, block: Block) -> Any:
        """One pass over a block."""
        if block.labels is not None:
            return self._e_step_by_label(params, block)
        states = self.family.states(params.components, log_of(params.weights), self.bound)
        n_threads = use_threads(self.n_threads)
        sums, log_likelihood, n_lost = low_rank_statistics(block.X, block.weight, self.bound.rows, states, n_threads)
        return FactorStats(block.total_weight, -np.inf if n_lost else log_likelihood, *sums)

    def _found(self, stats: Any) -> FactorMoments:
        return self.family.found(LowRankSums(*stats[2:]), self.bound)

    @same_bits
    def m_step(self, stats: Any, params: MixtureParams) -> MixtureParams:
        """A step that leads uphill; see `FactorAnalyzer.update`."""
        components = self.family.update(self._found(stats), params.components)
        return MixtureParams(self._weights(stats.counts), components)

    @same_bits
    def score(self, stats: Any, params: MixtureParams) -> np.ndarray:
        """Gradient of the log-likelihood of the rows in the coordinates of `pack`, at the parameters of the stats."""
        weights = self._score_weights(stats.counts, params.weights)
        return np.concatenate([weights, self.family.score(params.components, self._found(stats), self.bound)])

    @same_bits
    def transform(self, params: MixtureParams, X: np.ndarray) -> np.ndarray:
        """Expected factors (N, q) of rows in their most probable component."""
        return self.family.expected_factors(params.components, X, self.labels(params, X))

    @same_bits
    def _score(self, params: MixtureParams, X: np.ndarray, wanted: int) -> np.ndarray:
        X = np.asarray(X.X if isinstance(X, Block) else X, dtype=np.float64)
        n_columns = self.family.n_columns(params.components)
        if X.ndim != 2 or X.shape[1] != n_columns:
            raise ValueError(f"X has shape {X.shape}; the parameters are for {n_columns} columns")
        found, n_rows = [], max(1, _CHUNK // n_columns)
        log_weights = log_of(params.weights)
        for first in range(0, len(X), n_rows):
            joint = self.family.log_densities(params.components, X[first : first + n_rows]) + log_weights
            if wanted == LABEL:
                found.append(np.argmax(joint, axis=1))
                continue
            total = np.logaddexp.reduce(joint, axis=1)
            found.append(total if wanted == LOG_DENSITY else np.exp(joint - total[:, None]))
        return np.concatenate(found)
