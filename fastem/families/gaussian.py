"""The multivariate normal, with the covariance structures of scikit-learn and mclust for K components.

    log N(x; mu, Sigma) = -D/2 log(2 pi) + log|W| - |W (x - mu)|^2 / 2,    Sigma = L L', W = L^-1

full: one covariance each; tied: one for all; diag: variances each; spherical: one variance each. These four are the
forms in which covariances and moments are kept; the others are constraints of `covariance_structures.py` on a form.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike
from scipy.linalg.lapack import dtrtri

from fastem.data import SMALLEST, Data, Summary, as_numbers, finite_array, is_real
from fastem.families.covariance_structures import FORMS, MODELS, UNIVARIATE, constrained, has_structure
from fastem.families.family import GUARD_ROWS, Family, Frame, Layout, are_arrays
from fastem.families.gaussian_coordinates import Coordinates
from fastem.families.gaussian_held import HeldGaussians
from fastem.families.gaussian_moments import MomentAlgebra
from fastem.families.gaussian_records import GaussianParams, Moments
from fastem.families.held import Held
from fastem.families.matrices import apply, double_double_whiteners, first_singular, is_positive_definite
from fastem.families.normal_inverse_wishart import NO_PRIOR, NormalInverseWishart, ResolvedPrior
from fastem.kernels.components import cancellation, kernels_of, log_prior_full, mode_full, moments_full
from fastem.kernels.features import DIAGONAL, FULL, LINEAR, SPHERICAL, n_statistics
from fastem.kernels.steps import Rules
from fastem.kernels.sweep import States
from fastem.protocol import DegenerateError

COVARIANCE_TYPES = (*FORMS, *MODELS, *UNIVARIATE)

# Quadratic features of a component lose eps * (reach / sigma)^2 of their accuracy at the outermost row. Beyond the
# first limit a component is whitened. float32 rows are taken in float64 beyond the second, or where a typical row, with
# the deviation for the reach, loses more than the third: the log-likelihood per row is off by a fifth of that.
_THIN = 1e-9
_SINGLE_OUTERMOST = 1e-3
_SINGLE_TYPICAL = 8e-6
# Values that differ at all differ by a unit of rounding; a standard deviation (given the other columns) below half of
# one is a component on a single point, or rounding noise of dependent columns (at most 0.29).
_GRANULES = 0.5
# A column whose variance inflation factor, times D, is beyond this is a combination of others and rounding noise.
_DEPENDENT = 1 / (16 * float(np.finfo(np.float64).eps))
# Densities lose eps * inflation to the Cholesky factor; beyond this they are computed in double-double (12 times
# slower), so that they keep 12 digits.
_INFLATED = 1e3
_TINY = np.finfo(np.float64).tiny
_LEAST = 1e-9  # rows, with those that a prior counts for, of a covariance that it tells
_EXACT = np.dtype(np.float64)
_LOOSE = 8.0  # a frame's reach over that of the rows, at most
_EPS = {np.dtype(dtype): float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64)}
# Full covariances of at most so many columns are encoded and decoded by kernels. NumPy's calls take longer than the
# work of few columns (150 rows, 4 columns: 5 times as long), and LAPACK than kernels that take eight components at a
# time: 9 times as long for 32 components of 32 columns, 8 times for 16 of 64, but half as long for one of 100. One or
# two components, by themselves, take a kernel half as long as LAPACK.
_FEW_COLUMNS = 64
_MANY_ROWS = 100


@dataclass(frozen=True, eq=False)
class Gaussian(MomentAlgebra, Coordinates, HeldGaussians, Family):
    """Normal components.

    Parameters
    ----------
    covariance_type : str, default='full'
        'full', 'tied', 'diag' or 'spherical', or a name of mclust's: 'EII', 'VII', 'EEI', 'VEI', 'EVI', 'VVI', 'EEE',
        'VEE', 'EVE', 'VVE', 'EEV', 'VEV', 'EVV' or 'VVV', or for one column 'E' or 'V'. See `GaussianMixture`.
    reg_covar : float, default=0.0
        Added to the variances after each M-step, as in scikit-learn. It is the M-step of no objective: with it the
        log-likelihood can fall by about as much. The sound cure for degenerate components is `prior`.
    prior : NormalInverseWishart, default=None
        None: maximum likelihood.
    """

    covariance_type: str = "full"
    reg_covar: float = 0.0
    prior: NormalInverseWishart | None = None
    resolved: ResolvedPrior = field(default=NO_PRIOR, repr=False)
    held: Held | None = field(default=None, repr=False)
    has_moving_frame: ClassVar[bool] = True
    completes: ClassVar[bool] = True
    Params: ClassVar[Any] = GaussianParams

    def __post_init__(self):
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(f"covariance_type must be one of {list(COVARIANCE_TYPES)}; got {self.covariance_type!r}")
        if not is_real(self.reg_covar, 0.0):
            raise ValueError(f"reg_covar must be a finite number that is not negative; got {self.reg_covar!r}")
        if self.prior is not None and not isinstance(self.prior, NormalInverseWishart):
            raise TypeError(f"prior must be a fastem.NormalInverseWishart or None; got {self.prior!r}")

    def seeing(self, data: Data) -> "Gaussian":
        """Return the family; refuses a number of columns that the structure is not for."""
        self.check_columns(data.n_features)
        return self

    # features

    @property
    def feature_map(self) -> int:
        """Feature map of components that are not thin."""
        return {"full": FULL, "tied": LINEAR, "diag": DIAGONAL, "spherical": SPHERICAL}[self.form]

    def _in_kernels(self, n_features: int) -> bool:
        """Whether encoding and decoding are kernels."""
        return self.form == "full" and n_features <= _FEW_COLUMNS

    def _steps_in_kernels(self, n_features: int) -> bool:
        """Whether M-steps are kernels too."""
        return type(self) is Gaussian and self._in_kernels(n_features) and not self.is_constrained and self.held is None

    def _prior_in_kernels(self, n_components: int, n_features: int) -> tuple[np.ndarray, float, float, np.ndarray]:
        """The prior as kernels take it: its mean, rows of a mean and of a covariance, and its scatter."""
        if self.prior is None:
            return np.zeros(n_features), 0.0, 0.0, np.zeros((n_features, n_features))
        prior = self.resolved
        rows, share = prior.strength(self.letters, self.form, n_components, n_features)
        mean, scatter = np.zeros(n_features), np.zeros((n_features, n_features))  # what is not resolved is one number
        return mean + prior.mean, float(prior.mean_precision), float(rows), scatter + share * prior.scale

    def rules(self, n_components: int, frame: Frame, extra_rows: float) -> Rules | None:
        """What several steps of EM in one kernel keep to; None where there is no such kernel."""
        n_features = frame.center.size
        if not self._steps_in_kernels(n_features):
            return None
        prior = self._prior_in_kernels(n_components, n_features)
        outermost, typical = _largest_squares(frame.dtype)
        return Rules(
            min(outermost, _THIN / _EPS[_EXACT]),
            typical,
            _least_deviations(frame.granule),
            _DEPENDENT / n_features,
            float(_TINY),
            prior,
            float(self.reg_covar),
            float(extra_rows),
        )

    def frame(self, summary: Summary, dtype: np.dtype) -> Frame:
        """Centre and scale that suit the data; one scale for all columns if the structure is spherical."""
        deviation = np.sqrt(summary.variance)
        if self.form == "spherical":
            deviation = np.full_like(deviation, deviation.max())
        return Frame.around(summary, deviation, dtype)

    def fits(self, frame: Frame, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether a frame suits rows between the extremes (D,): they do not lie beyond its reach, or far within."""
        if frame.dtype != _EXACT:  # what float32 can bear is a matter of the deviations too
            return False
        places = np.maximum(high - frame.center, frame.center - low) * frame.scale
        return bool((places <= frame.reach).all() and (places * _LOOSE >= frame.reach).all())

    # natural

    def layout(self, params: GaussianParams, frame: Frame) -> Layout:
        """Choose the path of each component in the frame, and the precision of the products."""
        n_components, n_features = params.means.shape
        worst = np.empty(n_components)
        if self._in_kernels(n_features):
            roots = params.precisions_cholesky
            extremes = np.empty(2)
            cancellation(roots, frame.scale, frame.reach, frame.deviation, worst, extremes)
            largest, typical = extremes
        else:
            whiteners = self._whiteners(params.precisions_cholesky, n_components, frame.scale)
            squares = (whiteners**2).sum(axis=1) if self._is_matrix else whiteners**2
            worst[:] = (squares * frame.reach**2).max(axis=1)
            largest, typical = worst.max(), (squares * frame.deviation**2).max()
        bearable = _largest_squares(frame.dtype)
        dtype = _EXACT if largest > bearable[0] or typical > bearable[1] else frame.dtype
        if _EPS[_EXACT] * largest <= _THIN:
            form = n_features + 1 if self._is_matrix else 2, n_features
            return Layout(self.feature_map, np.arange(n_components), np.empty((0, *form), dtype))
        thin = _EPS[_EXACT] * worst > _THIN
        n_thin = np.count_nonzero(thin)
        feature_map = self.feature_map
        if self.form == "tied":
            feature_map, n_thin = FULL, n_components
            thin[:] = True
        order = np.argsort(thin, kind="stable")
        last = order[n_components - n_thin :]
        means = (params.means[last] - frame.center) * frame.scale
        whiteners = self._whiteners(params.precisions_cholesky, n_components, frame.scale)
        return Layout(feature_map, order, _pack_whiteners(whiteners[last], means, dtype))

    def natural(self, params: GaussianParams, log_weights: np.ndarray, layout: Layout, frame: Frame) -> States:
        """Natural parameters and whiteners in the frame, in the order of the layout."""
        n_components, n_features = params.means.shape
        order, n_thin, dtype = layout.order, len(layout.whitener), layout.whitener.dtype
        n_fast = n_components - n_thin
        if n_thin == 0 and self._in_kernels(n_features):
            theta = np.empty((n_components, n_statistics(FULL, n_features)), dtype)
            whitener, peaks = np.empty((n_components, n_features + 1, n_features), dtype), np.empty(n_components)
            natural_of, _ = kernels_of(*params.means.shape)
            means, roots = (np.ascontiguousarray(part) for part in params[::2])
            natural_of(means, roots, log_weights, frame.center, frame.scale, theta, whitener, peaks)
            return States(FULL, theta, 0, whitener, peaks)
        peaks = self.peaks(params, log_weights)[order]
        theta = np.zeros((n_components, n_statistics(layout.feature_map, n_features)), dtype)
        if n_fast == 0:
            return States(layout.feature_map, theta, n_thin, layout.whitener, peaks)
        whiteners = self._whiteners(params.precisions_cholesky, n_components, frame.scale)[order[:n_fast]]
        means = (params.means[order[:n_fast]] - frame.center) * frame.scale
        y = apply(whiteners, means) if self._is_matrix else whiteners * means
        theta[:n_fast, 0] = peaks[:n_fast] - 0.5 * (y**2).sum(axis=1)
        theta[:n_fast, 1 : 1 + n_features] = (
            apply(np.swapaxes(whiteners, 1, 2), y) if self._is_matrix else whiteners * y
        )
        theta[:n_fast, 1 + n_features :] = self._quadratic(whiteners, layout.feature_map)
        if layout.feature_map != FULL:  # features of the others are so cheap that there is one path
            return States(layout.feature_map, theta, n_thin, layout.whitener, peaks[n_fast:])
        whitener = np.concatenate([_pack_whiteners(whiteners, means, dtype), layout.whitener])
        return States(layout.feature_map, theta, n_thin, whitener, peaks)

    @property
    def has_distances(self) -> bool:
        """Whether scores are a constant less half a squared distance; tied ones leave out what is common."""
        return self.form != "tied"

    def needs_scatter(self, layout: Layout) -> bool:
        """Whether the second moment of all rows is to be added: linear features lack it."""
        return layout.feature_map == LINEAR

    @property
    def start_map(self) -> int:
        """Feature map of the first moments."""
        return FULL if self.form == "tied" else self.feature_map

    def peaks(self, params: GaussianParams, log_weights: np.ndarray) -> np.ndarray:
        """Score of each component at its mean, (K,)."""
        return self._log_constants(params) + log_weights

    def motion(self, old: GaussianParams, new: GaussianParams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shrink <= 1 <= stretch and shift (K,): of any row, shrink d - shift <= d_new <= stretch d + shift.

        W' (x - m') = W' W^-1 W (x - m) - W' (m' - m): singular values of the first, length of the second.
        """
        gap = new.means - old.means
        roots = new.precisions_cholesky
        if self._is_matrix:
            turned = np.swapaxes(roots, 1, 2)
            excess = turned @ old.covariances @ roots - np.eye(gap.shape[1])
            radius = np.sqrt((excess**2).sum(axis=(1, 2)))
            low, high = 1.0 - radius, 1.0 + radius
            shift = apply(turned, gap)
        else:
            roots, variances = np.atleast_2d(roots.T).T, np.atleast_2d(old.covariances.T).T
            squares = roots**2 * variances
            low, high = squares.min(axis=1), squares.max(axis=1)
            shift = roots * gap
        low, high = np.clip(low, 0.0, 1.0), np.maximum(high, 1.0)
        return np.sqrt(low), np.sqrt(high), np.sqrt((shift**2).sum(axis=1))

    def log_densities(self, params: GaussianParams, X: np.ndarray) -> np.ndarray:
        """Log-densities (N, K) of some rows, in NumPy.

        Of 100 rows and more in one product for all components, which takes half the time of one for each, and loses as
        many digits as means lie widths apart.
        """
        means, roots = params.means, params.precisions_cholesky
        if roots.ndim == 3 and len(X) >= _MANY_ROWS:
            center = means.mean(axis=0)
            y = (X - center) @ np.swapaxes(roots, 0, 1).reshape(len(center), -1)
            y = y.reshape(len(X), *means.shape) - ((means - center)[:, None] @ roots)[:, 0]
        else:
            gaps = X - means[:, None]
            y = gaps @ roots if self._is_matrix else gaps * np.atleast_2d(roots.T).T[:, None]
            y = np.swapaxes(y, 0, 1)
        return self._log_constants(params) - 0.5 * np.einsum("nkd,nkd->nk", y, y)  # a third of the time of y**2, summed

    def expected_gaps(self, params: GaussianParams, log_weights: np.ndarray) -> np.ndarray:
        """Expected score in component k less that in j, for rows of component k; (K, K), from k to j."""
        peaks = self.peaks(params, log_weights)
        n_components, n_features = params.means.shape
        roots, covariances = params.precisions_cholesky, params.covariances
        if self._is_matrix:
            precisions = (roots @ np.swapaxes(roots, -1, -2)).reshape(n_components, -1)
            traces = covariances.reshape(n_components, -1) @ precisions.T
        else:
            roots = np.broadcast_to(np.atleast_2d(roots.T).T, params.means.shape)
            covariances = np.broadcast_to(np.atleast_2d(covariances.T).T, params.means.shape)
            traces = covariances @ (roots**2).T
        distances = -2.0 * (self.log_densities(params, params.means) - self._log_constants(params))
        with np.errstate(invalid="ignore"):  # between components of weight 0
            return peaks[:, None] - peaks + 0.5 * (distances + traces - n_features)

    def exact(
        self, params: GaussianParams, log_weights: np.ndarray, X: np.ndarray
    ) -> tuple[np.ndarray, States, np.ndarray]:
        """Frame (2, D), states and coded rows for densities: all whitened, in float64 and the data's units.

        Where rows of the whiteners cancel, these are recomputed from the covariances in double-double.
        """
        n_components, n_features = params.means.shape
        unit = np.ones(n_features)
        whiteners = self._whiteners(params.precisions_cholesky, n_components, unit)
        constants = self._log_constants(params)
        if self._is_matrix and self._inflation(whiteners, params.covariances) > _INFLATED:
            doubled = double_double_whiteners(params.covariances)
            if doubled is not None:
                diagonal = np.diagonal(doubled[:, :n_features], axis1=1, axis2=2)
                constants = np.log(diagonal).sum(axis=1) - 0.5 * n_features * math.log(2 * math.pi)
                whiteners = np.broadcast_to(doubled, (n_components, 2 * n_features, n_features))
        whitener = _pack_whiteners(whiteners, params.means)
        states = States(LINEAR, np.empty((0, 1 + n_features)), n_components, whitener, constants + log_weights)
        return np.stack([0 * unit, unit]), states, X

    def _inflation(self, whiteners: np.ndarray, covariances: np.ndarray) -> float:
        """Largest variance inflation factor, precision_ii covariance_ii; 1 for uncorrelated columns."""
        precision_diagonal = (whiteners**2).sum(axis=1)
        return float((precision_diagonal * np.diagonal(covariances, axis1=-2, axis2=-1)).max())

    def _log_constants(self, params: GaussianParams) -> np.ndarray:
        """log|W| - D/2 log(2 pi) of each component."""
        n_components, n_features = params.means.shape
        roots = params.precisions_cholesky
        if self._is_matrix:
            roots = np.diagonal(roots, axis1=-2, axis2=-1)
        log_det = np.log(roots).sum(axis=-1) if roots.ndim > 1 or self._is_matrix else n_features * np.log(roots)
        return np.broadcast_to(log_det - 0.5 * n_features * math.log(2 * math.pi), (n_components,))

    def _whiteners(self, roots: np.ndarray, n_components: int, scale: np.ndarray) -> np.ndarray:
        """W of each component for data times scale: (K, D, D) lower triangular, or (K, D)."""
        if self._is_matrix:
            return np.broadcast_to(np.swapaxes(roots, -1, -2) / scale, (n_components, scale.size, scale.size))
        return (roots if roots.ndim == 2 else roots[:, None]) / scale

    def _quadratic(self, whiteners: np.ndarray, feature_map: int) -> np.ndarray:
        """Quadratic part of Theta, (K, P - 1 - D)."""
        if feature_map == FULL:
            _, rows, columns = _vech_index(whiteners.shape[1])
            precisions = np.swapaxes(whiteners, 1, 2) @ whiteners
            return np.where(rows == columns, -0.5, -1.0) * precisions[:, rows, columns]
        if feature_map == LINEAR:
            return np.empty((len(whiteners), 0))
        squares = -0.5 * whiteners**2
        return squares if feature_map == DIAGONAL else squares[:, :1]

    # maximize

    def moments(self, sums: np.ndarray, scatter: np.ndarray, layout: Layout, frame: Frame) -> Moments:
        """Moments of the components from the sums (K, P) of a sweep with this layout.

        `scatter` (D, D) is the second moment of all rows in the frame, used where the features are only linear.
        """
        n_components, n_features = len(sums), frame.center.size
        if len(layout.whitener) == 0 and self._in_kernels(n_features):
            counts, means = np.empty(n_components), np.empty((n_components, n_features))
            covariances = np.empty((n_components, n_features, n_features))
            moments_full(sums, frame.center, frame.scale, _TINY, counts, means, covariances)
            return Moments(counts, means, covariances)
        counts, first, second = sums[:, 0], sums[:, 1 : 1 + n_features], sums[:, 1 + n_features :]
        n_thin = len(layout.whitener)
        safe = np.maximum(counts, _TINY)
        means = first / safe[:, None]
        if layout.feature_map == FULL:
            second = unpack_second(second / safe[:, None], n_features) - means[:, :, None] * means[:, None, :]
        elif layout.feature_map == DIAGONAL:
            second = second / safe[:, None] - means**2
        elif layout.feature_map == SPHERICAL:
            second = second[:, 0] / safe - (means**2).sum(axis=1)
        else:
            second = (scatter - (means * counts[:, None]).T @ means) / counts.sum()
        if n_thin:
            thin = slice(n_components - n_thin, None)
            means = means.copy()
            means[thin], second[thin] = _unwhiten(layout.whitener, means[thin], second[thin])
        if self.form == "tied" and second.ndim == 3:
            second = np.einsum("k,kij->ij", counts / counts.sum(), second)
        back = np.empty_like(layout.order)
        back[layout.order] = np.arange(n_components)
        unit = 1.0 / frame.scale
        if self._is_matrix:
            second = second * (unit[:, None] * unit)
        else:
            second = second * (unit**2 if second.ndim == 2 else unit[0] ** 2 / n_features)
        if self.form != "tied":
            second = second[back]
        return Moments(counts[back], frame.center + means[back] * unit, second)

    def about_means(self, moments: Moments, frame: Frame, feature_map: int) -> Layout | None:
        """Layout that takes every sum about the means of `moments`, or None if sums about the frame are as good."""
        n_components, n_features = moments.means.shape
        variances = self._variances(moments) * frame.scale**2
        limit = np.finfo(np.float64).eps / _THIN * frame.reach**2
        if (variances >= limit).all():
            return None
        unit = np.eye(n_features) if self._is_matrix else np.ones(n_features)
        whiteners = np.broadcast_to(unit, (n_components, *unit.shape))
        means = (moments.means - frame.center) * frame.scale
        return Layout(feature_map, np.arange(n_components), _pack_whiteners(whiteners, means))

    def maximize(
        self, moments: Moments, old: GaussianParams | None, granule: np.ndarray, fewest: float = 0.0
    ) -> GaussianParams:
        """Posterior mode (maximum likelihood without a prior) of means and covariances given the moments.

        Components that count fewer rows than `fewest` keep their old covariance, unless a prior or other components
        tell it. What is held stays.
        """
        counts, means, covariances = moments
        masses, empty = counts, counts <= _TINY
        if self.held is not None:
            means, covariances = self._about_held_means(counts, means, covariances)
        if old is None:
            lost = empty & ~self.told(len(counts))
            if lost.any():
                raise DegenerateError(
                    f"component {int(np.flatnonzero(lost)[0])} starts without any weight; use fewer components "
                    "or another start"
                )
        elif empty.any():
            means = np.where(empty[:, None], old.means, means)
        few = counts < fewest if fewest > 0 else empty
        in_kernels = self._steps_in_kernels(means.shape[1])
        if in_kernels:
            means, covariances = means.copy(), covariances.copy()
            prior = self._prior_in_kernels(*means.shape)
            mode_full(counts, prior, float(self.reg_covar), _TINY, means, covariances)
            masses = counts + prior[2]
        elif self.prior is not None:
            with np.errstate(over="ignore"):  # VEV has its scale alone over hardly any rows, which is refused below
                means, covariances, masses = self._with_prior(counts, means, covariances)
        if self.prior is not None and self.resolved.has_scale:  # which tells what rows do not
            few = masses < _LEAST
        if not in_kernels:
            if self._is_matrix:  # symmetric to the last bit
                covariances = 0.5 * covariances + 0.5 * np.swapaxes(covariances, -1, -2)
            covariances = self._regularized(covariances)
        if old is not None and few.any() and not self.is_common:
            covariances = covariances.copy()
            covariances[few] = old.covariances[few]
        if self.held is not None:  # before a singular one, in whose place it is, is refused
            covariances = self._with_held(means, covariances)
        if self.is_constrained and not self._holds_covariances:
            covariances = self._constrained(masses, covariances, old, granule)
        found = GaussianParams(means, covariances, self.precisions_cholesky(covariances, granule))
        return found if self.held is None else self.put(found)

    def _constrained(self, masses, covariances, old: GaussianParams | None, granule: np.ndarray) -> np.ndarray:
        """Covariances of the structure."""
        if self.letters in ("EVI", "EVV"):  # scaled to one volume, they would not tell what is lost in rounding
            self.precisions_cholesky(covariances, granule)
        try:
            return constrained(self.letters, masses, covariances, None if old is None else old.covariances)
        except np.linalg.LinAlgError:
            raise self._collapse(f"the common covariance of {self.letters}", "no variance in some direction") from None

    def _with_prior(self, counts, means, covariances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Posterior modes of means and covariances, and their weights (Fraley & Raftery 2007, table 2, section 3)."""
        mass, total, scatter = self._prior_terms(counts, means)
        covariances = covariances * (mass / total) + scatter / total
        return means - self._pull(counts)[:, None] * (means - self.resolved.mean), covariances, total.ravel()

    def _pull(self, counts: np.ndarray) -> np.ndarray:
        """Part (K,) of the way to the prior's mean that means are drawn; those that are held stay."""
        pull = self.resolved.mean_precision / np.maximum(counts + self.resolved.mean_precision, _TINY)
        return pull if self.held is None else np.where(self._held_means(len(counts)), 0.0, pull)

    def _prior_terms(self, counts: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weight of the rows in a covariance, this with the prior's, and what the prior adds to the scatter."""
        prior = self.resolved
        n_components, n_features = means.shape
        rows, share = prior.strength(self.letters, self.form, n_components, n_features)
        gaps, pull = means - prior.mean, counts * self._pull(counts)
        if self.held is not None:  # a mean that does not give way has the whole density of the prior
            pull = np.where(self._held_means(n_components), prior.mean_precision, pull)
        if self.form == "full":
            mass = counts[:, None, None]
            total = mass + rows
            scatter = pull[:, None, None] * gaps[:, :, None] * gaps[:, None, :] + share * prior.scale
        elif self.form == "tied":
            mass = counts.sum()
            total = mass + n_components * rows
            scatter = (gaps * pull[:, None]).T @ gaps + prior.scale
        elif self.form == "diag":
            mass = counts[:, None]
            total = mass + rows
            scatter = pull[:, None] * gaps**2 + share * prior.scale
        else:
            mass = n_features * counts
            total = mass + n_features * rows
            scatter = pull * (gaps**2).sum(axis=1) + share * prior.scale
        return mass, np.maximum(total, _TINY), scatter

    def _regularized(self, covariances: np.ndarray, sign: float = 1.0) -> np.ndarray:
        """Covariances with reg_covar added, or, with sign -1, taken away again."""
        if self.reg_covar == 0:
            return covariances
        if not self._is_matrix:
            return covariances + sign * self.reg_covar
        covariances = covariances.copy()
        n_features = covariances.shape[-1]
        covariances.reshape(-1, n_features**2)[:, :: n_features + 1] += sign * self.reg_covar
        return covariances

    def precisions_cholesky(self, covariances: np.ndarray, granule: np.ndarray | None = None) -> np.ndarray:
        """Upper triangular roots of the precisions, or reciprocal standard deviations.

        Raises
        ------
        DegenerateError
            If a covariance is not positive definite. With `granule` (D,), the rounding of the data, also if a standard
            deviation, given the other columns, is lost in it or in the rounding of the covariance.
        """
        smallest = np.full(1, SMALLEST) if granule is None else _least_deviations(granule)
        if not self._is_matrix:
            if self.form == "spherical":
                smallest = smallest.max()
            with np.errstate(invalid="ignore"):
                deviations = np.sqrt(covariances)
            good = (deviations > smallest) & (covariances >= _TINY)
            if not good.all():
                raise self._collapsed(np.argwhere(~good)[0], "a variance that is lost in the rounding of the data")
            return 1.0 / deviations
        stack = covariances if covariances.ndim == 3 else covariances[None]
        if granule is not None and self._in_kernels(stack.shape[1]):
            roots, good = np.empty(stack.shape), np.empty(1, np.int64)
            _, invert = kernels_of(*stack.shape[:2])
            invert(np.ascontiguousarray(stack), smallest, _DEPENDENT / stack.shape[1], roots, good)
            if good[0] == len(stack):
                return roots  # else, what is bad is found below
        try:
            lower = np.linalg.cholesky(stack)
        except np.linalg.LinAlgError:
            lower = np.full_like(stack, np.nan)
        diagonal = np.diagonal(lower, axis1=1, axis2=2)
        if not (diagonal > smallest).all():
            raise self._collapsed(first_singular(stack, smallest), "a singular covariance")
        roots = np.empty_like(lower)
        for k, factor in enumerate(lower):
            roots[k] = dtrtri(factor, lower=1)[0].T
        if granule is not None:
            deviations = np.sqrt(np.diagonal(stack, axis1=1, axis2=2))
            inflation = ((roots * deviations[:, :, None]) ** 2).sum(axis=2)
            dependent = np.argwhere(inflation > _DEPENDENT / stack.shape[1])
            if len(dependent):
                raise self._collapsed(dependent[-1], "a singular covariance")
        return roots if covariances.ndim == 3 else roots[0]

    def from_precisions(self, means: np.ndarray, precisions: np.ndarray) -> GaussianParams:
        """Parameters from precisions of the shape of the covariances; they must be positive definite."""
        if not self._is_matrix:
            return GaussianParams(means, 1.0 / precisions, np.sqrt(precisions))
        try:  # precision = U U' with U upper triangular: the factor of the matrix read backwards
            upper = np.linalg.cholesky(precisions[..., ::-1, ::-1])[..., ::-1, ::-1]
        except np.linalg.LinAlgError:
            raise ValueError("precisions must be positive definite") from None
        return self.from_roots(means, np.ascontiguousarray(upper))

    def from_roots(self, means: np.ndarray, roots: np.ndarray) -> GaussianParams:
        """Parameters from roots of the precisions, of the shape of `precisions_cholesky`."""
        if not self._is_matrix:
            return GaussianParams(means, 1.0 / roots**2, roots)
        stack = roots if roots.ndim == 3 else roots[None]
        lower = np.stack([dtrtri(root.T, lower=1)[0] for root in stack])
        covariances = lower @ np.swapaxes(lower, 1, 2)
        return GaussianParams(means, covariances if roots.ndim == 3 else covariances[0], roots)

    def check_shape(self, name: str, array: np.ndarray, n_components: int, n_features: int) -> np.ndarray:
        """Return covariances or precisions as float64 after checking shape, finiteness, symmetry and sign."""
        array = np.array(as_numbers(name, array), dtype=np.float64)
        shape = self.shape(n_components, n_features)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; {self.covariance_type!r} needs {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity; every entry must be finite")
        stack = array if array.ndim == 3 or not self._is_matrix else array[None]
        variances = np.diagonal(stack, axis1=1, axis2=2) if self._is_matrix else array
        good = (variances >= _TINY) & (variances <= 1 / _TINY)
        if not good.all():
            place = np.argwhere(~good)[0].tolist()
            where = f"{name}{place}"
            if self._is_matrix:
                where = f"{name}{place[:1] if array.ndim == 3 else ''} at column {place[1]}"
            raise ValueError(f"{where} must be positive definite, and no reciprocal may overflow or underflow")
        if self._is_matrix and not is_positive_definite(stack):
            k = next(k for k, matrix in enumerate(stack) if not is_positive_definite(matrix))
            where = f"{name}[{k}]" if array.ndim == 3 else name
            raise ValueError(f"{where} must be symmetric positive definite")
        if self.is_constrained and not has_structure(self.letters, array):
            raise ValueError(
                f"{name} must have the structure {self.covariance_type!r}; take covariance_type={self.form!r} for these"
            )
        return array

    def _collapsed(self, place: np.ndarray, what: str) -> DegenerateError:
        who = "the common covariance" if self.is_common else f"component {int(place[0])}"
        return self._collapse(who, what + (f" at column {int(place[-1])}" if len(place) > 1 else ""))

    def _collapse(self, who: str, what: str) -> DegenerateError:
        return DegenerateError(
            f"{who} has {what}: its rows are constant or dependent there. Use fewer components, a larger "
            "reg_covar, a covariance_prior, or drop constant and duplicated columns"
        )

    def check_params(self, components: GaussianParams, n_components: int, frame: Frame) -> GaussianParams:
        """Return parameters that a user gave, after checking shapes, finiteness and sign."""
        if not isinstance(components, GaussianParams):
            raise TypeError(f"start.components must be GaussianParams; got {type(components).__name__}")
        means, covariances, _ = components  # the roots follow from the covariances
        means = finite_array("start.components.means", means, 2)
        wanted = (n_components, frame.center.size)
        if means.shape != wanted:
            raise ValueError(f"start.components.means has shape {means.shape}; {wanted} is needed")
        covariances = self.check_shape("start.components.covariances", covariances, *means.shape)
        return GaussianParams(means, covariances, self.precisions_cholesky(covariances))

    # marginal and conditional

    def marginal(self, params: GaussianParams, columns: np.ndarray) -> GaussianParams:
        """Parameters of the components for some of the columns (m,) int."""
        covariances = params.covariances
        if self._is_matrix:
            covariances = covariances[..., columns[:, None], columns]
        elif covariances.ndim == 2:
            covariances = covariances[:, columns]
        return GaussianParams(params.means[:, columns], covariances, self.precisions_cholesky(covariances))

    def conditional(
        self, params: GaussianParams, given: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (K, m, g) on the given columns and covariances of the wanted ones given these.

        Of a normal (a, b): E[b | a] = mu_b + S (a - mu_a) with S = Sigma_ba Sigma_aa^-1, and the covariance
        Sigma_bb - S Sigma_ab does not depend on a.
        """
        n_components = len(params.means)
        if not self._is_matrix:  # columns are independent
            slopes = np.zeros((n_components, len(wanted), len(given)))
            return slopes, self.marginal(params, wanted).covariances
        covariances = params.covariances
        cross = covariances[..., wanted[:, None], given]
        slopes = np.swapaxes(
            np.linalg.solve(covariances[..., given[:, None], given], np.swapaxes(cross, -1, -2)), -1, -2
        )
        rest = covariances[..., wanted[:, None], wanted] - slopes @ np.swapaxes(cross, -1, -2)
        rest = 0.5 * (rest + np.swapaxes(rest, -1, -2))
        return np.broadcast_to(slopes, (n_components, *slopes.shape[-2:])), rest

    def conditioned(
        self, params: GaussianParams, given: np.ndarray, wanted: np.ndarray, values: np.ndarray
    ) -> GaussianParams:
        """Parameters of the components for the wanted columns (m,) int, given values (g,) of others (g,) int."""
        slopes, covariances = self.conditional(params, given, wanted)
        means = params.means[:, wanted] + apply(slopes, values - params.means[:, given])
        return GaussianParams(means, covariances, self.precisions_cholesky(covariances))

    # prior, counting, sampling

    def keep(self, params: GaussianParams, kept: np.ndarray) -> GaussianParams:
        """Parameters of some of the components (k,) int."""
        if self.form == "tied":
            return params._replace(means=params.means[kept])
        return GaussianParams(*(part[kept] for part in params))

    def guarded(self, mean: np.ndarray, covariance: Callable[[], np.ndarray], unit: float) -> "Gaussian":
        """Return the family, if its covariances have no prior, under one worth a hundredth of a row at this one (D, D).

        A row weighs `unit`.

        The penalty of Chen & Tan (2009), J. Multivariate Anal. 100, 1367-1383, equation 3: the likelihood is bounded,
        and components of more than a few rows are hardly moved.
        """
        if self.prior is not None and self.resolved.has_scale:
            return self
        spread = covariance()
        n_features, rows = len(spread), GUARD_ROWS * unit
        variances = np.diagonal(spread)
        scales = {"diag": variances, "spherical": np.mean(variances)}
        scale = rows * np.asarray(scales.get(self.form, spread))
        freedom = rows - (n_features + 1.0 if self._is_matrix else 2.0)
        if self.prior is not None:  # of the means alone
            return replace(self, resolved=self.resolved._replace(degrees_of_freedom=freedom, scale=scale))
        resolved = ResolvedPrior(np.zeros(n_features), 0.0, freedom, scale)
        return replace(self, prior=NormalInverseWishart(mean_precision=0.0), resolved=resolved)

    def fewest_rows(self, n_features: int) -> int:
        """Rows of a component that its own covariance can be estimated from."""
        if self.letters[1] == "V" and self.letters[2] != "I":
            return n_features + 1
        return 2 if "V" in self.letters[:2] else 1

    def resolve_prior(self, mean: np.ndarray, covariance: Callable[[], np.ndarray], n_components: int) -> "Gaussian":
        """Fill what the prior leaves open from the mean (D,) and covariance (D, D) of the data; checks the rest."""
        if self.prior is None:
            return self
        self.prior.resolve(self.form, mean, np.eye(len(mean)), n_components)  # its checks, before a pass
        return replace(self, resolved=self.prior.resolve(self.form, mean, covariance(), n_components))

    def log_prior(self, params: GaussianParams) -> float:
        """Log-density of the prior at the parameters, up to a constant."""
        if self.prior is None:
            return 0.0
        n_components, n_features = params.means.shape
        if self._steps_in_kernels(n_features):
            value = np.empty(1)
            log_prior_full(params.means, params.precisions_cholesky, self._prior_in_kernels(*params.means.shape), value)
            return float(value[0])
        log_det = 2 * self._log_constants(params) + n_features * math.log(2 * math.pi)
        whiteners = self._whiteners(params.precisions_cholesky, n_components, np.ones(n_features))
        return self.resolved.log_density(self.letters, self.form, params.means, log_det, whiteners)

    def n_columns(self, params: GaussianParams) -> int:
        """Number of columns of the rows that the parameters are for."""
        return params.means.shape[1]

    def are_sound(self, params: Any, moments: Any, n_components: int, n_features: int) -> bool:
        """Whether parameters and moments, read from a file, are what kernels may be given."""
        k, d = n_components, n_features
        shape = self.shape(k, d)
        return (
            isinstance(params, GaussianParams)
            and are_arrays(params.means, of=(k, d))
            and are_arrays(params.covariances, params.precisions_cholesky, of=shape)
            and isinstance(moments, Moments)
            and are_arrays(moments.counts, of=(k,), least=0.0)
            and are_arrays(moments.means, of=(k, d))
            and are_arrays(moments.covariances, of=shape)
        )

    def estimands(self, params: GaussianParams) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        return {"means": params.means, "covariances": params.covariances}

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters of means and covariances."""
        times = {"I": 0, "E": 1, "V": n_components}
        volume, shape, orientation = (times[letter] for letter in self.letters)
        size = volume + shape * (n_features - 1) + orientation * (n_features * (n_features - 1) // 2)
        return n_components * n_features + size

    def sample(self, params: GaussianParams, component: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (n_samples, D) from one component."""
        n_features = params.means.shape[1]
        z = rng.standard_normal((n_samples, n_features))
        mean, covariances = params.means[component], params.covariances
        if self._is_matrix:
            lower = np.linalg.cholesky(covariances if covariances.ndim == 2 else covariances[component])
            return mean + z @ lower.T
        return mean + z * np.sqrt(covariances[component])


def _largest_squares(dtype: np.dtype) -> tuple[float, float]:
    """Largest squared coordinates, of the outermost row and of a usual one, that products of a dtype bear."""
    if dtype == _EXACT:
        return math.inf, math.inf
    return _SINGLE_OUTERMOST / _EPS[dtype], _SINGLE_TYPICAL / _EPS[dtype]


def _least_deviations(granule: np.ndarray) -> np.ndarray:
    """Deviations (D,) that are not lost in the rounding of the data are larger."""
    return np.maximum(_GRANULES * granule, SMALLEST)


@functools.lru_cache(maxsize=64)
def _vech_index(n_features: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place of entry (i, j) in the packed lower triangle, (D, D); rows and columns of the packed entries."""
    rows, columns = np.tril_indices(n_features)
    place = np.empty((n_features, n_features), np.int64)
    place[rows, columns] = place[columns, rows] = np.arange(rows.size)
    return place, rows, columns


def unpack_second(packed: np.ndarray, n_features: int) -> np.ndarray:
    """Second moments (K, D, D) from the packed lower triangles (K, D (D + 1) / 2) of the full feature map."""
    return packed[:, _vech_index(n_features)[0]]


def _pack_whiteners(whiteners: np.ndarray, means: np.ndarray, dtype: DTypeLike = np.float64) -> np.ndarray:
    """(n, D + 1, D) or (n, 2, D): W or its diagonal above, the mean in the last row."""
    if whiteners.ndim == 2:
        whiteners = whiteners[:, None, :]
    return np.ascontiguousarray(np.concatenate([whiteners, means[:, None, :]], axis=1), dtype)


def _unwhiten(whitener: np.ndarray, means: np.ndarray, scatters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and scatters of whitened rows, taken back to the frame."""
    whitener = whitener.astype(np.float64)
    center = whitener[:, -1]
    if scatters.ndim < 3:
        deviation = 1.0 / whitener[:, 0]
        square = deviation**2 if scatters.ndim == 2 else deviation[:, 0] ** 2
        return center + deviation * means, scatters * square
    lower = np.stack([dtrtri(w, lower=1)[0] for w in whitener[:, :-1]])
    return center + apply(lower, means), lower @ scatters @ np.swapaxes(lower, 1, 2)
