"""What estimators share: validation in, attributes out, no algorithm."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import validate_data

from fastem.acceleration import ACCELERATIONS
from fastem.climb import STOPPING
from fastem.data import Block, Data, as_data, as_noise, as_weight, checked_rows, is_integer
from fastem.em import fit
from fastem.estimators.constraints import Constrained
from fastem.estimators.streaming import Streaming, unchanged_on_error
from fastem.inference import Uncertainty, bootstrap, information
from fastem.initialize import STARTS
from fastem.models.mixture import Mixture
from fastem.online import Online
from fastem.protocol import Iteration, Status
from fastem.sources import Stored, is_source, open_data

_RACE = 12  # starts, by default
_STRICTER = 1000  # what is left to gain is often so many times what a step gains
_BOOTSTRAP_TOL, _MANY = 1e-6, 10_000  # nats per row and iterations of the fits of a bootstrap


class EMEstimator(Streaming, BaseEstimator):
    """Fitting a model by EM, whatever the model.

    A class of it says how its constructor parameters make a model (`_model`), which of them give the whole start
    (`_start_parts`), what must stay as it is in a stream (`_settings`), and how parameters become attributes
    (`_LEARNED`, `_attributes`) and are made of these again (`_params`).
    """

    _start_parts: ClassVar[tuple[str, ...]]
    _names: ClassVar[tuple[str, ...]]
    _parameter_constraints: ClassVar[dict] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions(set(STARTS))],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "stopping": [None, StrOptions(set(STOPPING))],
        "n_race": [None, Interval(Integral, 0, None, closed="left")],
        "acceleration": [None, StrOptions({"auto"} | {name for name in ACCELERATIONS if name is not None})],
        "algorithm": [StrOptions({"batch", "minibatch", "incremental"})],
        "n_epochs": [Interval(Integral, 1, None, closed="left")],
        "max_time": [None, Interval(Real, 0.0, None, closed="left")],
        "resp_init": ["array-like", None],
        "n_threads": [None, Interval(Integral, 1, None, closed="left"), Options(Integral, {-1})],
        "batch_size": [None, Interval(Integral, 1, None, closed="left")],
        "online": [None, Online],
    }
    n_components: Any
    tol: Any
    max_iter: Any
    init_params: Any
    warm_start: Any
    verbose: Any
    verbose_interval: Any
    stopping: Any
    n_race: Any
    acceleration: Any
    algorithm: Any
    n_epochs: Any
    max_time: Any
    status_: Status
    _settings: Callable[[Any], dict[str, Any]]
    _fitted_model: Callable[[], Any]

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """Names of the parameters, looked up once: reading the signature takes as long as five iterations."""
        if "_names" not in vars(cls):
            cls._names = tuple(super()._get_param_names())
        return list(cls._names)

    def _warn_of_the_end(self, stacklevel: int = 4) -> None:
        """Warn of a fit that ended before its time, at the caller of fit, beyond scikit-learn's wrapper."""
        cure = {
            Status.MAX_ITER: f"did not converge in max_iter={self.max_iter} iterations: raise max_iter or tol",
            Status.MAX_TIME: f"did not converge in max_time={self.max_time} seconds: raise max_time or tol",
            Status.INTERRUPTED: "was interrupted and kept the best parameters so far: fit again, with warm_start=True",
        }.get(self.status_)
        if cure is not None and self.max_iter > 0:
            warnings.warn(
                f"EM {cure}, or look at lower_bounds_ for what is still gained.",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )

    def _fit_options(self) -> dict[str, Any]:
        """Options of `fastem.fit` that some models have."""
        return {}

    def _n_inputs(self, n_columns: int) -> int:
        """Number of columns of X, of the columns of the rows that the model takes."""
        return n_columns

    def _n_columns(self) -> int:
        """Number of columns of the rows that the model takes."""
        return self.n_features_in_

    def _fit_data(self, data: Data, start=None, callbacks=(), entrants=()):
        """Fit to rows that are checked; without any warning."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        result = fit(
            self._model() if start is None else self._resumed_model(),
            data,
            start=start,
            entrants=entrants,
            max_iter=self.max_iter,
            algorithm=self.algorithm,
            batch_size=self.batch_size,
            n_epochs=self.n_epochs,
            online=self.online,
            max_time=self.max_time,
            n_init=self.n_init,
            **self._fit_options(),
            **self._resolved(warm=start is not None),
            random_state=seed,
            callbacks=[*callbacks, *self._reporters()],
        )
        bounds = (result.history / data.total_weight).tolist()
        learned = {
            **self.__dict__,
            **self._shown(result.params, result.model),
            **self._seen(result.model),
            "n_features_in_": self._n_inputs(data.n_features),
            "n_samples_seen_": data.total_weight,
            "converged_": result.status is Status.CONVERGED,
            "status_": result.status,
            "n_iter_": result.n_iter,
            "lower_bounds_": bounds,
            "lower_bound_": bounds[-1] if bounds else -math.inf,
            "log_likelihood_": float(result.log_likelihood),
        }
        for name in ("stream_", "drift_score_", "_estimate", "_checked"):
            learned.pop(name, None)
        self.__dict__ = learned  # at once, for those who predict meanwhile

    def _last_params(self, n_features: int) -> Any:
        """Parameters of the last fit if that is where to start from, or None."""
        if not (self.warm_start and self.__sklearn_is_fitted__()):
            return None
        self._check_start(n_features)
        return self._params()

    def _uncertainty(
        self, model: Any, params: Any, data: Data, method: str, n_bootstrap: int, random_state: Any
    ) -> Uncertainty:
        """Standard errors of parameters of a model that is not prepared yet."""
        if method == "information":
            prepared = model.prepare(data).in_double()
            return information(prepared.holding(params) if hasattr(prepared, "holding") else prepared, params, data)
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
        tol = min(self._resolved(warm=True)["tol"], _BOOTSTRAP_TOL)
        return bootstrap(model, params, data, int(n_bootstrap), np.random.default_rng(seed), tol, _MANY)

    def _resolved(self, *, warm: bool) -> dict[str, Any]:
        """The options that by default follow from others; warm is whether a fit starts from the last one."""
        is_given = not warm and (self.resp_init is not None or self._gives_start())
        stopping, tol = self.stopping, self.tol
        if stopping is None:
            stopping, tol = ("change", tol) if is_given else ("aitken", tol / _STRICTER)
        if self.n_race and is_given:
            *first, last = self._start_parts
            name = "resp_init" if self.resp_init is not None else f"{', '.join(first)} and {last}"
            raise ValueError(f"{name} gives one start for all rows, so that none can race; use n_race=0")
        n_race = 0 if warm else self.n_race
        if n_race is None:
            n_race = 0 if is_given or warm or self.max_iter == 0 or self.n_components == 1 else _RACE
        acceleration = self.acceleration
        if acceleration == "auto":
            acceleration = None if is_given else "anderson"
        return {"stopping": stopping, "tol": tol, "n_race": n_race, "acceleration": acceleration}

    def _gives_start(self) -> bool:
        """Whether parameters give the whole start, so that there is no other."""
        return all(getattr(self, name) is not None for name in self._start_parts)

    def _known(self) -> dict[str, Any] | Any:
        """Attributes by name, those of a stream in the place of those that are not there; or its parameters alone."""
        known = self.__dict__  # another one after each `partial_fit`, which may go on in another thread
        given = [name for name in self._LEARNED if name in known]
        if len(given) == len(self._LEARNED) or (found := self._estimated(known)) is None:
            return known
        return {**found.attributes(self._shown), **known} if given else found.params

    def _set_known(self, params: Any, n_features: int) -> None:
        """Take parameters that were given, not fitted."""
        self.__dict__.update(self._shown(params))
        self.n_features_in_ = n_features
        self.converged_ = False
        self.n_iter_ = 0
        self.lower_bound_ = -math.inf
        self.lower_bounds_: list[float] = []
        self.log_likelihood_ = -math.inf
        self.status_ = Status.NOT_ITERATED

    def _scoring_model(self) -> Any:
        """The model for the parameters that were learned."""
        return self._model()

    def _resumed_model(self) -> Any:
        """The model with what was learned beside the parameters, to go on from these."""
        return self._model()

    def _shown(self, params: Any, model: Any = None) -> dict[str, Any]:
        """Attributes that show parameters; the model has seen the rows (None: parameters that were given)."""
        return self._attributes(params)

    def _model_of_now(self, model: Any) -> Any:
        """The model of now, to be compared with that of a stream."""
        return self._model()

    def _check_model(self, model: Any) -> None:
        """Refuse parameters that are not those that a stream began with."""
        settings = self._settings(model)
        for name, now in self._settings(self._model_of_now(model)).items():
            if not is_same(now, settings[name]):
                raise ValueError(
                    f"{name} was {settings[name]!r} when the stream began and is {now!r} now; set it back, or begin "
                    "anew with sklearn.base.clone or fit"
                )

    def _n_parameters(self) -> int:
        model = self._fitted_model()
        return model.n_parameters(model.family.n_columns(self._params().components))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._takes_missing
        return tags

    def _reporters(self) -> list[Callable[[Iteration], None]]:
        if not self.verbose:
            return []
        began = time.perf_counter()

        def report(step: Iteration) -> None:
            if step.n_iter == 1:
                print(f"Initialization {step.start}")
            if step.n_iter % self.verbose_interval == 0:
                detail = f"\t change {step.change:.5g}\t time {time.perf_counter() - began:.3f} s"
                print(f"  Iteration {step.n_iter}\t objective {step.objective:.8g}{detail if self.verbose > 1 else ''}")

        return [report]


class DensityEstimator(DensityMixin, EMEstimator):
    """Fitting a mixture, or one component, and using its density, whatever the family.

    A class of it says how its constructor parameters make a model (`_model`), which of them give the whole start
    (`_start_parts`), and how parameters become attributes (`_LEARNED`, `_attributes`) and are made of these again
    (`_params`).
    """

    _parameter_constraints: ClassVar[dict] = {
        **EMEstimator._parameter_constraints,
        "weights_init": ["array-like", None],
        "split_merge": ["boolean"],
        "weight_concentration_prior": [None, Interval(Real, 1.0, None, closed="left")],
    }
    weights_init: Any
    split_merge: Any
    weight_concentration_prior: Any
    weights_: np.ndarray

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, callbacks: Sequence[Callable[[Iteration], Any]] = ()):
        """Estimate the parameters by EM.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or what `fastem.Blocks` takes
            float32 is computed in float32 products over float64 sums; other numbers in float64. Paths, memory maps,
            Arrow data and callables that yield blocks are read in blocks, ahead of their use, again in each pass, and
            never are in memory as a whole.
        y : Ignored
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative; 2 counts as the row twice, 0 as the row left out.
        callbacks : sequence of callables, default=()
            Each is called with a `fastem.Iteration` after every E-step over all rows, refused leaps aside; a true
            answer stops the start.

        Returns
        -------
        self
        """
        return self._fitted(X, sample_weight, callbacks)

    def _fitted(self, X, sample_weight, callbacks, noise_covariance=None, labels=None):
        with unchanged_on_error(self):
            self._fit(X, sample_weight, callbacks, noise_covariance, labels)
        self._warn_of_the_end(5)
        return self

    def _fit(self, X, sample_weight, callbacks, noise_covariance, labels):
        data = self._check_data(X, sample_weight, noise_covariance, labels)
        self._fit_data(data, self._last_params(data.n_features), callbacks)

    def score_samples(self, X):
        """Log-density (n_samples,) of each row, in nats."""
        return self._evaluate(Mixture.log_densities, X)

    def score(self, X, y=None, sample_weight=None):
        """Mean log-density of the rows, weighted if sample_weight (n_samples,) is given."""
        return weighted_mean(self.score_samples(X), sample_weight)

    def bic(self, X, sample_weight=None):
        """Bayesian information criterion on X, -2 log L + p log n: lower is better.

        n is the number of rows, but for those without any value, or the sum of their weights.
        """
        return self._bic(X, self.score_samples(X), sample_weight)

    def _bic(self, X, log_prob: np.ndarray, sample_weight=None) -> float:
        rows, has_missing = self._rows_and_gaps(X, reset=False)
        told = ~np.isnan(rows).all(axis=1) if has_missing else np.ones(len(rows), bool)
        if sample_weight is not None:
            told = told * as_weight(sample_weight, len(rows))[:, 0]
        return -2 * weighted_sum(log_prob, sample_weight) + self._n_parameters() * log_size(float(told.sum()))

    def aic(self, X, sample_weight=None):
        """Akaike information criterion on X, -2 log L + 2 p: lower is better."""
        return -2 * weighted_sum(self.score_samples(X), sample_weight) + 2 * self._n_parameters()

    def sample(self, n_samples=1):
        """Draw (X, y): rows (n_samples, n_features) and their components (n_samples,), sorted by component."""
        self._check_fitted()
        if not is_integer(n_samples, 1):
            raise ValueError(f"n_samples must be an integer of at least 1; got {n_samples!r}")
        rng = np.random.default_rng(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return self._scoring_model().sample(self._params(), int(n_samples), rng)

    def standard_errors(
        self, X, sample_weight=None, *, method="information", n_bootstrap=200, random_state=None
    ) -> Uncertainty:
        """Standard errors of weights, means and covariances, from the rows the mixture was fitted to.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sample_weight : array-like of shape (n_samples,), default=None
            What `fit` was given.
        method : {'information', 'bootstrap'}, default='information'
            The inverse of the observed information (Oakes 1999), at twice as many E-steps as there are parameters; or
            fits to rows with random weights (Rubin 1981), each from these parameters.
        n_bootstrap : int, default=200
        random_state : int, RandomState instance or None, default=None
            Seed of the bootstrap.

        Returns
        -------
        fastem.inference.Uncertainty
            `standard_errors['means']` and so on, of the shapes of the attributes, their `covariance`, and
            `interval('means', level=0.95)`.

        Raises
        ------
        ValueError
            If the fit has not converged, or the likelihood has no strict maximum there.

        Examples
        --------
        >>> import numpy as np
        >>> from fastem import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(400, 1)) * 3.0
        >>> gm = GaussianMixture(reg_covar=0, tol=1e-8).fit(X)
        >>> float(np.round(gm.standard_errors(X).standard_errors["means"][0, 0] * 400**0.5, 1))
        3.0
        """
        return self._standard_errors(X, sample_weight, method, n_bootstrap, random_state)

    def _standard_errors(
        self, X, sample_weight, method, n_bootstrap, random_state, noise_covariance=None, labels=None
    ) -> Uncertainty:
        self._check_fitted()
        check_uncertainty(method, n_bootstrap)
        rows = self._check_rows(X, reset=False)
        model, allow_nan = self._fitted_model(), self._takes_missing
        codes = self._as_labels(labels, model)
        data = as_data(rows, sample_weight, codes, allow_nan=allow_nan, noise_covariance=noise_covariance)
        return self._uncertainty(model, self._settled(self._params(), data), data, method, n_bootstrap, random_state)

    # between estimator and model

    def _settled(self, params: Any, data: Data) -> Any:
        """Parameters of which those are on a boundary that no row tells from it."""
        return params

    def _fit_options(self) -> dict[str, Any]:
        return {"split_merge": self.split_merge}

    def _check_rows(self, X, *, reset: bool) -> np.ndarray:
        return self._rows_and_gaps(X, reset=reset)[0]

    def _rows_and_gaps(self, X, *, reset: bool) -> tuple[np.ndarray, bool]:
        """Rows, and whether values of them are missing."""
        rows, has_missing = checked_rows(X, allow_nan=self._takes_missing)
        validate_data(self, X if hasattr(X, "columns") else rows, reset=reset, skip_check_array=True)
        return rows, has_missing

    def _check_data(self, X, sample_weight, noise_covariance=None, labels=None) -> Data:
        """Rows to fit to, in memory or not."""
        rows = X if is_source(X) else self._check_rows(X, reset=True)
        codes = self._as_labels(labels, None, begins=True)
        if noise_covariance is not None:
            if is_source(rows):
                raise ValueError("noise_covariance is for rows in memory; give X as an array")
            rows = as_data(rows, sample_weight, codes, allow_nan=True, noise_covariance=noise_covariance)
            sample_weight = codes = None
        data = open_data(rows, sample_weight, codes, allow_nan=self._takes_missing)
        if isinstance(data, Stored):
            validate_data(self, np.empty((0, data.n_features)), reset=True, skip_check_array=True)
            if data.names is not None:
                self.feature_names_in_ = np.array(data.names, dtype=object)
        if data.n_samples < 2:
            raise ValueError("X has 1 sample; a fit needs at least 2 (n_samples=1)")
        return data

    def _evaluate(self, method, X, noise_covariance=None):
        self._check_fitted()
        X, has_missing = self._rows_and_gaps(X, reset=False)
        model, params = self._scoring_model(), self._params()
        n_features = model.family.n_columns(params.components)
        if n_features != X.shape[1]:
            raise ValueError(f"X has {X.shape[1]} features, but {self._LEARNED[1]} is for {n_features}")
        if noise_covariance is not None:
            model = model.deconvolving()
            X = Block(X, np.empty((0, 1)), has_missing, as_noise(noise_covariance, X, has_missing))
        elif has_missing and model.family.completes:
            model = model.completing()
        return method(model, params, X)

    def _settings(self, model: Mixture) -> dict[str, Any]:
        """What must stay as it is while a stream goes on."""
        return {
            "n_components": model.n_components,
            "noise": bool(model.family.n_noise),
            "noise_volume": getattr(model.family, "volume", None),
            "frozen": model.frozen,
            "weight_concentration_prior": model.weight_concentration,
            "the prior of the components": model.family.prior,
        }

    def _model_of_now(self, model: Mixture) -> Mixture:
        """The model of now, with as many components as a stream has left."""
        mine = self._model()
        if self.online is not None and self.online.starved == "remove" and model.n_components < mine.n_components:
            mine = replace(mine, n_components=model.n_components, start="kmeans", weights_init=None)
        return mine

    def _fitted_model(self) -> Mixture:
        """The model with as many components as were kept, and what is frozen of them."""
        model = replace(self._scoring_model(), n_components=len(self.weights_), start="kmeans")
        return model.holding(self._params())


def check_uncertainty(method: Any, n_bootstrap: Any) -> None:
    """Refuse what `standard_errors` cannot take."""
    if method not in ("information", "bootstrap"):
        raise ValueError(f"method must be 'information' or 'bootstrap'; got {method!r}")
    if not is_integer(n_bootstrap, 2):
        raise ValueError(f"n_bootstrap must be an integer of at least 2; got {n_bootstrap!r}")


class MixtureEstimator(Constrained, DensityEstimator):
    """A mixture whose components tell rows apart."""

    def fit_predict(self, X, y=None, sample_weight=None, *, labels=None):
        """Fit, then return the most probable component (n_samples,) of each row: `fit(X).predict(X)`.

        Rows with labels too: they are predicted as if nothing were known of them.
        """
        if is_source(X) and not isinstance(X, np.ndarray):
            raise TypeError("fit_predict takes rows in memory; for others call fit(X), then predict block by block")
        return self.fit(X, y, sample_weight, labels=labels).predict(X)

    def predict(self, X):
        """Most probable component (n_samples,) int64 of each row of X (n_samples, n_features); noise is -1."""
        return self._noise_last(self._evaluate(Mixture.labels, X))

    def predict_proba(self, X):
        """Posterior probabilities (n_samples, n_components) of the components given each row.

        Noise has a column more.
        """
        return self._evaluate(Mixture.posteriors, X)


def log_size(n_rows: float) -> float:
    """Logarithm of the number of rows that a criterion counts."""
    if n_rows == 0:
        raise ValueError("X holds nothing but missing values in rows that count; bic needs at least one other")
    return math.log(n_rows)


def weighted_mean(log_prob: np.ndarray, sample_weight: Any) -> float:
    """Mean over the rows, weighted if there are weights."""
    if sample_weight is None:
        return float(log_prob.mean())
    return weighted_sum(log_prob, sample_weight) / float(as_weight(sample_weight, len(log_prob)).sum())


def weighted_sum(log_prob: np.ndarray, sample_weight: Any) -> float:
    """Sum over the rows, weighted if there are weights."""
    if sample_weight is None:
        return float(log_prob.sum())
    weight = as_weight(sample_weight, len(log_prob))[:, 0]
    counts = weight > 0  # a row of weight 0 may have log-density -inf
    return float((weight[counts] * log_prob[counts]).sum())


def is_same(one: Any, two: Any) -> bool:
    """Whether two parameters are equal, arrays and records of them too."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(is_same(one[key], two[key]) for key in one)
    if isinstance(one, tuple) and isinstance(two, tuple):
        return all(map(is_same, one, two))
    return one is two or np.array_equal(one, two)
