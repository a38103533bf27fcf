"""Coordinates of normal components in which any vector is a parameter, and the gradient in them."""

import functools
from typing import Any

import numpy as np

from fastem.families.covariance_structures import common_axes, leveled
from fastem.families.family import Frame
from fastem.families.gaussian_records import GaussianParams, Moments, Structure
from fastem.families.matrices import apply
from fastem.protocol import DegenerateError

_NEAR = 1e-4  # differences of logarithms whose divided difference is taken by its series
_FAR = 100.0  # logarithms of standard deviations, in the frame, that are no longer taken seriously


class Coordinates(Structure):
    """What `Gaussian` does for accelerations and standard errors.

    Covariances of a form with no constraint have triangular roots, or logarithms, of their own. Those of another
    structure have their (matrix) logarithms: K (D, D), with off-diagonals times sqrt(2) so that distances are kept,
    (K, D) or (K,). In these a structure is a smooth surface, and a vector stands for the nearest point of it; so there
    are more coordinates than parameters, and a gradient has no part across the surface.
    """

    from_roots: Any

    def pack(self, params: GaussianParams, frame: Frame) -> np.ndarray:
        """Means, and roots of the precisions with logarithms of their diagonals, in the frame."""
        means = (params.means - frame.center) * frame.scale
        roots = params.precisions_cholesky
        if self.is_constrained:
            return np.concatenate([means.ravel(), self._pack_logs(roots, self._unit(frame))])
        if not self._is_matrix:
            roots = np.log(roots / (frame.scale if roots.ndim == 2 else frame.scale[0]))
            return np.concatenate([means.ravel(), roots.ravel()])
        rows, columns = _upper_triangle(len(frame.scale))
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
        if self.is_constrained:
            return self.from_roots(means, self._unpack_logs(packed, n_components, self._unit(frame)))
        shape = self.shape(n_components, n_features)
        if self._is_matrix:
            rows, columns = _upper_triangle(n_features)
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
        """Gradient of the expected log-likelihood in the coordinates of `pack`, at the parameters of the moments."""
        return self._score(params, moments, frame, moments.counts)

    def _score(self, params: GaussianParams, moments: Moments, frame: Frame, rows: np.ndarray) -> np.ndarray:
        """The gradient where determinants count `rows` (K,) times.

        With n, S the weight and the scatter about the mean: n S^-1-weighted gaps for the means; from
        n log|U| - tr(U' S U) / 2, the derivative n / U_jj - (S U)_ij for the roots.
        """
        counts, gaps, roots = moments.counts, moments.means - params.means, params.precisions_cholesky
        n_features = gaps.shape[1]
        if self.is_constrained:
            return self._score_of_logs(params, moments, frame, rows)
        if not self._is_matrix:
            spread = np.atleast_2d(roots.T).T  # (K, D) or (K, 1)
            means = spread**2 * gaps * counts[:, None] / frame.scale
            if roots.ndim == 2:
                logs = rows[:, None] - counts[:, None] * roots**2 * (moments.covariances + gaps**2)
            else:
                squares = n_features * moments.covariances + (gaps**2).sum(axis=1)
                logs = n_features * rows - counts * roots**2 * squares
            return np.concatenate([means.ravel(), logs.ravel()])
        means = apply(roots @ np.swapaxes(roots, -1, -2), gaps) * counts[:, None] / frame.scale
        scatter = counts[:, None, None] * gaps[:, :, None] * gaps[:, None, :]
        if self.form == "tied":
            scatter = scatter.sum(axis=0) + counts.sum() * moments.covariances
            rows = rows.sum()
        else:
            scatter = scatter + counts[:, None, None] * moments.covariances
            rows = rows[:, None]
        upper, columns = _upper_triangle(n_features)
        slopes = -(scatter @ roots)[..., upper, columns]
        diagonal = upper == columns
        pivots = np.diagonal(roots, axis1=-2, axis2=-1)
        slopes[..., ~diagonal] *= frame.scale[upper[~diagonal]]
        slopes[..., diagonal] = slopes[..., diagonal] * pivots + rows
        return np.concatenate([means.ravel(), slopes.ravel()])

    # structures: logarithms of the covariances

    def _unit(self, frame: Frame) -> np.ndarray:
        """Units (D,) in which covariances have logarithms: one for all columns where orientations are constrained."""
        if self.letters in ("EVE", "VVE", "EEV", "VEV"):
            return np.full_like(frame.scale, np.exp2(np.round(np.log2(frame.scale).mean())))
        return frame.scale

    def _pack_logs(self, roots: np.ndarray, unit: np.ndarray) -> np.ndarray:
        if self.form != "full":
            return -2.0 * np.log(roots / (unit if roots.ndim == 2 else unit[0])).ravel()
        axes, scales, _ = np.linalg.svd(roots / unit[:, None])
        if not (scales > 0).all():
            raise DegenerateError("a covariance has no logarithm: its columns differ by too many orders of magnitude")
        return _pack_symmetric((axes * (-2.0 * np.log(scales))[:, None, :]) @ np.swapaxes(axes, 1, 2))

    def _unpack_logs(self, packed: np.ndarray, n_components: int, unit: np.ndarray) -> np.ndarray:
        """Roots of the precisions at the nearest point of the structure."""
        n_features = len(unit)
        if self.form != "full":
            logs = leveled(self.letters, packed.reshape(n_components, -1))
            _require_near(logs)
            roots = np.exp(-0.5 * logs) * unit[: logs.shape[1]]
            return roots if self.form == "diag" else roots[:, 0]
        matrices = self._nearest(_unpack_symmetric(packed, n_components, n_features))
        if self.letters[2] == "E" and self.letters[1] == "V":
            axes = np.broadcast_to(common_axes(matrices), matrices.shape)
            logs = np.einsum("kji,kjl,kli->ki", axes, matrices, axes)
        else:
            logs, axes = np.linalg.eigh(matrices)
        if self.letters[1:] != "EE" and self.letters != "EVV":
            logs = leveled(self.letters, logs)
        _require_near(logs)
        # precision = V exp(-l) V' = U U' with U upper triangular, from the QR decomposition of a matrix read backwards
        factors = np.exp(-0.5 * logs)[:, :, None] * np.swapaxes(axes, 1, 2)
        triangular = np.linalg.qr(factors[:, :, ::-1], mode="r")
        upper = np.swapaxes(triangular, 1, 2)[:, ::-1, ::-1]
        signs = np.sign(np.einsum("kii->ki", upper))
        if not signs.all():
            raise DegenerateError("the coordinates overflow")
        return np.ascontiguousarray(upper * signs[:, None, :]) * unit[:, None]

    def _nearest(self, logs: np.ndarray) -> np.ndarray:
        """Logarithms (K, D, D), or gradients in them, made those of VEE or EVV, which are linear spaces."""
        if self.letters not in ("VEE", "EVV"):
            return logs
        volumes = (np.einsum("kii->k", logs) / logs.shape[1])[:, None, None] * np.eye(logs.shape[1])
        if self.letters == "VEE":
            return volumes + (logs - volumes).mean(axis=0)
        return volumes.mean(axis=0) + (logs - volumes)

    def _score_of_logs(self, params: GaussianParams, moments: Moments, frame: Frame, rows: np.ndarray) -> np.ndarray:
        """Gradient in the logarithms, along the surface of the structure.

        With W the whitener W = exp(-l / 2) V' and Y = W (S + gap gap') W' of a component, n times the half of
        Y_ij sinh(t) / t - [i = j] in its axes, where t = (l_i - l_j) / 2: what Daleckii & Krein (1965) say of the
        derivative of the exponential.
        """
        counts, gaps, roots = moments.counts, moments.means - params.means, params.precisions_cholesky
        if self.form != "full":
            spread = np.atleast_2d(roots.T).T  # (K, D) or (K, 1)
            means = spread**2 * gaps * counts[:, None] / frame.scale
            variances = np.atleast_2d(moments.covariances.T).T + (
                gaps**2 if self.form == "diag" else (gaps**2).mean(axis=1, keepdims=True)
            )
            per_log = 1.0 if self.form == "diag" else gaps.shape[1]
            logs = 0.5 * per_log * (counts[:, None] * spread**2 * variances - rows[:, None])
            return np.concatenate([means.ravel(), leveled(self.letters, logs).ravel()])
        means = apply(roots @ np.swapaxes(roots, -1, -2), gaps) * counts[:, None] / frame.scale
        unit = self._unit(frame)
        axes, scales, _ = np.linalg.svd(roots / unit[:, None])
        logs = -2.0 * np.log(scales)
        whiteners = scales[:, :, None] * np.swapaxes(axes, 1, 2)
        scatter = (moments.covariances + gaps[:, :, None] * gaps[:, None, :]) * (unit[:, None] * unit)
        half = 0.5 * (logs[:, :, None] - logs[:, None, :])
        near = np.abs(half) < _NEAR
        ratio = np.where(near, 1.0 + half**2 / 6.0, np.sinh(half) / np.where(near, 1.0, half))
        slopes = counts[:, None, None] * (whiteners @ scatter @ np.swapaxes(whiteners, 1, 2)) * ratio
        slopes = 0.5 * (slopes - rows[:, None, None] * np.eye(gaps.shape[1]))
        if self.letters in ("EVE", "VVE"):
            matrices = (axes * logs[:, None, :]) @ np.swapaxes(axes, 1, 2)
            common = common_axes(matrices)
            turn = common.T @ axes
            slopes = turn @ slopes @ np.swapaxes(turn, 1, 2)
            logs, axes = np.einsum("ji,kjl,li->ki", common, matrices, common), common
            between = logs[:, :, None] - logs[:, None, :]
            spread = np.maximum((between**2).sum(axis=0), np.finfo(np.float64).tiny)
            turned = between * ((between * slopes).sum(axis=0) / spread)
        else:
            turned = slopes
        if self.letters not in ("VEE", "EVV"):
            diagonal = leveled(self.letters, np.einsum("kii->ki", slopes))
            slopes = turned * (1.0 - np.eye(gaps.shape[1])) + diagonal[:, :, None] * np.eye(gaps.shape[1])
        slopes = self._nearest(axes @ slopes @ np.swapaxes(axes, -1, -2))
        return np.concatenate([means.ravel(), _pack_symmetric(slopes)])


def _require_near(logs: np.ndarray) -> None:
    if not ((np.abs(logs) < 2.0 * _FAR).all() and (np.ptp(logs, axis=1) < _FAR).all()):
        raise DegenerateError("the coordinates overflow")


@functools.lru_cache(maxsize=64)
def _upper_triangle(n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the upper triangle; NumPy takes as long for them as for all else in `pack`."""
    return np.triu_indices(n_features)


def _pack_symmetric(matrices: np.ndarray) -> np.ndarray:
    rows, columns = np.tril_indices(matrices.shape[1])
    return (matrices[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))).ravel()


def _unpack_symmetric(packed: np.ndarray, n_components: int, n_features: int) -> np.ndarray:
    rows, columns = np.tril_indices(n_features)
    matrices = np.empty((n_components, n_features, n_features))
    matrices[:, rows, columns] = packed.reshape(n_components, -1) * np.where(rows == columns, 1.0, np.sqrt(0.5))
    matrices[:, columns, rows] = matrices[:, rows, columns]
    return matrices
