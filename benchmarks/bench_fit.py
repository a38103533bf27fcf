"""Whole fits: fixed start and number of iterations. Each time has the log-likelihood reached and a peak of memory."""

import functools

import numpy as np

from . import datasets, memory
from .common import COVARIANCE_TYPES, best_seconds, fit, prepared, setup_cache, start  # noqa: F401
from .peers.workloads import WORKLOADS
from .peers.workloads import prepared as workload_data

timeout = 300


class _Fit:
    """`setup` of a subclass sets X and start."""

    repeat = (3, 10, 5.0)

    def time_fit(self, *_):
        fit(self.X, self.start)

    def peakmem_fit(self, *_):
        fit(self.X, self.start)

    def track_log_likelihood(self, *_):
        return float(fit(self.X, self.start).lower_bound_)

    track_log_likelihood.unit = "nats per sample"


class Shape(_Fit):
    """Full covariances, float64."""

    params = (["200000x2x8", "200000x8x16", "100000x16x16", "50000x32x16"],)
    param_names = ("n_samples x n_features x n_components",)

    def setup(self, shape):
        n_samples, n_features, n_components = map(int, shape.split("x"))
        arguments = (n_samples, n_features, n_components)
        self.X, self.start = prepared(datasets.mixture, n_components, "full", *arguments)


class Table(_Fit):
    """The workloads of `fastem bench`: 10 iterations each."""

    params = ([workload.name for workload in WORKLOADS],)
    param_names = ("workload",)

    def setup(self, name):
        self.X, self.start = _workload(name)


@functools.cache
def _workload(name):
    """Data and start of a workload, once a process."""
    workload = next(w for w in WORKLOADS if w.name == name)
    X, first = workload_data(workload)
    matrices = workload.covariance_type in ("full", "tied")
    parameters = {
        "n_components": workload.n_components,
        "covariance_type": workload.covariance_type,
        "weights_init": first["weights"],
        "means_init": first["means"],
        "precisions_init": np.linalg.inv(first["covariances"]) if matrices else 1 / first["covariances"],
    }
    fit(X, parameters, n_iter=1)
    return X, parameters


class Rows(_Fit):
    """The same mixture, more rows: 8 columns, 8 components."""

    params = ([100_000, 1_000_000],)
    param_names = ("n_samples",)
    repeat = (3, 5, 10.0)

    def setup(self, n_samples):
        self.X, self.start = prepared(datasets.mixture, 8, "full", n_samples, 8, 8)


class Threads(_Fit):
    """200000 x 16, 16 components, on one thread and on two."""

    params = ([1, 2],)
    param_names = ("n_threads",)

    def setup(self, n_threads):
        X, first = prepared(datasets.mixture, 16, "full", 200_000, 16, 16)
        self.X, self.start = X, {**first, "n_threads": n_threads}


class Calls:
    """What a fitted estimator is asked: 200000 x 8, 16 components."""

    params = (["predict", "predict_proba", "score_samples"],)
    param_names = ("method",)
    repeat = (3, 10, 5.0)

    def setup(self, method):
        X, first = prepared(datasets.mixture, 16, "full", 200_000, 8, 16)
        fitted = fit(X, first, n_iter=5)
        self.X, self.call = X, getattr(fitted, method)
        self.log_likelihood = fitted.score(X)

    def time_call(self, _):
        self.call(self.X)

    def peakmem_call(self, _):
        self.call(self.X)

    def track_log_likelihood(self, _):
        return self.log_likelihood


class Structure(_Fit):
    """100000 x 8, 16 components."""

    params = (list(COVARIANCE_TYPES), ["float64", "float32"])
    param_names = ("covariance_type", "dtype")

    def setup(self, covariance_type, dtype):
        self.X, self.start = prepared(datasets.mixture, 16, covariance_type, 100_000, 8, 16, dtype)


class China(_Fit):
    """The colours of a photograph: 273280 x 3, many rows alike, 8 components."""

    def setup(self):
        self.X, self.start = prepared(datasets.china, 8, "full")


class Memory:
    """What a fit takes above its data: 2000000 x 16 (244 MiB), 16 components."""

    unit = "MiB"

    def setup(self):
        if not memory.RESET.exists():
            raise NotImplementedError("the peak of memory is read from /proc")
        prepared(datasets.mixture, 16, "full", 10_000, 16, 16)
        self.X = datasets.mixture(2_000_000, 16, 16)
        self.start = start(self.X[:10_000], 16, "full")

    def track_peak_above_data(self):
        self.X.max()  # every page is in
        return memory.mebibytes_above(lambda: fit(self.X, self.start, n_iter=2))


class Answer:
    """A whole call by the defaults, from rows to a fit that has settled, and the log-likelihood it reaches."""

    params = (["mixture", "china"],)
    param_names = ("data",)
    timeout = 120

    def setup(self, data):
        if data == "china":
            self.X, self.n_components = datasets.china(), 8
        else:
            self.X, self.n_components = datasets.mixture(100_000, 8, 10), 10
        self.fitted = self._fit()

    def _fit(self):
        from fastem import GaussianMixture

        return GaussianMixture(self.n_components, random_state=0).fit(self.X)

    def time_fit(self, _):
        self._fit()

    def track_log_likelihood(self, _):
        return self.fitted.lower_bound_


class ScikitLearn:
    """An iteration of fastem's over one of scikit-learn's, both measured here: 200000 x 8, 16 components."""

    params = (["full", "diag"],)
    param_names = ("covariance_type",)
    unit = "1"

    def setup(self, covariance_type):
        self.X, self.start = prepared(datasets.mixture, 16, covariance_type, 200_000, 8, 16)

    def track_iteration_ratio(self, covariance_type):
        from sklearn.mixture import GaussianMixture

        theirs = self._iteration_seconds(GaussianMixture, n_iter=3, repeat=1)
        return self._iteration_seconds(None, n_iter=20, repeat=3) / theirs

    def _iteration_seconds(self, estimator, n_iter, repeat):
        """Time of n_iter + 1 iterations less that of one: checks and the start cancel."""

        def run(n):
            return best_seconds(lambda: fit(self.X, self.start, n, estimator), repeat)

        return (run(n_iter + 1) - run(1)) / n_iter
