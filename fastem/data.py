"""Rows in the one form that kernels take, checked once."""

import copy
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

# A covariance of values beyond this overflows.
LARGEST = 1e152
# The variance of a column that varies by less underflows.
SMALLEST = 1e-152
_CHECKED = 2**14  # covariances that are looked at at once


# Rows (n, D), their weights (n,) or None, and their labels (n,) or None, which may be missing.
Part = tuple[Any, ...]
_FILL = 0.0, 1.0, -1  # of rows that have none of these


class Block:
    """A run of rows that an E-step takes at once.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float32 or float64, C-ordered
    weight : ndarray of shape (n_samples, 1), or (0, 1) where every weight is one; float64
    labels : ndarray of shape (n_samples,), int64, or None
        Which components a row can come from, see `labels.as_labels`. None: any of them.
    total_weight : float
    has_missing : bool
        Whether a value is NaN.
    noise : ndarray of shape (n_samples or 1, n_features or 1, n_features), or None
        Covariance of the noise that each row was measured with, or its variances; one for all rows, or none.
    notes : dict or None
        What an E-step noted for the next one over these rows, to be faster: a climb gives every block empty notes of
        its own, so that its bits depend on nothing before it. None: nothing is noted.
    """

    def __init__(
        self,
        X: np.ndarray,
        weight: np.ndarray,
        has_missing: bool | None = None,
        noise: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ):
        self.X = as_writable(X)
        self.weight = as_writable(weight)
        self._has_missing = has_missing
        self.noise = noise
        self.labels = labels
        self.total_weight = float(weight.sum()) if len(weight) else float(len(X))
        self.notes: dict[Any, Any] | None = None
        self._constants: dict[Any, Any] = {}
        self._derived: dict[Any, Block] = {}

    @property
    def has_missing(self) -> bool:
        """Whether a value is NaN; looked up once, unless it is known."""
        if self._has_missing is None:
            self._has_missing = bool(np.isnan(self.X.min()))
        return self._has_missing

    def some(self, rows: Any) -> "Block":
        """Return some of the rows, by a slice or by their numbers."""
        noise = self.noise if self.noise is None or len(self.noise) == 1 else self.noise[rows]
        known = None if self._has_missing else self._has_missing
        labels = None if self.labels is None else self.labels[rows]
        return Block(self.X[rows], self.weight[rows] if len(self.weight) else self.weight, known, noise, labels)

    def weighing(self, weight: np.ndarray) -> "Block":
        """Return the same rows with other weights (n, 1)."""
        return Block(self.X, weight, self._has_missing, self.noise, self.labels)

    @property
    def n_counting(self) -> int:
        """Number of rows of positive weight."""
        return int(np.count_nonzero(self.weight)) if len(self.weight) else len(self.X)

    @property
    def counts(self) -> np.ndarray:
        """Weights (n_samples,), ones where none are kept."""
        return self.weight[:, 0] if len(self.weight) else np.ones(len(self.X))

    @property
    def codes(self) -> np.ndarray:
        """Labels (n_samples,), -1 where none are kept."""
        return np.full(len(self.X), -1) if self.labels is None else self.labels

    def part(self, first: int, last: int) -> "Block":
        """Return some of the rows."""
        return self.some(slice(first, last))

    def holding(self, X: np.ndarray) -> "Block":
        """Return other rows, complete ones, of the same weights and labels."""
        return Block(X, self.weight, False, labels=self.labels)

    def by_label(self) -> list[tuple[int, "Block"]]:
        """Return the rows of each label, in blocks without labels; -1 is any component.

        They are copies, kept as long as the rows themselves, and their notes are with those of this block.
        """
        if self.labels is None:
            return [(-1, self)]
        codes = self.constant("codes", lambda block: np.unique(block.codes).tolist())
        groups = []
        for code in codes:
            group = self.derived(("label", code), functools.partial(Block._of_label, code=code, is_all=len(codes) == 1))
            if self.notes is not None:
                group = copy.copy(group)
                group.notes = self.notes.setdefault(("label", code), {})
            groups.append((code, group))
        return groups

    def _of_label(self, code: int, is_all: bool) -> "Block":
        block = self if is_all else self.some(np.flatnonzero(self.codes == code))
        return Block(block.X, block.weight, block._has_missing, block.noise)

    def shuffled(self, n_rows: int, rng: np.random.Generator) -> Iterator["Block"]:
        """Yield copies of the rows in random order, so many at a time."""
        order = rng.permutation(len(self.X))
        for first in range(0, len(order), n_rows):
            yield self.some(order[first : first + n_rows])

    def with_notes(self) -> "Block":
        """Return the same rows and constants with empty notes."""
        block = copy.copy(self)
        block.notes = {}
        return block

    def keeping(self, constants: dict[Any, Any], notes: dict[Any, Any] | None) -> "Block":
        """Return the same rows with constants and notes that outlive them."""
        self._constants, self.notes = constants, notes
        return self

    def derived(self, key: Any, compute: Callable[["Block"], "Block"]) -> "Block":
        """Return compute(self), rows made of these rows, from memory as long as these are there themselves."""
        if key not in self._derived:
            self._derived[key] = compute(self)
        return self._derived[key]

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


def as_writable(array: np.ndarray) -> np.ndarray:
    """View of a read-only array, such as a memory map, as a writable one; kernels never write to rows or weights.

    numba compiles a kernel anew for read-only arrays: 20 s for the same machine code.
    """
    return array if array.flags.writeable else np.asarray(_Memory(array))


class Summary(NamedTuple):
    """Weighted moments and extremes of each column, of the rows that count and have a value there."""

    weight: Any  # one number, or that of each column (D,) where values are missing
    mean: np.ndarray  # (D,)
    variance: np.ndarray  # (D,)
    low: np.ndarray  # (D,)
    high: np.ndarray  # (D,)

    @property
    def reach(self) -> np.ndarray:
        """Largest distance (D,) from the mean."""
        return np.maximum(self.high - self.mean, self.mean - self.low)

    @property
    def magnitude(self) -> np.ndarray:
        """Largest absolute value (D,)."""
        return np.maximum(-self.low, self.high)


class Data:
    """Blocks of rows with the same columns, to be passed over again and again."""

    def __init__(self, blocks: list[Block]):
        if len({(block.X.shape[1], block.X.dtype) for block in blocks}) != 1:
            raise ValueError("blocks must be at least one, of the same number of columns and dtype")
        self.blocks = blocks
        self.n_features = blocks[0].X.shape[1]
        self.n_samples = sum(len(block.X) for block in blocks)
        self.total_weight = sum(block.total_weight for block in blocks)
        self.dtype = blocks[0].X.dtype
        self.n_counting = sum(block.n_counting for block in blocks)
        self.is_weighted = any(len(block.weight) for block in blocks)
        self.is_labelled = any(block.labels is not None for block in blocks)
        self._summary: Summary | None = None

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def with_notes(self) -> "Data":
        """Return the same blocks, each with empty notes."""
        return Data([block.with_notes() for block in self.blocks])

    @property
    def has_missing(self) -> bool:
        """Whether a value is NaN."""
        return any(block.has_missing for block in self)

    @property
    def noise(self) -> np.ndarray | None:
        """Noise of the first rows, which tells whether there is any, and its form."""
        return next(iter(self)).noise

    @property
    def summary(self) -> Summary:
        """Moments of the columns, computed once (`cached_property` holds a lock meanwhile, which a fork would copy)."""
        if self._summary is None:
            self._summary = functools.reduce(merge_summaries, map(summarize, filter(_counts, self)))
        return self._summary

    def recut(self, n_rows: int) -> "Data":
        """Return the same rows in blocks of so many, the last of each old block aside."""
        data = Data([block.part(i, i + n_rows) for block in self for i in range(0, len(block.X), n_rows)])
        data._summary = self._summary
        return data

    def shuffled(self, n_rows: int, rng: np.random.Generator) -> Iterator[Block]:
        """Yield the rows in random order, so many at a time; those of a block stay together."""
        for number in rng.permutation(len(self.blocks)):
            yield from self.blocks[number].shuffled(n_rows, rng)

    def draw(self, n_rows: int, rng: np.random.Generator) -> np.ndarray:
        """Return the numbers of rows in random order: different ones, or drawn by their weight if they have any."""
        if not self.is_weighted:
            return rng.choice(self.n_samples, n_rows, replace=False)
        totals = [float(np.cumsum(block.counts)[-1]) for block in self]
        places = rng.random(n_rows) * sum(totals)
        drawn = np.empty(n_rows, np.int64)
        first, below = 0, 0.0
        for block, total in zip(self, totals, strict=True):
            here = places >= below  # later blocks write over what lies beyond this one
            if total > 0 and here.any():
                drawn[here] = first + _at_weight(np.cumsum(block.counts), places[here] - below)
            first, below = first + len(block.X), below + total
        return drawn

    def take(self, rows: np.ndarray) -> "Data":
        """Return a copy of the rows of these numbers, in the order of the data, as one block without weights."""
        rows = np.sort(rows)
        parts, first = [], 0
        for block in self:
            last = first + len(block.X)
            chosen = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last)] - first
            parts.append(block.some(chosen))
            first = last
        return Data([_joined([part for part in parts if len(part.X)], np.empty((0, 1)))])

    def resampled(self, rng: np.random.Generator) -> "Data":
        """Return the same rows with random weights of the same total, as the weighted bootstrap takes them.

        They are exponential; that of a row that counts w times is the sum of w, a gamma variable.
        """
        drawn = Data([block.weighing(rng.standard_gamma(block.counts[:, None])) for block in self])
        factor = self.total_weight / drawn.total_weight
        return Data([block.weighing(block.weight * factor) for block in drawn])

    def whole(self) -> "Data":
        """Return the same rows, weights and labels as one block."""
        blocks = list(self)
        if len(blocks) == 1:
            return Data(blocks)
        weights = [block.counts[:, None] for block in blocks] if self.is_weighted else [np.empty((0, 1))]
        return Data([_joined(blocks, np.concatenate(weights))])


def _joined(blocks: list[Block], weight: np.ndarray) -> Block:
    """The rows of all blocks as one."""
    noise = blocks[0].noise
    if noise is not None and not all(block.noise is noise and len(noise) == 1 for block in blocks):
        parts = ((np.asarray(block.noise), (len(block.X), *noise.shape[1:])) for block in blocks)
        noise = np.concatenate([np.broadcast_to(part, shape) for part, shape in parts])
    labels = None
    if any(block.labels is not None for block in blocks):
        labels = np.concatenate([block.codes for block in blocks])
    X = np.concatenate([block.X for block in blocks])
    return Block(X, weight, any(block.has_missing for block in blocks), noise, labels)


class Derived(Data):
    """Rows made of those of other data, block by block or in parts of these."""

    def __init__(self, data: Data, derive: Callable[[Block], Block], n_rows: int | None = None):
        self._data, self._derive, self._n_rows = data, derive, n_rows
        self.n_samples, self.n_counting = data.n_samples, data.n_counting
        self.total_weight, self.is_weighted = data.total_weight, data.is_weighted
        self.is_labelled = data.is_labelled
        first = next(iter(self)).X
        self.n_features, self.dtype = first.shape[1], first.dtype
        self._summary = None

    def __iter__(self) -> Iterator[Block]:
        for block in self._data:
            if self._n_rows is None:
                yield self._derive(block)
                continue
            for first in range(0, len(block.X), self._n_rows):
                yield self._derive(block.part(first, first + self._n_rows))


def draw_by_weight(weight: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices drawn with probability proportional to the weight, again and again; never one of weight 0."""
    cumulative = np.cumsum(weight)
    return _at_weight(cumulative, rng.random(size) * cumulative[-1])


def _at_weight(cumulative: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Indices of the rows at these places of the cumulated weights; beyond their end, the last that has any."""
    last = int(np.searchsorted(cumulative, cumulative[-1]))
    return np.minimum(np.searchsorted(cumulative, places, side="right"), last)


def _counts(block: Block) -> bool:
    return block.n_counting > 0


def as_data(
    data: Any,
    sample_weight: Any = None,
    labels: np.ndarray | None = None,
    *,
    allow_nan: bool = False,
    noise_covariance: Any = None,
) -> Data:
    """Return rows as Data; arrays are checked (see `as_rows`, `as_weight`, `as_noise`), Data passes through.

    Labels (n_samples,) are checked but for their number.
    """
    if isinstance(data, Data):
        if sample_weight is not None:
            raise ValueError("sample_weight: the weights are already in the Data object; give them once")
        if labels is not None:
            raise ValueError("labels: those of a Data object are in its blocks; give them there")
        return data
    X, has_missing = checked_rows(data, allow_nan=allow_nan)
    noise = None if noise_covariance is None else as_noise(noise_covariance, X, has_missing)
    check_number_of_labels(labels, len(X))
    return Data([Block(X, as_weight(sample_weight, len(X)), has_missing, noise, labels)])


def check_number_of_labels(labels: np.ndarray | None, n_samples: int) -> None:
    """Refuse labels that are not one for each row."""
    if labels is not None and len(labels) != n_samples:
        raise ValueError(f"labels are for {len(labels)} rows; one per row of X is needed: {n_samples}")


def cut(parts: list[Part], n_rows: int) -> tuple[Part, list[Part]]:
    """The first n_rows of the parts as one, and the parts that are left.

    Where only some have weights, others get 1; where only some have labels, others get -1.
    """
    taken: list[Part] = []
    rest: list[Part] = []
    left = n_rows
    for number, part in enumerate(parts):
        taken.append(_piece(part, slice(left)))
        if len(part[0]) >= left:
            rest = parts[number + 1 :]
            if len(part[0]) > left:
                rest = [_piece(part, slice(left, None)), *rest]
            break
        left -= len(part[0])
    if len(taken) == 1:
        return taken[0], rest
    sizes = [len(part[0]) for part in taken]
    joined = [
        None
        if all(part is None for part in values)
        else np.concatenate([np.full(n, fill) if part is None else part for part, n in zip(values, sizes, strict=True)])
        for values, fill in zip(itertools.zip_longest(*taken), _FILL, strict=False)
    ]
    return tuple(joined), rest


def _piece(part: Part, rows: slice) -> Part:
    return tuple(None if values is None else values[rows] for values in part)


def is_integer(value: Any, at_least: int) -> bool:
    """Whether an argument is an integer of at least so much."""
    return isinstance(value, Integral) and int(value) >= at_least


def is_real(value: Any, at_least: float) -> bool:
    """Whether an argument is a finite real number of at least so much."""
    return isinstance(value, Real) and at_least <= float(value) < np.inf


def as_numbers(name: str, values: Any) -> np.ndarray:
    """Return an array of real numbers (bool, integer or float), or refuse the argument by its name.

    Raises
    ------
    ValueError or TypeError
        For strings, dates, records, complex numbers, ragged lists, masked or sparse arrays, and objects that are not
        numbers.
    """
    if hasattr(values, "tocsr"):
        raise ValueError(f"{name} is sparse, which is not supported; convert it with .toarray()")
    if np.ma.is_masked(values):
        raise ValueError(f"{name} is a masked array, whose mask would be ignored; fill it or drop masked rows")
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":
            array = np.where(_is_na(array), math.nan, array)
            words = next((entry for entry in array.flat if isinstance(entry, str | bytes)), None)
            if words is not None:
                raise ValueError(f"{words!r} is a string")
            array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} holds objects that are not numbers ({error}); encode or drop them") from None
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}; give real numbers")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}; it must hold real numbers: encode or drop other columns")
    return array


def _is_na(array: np.ndarray) -> np.ndarray:
    """Which entries of an array of objects are pandas.NA, which does not turn into a number."""
    return np.array([type(entry).__name__ == "NAType" for entry in array.flat], bool).reshape(array.shape)


def finite_array(name: str, values: Any, n_dimensions: int) -> np.ndarray:
    """Return a float64 copy of an array of finite numbers."""
    array = np.array(as_numbers(name, values), dtype=np.float64)
    if array.ndim != n_dimensions or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; {n_dimensions} dimensions and no empty one are needed")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; every entry must be finite")
    return array


def as_rows(data: Any, name: str = "X", first_row: int = 0, *, allow_nan: bool = False) -> np.ndarray:
    """Return a C-ordered, native float32 or float64 array of shape (n_samples, n_features), copied only if needed.

    With `allow_nan`, NaN is a value that is missing.

    Raises
    ------
    ValueError or TypeError
        Names what is wrong: not numeric (see `as_numbers`), not two-dimensional, empty, NaN or infinite (with its
        place, where the first row has the number `first_row`), or beyond 1e152, where squares overflow.
    """
    return checked_rows(data, name, first_row, allow_nan=allow_nan)[0]


def checked_rows(data: Any, name: str = "X", first_row: int = 0, *, allow_nan: bool = False) -> tuple[np.ndarray, bool]:
    """Return what `as_rows` does, and whether a value is missing."""
    X = as_numbers(name, data)
    if X.ndim != 2:
        cure = (
            f"Reshape your data: {name}.reshape(-1, 1) is a single column" if X.ndim == 1 else "give a row per sample"
        )
        raise ValueError(f"{name} has {X.ndim} dimension(s), but (n_samples, n_features) is needed. {cure}")
    for size, what in zip(X.shape, ("sample(s)", "feature(s)"), strict=True):
        if size == 0:
            raise ValueError(f"{name} has 0 {what} (shape={X.shape}) while a minimum of 1 is required.")
    dtype = np.float32 if X.dtype == np.float32 else np.float64
    X = np.ascontiguousarray(X, dtype=dtype)
    return X, _check_finite(X, name, first_row, allow_nan)


def _check_finite(X: np.ndarray, name: str, first_row: int, allow_nan: bool) -> bool:
    """Refuse numbers that cannot be computed with; return whether some are missing."""
    if float(X.min()) >= -LARGEST and float(X.max()) <= LARGEST:  # not with a NaN
        return False
    if allow_nan:
        low, high = column_extremes(X, known=True)
        bad = (low < -LARGEST) | (high > LARGEST)
    else:
        low, high = column_extremes(X)
        bad = ~((low >= -LARGEST) & (high <= LARGEST))
    if not bad.any():
        return True
    column = int(np.flatnonzero(bad)[0])
    values = X[:, column].astype(np.float64)
    if allow_nan:
        values[np.isnan(values)] = 0.0
    row = int(np.flatnonzero(~(np.abs(values) <= LARGEST))[0])
    value = values[row]
    if np.isfinite(value):
        raise ValueError(f"{name}[{first_row + row}, {column}] is {value}: its square overflows; rescale the column")
    kind = "NaN" if np.isnan(value) else "infinity"
    raise ValueError(f"{name} contains {kind} at row {first_row + row}, column {column}; drop or impute such rows")


def column_extremes(X: np.ndarray, known: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each column, float64; NaN where a column holds one, or `known` nothing else.

    Rows are folded 64 into one first: NumPy's reduction over rows is 10 times slower where they are short.
    """
    n_rows, n_features = X.shape
    whole = n_rows - n_rows % 64
    ends = []
    for extreme in (np.fmin.reduce, np.fmax.reduce) if known else (np.minimum.reduce, np.maximum.reduce):
        folded = X[whole:]
        if whole:
            folded = extreme(X[:whole].reshape(-1, 64 * n_features), axis=0).reshape(64, n_features)
            if whole < n_rows:
                folded = np.concatenate([folded, X[whole:]])
        ends.append(extreme(folded, axis=0).astype(np.float64))
    return ends[0], ends[1]


def as_noise(noise_covariance: Any, X: np.ndarray, has_missing: bool) -> np.ndarray:
    """Return covariances (n, D, D) or variances (n, 1, D) of the noise of rows X (N, D), float64; n is N, or 1 for all.

    Raises
    ------
    ValueError or TypeError
        If a shape does not fit, or may mean two things, if one is not finite or not symmetric positive semidefinite, or
        if values of X are missing.
    """
    noise = as_numbers("noise_covariance", noise_covariance).astype(np.float64, copy=False)
    n_samples, n_features = X.shape
    shapes = (n_samples, n_features, n_features), (n_samples, n_features), (n_features, n_features), (n_features,)
    if noise.shape not in shapes:
        raise ValueError(f"noise_covariance has shape {noise.shape}; one of {list(dict.fromkeys(shapes))} is needed")
    if noise.shape == (n_samples, n_features) and n_samples == n_features > 1:
        raise ValueError(
            f"noise_covariance of shape {noise.shape} may be variances of each row or the covariance of all; give "
            f"{(n_samples, n_features, n_features)} or {(n_features,)}"
        )
    if has_missing:
        raise ValueError("X has missing values, for which there can be no noise_covariance; drop or impute such rows")
    if noise.shape in ((n_samples, n_features), (n_features,)):
        noise = noise.reshape(-1, 1, n_features)
    else:
        noise = noise.reshape(-1, n_features, n_features)
    noise = as_writable(np.ascontiguousarray(noise))
    for first in range(0, len(noise), _CHECKED):
        part = noise[first : first + _CHECKED]
        bad = ~_is_semidefinite(part)
        if bad.any():
            row = first + int(np.flatnonzero(bad)[0])
            where = "noise_covariance" if len(noise) == 1 else f"noise_covariance[{row}]"
            raise ValueError(f"{where} must be finite and symmetric positive semidefinite")
    return noise


def _is_semidefinite(stack: np.ndarray) -> np.ndarray:
    """Whether each covariance (n, D, D), or row of variances (n, 1, D), is one."""
    finite = (np.abs(stack) <= LARGEST).all(axis=(1, 2))
    if stack.shape[1] < stack.shape[2]:
        return finite & (stack >= 0).all(axis=(1, 2))
    stack = np.where(finite[:, None, None], stack, 0.0)
    variances = np.diagonal(stack, axis1=1, axis2=2)
    good = finite & (variances >= 0).all(axis=1)
    unit = np.sqrt(np.where(variances > 0, variances, 1.0))
    scaled = stack / (unit[:, :, None] * unit[:, None, :])
    good &= (np.abs(scaled - np.swapaxes(scaled, 1, 2)) <= 1e-8).all(axis=(1, 2))
    return good & (np.linalg.eigvalsh(scaled)[:, 0] >= -1e-8)


def as_weight(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Return weights as (n_samples, 1) float64, or (0, 1) for None."""
    if sample_weight is None:
        return np.empty((0, 1))
    weight = as_part_of_weight(sample_weight, n_samples)
    with np.errstate(over="ignore"):
        check_total_weight(float(weight.sum()))
    return weight


def as_part_of_weight(
    sample_weight: Any, n_samples: int, first_row: int = 0, name: str = "sample_weight"
) -> np.ndarray:
    """Return weights of some rows, or sequences, as (n_samples, 1) float64; they may all be zero."""
    weight = as_numbers(name, sample_weight)
    if weight.shape != (n_samples,):
        what = "row" if name == "sample_weight" else "sequence"
        raise ValueError(f"{name} has shape {weight.shape}; one weight per {what} is needed: ({n_samples},)")
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        row = int(np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))[0])
        raise ValueError(f"{name}[{first_row + row}] is {weight[row]}; weights must be finite and not negative")
    return weight.reshape(-1, 1)


def check_total_weight(total: float, name: str = "sample_weight") -> None:
    """Refuse weights that say nothing, or that cannot be divided by."""
    if total == 0:
        raise ValueError(f"{name} is zero for every row; at least one row must count")
    if not np.isfinite(total):
        raise ValueError(f"{name} sums to infinity; divide the weights by a constant")
    if total < 1e-306:
        raise ValueError(f"{name} sums to {total}, too small to divide by; multiply the weights by a constant")


def summarize(block: Block) -> Summary:
    """Moments and extremes of the columns of a block, some row of which counts.

    In two passes over chunks of rows, so that no large temporary is made.
    """
    if block.has_missing:
        return _summarize_known(block)
    weight = block.total_weight
    counted = (x if w.all() else x[w > 0] for x, w in chunks([block]) if w.any())
    lows, highs = zip(*(column_extremes(x) for x in counted), strict=True)
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    mean = np.clip(sum(weighted_sum(w / weight, x) for x, w in chunks([block])), low, high)
    reach = np.maximum(high - mean, mean - low)
    unit = np.where(reach > 0, reach, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):  # rows of weight 0 may lie anywhere
        variance = sum(weighted_sum(w / weight, squares((x - mean) / unit, w)) for x, w in chunks([block])) * unit**2
    return Summary(weight, mean, variance, low, high)


def _summarize_known(block: Block) -> Summary:
    """The same where values are missing; a column without any has weight 0, and every moment 0."""

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for x, w in chunks([block]):
            yield x[w > 0], w[w > 0, None]

    weight = sum((w * ~np.isnan(x)).sum(axis=0) for x, w in parts())
    lows, highs = zip(*(column_extremes(x, known=True) for x, _ in parts() if len(x)), strict=True)
    low = np.where(weight > 0, np.fmin.reduce(lows, axis=0), 0.0)
    high = np.where(weight > 0, np.fmax.reduce(highs, axis=0), 0.0)
    per_unit = 1.0 / np.where(weight > 0, weight, 1.0)
    mean = np.clip(sum(np.nansum(w * per_unit * x, axis=0) for x, w in parts()), low, high)
    reach = np.maximum(high - mean, mean - low)
    unit = np.where(reach > 0, reach, 1.0)
    variance = sum(np.nansum(w * per_unit * ((x - mean) / unit) ** 2, axis=0) for x, w in parts()) * unit**2
    return Summary(weight, mean, variance, low, high)


def merge_summaries(one: Summary, two: Summary) -> Summary:
    """Summary of the rows of both: Chan, Golub & LeVeque (1983), Amer. Statist. 37, 242-247, equation 2.1."""
    weight = one.weight + two.weight
    share = two.weight / weight if np.ndim(weight) == 0 else two.weight / np.where(weight > 0, weight, 1.0)
    gap = two.mean - one.mean
    low, high = np.minimum(one.low, two.low), np.maximum(one.high, two.high)
    if np.ndim(weight):  # a column without a value has no extremes
        low = np.where(one.weight > 0, np.where(two.weight > 0, low, one.low), two.low)
        high = np.where(one.weight > 0, np.where(two.weight > 0, high, one.high), two.high)
    mean = np.clip(one.mean + share * gap, low, high)
    variance = (1 - share) * one.variance + share * two.variance + share * (1 - share) * gap**2
    return Summary(weight, mean, variance, low, high)


def weighted_sum(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """sum_i weight_i x_i over rows (n, ...); not by BLAS, whose bits depend on its number of threads."""
    return np.einsum("n,n...->...", weight, x)


def squares(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x**2, and 0 in rows of weight 0."""
    return np.square(x, out=x) if weight.all() else np.where(weight[:, None] > 0, x**2, 0.0)


def chunks(data: Iterable[Block], n_rows: int = 16384) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows as float64 and their weights (n,), a bounded number at a time."""
    for block in data:
        for first in range(0, len(block.X), n_rows):
            x = block.X[first : first + n_rows].astype(np.float64, copy=False)
            w = block.weight[first : first + n_rows, 0] if len(block.weight) else np.ones(len(x))
            yield x, w
