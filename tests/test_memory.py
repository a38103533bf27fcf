"""A fit needs little memory beside its rows: above all no array of n_samples x n_components.

Run as a script, this file is one measurement: `python test_memory.py JOB [ARGUMENTS]` prints bytes as JSON.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

PACKAGE = pathlib.Path(importlib.util.find_spec("fastem").origin).parent
TIMEOUT = 600  # seconds; the largest job takes 30 with a warm cache
MIB = 2**20
N_FEATURES = 16


# in a process of its own


class Peak:
    """Growth of this process's resident memory, at its highest, since the object was made or `growth` was asked."""

    def __init__(self):
        self._begin()

    def _begin(self):
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident now
        self.before = self._resident("VmRSS")

    def growth(self):
        found = self._resident("VmHWM") - self.before
        self._begin()
        return found

    @staticmethod
    def _resident(what):
        """Bytes of a line of /proc; elsewhere the high-water mark of the process, which includes what came before."""
        status = pathlib.Path("/proc/self/status")
        if status.exists():
            return (
                next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(what)) * 1024
            )
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def make_rows(n_samples, dtype):
    """Rows of groups that overlap, made in pieces, so that the making leaves no higher mark than the rows."""
    rng = np.random.default_rng(0)
    rows = np.empty((n_samples, N_FEATURES), dtype)
    centers = rng.normal(size=(8, N_FEATURES))
    for first in range(0, n_samples, 10_000):
        part = rows[first : first + 10_000]
        part[:] = rng.normal(size=part.shape)
        part += centers[np.arange(len(part)) % 8].astype(dtype)
    return rows


def explicit_start(rows, n_components):
    return {
        "weights_init": np.full(n_components, 1 / n_components),
        "means_init": rows[:n_components].astype(float),
        "precisions_init": np.tile(np.eye(rows.shape[1]), (n_components, 1, 1)),
    }


def fit(rows, n_components, start, sample_weight=None):
    from fastem import GaussianMixture

    params = explicit_start(rows, n_components) if start == "explicit" else {"init_params": start}
    n_race = 3 if start == "race" else 0
    params = {} if start == "race" else params
    estimator = GaussianMixture(n_components, max_iter=2, tol=0.0, random_state=0, n_race=n_race, **params)
    return estimator.fit(rows, sample_weight=sample_weight)


def measured(peak, rows, *arguments):
    """Growth of one fit, after one of a tenth of the rows has loaded the kernels and started the threads."""
    fit(rows[: len(rows) // 10], *arguments)
    peak.growth()
    estimator = fit(rows, *arguments)
    found = peak.growth()
    assert estimator.n_iter_ == 2
    assert np.isfinite(estimator.lower_bound_)
    return found


def job_one(dtype, n_samples, n_components):
    rows = make_rows(int(n_samples), dtype)
    return measured(Peak(), rows, int(n_components), "explicit")


def job_starts(dtype, n_components, *sizes):
    """Growth for each start, and with sample weights, at several numbers of rows."""
    rows = make_rows(max(map(int, sizes)), dtype)
    weight = np.ones(len(rows))
    peak = Peak()
    found = {}
    for start in ("explicit", "kmeans", "k-means++", "k-means||", "random_from_data", "random", "race"):
        found[start] = [measured(peak, rows[: int(size)], int(n_components), start) for size in sizes]
    fit(rows[:1000], int(n_components), "explicit", weight[:1000])
    peak.growth()
    found["weights"] = []
    for size in map(int, sizes):
        fit(rows[:size], int(n_components), "explicit", weight[:size])
        found["weights"].append(peak.growth())
    return found


def job_ballast(n_bytes):
    """The growth that is seen when an array of known size comes and goes."""
    peak = Peak()
    ballast = np.ones(int(n_bytes) // 8)
    del ballast
    return peak.growth()


# the tests


def run(job, *arguments):
    """The answer of a job; what it started is killed, by the id of its process group, if it takes too long."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    variables["NUMBA_CACHE_DIR"] = os.environ["NUMBA_CACHE_DIR"]
    # glibc would keep freed arrays of up to 32 MiB for later ones, which then would not be seen
    variables["MALLOC_MMAP_THRESHOLD_"] = variables["MALLOC_TRIM_THRESHOLD_"] = "131072"
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", __file__, f"job_{job}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{job} took more than {TIMEOUT} s; it wrote {out[-2000:]}{err[-4000:]}")
    assert process.returncode == 0, f"{job} ended with {process.returncode}: {err[-4000:]}"
    return json.loads(out.splitlines()[-1])


pytestmark = pytest.mark.skipif(os.name != "posix", reason="peak memory is read from /proc or getrusage")


def test_the_measure_sees_an_array():
    assert run("ballast", 100 * MIB) == pytest.approx(100 * MIB, abs=4 * MIB)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_memory_does_not_grow_with_rows_times_components(dtype):
    """From 140 000 to 280 000 rows, responsibilities of 32 components would add 34 MiB, a copy of rows 8.5 or 17."""
    sizes = 140_000, 280_000
    for name, (few, many) in run("starts", dtype, 32, *sizes).items():
        if name == "race":  # samples grow with the rows up to 16 MiB, and those who judge are as many
            assert many < 80 * MIB
            continue
        assert many - few < 6 * MIB, f"{name}: {few / MIB:.1f} MiB for {sizes[0]} rows, {many / MIB:.1f} for {sizes[1]}"
        assert few < 80 * MIB, f"{name}: {few / MIB:.1f} MiB"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_two_million_rows(dtype):
    """At most 64 MiB above the 244 MiB of the rows (122 in float32), where responsibilities alone would take 244."""
    assert run("one", dtype, 2_000_000, 16) <= 64 * MIB


def main(name, *arguments):
    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)
    print(json.dumps(globals()[name](*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
