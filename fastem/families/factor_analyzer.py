"""The factor analyser: a normal whose columns depend on each other through a few factors only.

    x = mu + Lambda f + e,    f ~ N(0, I_q), e ~ N(0, Psi), Psi diagonal:    x ~ N(mu, Lambda Lambda' + Psi)

McLachlan & Peel (2000), Finite Mixture Models, chapter 8. With Psi = psi I it is probabilistic principal component
analysis, Tipping & Bishop (1999), Neural Computation 11, 443-482. No matrix (D, D) is ever made: see
`kernels/low_rank.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.data import Data, Summary, finite_array, is_integer, is_real
from fastem.families.family import GUARD_ROWS, Family, Frame, Layout
from fastem.families.matrices import apply
from fastem.kernels.features import DIAGONAL
from fastem.kernels.low_rank import LowRank, LowRankSums
from fastem.protocol import DegenerateError

_TINY = np.finfo(np.float64).tiny
_FAR = 100.0  # logarithms of variances, in the frame, that are no longer taken seriously
_SEED = 20_000  # of the directions that loadings start from where no rows tell better ones
_SHARE = 0.5  # of the variance that first loadings are given


class FactorParams(NamedTuple):
    """Parameters of K factor analysers, in the units of the data.

    Attributes
    ----------
    means : ndarray of shape (K, D)
    loadings : ndarray of shape (K, D, q)
    noise : ndarray of shape (K, D)
        Variances of the errors.
    """

    means: np.ndarray
    loadings: np.ndarray
    noise: np.ndarray


class FactorMoments(NamedTuple):
    """What rows expect of a factor analyser; S is their covariance about their own mean, B as in `low_rank.py`."""

    counts: np.ndarray  # (K,)
    gaps: np.ndarray  # (K, D) mean of the rows less the mean of the parameters
    variances: np.ndarray  # (K, D) diagonal of S
    cross: np.ndarray  # (K, D, q) S B'
    inner: np.ndarray  # (K, q, q) B S B'


class StartMoments(NamedTuple):
    """Moments under first responsibilities."""

    counts: np.ndarray  # (K,)
    means: np.ndarray  # (K, D)
    variances: np.ndarray  # (K, D)


@dataclass(frozen=True, eq=False)
class FactorAnalyzer(Family):
    """Factor analysers, or probabilistic principal component analysers.

    Parameters
    ----------
    n_factors : int, default=1
        Number q of factors, fewer than columns.
    noise : {'diag', 'spherical'}, default='diag'
        Whether the errors of the columns have variances of their own, or one for all.
    shared_noise : bool, default=False
        Whether these are the same in all components.
    noise_floor : float, default=1e-6
        Part of the variance of a column that the variance of its errors has at least. Without a floor the likelihood of
        a column that the factors explain wholly is unbounded (a Heywood case). With 'spherical' it is that of the mean
        variance.
    noise_prior : float, default=0.0
        Rows, of the variance that all rows have, that are added to those of each component where it estimates its
        errors' variances: an inverse-gamma prior.
    """

    n_factors: int = 1
    noise: str = "diag"
    shared_noise: bool = False
    noise_floor: float = 1e-6
    noise_prior: float = 0.0
    spread: Any = field(default=None, repr=False)  # (D,) variances of the columns, or their mean

    feature_map: ClassVar[Any] = DIAGONAL
    start_map: ClassVar[Any] = DIAGONAL
    spacing: ClassVar[float | None] = None  # `FactorAnalyzers` knows no other state

    def __post_init__(self):
        if not is_integer(self.n_factors, 1):
            raise ValueError(f"n_factors must be an integer of at least 1; got {self.n_factors!r}")
        if self.noise not in ("diag", "spherical"):
            raise ValueError(f"noise must be 'diag' or 'spherical'; got {self.noise!r}")
        if not (is_real(self.noise_floor, 0.0) and 0.0 < self.noise_floor < 1.0):
            raise ValueError(f"noise_floor must lie between 0 and 1; got {self.noise_floor!r}")
        if not is_real(self.noise_prior, 0.0):
            raise ValueError(
                f"noise_prior must be a finite number of rows that is not negative; got {self.noise_prior!r}"
            )

    def seeing(self, data: Data) -> "FactorAnalyzer":
        """Return the family with the variances of the columns, for the floor."""
        if self.n_factors >= data.n_features:
            raise ValueError(
                f"n_factors={self.n_factors} must be less than n_features={data.n_features}, the number of columns"
            )
        variance = data.summary.variance
        constant = np.flatnonzero(variance == 0)
        if len(constant) and self.noise == "diag":
            raise DegenerateError(f"column {int(constant[0])} of X is constant: its errors have no variance; drop it")
        if not variance.any():
            raise DegenerateError("every column of X is constant: there is no variance to be explained")
        return replace(self, spread=variance if self.noise == "diag" else np.full_like(variance, variance.mean()))

    def frame(self, summary: Summary, dtype: np.dtype) -> Frame:
        """Centre and scale; one scale for all columns if their errors have one variance."""
        deviation = np.sqrt(summary.variance)
        if self.noise == "spherical":
            deviation = np.full_like(deviation, deviation.max())
        return Frame.around(summary, deviation, dtype)

    # what a pass takes

    def root(self, params: FactorParams) -> np.ndarray:
        """L (K, q, q), lower triangular, of I + Lambda' Psi^-1 Lambda = L L'."""
        scaled = params.loadings / np.sqrt(params.noise)[:, :, None]
        return np.linalg.cholesky(np.eye(self.n_factors) + np.swapaxes(scaled, 1, 2) @ scaled)

    def projections(self, params: FactorParams) -> np.ndarray:
        """B (K, q, D), for rows in the units of the data."""
        return np.linalg.solve(self.root(params), np.swapaxes(params.loadings / params.noise[:, :, None], 1, 2))

    def peaks(self, params: FactorParams, log_weights: np.ndarray) -> np.ndarray:
        """Score (K,) of each component at its mean."""
        log_det = np.log(params.noise).sum(axis=1)
        log_det = log_det + 2.0 * np.log(np.diagonal(self.root(params), axis1=1, axis2=2)).sum(axis=1)
        return log_weights - 0.5 * (log_det + params.means.shape[1] * math.log(2 * math.pi))

    def states(self, params: FactorParams, log_weights: np.ndarray, frame: Frame) -> LowRank:
        """States of a pass in the frame."""
        means = (params.means - frame.center) * frame.scale
        precisions = 1.0 / (params.noise * frame.scale**2)
        return LowRank(means, precisions, self.projections(params) / frame.scale, self.peaks(params, log_weights))

    def found(self, sums: LowRankSums, frame: Frame) -> FactorMoments:
        """Moments, in the units of the data, from the sums of a pass."""
        counts, first, squares, cross, factors, inner = sums
        safe = np.maximum(counts, _TINY)
        gaps, y = first / safe[:, None], factors / safe[:, None]
        variances = np.maximum(squares / safe[:, None] - gaps**2, 0.0)
        cross = cross / safe[:, None, None] - gaps[:, :, None] * y[:, None, :]
        inner = inner / safe[:, None, None] - y[:, :, None] * y[:, None, :]
        scale = frame.scale
        return FactorMoments(counts, gaps / scale, variances / scale**2, cross / scale[:, None], inner)

    def exact(self, params: FactorParams, log_weights: np.ndarray, X: np.ndarray):
        """Not for the general pass: `models.factor_analyzers` computes densities."""
        raise NotImplementedError

    def log_densities(self, params: FactorParams, X: np.ndarray) -> np.ndarray:
        """Log-densities (N, K) of some rows, in NumPy."""
        peaks = self.peaks(params, np.zeros(len(params.means)))
        found = np.empty((len(X), len(peaks)))
        for k, projection in enumerate(self.projections(params)):
            z = X - params.means[k]
            y = z @ projection.T
            found[:, k] = peaks[k] - 0.5 * ((z**2 / params.noise[k]).sum(axis=1) - (y**2).sum(axis=1))
        return found

    def expected_factors(self, params: FactorParams, X: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Posterior means (N, q) of the factors of rows in the components of these labels (N,)."""
        found = np.empty((len(X), self.n_factors))
        for k, (root, projection) in enumerate(zip(self.root(params), self.projections(params), strict=True)):
            mine = labels == k
            found[mine] = np.linalg.solve(root.T, projection @ (X[mine] - params.means[k]).T).T
        return found

    # first moments

    def moments(self, sums: np.ndarray, scatter: np.ndarray, layout: Layout, frame: Frame) -> StartMoments:
        """Moments from the sums (K, 1 + 2 D) of first responsibilities."""
        n_features = frame.center.size
        counts, safe = sums[:, 0], np.maximum(sums[:, :1], _TINY)
        means = sums[:, 1 : 1 + n_features] / safe
        variances = np.maximum(sums[:, 1 + n_features :] / safe - means**2, 0.0)
        return StartMoments(counts, frame.center + means / frame.scale, variances / frame.scale**2)

    def maximize(self, moments: StartMoments, old: Any, granule: np.ndarray, fewest: float = 0.0) -> FactorParams:
        """Parameters of a start whose loadings are in no particular direction."""
        counts, means, variances = moments
        if (counts <= _TINY).any():
            raise DegenerateError(
                f"component {int(np.argmax(counts <= _TINY))} starts without any weight; use fewer components or "
                "another start"
            )
        rng = np.random.default_rng(_SEED)
        n_components, n_features = means.shape
        directions = rng.standard_normal((n_components, n_features, self.n_factors)) / math.sqrt(self.n_factors)
        return self.started(means, variances, directions * np.sqrt(_SHARE * variances)[:, :, None])

    def started(self, means: np.ndarray, variances: np.ndarray, loadings: np.ndarray) -> FactorParams:
        """Parameters of a start from variances (K, D) and loadings, the errors having what these leave."""
        left = np.maximum(variances - (loadings**2).sum(axis=2), (1.0 - _SHARE) * variances)
        shares = np.full(len(means), 1.0 / len(means))
        return FactorParams(means, loadings, self._shaped(shares, np.maximum(left, self._floor)))

    @property
    def _floor(self) -> np.ndarray:
        return self.noise_floor * self.spread

    # maximize

    def update(self, moments: FactorMoments, old: FactorParams) -> FactorParams:
        """Parameters after a step: means, then loadings and errors given these.

        With beta = M^-1 Lambda' Psi^-1 = L'^-1 B and Phi = I - beta Lambda + beta S beta', to S beta' Phi^-1 and the
        diagonal of S - Lambda beta S: a step of EM for the factors of rows whose components are known, with their
        weights. It raises the expected log-likelihood, though it does not maximise it (McLachlan & Peel 2000, section
        8.2).
        """
        counts = moments.counts
        empty = counts <= _TINY
        back = np.linalg.inv(self.root(old))
        beta = np.swapaxes(back, 1, 2) @ self.projections(old)
        cross, inner = moments.cross @ back, np.swapaxes(back, 1, 2) @ moments.inner @ back
        factors = np.eye(self.n_factors) - beta @ old.loadings + inner
        factors = np.where(empty[:, None, None], np.eye(self.n_factors), factors)
        loadings = np.swapaxes(np.linalg.solve(np.swapaxes(factors, 1, 2), np.swapaxes(cross, 1, 2)), 1, 2)
        left = np.maximum(moments.variances - (loadings * cross).sum(axis=2), 0.0)
        means = old.means + np.where(empty[:, None], 0.0, moments.gaps)
        loadings = np.where(empty[:, None, None], old.loadings, loadings)
        noise = self._shaped(counts, left)
        if not self.shared_noise and self.noise_prior == 0:
            noise = np.where(empty[:, None], old.noise, noise)
        return FactorParams(means, loadings, noise)

    def _shaped(self, counts: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Variances of the errors (K, D) in their structure, with prior and floor, from what is left of the rows'."""
        prior = self.noise_prior * self.spread
        rows = counts[:, None]
        if self.noise == "spherical":
            left = np.broadcast_to(left.mean(axis=1, keepdims=True), left.shape)
        if self.shared_noise:
            total = (rows * left).sum(axis=0) + prior
            return np.broadcast_to(
                np.maximum(total / (counts.sum() + self.noise_prior), self._floor), left.shape
            ).copy()
        return np.maximum((rows * left + prior) / np.maximum(rows + self.noise_prior, _TINY), self._floor)

    # prior

    def guarded(self, mean: np.ndarray, covariance: Callable[[], np.ndarray], unit: float) -> "FactorAnalyzer":
        """Return the family, unless it has a prior, under one worth a hundredth of a row, which weighs `unit`."""
        return self if self.noise_prior > 0 else replace(self, noise_prior=GUARD_ROWS * unit)

    def log_prior(self, params: FactorParams) -> float:
        """Log-density of the prior of the errors' variances, up to a constant."""
        if self.noise_prior == 0:
            return 0.0
        noise = params.noise[:1] if self.shared_noise else params.noise
        return -0.5 * self.noise_prior * float((np.log(noise) + self.spread / noise).sum())

    # parameters

    def n_columns(self, params: FactorParams) -> int:
        """Number of columns of the rows that the parameters are for."""
        return params.means.shape[1]

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters: loadings count without the rotations that change nothing."""
        loadings = n_features * self.n_factors - self.n_factors * (self.n_factors - 1) // 2
        noise = n_features if self.noise == "diag" else 1
        return n_components * (n_features + loadings) + noise * (1 if self.shared_noise else n_components)

    def fewest_rows(self, n_features: int) -> int:
        """Rows of a component that its factors can be estimated from."""
        return self.n_factors + 2

    def keep(self, params: FactorParams, kept: np.ndarray) -> FactorParams:
        """Parameters of some of the components (k,) int."""
        return FactorParams(*(part[kept] for part in params))

    def estimands(self, params: FactorParams) -> dict[str, np.ndarray]:
        """Return what standard errors are given for: what rotations of the factors leave as it is."""
        return {"means": params.means, "noise": params.noise, "communalities": (params.loadings**2).sum(axis=2)}

    def check_params(self, params: Any, n_components: int, frame: Frame) -> FactorParams:
        """Return parameters that a user gave, after checking shapes, finiteness and sign."""
        if not isinstance(params, FactorParams):
            raise TypeError(f"start.components must be FactorParams; got {type(params).__name__}")
        shape = n_components, frame.center.size
        wanted = {"means": shape, "loadings": (*shape, self.n_factors), "noise": shape}
        checked = []
        for (name, size), part in zip(wanted.items(), params, strict=True):
            part = finite_array(f"start.components.{name}", part, len(size))
            if part.shape != size:
                raise ValueError(f"start.components.{name} has shape {part.shape}; {size} is needed")
            checked.append(part)
        noise = checked[2]
        if (noise < self._floor * (1.0 - 1e-9)).any():
            raise ValueError(f"start.components.noise must be at least noise_floor={self.noise_floor} of the variances")
        shared = self.shared_noise and (noise != noise[0]).any()
        if shared or (self.noise == "spherical" and (noise != noise[:, :1]).any()):
            raise ValueError(
                f"start.components.noise does not have the structure noise={self.noise!r}, shared={self.shared_noise}"
            )
        return FactorParams(*checked)

    def sample(self, params: FactorParams, component: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (n_samples, D) from one component."""
        factors = rng.standard_normal((n_samples, self.n_factors))
        errors = rng.standard_normal((n_samples, params.means.shape[1])) * np.sqrt(params.noise[component])
        return params.means[component] + factors @ params.loadings[component].T + errors

    # coordinates: means and loadings in the frame, logarithms of the errors' deviations

    def _free(self, noise: np.ndarray) -> np.ndarray:
        noise = noise[:1] if self.shared_noise else noise
        return noise[:, :1] if self.noise == "spherical" else noise

    def pack(self, params: FactorParams, frame: Frame) -> np.ndarray:
        """Coordinates in the frame."""
        means = (params.means - frame.center) * frame.scale
        loadings = params.loadings * frame.scale[:, None]
        logs = 0.5 * np.log(self._free(params.noise * frame.scale**2))
        return np.concatenate([means.ravel(), loadings.ravel(), logs.ravel()])

    def unpack(self, vector: np.ndarray, n_components: int, frame: Frame) -> FactorParams:
        """Parameters at the coordinates of `pack`; what lies below the floor is lifted to it."""
        n_features = frame.center.size
        size = n_components * n_features
        means = frame.center + vector[:size].reshape(n_components, n_features) / frame.scale
        rest = vector[size:]
        loadings = rest[: size * self.n_factors].reshape(n_components, n_features, self.n_factors)
        logs = rest[size * self.n_factors :].reshape(1 if self.shared_noise else n_components, -1)
        if not (np.abs(logs) < _FAR).all():
            raise DegenerateError("the coordinates overflow")
        noise = np.broadcast_to(np.exp(2.0 * logs), (n_components, n_features)) / frame.scale**2
        return FactorParams(means, loadings / frame.scale[:, None], np.maximum(noise, self._floor))

    def score(self, params: FactorParams, moments: FactorMoments, frame: Frame) -> np.ndarray:
        """Gradient of the expected log-likelihood in the coordinates of `pack`, at the parameters of the moments.

        With G = Sigma^-1 (S + g g') Sigma^-1 - Sigma^-1, g the gaps: n Sigma^-1 g for the means, n G Lambda for the
        loadings, n diag(G) Psi for the logarithms, by Sigma^-1 = Psi^-1 (I - Lambda beta) and Lambda' Sigma^-1 = beta.
        """
        counts, gaps, variances, cross, inner = moments
        projections, loadings, noise = self.projections(params), params.loadings, params.noise
        back = np.linalg.inv(self.root(params))
        beta = np.swapaxes(back, 1, 2) @ projections
        y = apply(projections, gaps)
        cross = (cross + gaps[:, :, None] * y[:, None, :]) @ back  # (S + g g') beta'
        inner = np.swapaxes(back, 1, 2) @ (inner + y[:, :, None] * y[:, None, :]) @ back
        rows = counts[:, None]
        means = (gaps - apply(loadings, apply(beta, gaps))) / noise * rows / frame.scale
        slopes = (cross - loadings @ inner) / noise[:, :, None] - np.swapaxes(beta, 1, 2)
        squares = (
            variances + gaps**2 - 2.0 * (loadings * cross).sum(axis=2) + ((loadings @ inner) * loadings).sum(axis=2)
        )
        own = (1.0 - (loadings * np.swapaxes(beta, 1, 2)).sum(axis=2)) / noise  # diagonal of Sigma^-1
        logs = rows * noise * (squares / noise**2 - own)
        if self.noise == "spherical":
            logs = logs.sum(axis=1, keepdims=True)
        if self.shared_noise:
            logs = logs.sum(axis=0, keepdims=True)
        free = self._free(noise)
        on_floor = free <= self._free(np.broadcast_to(self._floor, noise.shape)) * (1.0 + 1e-12)
        logs = np.where(on_floor, 0.0, logs)
        return np.concatenate([means.ravel(), (slopes * rows[:, :, None] / frame.scale[:, None]).ravel(), logs.ravel()])
