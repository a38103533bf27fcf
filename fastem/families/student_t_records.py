"""What is known of components with Student's t distribution, and the gamma distribution of their precisions."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import digamma, gammaln, zeta

from fastem.families.gaussian_records import Moments

MOST_DEGREES = 1e8  # beyond, log a - digamma(a) has no digits left to find degrees of freedom by
_STIRLING = 16.0  # from here on, the series for log gamma is exact to 1e-14


class StudentTParams(NamedTuple):
    """Parameters of K components; the first three are those of `GaussianParams`.

    Attributes
    ----------
    means : ndarray of shape (K, D)
        Locations, which are the means where there are more than 1 degree of freedom.
    covariances : ndarray of shape (K, D, D) full, (D, D) tied, (K, D) diag or (K,) spherical
        Scale matrices: the covariances are nu / (nu - 2) times these, for nu > 2.
    precisions_cholesky : ndarray of the same shape
    degrees_of_freedom : ndarray of shape (K,)
    """

    means: np.ndarray
    covariances: np.ndarray
    precisions_cholesky: np.ndarray
    degrees_of_freedom: np.ndarray


class StudentTMoments(NamedTuple):
    """What is expected of rows and of their precisions; means and covariances weigh a row by its precision."""

    counts: np.ndarray  # (K,) weights, whatever the precisions
    means: np.ndarray  # (K, D)
    covariances: np.ndarray  # as those of `Moments`
    precisions: np.ndarray  # (K,) means
    log_precisions: np.ndarray  # (K,) means of the logarithms


def weighed(moments: Any) -> Moments:
    """Moments of rows that weigh their precision."""
    return Moments(moments.counts * moments.precisions, moments.means, moments.covariances)


def mean_log_precision(degrees: np.ndarray) -> np.ndarray:
    """E[log tau] of tau ~ gamma(nu / 2, nu / 2)."""
    return digamma(0.5 * degrees) - np.log(0.5 * degrees)


def log_peak(degrees: np.ndarray, n_features: int) -> np.ndarray:
    """Log-density of t at its location less that of the normal.

    log gamma((nu + D) / 2) - log gamma(nu / 2) - D / 2 log(nu / 2), by Stirling's series where degrees of freedom are
    many: the difference of the log gammas would have no digits left.
    """
    a, h = 0.5 * np.asarray(degrees, dtype=np.float64), 0.5 * n_features
    few = np.minimum(a, _STIRLING)
    direct = gammaln(few + h) - gammaln(few) - h * np.log(few)
    many = np.maximum(a, _STIRLING)
    series = (many + h - 0.5) * np.log1p(h / many) - h + _stirling(many + h) - _stirling(many)
    return np.where(a < _STIRLING, direct, series)


def _stirling(x: np.ndarray) -> np.ndarray:
    """log gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2."""
    square = 1.0 / (x * x)
    return (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / x


def solve_degrees(wanted: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """nu (K,) with log(nu / 2) - digamma(nu / 2) = wanted, or the bound that is nearest to it.

    Newton's steps in 1 / nu (Minka 2002, Estimating a Gamma distribution, equation 16): the left side is convex and
    falls from infinity to 0.
    """
    low, high = 0.5 * np.asarray(bounds)
    least, most = (math.log(a) - digamma(a) for a in (high, low))
    value = np.clip(wanted, least, most)
    a = (3.0 - value + np.sqrt((value - 3.0) ** 2 + 24.0 * value)) / (12.0 * value)  # within 1.5 %
    for _ in range(4):
        gap = np.log(a) - digamma(a) - value
        a = 1.0 / (1.0 / a + gap / (a * (1.0 - a * zeta(2.0, a))))
    a = np.where(wanted <= least, high, np.where(wanted >= most, low, np.clip(a, low, high)))
    return 2.0 * a
