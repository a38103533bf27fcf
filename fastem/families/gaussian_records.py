"""What is known of normal components: parameters, moments, and how the kernels see them."""

from typing import NamedTuple

import numpy as np

from fastem.data import Summary

_TINY = np.finfo(np.float64).tiny
_EPS = {np.dtype(dtype): float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64)}


class GaussianParams(NamedTuple):
    """Parameters of K normal components, in the units of the data.

    Attributes
    ----------
    means : ndarray of shape (K, D)
    covariances : ndarray of shape (K, D, D) full, (D, D) tied, (K, D) diag or (K,) spherical
    precisions_cholesky : ndarray of the same shape
        Upper triangular U with U U' the precision (full, tied), or reciprocal standard deviations.
    """

    means: np.ndarray
    covariances: np.ndarray
    precisions_cholesky: np.ndarray


class Frame(NamedTuple):
    """Where the kernels see the data: (x - center) * scale; the scales are powers of two, so that undoing is exact."""

    center: np.ndarray  # (D,)
    scale: np.ndarray  # (D,)
    reach: np.ndarray  # (D,) largest |coordinate|, in the frame
    deviation: np.ndarray  # (D,) of all rows, in the frame
    granule: np.ndarray  # (D,) rounding of the data, in their own units
    rows: np.ndarray  # (2, D) center and scale, as kernels take them
    dtype: np.dtype  # of the data, and of the products if they can bear it

    @classmethod
    def around(cls, summary: Summary, deviation: np.ndarray, dtype: np.dtype) -> "Frame":
        """Frame about the mean of the rows, in units of about some deviations (D,)."""
        scale = np.exp2(-np.round(np.log2(np.where(deviation > _TINY, deviation, 1.0))))
        granule = _EPS[np.dtype(dtype)] * summary.magnitude
        reach, rows = summary.reach * scale, np.stack([summary.mean, scale])
        return cls(summary.mean, scale, reach, np.sqrt(summary.variance) * scale, granule, rows, dtype)


class Layout(NamedTuple):
    """Which components a sweep takes by features and which by whitening; the thin components come last.

    The dtype of the whitener is that of the products.
    """

    feature_map: int
    order: np.ndarray  # (K,) component of each row of theta
    whitener: np.ndarray  # (n_thin, D + 1 or 2, D)


class Moments(NamedTuple):
    """Weight, mean and covariance about the mean of each component, in the units of the data."""

    counts: np.ndarray  # (K,)
    means: np.ndarray  # (K, D)
    covariances: np.ndarray  # (K, D, D) full, (D, D) tied: pooled, (K, D) diag, (K,) spherical: mean over columns


class Structure:
    """The form of the covariances of K components."""

    covariance_type: str

    @property
    def _is_matrix(self) -> bool:
        return self.covariance_type in ("full", "tied")

    @property
    def has_independent_columns(self) -> bool:
        """Whether a column says nothing of the others within a component."""
        return not self._is_matrix

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Shape of covariances, precisions and their roots."""
        return {
            "full": (n_components, n_features, n_features),
            "tied": (n_features, n_features),
            "diag": (n_components, n_features),
            "spherical": (n_components,),
        }[self.covariance_type]
