"""A block of columns that are normally distributed together, beside columns of other families.

    log p(x; m, S) = -(x - m)' S^-1 (x - m) / 2 - log|2 pi S| / 2

Fraley & Raftery (2002), J. Amer. Statist. Assoc. 97, 611-631, equation 3. Statistics are z and the products of z, of
z = (x - center) / unit, so a covariance loses eps (spread / deviation)^2 of its accuracy, as in `normal.py`.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.data import finite_array
from fastem.families.matrices import is_positive_definite
from fastem.families.normal import Normal

_FLAT = 1e-13  # of a variance given the columns before it, in units of the mean square about the centre: rounding


class NormalBlockParams(NamedTuple):
    """Means (K, D) and covariances, (K, D, D) full or (K,) spherical, in the units of the data."""

    means: np.ndarray
    covariances: np.ndarray


@dataclass(frozen=True, eq=False)
class NormalBlock(Normal):
    """Normal components of correlated columns, or of columns of one common variance; rows must be whole.

    Parameters
    ----------
    prior : Conjugate, default=None
        Rows whose mean statistics are those of all the data; `Conjugate.mean` must be None. None: maximum likelihood.
    covariance_type : {'full', 'spherical'}, default='full'

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[1.0, 1.0], [2.0, 3.0], [6.0, 2.0]])
    >>> fastem.fit(fastem.Mixture(fastem.NormalBlock()), X).params.components.covariances.round(3)
    array([[[4.667, 0.333],
            [0.333, 0.667]]])
    """

    covariance_type: str = field(default="full", kw_only=True)

    takes_missing: ClassVar[bool] = False
    Params: ClassVar[Any] = NormalBlockParams
    domains: ClassVar[dict[str, str]] = {"means": "real", "covariances": "positive definite"}

    def __post_init__(self):
        super().__post_init__()
        if self.covariance_type not in ("full", "spherical"):
            raise ValueError(f"covariance_type must be 'full' or 'spherical'; got {self.covariance_type!r}")
        if self.prior is not None and self.prior.mean is not None:
            raise ValueError("prior.mean must be None for a NormalBlock: statistics of all the data")

    @property
    def _is_full(self) -> bool:
        return self.covariance_type == "full"

    @property
    def _lower(self) -> tuple[np.ndarray, np.ndarray]:
        return np.tril_indices(self.n_features)

    @property
    def owners(self):
        """One piece: the row."""
        n = self.n_features
        return np.zeros(n + (n * (n + 1) // 2 if self._is_full else 1), np.int64)

    @property
    def frozen_fields(self) -> tuple[str, ...]:
        """None: `Gaussian` has them."""
        return ()

    def gaps(self, columns):
        """No row is missing."""
        return np.zeros(1, bool)

    def seeing(self, data):
        """Return the family with centre and unit of the columns, and mean statistics."""
        family = self._with(super().seeing(data), missing=np.zeros(1, bool))
        _, overall, deviation = family.looked_over(data, family.statistics)
        return replace(family, overall=overall, deviation=deviation)

    def statistics(self, X):
        """z, z z' or |z|^2."""
        z = (X - self.center) / self.unit
        if not self._is_full:
            return np.column_stack([z, (z * z).sum(axis=1)])
        rows, columns = self._lower
        return np.concatenate([z, z[:, rows] * z[:, columns]], axis=1)

    def _standardized(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
        """Means (K, D) and covariances (K, D, D), of z."""
        covariances = params.covariances
        if not self._is_full:
            covariances = covariances[:, None, None] * np.eye(self.n_features)
        return (params.means - self.center) / self.unit, covariances / (self.unit[:, None] * self.unit)

    def natural_parameters(self, params):
        """S^-1 m, -S^-1 / 2, of z; products of different columns come once, and count twice."""
        means, covariances = self._standardized(params)
        precisions = np.linalg.inv(covariances)
        slopes = np.einsum("kij,kj->ki", precisions, means)
        if not self._is_full:
            return np.column_stack([slopes, -0.5 * precisions[:, 0, 0]])
        rows, columns = self._lower
        return np.column_stack([slopes, -np.where(rows == columns, 0.5, 1.0) * precisions[:, rows, columns]])

    def log_partition(self, params):
        """m' S^-1 m / 2, of z, + log|2 pi S| / 2, of x."""
        means, covariances = self._standardized(params)
        away = np.linalg.solve(covariances, means[:, :, None])[:, :, 0]
        log_det = np.linalg.slogdet(covariances)[1] + 2.0 * np.log(self.unit).sum()
        return 0.5 * ((means * away).sum(axis=1) + log_det + self.n_features * np.log(2.0 * np.pi))[:, None]

    def estimate(self, means):
        """Means and covariances."""
        n = self.n_features
        mean, second = means[:, :n], means[:, n:]
        if not self._is_full:
            variance = (second[:, 0] - (mean**2).sum(axis=1)) / n
            flat = variance <= _FLAT * (1.0 + second[:, 0])
            self.require_spread(~np.repeat(flat[:, None], n, axis=1), "values that do not differ")
            return NormalBlockParams(self.center + self.unit * mean, self.unit[0] ** 2 * variance)
        rows, columns = self._lower
        square = np.zeros((len(mean), n, n))
        square[:, rows, columns] = square[:, columns, rows] = second
        covariances = square - mean[:, :, None] * mean[:, None, :]
        self.require_spread(self._pivots(covariances) > _FLAT * (1.0 + second[:, rows == columns]),
                            "a singular covariance")  # fmt: skip
        return NormalBlockParams(self.center + self.unit * mean, covariances * (self.unit[:, None] * self.unit))

    @staticmethod
    def _pivots(covariances: np.ndarray) -> np.ndarray:
        """Variance (K, D) of each column given those before it, by Gaussian elimination."""
        rest, pivots = covariances.copy(), np.empty(covariances.shape[:2])
        for i in range(rest.shape[1]):
            pivots[:, i] = rest[:, i, i]
            safe = np.where(pivots[:, i] > 0, pivots[:, i], 1.0)[:, None, None]
            rest -= rest[:, :, i, None] * rest[:, None, i] / safe
        return pivots

    def expectation(self, params):
        """m, S + m m', of z."""
        means, covariances = self._standardized(params)
        square = covariances + means[:, :, None] * means[:, None, :]
        if not self._is_full:
            return np.column_stack([means, np.trace(square, axis1=1, axis2=2)])
        rows, columns = self._lower
        return np.column_stack([means, square[:, rows, columns]])

    def recalled(self, weights, params):
        """The family with centre and unit as the parameters tell them."""
        variances = params.covariances
        variances = np.diagonal(variances, axis1=1, axis2=2) if self._is_full else variances[:, None]
        family = super().recalled(weights, (params.means, variances + 0.0 * params.means))
        return self._with(family, missing=np.zeros(1, bool))

    def _with(self, family: Any, **changes: Any) -> Any:
        """A changed family, whose columns have one unit if they have one variance."""
        unit = family.unit if self._is_full else np.full_like(family.unit, np.sqrt((family.unit**2).mean()))
        return replace(family, unit=unit, **changes)

    def n_parameters(self, n_components, n_features):
        """Number of free parameters of the components."""
        return n_components * (n_features + (n_features * (n_features + 1) // 2 if self._is_full else 1))

    def check_params(self, params, n_components, frame=None, name="start.components."):
        """Return parameters that a user gave, after checking shapes, finiteness and definiteness."""
        if not isinstance(params, NormalBlockParams):
            raise TypeError(f"{name.strip('.') or 'the parameters'} must be NormalBlockParams")
        n = self.n_features
        wanted = (n_components, n), (n_components, n, n) if self._is_full else (n_components,)
        checked = []
        for label, part, shape in zip(params._fields, params, wanted, strict=True):
            part = finite_array(f"{name}{label}", part, len(shape))
            if part.shape != shape:
                raise ValueError(f"{name}{label} has shape {part.shape}; {shape} is needed")
            checked.append(part)
        covariances = checked[1] if self._is_full else checked[1][:, None, None]
        for k, matrix in enumerate(covariances):
            if not is_positive_definite(matrix):
                raise ValueError(f"{name}covariances[{k}] must be symmetric and positive definite")
        return NormalBlockParams(*checked)

    def pack(self, params, frame):
        """Means in units of the columns; log-diagonals and off-diagonals of Cholesky factors, or log-variances."""
        means, covariances = self._standardized(params)
        if not self._is_full:
            return np.column_stack([means, np.log(covariances[:, 0, 0])]).ravel()
        roots = np.linalg.cholesky(covariances)
        rows, columns = np.tril_indices(self.n_features, -1)
        logs = np.log(np.diagonal(roots, axis1=1, axis2=2))
        return np.column_stack([means, logs, roots[:, rows, columns]]).ravel()

    def unpack(self, vector, n_components, frame):
        """Parameters at the coordinates of `pack`."""
        n = self.n_features
        parts = vector.reshape(n_components, -1)
        means = self.center + self.unit * parts[:, :n]
        if not self._is_full:
            return NormalBlockParams(means, self.unit[0] ** 2 * np.exp(parts[:, n]))
        roots = np.zeros((n_components, n, n))
        roots[:, np.arange(n), np.arange(n)] = np.exp(parts[:, n : 2 * n])
        rows, columns = np.tril_indices(n, -1)
        roots[:, rows, columns] = parts[:, 2 * n :]
        covariances = roots @ np.swapaxes(roots, 1, 2)
        return NormalBlockParams(means, covariances * (self.unit[:, None] * self.unit))

    def _steps(self, n_coordinates):
        return np.arange(n_coordinates)[:, None]

    def fewest_rows(self, n_features):
        """Return how many rows a component takes to be estimated."""
        return n_features + 1 if self._is_full else 2

    def draw(self, params, k, n_samples, rng):
        """Draw rows."""
        n = params.means.shape[1]
        covariance = params.covariances[k] if self._is_full else params.covariances[k] * np.eye(n)
        return params.means[k] + rng.normal(size=(n_samples, n)) @ np.linalg.cholesky(covariance).T
