"""Hidden Markov models: fixed start and number of iterations. Each time has the log-likelihood reached."""

import functools
import warnings

import numpy as np

from .common import setup_cache as setup_mixtures
from .peers.workloads import WORKLOADS
from .peers.workloads import prepared as workload_data

timeout = 600
N_ITER = 5


def setup_cache():
    """Compile every kernel in a process of its own."""
    setup_mixtures()
    for covariance_type in ("full", "tied", "diag", "spherical"):
        _fitted(*_sequences(100, 200, 3), covariance_type=covariance_type).predict_proba(_sequences(100, 200, 3)[0])


setup_cache.timeout = 900


@functools.cache
def _sequences(n_sequences, length, n_components, n_features=4):
    """Rows and lengths of sequences about means that follow a chain."""
    rng = np.random.default_rng(0)
    steps = rng.random((n_sequences, length)) < 0.1
    states = (np.cumsum(steps, axis=1) + rng.integers(n_components, size=(n_sequences, 1))) % n_components
    means = 2.0 * rng.normal(size=(n_components, n_features))
    X = means[states.ravel()] + rng.normal(size=(n_sequences * length, n_features))
    return X, [length] * n_sequences


def _fit(model, X, lengths):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tol=0 never converges
        return model.fit(X, lengths)


def _fitted(X, lengths, n_components=3, covariance_type="full", n_iter=N_ITER, **options):
    from fastem import GaussianHMM

    means = X[:: len(X) // n_components][:n_components]
    unit = {
        "full": np.tile(np.eye(X.shape[1]), (n_components, 1, 1)),
        "tied": np.eye(X.shape[1]),
        "diag": np.ones((n_components, X.shape[1])),
        "spherical": np.ones(n_components),
    }[covariance_type]
    start = {"startprob_init": np.full(n_components, 1 / n_components), "means_init": means, "covariances_init": unit}
    start["transmat_init"] = np.full((n_components, n_components), 1 / n_components)
    model = GaussianHMM(n_components, covariance_type=covariance_type, tol=0, max_iter=n_iter, **start, **options)
    return _fit(model, X, lengths)


class Table:
    """The workloads beside hmmlearn."""

    params = ([workload.name for workload in WORKLOADS if workload.length is not None],)
    param_names = ("workload",)
    repeat = (2, 5, 10.0)

    def setup(self, name):
        from fastem import GaussianHMM

        workload = next(w for w in WORKLOADS if w.name == name)
        self.X, start = workload_data(workload)
        self.lengths = workload.options["lengths"]
        start = {f"{part}_init": value for part, value in start.items()}
        self.model = GaussianHMM(
            workload.n_components, covariance_type=workload.model.split()[0], tol=0, max_iter=N_ITER, **start
        )

    def time_fit(self, _):
        _fit(self.model, self.X, self.lengths)

    def peakmem_fit(self, _):
        _fit(self.model, self.X, self.lengths)

    def track_log_likelihood(self, _):
        return float(_fit(self.model, self.X, self.lengths).lower_bound_)

    track_log_likelihood.unit = "nats per row"


class States:
    """200 sequences of 1000 x 4; a step grows with the square of the states."""

    params = ([2, 8, 16, 32],)
    param_names = ("n_components",)
    repeat = (2, 5, 10.0)

    def setup(self, n_components):
        self.n_components = n_components
        self.X, self.lengths = _sequences(200, 1000, n_components)

    def time_fit(self, _):
        _fitted(self.X, self.lengths, self.n_components)

    def track_log_likelihood(self, _):
        return float(_fitted(self.X, self.lengths, self.n_components).lower_bound_)


class Shapes:
    """The same rows as one sequence, as few and as many; structures; threads."""

    params = (["1 sequence", "20 sequences", "20000 sequences", "diag", "1 thread", "8 components a state"],)
    param_names = ("what",)
    repeat = (2, 5, 10.0)

    def setup(self, what):
        self.X, _ = _sequences(200, 1000, 3)
        n = int(what.split()[0]) if "sequence" in what else 200
        self.lengths = [len(self.X) // n] * n
        self.options = {"covariance_type": "diag"} if what == "diag" else {}
        self.options |= {"n_threads": 1} if what == "1 thread" else {}

    def time_fit(self, what):
        if what == "8 components a state":
            from fastem import GMMHMM

            _fit(GMMHMM(3, 8, tol=0, max_iter=N_ITER, n_race=0, random_state=0), self.X, self.lengths)
        else:
            _fitted(self.X, self.lengths, **self.options)


class Families:
    """Counts and categories: 200 sequences of 1000 rows, 4 states."""

    params = (["poisson", "categorical"],)
    repeat = (2, 5, 10.0)

    def setup(self, family):
        from fastem import CategoricalHMM, PoissonHMM

        X, self.lengths = _sequences(200, 1000, 4, 1)
        self.X = np.round(np.abs(X)) if family == "poisson" else np.clip(np.round(X), -5, 5)
        kind = PoissonHMM if family == "poisson" else CategoricalHMM
        self.model = kind(4, tol=0, max_iter=N_ITER, n_race=0, random_state=0, acceleration=None, stopping="change")

    def time_fit(self, _):
        _fit(self.model, self.X, self.lengths)

    def track_log_likelihood(self, _):
        return float(_fit(self.model, self.X, self.lengths).lower_bound_)


class Calls:
    """What a fitted model is asked: 200 sequences of 1000 x 4, 8 states."""

    params = (["predict", "predict_proba", "score"],)
    param_names = ("method",)
    repeat = (2, 5, 10.0)

    def setup(self, method):
        self.X, self.lengths = _sequences(200, 1000, 8)
        self.call = getattr(_fitted(self.X, self.lengths, 8), method)

    def time_call(self, _):
        self.call(self.X, self.lengths)
