"""Independent log-normally distributed columns.

    log p(x; m, v) = -(log x - m)^2 / (2 v) - log(2 pi v) / 2 - log x,    x > 0

Johnson, Kotz & Balakrishnan (1994), Continuous Univariate Distributions 1, equation 14.2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.families.exponential import require
from fastem.families.normal import Normal


class LogNormalParams(NamedTuple):
    """Means and variances (K, D) of log x."""

    log_means: np.ndarray
    log_variances: np.ndarray


@dataclass(frozen=True, eq=False)
class LogNormal(Normal):
    """Log-normal components, with columns that are independent within a component.

    Parameters
    ----------
    prior : Conjugate, default=None
        Rows whose mean logarithm and mean squared logarithm are given. None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.exp([[1.0], [2.0], [6.0]])
    >>> fastem.fit(fastem.Mixture(fastem.LogNormal()), X).params.components.log_means.round(9)
    array([[3.]])
    """

    has_log_base: ClassVar[bool] = True
    is_positive: ClassVar[bool] = True
    Params: ClassVar[Any] = LogNormalParams
    domains: ClassVar[dict[str, str]] = {"log_means": "real", "log_variances": "positive"}

    def check(self, X):
        """Refuse what is not positive."""
        require(X, X > 0, "log-normally distributed values are positive: shift or drop zeros")

    def values(self, X):
        """log x."""
        return np.log(X)

    def log_base(self, X):
        """-log x."""
        return -np.log(X)

    def column_means(self, params):
        """exp(m + v / 2)."""
        return np.exp(params.log_means + 0.5 * params.log_variances)

    def draw(self, params, k, n_samples, rng):
        """Draw values."""
        return np.exp(super().draw(params, k, n_samples, rng))
