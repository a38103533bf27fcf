"""Iterations of mixtures of other families: fixed start and number, with the log-likelihood that they reach."""

import functools
import warnings

import numpy as np

import fastem

from . import datasets
from .common import N_ITER, best_seconds, setup_cache  # noqa: F401

timeout = 300
_COMPONENTS = 5


@functools.cache
def _data(name):
    """Rows of five components that overlap, once a process."""
    rng = np.random.default_rng(0)
    if name == "latent class":
        return datasets.latent_classes(100_000, 20, _COMPONENTS)
    if name == "repeated":  # 5 columns of 3 categories have 243 patterns
        return datasets.latent_classes(1_000_000, 5, _COMPONENTS, 3)
    if name == "student t":
        return datasets.mixture(200_000, 8, _COMPONENTS, degrees_of_freedom=4.0)
    labels = rng.integers(_COMPONENTS, size=200_000)[:, None]
    shift = labels * np.linspace(0.0, 1.0, 10)
    return {
        "bernoulli": lambda: (rng.random((200_000, 10)) < 0.1 + 0.15 * shift).astype(float),
        "poisson": lambda: rng.poisson(1.0 + shift).astype(float),
        "gamma": lambda: rng.gamma(2.0 + shift),
        "von mises": lambda: rng.vonmises(shift, 4.0),
        "mixed": lambda: np.column_stack(
            [rng.poisson(1.0 + shift[:, :5]), rng.normal(shift[:, 5:9]), rng.random(200_000) < 0.1 + 0.2 * labels[:, 0]]
        ).astype(float),
    }[name]()


_MIXED = {"poisson": [0, 1, 2, 3, 4], "gaussian_full": [5, 6], "gaussian": [7, 8], "bernoulli": [9]}
_ESTIMATORS = {
    "latent class": fastem.LatentClass,
    "repeated": fastem.LatentClass,
    "bernoulli": fastem.BernoulliMixture,
    "poisson": fastem.PoissonMixture,
    "gamma": fastem.GammaMixture,
    "von mises": fastem.VonMisesMixture,
    "student t": fastem.StudentTMixture,
    "mixed": functools.partial(fastem.MixedMixture, families=_MIXED),
}


class Family:
    """Ten iterations from labels by chance, all rows in memory: coding the rows counts too."""

    params = (list(_ESTIMATORS),)
    param_names = ("family",)
    repeat = (3, 10, 5.0)

    def setup(self, name):
        self.X = _data(name)
        start = np.random.default_rng(1).integers(_COMPONENTS, size=len(self.X))
        self.estimator = _ESTIMATORS[name](_COMPONENTS, resp_init=start, max_iter=N_ITER, tol=0.0)
        self._fit()

    def _fit(self, n_iter=N_ITER):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tol=0 never converges
            return self.estimator.set_params(max_iter=n_iter).fit(self.X)

    def time_fit(self, name):
        self._fit()

    def track_log_likelihood(self, name):
        return float(self._fit().lower_bound_)

    track_log_likelihood.unit = "nats per sample"

    def track_milliseconds_of_an_iteration(self, name):
        few, many = (best_seconds(functools.partial(self._fit, n_iter)) for n_iter in (N_ITER, 3 * N_ITER))
        return 1e3 * (many - few) / (2 * N_ITER)

    track_milliseconds_of_an_iteration.unit = "ms"


class LookUp:
    """The pass of a latent class model by look-up beside that over one-hot rows, in one process."""

    repeat = (3, 10, 5.0)

    def setup(self):
        from fastem.data import as_data
        from fastem.models.mixture import Mixture

        data = as_data(_data("latent class"))
        self.model = Mixture(fastem.Categorical(), _COMPONENTS, n_threads=1).prepare(data)
        self.params = self.model.initialize(data, np.random.default_rng(0))
        self.block = data.blocks[0]
        family, components = self.model.family, self.params.components
        layout = family.layout(components, self.model.bound)
        self.states = family.natural(components, np.log(self.params.weights), layout, self.model.bound)
        self.rows = family.rows(self.block)
        self.time_pass()

    def time_pass(self):
        self.model.e_step(self.params, self.block)

    def track_one_hot_over_look_up(self):
        """How many times longer the other pass takes."""
        return best_seconds(self._one_hot) / best_seconds(self.time_pass)

    def _one_hot(self):
        self.model._sweep(self.rows, self.states, 0)
