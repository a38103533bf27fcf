"""Independent geometric counts in each column: failures before the first success.

    log p(x; m) = x log(m / (1 + m)) - log(1 + m),    x = 0, 1, 2, ...,

with the mean m = (1 - p) / p for success with probability p: Johnson, Kemp & Kotz (2005), Univariate Discrete
Distributions, equation 5.8 with k = 1.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.families.exponential import Exponential, near_zero, require_counts


class GeometricParams(NamedTuple):
    """Mean counts (K, D); the probabilities of success are 1 / (1 + means)."""

    means: np.ndarray


@dataclass(frozen=True, eq=False)
class Geometric(Exponential):
    """Geometric components: counts from 0 that are independent within a component.

    Parameters
    ----------
    prior : Conjugate, default=None
        A beta distribution of the probabilities of success. None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> fastem.fit(fastem.Mixture(fastem.Geometric()), X).params.components.means
    array([[1.]])
    """

    Params: ClassVar[Any] = GeometricParams
    spacing: ClassVar[float | None] = 1.0
    domains: ClassVar[dict[str, str]] = {"means": "not negative"}

    def check(self, X):
        """Refuse what is not a count."""
        require_counts(X, "geometric counts")

    def natural_parameters(self, params):
        """log(m / (1 + m)), which is small where m is large."""
        with np.errstate(divide="ignore"):
            return -np.log1p(1.0 / params.means)

    def log_partition(self, params):
        """log(1 + m)."""
        return np.log1p(params.means)

    def estimate(self, means):
        """The means."""
        return GeometricParams(means)

    def expectation(self, params):
        """The means."""
        return params.means

    column_means = expectation

    def settled(self, params, counts):
        """Means of which those are 0 that more than so many rows (K,) would tell from it."""
        return GeometricParams(np.where(near_zero(params.means, counts), 0.0, params.means))

    def draw(self, params, k, n_samples, rng):
        """Draw counts."""
        p = 1.0 / (1.0 + params.means[k])
        return rng.geometric(p, (n_samples, len(p))).astype(np.float64) - 1.0
