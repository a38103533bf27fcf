"""Rows that need not fit in memory: files, memory maps, Arrow data, or whatever yields blocks afresh for each pass.

Rows are cut into blocks of equal numbers, whatever pieces they come in, and read ahead of their use by a thread.
"""

import contextlib
import copy
import functools
import math
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastem.data import (
    Block,
    Data,
    Part,
    Summary,
    as_data,
    as_part_of_weight,
    as_rows,
    check_number_of_labels,
    check_total_weight,
    checked_rows,
    cut,
    is_integer,
    merge_summaries,
    summarize,
)

_BLOCK_BYTES = 2**24
_PIECES = 16  # of a block, from as many places, where rows are to be mixed
_DENSE = 8  # a file is gone through where more than one row in so many is wanted
_AHEAD = 2  # blocks that wait; two more are read and used
_ARROW_FORMATS = {".parquet": "parquet", ".arrow": "ipc", ".feather": "ipc"}


class Blocks:
    """Rows to be read in blocks, afresh for each pass over them; `fit` takes it for X.

    A path, a memory map or Arrow data may be given to `fit` as they are; this says how they are to be read.

    Parameters
    ----------
    source : path, array, memory map, Arrow dataset or table, callable, or iterable
        * a path to a `.npy` file of a matrix, which is read with ordinary reads, never mapped;
        * a path to a `.parquet`, `.arrow` or `.feather` file, or a folder of Parquet files (needs pyarrow);
        * a pyarrow Dataset or Table;
        * a NumPy array or memory map of shape (n_samples, n_features);
        * a callable without arguments that returns an iterator over blocks, or an object whose `iter()` starts anew
          each time; a block is an array of rows, or a pair of rows and their weights. They are drawn in another thread.
    block_rows : int, default=None
        Rows of a block. Up to four blocks are in memory at once. None: 16 MiB, a power of two.
    columns : sequence of str, default=None
        Columns of Arrow data to take, in this order. None: all but `weight`.
    weight : str, default=None
        Column of Arrow data that holds the weights of the rows.

    Raises
    ------
    ValueError or TypeError
        If the source cannot be read, or not again.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> blocks = fastem.Blocks(lambda: (X[i : i + 100] for i in range(0, 1000, 100)), block_rows=250)
    >>> gm = fastem.GaussianMixture(n_components=1, random_state=0).fit(blocks)
    >>> bool(np.allclose(gm.means_[0], X.mean(axis=0)))
    True
    """

    def __init__(
        self,
        source: Any,
        block_rows: int | None = None,
        *,
        columns: Sequence[str] | None = None,
        weight: str | None = None,
    ):
        if block_rows is not None and not is_integer(block_rows, 1):
            raise ValueError(f"block_rows must be None or a positive integer; got {block_rows!r}")
        self.block_rows = None if block_rows is None else int(block_rows)
        self.source = _opened(source, columns, weight)
        if isinstance(self.source, _Arrow):
            self.names: list[str] | None = self.source.names
        elif columns is not None or weight is not None:
            name = "columns" if columns is not None else "weight"
            raise ValueError(f"{name} is for Arrow data, whose columns have names; choose in the blocks of others")
        else:
            self.names = None

    def __iter__(self) -> Iterator[Part]:
        """One pass: rows (block_rows, n_features), float32 or float64, and their weights or None."""
        return _ahead(lambda: _recut(self.source.parts(self.block_rows), self.block_rows))

    def recut(self, block_rows: int) -> "Blocks":
        """The same rows in other blocks."""
        blocks = copy.copy(self)
        blocks.block_rows = block_rows
        return blocks

    def mixed(self, rng: np.random.Generator) -> tuple["Blocks", list[slice]]:
        """The same rows in blocks of pieces from anywhere, and where these were.

        A source that can only be read in order is returned as it is.
        """
        if not isinstance(self.source, _Array):
            return self, [slice(None)]
        n_rows, n_features = self.source.shape
        block_rows = self.block_rows or _block_rows(n_features, self.source.dtype.itemsize)
        piece = max(1, block_rows // _PIECES)
        pieces = [slice(i * piece, min((i + 1) * piece, n_rows)) for i in rng.permutation(-(-n_rows // piece))]
        blocks = self.recut(block_rows)
        blocks.source = _Pieces(self.source, pieces)
        return blocks, pieces

    def take(self, rows: np.ndarray) -> np.ndarray | None:
        """Rows of these numbers, ascending, or None if they take a pass to find."""
        return self.source.take(rows)


class Stored(Data):
    """Rows that are read from a source for each pass; they are checked in the first."""

    def __init__(
        self, source: Blocks, sample_weight: Any = None, labels: np.ndarray | None = None, *, allow_nan: bool = False
    ):
        self._source, self._allow_nan = source, allow_nan
        self._labels, self.is_labelled = labels, labels is not None
        self._weight = None if sample_weight is None else np.asarray(sample_weight)
        self._kept: list[dict[Any, Any]] = []  # constants of each block
        self._missing: list[bool | None] = []  # whether values of it are
        self._notes: list[dict[Any, Any]] | None = None
        self.n_samples = self.n_counting = 0
        self.total_weight = 0.0
        self.is_weighted = False
        summaries: list[Summary] = []
        for number, (X, weight) in enumerate(self._read()):
            first = self.n_samples
            if number == 0:
                self.n_features, self.dtype = X.shape[1], X.dtype
            rows, has_missing = checked_rows(X, "X", first, allow_nan=allow_nan)
            block = Block(rows, self._weight_of(weight, first, len(X)), has_missing)
            self._missing.append(has_missing)
            self._kept.append({})
            self.n_samples += len(X)
            self.n_counting += block.n_counting
            self.total_weight += block.total_weight
            self.is_weighted |= len(block.weight) > 0
            if block.n_counting:
                summaries.append(summarize(block))
        if self.n_samples == 0:
            raise ValueError("X has 0 sample(s) while a minimum of 1 is required.")
        if self._weight is not None:
            as_part_of_weight(self._weight, self.n_samples)
        check_number_of_labels(labels, self.n_samples)
        check_total_weight(self.total_weight)
        self._summary = functools.reduce(merge_summaries, summaries)

    @property
    def names(self) -> list[str] | None:
        """Names of the columns, if the source knows them."""
        return self._source.names

    def __iter__(self) -> Iterator[Block]:
        n_rows = 0
        with contextlib.closing(self._read()) as parts:
            for number, (X, weight) in enumerate(parts):
                if number == len(self._kept) or X.shape[1] != self.n_features or X.dtype != self.dtype:
                    raise _changed(f"a block of shape {X.shape} and dtype {X.dtype}")
                labels = None if self._labels is None else self._labels[n_rows : n_rows + len(X)]
                block = Block(X, self._weight_of(weight, n_rows, len(X)), self._missing[number], labels=labels)
                n_rows += len(X)
                yield block.keeping(self._kept[number], None if self._notes is None else self._notes[number])
        if n_rows != self.n_samples:
            raise _changed(f"{n_rows} rows after {self.n_samples}")

    @property
    def has_missing(self) -> bool:
        """Whether a value is NaN."""
        return any(missing is not False for missing in self._missing)

    @property
    def noise(self) -> None:
        """None: rows that are read have no noise of a known covariance."""
        return None

    def with_notes(self) -> "Stored":
        """Return the same rows with empty notes."""
        return self._like(_notes=[{} for _ in self._kept])

    def recut(self, n_rows: int) -> "Stored":
        """Return the same rows in blocks of so many."""
        source, n_blocks = self._source.recut(n_rows), -(-self.n_samples // n_rows)
        return self._like(_source=source, _kept=[{} for _ in range(n_blocks)], _missing=self._unknown(n_blocks))

    def shuffled(self, n_rows: int, rng: np.random.Generator) -> Iterator[Block]:
        """Yield the rows in random order within blocks, so many at a time; files fill them from many places."""
        source, pieces = self._source.mixed(rng)
        weight, labels = (
            None if values is None else np.concatenate([values[piece] for piece in pieces])
            for values in (self._weight, self._labels)
        )
        unknown = self._unknown(len(self._kept))
        for block in self._like(_source=source, _weight=weight, _labels=labels, _missing=unknown):
            yield from block.shuffled(n_rows, rng)

    def _unknown(self, n_blocks: int) -> list[bool | None]:
        """What is known of the missing values of other blocks of the same rows."""
        return [None if self.has_missing else False] * n_blocks

    def _like(self, **changed: Any) -> "Stored":
        data = object.__new__(type(self))
        data.__dict__.update(self.__dict__, **changed)
        return data

    def take(self, rows: np.ndarray) -> Data:
        """Return a copy of the rows of these numbers, in the order of the data, as one block without weights."""
        rows = np.sort(rows)
        found = self._source.take(rows)
        if found is None:
            return super().take(rows)
        labels = None if self._labels is None else self._labels[rows]
        found, has_missing = checked_rows(found, allow_nan=self._allow_nan)
        return Data([Block(found, np.empty((0, 1)), has_missing, labels=labels)])

    def _read(self):
        return iter(self._source)

    def _weight_of(self, weight: np.ndarray | None, first: int, n_rows: int) -> np.ndarray:
        if self._weight is None:
            return np.empty((0, 1)) if weight is None else as_part_of_weight(weight, n_rows, first)
        if weight is not None:
            raise ValueError("sample_weight: the blocks of X have weights already; give them once")
        part = self._weight[first : first + n_rows]
        if self._weight.ndim != 1 or len(part) < n_rows:
            raise ValueError(f"sample_weight has shape {self._weight.shape}; one weight per row of X is needed")
        return as_part_of_weight(part, n_rows, first)


def open_data(X: Any, sample_weight: Any = None, labels: np.ndarray | None = None, *, allow_nan: bool = False) -> Data:
    """Return rows as Data, wherever they are; `Stored` if X is a source. Labels are checked but for their number."""
    if not is_source(X):
        return as_data(X, sample_weight, labels, allow_nan=allow_nan)
    return Stored(X if isinstance(X, Blocks) else Blocks(X), sample_weight, labels, allow_nan=allow_nan)


def is_source(X: Any) -> bool:
    """Whether rows are to be read in blocks: a path, a memory map, Arrow data, a callable, or what yields blocks."""
    if isinstance(X, Blocks | str | os.PathLike | np.memmap) or _is_arrow(X):
        return True
    if isinstance(X, Data | Sequence | np.ndarray) or any(hasattr(X, name) for name in _ARRAY_LIKE):
        return False
    return callable(X) or _yields(X)


_ARRAY_LIKE = ("__array__", "__array_interface__", "__dataframe__", "tocsr", "shape")


def _yields(X: Any) -> bool:
    return hasattr(X, "__iter__") and not isinstance(X, Mapping | Set)


def _is_arrow(X: Any) -> bool:
    return type(X).__module__.partition(".")[0] == "pyarrow" and hasattr(X, "to_batches")


def _changed(what: str) -> ValueError:
    return ValueError(f"X gave {what} in a later pass than the first; its blocks must be the same in every pass")


def _opened(source: Any, columns, weight):
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        suffix = os.path.splitext(path)[1].lower()
        if suffix == ".npy":
            return _File(path)
        if suffix in _ARROW_FORMATS or os.path.isdir(path):
            return _Arrow(_dataset(path, _ARROW_FORMATS.get(suffix, "parquet")), columns, weight)
        known = ", ".join([".npy", *_ARROW_FORMATS])
        raise ValueError(f"X is the path {path!r}; it must end in one of {known}, or be a folder of Parquet files")
    if _is_arrow(source):
        return _Arrow(source, columns, weight)
    if isinstance(source, np.ndarray):
        return _Array(source)
    if callable(source):
        return _Callable(source)
    if _yields(source):
        if iter(source) is source:
            raise TypeError(
                "X is an iterator, which can be read once, but EM passes over its rows many times; give a callable "
                "that returns a new one"
            )
        return _Callable(functools.partial(iter, source))
    raise TypeError(f"X must be rows, or a source of blocks of rows (see fastem.Blocks); got {type(source).__name__}")


def _block_rows(n_features: int, itemsize: int) -> int:
    return 2 ** max(0, math.floor(math.log2(_BLOCK_BYTES / (n_features * itemsize))))


class _Array:
    """An array or memory map."""

    def __init__(self, array: np.ndarray):
        if np.ma.is_masked(array):
            as_rows(array)  # says what is wrong
        _check_matrix(array[:1] if array.ndim else array)
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def parts(self, n_rows: int | None) -> Iterator[Part]:
        n_rows = n_rows or _block_rows(self.shape[1], self.dtype.itemsize)
        return self.read(slice(i, min(i + n_rows, self.shape[0])) for i in range(0, self.shape[0], n_rows))

    def read(self, pieces: Iterable[slice]) -> Iterator[Part]:
        """Copies of runs of rows."""
        for piece in pieces:
            yield np.array(self.array[piece]), None

    def take(self, rows: np.ndarray) -> np.ndarray | None:
        return np.asarray(self.array[rows])


class _Header(NamedTuple):
    """What a .npy file says of itself, and where its numbers begin."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    offset: int


class _File(_Array):
    """A .npy file: rows are read, not mapped, so that they never count as memory of the process."""

    def __init__(self, path: str):
        self.path = path
        with open(path, "rb", buffering=0) as file:
            self.header = self._header_of(file)
        self.shape, self.dtype = self.header.shape, self.header.dtype
        _check_matrix(np.empty((min(self.shape[0], 1), *self.shape[1:]) if self.shape else (), self.dtype))

    def read(self, pieces: Iterable[slice]) -> Iterator[Part]:
        with open(self.path, "rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):  # the system reads farther ahead: at a third of the processor's time
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            if self._header_of(file) != self.header:
                raise _changed(f"a file {self.path} of another header")
            n_rows, n_features = self.shape
            for piece in pieces:
                first, n = piece.start, piece.stop - piece.start
                if self.header.is_fortran:
                    columns = np.empty((n_features, n), self.dtype)
                    for j, column in enumerate(columns):
                        self._fill(file, column, j * n_rows + first)
                    yield columns.T, None
                else:
                    rows = np.empty((n, n_features), self.dtype)
                    self._fill(file, rows.reshape(-1), first * n_features)
                    yield rows, None

    def take(self, rows: np.ndarray) -> np.ndarray | None:
        if self.header.is_fortran or len(rows) * _DENSE > self.shape[0]:
            return None
        taken = np.empty((len(rows), self.shape[1]), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            for place, row in zip(taken, rows.tolist(), strict=True):
                self._fill(file, place, row * self.shape[1])
        return taken

    def _header_of(self, file: BinaryIO) -> _Header:
        try:
            version = np.lib.format.read_magic(file)
            if version not in _READERS:
                raise ValueError(f"its format has version {version}")
            shape, is_fortran, dtype = _READERS[version](file)
            if dtype.hasobject:
                raise ValueError("it holds Python objects")
        except ValueError as error:
            raise ValueError(f"{self.path} is no .npy file of numbers that can be read in blocks: {error}") from None
        return _Header(shape, is_fortran and len(shape) > 1, dtype, file.tell())

    def _fill(self, file: BinaryIO, numbers: np.ndarray, first: int) -> None:
        """Read a contiguous run of numbers from the place of number `first`."""
        file.seek(self.header.offset + first * self.dtype.itemsize)
        space = numbers.view(np.uint8).data
        while len(space):
            n_bytes = file.readinto(space)  # type: ignore[attr-defined]
            if not n_bytes:
                raise ValueError(f"{self.path} ends before row {self.shape[0]}, which its header promises")
            space = space[n_bytes:]


_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _check_matrix(rows: np.ndarray) -> None:
    """Refuse what holds no rows of numbers, by its first row."""
    if rows.ndim != 2 or not rows.shape[1] or rows.dtype.kind not in "biuf":
        as_rows(rows)  # says what is wrong


class _Pieces:
    """Runs of rows of an array or file, in another order."""

    def __init__(self, array: _Array, pieces: list[slice]):
        self.array, self.pieces = array, pieces

    def parts(self, n_rows: int | None) -> Iterator[Part]:
        return self.array.read(self.pieces)


class _Callable:
    """Blocks from the user's own code."""

    def __init__(self, start: Callable[[], Iterable[Any]]):
        self.start = start

    def parts(self, n_rows: int | None) -> Iterator[Part]:
        blocks = self.start()
        if not hasattr(blocks, "__iter__"):
            raise TypeError(
                f"X is a callable that returned {type(blocks).__name__}; it must return an iterator of blocks"
            )
        for block in blocks:
            rows, weight = block if isinstance(block, tuple) and len(block) == 2 else (block, None)
            yield _copied(rows), None if weight is None else _copied(weight)

    def take(self, rows: np.ndarray) -> None:
        return None


def _copied(values: Any) -> Any:
    """A copy of numbers, as the caller may use one buffer for all; what is no numbers is refused elsewhere."""
    if np.ma.isMaskedArray(values) or hasattr(values, "tocsr"):
        return values
    try:
        array = np.array(values)
    except ValueError:  # ragged
        return values
    return array if array.dtype.kind in "biuf" else values


class _Arrow:
    """A pyarrow Dataset or Table."""

    def __init__(self, source: Any, columns, weight: str | None):
        known = source.schema.names
        self.names = [name for name in known if name != weight] if columns is None else list(columns)
        self.weight = [] if weight is None else [weight]
        for name in [*self.names, *self.weight]:
            if known.count(name) != 1:
                there = f"is there {known.count(name)} times" if name in known else f"is not among {known}"
                raise ValueError(f"X: column {name!r} {there}; choose with columns and weight")
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"columns must hold different names, one at least; got {self.names}")
        self.source = source
        single = all(str(source.schema.field(name).type) in ("float", "halffloat") for name in self.names)
        self.dtype = np.float32 if single else np.float64

    def parts(self, n_rows: int | None) -> Iterator[Part]:
        names = [*self.names, *self.weight]
        n_rows = n_rows or _block_rows(len(self.names), np.dtype(self.dtype).itemsize)
        if hasattr(self.source, "scanner"):  # a dataset; a few batches only are read ahead
            batches = self.source.to_batches(columns=names, batch_size=n_rows, batch_readahead=1, fragment_readahead=1)
        else:
            batches = self.source.select(names).to_batches(n_rows)
        first = 0
        for batch in batches:
            rows = np.empty((batch.num_rows, len(self.names)), self.dtype)
            for number, name in enumerate(self.names):
                rows[:, number] = _column(batch, name)
            weight = _weights(batch, self.weight[0], first) if self.weight else None
            first += len(rows)
            yield rows, weight

    def take(self, rows: np.ndarray) -> None:
        return None


def _weights(batch, name: str, first_row: int) -> np.ndarray:
    weight = _column(batch, name).astype(np.float64)
    if np.isnan(weight).any():
        row = first_row + int(np.flatnonzero(np.isnan(weight))[0])
        raise ValueError(f"X has no weight at row {row}, column {name!r}; drop such rows")
    return weight


def _column(batch, name: str) -> np.ndarray:
    """A column as an array, NaN where there is no value."""
    column = batch.column(batch.schema.names.index(name))
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"X: column {name!r} holds {column.type}, not numbers; choose others with columns")
    return values


def _dataset(path: str, kind: str):
    try:
        import pyarrow.dataset
    except ImportError:
        raise ImportError(f"{path} needs pyarrow to be read; pip install 'fastem[arrow]'") from None
    try:
        return pyarrow.dataset.dataset(path, format=kind)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is no readable {kind} data: {error}") from None


def _recut(parts: Iterator[Part], n_rows: int | None) -> Generator[Part, None, None]:
    """The same rows in blocks of n_rows, the last of which may be shorter; all of one dtype."""
    dtype: np.dtype | None = None
    width, weighted = 0, False
    waiting: list[Part] = []
    n_waiting = first = 0
    for rows, weight in parts:
        if np.size(rows) == 0 and np.ndim(rows) == 2:
            continue
        if dtype is None:
            dtype = np.dtype(np.float32 if getattr(rows, "dtype", None) == np.float32 else np.float64)
            width, weighted = np.shape(rows)[-1] if np.ndim(rows) else 0, weight is not None
        X = _converted(rows, dtype, first, width)
        n_rows = n_rows or _block_rows(width, dtype.itemsize)
        if weighted != (weight is not None):
            raise ValueError(f"X: the block that begins at row {first} differs from those before in having weights")
        w = None if weight is None else as_part_of_weight(weight, len(X), first)[:, 0]
        first += len(X)
        waiting.append((X, w))
        n_waiting += len(X)
        while n_waiting >= n_rows:
            block, waiting = cut(waiting, n_rows)
            n_waiting -= n_rows
            yield block
    if n_waiting:
        yield cut(waiting, n_waiting)[0]


def _converted(rows: Any, dtype: np.dtype, first_row: int, width: int) -> np.ndarray:
    where = f"the block of X that begins at row {first_row}"
    array = np.asarray(rows) if not isinstance(rows, np.ndarray) else rows
    if array.ndim != 2 or array.dtype.kind not in "biuf" or np.ma.isMaskedArray(array):
        as_rows(rows, where)  # says what is wrong
        array = np.asarray(rows, np.float64)
    if array.shape[1] != width:
        raise ValueError(f"{where} has {array.shape[1]} columns, and those before have {width}")
    if dtype == np.float32 and array.dtype != np.float32:
        raise ValueError(f"{where} has dtype {array.dtype} after float32 ones; give all in one dtype")
    return np.ascontiguousarray(array, dtype=dtype)


def _ahead(start: Callable[[], Generator[Part, None, None]]) -> Iterator[Part]:
    """The parts of an iterator that another thread draws, a few ahead of their use."""
    ready: queue.Queue[tuple[Part | None, BaseException | None]] = queue.Queue(_AHEAD)
    ended = threading.Event()

    def put(part: Part | None, error: BaseException | None = None) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put((part, error), timeout=0.1)

    def draw() -> None:
        try:
            parts = start()
            with contextlib.closing(parts):
                for part in parts:
                    put(part)
                    if ended.is_set():
                        return
            put(None)
        except BaseException as error:
            put(None, error)

    reader = threading.Thread(target=draw, name="fastem-reader", daemon=True)
    reader.start()
    try:
        while True:
            part, error = ready.get()
            if error is not None:
                raise error
            if part is None:
                return
            yield part
    finally:
        ended.set()
        reader.join()
