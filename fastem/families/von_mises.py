"""Independent von Mises columns: angles, in radians.

    log p(x; mu, kappa) = kappa cos(x - mu) - log(2 pi I0(kappa))

Mardia & Jupp (2000), Directional Statistics, equation 3.5.17; the maximum of the likelihood has the direction of the
mean of (cos x, sin x), and I1(kappa) / I0(kappa) is its length (equations 5.3.2 and 5.3.11).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.special import i0e, i1e

from fastem.families.exponential import Exponential

_LARGE = 60.0  # from where on the series below is exact, and 1 minus the ratio of Bessel functions is not
_MOST_STEPS = 60
_FLAT = 1e-14  # of 1 minus the mean resultant length: rounding


def _series(n_terms: int) -> list[float]:
    """Coefficients of u = 1 - I1 / I0 in powers of 1 / kappa: 2 u = (1 - u) / kappa + u^2 - u'."""
    c = [0.0, 0.5]
    for n in range(2, n_terms + 1):
        c.append(0.5 * ((n - 2) * c[n - 1] + sum(c[i] * c[n - i] for i in range(1, n))))
    return c


_C = _series(12)


class VonMisesParams(NamedTuple):
    """Mean directions (K, D) in radians, from -pi to pi, and concentrations (K, D); 0 is the uniform distribution."""

    directions: np.ndarray
    concentrations: np.ndarray


def shortfall(kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u = 1 - I1(kappa) / I0(kappa) and its derivative, to full relative accuracy."""
    small, r = np.minimum(kappa, _LARGE), 1.0 / np.maximum(kappa, _LARGE)
    value = slope = np.zeros_like(r)
    for n in range(len(_C) - 1, 0, -1):
        value, slope = r * (_C[n] + value), r * (n * _C[n] + slope)
    ratio = i1e(small) / i0e(small)
    near = 1.0 - np.divide(ratio, small, out=np.full_like(small, 0.5), where=small > 1e-8) - ratio**2
    is_large = kappa > _LARGE
    return np.where(is_large, value, 1.0 - ratio), np.where(is_large, -r * slope, -near)


def concentration(short: np.ndarray) -> np.ndarray:
    """Solve 1 - I1(kappa) / I0(kappa) = short, in (0, 1], by Newton's iterations from below (Banerjee et al. 2005)."""
    length = 1.0 - short
    kappa = length * (1.0 + short * (2.0 - short)) / (short * (2.0 - short))
    for _ in range(_MOST_STEPS):
        value, slope = shortfall(kappa)
        better = np.maximum(kappa - (value - short) / slope, 0.5 * kappa)
        done = np.abs(better - kappa) <= 1e-13 * kappa  # what is left is its square
        kappa = better
        if done.all():
            break
    return kappa


@dataclass(frozen=True, eq=False)
class VonMises(Exponential):
    """Von Mises components: angles that are independent within a component.

    Parameters
    ----------
    prior : Conjugate, default=None
        Rows whose mean cosine and sine are given. None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).vonmises(3.0, 4.0, size=(4000, 1))
    >>> fastem.fit(fastem.Mixture(fastem.VonMises()), X).params.components.directions.round(1)
    array([[3.]])
    """

    is_positive: ClassVar[bool] = False
    Params: ClassVar[Any] = VonMisesParams
    domains: ClassVar[dict[str, str]] = {"directions": "angle", "concentrations": "not negative"}

    def statistics(self, X):
        """cos x, sin x."""
        return np.concatenate([np.cos(X), np.sin(X)], axis=1)

    def natural_parameters(self, params):
        """kappa cos mu, kappa sin mu."""
        parts = [params.concentrations * turn(params.directions) for turn in (np.cos, np.sin)]
        return np.concatenate(parts, axis=1)

    def log_partition(self, params):
        """log(2 pi I0(kappa))."""
        return params.concentrations + np.log(2.0 * np.pi * i0e(params.concentrations))

    def estimate(self, means):
        """Direction and length of the mean vector."""
        cosine, sine = np.split(means, 2, axis=1)
        short = 1.0 - np.hypot(cosine, sine)
        self.require_spread(short > _FLAT, "angles that do not differ")
        return VonMisesParams(np.arctan2(sine, cosine), concentration(np.minimum(short, 1.0)))

    def expectation(self, params):
        """I1 / I0 times cos mu, sin mu."""
        length = 1.0 - shortfall(params.concentrations)[0]
        return np.concatenate([length * np.cos(params.directions), length * np.sin(params.directions)], axis=1)

    def column_means(self, params):
        """The mean directions."""
        return params.directions

    def expected_rows(self, params, resp):
        """Mean directions (n, D) of rows given the probabilities (n, K) of the components."""
        cosine, sine = np.split(np.einsum("nk,kt->nt", resp, self.expectation(params)), 2, axis=1)
        return np.arctan2(sine, cosine)

    def draw(self, params, k, n_samples, rng):
        """Draw angles from -pi to pi."""
        return rng.vonmises(params.directions[k], params.concentrations[k], (n_samples, params.directions.shape[1]))
