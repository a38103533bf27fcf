"""Rows that are known to come from one component, or some: labels of a block.

The rows of a label are swept by themselves, with the states that it allows and no others: so their posterior is exact,
and the log-likelihood is that of rows and labels,

    sum_i w_i log sum_{k allowed for row i} weight_k p_k(x_i)

A row with one component costs one state.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastem.data import SMALLEST, Block, Data, weighted_sum
from fastem.kernels.sweep import States
from fastem.labels import allowed, only
from fastem.models.mixture_records import MixtureParams
from fastem.protocol import add_stats


class Seeds(NamedTuple):
    """Where some components are known to be, among the positions of rows."""

    numbers: np.ndarray  # (F,) of components, ascending
    points: np.ndarray  # (F, S)
    stay: np.ndarray  # (F,) bool, whether the mean itself is known


class Labels:
    """What `Mixture` does for rows with labels."""

    family: Any
    bound: Any
    e_step: Any
    n_components: int
    n_states: Any

    def _check_labels(self, data: Data) -> None:
        """Refuse labels of components that are not there; `labels.as_labels` has looked at most of them."""
        for block in data:
            if block.labels is not None and (highest := int(block.labels.max())) >= self.n_states:
                raise ValueError(f"labels name component {highest}, but there are {self.n_states}, from 0 on")

    def _by_label(
        self,
        block: Block,
        sweep: Callable[[Block, Any], tuple[np.ndarray, float]],
        order: np.ndarray | None = None,
    ) -> tuple[np.ndarray, float]:
        """Sums (n_states, P) and log-likelihood of rows, swept by label.

        A sweep takes rows and which states (n_states,) bool they can come from, both in some order; None is any.
        """
        if block.labels is None:
            return sweep(block, None)
        total, log_likelihood = np.zeros((self.n_states, 0)), 0.0
        for code, rows in block.by_label():
            chosen = allowed(code, self.n_states)
            chosen = chosen if order is None else chosen[order]
            sums, part = sweep(rows, None if chosen.all() else chosen)
            if total.size == 0:
                total = np.zeros((self.n_states, sums.shape[1]))
            total[chosen] += sums
            log_likelihood += part
        return total, log_likelihood

    def _e_step_by_label(self, params: MixtureParams, block: Block) -> Any:
        """The statistics of rows with labels, for models with passes of their own: of each label without weight for
        what it does not allow.
        """
        return add_stats(
            self.e_step(params._replace(weights=np.where(allowed(code, self.n_states), params.weights, 0.0)), rows)
            for code, rows in block.by_label()
        )

    def _seeds(self, data: Data) -> Seeds | None:
        """Means of the rows that are labelled with one component, and those that are frozen."""
        numbers, points = self.family.known_centers(self.bound)
        known = dict(zip(numbers.tolist(), points, strict=True))
        weights: dict[int, np.ndarray] = {}
        sums: dict[int, np.ndarray] = {}
        for block in data if data.is_labelled else ():
            for code, rows in block.by_label():
                if 0 <= code < self.n_components and code not in known and rows.total_weight > 0:
                    places = self.family.positions(rows.X, self.bound)
                    there = ~np.isnan(places)
                    weights[code] = weights.get(code, 0.0) + weighted_sum(rows.counts, there.astype(np.float64))
                    sums[code] = sums.get(code, 0.0) + weighted_sum(rows.counts, np.where(there, places, 0.0))
        means = known | {code: sums[code] / np.maximum(weights[code], SMALLEST) for code in weights}
        if not means:
            return None
        order = sorted(means)
        return Seeds(np.array(order), np.stack([means[code] for code in order]), np.isin(order, list(known)))

    def _labelled(self, data: Data) -> np.ndarray:
        """Which components (K,) some row is labelled with alone."""
        numbers: set[int] = set()
        for block in data if data.is_labelled else ():
            numbers |= set(only(block.codes).tolist())
        return np.isin(np.arange(self.n_components), list(numbers))


def some(states: States, chosen: np.ndarray | None) -> States:
    """Some of the states (n_states,) bool; None is all."""
    if chosen is None:
        return states
    n_fast = len(states.theta) - states.n_thin
    whitened = chosen if len(states.whitener) == len(states.theta) else chosen[n_fast:]
    return States(
        states.feature_map,
        states.theta[chosen],
        int(chosen[n_fast:].sum()),
        states.whitener[whitened],
        states.peak[whitened],
        states.tails[chosen] if len(states.tails) else states.tails,
    )
