"""Rows of counts that share one total: documents as counts of words, for one.

    log p(x; p) = sum_j x_j log p_j + log n! - sum_j log x_j!,    n = sum_j x_j

Nigam et al. (2000), Machine Learning 39, 103-134, equation 3. The total n of a row is taken as given.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.families.exponential import _TINY, log_factorial, require_counts
from fastem.families.simplex import Simplex


class MultinomialParams(NamedTuple):
    """Probabilities (K, D) of the columns, which sum to 1."""

    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class Multinomial(Simplex):
    """Multinomial components: rows of counts, of which only their shares matter. A row of zeros informs nothing.

    Parameters
    ----------
    prior : Conjugate, default=None
        A Dirichlet distribution of the probabilities. None: maximum likelihood.
    n_trials : float, default=None
        Total of the rows that are drawn. None: the mean total of the data.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[9, 1, 0], [8, 0, 0], [0, 3, 3], [1, 5, 6]])
    >>> result = fastem.fit(fastem.Mixture(fastem.Multinomial(), 2), X, random_state=0, tol=1e-9)
    >>> np.sort(result.params.components.probabilities[:, 0]).round(2)
    array([0.06, 0.94])
    """

    n_trials: float | None = None
    trials: float = field(default=1.0, repr=False, kw_only=True)

    takes_missing: ClassVar[bool] = False
    has_log_base: ClassVar[bool] = True
    Params: ClassVar[Any] = MultinomialParams
    spacing: ClassVar[float | None] = None

    @property
    def owners(self):
        """One piece: the row."""
        return np.zeros(self.n_features, np.int64)

    def check(self, X):
        """Refuse what is not a count."""
        require_counts(X, "multinomial counts")

    def gaps(self, columns):
        """No row is missing."""
        return np.zeros(1, bool)

    def seeing(self, data):
        """Return the family with the mean total too."""
        family = super().seeing(data)
        total = float(family.overall.sum())
        if total == 0:
            raise ValueError("X holds zeros only; multinomial rows are counts of which some are not 0")
        return replace(family, trials=total if self.n_trials is None else float(self.n_trials))

    def recalled(self, weights, params):
        """The family with the total that was given; parameters do not tell it."""
        trials = self.trials if self.n_trials is None else float(self.n_trials)
        return replace(super().recalled(weights, params), trials=trials)

    def log_base(self, X):
        """log n! - sum log x!"""
        return log_factorial(X.sum(axis=1, keepdims=True)) - log_factorial(X).sum(axis=1, keepdims=True)

    def positions(self, X, frame):
        """Shares of the columns (n, D), each in units of the square root of its mean, as chi-squared takes them."""
        mean = self.overall / self.overall.sum()
        shares = X / np.maximum(X.sum(axis=1, keepdims=True), 1.0)
        return (shares - mean) / np.sqrt(np.maximum(mean, _TINY))

    def estimate(self, means):
        """Shares of the counts; equal ones where there are none."""
        return super().estimate(np.where(self._sums(means) > 0, means, 1.0))

    def expectation(self, params):
        """The probabilities times the mean total."""
        return params.probabilities * self.trials

    column_means = expectation

    def draw(self, params, k, n_samples, rng):
        """Draw counts, `n_trials` in each row."""
        p = params.probabilities[k]
        return rng.multinomial(max(1, round(self.trials)), p / p.sum(), n_samples).astype(np.float64)
