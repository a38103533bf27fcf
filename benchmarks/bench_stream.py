"""Streams: rows a second of `partial_fit` beside those of the fused pass, and what one pass reaches."""

import time
import warnings

import numpy as np

from . import datasets, out_of_core
from .common import setup_cache, start  # noqa: F401

timeout = 300
_N_FEATURES, _N_COMPONENTS = 16, 16


def _streamed(X, **params):
    from fastem import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(_N_COMPONENTS, random_state=0, **params).partial_fit(X)


class PartialFit:
    """Full covariances, 16 columns, 16 components."""

    def setup(self):
        self.X = datasets.mixture(200_000, _N_FEATURES, _N_COMPONENTS)
        self.gm = _streamed(self.X[:10_000])
        self.gm.partial_fit(self.X[:1024])

    def _batches(self):
        begin = time.perf_counter()
        for first in range(0, 102_400, 1024):
            self.gm.partial_fit(self.X[first : first + 1024])
        return (time.perf_counter() - begin) / 102_400

    def track_batches_of_1024_over_the_fused_pass(self):
        """Time of a row in batches over its time in a pass over many."""
        from fastem import Gaussian, Mixture
        from fastem.data import as_data

        data = as_data(self.X)
        model = Mixture(Gaussian(), _N_COMPONENTS).prepare(data)
        params = self.gm._params()
        [block] = data
        passes, batches = [], []
        for _ in range(5):
            begin = time.perf_counter()
            model.e_step(params, block)
            passes.append((time.perf_counter() - begin) / len(self.X))
            batches.append(self._batches())
        return np.median(batches) / np.median(passes)

    track_batches_of_1024_over_the_fused_pass.unit = "1"

    def track_microseconds_of_a_single_row(self):
        """Mean over whole batches, their steps included."""
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            for row in self.X[: 3 * 1024]:
                self.gm.partial_fit(row[None])
            times.append((time.perf_counter() - begin) / (3 * 1024))
        return 1e6 * np.median(times)

    track_microseconds_of_a_single_row.unit = "us"


class OnePass:
    """One pass over 2000000 rows beside batch EM: time in its iterations, and the held-out log-likelihood lost."""

    def setup(self):
        X = datasets.mixture(2_100_000, _N_FEATURES, _N_COMPONENTS)
        self.X, self.held = X[:2_000_000], X[2_000_000:]
        self.start = start(self.X, _N_COMPONENTS, "full")

    def _batch(self, max_iter, **params):
        from fastem import GaussianMixture

        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gm = GaussianMixture(_N_COMPONENTS, random_state=0, max_iter=max_iter, **params).fit(self.X)
        return gm, time.perf_counter() - begin

    def track_time_in_batch_iterations(self):
        _streamed(self.X[:10_000])
        begin = time.perf_counter()
        self.gm = _streamed(self.X)
        took = time.perf_counter() - begin
        long, short = (
            self._batch(n, tol=0.0, **{k: v for k, v in self.start.items() if k != "n_components"})[1] for n in (6, 1)
        )
        return took / ((long - short) / 5)

    track_time_in_batch_iterations.unit = "1"

    def track_log_likelihood_lost(self):
        batch = self._batch(500)[0].score(self.held)
        return (batch - _streamed(self.X).score(self.held)) / abs(batch)

    track_log_likelihood_lost.unit = "1"


class Epochs:
    """Ten epochs of mini-batches, and incremental EM, beside batch EM from the same starts."""

    params = ("minibatch", "incremental")
    param_names = ("algorithm",)

    def setup(self, algorithm):
        self.X = datasets.mixture(200_000, _N_FEATURES, _N_COMPONENTS)

    def _fitted(self, algorithm):
        from fastem import GaussianMixture

        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gm = GaussianMixture(_N_COMPONENTS, random_state=0, algorithm=algorithm).fit(self.X)
        return gm, time.perf_counter() - begin

    def track_log_likelihood_lost(self, algorithm):
        (batch, _), (gm, _) = self._fitted("batch"), self._fitted(algorithm)
        return (batch.lower_bound_ - gm.lower_bound_) / abs(batch.lower_bound_)

    track_log_likelihood_lost.unit = "1"

    def track_time_over_that_of_the_batch(self, algorithm):
        self._fitted(algorithm)
        (_, batch), (_, seconds) = self._fitted("batch"), self._fitted(algorithm)
        return seconds / batch

    track_time_over_that_of_the_batch.unit = "1"


class OnDisk:
    """Exact EM over a file beside the disk's own rate and the rate in memory."""

    gigabytes = 4.0

    def measure(self):
        """Share of the lesser rate, and MiB of memory."""
        found = out_of_core.measure(self.gigabytes)
        return found.share, found.mebibytes

    def track_rate_over_the_lesser(self):
        return self.measure()[0]

    track_rate_over_the_lesser.unit = "1"
