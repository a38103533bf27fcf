"""EM over rows on disk beside the disk's own rate and the rate in memory: `python -m benchmarks.out_of_core`.

The file repeats a block of a million rows, 16 columns of float64. Its pages are dropped from the page cache before each
measurement; what one pass leaves there the next may find, so the disk is asked for more only where the file is larger
than memory.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

import fastem
from benchmarks import datasets, memory
from fastem import Gaussian, Mixture

_ROWS = 1_000_000
_N_FEATURES = 16
_READ = 2**24


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
        while file.readinto(space):
            pass
    return time.perf_counter() - begin


def pass_seconds(X, start, n_components: int, n_iter: int) -> tuple[float, float]:
    """Median seconds between E-steps from a given start, and the log-likelihood of a row that is reached."""
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
    return float(np.median(np.diff(times))), result.history[-1]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20.0, help="size of the file (20)")
    parser.add_argument("--components", type=int, default=16, help="number of components (16)")
    parser.add_argument("--passes", type=int, default=3, help="E-steps over the file (3)")
    parser.add_argument("--folder", default=None, help="where the file is written (the folder of temporary files)")
    arguments = parser.parse_args()
    k = arguments.components
    rows = datasets.mixture(_ROWS, _N_FEATURES, k)
    n_blocks = max(1, round(arguments.gigabytes * 1e9 / rows.nbytes))
    n_rows = n_blocks * _ROWS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gm = fastem.GaussianMixture(k, random_state=0, max_iter=5).fit(rows[:50_000])
    start = gm._params()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "rows.npy"
        write(path, n_blocks, rows)
        in_memory, reached = pass_seconds(rows, start, k, arguments.passes + 3)
        disk = read_seconds(path)
        forget(path)
        found = []
        peak = memory.mebibytes_above(lambda: found.append(pass_seconds(path, start, k, arguments.passes)))
        seconds, on_disk = found[0]
    floor = max(disk, n_blocks * in_memory)
    print(f"{n_rows} x {_N_FEATURES}, {n_rows * _N_FEATURES * 8 / 1e9:.1f} GB: one block, {n_blocks} times; K = {k}")
    print(f"reading alone    {disk:8.2f} s a pass, {n_rows * _N_FEATURES * 8 / disk / 1e9:.2f} GB/s")
    print(f"rows in memory   {n_blocks * in_memory:8.2f} s a pass ({in_memory:.3f} s for {_ROWS} rows)")
    print(f"rows on disk     {seconds:8.2f} s a pass: {floor / seconds:.0%} of the lesser of the two rates")
    print(
        f"memory above the rest {peak:.0f} MiB; log-likelihood of a row {on_disk / n_rows:.6f}, {reached / _ROWS:.6f}"
    )


if __name__ == "__main__":
    main()
