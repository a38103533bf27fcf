"""Independent exponentially distributed columns: waiting times.

    log p(x; s) = -x / s - log s,    x >= 0

Johnson, Kotz & Balakrishnan (1994), Continuous Univariate Distributions 1, equation 19.1 with location 0.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.families.exponential import Exponential, require


class ExponentialTimeParams(NamedTuple):
    """Scales (K, D): the means, reciprocals of the rates, in the units of the data."""

    scales: np.ndarray


@dataclass(frozen=True, eq=False)
class ExponentialTime(Exponential):
    """Exponentially distributed components, with columns that are independent within a component.

    Parameters
    ----------
    prior : Conjugate, default=None
        An inverse gamma distribution of the scales. None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[1.0], [2.0], [6.0]])
    >>> fastem.fit(fastem.Mixture(fastem.ExponentialTime()), X).params.components.scales
    array([[3.]])
    """

    Params: ClassVar[Any] = ExponentialTimeParams
    domains: ClassVar[dict[str, str]] = {"scales": "positive"}

    def check(self, X):
        """Refuse negative values."""
        require(X, X >= 0, "Negative values in data cannot be exponentially distributed")

    def natural_parameters(self, params):
        """-1 / s."""
        return -1.0 / params.scales

    def log_partition(self, params):
        """log s."""
        return np.log(params.scales)

    def estimate(self, means):
        """The means."""
        self.require_spread(means > 0, "only zeros")
        return ExponentialTimeParams(means)

    def expectation(self, params):
        """The scales."""
        return params.scales

    column_means = expectation

    def draw(self, params, k, n_samples, rng):
        """Draw waiting times."""
        return rng.exponential(params.scales[k], (n_samples, params.scales.shape[1]))
