"""Sequences of rows: the data of models in which a row depends on the one before it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastem.data import Block, Data, as_numbers, as_part_of_weight, as_rows, check_total_weight

_WINDOW = 1000  # rows of a longer sequence that are drawn for a sample together


class Run(Block):
    """A run of whole sequences.

    Attributes
    ----------
    X, weight : ndarray
        As in `Block`; a row has the weight of its sequence, or 0 if it is missing.
    offsets : ndarray of shape (n_sequences + 1,), int64
        First row of each sequence, and the number of rows.
    sequence_weight : ndarray of shape (n_sequences,), float64
    """

    __match_args__ = ("X", "weight", "offsets", "sequence_weight")

    def __init__(self, X: np.ndarray, weight: np.ndarray, offsets: np.ndarray, sequence_weight: np.ndarray):
        super().__init__(X, weight)
        self.offsets, self.sequence_weight = offsets, sequence_weight

    @property
    def n_sequences(self) -> int:
        """Number of sequences."""
        return len(self.sequence_weight)

    @property
    def missing(self) -> np.ndarray:
        """Numbers of the rows that are missing, or of weight 0."""
        return np.flatnonzero(self.weight[:, 0] == 0) if len(self.weight) else np.empty(0, np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """Number of rows (n_sequences,) of each sequence."""
        return np.diff(self.offsets)

    def is_sound(self) -> bool:
        """Whether what was read from a file is what kernels may be given, the rows themselves aside."""
        arrays = self.X, self.weight, self.offsets, self.sequence_weight
        dtypes = self.X.dtype, np.float64, np.int64, np.float64
        if not all(isinstance(a, np.ndarray) and a.dtype == dtype for a, dtype in zip(arrays, dtypes, strict=True)):
            return False
        n_rows, per_sequence = len(self.X), self.sequence_weight
        if per_sequence.ndim != 1 or self.offsets.shape != (len(per_sequence) + 1,) or len(per_sequence) == 0:
            return False
        if self.offsets[0] != 0 or self.offsets[-1] != n_rows or (self.lengths < 1).any():
            return False
        if not (np.isfinite(per_sequence) & (per_sequence >= 0)).all():
            return False
        if self.weight.shape == (0, 1):
            return bool((per_sequence == 1.0).all())
        if self.weight.shape != (n_rows, 1):
            return False
        weight = self.weight[:, 0]
        return bool(((weight == 0) | (weight == np.repeat(per_sequence, self.lengths))).all())

    def rows_alone(self) -> Block:
        """Return the rows as a block that shares what is kept with them."""
        block = Block(self.X, self.weight)
        block._constants, block._derived = self._constants, self._derived
        return block

    def between(self, first: int, last: int) -> "Run":
        """Return the sequences from one number up to another, without a copy."""
        low, high = self.offsets[first], self.offsets[last]
        offsets = self.offsets[first : last + 1] - low
        return Run(self.X[low:high], self.weight[low:high], offsets, self.sequence_weight[first:last])

    def take(self, numbers: np.ndarray) -> "Run":
        """Return a copy of the sequences of these numbers, in this order."""
        lengths = self.lengths[numbers]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[numbers] - offsets[:-1], lengths)
        return Run(
            self.X[rows], self.weight[rows] if len(self.weight) else self.weight, offsets, self.sequence_weight[numbers]
        )

    def copied(self) -> "Run":
        """Return a copy."""
        return self.take(np.arange(self.n_sequences))

    def reweighted(self, factors: np.ndarray) -> "Run":
        """Return the same rows with the weights of the sequences times factors (n_sequences,)."""
        weight = self.counts * np.repeat(factors, self.lengths)
        return Run(self.X, weight[:, None], self.offsets, self.sequence_weight * factors)

    def groups(self, n_rows: int) -> Iterator[tuple[int, int]]:
        """Yield first and last numbers of sequences that have so many rows together, the last ones perhaps fewer."""
        first = 0
        while first < self.n_sequences:
            last = int(np.searchsorted(self.offsets, self.offsets[first] + n_rows))
            last = min(last, self.n_sequences)
            yield first, last
            first = last


class Sequences(Data):
    """Rows that make one or several sequences, for `fastem.fit` with a model such as `fastem.HiddenMarkov`.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        The rows of all sequences, one after the other. A row of NaN alone is missing: time passes, but nothing was
        observed.
    lengths : array-like of shape (n_sequences,), default=None
        Number of rows of each sequence, at least 1, which sum to n_samples. None: a single sequence.
    sequence_weight : array-like of shape (n_sequences,), default=None
        Non-negative; 2 counts as the sequence twice, 0 as the sequence left out.

    Raises
    ------
    ValueError or TypeError
        If an argument cannot be used; see also `fastem.GaussianMixture.fit` for the rows.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> data = fastem.Sequences(np.array([[1.0], [2.0], [np.nan], [8.0], [9.0]]), lengths=[3, 2])
    >>> data.n_sequences, data.n_samples, data.total_weight
    (2, 5, 4.0)
    """

    def __init__(self, X: Any, lengths: Any = None, sequence_weight: Any = None):
        run = as_run(as_rows(X, allow_nan=True), lengths, sequence_weight)
        self._set([run])
        if not run.sequence_weight.any():
            raise ValueError("sequence_weight is zero for every sequence; at least one must count")
        if run.total_weight == 0:
            raise ValueError("X holds nothing but NaN in the sequences that count; at least one row must be observed")
        check_total_weight(self.total_weight, "sequence_weight")

    @classmethod
    def of(cls, runs: list[Run]) -> "Sequences":
        """Return runs as data."""
        data = object.__new__(cls)
        data._set(runs)
        return data

    def _set(self, runs: list[Run]) -> None:
        Data.__init__(self, list(runs))
        self.n_sequences = sum(run.n_sequences for run in runs)

    @property
    def mean_length(self) -> float:
        """Mean number of rows of the sequences, by their weights."""
        n_rows = sum(float((run.sequence_weight * run.lengths).sum()) for run in self.runs())
        return n_rows / sum(float(run.sequence_weight.sum()) for run in self.runs())

    def runs(self) -> Iterator[Run]:
        """Iterate over the blocks."""
        return iter(self.blocks)  # type: ignore[arg-type]

    def unordered(self) -> Data:
        """Return the rows alone, and what is derived from them, for those to whom their order is nothing."""
        data = Data([run.rows_alone() for run in self.runs()])
        data._summary = self._summary
        return data

    def refuse_gaps(self) -> None:
        """Refuse rows of which only some values are missing."""
        first = 0
        for run in self.runs():
            gaps = np.isnan(run.X[:, 0]) if run.X.shape[1] == 1 else np.isnan(run.X).any(axis=1)
            if gaps.any():
                row = int(np.argmax(gaps))
                column = int(np.argmax(np.isnan(run.X[row])))
                raise ValueError(
                    f"X contains NaN at row {first + row}, column {column}; drop or impute such values, or make all of "
                    "the row NaN: then it is missing"
                )
            first += len(run.X)

    def with_notes(self) -> "Sequences":
        """Return the same blocks, each with empty notes."""
        return self._with([run.with_notes() for run in self.runs()])  # type: ignore[misc]

    def recut(self, n_rows: int) -> "Sequences":
        """Return the same sequences in blocks of about so many rows."""
        return self._with([run.between(*group) for run in self.runs() for group in run.groups(n_rows)])

    def _with(self, runs: list[Run]) -> "Sequences":
        data = type(self).of(runs)
        data._summary = self._summary
        return data

    def shuffled(self, n_rows: int, rng: np.random.Generator) -> Iterator[Block]:
        """Yield the sequences in random order, so many rows at a time or a few more; those of a block stay together."""
        for number in rng.permutation(len(self.blocks)):
            run = self.blocks[number]
            assert isinstance(run, Run)
            order = rng.permutation(run.n_sequences)
            offsets = np.concatenate([[0], np.cumsum(run.lengths[order])])
            first = 0
            while first < len(order):
                last = min(int(np.searchsorted(offsets, offsets[first] + n_rows)), len(order))
                yield run.take(order[first:last])
                first = last

    def draw(self, n_rows: int, rng: np.random.Generator) -> np.ndarray:
        """Return the numbers of rows of whole sequences in random order, of long ones in windows, never of weight 0.

        The last may be cut short.
        """
        starts, sizes = [], []
        first_row = 0
        for run in self.runs():
            counts = run.sequence_weight > 0
            lengths = run.lengths[counts]
            n_windows = -(-lengths // _WINDOW)
            number = np.arange(n_windows.sum()) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
            lengths, before = np.repeat(lengths, n_windows), np.repeat(run.offsets[:-1][counts], n_windows)
            n_windows = np.repeat(n_windows, n_windows)
            low, high = number * lengths // n_windows, (number + 1) * lengths // n_windows
            starts.append(first_row + before + low)
            sizes.append(high - low)
            first_row += len(run.X)
        start, size = np.concatenate(starts), np.concatenate(sizes)
        order = rng.permutation(len(start))
        order = order[: int(np.searchsorted(np.cumsum(size[order]), n_rows)) + 1]
        start, size = start[order], size[order]
        before = np.cumsum(size) - size
        return (np.arange(size.sum()) + np.repeat(start - before, size))[:n_rows]

    def take(self, rows: np.ndarray) -> "Sequences":
        """Return a copy of the rows of these numbers, in the order of the data, with their weights.

        Rows of a sequence that are not next to each other belong to different sequences of the copy.
        """
        rows = np.sort(rows)
        parts, first = [], 0
        for run in self.runs():
            last = first + len(run.X)
            chosen = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last)] - first
            sequence = np.searchsorted(run.offsets, chosen, side="right") - 1
            breaks = np.flatnonzero((np.diff(chosen) != 1) | (np.diff(sequence) != 0)) + 1
            if len(chosen):
                starts = np.concatenate([[0], breaks])
                offsets = np.append(starts, len(chosen))
                weight = run.weight[chosen] if len(run.weight) else run.weight
                parts.append(Run(run.X[chosen], weight, offsets, run.sequence_weight[sequence[starts]]))
            first = last
        return type(self).of([_joined(parts)])

    def whole(self) -> "Sequences":
        """Return the same sequences as one block."""
        return self if len(self.blocks) == 1 else self._with([_joined(list(self.runs()))])

    def resampled(self, rng: np.random.Generator) -> "Sequences":
        """Return the same sequences with random weights of the same total, as the weighted bootstrap takes them."""
        runs = []
        for run in self.runs():
            weight = run.sequence_weight
            runs.append(run.reweighted(rng.standard_gamma(weight) / np.where(weight > 0, weight, 1.0)))
        factor = self.total_weight / sum(run.total_weight for run in runs)
        return type(self).of([run.reweighted(np.full(run.n_sequences, factor)) for run in runs])


def check_lengths(lengths: Any, n_samples: int) -> np.ndarray:
    """Return the offsets (n_sequences + 1,) int64 of sequences of these lengths."""
    if lengths is None:
        return np.array([0, n_samples], np.int64)
    values = as_numbers("lengths", lengths)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"lengths has shape {values.shape}; give one length for each sequence: (n_sequences,)")
    whole = values.astype(np.int64) if np.isfinite(values).all() else np.empty(0)
    if not np.array_equal(whole, values):
        raise ValueError("lengths must hold integers: the number of rows of each sequence")
    if (whole < 1).any():
        s = int(np.argmax(whole < 1))
        raise ValueError(f"lengths[{s}] is {whole[s]}; a sequence has at least one row: leave out those without any")
    if whole.sum() != n_samples:
        raise ValueError(f"lengths sum to {whole.sum()}, but X has {n_samples} rows; they must be the same")
    return np.concatenate([[0], np.cumsum(whole)]).astype(np.int64)


def as_run(X: np.ndarray, lengths: Any = None, sequence_weight: Any = None) -> Run:
    """Return checked rows as a run of sequences; those that are missing get weight 0, and the values of another row."""
    offsets = check_lengths(lengths, len(X))
    lengths = np.diff(offsets)
    if sequence_weight is None:
        per_sequence = np.ones(len(lengths))
    else:
        per_sequence = as_part_of_weight(sequence_weight, len(lengths), name="sequence_weight")[:, 0]
    gaps = np.isnan(X[:, 0])
    if gaps.any():
        gaps &= np.isnan(X).all(axis=1)
    if not gaps.any() and (per_sequence == 1.0).all():
        return Run(X, np.empty((0, 1)), offsets, per_sequence)
    weight = np.repeat(per_sequence, lengths)
    if gaps.any():
        whole = ~np.isnan(X).any(axis=1)
        X = X.copy()
        X[gaps] = 1.0 if gaps.all() else X[np.argmax(whole) if whole.any() else np.argmin(gaps)]
        weight[gaps] = 0.0
    return Run(X, weight[:, None], offsets, per_sequence)


def cut_runs(runs: list[Run], n_rows: int) -> tuple[Run, list[Run]]:
    """The first whole sequences that have so many rows together, or all, and the runs that are left."""
    taken: list[Run] = []
    left = n_rows
    for number, run in enumerate(runs):
        last = min(int(np.searchsorted(run.offsets, left)), run.n_sequences)
        taken.append(run.between(0, last))
        left -= int(run.offsets[last])
        if left <= 0:
            rest = [run.between(last, run.n_sequences)] if last < run.n_sequences else []
            return _joined(taken), [*rest, *runs[number + 1 :]]
    return _joined(taken), []


def _joined(runs: list[Run]) -> Run:
    """The sequences of several runs as one."""
    if len(runs) == 1:
        return runs[0]
    starts = np.cumsum([0, *(len(run.X) for run in runs)])
    offsets = np.concatenate(
        [*(run.offsets[:-1] + start for run, start in zip(runs, starts, strict=False)), starts[-1:]]
    )
    is_weighted = any(len(run.weight) for run in runs)
    weight = np.concatenate([run.counts[:, None] for run in runs]) if is_weighted else np.empty((0, 1))
    return Run(
        np.concatenate([run.X for run in runs]), weight, offsets, np.concatenate([run.sequence_weight for run in runs])
    )
