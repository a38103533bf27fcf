"""Armadillo's gmm_full and gmm_diag, by a small C++ program that is compiled when it is first asked for."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

TITLE = "Armadillo"
INSTALL = "apt-get install g++ libarmadillo-dev"
FITS = ("full", "diag")
DTYPES = ("float64",)
TOLERANCE = 1e-6

_SOURCE = Path(__file__).with_name("armadillo.cpp")
_COMPILE = ("-O3", "-march=native", "-fopenmp", "-DARMA_NO_DEBUG", "-larmadillo")


def _program():
    """Path of the compiled program; compiled again when the source is newer."""
    folder = Path(__file__).resolve().parents[2] / ".asv" / "armadillo"
    program = folder / "armadillo"
    if not program.exists() or program.stat().st_mtime < _SOURCE.stat().st_mtime:
        if shutil.which("g++") is None:
            raise ImportError("g++ is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        done = subprocess.run(["g++", str(_SOURCE), "-o", str(unfinished), *_COMPILE], capture_output=True, text=True)
        if done.returncode:
            raise ImportError(f"the program does not compile: {done.stderr.strip().splitlines()[0]}")
        unfinished.replace(program)
    return program


def version():
    return subprocess.run([_program(), "version"], capture_output=True, text=True, check=True).stdout.strip()


def prepare(X, start, covariance_type):
    import numpy as np

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name)
    X.tofile(path / "X")
    for name, value in start.items():
        np.ascontiguousarray(value, dtype=np.float64).tofile(path / name)
    shape = map(str, (*X.shape, len(start["weights"])))
    program = subprocess.Popen(
        [_program(), covariance_type, *shape, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(n_iter, folder=folder):
        program.stdin.write(f"{n_iter}\n")
        program.stdin.flush()
        if program.stdout.readline().strip() != "done":
            raise RuntimeError("Armadillo's learn failed")
        found = [np.fromfile(path / f"{name}.out") for name in ("weights", "means", "covariances")]
        return found[0], found[1].reshape(start["means"].shape), found[2].reshape(start["covariances"].shape)

    return run
