"""Hidden Markov models of counts and of categories."""

from typing import Any, ClassVar

import numpy as np

from fastem.data import finite_array
from fastem.estimators.family_mixture import CONJUGATE, as_conjugate
from fastem.estimators.hidden_markov import HiddenMarkovEstimator
from fastem.families.categorical import Categorical, CategoricalParams
from fastem.families.poisson import Poisson, PoissonParams
from fastem.models.hidden_markov import HiddenMarkov


class PoissonHMM(HiddenMarkovEstimator):
    """Hidden Markov model of counts that are Poisson in each state, independently in each column.

    Parameters
    ----------
    n_components : int, default=1
        Number of states K.
    rates_init : array-like of shape (n_components, n_features), default=None
        Means of the counts that replace those of the start.
    prior : float or fastem.Conjugate, default=None
        Gamma prior of the rates: so many rows, with the mean of all the data unless `Conjugate` gives another, come to
        those of each state. None: no prior.
    tol, max_iter, n_init, init_params, startprob_init, transmat_init, random_state, warm_start, verbose, \
verbose_interval, stopping, n_race, acceleration, algorithm, n_epochs, max_time, resp_init, startprob_prior, \
transmat_prior, n_threads, batch_size, online
        As in `fastem.GaussianHMM`.

    Attributes
    ----------
    startprob_, transmat_ : ndarray of shape (n_components,), (n_components, n_components)
    rates_, lambdas_ : ndarray of shape (n_components, n_features)
        Means of the counts, by two names.

    See Also
    --------
    GaussianHMM : What is the same, and the other attributes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import PoissonHMM
    >>> X = np.random.default_rng(0).poisson(np.repeat([2.0, 12.0, 2.0], 400))[:, None]
    >>> model = PoissonHMM(n_components=2, random_state=0).fit(X)
    >>> np.sort(model.rates_[:, 0]).round()
    array([ 2., 12.])
    """

    _LEARNED = ("startprob_", "transmat_", "rates_")
    _start_parts = ("startprob_init", "transmat_init", "rates_init")
    _parameter_constraints: ClassVar[dict] = {
        **HiddenMarkovEstimator._parameter_constraints,
        "rates_init": ["array-like", None],
        "prior": CONJUGATE,
    }
    rates_: np.ndarray

    def __init__(
        self,
        n_components=1,
        *,
        tol=1e-3,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        startprob_init=None,
        transmat_init=None,
        rates_init=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        stopping=None,
        n_race=None,
        acceleration="auto",
        algorithm="batch",
        n_epochs=10,
        max_time=None,
        resp_init=None,
        startprob_prior=None,
        transmat_prior=None,
        prior=None,
        n_threads=None,
        batch_size=None,
        online=None,
    ):
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.rates_init = rates_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.stopping = stopping
        self.n_race = n_race
        self.acceleration = acceleration
        self.algorithm = algorithm
        self.n_epochs = n_epochs
        self.max_time = max_time
        self.resp_init = resp_init
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.prior = prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online

    @property
    def lambdas_(self):
        """The rates, by hmmlearn's name."""
        return self.rates_

    @lambdas_.setter
    def lambdas_(self, rates):
        self.rates_ = rates

    @classmethod
    def from_parameters(cls, startprob, transmat, rates, **params):
        """Build a fitted model from known parameters, of the shapes of the attributes.

        Parameters
        ----------
        startprob, transmat, rates : array-like
            startprob and each row of transmat are non-negative and sum to 1; rates are not negative.
        **params
            Constructor parameters.

        Returns
        -------
        PoissonHMM

        Raises
        ------
        ValueError
            If a shape does not fit, probabilities do not sum to 1, or a rate is negative.
        """
        rates = finite_array("rates", rates, 2)
        estimator = cls(n_components=len(rates), **params)
        estimator._validate_params()
        return estimator._known_as(startprob, transmat, rates_=rates)

    def _family(self) -> Poisson:
        return Poisson(as_conjugate(self.prior))

    def _components_init(self) -> dict[str, Any]:
        return {} if self.rates_init is None else {"rates": self.rates_init}

    def _components(self, known: dict[str, Any], n_components: int) -> PoissonParams:
        rates = finite_array("rates_", known["rates_"], 2)
        if (rates < 0).any():
            raise ValueError(f"rates_ must not be negative; the smallest is {rates.min()}")
        if len(rates) != n_components:
            raise ValueError(f"rates_ has shape {rates.shape}, but startprob_ is for {n_components} states")
        return PoissonParams(rates)

    def _emissions(self, weights: np.ndarray, components: PoissonParams) -> dict[str, np.ndarray]:
        return {"rates_": components.rates}


class CategoricalHMM(HiddenMarkovEstimator):
    """Hidden Markov model of categories, in one column or in several that are independent in each state.

    Parameters
    ----------
    n_components : int, default=1
        Number of states K.
    categories : list of array-like, default=None
        The values of each column. None: those that the data of `fit` hold; others then have probability 0.
    emissionprob_init : array-like of shape (n_components, n_categories), default=None
        Probabilities of the categories that replace those of the start.
    prior : float or fastem.Conjugate, default=None
        Dirichlet prior of the probabilities: so many rows, with the shares of all the data unless `Conjugate` gives
        others, come to those of each state. None: no prior.
    tol, max_iter, n_init, init_params, startprob_init, transmat_init, random_state, warm_start, verbose, \
verbose_interval, stopping, n_race, acceleration, algorithm, n_epochs, max_time, resp_init, startprob_prior, \
transmat_prior, n_threads, batch_size, online
        As in `fastem.GaussianHMM`. Where fewer rows differ than there are states, starts are by chance.

    Attributes
    ----------
    startprob_, transmat_ : ndarray of shape (n_components,), (n_components, n_components)
    emissionprob_ : ndarray of shape (n_components, n_categories)
        Probabilities of the categories, in ascending order, of one column after the other.
    categories_ : list of ndarray
        The values of each column, ascending.

    See Also
    --------
    GaussianHMM : What is the same, and the other attributes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import CategoricalHMM
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat([[0], [2], [0], [2]], 100, axis=0) + (rng.random((400, 1)) < 0.3)
    >>> model = CategoricalHMM(n_components=2, random_state=0).fit(X)
    >>> np.sort(model.emissionprob_.max(axis=1)).round(1)
    array([0.7, 0.8])
    """

    _LEARNED = ("startprob_", "transmat_", "emissionprob_")
    _start_parts = ("startprob_init", "transmat_init", "emissionprob_init")
    _reported_as: ClassVar[dict[str, str]] = {"probabilities": "emissionprob"}
    _parameter_constraints: ClassVar[dict] = {
        **HiddenMarkovEstimator._parameter_constraints,
        "categories": [list, tuple, None],
        "emissionprob_init": ["array-like", None],
        "prior": CONJUGATE,
    }
    emissionprob_: np.ndarray
    categories_: list[np.ndarray]

    def __init__(
        self,
        n_components=1,
        *,
        categories=None,
        tol=1e-3,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        startprob_init=None,
        transmat_init=None,
        emissionprob_init=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        stopping=None,
        n_race=None,
        acceleration="auto",
        algorithm="batch",
        n_epochs=10,
        max_time=None,
        resp_init=None,
        startprob_prior=None,
        transmat_prior=None,
        prior=None,
        n_threads=None,
        batch_size=None,
        online=None,
    ):
        self.n_components = n_components
        self.categories = categories
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.emissionprob_init = emissionprob_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.stopping = stopping
        self.n_race = n_race
        self.acceleration = acceleration
        self.algorithm = algorithm
        self.n_epochs = n_epochs
        self.max_time = max_time
        self.resp_init = resp_init
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.prior = prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online

    @classmethod
    def from_parameters(cls, startprob, transmat, emissionprob, categories=None, **params):
        """Build a fitted model from known parameters, of the shapes of the attributes.

        Parameters
        ----------
        startprob, transmat, emissionprob : array-like
            Non-negative; startprob, each row of transmat, and the probabilities of each column sum to 1.
        categories : list of array-like, default=None
            The values of each column, ascending. None: one column of integers from 0.
        **params
            Constructor parameters.

        Returns
        -------
        CategoricalHMM

        Raises
        ------
        ValueError
            If a shape does not fit, probabilities do not sum to 1, or categories are not ascending.
        """
        emissionprob = finite_array("emissionprob", emissionprob, 2)
        estimator = cls(n_components=len(emissionprob), **params)
        estimator._validate_params()
        if categories is not None:
            given, categories = categories, list(Categorical(categories=categories).values)
            if not all(map(np.array_equal, given, categories)):
                raise ValueError("categories must be ascending in each column, as emissionprob is in them; sort both")
        else:
            categories = [np.arange(emissionprob.shape[1], dtype=np.float64)]
        return estimator._known_as(startprob, transmat, emissionprob_=emissionprob, categories_=categories)

    def _family(self) -> Categorical:
        return Categorical(as_conjugate(self.prior), self.categories)

    def _known_family(self) -> Categorical:
        categories = self.__dict__.get("categories_", self.categories)
        if categories is None:  # emissionprob_ was set by hand
            categories = [np.arange(np.shape(self.emissionprob_)[1], dtype=np.float64)]
        return Categorical(as_conjugate(self.prior), categories)

    def _seen(self, model: HiddenMarkov) -> dict[str, Any]:
        return {"categories_": list(model.family.values)}

    def _components_init(self) -> dict[str, Any]:
        return {} if self.emissionprob_init is None else {"probabilities": self.emissionprob_init}

    def _components(self, known: dict[str, Any], n_components: int) -> CategoricalParams:
        probabilities = finite_array("emissionprob_", known["emissionprob_"], 2)
        family = self._known_family()
        shape = n_components, len(family.owners)
        if probabilities.shape != shape:
            raise ValueError(
                f"emissionprob_ has shape {probabilities.shape}, but there are {shape[1]} categories and {shape[0]} "
                "states"
            )
        family.check_params(CategoricalParams(probabilities), n_components, name="emission ")
        return CategoricalParams(probabilities)

    def _emissions(self, weights: np.ndarray, components: CategoricalParams) -> dict[str, np.ndarray]:
        return {"emissionprob_": components.probabilities}
