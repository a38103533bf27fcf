"""Independent binary columns.

    log p(x; p) = x log p + (1 - x) log(1 - p) = x logit p + log(1 - p)

Lazarsfeld & Henry (1968), Latent Structure Analysis: latent classes of binary items; McLachlan & Peel (2000), Finite
Mixture Models, section 5.2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.families.exponential import log_of, near_zero, require
from fastem.families.tables import Tabled


class BernoulliParams(NamedTuple):
    """Probabilities (K, D) of a 1."""

    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class Bernoulli(Tabled):
    """Bernoulli components: binary columns that are independent within a component.

    Parameters
    ----------
    prior : Conjugate, default=None
        A beta distribution of the probabilities. None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0]])
    >>> result = fastem.fit(fastem.Mixture(fastem.Bernoulli(), 2), X, random_state=0, tol=1e-9)
    >>> np.sort(result.params.components.probabilities, axis=0).round(3)
    array([[0. , 0. , 0. ],
           [1. , 1. , 0.5]])
    """

    Params: ClassVar[Any] = BernoulliParams
    spacing: ClassVar[float | None] = 1.0
    domains: ClassVar[dict[str, str]] = {"probabilities": "unit"}
    softness: ClassVar[float] = 0.7  # see simplex.py
    more_starts: ClassVar[tuple[str, ...]] = ("random",)

    def check(self, X):
        """Refuse what is neither 0 nor 1."""
        require(X, (X == 0) | (X == 1), "binary values are 0 and 1; LatentClass takes any codes of categories")

    def natural_parameters(self, params):
        """logit p."""
        return log_of(params.probabilities) - log_of(1.0 - params.probabilities)

    def log_partition(self, params):
        """-log(1 - p)."""
        return -log_of(1.0 - params.probabilities)

    def estimate(self, means):
        """The shares of ones."""
        return BernoulliParams(np.minimum(means, 1.0))

    def expectation(self, params):
        """The probabilities."""
        return params.probabilities

    column_means = expectation

    def settled(self, params, counts):
        """Probabilities of which those are 0 or 1 that more than so many rows (K,) would tell from it."""
        p = np.where(near_zero(params.probabilities, counts), 0.0, params.probabilities)
        return BernoulliParams(np.where(near_zero(1.0 - p, counts), 1.0, p))

    def draw(self, params, k, n_samples, rng):
        """Draw zeros and ones."""
        return (rng.random((n_samples, params.probabilities.shape[1])) < params.probabilities[k]).astype(np.float64)

    # tables

    @property
    def n_values(self):
        """Two in each column."""
        return (2,) * self.n_features

    def numbers(self, X):
        """The values."""
        return X

    def log_probabilities(self, params):
        """Of 0 and 1 of each column."""
        pairs = np.stack([1.0 - params.probabilities, params.probabilities], axis=2)
        return log_of(pairs.reshape(len(pairs), -1))

    def of_values(self, counts, by_value):
        """Ones, then zeros and ones where some are missing."""
        zeros, ones = by_value[:, 0::2], by_value[:, 1::2]
        return np.column_stack([counts, ones, (zeros + ones)[:, self.missing]])
