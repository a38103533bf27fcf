"""Independent gamma-distributed columns.

    log p(x; a, s) = (a - 1) log x - x / s - a log s - log Gamma(a),    x > 0

Johnson, Kotz & Balakrishnan (1994), Continuous Univariate Distributions 1, section 17.1. The shape solves
log a - psi(a) = log mean(x) - mean(log x) (equation 17.45), by Newton's iterations in 1 / a (Minka 2002, Estimating a
Gamma distribution).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from fastem.families.exponential import Exponential, require

_LARGE = 30.0  # from where on the series of Stirling is exact, and the difference of log and psi is not
_MOST_STEPS = 40
_FLAT = 1e-14  # of log mean(x) - mean(log x), for each unit of the logarithms: rounding


class GammaParams(NamedTuple):
    """Shapes (K, D), and scales (K, D) in the units of the data: the means are shapes * scales."""

    shapes: np.ndarray
    scales: np.ndarray


def log_minus_digamma(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log a - psi(a) and its derivative, to full relative accuracy for any positive a."""
    small, r = np.minimum(a, _LARGE), 1.0 / np.maximum(a, _LARGE)
    z = r * r
    value = r * (1 / 2 + r * (1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z / 132)))))
    slope = -z * (1 / 2 + r * (1 / 6 - z * (1 / 30 - z * (1 / 42 - z * (1 / 30 - z * 5 / 66)))))
    is_large = a > _LARGE
    value = np.where(is_large, value, np.log(small) - digamma(small))
    return value, np.where(is_large, slope, 1.0 / small - polygamma(1, small))


def gamma_shape(gap: np.ndarray) -> np.ndarray:
    """Solve log a - psi(a) = gap > 0."""
    a = (3.0 - gap + np.sqrt((gap - 3.0) ** 2 + 24.0 * gap)) / (12.0 * gap)
    for _ in range(_MOST_STEPS):
        value, slope = log_minus_digamma(a)
        better = 1.0 / (1.0 / a + (value - gap) / (a * a * slope))
        done = np.abs(better - a) <= 1e-13 * a  # what is left is its square
        a = better
        if done.all():
            break
    return a


@dataclass(frozen=True, eq=False)
class Gamma(Exponential):
    """Gamma components, with columns that are independent within a component.

    Parameters
    ----------
    prior : Conjugate, default=None
        Rows whose mean value and mean logarithm are given. None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).gamma(3.0, 2.0, size=(1000, 1))
    >>> fastem.fit(fastem.Mixture(fastem.Gamma()), X).params.components.shapes.round(1)
    array([[3.]])
    """

    Params: ClassVar[Any] = GammaParams
    domains: ClassVar[dict[str, str]] = {"shapes": "positive", "scales": "positive"}

    def check(self, X):
        """Refuse what is not positive."""
        require(X, X > 0, "gamma-distributed values are positive: shift or drop zeros")

    def statistics(self, X):
        """x, log x."""
        return np.concatenate([X, np.log(X)], axis=1)

    @property
    def seeds(self):
        """The logarithms."""
        return slice(self.n_features, None)

    def natural_parameters(self, params):
        """-1 / s, a - 1."""
        return np.concatenate([-1.0 / params.scales, params.shapes - 1.0], axis=1)

    def log_partition(self, params):
        """a log s + log Gamma(a)."""
        return params.shapes * np.log(params.scales) + gammaln(params.shapes)

    def estimate(self, means):
        """By Newton's iterations for the shape; the mean is met exactly."""
        mean, mean_log = np.split(means, 2, axis=1)
        gap = np.log(mean) - mean_log
        self.require_spread(gap > _FLAT * (1.0 + np.abs(mean_log)), "values that do not differ")
        shapes = gamma_shape(gap)
        return GammaParams(shapes, mean / shapes)

    def expectation(self, params):
        """a s, psi(a) + log s."""
        logs = np.log(params.shapes) - log_minus_digamma(params.shapes)[0] + np.log(params.scales)
        return np.concatenate([params.shapes * params.scales, logs], axis=1)

    def column_means(self, params):
        """a s."""
        return params.shapes * params.scales

    def draw(self, params, k, n_samples, rng):
        """Draw values, none of them rounded to 0."""
        drawn = rng.gamma(params.shapes[k], params.scales[k], (n_samples, params.shapes.shape[1]))
        return np.maximum(drawn, np.finfo(np.float64).tiny)
