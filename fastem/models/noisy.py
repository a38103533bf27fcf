"""Normal mixtures of rows that were measured with noise of known covariance: extreme deconvolution.

Bovy, Hogg & Roweis (2011), Ann. Appl. Stat. 5, 1657-1677. What is estimated is the mixture without the noise. If all
rows have the same noise, a sweep over them as they are says all: the moments of what they were follow from theirs.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastem.data import Block, Data
from fastem.families.gaussian import Gaussian
from fastem.families.gaussian_records import GaussianParams, Moments
from fastem.kernels._jit import use_threads
from fastem.kernels.completion import Components
from fastem.kernels.deconvolution import for_each_noisy_row, sums_of_noisy
from fastem.kernels.features import FULL, n_statistics
from fastem.kernels.posteriors import SOFTMAX
from fastem.kernels.sweep import POSTERIOR
from fastem.models.missing import CODES, IncompleteMixture, IncompleteStats, in_shape
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams, MixtureStats, log_of, same_bits


@dataclass(frozen=True, eq=False)
class NoisyMixture(IncompleteMixture):
    """Mixture of normal components of what rows would be without the noise that they were measured with.

    `GaussianMixture.fit(X, noise_covariance=...)` turns to it.

    Parameters
    ----------
    family, n_components, start, weights_init, means_init, precisions_init, weight_concentration, weight_cost, n_threads
        Those of `Mixture`.

    References
    ----------
    Bovy, Hogg & Roweis (2011), Ann. Appl. Stat. 5, 1657-1677, equations 16 to 22.
    """

    full_noise: bool = False  # whether columns have noise in common

    def deconvolving(self) -> "NoisyMixture":
        """Itself."""
        return self

    def prepare(self, data: Data) -> "NoisyMixture":
        """Take the frame and the defaults of the prior from the data; check the start against them."""
        noise = data.noise
        assert noise is not None
        return Mixture.prepare(replace(self, full_noise=noise.shape[1] == noise.shape[2] > 1), data)

    @property
    def _independent(self) -> bool:
        """Whether sums are those of independent columns."""
        return self.family.has_independent_columns and not self.full_noise

    @same_bits
    def e_step(self, params: MixtureParams, block: Block) -> IncompleteStats:
        """One pass, by one sweep if all rows have the same noise."""
        if block.labels is not None:
            return self._e_step_by_label(params, block)
        noise = block.noise
        assert noise is not None
        if len(noise) == 1 and len(block.X) > 1:
            log_likelihood, sums = self._with_common_noise(params, block, noise[0])
        else:
            components = self._components(params, self.bound.rows)
            n_threads = use_threads(self.n_threads)
            sums, log_likelihood, n_lost = sums_of_noisy(
                block.X, block.weight, self.bound.rows, noise, components, SOFTMAX, n_threads
            )
            log_likelihood = -math.inf if n_lost else log_likelihood
        none = self._none(params)
        return IncompleteStats(block.total_weight, log_likelihood, none.sums, none.scatter, sums)

    def _components(self, params: MixtureParams, rows: np.ndarray) -> Components:
        """The components in a frame (2, D), as the kernels take them."""
        means, whiteners, covariances = self.family.in_frame(params.components, rows)
        nothing = np.empty((len(means), 0, 0))
        if self._independent:
            return Components(means, np.stack([whiteners, means], axis=1), nothing, nothing, log_of(params.weights))
        if covariances.ndim == 2:
            covariances = covariances[:, :, None] * np.eye(means.shape[1])
        return Components(
            means, np.zeros((len(means), 2, means.shape[1])), nothing, covariances, log_of(params.weights)
        )

    def _blurred(self, params: MixtureParams, noise: np.ndarray) -> tuple[Mixture, MixtureParams, np.ndarray]:
        """Mixture of the rows as they are, if all have one noise (D, D) or (1, D); and the covariances without it."""
        known = self._components(params, _identity(params.components.means.shape[1]))
        if self._independent:
            family, covariances, noise = Gaussian("diag"), 1.0 / known.whitener[:, 0] ** 2, noise[0]
        else:
            family, covariances = Gaussian("full"), known.covariance
            noise = noise if len(noise) == noise.shape[1] else np.diag(noise[0])
        blurred = covariances + noise
        roots = family.precisions_cholesky(blurred)
        model = Mixture(family, self.n_components, n_threads=self.n_threads, frame=self.frame)
        return (
            model,
            MixtureParams(params.weights, GaussianParams(params.components.means, blurred, roots)),
            covariances,
        )

    def _with_common_noise(self, params: MixtureParams, block: Block, noise: np.ndarray) -> tuple[float, np.ndarray]:
        """Log-likelihood and sums about the means: of v = mu + G (x - mu) the mean and covariance follow from x's."""
        model, blurred, covariances = self._blurred(params, noise)
        stats = model.e_step(blurred, block)
        counts, means, second = model._moments(stats, blurred)
        roots, scale, gaps = blurred.components.precisions_cholesky, self.bound.scale, means - params.components.means
        n_features = len(scale)
        if self._independent:
            gains = covariances * roots**2
            gaps = gains * gaps * scale
            squares = (gains**2 * second + (1.0 - gains) * covariances) * scale**2 + gaps**2
            parts = [np.ones_like(counts)[:, None], gaps, squares, np.ones_like(gaps)]
        else:
            gains = covariances @ (roots @ np.swapaxes(roots, 1, 2))
            gaps = (gains @ gaps[:, :, None])[:, :, 0] * scale
            spread = gains @ second @ np.swapaxes(gains, 1, 2) + covariances - gains @ covariances
            squares = spread * (scale[:, None] * scale) + gaps[:, :, None] * gaps[:, None, :]
            rows, columns = np.tril_indices(n_features)
            parts = [np.ones_like(counts)[:, None], gaps, squares[:, rows, columns]]
        return stats.log_likelihood, counts[:, None] * np.concatenate(parts, axis=1)

    def _none(self, params: MixtureParams) -> MixtureStats:
        """Statistics of no rows."""
        nothing = np.zeros((self.n_components, int(n_statistics(FULL, 1))))
        return MixtureStats(0.0, 0.0, nothing, np.zeros((0, 0)))

    # starts: rows as they are

    def _filled(self, data: Data) -> Data:
        return data

    def _moments_under(
        self, blocks: Callable[[], Iterable[Block]], theta: np.ndarray, feature_map: int, posterior: int
    ) -> Moments:
        return Mixture._moments_under(self, blocks, theta, feature_map, posterior)

    def _covariance(self, data: Data) -> np.ndarray:
        return Mixture._covariance(self, data)

    def _places(self, params: MixtureParams, block: Block) -> np.ndarray:
        return Mixture._places(self, params, block)

    # beyond fitting

    @same_bits
    def _score(self, params: MixtureParams, X: Any, wanted: int) -> np.ndarray:
        """What is wanted of each row of a block, whose noise it has."""
        block = copy.copy(X)
        noise, n_features = block.noise, block.X.shape[1]
        model = replace(self, full_noise=noise.shape[1] == n_features > 1)
        if len(noise) == 1 and len(block.X) > 1:
            blurred, params, _ = model._blurred(params, noise[0])
            return blurred._score(params, block.X, wanted)
        frame = _identity(n_features)
        components = model._components(params, frame)
        out = np.empty((len(block.X), self.n_components if wanted == POSTERIOR else 1))
        for_each_noisy_row(block.X, frame, noise, components, CODES[wanted], out, use_threads(self.n_threads))
        return in_shape(out, wanted)


def _identity(n_features: int) -> np.ndarray:
    """The frame (2, D) of rows as they are."""
    return np.stack([np.zeros(n_features), np.ones(n_features)])
