"""Independent normally distributed columns.

    log p(x; m, v) = -(x - m)^2 / (2 v) - log(2 pi v) / 2

Johnson, Kotz & Balakrishnan (1994), Continuous Univariate Distributions 1, equation 13.1. Statistics are
z and z^2 of z = (x - center) / unit, so a variance loses eps (spread / deviation)^2 of its accuracy: 1e-10 for a
component a thousand times narrower than its column. `fastem.Gaussian` loses nothing, and has other covariances.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.families.exponential import _TINY, Exponential
from fastem.families.family import are_arrays

_FLAT = 1e-13  # of a variance, in units of the mean square about the centre: rounding


class NormalParams(NamedTuple):
    """Means and variances (K, D), in the units of the data."""

    means: np.ndarray
    variances: np.ndarray


@dataclass(frozen=True, eq=False)
class Normal(Exponential):
    """Normal components, with columns that are independent within a component: for columns beside others.

    Parameters
    ----------
    prior : Conjugate, default=None
        Rows whose mean value and mean square are given. None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[1.0], [2.0], [6.0]])
    >>> fastem.fit(fastem.Mixture(fastem.Normal()), X).params.components.means
    array([[3.]])
    """

    center: Any = field(default=None, repr=False, kw_only=True)  # (D,)
    unit: Any = field(default=None, repr=False, kw_only=True)  # (D,)

    is_positive: ClassVar[bool] = False
    Params: ClassVar[Any] = NormalParams
    domains: ClassVar[dict[str, str]] = {"means": "real", "variances": "positive"}

    def values(self, X: np.ndarray) -> np.ndarray:
        """What is normally distributed."""
        return X

    def seeing(self, data):
        """Return the family with centre and unit of the columns too; the statistics of all data are then known."""
        family = replace(self, n_features=data.n_features)
        gaps, mean, deviation = family.looked_over(data, family.values)
        unit = np.where(deviation > _TINY, deviation, 1.0)
        spread = (deviation / unit) ** 2
        overall, deviation = np.concatenate([0.0 * mean, spread]), np.concatenate([spread, spread])
        return replace(family, missing=gaps, overall=overall, deviation=deviation, center=mean, unit=unit)

    def recalled(self, weights, params):
        """The family with centre and unit as the parameters tell them."""
        mean = np.einsum("k,kd->d", weights, params[0])
        variance = np.einsum("k,kd->d", weights, params[1] + (params[0] - mean) ** 2)
        return replace(super().recalled(weights, params), center=mean, unit=np.sqrt(variance))

    def _for_rows(self, X):
        """The family as if it had seen these rows alone."""
        family = super()._for_rows(X)
        if self.center is not None:
            return family
        center, unit = np.nan_to_num(np.nanmean(self.values(X), axis=0)), np.ones(X.shape[1])
        return replace(family, center=center, unit=unit)

    def impossible(self, params, possible, X):
        """None is."""
        return None

    def _coding(self):
        return self.center.tobytes(), self.unit.tobytes()

    def statistics(self, X):
        """z, z^2."""
        z = (self.values(X) - self.center) / self.unit
        return np.concatenate([z, z * z], axis=1)

    @property
    def seeds(self):
        """z."""
        return slice(0, self.n_features)

    def _standardized(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
        return (params[0] - self.center) / self.unit, params[1] / self.unit**2

    def natural_parameters(self, params):
        """m / v, -1 / (2 v), of z."""
        mean, variance = self._standardized(params)
        return np.concatenate([mean / variance, -0.5 / variance], axis=1)

    def log_partition(self, params):
        """m^2 / (2 v), of z, + log(2 pi v) / 2, of x."""
        mean, variance = self._standardized(params)
        return 0.5 * (mean**2 / variance + np.log(2.0 * np.pi * params[1]))

    def estimate(self, means):
        """Mean and variance."""
        mean, square = np.split(means, 2, axis=1)
        variance = square - mean**2
        self.require_spread(variance > _FLAT * (1.0 + square), "values that do not differ, beside the spread of all,")
        return self.Params(self.center + self.unit * mean, self.unit**2 * variance)

    def expectation(self, params):
        """m, v + m^2, of z."""
        mean, variance = self._standardized(params)
        return np.concatenate([mean, variance + mean**2], axis=1)

    def column_means(self, params):
        """The means."""
        return params.means

    def _prior_mean(self, given):
        """Mean statistics from mean and mean square in the units of the data."""
        if given is None:
            return self.overall
        mean, square = np.split(super()._prior_mean(given), 2)
        square = square - 2.0 * self.center * mean + self.center**2
        return np.concatenate([(mean - self.center) / self.unit, square / self.unit**2])

    def pack(self, params, frame):
        """Means in units of the columns, and logarithms of variances."""
        return super().pack(self.Params(*self._standardized(params)), frame)

    def unpack(self, vector, n_components, frame):
        """Parameters at the coordinates of `pack`."""
        mean, variance = super().unpack(vector, n_components, frame)
        return self.Params(self.center + self.unit * mean, self.unit**2 * variance)

    def are_sound(self, params, moments, n_components, n_features):
        """Whether parameters and averages, read from a file, are what kernels may be given."""
        known = are_arrays(self.center, self.unit, of=(n_features,))
        return known and super().are_sound(params, moments, n_components, n_features)

    def draw(self, params, k, n_samples, rng):
        """Draw values."""
        return rng.normal(params[0][k], np.sqrt(params[1][k]), (n_samples, params[0].shape[1]))
