"""What is known of linear regressions: parameters, moments, and least squares from these."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

_DEPENDENT = 1e-12  # of the trace of a scaled covariance of columns: directions of less variance tell no slope
_TINY = np.finfo(np.float64).tiny


class RegressionParams(NamedTuple):
    """Parameters of K regressions of m responses on p columns, in the units of the data.

    Attributes
    ----------
    intercepts : ndarray of shape (K, m)
    covariances : ndarray of shape (K, m, m) full, (m, m) tied, (K, m) diag or (K,) spherical
        Of the errors.
    precisions_cholesky : ndarray of the same shape
        As those of `GaussianParams`.
    coefficients : ndarray of shape (K, m, p)
        0 for columns that are not regressed on.
    """

    intercepts: np.ndarray
    covariances: np.ndarray
    precisions_cholesky: np.ndarray
    coefficients: np.ndarray


class RegressionMoments(NamedTuple):
    """The rows of K components as a regression sees them: no two of these are differences of large numbers."""

    counts: np.ndarray  # (K,)
    means: np.ndarray  # (K, p) of x
    covariances: np.ndarray  # (K, p, p) of x
    responses: np.ndarray  # (K, m) mean of y
    coefficients: np.ndarray  # (K, m, p) of the least squares
    residuals: np.ndarray  # (K, m, m) their covariance


def columns_of(name: str, columns: Any, p: int) -> np.ndarray:
    """Numbers of different columns out of p, in order; None: all of them."""
    if columns is None:
        return np.arange(p)
    numbers = np.atleast_1d(np.asarray(columns))
    if numbers.size == 0:
        return np.empty(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or len(np.unique(numbers)) < len(numbers):
        raise ValueError(f"{name} must be different numbers of columns; got {columns!r}")
    if numbers.min() < 0 or numbers.max() >= p:
        raise ValueError(f"{name} must be numbers from 0 to {p - 1}; got {columns!r}")
    return np.sort(numbers)


def least_norm(covariances: np.ndarray, cross: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cross / covariances (K, m, q), of least norm in squared units (K, q); and whether there was but one solution."""
    deviations = np.sqrt(units)
    values, vectors = np.linalg.eigh(covariances / (deviations[:, :, None] * deviations[:, None, :]))
    kept = values > _DEPENDENT * np.maximum(values.sum(axis=1), _TINY)[:, None]
    inverses = np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)
    turned = (cross / deviations[:, None, :]) @ vectors
    return (turned * inverses[:, None, :]) @ np.swapaxes(vectors, 1, 2) / deviations[:, None, :], kept.all(axis=1)


def packed(whiteners: np.ndarray, centers: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    return np.ascontiguousarray(np.concatenate([whiteners, centers[:, None, :]], axis=1), dtype)


def residual_covariances(second: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Covariances (K, m, m) of y - B x from those of the rows (K, D, D): squares, negative by no more than rounding."""
    m = slopes.shape[1]
    form = np.concatenate([-slopes, np.broadcast_to(np.eye(m), (len(slopes), m, m))], axis=2)
    return form @ second @ np.swapaxes(form, 1, 2)


def left_by(moments: RegressionMoments, coefficients: np.ndarray) -> np.ndarray:
    """Covariances (K, m, m) of what other slopes than those of least squares leave of the responses."""
    turn = moments.coefficients - coefficients
    return moments.residuals + turn @ moments.covariances @ np.swapaxes(turn, 1, 2)
