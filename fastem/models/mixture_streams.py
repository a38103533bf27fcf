"""How a mixture learns from a stream: `protocol.Renewed`."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from fastem.data import SMALLEST, Block, Data, column_extremes
from fastem.models.mixture_records import MixtureParams, MixtureStats, log_of, same_bits

_START_ROWS, _START_ROWS_PER_NUMBER = 1000, 10  # of a stream
# Of a step: with fewer, what is learned in one pass is no better, and the M-step takes its share of the time.
_FEWEST, _MOST, _BATCH_ROWS_PER_NUMBER = 1024, 16384, 64


class Streams:
    """What `Mixture` does for streams, and for passes of many M-steps."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    family: Any
    n_components: int
    weight_concentration: float
    bound: Any
    keep: Any
    completing: Any
    held_weights: Any
    holding: Any
    anchored: Any
    require_numbers: Any
    _moments: Any
    _maximized: Any
    _blas_work: Any

    @same_bits
    def condense(self, stats: MixtureStats, params: MixtureParams) -> Any:
        """Moments of the components, per unit of weight: they do not depend on the parameters they were found under."""
        moments = self._moments(stats, params)
        return moments._replace(counts=moments.counts / stats.weight) if stats.weight > 0 else moments

    @same_bits
    def blend(self, one: Any, two: Any, share: float) -> Any:
        """(1 - share) times the one and share times the other, as sums."""
        return self.family.blend(one, two, share)

    @same_bits
    def maximize(self, expected: Any, weight: float, params: MixtureParams, unit: float) -> MixtureParams:
        """M-step for statistics that are worth so much weight of rows."""
        moments = expected._replace(counts=weight * expected.counts)
        return self._maximized(moments, params, unit * self._fewest_rows)

    @same_bits
    def expected_log_likelihood(self, expected: Any, params: MixtureParams) -> float:
        """Expected log-likelihood of rows and components, per unit of weight."""
        counts = expected.counts
        log_densities = self.family.expected_log_densities(expected, params.components)
        some = counts > 0
        return float((counts * (log_densities + np.where(some, log_of(params.weights), 0.0)))[some].sum())

    def recall(self, params: MixtureParams, weight: float) -> Any:
        """Moments of rows of some weight, of which the parameters are the maximum."""
        extra = self.weight_concentration - 1.0
        counts = params.weights
        if extra > 0 and weight > 0:
            free = np.ones(len(counts), bool) if self.held_weights is None else np.isnan(self.held_weights)
            shared = counts[free].sum() * weight + free.sum() * extra
            shares = counts / max(counts[free].sum(), SMALLEST)
            counts = np.where(free, np.maximum(shares * shared - extra, 0.0) / weight, counts)
        return self.family.recall(counts, params.components, weight)

    @same_bits
    def resumed(self, params: MixtureParams, weight: float, dtype: np.dtype) -> Any:
        """The model with the frame and the prior that follow from the parameters."""
        family, frame = self.family.resumed(params.weights, params.components, weight, dtype)
        model = replace(self, family=family, frame=frame, start="kmeans")
        return model.holding(params)

    @property
    def _fewest_rows(self) -> int:
        return self.family.fewest_rows(self.bound.center.size)

    def short_of_rows(self, expected: Any, weight: float, unit: float) -> np.ndarray:
        """Numbers of components that count fewer rows than tell their parameters."""
        counts = weight * expected.counts[: self.n_components]
        return np.flatnonzero((counts < unit * self._fewest_rows) & ~self.anchored)

    def without(self, expected: Any, params: MixtureParams, lost: np.ndarray) -> tuple[Any, Any, MixtureParams]:
        """Model, moments and parameters without some components, but for the heaviest."""
        self.require_numbers()
        kept = np.setdiff1d(np.arange(self.n_components), lost)
        if len(kept) == 0:
            kept = np.argmax(expected.counts[: self.n_components], keepdims=True)
        model, params = self.keep(params, kept)
        return model, self.family.keep_moments(expected, kept), params

    @same_bits
    def births(self, expected: Any, weight: float, component: int, reservoir: Any) -> list[Any]:
        """Moments with a component moved to where the model fits badly."""
        return self.family.births(expected, weight, component, reservoir)

    def framed(self, expected: Any, block: Block) -> Any:
        """The model with a frame that suits the next block of rows that move, and with what it shows first."""
        family = self.family.widened(block)
        if family is not self.family:
            return replace(self, family=family, frame=family.frame_of(family.rows_of(Data([block]))))
        if not self.family.has_moving_frame:
            return self
        low, high = column_extremes(block.X if len(block.weight) == 0 else block.X[block.weight[:, 0] > 0])
        if self.family.completes and np.isnan(low).any():
            return self.completing().framed(expected, block)
        if self.family.fits(self.bound, low, high):
            return self
        return replace(self, frame=self.family.reframed(expected, self.bound, block.total_weight, low, high))

    def start_rows(self, n_features: int) -> int:
        """Rows that the start of a stream takes."""
        return max(_START_ROWS, _START_ROWS_PER_NUMBER * self.n_components * (n_features + 1))

    def batch_rows(self, n_features: int) -> int:
        """Rows that make a step."""
        return min(_MOST, max(_FEWEST, _BATCH_ROWS_PER_NUMBER * self.n_components * n_features))
