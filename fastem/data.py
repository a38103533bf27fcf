"""Rows in the one form that kernels take, checked once."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

# A covariance of values beyond this overflows.
LARGEST = 1e152
# The variance of a column that varies by less underflows.
SMALLEST = 1e-152


class Block:
    """A run of rows that an E-step takes at once.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float32 or float64, C-ordered
    weight : ndarray of shape (n_samples, 1), or (0, 1) where every weight is one; float64
    total_weight : float
    """

    def __init__(self, X: np.ndarray, weight: np.ndarray):
        self.X = _as_writable(X)
        self.weight = _as_writable(weight)
        self.total_weight = float(weight.sum()) if len(weight) else float(len(X))
        self._constants: dict[Any, Any] = {}

    def constant(self, key: Any, compute: Callable[["Block"], Any]) -> Any:
        """Return compute(self), from memory if this key was asked for before."""
        if key not in self._constants:
            self._constants[key] = compute(self)
        return self._constants[key]


class _Memory:
    """Holds an array alive and shows its memory as writable."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def _as_writable(array: np.ndarray) -> np.ndarray:
    """View of a read-only array, such as a memory map, as a writable one; kernels never write to rows or weights.

    numba compiles a kernel anew for read-only arrays: 20 s for the same machine code.
    """
    return array if array.flags.writeable else np.asarray(_Memory(array))


class Summary(NamedTuple):
    """Weighted moments of each column and the largest distance of any row from the mean."""

    weight: float
    mean: np.ndarray  # (D,)
    variance: np.ndarray  # (D,)
    reach: np.ndarray  # (D,) max |x - mean|
    magnitude: np.ndarray  # (D,) max |x|


class Data:
    """A sequence of blocks with the same columns."""

    def __init__(self, blocks: list[Block]):
        self.blocks = blocks
        self.n_features = blocks[0].X.shape[1]
        self.n_samples = sum(len(block.X) for block in blocks)
        self.total_weight = sum(block.total_weight for block in blocks)
        self.dtype = blocks[0].X.dtype

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)


def as_data(data: Any, sample_weight: Any = None) -> Data:
    """Return rows as Data; arrays are checked (see `as_rows`, `as_weight`), Data passes through."""
    if isinstance(data, Data):
        if sample_weight is not None:
            raise ValueError("sample_weight: the weights are already in the Data object; give them once")
        return data
    X = as_rows(data)
    return Data([Block(X, as_weight(sample_weight, len(X)))])


def as_rows(data: Any, name: str = "X") -> np.ndarray:
    """Return a C-ordered, native float32 or float64 array of shape (n_samples, n_features), copied only if needed.

    Raises
    ------
    ValueError
        Names what is wrong: not two-dimensional, empty, not numeric, complex, NaN or infinite (with its place), or
        beyond 1e152, where squares overflow.
    """
    if hasattr(data, "tocsr"):
        raise ValueError(f"{name} is a sparse matrix; convert it with {name}.toarray()")
    X = np.asarray(data)
    if X.dtype.kind == "O":
        try:
            X = X.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name} holds objects that are not numbers ({error}); encode or drop those columns"
            ) from None
    if X.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {X.dtype}; it must hold real numbers")
    if X.ndim != 2:
        cure = f"use {name}.reshape(-1, 1) for a single column" if X.ndim == 1 else "give one row per sample"
        raise ValueError(f"{name} has {X.ndim} dimension(s), but (n_samples, n_features) is needed; {cure}")
    if X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(f"{name} has shape {X.shape}; at least one sample and one feature are needed")
    dtype = np.float32 if X.dtype == np.float32 else np.float64
    X = np.ascontiguousarray(X, dtype=dtype)
    _check_finite(X, name)
    return X


def _check_finite(X: np.ndarray, name: str) -> None:
    low, high = (np.asarray(end, dtype=np.float64) for end in (X.min(axis=0), X.max(axis=0)))
    bad = ~((low >= -LARGEST) & (high <= LARGEST))
    if not bad.any():
        return
    column = int(np.flatnonzero(bad)[0])
    values = X[:, column].astype(np.float64)
    row = int(np.flatnonzero(~(np.abs(values) <= LARGEST))[0])
    value = values[row]
    if np.isfinite(value):
        raise ValueError(f"{name}[{row}, {column}] is {value}: its square overflows; rescale the column")
    kind = "NaN" if np.isnan(value) else "infinity"
    raise ValueError(f"{name} contains {kind} at row {row}, column {column}; drop or impute such rows")


def as_weight(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Return weights as (n_samples, 1) float64, or (0, 1) for None."""
    if sample_weight is None:
        return np.empty((0, 1))
    weight = np.asarray(sample_weight)
    if weight.dtype.kind not in "biuf":
        raise ValueError(f"sample_weight has dtype {weight.dtype}; it must hold real numbers")
    if weight.shape != (n_samples,):
        raise ValueError(f"sample_weight has shape {weight.shape}; one weight per row is needed: ({n_samples},)")
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    if not np.isfinite(weight).all() or weight.min() < 0:
        row = int(np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))[0])
        raise ValueError(f"sample_weight[{row}] is {weight[row]}; weights must be finite and not negative")
    if not weight.any():
        raise ValueError("sample_weight is zero for every row; at least one row must count")
    if not np.isfinite(weight.sum()):
        raise ValueError("sample_weight sums to infinity; divide the weights by a constant")
    return weight.reshape(-1, 1)


def summarize(data: Data) -> Summary:
    """Moments of each column in two passes over chunks of rows, so that no large temporary is made."""
    weight = data.total_weight
    low = np.min([block.X.min(axis=0) for block in data], axis=0).astype(np.float64)
    high = np.max([block.X.max(axis=0) for block in data], axis=0).astype(np.float64)
    mean = np.clip(sum((w / weight) @ x for x, w in chunks(data)), low, high)
    reach = np.maximum(high - mean, mean - low)
    unit = np.where(reach > 0, reach, 1.0)
    variance = sum((w / weight) @ ((x - mean) / unit) ** 2 for x, w in chunks(data)) * unit**2
    return Summary(weight, mean, variance, reach, np.maximum(-low, high))


def chunks(data: Data, n_rows: int = 16384) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows as float64 and their weights (n,), a bounded number at a time."""
    for block in data:
        for first in range(0, len(block.X), n_rows):
            x = block.X[first : first + n_rows].astype(np.float64, copy=False)
            w = block.weight[first : first + n_rows, 0] if len(block.weight) else np.ones(len(x))
            yield x, w
