"""EM over rows on disk beside the disk's own rate and the rate in memory: `python -m benchmarks.out_of_core`.

The file repeats a block of a million rows, 16 columns of float64. Its pages are dropped from the page cache before each
measurement; what one pass leaves there the next may find, so the disk is asked for all of it only where the file is
larger than memory. The first passes are dense, until components that cannot matter are skipped: passes are compared one
by one.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastem
from fastem import Gaussian, Mixture
from fastem.data import as_data

from . import datasets, memory

_ROWS = 1_000_000
_N_FEATURES = 16
_READ = 2**24
_BLOCK_ROWS = 2**17  # of 16 columns: 16 MiB, what a file is cut into


def write(path: Path, n_blocks: int, rows: np.ndarray) -> None:
    """Write a .npy file that repeats the rows."""
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (n_blocks * len(rows), rows.shape[1])}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(n_blocks):
            file.write(rows.data)
        file.flush()
        os.fsync(file.fileno())


def forget(path: Path) -> None:
    """Drop the pages of a file from the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_seconds(path: Path) -> float:
    """Seconds to read a file from end to end, without its pages in memory."""
    forget(path)
    space = bytearray(_READ)
    begin = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while file.readinto(space):
            pass
    return time.perf_counter() - begin


def pass_seconds(X, start, n_components: int, n_iter: int) -> tuple[np.ndarray, float]:
    """Seconds of each E-step but the first, from a given start, and the log-likelihood that is reached."""
    times: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fastem.fit(
            Mixture(Gaussian(), n_components),
            X,
            start=start,
            max_iter=n_iter,
            tol=0.0,
            callbacks=[lambda _: times.append(time.perf_counter())],
        )
    return np.diff(times), result.history[-1]


class Outcome(NamedTuple):
    """Gigabytes a second of reading alone, and of each pass but the first in memory and on disk; and what they took."""

    reading: float
    in_memory: np.ndarray
    on_disk: np.ndarray
    mebibytes: float  # at most, above those before the fit
    log_likelihoods: tuple[float, float]  # of a row, on disk and in memory

    @property
    def shares(self) -> np.ndarray:
        """Rate of each pass over the lesser of those of reading and of memory."""
        return self.on_disk / np.minimum(self.in_memory, self.reading)

    @property
    def share(self) -> float:
        """The same of all passes together."""
        return float((1 / np.minimum(self.in_memory, self.reading)).sum() / (1 / self.on_disk).sum())


def measure(gigabytes: float, n_components: int = 16, passes: int = 5, folder: str | None = None) -> Outcome:
    """Fit to a file of so many gigabytes, and to one of its blocks in memory."""
    rows = datasets.mixture(_ROWS, _N_FEATURES, n_components)
    n_blocks = max(1, round(gigabytes * 1e9 / rows.nbytes))
    size = n_blocks * rows.nbytes / 1e9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gm = fastem.GaussianMixture(n_components, random_state=0, max_iter=5).fit(rows[:50_000])
    start = gm._params()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "rows.npy"
        write(path, n_blocks, rows)
        seconds, reached = pass_seconds(as_data(rows).recut(_BLOCK_ROWS), start, n_components, passes + 1)
        reading = np.median([read_seconds(path) for _ in range(3)])
        forget(path)
        found = []
        peak = memory.mebibytes_above(lambda: found.append(pass_seconds(path, start, n_components, passes + 1)))
    [(on_disk, reached_there)] = found
    likelihoods = reached_there / (n_blocks * _ROWS), reached / _ROWS
    return Outcome(size / reading, rows.nbytes / 1e9 / seconds, size / on_disk, peak, likelihoods)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20.0, help="size of the file (20)")
    parser.add_argument("--components", type=int, default=16, help="number of components (16)")
    parser.add_argument("--passes", type=int, default=5, help="E-steps over the file, after the first (5)")
    parser.add_argument("--folder", default=None, help="where the file is written (the folder of temporary files)")
    arguments = parser.parse_args()
    found = measure(arguments.gigabytes, arguments.components, arguments.passes, arguments.folder)
    print(f"reading alone {found.reading:.2f} GB/s; GB/s of each pass:")
    print("pass | in memory | on disk | of the lesser of reading and memory")
    for number, row in enumerate(zip(found.in_memory, found.on_disk, found.shares, strict=True)):
        print("{:4d} | {:9.2f} | {:7.2f} | {:.0%}".format(number + 2, *row))
    print(f"all passes: {found.share:.0%} of the lesser; memory above the rest {found.mebibytes:.0f} MiB")
    print("log-likelihood of a row {:.9f} on disk, {:.9f} in memory".format(*found.log_likelihoods))


if __name__ == "__main__":
    main()
