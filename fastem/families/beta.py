"""Independent beta-distributed columns: proportions.

    log p(x; a, b) = (a - 1) log x + (b - 1) log(1 - x) - log B(a, b),    0 < x < 1

Johnson, Kotz & Balakrishnan (1995), Continuous Univariate Distributions 2, equation 25.1; the maximum of the
likelihood by Newton's iterations in the logarithms of a and b, from their equation 25.30a.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.special import betaln, polygamma

from fastem.families.exponential import Exponential, require
from fastem.families.gamma import log_minus_digamma

_MOST_STEPS = 60
_NEAR = 1e-9  # last step of a logarithm; the one after it would be a hundred million times shorter
_FARTHEST = 2.0  # step of a logarithm
_FLAT = 1e-13  # of 1 - exp(mean log x) - exp(mean log(1 - x)): rounding


class BetaParams(NamedTuple):
    """Both shapes (K, D): the means are a / (a + b)."""

    a: np.ndarray
    b: np.ndarray


def _mean_logs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """psi(a) - psi(a + b) and psi(b) - psi(a + b), without cancellation where a and b are large."""
    both = log_minus_digamma(a + b)[0]
    one, two = (np.log(part / (a + b)) - log_minus_digamma(part)[0] + both for part in (a, b))
    return one, two


@dataclass(frozen=True, eq=False)
class Beta(Exponential):
    """Beta components, with columns that are independent within a component.

    Parameters
    ----------
    prior : Conjugate, default=None
        Rows whose mean logarithms, of x and of 1 - x, are given. None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).beta(2.0, 5.0, size=(4000, 1))
    >>> fastem.fit(fastem.Mixture(fastem.Beta()), X).params.components.a.round(1)
    array([[2.]])
    """

    Params: ClassVar[Any] = BetaParams
    domains: ClassVar[dict[str, str]] = {"a": "positive", "b": "positive"}

    def check(self, X):
        """Refuse what is not inside the interval."""
        require(X, (X > 0) & (X < 1), "beta-distributed values lie between 0 and 1, without the ends")

    def statistics(self, X):
        """log x, log(1 - x)."""
        return np.concatenate([np.log(X), np.log1p(-X)], axis=1)

    def natural_parameters(self, params):
        """a - 1, b - 1."""
        return np.concatenate(params, axis=1) - 1.0

    def log_partition(self, params):
        """log B(a, b)."""
        return betaln(params.a, params.b)

    def estimate(self, means):
        """By Newton's iterations."""
        one, two = np.split(means, 2, axis=1)
        rest = -np.expm1(one) - np.exp(two)
        self.require_spread(rest > _FLAT, "values that do not differ")
        a, b = 0.5 + 0.5 * np.exp(one) / rest, 0.5 + 0.5 * np.exp(two) / rest
        for _ in range(_MOST_STEPS):
            # minus the Hessian in the logarithms, whose diagonal is raised where it need not be positive definite
            common, (log_x, log_rest) = polygamma(1, a + b), _mean_logs(a, b)
            slope_a, slope_b = a * (one - log_x), b * (two - log_rest)
            h_aa = a * a * (polygamma(1, a) - common) + np.maximum(-slope_a, 0.0)
            h_bb = b * b * (polygamma(1, b) - common) + np.maximum(-slope_b, 0.0)
            h_ab = -a * b * common
            steps = (h_bb * slope_a - h_ab * slope_b), (h_aa * slope_b - h_ab * slope_a)
            step_a, step_b = (np.clip(s / (h_aa * h_bb - h_ab**2), -_FARTHEST, _FARTHEST) for s in steps)
            a, b = a * np.exp(step_a), b * np.exp(step_b)
            if (np.maximum(np.abs(step_a), np.abs(step_b)) < _NEAR * (1.0 + 1e-6 * (a + b))).all():
                break
        return BetaParams(a, b)

    def expectation(self, params):
        """psi(a) - psi(a + b), psi(b) - psi(a + b)."""
        return np.concatenate(_mean_logs(*params), axis=1)

    def column_means(self, params):
        """a / (a + b)."""
        return params.a / (params.a + params.b)

    def draw(self, params, k, n_samples, rng):
        """Draw values, none of them rounded to 0 or 1."""
        drawn = rng.beta(params.a[k], params.b[k], (n_samples, params.a.shape[1]))
        return np.clip(drawn, np.finfo(np.float64).tiny, 1.0 - np.finfo(np.float64).epsneg)
