"""Independent Poisson counts in each column.

    log p(x; lambda) = x log lambda - lambda - log x!

Karlis & Xekalaki (2005), Int. Statist. Rev. 73, 35-58, section 3.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.families.exponential import Exponential, log_factorial, log_of, near_zero, require_counts


class PoissonParams(NamedTuple):
    """Rates (K, D) of K components: the means of the counts."""

    rates: np.ndarray


@dataclass(frozen=True, eq=False)
class Poisson(Exponential):
    """Poisson components: counts that are independent within a component.

    Parameters
    ----------
    prior : Conjugate, default=None
        A gamma distribution of the rates. None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[0.0], [1.0], [1.0], [20.0], [22.0]])
    >>> result = fastem.fit(fastem.Mixture(fastem.Poisson(), 2), X, random_state=0)
    >>> np.sort(result.params.components.rates.ravel()).round(2)
    array([ 0.67, 21.  ])
    """

    Params: ClassVar[Any] = PoissonParams
    domains: ClassVar[dict[str, str]] = {"rates": "not negative"}
    has_log_base: ClassVar[bool] = True
    spacing: ClassVar[float | None] = 1.0

    def check(self, X):
        """Refuse what is not a count."""
        require_counts(X, "Poisson counts")

    def log_base(self, X):
        """-log x!"""
        return -log_factorial(X)

    def natural_parameters(self, params):
        """log lambda."""
        return log_of(params.rates)

    def log_partition(self, params):
        """The rates."""
        return params.rates

    def estimate(self, means):
        """The mean counts."""
        return PoissonParams(means)

    def expectation(self, params):
        """The rates."""
        return params.rates

    column_means = expectation

    def settled(self, params, counts):
        """Rates of which those are 0 that more than so many rows (K,) would tell from it."""
        return PoissonParams(np.where(near_zero(params.rates, counts), 0.0, params.rates))

    def draw(self, params, k, n_samples, rng):
        """Draw counts."""
        return rng.poisson(params.rates[k], (n_samples, params.rates.shape[1])).astype(np.float64)
