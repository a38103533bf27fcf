"""How a hidden Markov model learns from streams of sequences: `protocol.Streamed`."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from fastem.data import is_real
from fastem.families.family import are_arrays
from fastem.models.hidden_markov_records import (
    ChainMoments,
    HiddenMarkovParams,
    HiddenMarkovStats,
    expected_log,
    occupancy,
)
from fastem.models.mixture_records import same_bits
from fastem.sequences import Run


class ChainStreams:
    """What `HiddenMarkov` does for streams, and for passes of many M-steps."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    family: Any
    n_components: int
    n_mix: int
    start: Any
    mean_length: float
    bound: Any
    emissions: Any
    _moments: Any
    _maximized: Any
    _extras: Any
    _blas_work: Any

    @same_bits
    def condense(self, stats: HiddenMarkovStats, params: HiddenMarkovParams) -> ChainMoments:
        """Counts of the chain and moments of the components, per unit of weight."""
        moments = self._moments(stats, params)
        moments = moments._replace(counts=moments.counts / stats.weight)
        return ChainMoments(stats.starts / stats.weight, stats.transitions / stats.weight, moments)

    @same_bits
    def blend(self, one: ChainMoments, two: ChainMoments, share: float) -> ChainMoments:
        """(1 - share) times the one and share times the other, as sums."""
        return ChainMoments(
            one.starts + share * (two.starts - one.starts),
            one.transitions + share * (two.transitions - one.transitions),
            self.family.blend(one.moments, two.moments, share),
        )

    @same_bits
    def maximize(
        self, expected: ChainMoments, weight: float, params: HiddenMarkovParams, unit: float
    ) -> HiddenMarkovParams:
        """M-step for statistics that are worth so much weight of rows."""
        moments = expected.moments._replace(counts=weight * expected.moments.counts)
        fewest = unit * self.family.fewest_rows(self.bound.center.size)
        return self._maximized(weight * expected.starts, weight * expected.transitions, moments, params, fewest)

    @same_bits
    def expected_log_likelihood(self, expected: ChainMoments, params: HiddenMarkovParams) -> float:
        """Expected log-likelihood of rows, states and components, per unit of weight."""
        moments = expected.moments
        some = moments.counts > 0
        log_densities = self.family.expected_log_densities(moments, params.components)
        total = float((moments.counts * log_densities)[some].sum())
        total += expected_log(moments.counts, params.weights.ravel())
        return (
            total
            + expected_log(expected.starts, params.startprob)
            + expected_log(expected.transitions, params.transmat)
        )

    def recall(self, params: HiddenMarkovParams, weight: float) -> ChainMoments:
        """Statistics of rows of some weight, in sequences of the mean length, whose maximum are the parameters."""
        begun = 1.0 / self.mean_length
        shares = occupancy(params.startprob, params.transmat, self.mean_length)
        left = occupancy(params.startprob, params.transmat, self.mean_length - 1.0) * (1.0 - begun)
        totals = np.array([begun]), left[:, None], shares[:, None]
        starts, transitions, counts = (
            _less(total * part, extra, weight)
            for total, part, extra in zip(totals, params[:3], self._extras, strict=True)
        )
        return ChainMoments(starts, transitions, self.family.recall(counts.ravel(), params.components, weight))

    @same_bits
    def resumed(self, params: HiddenMarkovParams, weight: float, dtype: np.dtype) -> Any:
        """The model with the frame and the prior that follow from the parameters."""
        shares = occupancy(params.startprob, params.transmat, self.mean_length)[:, None] * params.weights
        family, frame = self.family.resumed(shares.ravel(), params.components, weight, dtype)
        return replace(self, family=family, frame=frame, start="kmeans")

    def framed(self, expected: ChainMoments, block: Run) -> Any:
        """The model with a frame that suits the next sequences."""
        return replace(self, frame=self.emissions.framed(expected.moments, block).bound)

    def are_sound(self, params: Any, expected: list[Any]) -> bool:
        """Whether parameters and statistics of the chain, read from a file, fit the model; the family sees to its."""
        n_states = self.n_components
        shapes = (n_states,), (n_states, n_states), (n_states, self.n_mix)
        return (
            is_real(self.mean_length, 1.0)
            and isinstance(params, HiddenMarkovParams)
            and all(are_arrays(part, of=of, least=0.0) for part, of in zip(params[:3], shapes, strict=True))
            and all(isinstance(part, ChainMoments) for part in expected)
            and all(
                are_arrays(value, of=of, least=0.0)
                for part in expected
                for value, of in zip(part[:2], shapes[:2], strict=True)
            )
        )

    def start_rows(self, n_features: int) -> int:
        """Rows that the start of a stream takes."""
        return self.emissions.start_rows(n_features)

    def batch_rows(self, n_features: int) -> int:
        """Rows that make a step."""
        return self.emissions.batch_rows(n_features)


def _less(counts: np.ndarray, extra: np.ndarray, weight: float) -> np.ndarray:
    """Counts (..., n) per unit of weight, of which a prior that adds `extra` to them makes the same probabilities."""
    if weight == 0:
        return counts
    rows = weight * counts.sum(axis=-1, keepdims=True)
    shares = counts * weight / np.where(rows > 0, rows, 1.0)
    return np.maximum(shares * (rows + extra.sum(axis=-1, keepdims=True)) - extra, 0.0) / weight
