"""oneDAL's EM for Gaussian mixtures, by daal4py out of scikit-learn-intelex."""

import daal4py  # before NumPy, or two runtimes of threads clash

TITLE = "oneDAL"
INSTALL = "make peers PEERS=onedal (daal4py needs scikit-learn<1.6, numpy<2 and packaging)"
FITS = ("full", "diag")
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
    """(seconds, best mean log-likelihood so far) of ever longer calls, the end of the first, and parameters.

    em_gmm_init with its defaults finds the start; em_gmm then takes 10 iterations as by default, 20, 40 ... from there,
    until they change nothing: then another start. Only the longest call from a start counts, until the budget is spent.
    """
    import time

    import numpy as np

    from benchmarks.peers.workloads import mean_log_likelihood

    points, stop, best, spent, again = [], None, None, 0.0, 0
    while spent <= budget:
        begin = time.perf_counter()
        engine = daal4py.engines_mt19937(seed=seed + 1000 * again)
        start = daal4py.em_gmm_init(n_components, engine=engine).compute(X)
        starting = time.perf_counter() - begin
        again, n_iter, seconds = again + 1, 10, 0.0
        while spent + seconds <= budget:
            begin = time.perf_counter()
            result = daal4py.em_gmm(n_components, maxIterations=n_iter, accuracyThreshold=0.0).compute(
                X, start.weights, start.means, start.covariances
            )
            seconds = starting + time.perf_counter() - begin
            stop = stop or seconds
            found = result.weights[0], result.means, np.array([np.asarray(c) for c in result.covariances])
            value = mean_log_likelihood(X, "full", *found)
            if best is None or value > best[0]:
                best = value, found
            points.append((spent + seconds, best[0]))
            if int(result.nIterations[0, 0]) < n_iter:
                break
            n_iter *= 2
        spent += seconds
    return points, stop, best[1]
