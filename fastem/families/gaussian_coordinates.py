"""Coordinates of normal components in which any vector is a parameter, and the gradient in them."""

from typing import Any

import numpy as np

from fastem.families.gaussian_records import Frame, GaussianParams, Moments, Structure
from fastem.families.matrices import apply
from fastem.protocol import DegenerateError

_FAR = 100.0  # logarithms of standard deviations, in the frame, that are no longer taken seriously


class Coordinates(Structure):
    """What `Gaussian` does for accelerations and standard errors."""

    from_roots: Any

    def pack(self, params: GaussianParams, frame: Frame) -> np.ndarray:
        """Means, and roots of the precisions with logarithms of their diagonals, in the frame."""
        means = (params.means - frame.center) * frame.scale
        roots = params.precisions_cholesky
        if not self._is_matrix:
            roots = np.log(roots / (frame.scale if roots.ndim == 2 else frame.scale[0]))
            return np.concatenate([means.ravel(), roots.ravel()])
        rows, columns = np.triu_indices(len(frame.scale))
        packed = (roots / frame.scale[:, None])[..., rows, columns]
        diagonal = rows == columns
        packed[..., diagonal] = np.log(packed[..., diagonal])
        return np.concatenate([means.ravel(), packed.ravel()])

    def unpack(self, vector: np.ndarray, n_components: int, frame: Frame) -> GaussianParams:
        """Parameters at the coordinates of `pack`.

        Raises
        ------
        DegenerateError
            If they overflow.
        """
        n_features = len(frame.scale)
        size = n_components * n_features
        means = frame.center + vector[:size].reshape(n_components, n_features) / frame.scale
        packed = vector[size:]
        shape = self.shape(n_components, n_features)
        if self._is_matrix:
            rows, columns = np.triu_indices(n_features)
            packed = packed.reshape(*shape[:-2], len(rows)).copy()
            diagonal = rows == columns
            logs = packed[..., diagonal]
        else:
            logs = packed
        if not (np.abs(logs) < _FAR).all():
            raise DegenerateError("the coordinates overflow")
        if not self._is_matrix:
            scale = frame.scale if len(shape) == 2 else frame.scale[0]
            return self.from_roots(means, np.exp(packed).reshape(shape) * scale)
        packed[..., diagonal] = np.exp(logs)
        roots = np.zeros(shape)
        roots[..., rows, columns] = packed
        return self.from_roots(means, roots * frame.scale[:, None])

    def score(self, params: GaussianParams, moments: Moments, frame: Frame) -> np.ndarray:
        """Gradient of the expected log-likelihood in the coordinates of `pack`, at the parameters of the moments.

        With n, S the weight and the scatter about the mean: n S^-1-weighted gaps for the means; from
        n log|U| - tr(U' S U) / 2, the derivative n / U_jj - (S U)_ij for the roots.
        """
        counts, gaps, roots = moments.counts, moments.means - params.means, params.precisions_cholesky
        n_features = gaps.shape[1]
        if not self._is_matrix:
            spread = np.atleast_2d(roots.T).T  # (K, D) or (K, 1)
            means = spread**2 * gaps * counts[:, None] / frame.scale
            if roots.ndim == 2:
                logs = counts[:, None] * (1.0 - roots**2 * (moments.covariances + gaps**2))
            else:
                logs = counts * (n_features - roots**2 * (n_features * moments.covariances + (gaps**2).sum(axis=1)))
            return np.concatenate([means.ravel(), logs.ravel()])
        means = apply(roots @ np.swapaxes(roots, -1, -2), gaps) * counts[:, None] / frame.scale
        scatter = counts[:, None, None] * gaps[:, :, None] * gaps[:, None, :]
        if self.covariance_type == "tied":
            counts = counts.sum()
            scatter = scatter.sum(axis=0) + counts * moments.covariances
        else:
            counts = counts[:, None]
            scatter = scatter + counts[:, :, None] * moments.covariances
        rows, columns = np.triu_indices(n_features)
        slopes = -(scatter @ roots)[..., rows, columns]
        diagonal = rows == columns
        pivots = np.diagonal(roots, axis1=-2, axis2=-1)
        slopes[..., ~diagonal] *= frame.scale[rows[~diagonal]]
        slopes[..., diagonal] = slopes[..., diagonal] * pivots + counts
        return np.concatenate([means.ravel(), slopes.ravel()])
