"""Normal mixtures of rows with missing values: `Mixture.prepare` turns to these where a value is NaN.

Ghahramani & Jordan (1994), Advances in Neural Information Processing Systems 6, 120-127: responsibilities come from
what was seen of a row, and each component completes the row by regression (`kernels/completion.py`). What follows, from
the moments on, is that of every mixture. Rows without a gap take the sweep of those without any, where they are many.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastem.data import Block, Data, Derived, column_extremes
from fastem.families.family import Frame
from fastem.families.gaussian import Gaussian, unpack_second
from fastem.families.gaussian_records import GaussianParams, Moments
from fastem.initialize import given_blocks
from fastem.kernels._jit import one_blas_thread, use_threads
from fastem.kernels.completion import (
    DENSITIES,
    DRAW,
    LABELS,
    MEAN,
    POSTERIORS,
    Components,
    for_each_row,
    sums_of_completed,
    sums_of_independent,
)
from fastem.kernels.features import n_statistics
from fastem.kernels.patterns import NO_GROUPS, Groups, condense, group
from fastem.kernels.posteriors import GIVEN, HARD, SOFTMAX
from fastem.kernels.sweep import LABEL, LOG_DENSITY, POSTERIOR
from fastem.models.mixture import Mixture, as_kernel_rows
from fastem.models.mixture_records import MixtureParams, MixtureStats, log_of, same_bits
from fastem.protocol import DegenerateError, add_stats

CODES = {LOG_DENSITY: DENSITIES, LABEL: LABELS, POSTERIOR: POSTERIORS}
_TINY = np.finfo(np.float64).tiny
_MANY_COMPLETE = 0.5  # part of the rows that have no gap, beyond which these take the sweep of their own
_PART = 2**16  # rows that are filled, or drawn, at once
_THIN = 1e-6  # part of a column's variance that a start regards as none
_STEPS = 20  # of EM for the covariance of all rows, which is a default of priors


class IncompleteStats(NamedTuple):
    """Additive statistics of rows of which some have gaps.

    Attributes
    ----------
    weight : float
        Total weight of the rows that have a value.
    log_likelihood : float
    sums, scatter : ndarray
        Those of `MixtureStats`, of rows without a gap that were taken apart.
    completed : ndarray of shape (K, P)
        Of the others, about the means of the parameters: full features, or for independent columns weight, sums and
        squares of what was seen, and the weight of that.
    """

    weight: float
    log_likelihood: float
    sums: np.ndarray
    scatter: np.ndarray
    completed: np.ndarray


class Gaps(NamedTuple):
    """Where a block has gaps: rows to complete, whether the others are taken apart, the weight of all with a value."""

    groups: Groups
    apart: bool
    weight: float


@dataclass(frozen=True, eq=False)
class IncompleteMixture(Mixture):
    """Mixture of normal components of which values are missing, at random: NaN.

    `Mixture` itself turns to it where rows hold NaN. The likelihood is that of what was seen. A row without any value
    is kept and informs nothing; a column without any is refused.

    Parameters
    ----------
    family, n_components, start, weights_init, means_init, precisions_init, weight_concentration, weight_cost, n_threads
        Those of `Mixture`.

    References
    ----------
    Ghahramani & Jordan (1994), Advances in Neural Information Processing Systems 6, 120-127, section 3.1.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[0.0, 1.0], [1.0, np.nan], [9.0, 9.0], [10.0, 8.0], [np.nan, 0.0], [np.nan, np.nan]])
    >>> result = fastem.fit(fastem.Mixture(fastem.Gaussian("diag"), 2), X, random_state=0)
    >>> type(result.model).__name__
    'IncompleteMixture'
    >>> np.sort(result.params.components.means[:, 0])
    array([0.5, 9.5])
    """

    def completing(self) -> "IncompleteMixture":
        """Itself."""
        return self

    def prepare(self, data: Data) -> "IncompleteMixture":
        """Take the frame and the defaults of the prior from the data; check the start against them."""
        lacking = np.flatnonzero(np.broadcast_to(data.summary.weight == 0, data.n_features))
        if len(lacking):
            raise ValueError(
                f"column {lacking[0]} of X has no value in any row that counts, so that nothing tells its mean; drop it"
            )
        return super().prepare(data)

    # statistics

    @same_bits
    def e_step(self, params: MixtureParams, block: Block) -> IncompleteStats:
        """One pass over the rows with gaps, and one over those without if they are many."""
        if block.labels is not None:
            return self._e_step_by_label(params, block)
        gaps = block.constant("gaps", self._gaps_of)
        complete = self._none(params)
        if gaps.apart:
            rows = copy.copy(block.derived("without gaps", _without_gaps))
            rows.notes = block.notes
            complete = super().e_step(params, rows)
        components = self._components(params, self.bound.rows)
        completed, log_likelihood = self._sums(block.X, block.weight, gaps.groups, components, SOFTMAX)
        log_likelihood += complete.log_likelihood
        return IncompleteStats(gaps.weight, log_likelihood, complete.sums, complete.scatter, completed)

    def _gaps_of(self, block: Block) -> Gaps:
        groups = group(block.X, block.counts > 0 if len(block.weight) else None)
        weight = block.total_weight
        if len(groups.order) < len(block.X):
            weight = float(block.counts[groups.order].sum())
        apart = len(groups.order) > 0 and not groups.missing[0].any()
        apart = apart and bool(groups.starts[1] > _MANY_COMPLETE * len(block.X))
        groups = groups.some(np.arange(1, len(groups.missing))) if apart else groups
        if self.family.has_independent_columns:  # no pattern matters: in the order of memory
            groups = groups._replace(order=np.sort(groups.order))
        return Gaps(groups, apart, weight)

    def _none(self, params: MixtureParams) -> MixtureStats:
        """Statistics of no rows."""
        layout = self.family.layout(params.components, self.bound)
        n_features = self.bound.center.size
        sums = np.zeros((self.n_components, int(n_statistics(layout.feature_map, n_features))))
        return MixtureStats(0.0, 0.0, sums, np.zeros(2 * (n_features * self.family.needs_scatter(layout),)))

    def _components(self, params: MixtureParams, rows: np.ndarray) -> Components:
        """The components in a frame (2, D), as the kernels complete rows with them."""
        log_weights = log_of(params.weights)
        means, whiteners, covariances = self.family.in_frame(params.components, rows)
        n_components, n_features = means.shape
        if self.family.has_independent_columns:
            nothing = np.empty((n_components, 0, 0))
            return Components(means, np.stack([whiteners, means], axis=1), nothing, nothing, log_weights)
        whitener = np.concatenate([whiteners, np.zeros((n_components, 1, n_features))], axis=1)
        precisions = np.ascontiguousarray(np.swapaxes(whiteners, 1, 2) @ whiteners)
        peaks = self.family.peaks(params.components, log_weights)
        return Components(means, whitener, precisions, np.ascontiguousarray(covariances), peaks)

    def _sums(
        self, X: np.ndarray, weight: np.ndarray, groups: Groups, components: Components, posterior: int
    ) -> tuple[np.ndarray, float]:
        """Sums about the means and log-likelihood of rows with gaps."""
        independent = self.family.has_independent_columns
        if len(groups.order) == 0:
            n_features = X.shape[1]
            n_sums = 1 + 3 * n_features if independent else 1 + n_features * (n_features + 3) // 2
            return np.zeros((self.n_components, n_sums)), 0.0
        function = sums_of_independent if independent else sums_of_completed
        n_threads = use_threads(self.n_threads)
        sums, log_likelihood, n_lost = function(X, weight, self.bound.rows, groups, components, posterior, n_threads)
        return sums, -math.inf if n_lost else log_likelihood

    def _moments(self, stats: Any, params: MixtureParams) -> Moments:
        """Moments of the components from the statistics of these parameters."""
        completed = self._about_means(params.components, stats.completed)
        if not stats.sums[:, 0].any():
            return completed
        complete = super()._moments(MixtureStats(*stats[:4]), params)
        if not completed.counts.any():
            return complete
        both = self.family.blend(complete, completed, 0.5)
        return both._replace(counts=2.0 * both.counts)

    @property
    def _independent(self) -> bool:
        """Whether sums are those of independent columns."""
        return self.family.has_independent_columns

    def _about_means(self, old: GaussianParams, sums: np.ndarray) -> Moments:
        """Moments from sums about the means of the parameters."""
        n_features, unit = self.bound.center.size, 1.0 / self.bound.scale
        counts = sums[:, 0]
        per_row = 1.0 / np.maximum(counts, _TINY)[:, None]
        gaps = sums[:, 1 : 1 + n_features] * per_row
        if self._independent:
            squares, seen = np.split(sums[:, 1 + n_features :] * per_row, 2, axis=1)
            known = self.family.in_frame(old, self.bound.rows)[2]
            second = (squares + np.maximum(1.0 - seen, 0.0) * known - gaps**2) * unit**2
        else:
            second = unpack_second(sums[:, 1 + n_features :] * per_row, n_features)
            second = (second - gaps[:, :, None] * gaps[:, None, :]) * (unit[:, None] * unit)
        return self.family.in_form(counts, old.means + gaps * unit, second)

    # starts

    def _filled(self, data: Data) -> Data:
        """The rows with the mean of a column where its value is missing, a part at a time."""
        means = data.summary.mean

        def fill(block: Block) -> Block:
            X = np.where(np.isnan(block.X), means.astype(block.X.dtype), block.X)
            return Block(X, block.weight, False)

        return Derived(data.recut(_PART), fill)

    def _moments_under(
        self, blocks: Callable[[], Iterable[Block]], theta: np.ndarray, feature_map: int, posterior: int
    ) -> Moments:
        """Moments under given or nearest responsibilities: one step from columns that are independent."""
        if posterior == HARD:
            points, plain = theta[:, 1 : 1 + self.bound.center.size], blocks

            def blocks() -> Iterator[Block]:
                return (part for block in plain() for part in self._nearest(block, points))

        means, variances = self._of_columns(blocks)
        moments = Moments(np.ones(self.n_components), means, variances)
        independent = replace(self, family=Gaussian("diag"))
        if self.family.has_independent_columns:
            model, covariances = independent, variances
        else:
            model = replace(self, family=Gaussian("full"))
            covariances = variances[:, :, None] * np.eye(variances.shape[1])
        roots = model.family.precisions_cholesky(covariances)
        params = MixtureParams(np.ones(self.n_components), GaussianParams(means, covariances, roots))
        components = model._components(params, self.bound.rows)
        sums = model._sums_given(blocks(), components)
        moments = model._about_means(params.components, sums)
        return self.family.in_form(*moments)

    def _sums_given(self, blocks: Iterable[Block], components: Components) -> np.ndarray:
        """Sums about the means under responsibilities that are the weights of the rows."""
        parts = [self._sums(b.X, b.weight, _groups_of(b), components, GIVEN)[0] for b in blocks]
        return np.sum(parts, axis=0)

    def _nearest(self, block: Block, points: np.ndarray) -> Iterator[Block]:
        """Parts of a block with responsibilities for the nearest of points (K, D) in the frame, by what is seen."""
        whitener = np.stack([np.ones_like(points), points], axis=1)
        nothing = np.empty((len(points), 0, 0))
        components = Components(points, whitener, nothing, nothing, np.zeros(len(points)))
        labels = np.empty((len(block.X), 1))
        for_each_row(block.X, self.bound.rows, NO_GROUPS, components, LABELS, labels, use_threads(self.n_threads))
        numbers = labels[:, 0].astype(np.int64)
        if block.labels is not None:
            numbers = np.where(block.labels >= 0, block.labels, numbers)
        return given_blocks(Data([block]), numbers, len(points))

    def _of_columns(self, blocks: Callable[[], Iterable[Block]]) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances (K, D) of what was seen of each column under given responsibilities."""
        n_features, unit = self.bound.center.size, 1.0 / self.bound.scale
        model = replace(self, family=Gaussian("diag"))
        overall = np.broadcast_to(self.bound.deviation**2, (self.n_components, n_features))
        means, ones = np.zeros_like(overall), np.ones_like(overall)
        nothing = np.empty((self.n_components, 0, 0))
        for _ in range(2):  # the second time about the means of the first: nothing cancels
            components = Components(means, np.stack([ones, means], axis=1), nothing, nothing, np.zeros(len(means)))
            sums = model._sums_given(blocks(), components)
            first, second, seen = np.split(sums[:, 1:], 3, axis=1)
            per_value = 1.0 / np.where(seen > 0, seen, 1.0)
            means = means + first * per_value
        variances = np.where(seen > 0, second * per_value - (first * per_value) ** 2, overall)
        variances = np.maximum(variances, np.where(overall > 0, _THIN * overall, _THIN**2))
        return self.bound.center + means * unit, variances * unit**2

    def _covariance(self, data: Data) -> np.ndarray:
        """Covariance (D, D) of all rows: some steps of EM for a single normal."""
        normal = IncompleteNormal(Gaussian(), n_threads=self.n_threads, frame=self.bound)
        summary = data.summary
        variances = np.maximum(summary.variance, (_THIN / self.bound.scale) ** 2)
        covariances = np.diag(variances)[None]
        params = MixtureParams(np.ones(1), _with_roots(normal, summary.mean[None], covariances))
        for _ in range(_STEPS):
            stats = add_stats(normal.e_step(params, block) for block in data)
            _, means, covariances = normal._moments(stats, params)
            try:
                params = params._replace(components=_with_roots(normal, means, covariances))
            except DegenerateError:  # of dependent columns; who needs a definite one will say so
                break
        varies = summary.variance > 0  # of the others the variance is 0 again, as it is without gaps
        return np.where(varies[:, None] & varies, covariances[0], 0.0)

    # streams and moves

    def framed(self, expected: Moments, block: Block) -> Any:
        """The model with a frame that suits the next block of rows that move."""
        low, high = column_extremes(block.X if len(block.weight) == 0 else block.X[block.weight[:, 0] > 0], known=True)
        frame = self.bound
        reach = frame.reach / frame.scale
        low = np.where(np.isnan(low), frame.center - reach, low)
        high = np.where(np.isnan(high), frame.center + reach, high)
        if self.family.fits(frame, low, high):
            return self
        return replace(self, frame=self.family.reframed(expected, frame, block.total_weight, low, high))

    @same_bits
    def births(self, expected: Moments, weight: float, component: int, reservoir: Any) -> list[Moments]:
        """Moments with a component moved to where the model fits badly."""
        rows = reservoir.rows
        seen = ~np.isnan(rows)
        means = np.where(seen, rows, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        means = np.where(seen.any(axis=0), means, self.family.spread(expected)[0])
        filled = reservoir._replace(rows=np.where(seen, rows, means))
        return self.family.births(expected, weight, component, filled)

    def _places(self, params: MixtureParams, block: Block) -> np.ndarray:
        """Rows (N, D) in the frame, with what is missing as it is expected."""
        return (self.impute(params, block.X) - self.bound.center) * self.bound.scale

    # beyond fitting

    @same_bits
    def _score(self, params: MixtureParams, X: np.ndarray | Block, wanted: int) -> np.ndarray:
        rows = X.X if isinstance(X, Block) else as_kernel_rows(X, True)
        if not np.isnan(rows.min()):
            return super()._score(params, rows, wanted)
        frame, states, rows = self.family.exact(params.components, log_of(params.weights), rows)
        n_components, n_features = params.components.means.shape
        if n_features != rows.shape[1]:
            raise ValueError(f"X has {rows.shape[1]} columns; the parameters are for {n_features}")
        nothing = np.empty((n_components, 0, 0))
        groups, covariances = NO_GROUPS, nothing
        if not self.family.has_independent_columns:
            groups = group(rows, keep_empty=True)
            covariances = np.ascontiguousarray(self.family.in_frame(params.components, frame)[2])
        components = Components(params.components.means, states.whitener, nothing, covariances, log_of(params.weights))
        out = np.empty((len(rows), n_components if wanted == POSTERIOR else 1))
        for_each_row(rows, frame, groups, components, CODES[wanted], out, use_threads(self.n_threads))
        return in_shape(out, wanted)

    @same_bits
    def impute(self, params: MixtureParams, X: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Rows (N, D) float64 with what is missing as it is expected given what is seen, or drawn."""
        n_features = X.shape[1]
        frame = np.stack([np.zeros(n_features), np.ones(n_features)])
        components = self._components(params, frame)
        filled = X.astype(np.float64)
        for first in range(0, len(X), _PART):
            part, out = X[first : first + _PART], filled[first : first + _PART]
            groups = NO_GROUPS if self.family.has_independent_columns else group(part, keep_empty=True)
            draws = np.empty((0, 1))
            if rng is not None:
                draws = np.concatenate([rng.random((len(part), 1)), rng.standard_normal(part.shape)], axis=1)
            code = MEAN if rng is None else DRAW
            for_each_row(part, frame, groups, components, code, out, use_threads(self.n_threads), draws)
        return filled


@dataclass(frozen=True, eq=False)
class IncompleteNormal(IncompleteMixture):
    """One normal distribution of rows of which values are missing.

    Rows that lack the same columns enter by their weight, mean and scatter alone, which are found once (Little & Rubin
    2002, section 11.2): as many rows as there are columns and one more stand for all others of a pattern. So an
    iteration costs nothing for each row, but for patterns of fewer rows than that.

    Parameters
    ----------
    family, means_init, n_threads
        Those of `Mixture`.
    covariances_init : ndarray, default=None
        A single one, (1, D, D) or (1, D). None: the variances of what was seen.
    """

    covariances_init: Any = None

    def _with_checked_start(self, n_features: int) -> "IncompleteNormal":
        """The same; refuses a start of another shape."""
        means, covariances = self.means_init, self.covariances_init
        shape = self.family.shape(1, n_features)
        if means is not None and means.shape[1:] != (n_features,):
            raise ValueError(f"mean_init has shape {means.shape[1:]}; ({n_features},) is needed")
        if covariances is not None:
            if covariances.shape != shape:
                raise ValueError(f"covariance_init has shape {covariances.shape[1:]}; {shape[1:]} is needed")
            covariances = self.family.check_shape("covariance_init", covariances, 1, n_features)
        return replace(self, covariances_init=covariances)

    def prepare(self, data: Data) -> Any:
        """Take the frame and the defaults of the prior from the data."""
        if self.n_components != 1:
            raise ValueError(f"n_components must be 1 for a single normal; got {self.n_components}")
        return super().prepare(data)

    @same_bits
    def initialize(self, data: Data, rng: np.random.Generator) -> MixtureParams:
        """Means and variances of what was seen of each column, then whatever was given explicitly."""
        summary = data.summary
        means = summary.mean[None] if self.means_init is None else self.means_init
        if self.covariances_init is not None:
            return MixtureParams(np.ones(1), _with_roots(self, means, self.covariances_init))
        variances = np.diag(summary.variance)[None]
        moments = self.family.in_form(np.array([data.total_weight]), summary.mean[None], variances)
        components = self.family.maximize(moments, None, self.bound.granule)
        return MixtureParams(np.ones(1), components if self.means_init is None else components._replace(means=means))

    def estimands(self, params: MixtureParams) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        return {"mean": params.components.means[0], "covariance": params.components.covariances[0]}

    @same_bits
    def e_step(self, params: MixtureParams, block: Block) -> IncompleteStats:
        """One pass over what is left of the rows."""
        if self.family.has_independent_columns:
            return super().e_step(params, block)
        few, rows, weight, groups, total, log_scale = block.constant(
            ("condensed", self.bound.rows.tobytes()), self._condensed
        )
        components = self._components(params, self.bound.rows)
        sums, log_likelihood = self._sums(block.X, block.weight, few, components, SOFTMAX)
        inside = replace(self, frame=_identity(self.bound))
        components = components._replace(peak=components.peak - np.log(self.bound.scale).sum())
        condensed, condensed_likelihood = inside._sums(rows, weight, groups, components, SOFTMAX)
        none = self._none(params)
        log_likelihood += condensed_likelihood + log_scale
        return IncompleteStats(total, log_likelihood, none.sums, none.scatter, sums + condensed)

    def _condensed(self, block: Block) -> tuple[Groups, np.ndarray, np.ndarray, Groups, float, float]:
        """Patterns of few rows; rows in the frame that stand for those of the others, their weights and patterns.

        Then the weight of all rows that have a value, and what the frame adds to the log-likelihood of the others.
        """
        groups = group(block.X, block.counts > 0 if len(block.weight) else None)
        sizes = np.diff(groups.starts)
        n_seen = block.X.shape[1] - groups.n_missing
        many = sizes > n_seen + 1
        few, others = groups.some(np.flatnonzero(~many)), groups.some(np.flatnonzero(many))
        rows, weight = condense(block.X, block.weight, self.bound.rows, others)
        counting = weight > 0
        log_scale = float((weight * np.where(np.isnan(rows), 0.0, np.log(self.bound.scale))).sum())
        total = float(block.counts[groups.order].sum())
        return few, rows, weight, group(rows, counting[:, 0]), total, log_scale


def in_shape(out: np.ndarray, wanted: int) -> np.ndarray:
    """What was written for each row, as `Mixture` returns it."""
    if wanted == POSTERIOR:
        return out
    return out[:, 0].astype(np.int64) if wanted == LABEL else out[:, 0]


def _identity(frame: Frame) -> Frame:
    """The frame of what is in a frame already."""
    one = np.ones_like(frame.scale)
    return frame._replace(center=0 * one, scale=one, rows=np.stack([0 * one, one]))


def _with_roots(model: Mixture, means: np.ndarray, covariances: np.ndarray) -> GaussianParams:
    with one_blas_thread(covariances.size * covariances.shape[-1]):
        return GaussianParams(means, covariances, model.family.precisions_cholesky(covariances))


def _groups_of(block: Block) -> Groups:
    """Patterns of the rows of a block whose weights are responsibilities."""
    return group(block.X, np.any(block.weight > 0, axis=1))


def _without_gaps(block: Block) -> Block:
    """The same rows, of which those with a gap have weight 0."""
    gap = np.isnan(block.X.sum(axis=1))
    return Block(block.X, np.where(gap, 0.0, block.counts)[:, None], False)
