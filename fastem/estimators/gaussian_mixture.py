"""scikit-learn's GaussianMixture over fastem's model and driver: validation in, attributes out, no algorithm."""

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
from fastem.data import Data, as_data, as_numbers, as_rows, as_weight, finite_array, is_integer
from fastem.em import fit
from fastem.estimators.conditionals import Conditionals
from fastem.estimators.streaming import Streaming, unchanged_on_error
from fastem.families.gaussian import COVARIANCE_TYPES, Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.families.normal_inverse_wishart import NormalInverseWishart
from fastem.inference import Uncertainty, bootstrap, information
from fastem.initialize import STARTS
from fastem.models.mixture import Mixture, check_weights
from fastem.models.mixture_records import MixtureParams
from fastem.online import Online
from fastem.protocol import Iteration, Status
from fastem.sources import Stored, is_source, open_data

_RACE = 12  # starts, by default
_STRICTER = 1000  # what is left to gain is often so many times what a step gains
_BOOTSTRAP_TOL, _MANY = 1e-6, 10_000  # nats per row and iterations of the fits of a bootstrap


class GaussianMixture(Streaming, Conditionals, DensityMixin, BaseEstimator):
    """Gaussian mixture, a drop-in for `sklearn.mixture.GaussianMixture` with weights, priors and threads.

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    covariance_type : {'full', 'tied', 'diag', 'spherical'}, default='full'
        A covariance matrix each, one for all, variances each, or one variance each.
    tol : float, default=1e-3
        For `stopping`, in nats per sample.
    reg_covar : float, default=1e-6
        Added to the variances after each M-step, in squared units of the data.
    max_iter : int, default=100
        Largest number of EM iterations of a start on all rows.
    n_init : int, default=1
        Number of starts (or races, see `n_race`); the best is kept.
    init_params : {'kmeans', 'k-means++', 'k-means||', 'ward', 'random_from_data', 'random'}, default='kmeans'
        How a start finds its first responsibilities: by nearest centre, or by chance. In a race (`n_race`) 'kmeans'
        takes turns with 'random_from_data' and 'k-means++'. 'k-means||' takes its centres from all rows that it is
        given (in a race, those of the sample), the others from some thousands, 'ward' by hierarchical clustering of
        2000. Distances are taken on columns
        scaled by powers of two to comparable spread, so that a fit does not depend on the units.
    weights_init : array-like of shape (n_components,), default=None
    means_init : array-like of shape (n_components, n_features), default=None
    precisions_init : array-like, default=None
        Inverse covariances of the shape of `covariances_`. What is given replaces that part of the start.
    random_state : int, RandomState instance or None, default=None
    warm_start : bool, default=False
        Start from the parameters of the last call of fit.
    verbose : int, default=0
        1 prints a line every `verbose_interval` iterations, 2 also the change and the time.
    verbose_interval : int, default=10
    stopping : {'change', 'aitken'}, default=None
        'change' is scikit-learn's rule, a change of the objective below `tol`; 'aitken' waits until the estimated
        limit is less than `tol` away, so that slow convergence is not taken for the end. None: 'aitken' for a
        thousandth of `tol`, or 'change' if the start is given.
    n_race : int, default=None
        0: each start is found and followed on all rows. Otherwise so many race for each on samples of rows: in each
        heat the better half goes on, over twice the rows, and all rows are read only for the end, which makes it
        less likely in a bad optimum; with few rows all of them are read throughout. None: 12, or 0 for one component,
        where the start is given, or where nothing is iterated. A warm start does not race.
    split_merge : bool, default=False
        Whether to look, on a sample before all rows are read, for a better optimum by merging two components and
        splitting a third, at several times the cost of a race.
    acceleration : {'auto', 'anderson', 'squarem', None}, default='auto'
        'anderson' extrapolates along the last steps and keeps what leads uphill: four times fewer iterations or less
        where EM is slow, as with overlapping or surplus components. 'squarem' does so along every two: three times
        fewer. None: EM itself. 'auto': 'anderson', or EM itself if the start is given, with weights, means and
        precisions or with `resp_init`: the steps are then scikit-learn's. For the other algorithms it serves the race
        alone.
    algorithm : {'batch', 'minibatch', 'incremental'}, default='batch'
        How a start is followed on all rows. 'minibatch': a step of stepwise EM after each `batch_size` rows, in random
        order, `n_epochs` times over, then one iteration of EM; for data so large that few passes can be made.
        'incremental': an M-step after each block of rows, whose statistics replace those it had in the pass before;
        `lower_bounds_` then bound the log-likelihood from below. See `fastem.fit`.
    n_epochs : int, default=10
        Passes over the rows of 'minibatch', whatever `tol`, `stopping` and `max_iter`; these serve its race alone. The
        other algorithms make at most `max_iter`.
    max_time : float, default=None
        Seconds after which no further iteration begins.
    resp_init : array-like of shape (n_samples,) or (n_samples, n_components), default=None
        Labels from 0, or responsibilities, to start from instead of `init_params`.
    weight_concentration_prior : float, default=None
        Parameter (at least 1) of a symmetric Dirichlet prior on the weights. None: no prior.
    mean_prior : array-like of shape (n_features,), default=None
        Centre of the prior of the means. None: the mean of the data.
    mean_precision_prior : float, default=None
        Rows that the prior of the means counts for; 0 is none. None: 0.01 with a `covariance_prior`, else 0.
    degrees_of_freedom_prior : float, default=None
        Of the inverse-Wishart prior of the covariances. None: n_features + 2.
    covariance_prior : 'auto', array-like or None, default=None
        Scale of that prior: (n_features, n_features) for full and tied, (n_features,) or a float for diag, a float
        for spherical; 'auto': the covariance of the data / n_components^(2 / n_features), after Fraley & Raftery
        (2007), J. Classification 24, 155-181. None: no prior. With priors the fit is the posterior mode (MAP), which
        no component can leave by collapsing; set reg_covar=0 then for an objective that never falls.
    n_threads : int, default=None
        Threads of the kernels; None or -1: all that numba may use. The bits of a fit do not depend on it.
    batch_size : int, default=None
        Rows that make a step: of `partial_fit` and of 'minibatch' (None: 64 n_components n_features, but 1024 at least,
        16384 at most, and no more than a quarter of a half-life), or of 'incremental' (None: a hundredth of all, or
        256).
    online : fastem.Online, default=None
        How `partial_fit` and 'minibatch' forget. None: `fastem.Online()`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_, precisions_, precisions_cholesky_ : ndarray
        (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical; a precision is U U' with U upper triangular.
    converged_ : bool
    n_iter_ : int
        Iterations of the start that was kept, with the leaps of an acceleration that were refused.
    lower_bound_ : float
        Mean log-likelihood (plus log-prior) per sample that entered the last M-step.
    lower_bounds_ : list of float
        The same for every iteration, but not for refused leaps.
    log_likelihood_ : float
        Total log-likelihood that entered the last M-step, without the prior.
    status_ : fastem.Status
        Why the fit ended.
    n_samples_seen_ : float
        Weight of the rows of `fit` and of all `partial_fit` since.
    stream_ : fastem.online.Stream
        What `partial_fit` knows beside the parameters; only after it.
    drift_score_ : float
        Of `partial_fit`: by how many standard deviations the mean log-density of the last batches, each under the
        parameters that had not seen it, lies below that of those before. Within 3 or so while nothing changes; NaN for
        the first 8 batches.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X had string column names.

    Raises
    ------
    ValueError
        At fit, if an argument or the data cannot be used (nothing is computed then and a fitted estimator stays as it
        was), or if every start ends in a collapsed component.

    See Also
    --------
    sklearn.mixture.GaussianMixture : What this replaces.

    References
    ----------
    Dempster, Laird & Rubin (1977), J. R. Statist. Soc. B 39, 1-38, section 4.3.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import GaussianMixture
    >>> X = np.array([[1.0, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> gm = GaussianMixture(n_components=2, random_state=0).fit(X)
    >>> np.sort(gm.means_[:, 0])
    array([ 1., 10.])
    >>> len(set(gm.predict([[0, 0], [12, 3]])))
    2
    """

    _LEARNED = ("weights_", "means_", "covariances_", "precisions_cholesky_", "precisions_")
    _parameter_constraints: ClassVar[dict] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions(set(STARTS))],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "stopping": [None, StrOptions(set(STOPPING))],
        "n_race": [None, Interval(Integral, 0, None, closed="left")],
        "split_merge": ["boolean"],
        "acceleration": [None, StrOptions({"auto"} | {name for name in ACCELERATIONS if name is not None})],
        "algorithm": [StrOptions({"batch", "minibatch", "incremental"})],
        "n_epochs": [Interval(Integral, 1, None, closed="left")],
        "max_time": [None, Interval(Real, 0.0, None, closed="left")],
        "resp_init": ["array-like", None],
        "weight_concentration_prior": [None, Interval(Real, 1.0, None, closed="left")],
        "mean_prior": ["array-like", None],
        "mean_precision_prior": [None, Interval(Real, 0.0, None, closed="left")],
        "degrees_of_freedom_prior": [None, Interval(Real, 0.0, None, closed="neither")],
        "covariance_prior": [None, StrOptions({"auto"}), "array-like", Interval(Real, 0.0, None, closed="neither")],
        "n_threads": [None, Interval(Integral, 1, None, closed="left"), Options(Integral, {-1})],
        "batch_size": [None, Interval(Integral, 1, None, closed="left")],
        "online": [None, Online],
    }

    def __init__(
        self,
        n_components=1,
        *,
        covariance_type="full",
        tol=1e-3,
        reg_covar=1e-6,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        weights_init=None,
        means_init=None,
        precisions_init=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        stopping=None,
        n_race=None,
        split_merge=False,
        acceleration="auto",
        algorithm="batch",
        n_epochs=10,
        max_time=None,
        resp_init=None,
        weight_concentration_prior=None,
        mean_prior=None,
        mean_precision_prior=None,
        degrees_of_freedom_prior=None,
        covariance_prior=None,
        n_threads=None,
        batch_size=None,
        online=None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.stopping = stopping
        self.n_race = n_race
        self.split_merge = split_merge
        self.acceleration = acceleration
        self.algorithm = algorithm
        self.n_epochs = n_epochs
        self.max_time = max_time
        self.resp_init = resp_init
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_prior = mean_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online

    @classmethod
    def from_parameters(cls, weights, means, covariances=None, *, precisions=None, **params):
        """Build a fitted mixture from known parameters.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
            Positive or zero, summing to 1.
        means : array-like of shape (n_components, n_features)
        covariances, precisions : array-like
            Exactly one of them, of the shape of `covariances_` for the covariance_type.
        **params
            Constructor parameters, such as covariance_type.

        Returns
        -------
        GaussianMixture

        Raises
        ------
        ValueError
            If a shape does not fit, the weights do not sum to 1, or a matrix is not symmetric positive definite.

        Examples
        --------
        >>> from fastem import GaussianMixture
        >>> gm = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [3.0]], [1.0, 1.0], covariance_type="spherical")
        >>> gm.predict([[-1.0], [4.0]])
        array([0, 1])
        """
        means = finite_array("means", means, 2)
        estimator = cls(n_components=len(means), **params)
        estimator._validate_params()
        family = Gaussian(estimator.covariance_type)
        weights = check_weights("weights", weights, len(means))
        if (covariances is None) == (precisions is None):
            raise ValueError("give exactly one of covariances and precisions")
        if precisions is not None:
            components = family.from_precisions(means, family.check_shape("precisions", precisions, *means.shape))
        else:
            covariances = family.check_shape("covariances", covariances, *means.shape)
            components = GaussianParams(means, covariances, family.precisions_cholesky(covariances))
        estimator._set_params(MixtureParams(weights, components))
        estimator.n_features_in_ = means.shape[1]
        estimator.converged_ = False
        estimator.n_iter_ = 0
        estimator.lower_bound_ = -math.inf
        estimator.lower_bounds_ = []
        estimator.log_likelihood_ = -math.inf
        estimator.status_ = Status.NOT_ITERATED
        return estimator

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
        with unchanged_on_error(self):
            self._fit(X, sample_weight, callbacks)
        cure = {
            Status.MAX_ITER: f"did not converge in max_iter={self.max_iter} iterations: raise max_iter or tol",
            Status.MAX_TIME: f"did not converge in max_time={self.max_time} seconds: raise max_time or tol",
            Status.INTERRUPTED: "was interrupted and kept the best parameters so far: fit again, with warm_start=True",
        }.get(self.status_)
        if cure is not None and self.max_iter > 0:
            warnings.warn(
                f"EM {cure}, or look at lower_bounds_ for what is still gained.",
                ConvergenceWarning,
                stacklevel=3,  # the caller of fit, beyond scikit-learn's wrapper
            )
        return self

    def _fit(self, X, sample_weight, callbacks):
        data = self._check_data(X, sample_weight)
        start = None
        if self.warm_start and self.__sklearn_is_fitted__():
            self._check_start(data.n_features)
            start = self._params()
        self._fit_data(data, start, callbacks)

    def _fit_data(self, data: Data, start=None, callbacks=(), entrants=()):
        """Fit to rows that are checked; without any warning."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        result = fit(
            self._model(),
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
            split_merge=self.split_merge,
            **self._resolved(warm=start is not None),
            random_state=seed,
            callbacks=[*callbacks, *self._reporters()],
        )
        bounds = (result.history / data.total_weight).tolist()
        learned = {
            **self.__dict__,
            **self._attributes(result.params),
            "n_features_in_": data.n_features,
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

    def fit_predict(self, X, y=None, sample_weight=None):
        """Fit, then return the most probable component (n_samples,) of each row: `fit(X).predict(X)`."""
        if is_source(X) and not isinstance(X, np.ndarray):
            raise TypeError("fit_predict takes rows in memory; for others call fit(X), then predict block by block")
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def predict(self, X):
        """Most probable component (n_samples,) int64 of each row of X (n_samples, n_features)."""
        return self._evaluate(Mixture.labels, X)

    def predict_proba(self, X):
        """Posterior probabilities (n_samples, n_components) of the components given each row."""
        return self._evaluate(Mixture.posteriors, X)

    def score_samples(self, X):
        """Log-density (n_samples,) of each row, in nats; accurate to about 1e-12 for any conditioning."""
        return self._evaluate(Mixture.log_densities, X)

    def score(self, X, y=None, sample_weight=None):
        """Mean log-density of the rows, weighted if sample_weight (n_samples,) is given."""
        log_prob = self.score_samples(X)
        if sample_weight is None:
            return float(log_prob.mean())
        weight = as_weight(sample_weight, len(log_prob))[:, 0]
        counts = weight > 0  # a row of weight 0 may have log-density -inf
        return float((weight[counts] * log_prob[counts]).sum() / weight.sum())

    def bic(self, X):
        """Bayesian information criterion on X, -2 log L + p log n: lower is better."""
        log_prob = self.score_samples(X)
        return float(-2 * log_prob.sum() + self._n_parameters() * math.log(len(log_prob)))

    def aic(self, X):
        """Akaike information criterion on X, -2 log L + 2 p: lower is better."""
        return float(-2 * self.score_samples(X).sum() + 2 * self._n_parameters())

    def sample(self, n_samples=1):
        """Draw (X, y): rows (n_samples, n_features) and their components (n_samples,), sorted by component."""
        self._check_fitted()
        if not is_integer(n_samples, 1):
            raise ValueError(f"n_samples must be an integer of at least 1; got {n_samples!r}")
        rng = np.random.default_rng(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return self._model().sample(self._params(), int(n_samples), rng)

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
        self._check_fitted()
        if method not in ("information", "bootstrap"):
            raise ValueError(f"method must be 'information' or 'bootstrap'; got {method!r}")
        if not is_integer(n_bootstrap, 2):
            raise ValueError(f"n_bootstrap must be an integer of at least 2; got {n_bootstrap!r}")
        rows = self._check_rows(X, reset=False)
        data, params = as_data(rows, sample_weight), self._params()
        model = self._fitted_model().prepare(data)
        if method == "information":
            return information(model.in_double(), params, data)
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
        tol = min(self._resolved(warm=True)["tol"], _BOOTSTRAP_TOL)
        return bootstrap(self._fitted_model(), params, data, int(n_bootstrap), np.random.default_rng(seed), tol, _MANY)

    # between estimator and model

    def _resolved(self, *, warm: bool) -> dict[str, Any]:
        """The options that by default follow from others; warm is whether a fit starts from the last one."""
        parts = (self.weights_init, self.means_init, self.precisions_init)
        is_given = not warm and (self.resp_init is not None or all(part is not None for part in parts))
        stopping, tol = self.stopping, self.tol
        if stopping is None:
            stopping, tol = ("change", tol) if is_given else ("aitken", tol / _STRICTER)
        if self.n_race and is_given:
            name = "resp_init" if self.resp_init is not None else "weights_init, means_init and precisions_init"
            raise ValueError(f"{name} gives one start for all rows, so that none can race; use n_race=0")
        n_race = 0 if warm else self.n_race
        if n_race is None:
            n_race = 0 if is_given or warm or self.max_iter == 0 or self.n_components == 1 else _RACE
        acceleration = self.acceleration
        if acceleration == "auto":
            acceleration = None if is_given else "anderson"
        return {"stopping": stopping, "tol": tol, "n_race": n_race, "acceleration": acceleration}

    def _check_rows(self, X, *, reset: bool) -> np.ndarray:
        rows = as_rows(X)
        validate_data(self, X if hasattr(X, "columns") else rows, reset=reset, skip_check_array=True)
        return rows

    def _check_data(self, X, sample_weight) -> Data:
        """Rows to fit to, in memory or not."""
        data = open_data(X if is_source(X) else self._check_rows(X, reset=True), sample_weight)
        if isinstance(data, Stored):
            validate_data(self, np.empty((0, data.n_features)), reset=True, skip_check_array=True)
            if data.names is not None:
                self.feature_names_in_ = np.array(data.names, dtype=object)
        if data.n_samples < 2:
            raise ValueError("X has 1 sample; a fit needs at least 2 (n_samples=1)")
        return data

    def _evaluate(self, method, X):
        self._check_fitted()
        X = self._check_rows(X, reset=False)
        params = self._params()
        if params.components.means.shape[1] != X.shape[1]:
            raise ValueError(f"X has {X.shape[1]} features, but means_ has {params.components.means.shape[1]}")
        return method(self._model(), params, X)

    def _model(self) -> Mixture:
        """The model that the constructor parameters describe."""
        prior = None
        if self.degrees_of_freedom_prior is not None and self.covariance_prior is None:
            raise ValueError("degrees_of_freedom_prior needs covariance_prior; without one it has no effect")
        if self.mean_prior is not None and self.covariance_prior is None and self.mean_precision_prior is None:
            raise ValueError("mean_prior needs mean_precision_prior; without one it has no effect")
        if self.covariance_prior is not None or self.mean_precision_prior is not None:
            scale: Any = 0.0 if self.covariance_prior is None else self.covariance_prior
            prior = NormalInverseWishart(
                self.mean_prior,
                0.01 if self.mean_precision_prior is None else self.mean_precision_prior,
                self.degrees_of_freedom_prior,
                None if isinstance(scale, str) else scale,
            )
        return Mixture(
            Gaussian(self.covariance_type, self.reg_covar, prior),
            self.n_components,
            start=self.init_params if self.resp_init is None else self.resp_init,
            weights_init=self.weights_init,
            means_init=self.means_init,
            precisions_init=self.precisions_init,
            weight_concentration=self.weight_concentration_prior or 1.0,
            n_threads=self.n_threads,
        )

    def _params(self) -> MixtureParams:
        """Attributes as parameters, checked: users set them by hand, and the kernels index by their shapes."""
        family = Gaussian(self.covariance_type)
        known = self.__dict__  # another one after each `partial_fit`, which may go on in another thread
        given = [name for name in self._LEARNED if name in known]
        if not given and (found := self._estimated(known)) is not None:
            return found.params
        if len(given) < len(self._LEARNED) and (found := self._estimated(known)) is not None:
            known = {**found.attributes(self._attributes), **known}
        means = finite_array("means_", known["means_"], 2)
        weights = finite_array("weights_", known["weights_"], 1)
        roots = as_numbers("precisions_cholesky_", known["precisions_cholesky_"]).astype(np.float64)
        if "covariances_" not in known:
            components = family.from_roots(means, roots)
        else:
            covariances = as_numbers("covariances_", known["covariances_"]).astype(np.float64)
            components = GaussianParams(means, covariances, roots)
        shape = family.shape(*means.shape)
        if weights.shape != means.shape[:1] or roots.shape != shape or components.covariances.shape != shape:
            raise ValueError(
                f"weights_ {weights.shape}, means_ {means.shape}, covariances_ {components.covariances.shape} and "
                f"precisions_cholesky_ {roots.shape} do not fit together for {self.covariance_type!r}"
            )
        return MixtureParams(weights, components)

    def _set_params(self, params: MixtureParams) -> None:
        self.__dict__.update(self._attributes(params))

    def _attributes(self, params: MixtureParams) -> dict[str, np.ndarray]:
        means, covariances, roots = params.components
        precisions = roots @ np.swapaxes(roots, -1, -2) if self.covariance_type in ("full", "tied") else roots**2
        return {
            "weights_": params.weights,
            "means_": means,
            "covariances_": covariances,
            "precisions_cholesky_": roots,
            "precisions_": precisions,
        }

    def _check_start(self, n_features: int | None = None) -> None:
        """Refuse to go on from parameters that are not those of the model."""
        last = np.shape(self.means_), np.shape(self.covariances_)
        n_features = last[0][1] if n_features is None else n_features
        shape = Gaussian(self.covariance_type).shape(self.n_components, n_features)
        if last != ((self.n_components, n_features), shape):
            wanted = (self.n_components, n_features), shape
            raise ValueError(
                f"means and covariances of the last fit have shapes {last}, but {wanted} are needed to go on; set "
                "n_components and covariance_type back, or begin anew with warm_start=False and fit"
            )

    def _check_model(self, model: Mixture) -> None:
        """Refuse parameters that are not those that a stream began with."""
        mine = self._model()
        lost = self.online is not None and self.online.starved == "remove" and model.n_components < mine.n_components
        for name, now, before in (
            ("n_components", model.n_components if lost else mine.n_components, model.n_components),
            ("covariance_type", mine.family.covariance_type, model.family.covariance_type),
            ("reg_covar", mine.family.reg_covar, model.family.reg_covar),
            ("weight_concentration_prior", mine.weight_concentration, model.weight_concentration),
            ("the prior of means and covariances", mine.family.prior, model.family.prior),
        ):
            if not _is_same(now, before):
                raise ValueError(
                    f"{name} was {before!r} when the stream began and is {now!r} now; set it back, or begin anew with "
                    "sklearn.base.clone or fit"
                )

    def _fitted_model(self) -> Mixture:
        """The model with as many components as were kept."""
        return replace(self._model(), n_components=len(self.means_), start="kmeans")

    def _n_parameters(self) -> int:
        return self._fitted_model().n_parameters(self.means_.shape[1])

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


def _is_same(one: Any, two: Any) -> bool:
    """Whether two parameters are equal, arrays and records of them too."""
    if isinstance(one, tuple) and isinstance(two, tuple):
        return all(map(_is_same, one, two))
    return one is two or np.array_equal(one, two)
