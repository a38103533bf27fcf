"""What is measured of fastem alone: threads, rows, memory, import and first fit; and the rate of BLAS."""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import harness

_DGEMM = """
import sys, time
import numpy as np
a = np.random.default_rng(0).random((2000, 2000)).astype(sys.argv[1])
a @ a
times = []
for _ in range(9):
    begin = time.perf_counter()
    a @ a
    times.append(time.perf_counter() - begin)
print(16 / sorted(times)[4])
"""

_IMPORT = """
import time
import numpy
begin = time.perf_counter()
import fastem
print(time.perf_counter() - begin)
"""

_FIRST_FIT = """
import sys, time
import numpy as np
import numba, scipy.linalg, sklearn.base, sklearn.utils.validation
import fastem
Model = fastem.GaussianMixture
X = np.random.default_rng(0).normal(size=(int(sys.argv[1]), 4))
begin = time.perf_counter()
Model(n_components=4, random_state=0).fit(X)
print(time.perf_counter() - begin)
"""

_MEMORY = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from benchmarks.memory import mebibytes_above
from fastem import GaussianMixture
n_samples, n_features, n_components = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
means = 2 * rng.normal(size=(n_components, n_features))
def rows(n):
    X = np.empty((n, n_features))
    for first in range(0, n, 1000):
        part = X[first : first + 1000]
        part[:] = means[rng.integers(n_components, size=len(part))] + rng.normal(size=part.shape)
    return X
weights = np.full(n_components, 1 / n_components)
precisions = np.broadcast_to(np.eye(n_features), (n_components, n_features, n_features))
start = dict(weights_init=weights, means_init=means, precisions_init=precisions)
def fit(X):
    GaussianMixture(n_components, max_iter=6, tol=0, **start).fit(X)
fit(rows(50_000))
X = rows(n_samples)
X.max()  # every page is in
print(mebibytes_above(lambda: fit(X)))
"""


_DENSE = """
import sys, time, statistics
import numpy as np
import fastem
from benchmarks.peers.workloads import Workload, prepared
n_samples, n_features, n_components = map(int, sys.argv[1:])
def dense_pass(dtype):
    X, start = prepared(Workload("full", n_samples, n_features, n_components, dtype=dtype))
    precisions = np.linalg.inv(start["covariances"])
    start = dict(weights_init=start["weights"], means_init=start["means"], precisions_init=precisions)
    model = fastem.Mixture(fastem.Gaussian(), n_components, **start)
    found = fastem.fit(model, X, max_iter=10, tol=0, n_race=0, random_state=0)
    (block,) = fastem.data.as_data(X).blocks  # which keeps no notes: no pair is skipped
    return lambda: found.model.e_step(found.params, block)
passes = [dense_pass("float64"), dense_pass("float32")]
times = [[], []]
for _ in range(31):
    for i, run in enumerate(passes):
        begin = time.perf_counter()
        run()
        times[i].append(time.perf_counter() - begin)
print(statistics.median(times[0]) / statistics.median(times[1]))
"""


def _number(script, *arguments, environment=None):
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=harness.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def gemm_gflops(dtype: str) -> float:
    """Rate of np.dot on 2000 x 2000 matrices, on all threads of BLAS; the median of nine."""
    return _number(_DGEMM, dtype)


def import_seconds() -> float:
    """`import fastem` after `import numpy`."""
    return statistics.median(_number(_IMPORT) for _ in range(5))


def first_fit_seconds(n_samples: int, cold: bool) -> float:
    """The first fit of a process, above its imports, with or without compiled kernels in numba's cache."""
    if not cold:
        _number(_FIRST_FIT, n_samples)
        return statistics.median(_number(_FIRST_FIT, n_samples) for _ in range(3))
    with tempfile.TemporaryDirectory() as cache:
        return _number(_FIRST_FIT, n_samples, environment={**os.environ, "NUMBA_CACHE_DIR": cache})


def memory_above_data(n_samples: int, n_features: int, n_components: int) -> float:
    """MiB that a fit takes above its data, at its peak."""
    return _number(_MEMORY, n_samples, n_features, n_components)


def dense_float32_rate(n_samples: int, n_features: int, n_components: int) -> float:
    """Time of an E-step over every pair in float64, over that in float32, in turns near the optimum."""
    return _number(_DENSE, n_samples, n_features, n_components)


def machine() -> dict[str, str]:
    """The machine in words."""
    model, memory = platform.processor() or "unknown processor", ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        flags = fields.get("flags", "").split()
        width = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
        kind = f"family {fields.get('cpu family')}, model {fields.get('model')}, {width}"
        model = f"{fields.get('model name', model)} ({kind})"
        memory = Path("/proc/meminfo").read_text().split()[1]
        memory = f"{int(memory) / 2**20:.0f} GiB"
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
