"""The bits of a fit do not depend on threads, processes, threading layers or the state of the cache.

Run as a script, this file is one job in a process of its own: `python test_threads.py JOB [ARGUMENT]` prints JSON.
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings

import numpy as np
import pytest

PACKAGE = pathlib.Path(importlib.util.find_spec("fastem").origin).parent
LAYERS = ("omp", "tbb", "workqueue")
COVARIANCE_TYPES = ("full", "tied", "diag", "spherical", "VEE", "EVE")
DTYPES = ("float64", "float32")
TIMEOUT = 300  # seconds; a job takes 2 to 10 with a warm cache, and 100 with a cold one
N_COMPONENTS = 8
RESULTS = ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bounds_")


# in a process of its own


def limit_time():
    """Let the system end this process if it hangs, even if nobody is left to kill it; a fork forgets its parent's."""
    if hasattr(signal, "alarm"):
        signal.alarm(TIMEOUT + 10)


def rows(dtype="float64", n_samples=60_000, n_features=4):
    """Overlapping groups, enough rows that a pass is split over threads."""
    rng = np.random.default_rng(7)
    centers = 3 * rng.normal(size=(N_COMPONENTS, n_features))
    noise = rng.normal(size=(n_samples, n_features))
    return (centers[rng.integers(N_COMPONENTS, size=n_samples)] + noise).astype(dtype)


def fitted(
    X, covariance_type="full", n_threads=None, n_components=N_COMPONENTS, sample_weight=None, noise=None, **params
):
    from fastem import GaussianMixture

    params = {"random_state": 0, "max_iter": 3, "tol": 0.0, "init_params": "random_from_data", **params}
    estimator = GaussianMixture(n_components, covariance_type=covariance_type, n_threads=n_threads, **params)
    return estimator.fit(X, sample_weight=sample_weight, noise_covariance=noise)


def digest(*arrays):
    """Hash of the bits of arrays."""
    result = hashlib.sha256()
    for array in arrays:
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()[:16]


def bits(estimator, X=None):
    """Hash of what a fit found and, if rows are given, of what it says about them."""
    scores = [] if X is None else [estimator.predict(X), estimator.score_samples(X), estimator.predict_proba(X)]
    return digest(*(getattr(estimator, name) for name in RESULTS), *scores)


@contextlib.contextmanager
def counted(calls):
    """Count passes that several threads share, but for those of several steps in one call."""
    from fastem.kernels import sweep

    call_for = sweep.call_for

    def count(kernel, turns, *arguments):
        if len(turns) > 1:
            calls[kernel.__name__] = calls.get(kernel.__name__, 0) + 1
        return call_for(kernel, turns, *arguments)

    sweep.call_for = count
    yield
    sweep.call_for = call_for


def job_thread_counts():
    """Bits of every structure, start and dtype at 1, 2 and 4 threads, and of a second run."""
    import numba

    runs, calls = {}, {}
    for dtype in DTYPES:
        X = rows(dtype)
        many = rows(dtype, 300_000)
        for covariance_type in COVARIANCE_TYPES:
            for n_threads in (1, 2, 4, 4):
                calls.clear()
                with counted(calls):
                    estimator = fitted(X, covariance_type, n_threads)
                    found = [bits(estimator)]
                    if covariance_type in ("full", "tied"):
                        found.append(bits(estimator, many))
                runs.setdefault(f"{covariance_type} {dtype}", []).append([n_threads, found, dict(calls)])
    weight = np.random.default_rng(0).random(len(X))
    for n_threads in (1, 2, 4, 4):
        calls.clear()
        with counted(calls):
            fits = [fitted(X, n_threads=n_threads, init_params=start) for start in ("kmeans", "random")]
            fits.append(fitted(X, n_threads=n_threads, sample_weight=weight))
        runs.setdefault("starts and weights", []).append([n_threads, [bits(fit) for fit in fits], dict(calls)])
    return {"runs": runs, "layer": numba.threading_layer(), "n_threads": numba.config.NUMBA_NUM_THREADS}


def job_python_threads():
    """8 threads that fit and predict at once, twice, against the same done one after the other."""
    import numba

    X = {dtype: rows(dtype) for dtype in DTYPES}
    tasks = [(DTYPES[i % 2], COVARIANCE_TYPES[i // 2], (None, 1, 2, 4)[i % 4]) for i in range(8)]
    expected = [bits(fitted(X[dtype], covariance_type, 1), X[dtype]) for dtype, covariance_type, _ in tasks]
    barrier = threading.Barrier(len(tasks))
    found, failures = [[] for _ in tasks], []

    def work(number):
        dtype, covariance_type, n_threads = tasks[number]
        try:
            barrier.wait()
            for _ in range(2):
                found[number].append(bits(fitted(X[dtype], covariance_type, n_threads), X[dtype]))
        except BaseException as error:
            failures.append(repr(error))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(tasks))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"expected": expected, "found": found, "failures": failures, "layer": numba.threading_layer()}


def in_fork(function):
    """What a function prints as JSON in a forked child, and the child's exit status."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        limit_time()
        try:
            os.write(writer, json.dumps(function()).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writer, json.dumps(repr(error)).encode())
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(answer or "null"), status


def fit_in_child(n_threads):
    X = rows()
    return bits(fitted(X, n_threads=n_threads), X)


def job_fork():
    """A fit in children of every kind, after a parallel fit in the parent and during one; then in the parent again."""
    import numba

    X = rows()
    calls = {}
    with counted(calls):
        before = bits(fitted(X, n_threads=4), X)
    expected = bits(fitted(X, n_threads=1), X)
    children = [in_fork(lambda n_threads=n_threads: fit_in_child(n_threads)) for n_threads in (None, 1, 4)]
    grandchild = in_fork(lambda: in_fork(lambda: fit_in_child(None)))
    with multiprocessing.get_context("fork").Pool(2, limit_time) as pool:
        pooled = pool.map(fit_in_child, [None, 1, 2, 4])
    stop = threading.Event()

    def keep_fitting():
        while not stop.is_set():
            fitted(X, n_threads=4)

    background = threading.Thread(target=keep_fitting)
    background.start()
    try:
        during = [in_fork(lambda: fit_in_child(4)) for _ in range(3)]
    finally:
        stop.set()
        background.join()
    after = bits(fitted(X, n_threads=4), X)
    return {
        "expected": expected,
        "in_parent": [before, after],
        "in_children": [*children, grandchild[0], *during],
        "statuses": [grandchild[1]],
        "pooled": pooled,
        "calls": calls,
        "layer": numba.threading_layer(),
    }


def task(X, covariance_type, n_threads):
    warnings.simplefilter("ignore")
    return bits(fitted(X, covariance_type, n_threads), X)


def job_joblib(backend):
    """Fits as joblib's tasks, after a parallel fit in the parent."""
    import joblib
    import numba

    X = {dtype: rows(dtype) for dtype in DTYPES}

    fitted(X["float64"], n_threads=4)
    tasks = [(dtype, covariance_type) for dtype in DTYPES for covariance_type in COVARIANCE_TYPES]
    expected = [task(X[dtype], covariance_type, 1) for dtype, covariance_type in tasks]
    found = []
    for n_threads in (None, 4):
        parallel = joblib.Parallel(n_jobs=2, backend=backend)
        found.append(parallel(joblib.delayed(task)(X[dtype], kind, n_threads) for dtype, kind in tasks))
    return {"expected": expected, "found": found, "layer": numba.threading_layer()}


def job_settings():
    """What a fit leaves of the caller's own settings of numba, and what an import changes."""
    import numba

    import fastem
    from fastem.kernels import sweep  # noqa: F401

    loaded = fastem.GaussianMixture is not None
    with contextlib.suppress(ValueError):
        loaded = numba.threading_layer()  # raises as long as none has started
    found = {"layer_after_import": loaded, "set": [], "left": []}
    X = rows()
    for before in (1, 3, 4):
        numba.set_num_threads(before)
        for n_threads in (None, 1, 2, 4, 100):
            fitted(X, n_threads=n_threads).predict(X)
            found["set"].append(before)
            found["left"].append(numba.get_num_threads())
    numba.set_num_threads(1)
    calls = {}
    with counted(calls):
        fitted(X)
    return {**found, "calls_at_one": calls}


def dispatchers():
    """The kernels of the fused pass."""
    from fastem.kernels import _calls, sweep

    found = {name: getattr(sweep, name) for name in ("_sweep_lane", "take_lanes", "_score_lane", "take_rows")}
    return found | {name: getattr(_calls, name) for name in ("run_alone", "run_together")}


def cache_use():
    hits = sum(sum(kernel.stats.cache_hits.values()) for kernel in dispatchers().values())
    misses = sum(sum(kernel.stats.cache_misses.values()) for kernel in dispatchers().values())
    return {"hits": hits, "misses": misses}


def job_specialisations():
    """Fits of every kind of input in one process; then the types that each kernel was compiled for."""
    import pandas as pd

    for dtype in DTYPES:
        for X in (rows(dtype), rows(dtype, 500)):
            read_only = X.copy()
            read_only.flags.writeable = False
            with tempfile.TemporaryDirectory() as folder:
                np.save(f"{folder}/rows.npy", X)
                mapped = np.load(f"{folder}/rows.npy", mmap_mode="r")
                unaligned = np.frombuffer(b"\0" + X.tobytes(), X.dtype, offset=1).reshape(X.shape)
                frame = pd.DataFrame(X, columns=list("abcd"))
                forms = [X, read_only, mapped, np.asfortranarray(X), X[::-1], X[::2], unaligned, frame]
                forms.append(X.astype(X.dtype.newbyteorder(">")))
                for form in forms:
                    fitted(form, max_iter=1).predict(form)
                del mapped, form, forms
            weight = np.random.default_rng(0).integers(1, 3, size=len(X))
            for sample_weight in (weight, weight.astype(np.float32), weight[::-1], weight.tolist()):
                fitted(X, sample_weight=sample_weight, max_iter=1)
            for covariance_type in COVARIANCE_TYPES:
                for start in ("kmeans", "k-means++", "random"):
                    fitted(X, covariance_type, init_params=start, max_iter=1)
                fitted(X, covariance_type, resp_init=np.arange(len(X)) % N_COMPONENTS, max_iter=1)
            fitted(np.c_[X, 1e-6 * X[:, 0] + X[:, 1]], max_iter=1)  # thin components, which are whitened
            fitted(X.astype(int), max_iter=1)
    arguments = {}
    for name, kernel in dispatchers().items():
        arguments[name] = sorted([str(kind) for kind in signature] for signature in kernel.signatures)
    return arguments


def job_cache():
    """Serial and parallel fits in both dtypes, and how the cache served them."""
    found = []
    for dtype in DTYPES:
        for n_samples in (500, 300_000):
            X = rows(dtype, n_samples)
            estimator = fitted(X, n_threads=2)
            found.append(bits(estimator, X))
    return {"bits": found, **cache_use()}


def job_small():
    """One small serial fit, how the cache served it, and which files were used."""
    import fastem

    X = rows(n_samples=300)
    found = bits(fitted(X, n_components=2))
    return {"bits": found, "package": fastem.__file__, **cache_use()}


def tiny_data(dtype):
    """Rows with labels: overlapping groups, and groups far thinner than their distance from the origin."""
    rng = np.random.default_rng(3)
    labels = np.arange(36) % 3
    noise = rng.normal(size=(36, 2))
    thickness = 1e-3 if dtype == "float64" else 1.0  # of 1e4
    thin = np.array([1e4, 1e4 + 3 * thickness, -1e4])[labels, None] + thickness * noise
    return {"plain": (noise + 2.0 * labels[:, None]).astype(dtype), "thin": thin.astype(dtype)}, labels


def job_tiny(dtype):
    """Parameters, bounds and scores of tiny fits of all structures, as numbers."""
    import numba

    found = {}
    data, labels = tiny_data(dtype)
    params = {"n_components": 3, "reg_covar": 0.0, "max_iter": 2}
    for name, X in data.items():
        for covariance_type in COVARIANCE_TYPES:
            estimator = fitted(X, covariance_type, resp_init=labels, **params)
            results = [getattr(estimator, result) for result in ("weights_", "means_", "covariances_", "lower_bounds_")]
            results += [estimator.score_samples(X), estimator.predict_proba(X)]
            found[f"{name} {covariance_type}"] = [np.asarray(result).ravel().tolist() for result in results]
    for start in ("kmeans", "k-means++", "random", "random_from_data"):
        estimator = fitted(data["plain"], init_params=start, sample_weight=1.0 + labels, **params)
        found[f"plain {start}"] = [estimator.means_.ravel().tolist()]
    X = data["plain"]
    hollow = np.where(np.arange(72).reshape(36, 2) % 7 == 0, np.nan, X)
    for covariance_type in COVARIANCE_TYPES:
        estimator = fitted(hollow, covariance_type, resp_init=labels, **params)
        draws = estimator.impute(hollow, method="draw", random_state=0)
        results = [estimator.lower_bounds_, estimator.score_samples(hollow), estimator.impute(hollow), draws]
        for noise in (0.1 + X**2, [0.1, 0.2]):
            noisy = fitted(X, covariance_type, resp_init=labels, noise=noise, **params)
            results += [noisy.lower_bounds_, noisy.score_samples(X, noise_covariance=noise)]
        found[f"known in part {covariance_type}"] = [np.asarray(result).ravel().tolist() for result in results]
    jitted = hasattr(dispatchers()["take_lanes"], "signatures")
    return {"found": found, "jitted": jitted, "bounds": bool(numba.config.BOUNDSCHECK)}


# the tests


def environment(**changes):
    """Variables of a job's process: the session's cache, the package under test, and no leftovers of numba's."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    variables["NUMBA_CACHE_DIR"] = os.environ["NUMBA_CACHE_DIR"]
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    variables["NUMBA_NUM_THREADS"] = "4"
    variables["OMP_NUM_THREADS"] = "4"
    for key, value in changes.items():
        variables.pop(key, None)
        if value is not None:
            variables[key] = str(value)
    return variables


def run(job, *arguments, env=None, script=__file__, **options):
    """The answer of a job. Whatever it started is killed, by the id of its process group, if it takes too long."""
    command = [sys.executable, "-W", "error", str(script), f"job_{job}", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() if env is None else env,
        start_new_session=True,
        **options,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{job} {arguments} took more than {TIMEOUT} s; it wrote {out[-2000:]}{err[-4000:]}")
    assert process.returncode == 0, f"{job} {arguments} ended with {process.returncode}: {err[-4000:]}"
    # not simply the last line: tbb writes to C's stdout, flushed at exit, when it cannot stop its threads for a fork
    return json.loads([line for line in out.splitlines() if line.startswith("{")][-1])


def tbb_folder():
    """Folder of the library that the package tbb brings, which the loader must be told of; None without it."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("tbb") or []:
            if file.name == "libtbb.so.12":
                return str(pathlib.Path(file.locate()).resolve().parent)
    return None


def layer_environment(layer, **changes):
    """Variables that choose a threading layer; skips where the layer cannot be had on this platform."""
    if sys.platform == "win32" and layer == "omp":
        pytest.skip("OpenMP on Windows needs Microsoft's runtime, which is no Python package")
    if sys.platform == "darwin" and layer == "omp":
        pytest.skip("OpenMP on macOS needs libomp, which is no Python package")
    if layer == "tbb":
        if not (sys.platform == "linux" and platform.machine() == "x86_64"):
            pytest.skip("the test extra asks for tbb on Linux on x86-64 only")
        folder = tbb_folder()
        assert folder is not None, "tbb is part of the test extra: pip install tbb"
        path = os.pathsep.join(filter(None, [folder, os.environ.get("LD_LIBRARY_PATH")]))
        changes = {"LD_LIBRARY_PATH": path, **changes}
    return environment(NUMBA_THREADING_LAYER=layer, **changes)


on_layers = pytest.mark.parametrize("layer", LAYERS)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
# The bits that each layer gave, to compare layers with each other: filled by the tests as they run.
SEEN: dict[str, dict] = {}


@on_layers
def test_bits_at_1_2_and_4_threads(layer):
    answer = run("thread_counts", env=layer_environment(layer))
    assert answer["layer"] == layer
    assert answer["n_threads"] == 4
    assert len(answer["runs"]) == len(DTYPES) * len(COVARIANCE_TYPES) + 1
    for name, runs in answer["runs"].items():
        for n_threads, found, calls in runs:
            assert found == runs[0][1], f"{name}: {n_threads} threads give other bits than one"
            if n_threads == 1:
                assert not calls, name
            else:  # or nothing was split, and the comparison says nothing
                assert calls["take_lanes"] >= 3, name
                assert calls.get("take_rows", 0) == (3 if len(found) == 2 else 0), name
    bits_of = {name: runs[0][1] for name, runs in answer["runs"].items()}
    SEEN.setdefault("bits", bits_of)
    assert bits_of == SEEN["bits"]  # from one process, and from one layer, to the next


@on_layers
def test_8_python_threads_at_once(layer):
    answer = run("python_threads", env=layer_environment(layer))
    assert answer["layer"] == layer
    assert answer["failures"] == []
    assert answer["found"] == [[bits_of, bits_of] for bits_of in answer["expected"]]


@needs_fork
@on_layers
def test_fork_after_a_parallel_fit(layer):
    answer = run("fork", env=layer_environment(layer))
    assert answer["layer"] == layer
    assert answer["calls"]["take_lanes"] > 0
    assert answer["in_parent"] == [answer["expected"]] * 2
    assert answer["in_children"] == [[answer["expected"], 0]] * len(answer["in_children"])
    assert answer["statuses"] == [0]
    assert answer["pooled"] == [answer["expected"]] * 4


@on_layers
@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib(layer, backend):
    answer = run("joblib", backend, env=layer_environment(layer))
    assert answer["layer"] == layer
    assert answer["found"] == [answer["expected"]] * 2


@on_layers
def test_settings_of_the_caller_stay(layer):
    answer = run("settings", env=layer_environment(layer))
    assert answer["layer_after_import"] is True  # no layer was started by the import
    assert answer["left"] == answer["set"]
    assert answer["calls_at_one"] == {}  # n_threads=None takes no more threads than the caller's set_num_threads


# dtypes of X and theta that a kernel is compiled for: rows and products in float64; in float32; and
# float32 rows whose products are taken in float64, for starts and thin components
KINDS = {("float64", "float64"), ("float32", "float32"), ("float32", "float64")}


def test_specialisations():
    for name, signatures in run("specialisations").items():
        kinds = [tuple(signature) for signature in signatures]
        assert len(set(kinds)) == len(kinds), f"{name} is compiled twice for the same types: {kinds}"
        for kind in kinds:
            assert "readonly" not in str(kind), f"{name}: {kind}"
        limit = len(KINDS) if name in ("_sweep_lane", "take_lanes") else 2  # densities are always computed in float64
        assert 1 <= len(kinds) <= limit, f"{name}: {kinds}"


def cache_files(folder):
    """Names and times of the compiled kernels in a folder."""
    return sorted((path.name, path.stat().st_mtime_ns) for path in pathlib.Path(folder).rglob("*.nb?"))


def test_second_process_takes_kernels_from_the_cache():
    first, second = run("cache"), run("cache")
    assert second["misses"] == 0
    assert second["hits"] == first["hits"] + first["misses"] >= 4
    assert second["bits"] == first["bits"]


def bind_permissions():
    """Give up root's right to ignore permissions, for this process and what it executes."""
    libc = ctypes.CDLL(None, use_errno=True)
    drop_from_bounding_set, ignore_permissions = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    if libc.prctl(drop_from_bounding_set, ignore_permissions, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def bound_by_permissions(folder):
    """Popen options of a process that cannot write to read-only folders; None if this process cannot make one."""
    folder.mkdir()
    folder.chmod(0o555)
    command = [sys.executable, "-c", f"import tempfile; tempfile.TemporaryFile(dir={str(folder)!r})"]
    for options in ({}, {"preexec_fn": bind_permissions}):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, **options)
            if "PermissionError" in done.stderr:
                return options
    return None


@pytest.mark.skipif(os.name != "posix", reason="folders are made read-only by POSIX permissions")
def test_read_only_installation(tmp_path):
    """Kernels go to the user's own cache, where the next process finds them."""
    site, home = tmp_path / "site", tmp_path / "home"
    shutil.copytree(PACKAGE, site / "fastem", ignore=shutil.ignore_patterns("__pycache__", "*.nb?"))
    script = shutil.copy(__file__, site / "test_threads.py")
    home.mkdir()
    options = bound_by_permissions(tmp_path / "probe")
    if options is None:  # a file where numba would make its folder binds even root
        options = {}
        (site / "fastem" / "kernels" / "__pycache__").write_text("")
    contents = [site, *site.rglob("*")]
    for path in contents:
        path.chmod(0o555 if path.is_dir() else 0o444)
    changes = {"PYTHONPATH": site, "PYTHONDONTWRITEBYTECODE": 1, "HOME": home, "XDG_CACHE_HOME": None}
    env = environment(NUMBA_CACHE_DIR=None, **changes)
    try:
        first = run("small", env=env, script=script, cwd=home, **options)
        assert pathlib.Path(first["package"]).is_relative_to(site)
        assert first["misses"] >= 1
        assert [site, *site.rglob("*")] == contents
        files = cache_files(home)
        assert len(files) >= 2
        second = run("small", env=env, script=script, cwd=home, **options)
        assert cache_files(home) == files
        assert second["misses"] == 0
        assert second["hits"] == first["hits"] + first["misses"]
        assert second["bits"] == first["bits"]
    finally:
        for path in contents:  # so that pytest can remove them
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variable", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_kernels_without_compiler_and_with_bounds_checks(variable, dtype, tmp_path):
    # without LLVM's optimisation the kernels compile in half the time
    options = {variable: 1, "NUMBA_OPT": 0, "NUMBA_NUM_THREADS": 1, "NUMBA_CACHE_DIR": str(tmp_path)}
    answer = run("tiny", dtype, env=environment(**options))
    assert answer["jitted"] == (variable != "NUMBA_DISABLE_JIT")
    assert answer["bounds"] == (variable == "NUMBA_BOUNDSCHECK")
    assert not cache_files(str(tmp_path))  # such kernels replace no real ones
    usual = run("tiny", dtype, env=environment(NUMBA_NUM_THREADS=1))
    assert usual["jitted"]
    assert not usual["bounds"]
    assert sorted(answer["found"]) == sorted(usual["found"])
    tolerance = {"float64": 1e-10, "float32": 1e-4}[dtype]
    for name, results in answer["found"].items():
        for ours, theirs in zip(results, usual["found"][name], strict=True):
            assert np.isfinite(theirs).all(), name
            largest = np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * largest, err_msg=name)


def main(name, *arguments):
    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)
    # Python 3.12 warns of a fork in a process with threads, which is what the job is about.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    limit_time()
    print(json.dumps(globals()[name](*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
