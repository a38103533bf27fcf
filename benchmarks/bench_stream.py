"""Streams: rows a second of `partial_fit` beside those of the fused pass, and what one pass reaches."""

import time
import warnings

import numpy as np

from . import datasets, out_of_core
from .common import setup_cache  # noqa: F401

timeout = 300
_N_FEATURES, _N_COMPONENTS = 16, 16
_CALLED = 98_304  # rows in calls of 1024: six steps


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
        """Seconds a row, of whole steps."""
        begin = time.perf_counter()
        for first in range(0, _CALLED, 1024):
            self.gm.partial_fit(self.X[first : first + 1024])
        return (time.perf_counter() - begin) / _CALLED

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
            for row in self.X[:16384]:
                self.gm.partial_fit(row[None])
            times.append((time.perf_counter() - begin) / 16384)
        return 1e6 * np.median(times)

    track_microseconds_of_a_single_row.unit = "us"


class OnePass:
    """One pass over 2000000 rows beside batch EM from the start of the stream: time, held-out log-likelihood lost."""

    def setup(self):
        X = datasets.mixture(2_100_000, _N_FEATURES, _N_COMPONENTS)
        self.X, self.held = X[:2_000_000], X[2_000_000:]

    def _pass(self, seed=0):
        """The stream, and the seconds after its start."""
        from fastem import GaussianMixture

        gm = GaussianMixture(_N_COMPONENTS, random_state=seed)
        n_start = gm._model().start_rows(_N_FEATURES)
        gm.partial_fit(self.X[:n_start])
        begin = time.perf_counter()
        gm.partial_fit(self.X[n_start:])
        return gm, time.perf_counter() - begin

    def track_time_over_two_batch_iterations(self):
        """Those of a fit to the same rows, from what the stream has learned from the rows of its start."""
        from fastem import GaussianMixture

        n_start = GaussianMixture(_N_COMPONENTS)._model().start_rows(_N_FEATURES)
        gm = GaussianMixture(_N_COMPONENTS, random_state=0).partial_fit(self.X[:n_start])
        begin = {"weights_init": gm.weights_, "means_init": gm.means_, "precisions_init": gm.precisions_}
        ratios = []
        for _ in range(5):
            times = []
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for n_iter in (0, 2):
                    before = time.perf_counter()
                    GaussianMixture(_N_COMPONENTS, max_iter=n_iter, tol=0.0, **begin).fit(self.X)
                    times.append(time.perf_counter() - before)
            ratios.append(self._pass()[1] / (times[1] - times[0]))
        return np.median(ratios)

    track_time_over_two_batch_iterations.unit = "1"

    def track_log_likelihood_lost(self):
        """The most of five seeds, over that of batch EM by its defaults."""
        from fastem import GaussianMixture

        batch = GaussianMixture(_N_COMPONENTS, random_state=0, max_iter=500).fit(self.X).score(self.held)
        return max((batch - self._pass(seed)[0].score(self.held)) / abs(batch) for seed in range(5))

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
