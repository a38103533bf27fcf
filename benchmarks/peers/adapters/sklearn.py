"""scikit-learn's GaussianMixture."""

TITLE = "scikit-learn"
INSTALL = "pip install scikit-learn"
FITS = ("full", "tied", "diag", "spherical")
DTYPES = ("float64", "float32")
TOLERANCE = 1e-6
_SETTLED = 1e-6  # gain of an iteration


def version():
    import sklearn

    return sklearn.__version__


def prepare(X, start, covariance_type, **options):
    from sklearn.mixture import GaussianMixture

    return runner(GaussianMixture, X, start, covariance_type, **options)


def inverses(covariances, covariance_type):
    """Precisions of covariances."""
    import numpy as np

    return np.linalg.inv(covariances) if covariance_type in ("full", "tied") else 1 / covariances


def runner(estimator, X, start, covariance_type, **options):
    """Run for a class with scikit-learn's constructor; `options` may name a method of the fitted estimator to run."""
    import warnings

    method = options.pop("method", None)
    parameters = {
        "n_components": len(start["weights"]),
        "covariance_type": covariance_type,
        "weights_init": start["weights"].astype(X.dtype)
        if estimator.__module__.startswith("sklearn")
        else start["weights"],
        "means_init": start["means"],
        "precisions_init": inverses(start["covariances"], covariance_type),
        "reg_covar": 0.0,
        "tol": 0.0,
        **options,
    }
    if estimator.__module__.startswith("sklearn"):
        for name in ("weights_init", "means_init", "precisions_init"):
            parameters[name] = parameters[name].astype(X.dtype)

    def run(n_iter):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tol=0 never converges
            fitted = estimator(max_iter=n_iter, **parameters).fit(X)
        run.n_iter = fitted.n_iter_  # fewer where nothing is gained any more
        return fitted.weights_, fitted.means_, fitted.covariances_

    if method is None:
        return run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call = getattr(estimator(max_iter=5, **parameters).fit(X), method)

    def run_method(n_calls):
        for _ in range(n_calls):
            call(X)

    return run_method


def curve(X, n_components, seed, budget):
    """(seconds, best mean log-likelihood so far) of iterations, the first end by scikit-learn's tol, and parameters.

    It goes on beyond that end; where an iteration gains less than _SETTLED it starts again; until the budget is spent.
    """
    import time
    import warnings

    from sklearn.mixture import GaussianMixture

    points, ends, last = [], [], [-float("inf")]
    default = GaussianMixture()

    class Watched(GaussianMixture):
        def _e_step(self, X, **options):
            value, log_resp = super()._e_step(X, **options)
            now, gain = time.perf_counter() - begin, value - last[0]
            points.append((now, max(float(value), points[-1][1] if points else value)))
            if gain < default.tol:
                ends.append(now)
            last[0] = value
            over = now > budget and ends
            self.tol = float("inf") if over or gain < _SETTLED else 0.0  # inf: this iteration is the last
            return value, log_resp

    best = None
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for again in range(1_000_000):
            last[0] = -float("inf")
            fitted = Watched(n_components, random_state=seed + 1000 * again, tol=0.0, max_iter=100_000).fit(X)
            if best is None or fitted.lower_bound_ > best.lower_bound_:
                best = fitted
            if time.perf_counter() - begin > budget:
                break
    return points, min(ends), (best.weights_, best.means_, best.covariances_)
