"""Rows with missing values, put together by which of their columns are missing."""

from typing import NamedTuple

import numpy as np

from fastem.kernels._jit import from_python, kernel

_WORD = 64  # columns in a word of a pattern
_RADIX = 16  # bits that NumPy sorts by counting


class Groups(NamedTuple):
    """Rows in the order of their patterns, and these by how many columns they lack.

    Attributes
    ----------
    order : ndarray of shape (n,), uint32
        Numbers of the rows.
    starts : ndarray of shape (G + 1,), int64
        Places in `order` at which the patterns begin, and n.
    missing : ndarray of shape (G, n_words), uint64
        Bit d % 64 of word d // 64 is set where column d is missing.
    """

    order: np.ndarray
    starts: np.ndarray
    missing: np.ndarray

    @property
    def n_missing(self) -> np.ndarray:
        """Number of columns (G,) that each pattern lacks."""
        return np.bitwise_count(self.missing).sum(axis=1, dtype=np.int64)

    def some(self, chosen: np.ndarray) -> "Groups":
        """Some of the patterns, by number, with their rows."""
        sizes = np.diff(self.starts)[chosen]
        starts = np.append(0, np.cumsum(sizes))
        places = np.arange(starts[-1]) + np.repeat(self.starts[chosen] - starts[:-1], sizes)
        return Groups(self.order[places], starts, self.missing[chosen])


NO_GROUPS = Groups(np.empty(0, np.uint32), np.zeros(1, np.int64), np.empty((0, 1), np.uint64))


@from_python
@kernel
def mark_missing(X, words):
    """words (N, n_words) uint64 = the pattern of each row of X (N, D)."""
    n_rows, n_features = X.shape
    for n in range(n_rows):
        for w in range(words.shape[1]):
            word = np.uint64(0)
            for d in range(64 * w, min(64 * w + 64, n_features)):
                if np.isnan(X[n, d]):
                    word |= np.uint64(1) << np.uint64(d - 64 * w)
            words[n, w] = word


@kernel
def split_columns(words, n_features, columns):
    """columns (D,) = those that a pattern has seen, then those it lacks, both ascending; returns how many are seen."""
    n_seen = 0
    for d in range(n_features):
        if (words[d // 64] >> np.uint64(d % 64)) & np.uint64(1) == 0:
            columns[n_seen] = d
            n_seen += 1
    n = n_seen
    for d in range(n_features):
        if (words[d // 64] >> np.uint64(d % 64)) & np.uint64(1) == 1:
            columns[n] = d
            n += 1
    return n_seen


def group(X: np.ndarray, counting: np.ndarray | None = None, keep_empty: bool = False) -> Groups:
    """Put rows together by pattern.

    Parameters
    ----------
    X : (N, D) float32 or float64, C-ordered; NaN is missing
    counting : (N,) bool, rows to take; None: all
    keep_empty : whether to take rows without any value
    """
    n_rows, n_features = X.shape
    words = np.empty((n_rows, -(-n_features // _WORD)), np.uint64)
    mark_missing(X, words)
    taken = np.ones(n_rows, bool) if counting is None else counting
    if not keep_empty:
        taken = taken & (words != _full(n_features)).any(axis=1)
    rows = np.arange(n_rows, dtype=np.uint32)
    if not taken.all():
        rows, words = rows[taken], words[taken]
    if words.shape[1] > 1:
        order = np.lexsort(words.T)
    else:
        keys = words[:, 0]
        order = np.argsort(keys.astype(np.uint16) if n_features <= _RADIX else keys, kind="stable")
    rows, words = rows[order], words[order]
    new = np.ones(len(words), bool)
    np.any(words[1:] != words[:-1], axis=1, out=new[1:])
    starts = np.flatnonzero(new)
    groups = Groups(rows, np.append(starts, len(rows)), np.ascontiguousarray(words[starts]))
    return groups.some(np.argsort(groups.n_missing, kind="stable"))


def _full(n_features: int) -> np.ndarray:
    """The pattern (n_words,) in which every column is missing."""
    bits = np.minimum(_WORD, n_features - _WORD * np.arange(-(-n_features // _WORD)))
    return np.array([2 ** int(n) - 1 for n in bits], np.uint64)


@kernel
def factor(matrix, columns, first, last, lower):
    """lower (n, n) = Cholesky factor of matrix[columns[first:last]] in both axes; returns the sum of log-diagonals.

    NaN where it has none.
    """
    total_log = 0.0
    for i in range(last - first):
        for j in range(i + 1):
            total = matrix[columns[first + i], columns[first + j]]
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            if j < i:
                lower[i, j] = total / lower[j, j]
            else:
                lower[i, i] = np.sqrt(total)
                total_log += np.log(lower[i, i])
    return total_log


@kernel
def invert(lower, n, inverse):
    """inverse[:n, :n] = that of a lower triangle, with its zeros."""
    for i in range(n):
        for j in range(n):
            inverse[i, j] = 0.0
        inverse[i, i] = 1.0
        for k in range(i):
            for j in range(k + 1):
                inverse[i, j] -= lower[i, k] * inverse[k, j]
        scale = 1.0 / lower[i, i]
        for j in range(i + 1):
            inverse[i, j] *= scale


@kernel
def _summarize_group(X, weight, frame, rows, columns, n_seen, mean, gap, lower):
    """mean (o,) of rows in the frame, lower (o, o) with lower lower' their scatter about it; returns their weight."""
    total = 0.0
    for i in range(n_seen):
        mean[i] = 0.0
        for j in range(n_seen):
            lower[i, j] = 0.0
    for n in rows:
        w = weight[n, 0] if weight.shape[0] > 0 else 1.0
        total += w
        for i in range(n_seen):
            d = columns[i]
            mean[i] += w * ((X[n, d] - frame[0, d]) * frame[1, d])
    for i in range(n_seen):
        mean[i] /= total
    for n in rows:
        w = weight[n, 0] if weight.shape[0] > 0 else 1.0
        for i in range(n_seen):
            d = columns[i]
            gap[i] = (X[n, d] - frame[0, d]) * frame[1, d] - mean[i]
            value = w * gap[i]
            for j in range(i + 1):
                lower[i, j] += value * gap[j]
    for j in range(n_seen):  # a factor in place, with 0 where a column depends on those before
        variance = lower[j, j]
        for k in range(j):
            lower[j, j] -= lower[j, k] * lower[j, k]
        pivot = lower[j, j]
        known = pivot > 1e-15 * n_seen * variance
        lower[j, j] = np.sqrt(pivot) if known else 0.0
        for i in range(j + 1, n_seen):
            for k in range(j):
                lower[i, j] -= lower[i, k] * lower[j, k]
            lower[i, j] = lower[i, j] / lower[j, j] if known else 0.0
    return total


@from_python
@kernel
def _condense(X, weight, frame, order, starts, missing, rows, weights):
    """See `condense`."""
    n_features = X.shape[1]
    columns = np.empty(n_features, np.int64)
    mean, gap, shift = np.empty(n_features), np.empty(n_features), np.empty(n_features)
    lower = np.empty((n_features, n_features))
    place = 0
    for g in range(missing.shape[0]):
        n_seen = split_columns(missing[g], n_features, columns)
        total = _summarize_group(X, weight, frame, order[starts[g] : starts[g + 1]], columns, n_seen, mean, gap, lower)
        n = n_seen + 1
        scale = np.sqrt(n / total)
        for p in range(n):  # Helmert's contrasts: orthonormal columns, at right angles to the constant
            for j in range(n_seen):
                length = 1.0 / np.sqrt((j + 1.0) * (j + 2.0))
                shift[j] = scale * length * (1.0 if p <= j else -(j + 1.0) if p == j + 1 else 0.0)
            for d in range(n_features):
                rows[place, d] = np.nan
            for i in range(n_seen):
                value = mean[i]
                for j in range(i + 1):
                    value += lower[i, j] * shift[j]
                rows[place, columns[i]] = value
            weights[place, 0] = total / n
            place += 1


def condense(X: np.ndarray, weight: np.ndarray, frame: np.ndarray, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the frame, and their weights (n, 1), of which each pattern has the weight, mean and scatter of its own.

    A pattern of o columns becomes o + 1 rows: the corners of a simplex.
    """
    n_features = X.shape[1]
    n_rows = int((n_features - groups.n_missing + 1).sum())
    rows, weights = np.empty((n_rows, n_features)), np.empty((n_rows, 1))
    _condense(X, weight, frame, *groups, rows, weights)
    return rows, weights
