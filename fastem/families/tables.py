"""Families of columns that take few values: rows become codes, and scores are looked up (`kernels/tables.py`).

Columns are put together as long as their values have few combinations, each of which is a code. Rows that repeat are
gone through once, with the sum of their weights.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.data import Block, Data, Derived
from fastem.families.exponential import IMPOSSIBLE, Exponential

_TOGETHER = 64  # combinations of a group: 16 to 256 cost the same; their tables fit the L1 cache
_CHUNK = 2**14  # rows of dense features held at once
_LOOKED_AT = 4096  # rows by which it is seen whether rows repeat
_OFTEN = 0.5  # part of them that must be repetitions
_PATTERNS = 2**62  # numbers of an int64


class Grouping(NamedTuple):
    """How columns become codes.

    Attributes
    ----------
    radix : ndarray of shape (D, G)
        A row of codes is first + numbers @ radix; the number of a missing value is that of values of its column.
    first : ndarray of shape (G,)
    sizes : ndarray of shape (G,)
        Number of codes of each group.
    members : ndarray of shape (M, width)
        The values, counted over all columns, that a code stands for; the number of all values for none.
    pairs : ndarray of shape (M * width,)
        Codes in the order of the values that they stand for.
    starts : ndarray of shape (V,)
        Where the codes of each value begin there.
    """

    radix: np.ndarray
    first: np.ndarray
    sizes: np.ndarray
    members: np.ndarray
    pairs: np.ndarray
    starts: np.ndarray


@functools.lru_cache(maxsize=32)
def group(n_values: tuple[int, ...], gaps: tuple[bool, ...]) -> Grouping:
    """Group columns with so many values (D,), of which some are missing at times (D,), in their order."""
    sizes = np.array(n_values) + np.array(gaps)
    groups: list[list[int]] = []
    for column, size in enumerate(sizes):
        if groups and np.prod(sizes[groups[-1]]) * size <= _TOGETHER:
            groups[-1].append(column)
        else:
            groups.append([column])
    total = sum(n_values)
    first_value = np.concatenate([[0], np.cumsum(n_values)])
    width = max(map(len, groups))
    radix, members = np.zeros((len(n_values), len(groups))), []
    for g, columns in enumerate(groups):
        numbers = np.indices(tuple(sizes[columns])).reshape(len(columns), -1)
        radix[columns, g] = numbers.shape[1] // np.cumprod(sizes[columns])
        stands = np.full((numbers.shape[1], width), total)
        for i, column in enumerate(columns):
            there = numbers[i] < n_values[column]
            stands[there, i] = first_value[column] + numbers[i, there]
        members.append(stands)
    together = np.concatenate(members)
    n_codes = np.array([len(stands) for stands in members])
    order = np.argsort(together.ravel(), kind="stable")
    starts = np.searchsorted(together.ravel()[order], np.arange(total))
    last = np.searchsorted(together.ravel()[order], total)
    pairs = order[:last] // width
    return Grouping(radix, 1.0 + np.cumsum(n_codes) - n_codes, n_codes, together, pairs, starts)


@dataclass(frozen=True, eq=False)
class Tabled(Exponential):
    """What these families share: they say how many values each column has, and their numbers and probabilities."""

    is_tabled: ClassVar[bool] = True

    @property
    def n_values(self) -> tuple[int, ...]:
        """Number of values of each column."""
        raise NotImplementedError

    def numbers(self, X: np.ndarray) -> np.ndarray:
        """Return the numbers (n, D) float64, from 0, of the values of rows; NaN for what is missing, or unknown."""
        raise NotImplementedError

    def log_probabilities(self, params: Any) -> np.ndarray:
        """Return the logarithms (K, V) of the probabilities of all values of all columns; -inf for 0."""
        raise NotImplementedError

    def of_values(self, counts: np.ndarray, by_value: np.ndarray) -> np.ndarray:
        """Return the sums (K, 1 + C) of coded rows from the weight (K,) of each component, and of each value (K, V)."""
        raise NotImplementedError

    def rows_of(self, data: Data) -> Data:
        """The coded rows, some at a time and never kept: they are wide."""
        return Derived(data, lambda block: block.holding(self.code(block.X)), _CHUNK)

    def _placed(self, statistics):
        """The statistics (n, S) as they are: columns that differ count alike."""
        return statistics - self.overall

    def _grouping(self, gaps: np.ndarray) -> Grouping:
        return group(self.n_values, tuple(gaps.tolist()))

    def codes(self, block: Block, in_order: bool = False) -> Block:
        """Return rows (n, G) uint32 of codes from 1, kept as long as the rows themselves.

        Rows that repeat may be put together, unless their order matters.
        """
        key = "codes", type(self), self._coding(), self.missing.tobytes(), in_order
        return block.derived(key, functools.partial(self._codes, in_order=in_order))

    def _codes(self, block: Block, in_order: bool) -> Block:
        grouping = self._grouping(self.missing)
        parts = []
        for first in range(0, len(block.X), _CHUNK):
            X = block.X[first : first + _CHUNK].astype(np.float64, copy=False)
            self._checked(X, first)
            parts.append(self._coded(X, grouping))
        codes = np.concatenate(parts)
        return Block(codes, block.weight) if in_order else _without_repetition(codes, block.weight, grouping)

    def _coded(self, X: np.ndarray, grouping: Grouping) -> np.ndarray:
        numbers = self.numbers(X)
        numbers = np.where(np.isnan(numbers), np.array(self.n_values), numbers)
        codes = np.tile(grouping.first, (len(X), 1))
        for column, g in np.argwhere(grouping.radix):  # small integers: exact
            codes[:, g] += grouping.radix[column, g] * numbers[:, column]
        return codes.astype(np.uint32)

    def table(self, params: Any, log_weights: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """Return the score (K, 1 + M) of every code, after the logarithms of the weights."""
        values = np.maximum(self.log_probabilities(params), -IMPOSSIBLE)
        return _table(values, log_weights, self._grouping(gaps))

    def sums_of(self, sums: np.ndarray) -> np.ndarray:
        """Return the sums (K, 1 + C) of coded rows from those of codes (K, 1 + M)."""
        grouping = self._grouping(self.missing)
        by_value = np.add.reduceat(sums[:, 1:][:, grouping.pairs], grouping.starts, axis=1)
        return self.of_values(sums[:, 0], by_value)

    def exact_codes(self, params: Any, log_weights: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, G) of codes and the score (K, 1 + M) of each, for densities of any rows."""
        X = X.astype(np.float64, copy=False)
        family = replace(self, n_features=X.shape[1])
        family.check_values(X)
        gaps = np.isnan(family.numbers(X)).any(axis=0)
        return family._coded(X, family._grouping(gaps)), family.table(params, log_weights, gaps)

    def check_values(self, X: np.ndarray) -> None:
        """Refuse rows of which not even a density is known."""
        self.check(X)

    def impossible(self, params, possible, X):
        """Rows (n,) bool that have density 0 under each component that is possible (K,), or None if there are none."""
        X = X.astype(np.float64, copy=False)
        family = replace(self, n_features=X.shape[1])
        numbers = family.numbers(X)
        unknown = (np.isnan(numbers) & ~np.isnan(X)).any(axis=1)
        never = np.isinf(self.log_probabilities(params)[possible])
        if not never.any():
            return unknown if unknown.any() else None
        first = np.concatenate([[0], np.cumsum(family.n_values)[:-1]])
        never = np.column_stack([never, np.zeros(len(never), bool)])
        places = np.where(np.isnan(numbers), never.shape[1] - 1, numbers + first).astype(np.int64)
        return unknown | np.all([row[places].any(axis=1) for row in never], axis=0)


def _table(values: np.ndarray, log_weights: np.ndarray, grouping: Grouping) -> np.ndarray:
    padded = np.zeros((len(values), values.shape[1] + 1))
    padded[:, :-1] = values
    table = np.empty((len(values), 1 + len(grouping.members)))
    table[:, 0] = log_weights
    np.take(padded, grouping.members, axis=1).sum(axis=2, out=table[:, 1:])
    return table


def _without_repetition(codes: np.ndarray, weight: np.ndarray, grouping: Grouping) -> Block:
    """Rows of codes with their weights, repeated ones once where that pays: in the order of what they hold."""
    if np.prod(grouping.sizes.astype(np.float64)) > _PATTERNS:
        return Block(codes, weight)
    radix = np.concatenate([[1], np.cumprod(grouping.sizes[:-1])])
    first = grouping.first.astype(np.int64)
    sample = (codes[:: max(1, len(codes) // _LOOKED_AT)] - first) @ radix
    if len(np.unique(sample)) > (1.0 - _OFTEN) * len(sample):
        return Block(codes, weight)
    n_patterns = int(np.prod(grouping.sizes))
    patterns = (codes - first) @ radix
    counts = weight[:, 0] if len(weight) else None
    if n_patterns <= 4 * len(codes):
        total = np.bincount(patterns, counts, n_patterns)
        distinct = np.flatnonzero(total)
        if len(distinct) == 0:
            return Block(codes, weight)
        total = total[distinct]
    else:
        distinct, place = np.unique(patterns, return_inverse=True)
        total = np.bincount(place, counts, len(distinct))
    codes = (distinct[:, None] // radix % grouping.sizes + first).astype(np.uint32)
    return Block(codes, total.astype(np.float64)[:, None])
