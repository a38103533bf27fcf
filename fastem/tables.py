"""Tables of the command line: numbers from and to .csv, .tsv, .npy, .npz and .parquet files."""

import codecs
import contextlib
import csv
import io
import math
import operator
import os
import sys
import zipfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np

from fastem.persistence import atomic_writer

SUFFIXES = (".csv", ".tsv", ".npy", ".npz", ".parquet")
_ROWS = 4096  # checked or written at a time: bounds the memory beside the table
_BYTES = 1 << 18  # of text read at a time
_LONGEST_LINE = 1 << 26  # characters: bounds the memory that a file without newlines takes
_CURE = "drop the row, fill the cell, or choose other columns with --columns"


class TableError(ValueError):
    """A table cannot be read or written as asked."""


class Table(NamedTuple):
    """Columns chosen from a file.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_columns), float64, or the numbers of a .npy or .npz file as they are
    names : list of str, or None where the file has no names
    weight : ndarray of shape (n_rows,), or None where no column was asked for
    """

    X: np.ndarray
    names: list[str] | None
    weight: np.ndarray | None


# names of the columns, if the file has any, and their number -> places of the columns to read
Choose = Callable[[list[str] | None, int], list[int]]


def read_table(
    path: str,
    *,
    columns: str | None = None,
    weight: str | None = None,
    header: bool | None = None,
    array_name: str | None = None,
    defaults: Sequence[str] = (),
) -> Table:
    """Read numbers from a file, chosen by its suffix; `-` is CSV from standard input.

    Parameters
    ----------
    path : str
    columns : str, default=None
        Columns to read, see `choose_columns`. None: `defaults` if there are any and the file has names, else all but
        `weight`.
    weight : str, default=None
        A column of weights, by name or number.
    header : bool, default=None
        Whether the first line of a .csv or .tsv file holds names. None: it does if none of its cells is a number.
    array_name : str, default=None
        Array of an .npz file; needed if there are several.
    defaults : sequence of str
        Names of the columns that a model was fitted on.

    Raises
    ------
    TableError
        If the table or a cell cannot be used; the message names the file, the line and the column.
    OSError
        If the file cannot be read.
    """
    suffix = ".csv" if path == "-" else _suffix(path)
    label = "standard input" if path == "-" else path
    if header is not None and suffix not in (".csv", ".tsv"):
        raise TableError(f"{label}: --header and --no-header are for .csv and .tsv files")
    if array_name is not None and suffix != ".npz":
        raise TableError(f"{label}: --array is for .npz files")
    found: list[str] | None = None
    chosen: list[int] = []

    def choose(names: list[str] | None, width: int) -> list[int]:
        nonlocal found, chosen
        apart = choose_columns(weight, names, width, label) if weight is not None else []
        if len(apart) > 1:
            raise TableError(f"{label}: --weight takes one column; got {weight!r}")
        chosen = columns_or_defaults(columns, defaults, names, width, label, apart)
        found = names
        return chosen + apart

    if suffix in (".csv", ".tsv"):
        matrix = _read_text(path, label, "\t" if suffix == ".tsv" else ",", header, choose)
    elif suffix == ".parquet":
        matrix = _read_parquet(path, choose)
    else:
        matrix = _read_numpy(path, array_name, choose)
    if not len(matrix):
        raise TableError(f"{label} has no rows")
    names = [found[i] for i in chosen] if found is not None else None
    if weight is None:
        return Table(matrix, names, None)
    return Table(matrix[:, :-1], names, matrix[:, -1])


def columns_or_defaults(
    columns: str | None,
    defaults: Sequence[str],
    names: list[str] | None,
    width: int,
    label: str,
    apart: Sequence[int] = (),
) -> list[int]:
    """Places of the columns asked for; else of those that a model was fitted on, by name; else of all but `apart`."""
    if columns is not None:
        return choose_columns(columns, names, width, label)
    if names is None or not defaults:
        return [i for i in range(width) if i not in apart]
    missing = [name for name in defaults if name not in names]
    if missing:
        raise TableError(f"{label} has no column {missing[0]!r}, which the model takes; choose with --columns")
    return [names.index(name) for name in defaults]


def choose_columns(spec: str, names: list[str] | None, width: int, label: str) -> list[int]:
    """Places of the columns in a list such as `length,width,4-6`: names, numbers from 1, and ranges of numbers.

    A name goes before a number. Names with a comma are quoted as in CSV.
    """
    try:
        items = next(csv.reader([spec]), [])
    except csv.Error as error:
        raise TableError(f"{spec!r} is no list of columns: {error}") from None
    places: list[int] = []
    for item in items:
        if names is not None and item in names:
            if names.count(item) > 1:
                raise TableError(f"{label}: several columns are called {item!r}; choose one by its number")
            places.append(names.index(item))
            continue
        first, dash, last = item.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            known = f"the columns are {', '.join(names)}" if names is not None else "there are no names, only numbers"
            raise TableError(f"{label} has no column {item!r}; {known}")
        start, stop = int(first), int(last or first)
        if not 1 <= start <= stop <= width:
            raise TableError(f"{label} has no column {item}; columns are numbered from 1 to {width}")
        places.extend(range(start - 1, stop))
    if not places or len(set(places)) < len(places):
        what = "a column twice" if places else "no column"
        raise TableError(f"{label}: {spec!r} chooses {what}")
    return places


def check_output(path: str, *inputs: str) -> None:
    """Refuse, before anything is computed, a table that could not be written after it."""
    if path == "-":
        return
    if _suffix(path) == ".parquet":
        _pyarrow(path)
    check_writable(path, *inputs)


def check_writable(path: str, *inputs: str) -> None:
    """Refuse a file that could not be written, or that would take the place of an input."""
    folder = os.path.dirname(os.path.realpath(path))
    if any(os.path.exists(each) and os.path.exists(path) and os.path.samefile(each, path) for each in inputs):
        raise TableError(f"{path} is also an input, and would be lost; name another file to write")
    if os.path.isdir(path):
        raise TableError(f"{path} is a directory; name a file in it")
    if not os.path.isdir(folder):
        raise TableError(f"cannot write {path}: there is no directory {os.path.dirname(path)}")
    if not os.access(folder, os.W_OK):
        raise TableError(f"cannot write {path}: no permission to write in its directory")


def write_table(path: str, columns: dict[str, np.ndarray]) -> None:
    """Write columns (n_rows,) to a file, whole or not at all, or as CSV to standard output if path is `-`."""
    if path == "-":
        _write_text(sys.stdout, ",", columns)
        return
    suffix = _suffix(path)
    with atomic_writer(path) as file:
        if suffix in (".csv", ".tsv"):
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            try:
                _write_text(text, "\t" if suffix == ".tsv" else ",", columns)
            finally:
                text.detach()
        elif suffix == ".npy":
            arrays = list(columns.values())
            np.save(file, arrays[0] if len(arrays) == 1 else np.column_stack(arrays))
        elif suffix == ".npz":
            with zipfile.ZipFile(file, "w") as archive:  # np.savez takes no column called `file`
                for name, column in columns.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, column, allow_pickle=False)
        else:
            pyarrow, parquet = _pyarrow(path)
            parquet.write_table(pyarrow.table(columns), file)


def _suffix(path: str) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise TableError(f"{path} has no suffix of a table; use one of {', '.join(SUFFIXES)}")
    return suffix


def _write_text(file: TextIO, delimiter: str, columns: dict[str, np.ndarray]) -> None:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    n_rows = len(next(iter(columns.values())))
    for first in range(0, n_rows, _ROWS):
        writer.writerows(zip(*(c[first : first + _ROWS].tolist() for c in columns.values()), strict=True))


class CsvRows:
    """Numbers of CSV text that comes in pieces, cut anywhere: the rows do not depend on where.

    Parameters
    ----------
    label : str
        What messages call the text.
    delimiter : str
    header : bool or None
        Whether the first line holds names, see `read_table`.
    choose : callable
        Called once, with the first line.

    Attributes
    ----------
    places : list of int, or None before the first line
        What `choose` chose.
    """

    def __init__(self, label: str, delimiter: str, header: bool | None, choose: Choose):
        self.places: list[int] | None = None
        self._label, self._delimiter, self._header, self._choose = label, delimiter, header, choose
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()  # a byte order mark, which Excel writes, is skipped
        self._names: list[str] | None = None
        self._width = self._n_lines = 0  # cells of the first line; lines of the rows so far
        self._rest = ""  # text of a row that is not whole yet

    def feed(self, data: bytes, last: bool = False) -> Iterator[np.ndarray]:
        """Yield the rows (n, D), if any, that more bytes made whole; `last` ends the last line, with a newline or none.

        A line that cannot be used raises TableError, after the rows before it were yielded.
        """
        error: TableError | None = None
        try:
            text = self._rest + self._decoder.decode(data, last)
        except UnicodeDecodeError as wrong:
            text, last = self._rest + wrong.object[: wrong.start].decode(), False
            error = TableError(f"{self._label} is not text in UTF-8 ({wrong.reason}); save it as UTF-8")
        # A carriage return that ends the text may be half of a line break.
        end = len(text) if last else max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
        self._rest = text[end:]
        if error is None and (block := self._plain(text[:end])) is not None:
            yield block
            return
        values = array("d")
        try:
            self._parse(io.StringIO(text[:end], newline="").readlines(), last, values)
            if len(self._rest) > _LONGEST_LINE:
                error = TableError(f"{self._label}, line {self._n_lines + 1} is longer than {_LONGEST_LINE} characters")
        except TableError as earlier:
            error = earlier
        if self.places and values:
            yield np.frombuffer(values, np.float64).reshape(-1, len(self.places))
        if error is not None:
            raise error

    def _plain(self, text: str) -> np.ndarray | None:
        """Rows of lines without quotes, if all are sound: what `_parse` finds, in two thirds of its time."""
        if self.places is None or '"' in text or "_" in text or text.count("\r") != text.count("\r\n"):
            return None
        lines = text.removesuffix("\n").split("\n")
        n_delimiters = set(map(operator.methodcaller("count", self._delimiter), lines))
        if n_delimiters != {self._width - 1} or max(map(len, lines)) > csv.field_size_limit():
            return None
        cells = self._delimiter.join(lines).split(self._delimiter)
        block = np.empty((len(lines), len(self.places)))
        try:
            for k, i in enumerate(self.places):
                block[:, k] = np.fromiter(map(float, cells[i :: self._width]), np.float64, len(lines))
        except ValueError:
            return None
        if not np.isfinite(block).all():
            return None
        self._n_lines += len(lines)
        return block

    def _parse(self, lines: list[str], last: bool, values: array) -> None:
        """Add the numbers of the rows that the lines hold; lines of a row that goes on are put back."""
        n_whole, is_over = 0, False

        def each() -> Iterator[str]:
            nonlocal is_over
            yield from lines
            is_over = True

        reader = csv.reader(each(), delimiter=self._delimiter)
        try:
            for row in reader:
                if is_over and not last:  # it asked for one more line: a quoted cell is open
                    self._rest = "".join(lines[n_whole:]) + self._rest
                    break
                n_whole = reader.line_num
                if row and (self.places is not None or not self._begin(row)):
                    values.extend(self._numbers(row, self._n_lines + n_whole))
        except csv.Error as error:
            raise TableError(f"{self._label} is not a table: {error}") from None
        self._n_lines += n_whole

    def _begin(self, first: list[str]) -> bool:
        """Choose the columns by the first row; whether it holds their names."""
        is_header = not any(map(_is_number, first)) if self._header is None else self._header
        self._names = [cell.strip() for cell in first] if is_header else None
        self._width = len(first)
        self.places = self._choose(self._names, self._width)
        return is_header

    def _numbers(self, row: list[str], line: int) -> list[float]:
        """The chosen cells of a row."""
        places = self.places or []
        if len(row) != self._width:
            raise TableError(f"{self._label}, line {line}: {len(row)} cells, but the first line has {self._width}")
        try:
            numbers = [float(row[i]) for i in places]
        except ValueError:
            numbers = [math.nan]
        if not math.isfinite(sum(numbers)) or "_" in "".join(row):  # float("12_34") is 1234
            for i in places:
                if not _is_finite(row[i]):
                    what = f"{row[i]!r} is not a finite number" if row[i].strip() else "the cell is empty"
                    column = f"column {i + 1}" + (f" ({self._names[i]})" if self._names else "")
                    raise TableError(f"{self._label}, line {line}, {column}: {what}; {_CURE}")
        return numbers


@contextlib.contextmanager
def _open_bytes(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file


def _read_text(path: str, label: str, delimiter: str, header: bool | None, choose: Choose) -> np.ndarray:
    rows = CsvRows(label, delimiter, header, choose)
    values = array("d")
    with _open_bytes(path) as file:
        while data := file.read(_BYTES):
            for block in rows.feed(data):
                values.frombytes(block.tobytes())
    for block in rows.feed(b"", last=True):
        values.frombytes(block.tobytes())
    if rows.places is None:
        raise TableError(f"{label} is empty")
    return np.frombuffer(values, np.float64).reshape(-1, len(rows.places))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _is_finite(cell: str) -> bool:
    return _is_number(cell) and math.isfinite(float(cell))


def _read_numpy(path: str, array_name: str | None, choose: Choose) -> np.ndarray:
    """The array of a .npy file, on the disk, or what `_from_archive` takes from an .npz file."""
    matrix: np.ndarray
    names: list[str] | None = None
    try:
        if path.lower().endswith(".npy"):
            matrix = np.lib.format.open_memmap(path, mode="r")
        else:
            with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
                arrays = {name: array for name, array in archive.items() if isinstance(array, np.ndarray)}
            matrix, names = _from_archive(path, arrays, array_name)
    except TableError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TableError(f"{path} is no readable file of NumPy arrays of numbers: {error}") from None
    if matrix.dtype.kind not in "biuf":
        raise TableError(f"{path} holds values of dtype {matrix.dtype}; they must be real numbers")
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2:
        raise TableError(f"{path} has {matrix.ndim} dimensions; a table has rows and columns")
    places = choose(names, matrix.shape[1])
    if places != list(range(matrix.shape[1])):
        matrix = matrix[:, places]
    _check_finite(matrix, path, [f"column {i + 1}" + (f" ({names[i]})" if names else "") for i in places])
    return matrix


def _from_archive(path: str, arrays: dict[str, np.ndarray], wanted: str | None) -> tuple[np.ndarray, list[str] | None]:
    """The array that is wanted, the only one, or all as the columns that they are named after."""
    if wanted is None and len(arrays) == 1:
        wanted = next(iter(arrays))
    if wanted in arrays:
        return arrays[wanted], None
    if wanted is None and len({array.shape for array in arrays.values()}) == 1:
        columns = list(arrays.values())
        if columns[0].ndim == 1 and all(column.dtype.kind in "biuf" for column in columns):
            return np.column_stack(columns), list(arrays)
    which = "several arrays" if wanted is None else f"no array {wanted!r}"
    raise TableError(f"{path} has {which}; choose with --array one of: {', '.join(arrays) or 'none, it is empty'}")


def _read_parquet(path: str, choose: Choose) -> np.ndarray:
    pyarrow, parquet = _pyarrow(path)
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise TableError(f"{path} has two columns of the same name")
            places = choose(names, len(names))
            table = file.read(columns=[names[i] for i in places])
    except pyarrow.ArrowException as error:
        raise TableError(f"{path} is no readable Parquet file: {error}") from None
    matrix = np.empty((table.num_rows, len(places)))
    for k, i in enumerate(places):
        try:
            matrix[:, k] = table.column(names[i]).cast(pyarrow.float64()).to_numpy()
        except pyarrow.ArrowException:
            kind = table.schema.field(names[i]).type
            raise TableError(
                f"{path}: column {i + 1} ({names[i]}) holds {kind}, not numbers; choose others with --columns"
            ) from None
    _check_finite(matrix, path, [f"column {i + 1} ({names[i]})" for i in places])
    return matrix


def _pyarrow(path: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise TableError(f'{path}: Parquet needs pyarrow; get it with: pip install "fastem[arrow]"') from None
    return pyarrow, pyarrow.parquet


def _check_finite(matrix: np.ndarray, label: str, columns: list[str]) -> None:
    for first in range(0, len(matrix), _ROWS):
        bad = np.argwhere(~np.isfinite(matrix[first : first + _ROWS]))
        if len(bad):
            row, column = bad[0]
            value = matrix[first + row, column]
            raise TableError(f"{label}, row {first + row + 1}, {columns[column]}: {value} is no finite number; {_CURE}")
