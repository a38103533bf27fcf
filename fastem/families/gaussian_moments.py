"""Moments of normal components: mixed, recalled from parameters, and moved, for streams and passes of many M-steps."""

from typing import Any

import numpy as np

from fastem.data import Summary
from fastem.families.family import Frame
from fastem.families.gaussian_records import GaussianParams, Moments, Structure
from fastem.families.matrices import apply
from fastem.kernels.components import blend_full

_HALVES = 0.8  # standard deviations from the mean to those of its halves: less than 1, the longest
_SPLITS = 3  # components that may be halved
SLACK = 1.5  # a frame's reach over that of the rows, when it is new
_TINY = np.finfo(np.float64).tiny


class MomentAlgebra(Structure):
    """What `Gaussian` does with moments alone."""

    prior: Any
    held: Any
    _with_held: Any
    reg_covar: float
    resolved: Any
    _in_kernels: Any
    _log_constants: Any
    _prior_terms: Any
    _pull: Any
    _regularized: Any
    frame: Any
    resolve_prior: Any

    def in_frame(self, params: GaussianParams, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means (K, D), whiteners and covariances of each component in a frame (2, D): (K, D, D).

        Diagonals (K, D) of both where columns are independent.
        """
        center, scale = rows
        n_components, n_features = params.means.shape
        means = (params.means - center) * scale
        roots, covariances = params.precisions_cholesky, params.covariances
        if self._is_matrix:
            shape = n_components, n_features, n_features
            whiteners = np.broadcast_to(np.swapaxes(roots, -1, -2) / scale, shape)
            return means, whiteners, np.broadcast_to(covariances * (scale[:, None] * scale), shape)
        roots, covariances = np.atleast_2d(roots.T).T, np.atleast_2d(covariances.T).T
        return means, roots / scale, covariances * scale**2

    def in_form(self, counts: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> Moments:
        """Moments from those of each component, with covariances (K, D, D) or, of diagonals alone, (K, D)."""
        if self.form == "tied":
            covariances = np.einsum("k,kij->ij", counts / max(counts.sum(), _TINY), covariances)
        elif not self._is_matrix and covariances.ndim == 3:
            covariances = np.diagonal(covariances, axis1=1, axis2=2)
        return Moments(counts, means, covariances.mean(axis=1) if self.form == "spherical" else covariances)

    def blend(self, one: Moments, two: Moments, share: float) -> Moments:
        """Moments of a mixture of both, of which the second makes up a share.

        Chan, Golub & LeVeque (1983), Amer. Statist. 37, 242-247, equation 2.1: means and covariances, never sums, so
        that nothing cancels however far means are from the origin, or move.
        """
        n_components, n_features = one.means.shape
        if self._in_kernels(n_features):
            form = (n_components, n_features)
            blended = Moments(np.empty(n_components), np.empty(form), np.empty((*form, n_features)))
            blend_full(tuple(one), tuple(two), share, _TINY, tuple(blended))
            return blended
        before, added = (1.0 - share) * one.counts, share * two.counts
        counts = before + added
        part = added / np.maximum(counts, _TINY)
        gaps = two.means - one.means
        means = one.means + part[:, None] * gaps
        between = before * part
        if self.form == "tied":
            within = before.sum() * one.covariances + added.sum() * two.covariances
            return Moments(counts, means, (within + np.einsum("k,ki,kj->ij", between, gaps, gaps)) / counts.sum())
        squares = gaps[:, :, None] * gaps[:, None, :] if self.form == "full" else gaps**2
        if self.form == "spherical":
            squares = squares.mean(axis=1)
        form = (-1,) + (1,) * (squares.ndim - 1)
        part = part.reshape(form)
        covariances = one.covariances + part * (two.covariances - one.covariances + (1.0 - part) * squares)
        return Moments(counts, means, covariances)

    def expected_log_densities(self, moments: Moments, params: GaussianParams) -> np.ndarray:
        """Mean log-density (K,) under each component of rows of its moments: the traces tr(W C W') + |W gap|^2."""
        roots, gaps = params.precisions_cholesky, moments.means - params.means
        if self._is_matrix:
            roots = np.swapaxes(roots, -1, -2)
            distances = ((roots @ moments.covariances) * roots).sum(axis=(-2, -1)) + (apply(roots, gaps) ** 2).sum(1)
        else:
            variances, roots = np.atleast_2d(moments.covariances.T).T, np.atleast_2d(roots.T).T
            distances = ((variances + gaps**2) * roots**2).sum(axis=1)
        return self._log_constants(params) - 0.5 * distances

    def recall(self, counts: np.ndarray, params: GaussianParams, weight: float) -> Moments:
        """Moments, of rows of some weight, whose maximum are the parameters."""
        means, covariances = params.means, self._less_regularized(params.covariances)
        if self.prior is None or weight == 0:
            return Moments(counts, means, covariances)
        rows = weight * counts
        kept = np.maximum(1.0 - self._pull(rows), _TINY)[:, None]
        means = np.where(rows[:, None] > 0, self.resolved.mean + (means - self.resolved.mean) / kept, means)
        mass, total, scatter = self._prior_terms(rows, means)
        within = (covariances * total - scatter) / np.maximum(mass, _TINY)
        if self.held is not None:  # what is held follows from no moments
            within = self._with_held(means, within)
        return Moments(counts, means, within)

    def keep_moments(self, moments: Moments, kept: np.ndarray) -> Moments:
        """Moments of some of the components (k,) int; their counts sum to 1."""
        counts, covariances = moments.counts[kept], moments.covariances
        if self.form != "tied":
            covariances = covariances[kept]
        return Moments(counts / counts.sum(), moments.means[kept], covariances)

    def resumed(self, weights: np.ndarray, params: GaussianParams, weight: float, dtype: np.dtype) -> tuple[Any, Frame]:
        """Family and frame as the parameters tell them."""
        moments = Moments(weights, *params[:2])
        mean, variance = self.spread(moments)
        family = self.resolve_prior(mean, lambda: self.overall_covariance(moments), len(weights))
        return family, self.frame(Summary(weight, mean, variance, mean, mean), dtype)

    def reframed(self, moments: Moments, frame: Frame, weight: float, low: np.ndarray, high: np.ndarray) -> Frame:
        """Frame for rows of the moments that reach from low (D,) to high (D,), and some way farther."""
        mean, variance = self.spread(moments)
        low, high = mean - SLACK * np.maximum(mean - low, 0.0), mean + SLACK * np.maximum(high - mean, 0.0)
        return self.frame(Summary(weight, mean, variance, low, high), frame.dtype)

    def births(self, moments: Moments, weight: float, component: int, reservoir: Any) -> list[Moments]:
        """Moments with a component moved to where a reservoir is densest, or with half of one of the longest."""
        born = [self.reseeded(moments, weight, component, reservoir)]
        axes = self.longest_axes(moments)
        longest = np.argsort(-(axes**2).sum(axis=1), kind="stable")
        halved = [k for k in longest if k != component][:_SPLITS]
        return born + [self.halved(moments, component, k, axes[k]) for k in halved]

    def reseeded(self, moments: Moments, weight: float, component: int, reservoir: Any) -> Moments:
        """Moments with a component moved to where the rows of a reservoir are densest.

        Distances are those of the mean covariance, which counts as many rows as it takes to tell one. `weight` is what
        the moments are worth in rows.
        """
        n_features = moments.means.shape[1]
        mean = self._regularized_mean(moments)
        rows = reservoir.rows[reservoir.densest(np.linalg.inv(np.linalg.cholesky(mean)).T)]
        few = n_features + 1
        spread = (len(rows) * np.cov(rows.T, bias=True).reshape(mean.shape) + few * mean) / (len(rows) + few)
        counts, means = moments.counts.copy(), moments.means.copy()
        counts[component], means[component] = len(rows) / weight, rows.mean(axis=0)
        covariances = moments.covariances.copy()
        if self.form != "tied":
            variances = np.diagonal(spread)
            covariances[component] = {"full": spread, "diag": variances}.get(self.form, variances.mean())
        return Moments(counts / counts.sum(), means, covariances)

    def longest_axes(self, moments: Moments) -> np.ndarray:
        """Axis (K, D) of one standard deviation on which each component is longest, compared to the mean covariance."""
        if self.form != "full":
            variances = np.broadcast_to(self._variances(moments), moments.means.shape)
            axes = np.zeros(moments.means.shape)
            unit = np.maximum(np.diagonal(self._regularized_mean(moments)), _TINY)
            longest = np.argmax(variances / unit, axis=1)
            axes[np.arange(len(axes)), longest] = np.sqrt(np.take_along_axis(variances, longest[:, None], 1))[:, 0]
            return axes
        lower = np.linalg.cholesky(self._regularized_mean(moments))
        whitener = np.linalg.inv(lower)
        values, vectors = np.linalg.eigh(whitener @ moments.covariances @ whitener.T)
        return np.sqrt(np.maximum(values[:, -1:], 0.0)) * (vectors[:, :, -1] @ lower.T)

    def halved(self, moments: Moments, component: int, k: int, axis: np.ndarray) -> Moments:
        """Moments with half of component k given to another, which loses its own; those of both together stay."""
        counts, means = moments.counts.copy(), moments.means.copy()
        counts[component] = counts[k] = 0.5 * counts[k]
        gap = _HALVES * axis
        means[component], means[k] = moments.means[k] + gap, moments.means[k] - gap
        covariances = moments.covariances.copy()
        if self.form == "tied":
            covariances -= 2.0 * counts[k] * gap[:, None] * gap
        else:
            squares = {"full": gap[:, None] * gap, "diag": gap**2}.get(self.form, np.mean(gap**2))
            covariances[component] = covariances[k] = covariances[k] - squares
        return Moments(counts / counts.sum(), means, covariances)

    def spread(self, moments: Moments) -> tuple[np.ndarray, np.ndarray]:
        """Mean (D,) and variances (D,) of all rows of the moments."""
        shares = moments.counts / moments.counts.sum()
        mean = np.einsum("k,kd->d", shares, moments.means)
        return mean, np.einsum("k,kd->d", shares, self._variances(moments) + (moments.means - mean) ** 2)

    def _variances(self, moments: Moments) -> np.ndarray:
        """Variances of the columns in each component: (K, D), or a shape that broadcasts to it."""
        if self._is_matrix:
            return np.diagonal(moments.covariances, axis1=-2, axis2=-1)
        return np.atleast_2d(moments.covariances.T).T

    def overall_covariance(self, moments: Moments) -> np.ndarray:
        """Covariance (D, D) of all rows of the moments."""
        shares = moments.counts / moments.counts.sum()
        gaps = moments.means - np.einsum("k,kd->d", shares, moments.means)
        return self._mean_covariance(moments) + np.einsum("k,ki,kj->ij", shares, gaps, gaps)

    def _less_regularized(self, covariances: np.ndarray) -> np.ndarray:
        """Covariances with reg_covar taken away again, where they hold it."""
        less = self._regularized(covariances, -1.0)
        lowest = np.linalg.eigvalsh(covariances)[..., 0] if self._is_matrix else covariances
        holds = lowest >= self.reg_covar
        if self._is_matrix:
            holds = holds[..., None, None]
        return np.where(holds, less, covariances)

    def _regularized_mean(self, moments: Moments) -> np.ndarray:
        """Mean covariance (D, D) with reg_covar, so that it has a factor."""
        return self._mean_covariance(moments) + self.reg_covar * np.eye(moments.means.shape[1])

    def _mean_covariance(self, moments: Moments) -> np.ndarray:
        """Mean (D, D) of the covariances, weighted by the counts."""
        mean = moments.covariances
        if self.form != "tied":
            mean = np.einsum("k,k...->...", moments.counts, mean) / moments.counts.sum()
        return mean if self._is_matrix else np.diag(np.broadcast_to(mean, moments.means.shape[1]))
