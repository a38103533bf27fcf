"""oneDAL's EM for Gaussian mixtures, by daal4py out of scikit-learn-intelex."""

import daal4py  # before NumPy, or two runtimes of threads clash

TITLE = "oneDAL"
INSTALL = "make peers PEERS=onedal (daal4py needs scikit-learn<1.6, numpy<2 and packaging)"
STRUCTURES = ("full", "diag")
DTYPES = ("float64", "float32")
TOLERANCE = 1e-6


def version():
    from importlib.metadata import version

    return version("daal4py")


def prepare(X, start, covariance_type):
    import numpy as np

    weights = start["weights"][None].astype(X.dtype)
    means = start["means"].astype(X.dtype)
    covariances = [np.atleast_2d(c).astype(X.dtype) for c in start["covariances"]]

    def run(n_iter):
        result = daal4py.em_gmm(
            len(means),
            fptype="double" if X.dtype == np.float64 else "float",
            maxIterations=n_iter,
            accuracyThreshold=0.0,
            regularizationFactor=0.0 if X.dtype == np.float64 else 1e-6,
            covarianceStorage="full" if covariance_type == "full" else "diagonal",
        ).compute(X, weights, means, covariances)
        run.n_iter = int(result.nIterations[0, 0])  # it stops where the log-likelihood no longer changes
        found = np.array([np.asarray(c) for c in result.covariances])
        return result.weights[0], result.means, found if covariance_type == "full" else found[:, 0]

    return run


def curve(X, n_components, seed, budget):
    """(seconds, mean log-likelihood) of ever longer calls, the end of the call by its defaults, and parameters.

    em_gmm_init with its defaults finds the start; em_gmm then takes 10, 20, 40 ... iterations from there.
    """
    import time

    import numpy as np

    from benchmarks.peers.workloads import mean_log_likelihood

    begin = time.perf_counter()
    start = daal4py.em_gmm_init(n_components, engine=daal4py.engines_mt19937(seed=seed)).compute(X)
    starting = time.perf_counter() - begin
    points, n_iter, stop = [], 10, None
    while True:
        begin = time.perf_counter()
        result = daal4py.em_gmm(n_components, maxIterations=n_iter, accuracyThreshold=0.0).compute(
            X, start.weights, start.means, start.covariances
        )
        seconds = starting + time.perf_counter() - begin
        found = result.weights[0], result.means, np.array([np.asarray(c) for c in result.covariances])
        points.append((seconds, mean_log_likelihood(X, "full", *found)))
        stop = stop or seconds  # by default it takes 10 iterations
        if seconds > budget or n_iter > 100_000:
            return points, stop, found
        n_iter *= 2
