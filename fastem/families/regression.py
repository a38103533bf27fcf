"""Linear regression of the last columns of a row on the others, with normal errors.

    log p(y | x) = log N(y; b + B x, Sigma) = -m/2 log(2 pi) + log|W| - |W (y - b - B x)|^2 / 2,    W' W = Sigma^-1

De Veaux (1989), Comput. Statist. Data Anal. 8, 227-245; several responses: Jones & McLachlan (1992), Austral. J.
Statist. 34, 233-240. A score is quadratic in the row (x, y), so that a mixture of regressions takes the sweep of normal
components. What is left of y is kept as it is, and never as the difference of two large moments: components that are
thin about their line are whitened, that is, their sums are of x and of the residuals.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from scipy.linalg.lapack import dtrtri

from fastem.data import Data, Summary, finite_array, is_integer
from fastem.families import gaussian
from fastem.families.family import GUARD_ROWS, Family, Frame, Layout, are_arrays
from fastem.families.gaussian import Gaussian, unpack_second
from fastem.families.gaussian_records import GaussianParams, Moments
from fastem.families.matrices import apply
from fastem.families.normal_inverse_wishart import NormalInverseWishart, ResolvedPrior
from fastem.families.regression_records import (
    RegressionMoments,
    RegressionParams,
    columns_of,
    least_norm,
    left_by,
    packed,
    residual_covariances,
)
from fastem.kernels.features import FULL, LINEAR, n_statistics
from fastem.kernels.sweep import States
from fastem.protocol import DegenerateError

# The scale of x beside the residuals of a row that is whitened: a power of two, so that it is undone exactly, and so
# small that x has no part in the distance.
_ASIDE = 2.0**-40
_REACH = 5.0  # standard deviations that rows are taken to reach where no more is known
_CONSTANT = 4.0  # roundings of its values that a column varies by, at most, if it says nothing
_LEAST_LEFT = 1e-12  # of the variance of a response that regressions are taken to leave, for priors
_WITHIN = 1e-14  # of the variance of a column in all rows: what a component has less of tells no slope
_EXACT = np.dtype(np.float64)
_EPS = {np.dtype(dtype): float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64)}
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class Regression(Family):
    """Linear regressions with normal errors.

    Parameters
    ----------
    n_responses : int, default=1
        The last columns of a row: what is regressed on the others.
    covariance_type : {'full', 'tied', 'diag', 'spherical'}, default='full'
        Of the errors; with one response only 'tied', the same variance in all components, differs from the rest.
    regressors : array-like of int, default=None
        Columns that are regressed on. None: all but the responses.
    prior : NormalInverseWishart, default=None
        Of the errors' covariances; its mean_precision must be 0. With one response the variances are inverse
        gamma(degrees_of_freedom / 2, scale / 2). By default the scale is that of the residuals of one regression of all
        rows, over K^(2 / m). None: maximum likelihood.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> x = np.linspace(0.0, 1.0, 50)
    >>> rows = np.column_stack([x, np.where(np.arange(50) % 2, 3.0 + x, -x) + 0.01 * np.sin(50 * x)])
    >>> model = fastem.Regressions(fastem.Regression(), 2)
    >>> result = fastem.fit(model, rows, n_race=12, random_state=0)
    >>> np.sort(result.params.components.coefficients.ravel()).round(1)
    array([-1.,  1.])
    """

    n_responses: int = 1
    covariance_type: str = "full"
    regressors: Any = None
    prior: NormalInverseWishart | None = None
    noise: Any = field(default=None, repr=False)  # the errors, as a family of their own
    design: Any = field(default=None, repr=False)  # (2, p) mean and variance of the columns

    Params: ClassVar[Any] = RegressionParams
    feature_map: ClassVar[Any] = FULL
    start_map: ClassVar[Any] = FULL
    spacing: ClassVar[float | None] = None  # the columns regressed on have no distribution

    def __post_init__(self):
        if not is_integer(self.n_responses, 1):
            raise ValueError(f"n_responses must be an integer of at least 1; got {self.n_responses!r}")
        if isinstance(self.prior, NormalInverseWishart) and self.prior.mean_precision != 0:
            raise ValueError("prior.mean_precision must be 0: the prior is that of the errors' covariances alone")
        if self.noise is None:
            object.__setattr__(self, "noise", Gaussian(self.covariance_type, prior=self.prior))

    # rows

    def seeing(self, data: Data) -> "Regression":
        """Return the family with the columns that it regresses on, and their spread."""
        p = data.n_features - self.n_responses
        if p < 1:
            raise ValueError(
                f"rows have {data.n_features} column(s), {self.n_responses} of which are responses; one more is needed"
            )
        summary = data.summary
        rounding = (_CONSTANT * np.finfo(np.float64).eps * summary.magnitude) ** 2
        variance = np.where(summary.variance > rounding, summary.variance, 0.0)
        design = np.stack([summary.mean[:p], variance[:p]])
        return replace(self, design=design, regressors=columns_of("regressors", self.regressors, p))

    def frame(self, summary: Summary, dtype: np.dtype) -> Frame:
        """Centre and scale; one scale for all responses if their errors are spherical."""
        deviation = np.sqrt(summary.variance)
        if self.covariance_type == "spherical":
            deviation[-self.n_responses :] = deviation[-self.n_responses :].max()
        return Frame.around(summary, deviation, dtype)

    def _of_responses(self, frame: Frame) -> Frame:
        """The frame of the responses alone."""
        last = np.s_[..., -self.n_responses :]
        center, scale, reach, deviation, granule, rows, dtype = frame
        return Frame(center[last], scale[last], reach[last], deviation[last], granule[last], rows[last], dtype)

    # natural

    def _whiteners(self, params: RegressionParams, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """W (K, D, D) and centres (K, D) in the frame, whose last rows whiten the residuals; and log-constants (K,)."""
        n_components, m, p = params.coefficients.shape
        scale, center = frame.scale, frame.center
        roots = self.noise._whiteners(params.precisions_cholesky, n_components, scale[p:])
        if roots.ndim == 2:
            roots = np.broadcast_to(roots, (n_components, m))[:, :, None] * np.eye(m)
        slopes = params.coefficients * scale[p:, None] / scale[:p]
        whiteners = np.zeros((n_components, p + m, p + m))
        whiteners[:, :p, :p] = _ASIDE * np.eye(p)
        whiteners[:, p:, :p] = -roots @ slopes
        whiteners[:, p:, p:] = roots
        centers = np.zeros((n_components, p + m))
        centers[:, p:] = (params.intercepts + apply(params.coefficients, center[:p]) - center[p:]) * scale[p:]
        return whiteners, centers, self.noise._log_constants(GaussianParams(*params[:3]))

    def layout(self, params: RegressionParams, frame: Frame) -> Layout:
        """Choose the path of each component in the frame, and the precision of the products."""
        whiteners, centers, _ = self._whiteners(params, frame)
        squares = (whiteners**2).sum(axis=1)
        worst = (squares * frame.reach**2).max(axis=1)
        largest, typical = worst.max(), (squares * frame.deviation**2).max()
        eps, dtype = _EPS[frame.dtype], frame.dtype
        if eps * largest > gaussian._SINGLE_OUTERMOST or eps * typical > gaussian._SINGLE_TYPICAL:
            dtype = _EXACT
        thin = _EPS[_EXACT] * worst > gaussian._THIN
        order = np.argsort(thin, kind="stable")
        last = order[len(order) - np.count_nonzero(thin) :]
        return Layout(FULL, order, packed(whiteners[last], centers[last], dtype))

    def natural(self, params: RegressionParams, log_weights: np.ndarray, layout: Layout, frame: Frame) -> States:
        """Natural parameters and whiteners in the frame, in the order of the layout."""
        whiteners, centers, constants = (part[layout.order] for part in self._whiteners(params, frame))
        n_components, n_columns = centers.shape
        n_thin, dtype = len(layout.whitener), layout.whitener.dtype
        peaks = constants + log_weights[layout.order]
        y = apply(whiteners, centers)
        rows, columns = np.tril_indices(n_columns)
        theta = np.empty((n_components, n_statistics(FULL, n_columns)), dtype)
        theta[:, 0] = peaks - 0.5 * (y**2).sum(axis=1)
        theta[:, 1 : 1 + n_columns] = apply(np.swapaxes(whiteners, 1, 2), y)
        precisions = np.swapaxes(whiteners, 1, 2) @ whiteners
        theta[:, 1 + n_columns :] = np.where(rows == columns, -0.5, -1.0) * precisions[:, rows, columns]
        return States(FULL, theta, n_thin, packed(whiteners, centers, dtype), peaks)

    def exact(self, params: RegressionParams, log_weights: np.ndarray, X: np.ndarray):
        """Frame (2, D), states and rows for densities: residuals whitened, in float64 and the data's units."""
        n_columns = X.shape[1]
        zero, unit = np.zeros(n_columns), np.ones(n_columns)
        whiteners, centers, constants = self._whiteners(params, Frame(zero, unit, unit, unit, zero, unit, _EXACT))
        p = n_columns - self.n_responses
        whiteners[:, :p, :p] = 0.0
        states = States(
            LINEAR,
            np.empty((0, 1 + n_columns)),
            len(centers),
            packed(whiteners, centers, _EXACT),
            constants + log_weights,
        )
        return np.stack([zero, unit]), states, X

    def log_densities(self, params: RegressionParams, X: np.ndarray) -> np.ndarray:
        """Log-densities (N, K) of the responses of a few rows, in NumPy."""
        p = params.coefficients.shape[2]
        found = []
        for k in range(len(params.coefficients)):
            gaps = X[:, p:] - np.einsum("np,mp->nm", X[:, :p], params.coefficients[k])
            normal = GaussianParams(*self.noise.keep(GaussianParams(*params[:3]), np.array([k])))
            found.append(self.noise.log_densities(normal, gaps)[:, 0])
        return np.column_stack(found)

    # moments

    def moments(self, sums: np.ndarray, scatter: np.ndarray, layout: Layout, frame: Frame) -> RegressionMoments:
        """Moments of the components from the sums (K, P) of a sweep with this layout."""
        n_columns, n_thin = frame.center.size, len(layout.whitener)
        n_components, p = len(sums), n_columns - self.n_responses
        counts = sums[:, 0]
        safe = np.maximum(counts, _TINY)[:, None]
        means = sums[:, 1 : 1 + n_columns] / safe
        second = unpack_second(sums[:, 1 + n_columns :] / safe, n_columns) - means[:, :, None] * means[:, None, :]
        bases = np.zeros((n_components, self.n_responses, p))  # what the sums of a thin component were taken about
        if n_thin:
            whitener = layout.whitener.astype(np.float64)
            thin = slice(n_components - n_thin, None)
            roots = np.stack([dtrtri(w[p:n_columns, p:], lower=1)[0] for w in whitener])
            back = np.zeros((n_thin, n_columns, n_columns))
            back[:, :p, :p] = np.diag(1.0 / np.diagonal(whitener[0, :p, :p]))
            back[:, p:, p:] = roots
            bases[thin] = -roots @ whitener[:, p:n_columns, :p]
            means[thin] = whitener[:, -1] + apply(back, means[thin])
            means[thin, p:] += apply(bases[thin], means[thin, :p] - whitener[:, -1, :p])
            second[thin] = back @ second[thin] @ np.swapaxes(back, 1, 2)
        covariances = second[:, :p, :p]
        slopes = self._slopes(covariances, second[:, p:, :p], frame.scale[:p])
        residuals = residual_covariances(second, slopes)
        order = np.argsort(layout.order)
        scale, center = frame.scale, frame.center
        unit = 1.0 / scale
        floor = np.finfo(np.float64).eps * np.diagonal(second[:, p:, p:], axis1=1, axis2=2)  # what rounding leaves
        residuals = residuals + floor[:, :, None] * np.eye(self.n_responses)
        return RegressionMoments(
            counts[order],
            center[:p] + means[order, :p] * unit[:p],
            covariances[order] * (unit[:p, None] * unit[:p]),
            center[p:] + means[order, p:] * unit[p:],
            (bases + slopes)[order] * unit[p:, None] * scale[:p],
            residuals[order] * (unit[p:, None] * unit[p:]),
        )

    def about_means(self, moments: RegressionMoments, frame: Frame, feature_map: int) -> Layout | None:
        """Layout that takes every sum about the lines of `moments`, or None if sums about the frame are as good."""
        n_components, m, p = moments.coefficients.shape
        variances = np.diagonal(moments.residuals, axis1=1, axis2=2) * frame.scale[p:] ** 2
        if (variances >= np.finfo(np.float64).eps / gaussian._THIN * frame.reach[p:] ** 2).all():
            return None
        intercepts = moments.responses - apply(moments.coefficients, moments.means)
        roots = np.broadcast_to(np.diag(frame.scale[p:]), (n_components, m, m))
        params = RegressionParams(intercepts, roots, roots, moments.coefficients)
        whiteners, centers, _ = Regression(m)._whiteners(params, frame)
        return Layout(FULL, np.arange(n_components), packed(whiteners, centers, _EXACT))

    def _slopes(self, covariances: np.ndarray, cross: np.ndarray, scale: Any = 1.0) -> np.ndarray:
        """Least squares slopes (K, m, p) from the covariances of x (K, p, p) and of y and x (K, m, p).

        Directions without variance get none. `scale` (p,) is that of the columns.
        """
        slopes = np.zeros(cross.shape)
        used = np.arange(cross.shape[2]) if self.regressors is None else self.regressors
        if len(used) == 0:
            return slopes
        variances = np.diagonal(covariances, axis1=1, axis2=2)
        spread = np.ones(cross.shape[2]) if self.design is None else self.design[1] * scale**2
        tells = (variances > _WITHIN * spread) & (spread > 0)
        cross = np.where(tells[:, None, :], cross, 0.0)[:, :, used]
        covariances = np.where(tells[:, None, :] & tells[:, :, None], covariances, 0.0)[:, used[:, None], used]
        found, whole = least_norm(covariances, cross, np.where(tells, variances, 1.0)[:, used])
        if not whole.all():  # the solution of least norm, in units that are the same for every component
            some = np.broadcast_to(np.where(spread > 0, spread, 1.0)[used], (len(cross), len(used)))
            found = np.where(whole[:, None, None], found, least_norm(covariances, cross, some)[0])
        slopes[:, :, used] = np.where(tells[:, None, used], found, 0.0)
        return slopes

    def blend(self, one: RegressionMoments, two: RegressionMoments, share: float) -> RegressionMoments:
        """Moments of a mixture of both, of which the second makes up a share; no term of the residuals is negative."""
        before, added = (1.0 - share) * one.counts, share * two.counts
        counts = before + added
        part = (added / np.maximum(counts, _TINY))[:, None, None]
        gap, rise = two.means - one.means, two.responses - one.responses
        between = part * (1.0 - part)
        covariances = (1.0 - part) * one.covariances + part * two.covariances
        covariances = covariances + between * gap[:, :, None] * gap[:, None, :]
        # least squares of what the slopes of the first leave
        turn = two.coefficients - one.coefficients
        left = rise - apply(one.coefficients, gap)
        cross = part * (turn @ two.covariances) + between * left[:, :, None] * gap[:, None, :]
        coefficients = one.coefficients + self._slopes(covariances, cross)
        residuals = (1.0 - part) * left_by(one, coefficients) + part * left_by(two, coefficients)
        left = rise - apply(coefficients, gap)
        residuals = residuals + between * left[:, :, None] * left[:, None, :]
        return RegressionMoments(
            counts,
            one.means + part[:, :, 0] * gap,
            covariances,
            one.responses + part[:, :, 0] * rise,
            coefficients,
            residuals,
        )

    def _errors(self, moments: RegressionMoments, params: RegressionParams) -> Moments:
        """Moments of what the regressions of the parameters leave of the responses, in the form of their structure."""
        gaps = moments.responses - params.intercepts - apply(params.coefficients, moments.means)
        return Moments(moments.counts, gaps, self._shaped(moments.counts, left_by(moments, params.coefficients)))

    def _shaped(self, counts: np.ndarray, covariances: np.ndarray) -> np.ndarray:
        """Covariances (K, m, m) in the form of the structure."""
        if self.covariance_type == "tied":
            return np.einsum("k,kij->ij", counts / max(counts.sum(), _TINY), covariances)
        if self.covariance_type == "full":
            return covariances
        variances = np.diagonal(covariances, axis1=1, axis2=2)
        return variances if self.covariance_type == "diag" else variances.mean(axis=1)

    def _unshaped(self, covariances: np.ndarray, n_components: int) -> np.ndarray:
        """Covariances (K, m, m) from the form of the structure."""
        m = self.n_responses
        if self.covariance_type == "diag":
            return covariances[:, :, None] * np.eye(m)
        if self.covariance_type == "spherical":
            return covariances[:, None, None] * np.eye(m)
        return np.broadcast_to(covariances, (n_components, m, m))

    def expected_log_densities(self, moments: RegressionMoments, params: RegressionParams) -> np.ndarray:
        """Mean log-density (K,) of responses under each component."""
        zero = GaussianParams(np.zeros_like(params.intercepts), params.covariances, params.precisions_cholesky)
        return self.noise.expected_log_densities(self._errors(moments, params), zero)

    def recall(self, counts: np.ndarray, params: RegressionParams, weight: float) -> RegressionMoments:
        """Moments, of rows of some weight that lie as all do, whose maximum are the parameters."""
        n_components = len(counts)
        errors = self.noise.recall(counts, GaussianParams(*params[:3]), weight)
        mean, variance = self.design
        means = np.broadcast_to(mean, (n_components, len(mean)))
        return RegressionMoments(
            counts,
            means,
            np.broadcast_to(np.diag(variance), (n_components, len(mean), len(mean))),
            params.intercepts + apply(params.coefficients, means),
            params.coefficients,
            self._unshaped(errors.covariances, n_components),
        )

    def recalled(self, weights: np.ndarray, params: RegressionParams) -> "Regression":
        """The family with the columns that it regresses on; parameters do not tell where these lay."""
        p = params.coefficients.shape[2]
        return replace(self, regressors=columns_of("regressors", self.regressors, p))

    def under_prior_of(self, other: Any) -> "Regression":
        """Another regression, with the columns that this one regresses on and where they lay."""
        return replace(other, design=self.design, regressors=self.regressors)

    def resumed(self, weights: np.ndarray, params: RegressionParams, weight: float, dtype: np.dtype):
        """Family and frame as the parameters tell them, and the design, which must be known."""
        if self.design is None:
            raise ValueError("a stream goes on from a fit only if it is known where its rows lay; begin a new stream")
        counts, (mean, variance) = weights, self.design
        moments = self.recall(counts, params, 0.0)
        center = np.einsum("k,km->m", counts, moments.responses)
        spread = left_by(moments, np.zeros_like(params.coefficients))
        gaps = moments.responses - center
        variances = np.einsum("k,km->m", counts, np.diagonal(spread, axis1=1, axis2=2) + gaps**2)
        mean, variance = np.append(mean, center), np.append(variance, variances)
        reach = _REACH * np.sqrt(variance)
        family = replace(self, regressors=columns_of("regressors", self.regressors, len(self.design[0])))
        left = np.einsum("k,kij->ij", counts, moments.residuals)
        noise = self.noise.resolve_prior(center, lambda: left, len(counts))
        frame = self.frame(Summary(weight, mean, variance, mean - reach, mean + reach), dtype)
        return replace(family, noise=noise), frame

    def births(self, moments: RegressionMoments, weight: float, component: int, reservoir: Any) -> list[Any]:
        """Moments with a component moved to the line through the rows of a reservoir."""
        rows = reservoir.rows.astype(np.float64)
        p = rows.shape[1] - self.n_responses
        mean = rows.mean(axis=0)
        second = np.einsum("ni,nj->ij", rows - mean, rows - mean)[None] / len(rows)
        slopes = self._slopes(second[:, :p, :p], second[:, p:, :p])
        shares = moments.counts / moments.counts.sum()
        spread = np.einsum("k,kij->ij", shares, moments.residuals)
        few = p + self.n_responses + 1
        residuals = (len(rows) * residual_covariances(second, slopes)[0] + few * spread) / (len(rows) + few)
        new = (len(rows) / weight, mean[:p], second[0, :p, :p], mean[p:], slopes[0], residuals)
        parts = [part.copy() for part in moments]
        for part, value in zip(parts, new, strict=True):
            part[component] = value
        parts[0] /= parts[0].sum()
        return [RegressionMoments(*parts)]

    # maximize

    def maximize(
        self, moments: RegressionMoments, old: RegressionParams | None, granule: np.ndarray, fewest: float = 0.0
    ) -> RegressionParams:
        """Least squares, and the posterior mode (maximum likelihood without a prior) of the errors' covariances.

        Components that count fewer rows than `fewest`, or none, keep their regression.
        """
        counts = moments.counts
        coefficients = moments.coefficients
        few = counts <= max(fewest, _TINY)
        if old is not None and few.any():
            coefficients = np.where(few[:, None, None], old.coefficients, coefficients)
        intercepts = moments.responses - apply(coefficients, moments.means)
        if old is not None and few.any():
            intercepts = np.where(few[:, None], old.intercepts, intercepts)
        p = moments.means.shape[1]
        granule = granule[p:] + (np.abs(coefficients) @ granule[:p]).max(axis=0)
        errors = Moments(counts, intercepts, self._shaped(counts, left_by(moments, coefficients)))
        before = None if old is None else GaussianParams(*old[:3])
        try:
            normal = self.noise.maximize(errors, before, granule, fewest)
        except DegenerateError as error:
            if "without any weight" in str(error):
                raise
            raise DegenerateError(
                f"a component fits its rows exactly, so that the errors of its regression have no variance ({error})"
            ) from error
        return RegressionParams(intercepts, normal.covariances, normal.precisions_cholesky, coefficients)

    # prior

    def _left_over(self, covariance: np.ndarray) -> np.ndarray:
        """Covariance (m, m) that one regression of all rows leaves, from that of the rows (D, D)."""
        p = len(covariance) - self.n_responses
        left = residual_covariances(covariance[None], self._slopes(covariance[None, :p, :p], covariance[None, p:, :p]))[
            0
        ]
        return 0.5 * (left + left.T) + np.diag(np.maximum(_LEAST_LEFT * np.diagonal(covariance)[p:], _TINY))

    def resolve_prior(self, mean: np.ndarray, covariance: Any, n_components: int) -> "Regression":
        """Fill what the prior leaves open from one regression of all rows."""
        if self.prior is None:
            return self
        noise = self.noise.resolve_prior(mean[-self.n_responses :], lambda: self._left_over(covariance()), n_components)
        return replace(self, noise=noise)

    def guarded(self, mean: np.ndarray, covariance: Any, unit: float) -> "Regression":
        """Return the family, unless it has a prior, under one of a hundredth of a row: what one regression leaves."""
        if self.prior is not None:
            return self
        m, left = self.n_responses, self._left_over(covariance())
        scales = {"diag": np.diagonal(left), "spherical": np.trace(left) / m}
        rows = GUARD_ROWS * unit
        freedom = rows - (m + 1.0 if self.covariance_type in ("full", "tied") else 2.0)
        scale = rows * np.asarray(scales.get(self.covariance_type, left))
        prior = NormalInverseWishart(mean_precision=0.0)
        resolved = ResolvedPrior(np.zeros(m), 0.0, freedom, scale)
        return replace(self, prior=prior, noise=replace(self.noise, prior=prior, resolved=resolved))

    def log_prior(self, params: RegressionParams) -> float:
        """Log-density of the prior at the parameters, up to a constant."""
        return self.noise.log_prior(GaussianParams(*params[:3]))

    # parameters

    def n_columns(self, params: RegressionParams) -> int:
        """Number of columns of the rows that the parameters are for."""
        return sum(params.coefficients.shape[1:])

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters of intercepts, coefficients and covariances."""
        used = n_features - self.n_responses if self.regressors is None else len(np.atleast_1d(self.regressors))
        return n_components * self.n_responses * used + self.noise.n_parameters(n_components, self.n_responses)

    def fewest_rows(self, n_features: int) -> int:
        """Rows of a component that its own regression can be estimated from."""
        used = n_features - self.n_responses if self.regressors is None else len(self.regressors)
        return used + self.n_responses + 1

    def keep(self, params: RegressionParams, kept: np.ndarray) -> RegressionParams:
        """Parameters of some of the components (k,) int."""
        intercepts, covariances, roots = self.noise.keep(GaussianParams(*params[:3]), kept)
        return RegressionParams(intercepts, covariances, roots, params.coefficients[kept])

    def estimands(self, params: RegressionParams) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        names = ("coefficients", "intercepts", "covariances")
        return {name: getattr(params, name) for name in names}

    def are_sound(self, params: Any, moments: Any, n_components: int, n_features: int) -> bool:
        """Whether parameters and moments, read from a file, are what kernels may be given."""
        if not (isinstance(params, RegressionParams) and isinstance(moments, RegressionMoments)):
            return False
        k, m, p = n_components, self.n_responses, n_features - self.n_responses
        errors = GaussianParams(*params[:3])
        own = Moments(moments.counts, moments.responses, self._shaped(moments.counts, moments.residuals))
        return (
            are_arrays(params.coefficients, moments.coefficients, of=(k, m, p))
            and are_arrays(moments.means, of=(k, p))
            and are_arrays(moments.covariances, of=(k, p, p))
            and are_arrays(moments.residuals, of=(k, m, m))
            and are_arrays(self.design, of=(2, p))
            and np.array_equal(self.regressors, columns_of("regressors", self.regressors, p))
            and self.noise.are_sound(errors, own, k, m)
        )

    def check_params(self, params: Any, n_components: int, frame: Frame) -> RegressionParams:
        """Return parameters that a user gave, after checking shapes, finiteness and sign."""
        if not isinstance(params, RegressionParams):
            raise TypeError(f"start.components must be RegressionParams; got {type(params).__name__}")
        m, p = self.n_responses, frame.center.size - self.n_responses
        coefficients = finite_array("start.components.coefficients", params.coefficients, 3)
        intercepts = finite_array("start.components.intercepts", params.intercepts, 2)
        if coefficients.shape != (n_components, m, p) or intercepts.shape != (n_components, m):
            raise ValueError(
                f"start.components has coefficients {coefficients.shape} and intercepts {intercepts.shape}; "
                f"{(n_components, m, p)} and {(n_components, m)} are needed"
            )
        unused = np.setdiff1d(np.arange(p), self.regressors)
        if coefficients[:, :, unused].any():
            raise ValueError("start.components.coefficients must be 0 for columns that are not among the regressors")
        covariances = self.noise.check_shape("start.components.covariances", params.covariances, n_components, m)
        roots = self.noise.precisions_cholesky(covariances)
        return RegressionParams(intercepts, covariances, roots, coefficients)

    def sample(self, params: RegressionParams, component: int, n_samples: int, rng: np.random.Generator):
        """Refused: the columns regressed on have no distribution."""
        raise TypeError("regressions say how y follows from x, not how x is distributed: draw y for given x")

    def draw(self, params: RegressionParams, component: int, X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw responses (n, m) for rows (n, p) that are regressed on, from one component."""
        zero = GaussianParams(np.zeros_like(params.intercepts), params.covariances, params.precisions_cholesky)
        return self.predict(params, component, X) + self.noise.sample(zero, component, len(X), rng)

    def predict(self, params: RegressionParams, component: int, X: np.ndarray) -> np.ndarray:
        """Mean responses (n, m) of a component for rows (n, p)."""
        return params.intercepts[component] + np.einsum("np,mp->nm", X, params.coefficients[component])

    # coordinates: responses at the centre and the errors as normal components have them, then slopes in the frame

    def pack(self, params: RegressionParams, frame: Frame) -> np.ndarray:
        """Coordinates in the frame."""
        p = params.coefficients.shape[2]
        at_center = params.intercepts + apply(params.coefficients, frame.center[:p])
        normal = GaussianParams(at_center, params.covariances, params.precisions_cholesky)
        slopes = params.coefficients * frame.scale[p:, None] / frame.scale[:p]
        return np.concatenate(
            [self.noise.pack(normal, self._of_responses(frame)), slopes[:, :, self.regressors].ravel()]
        )

    def unpack(self, vector: np.ndarray, n_components: int, frame: Frame) -> RegressionParams:
        """Parameters at the coordinates of `pack`."""
        m, p = self.n_responses, frame.center.size - self.n_responses
        size = n_components * m * len(self.regressors)
        rest = vector[: len(vector) - size]
        at_center, covariances, roots = self.noise.unpack(rest, n_components, self._of_responses(frame))
        coefficients = np.zeros((n_components, m, p))
        coefficients[:, :, self.regressors] = vector[len(rest) :].reshape(n_components, m, len(self.regressors))
        coefficients *= frame.scale[:p] / frame.scale[p:, None]
        intercepts = at_center - apply(coefficients, frame.center[:p])
        return RegressionParams(intercepts, covariances, roots, coefficients)

    def score(self, params: RegressionParams, moments: RegressionMoments, frame: Frame) -> np.ndarray:
        """Gradient of the expected log-likelihood in the coordinates of `pack`, at the parameters of the moments.

        For slopes: n Sigma^-1 ((B' - B) S + d (mean of x)'), with B' and d the slopes and the mean that are left.
        """
        p = moments.means.shape[1]
        errors = self._errors(moments, params)
        zero = GaussianParams(np.zeros_like(errors.means), params.covariances, params.precisions_cholesky)
        rest = self.noise.score(zero, errors, self._of_responses(frame))
        roots = self.noise._whiteners(params.precisions_cholesky, len(errors.counts), np.ones(self.n_responses))
        if roots.ndim == 2:
            roots = np.broadcast_to(roots, errors.means.shape)[:, :, None] * np.eye(self.n_responses)
        cross = (moments.coefficients - params.coefficients) @ moments.covariances
        cross = cross + errors.means[:, :, None] * (moments.means - frame.center[:p])[:, None, :]
        slopes = np.swapaxes(roots, 1, 2) @ roots @ cross * errors.counts[:, None, None]
        slopes = slopes * frame.scale[:p] / frame.scale[p:, None]
        return np.concatenate([rest, slopes[:, :, self.regressors].ravel()])
