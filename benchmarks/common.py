"""What the benchmarks share: numba's cache, fixed starts, fits of a fixed number of iterations."""

import functools
import hashlib
import importlib.util
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from . import datasets

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
N_ITER = 10


def _source_hash():
    """Hash of every source file of the package that this interpreter imports."""
    package = Path(importlib.util.find_spec("fastem").origin).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# numba's cache does not see a change in another file than the kernel's own, so every state of the sources has its own.
CACHE = Path(__file__).resolve().parent / ".asv" / "numba" / _source_hash()
if "numba" not in sys.modules:
    os.environ["NUMBA_CACHE_DIR"] = str(CACHE)
elif "NUMBA_CACHE_DIR" not in os.environ:  # the tests have chosen one
    raise ImportError("numba is already imported; import the benchmarks first, they choose its cache")

# The first fit of a user in a new process: default start, default rule. argv: number of samples.
FIRST_FIT = """
import sys, time
import numpy as np
import fastem
X = np.random.default_rng(0).normal(size=(int(sys.argv[1]), 4))
Model = fastem.GaussianMixture
begin = time.perf_counter()
Model(n_components=4, random_state=0).fit(X)
print(time.perf_counter() - begin)
"""
FEW_SAMPLES, MANY_SAMPLES = 1_000, 50_000  # one side and the other of the work from which threads are used


def seconds_in_new_process(script, *arguments, cache=CACHE):
    """Run a script in a fresh interpreter and return the number it prints."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(answer.stdout)


def setup_cache():
    """Compile every kernel in a process of its own: neither a time nor a peak of memory then holds the compiler."""
    for n_samples in (FEW_SAMPLES, MANY_SAMPLES):
        seconds_in_new_process(FIRST_FIT, n_samples)
    for dtype in ("float64", "float32"):
        X = datasets.mixture(300_000, 4, 8, dtype)
        for covariance_type in COVARIANCE_TYPES:
            fit(X, start(X, 8, covariance_type), n_iter=2).predict(X)


setup_cache.timeout = 900


def start(X, n_components, covariance_type):
    """Constructor parameters of a start that depends on the data alone: rows as means, the spread of all rows."""
    rows = np.random.default_rng(1).choice(len(X), n_components, replace=False)
    precision = 1 / X.var(axis=0, dtype=np.float64)
    n_features = X.shape[1]
    precisions = {
        "full": np.broadcast_to(np.diag(precision), (n_components, n_features, n_features)),
        "tied": np.diag(precision),
        "diag": np.broadcast_to(precision, (n_components, n_features)),
        "spherical": np.full(n_components, precision.mean()),
    }[covariance_type]
    return {
        "n_components": n_components,
        "covariance_type": covariance_type,
        "weights_init": np.full(n_components, 1 / n_components),
        "means_init": X[rows].astype(np.float64),
        "precisions_init": precisions.copy(),
    }


def fit(X, start, n_iter=N_ITER, estimator=None):
    """Fit exactly `n_iter` iterations; `estimator` is fastem's GaussianMixture, or any with the same constructor."""
    from sklearn.exceptions import ConvergenceWarning

    if estimator is None:
        from fastem import GaussianMixture as estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # tol=0 never converges
        return estimator(tol=0, max_iter=n_iter, **start).fit(X)


@functools.cache
def prepared(load, n_components, covariance_type, *arguments):
    """Data and start, once a process: asv repeats `setup` before every sample. A short fit loads the kernels."""
    X = load(*arguments)
    first = start(X, n_components, covariance_type)
    fit(X, first, n_iter=1)
    return X, first


def best_seconds(function, repeat=5):
    """Smallest time of a call, after one that does not count."""
    function()
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def median_in_new_process(script, *arguments, repeat=3):
    """Median of the numbers that a script prints, each in a fresh interpreter."""
    return statistics.median(seconds_in_new_process(script, *arguments) for _ in range(repeat))
