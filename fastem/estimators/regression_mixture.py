"""Mixtures of linear regressions, with constant weights or with gates: validation in, attributes out, no algorithm."""

import math
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from fastem.data import as_part_of_weight, as_rows, as_weight, finite_array
from fastem.estimators.base import MixtureEstimator, weighted_sum
from fastem.families.gated_regression import GatedRegression, GatedRegressionParams
from fastem.families.gaussian import COVARIANCE_TYPES, Gaussian
from fastem.families.normal_inverse_wishart import NormalInverseWishart
from fastem.families.regression import Regression
from fastem.families.regression_records import RegressionParams
from fastem.models.gated_regressions import GatedRegressions
from fastem.models.mixture import Mixture, check_weights
from fastem.models.mixture_records import MixtureParams
from fastem.models.regressions import Regressions
from fastem.sources import is_source


class RegressionMixture(RegressorMixin, MixtureEstimator):
    """Mixture of linear regressions: y = intercept_k + coef_k . x + error of variance sigma_k^2, for a hidden k.

    The weights of the components are the same for all rows, or multinomial logits of some columns (concomitant
    variables, a mixture of experts).

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {'full', 'tied', 'diag', 'spherical'}, default='full'
        Of the errors. With one response: 'tied' is the same variance in all components, the others a variance each.
        With several also: correlated errors, correlated and the same in all components, independent, or independent
        with the same variance.
    regressors : array-like of int or str, default=None
        Columns of X that y is regressed on. None: all.
    concomitants : 'all' or array-like of int or str, default=None
        Columns of X that the weights depend on; they may be regressors too. None: none, the weights are constant.
    tol, max_iter, n_init, weights_init, random_state, warm_start, verbose, verbose_interval, stopping, n_race,
    split_merge, acceleration, algorithm, n_epochs, max_time, resp_init, weight_concentration_prior, n_threads,
    batch_size, online
        See `GaussianMixture`. With concomitants the algorithm is 'batch', and there are no `weights_init`,
        `weight_concentration_prior` and `partial_fit`.
    init_params : str, default='lines'
        'lines': for each component a regression of a few rows drawn by chance; in a race it takes turns with 'kmeans'.
        Or one of those of `GaussianMixture`, for clusters of the rows (x, y).
    coef_init, intercept_init, sigma_init : array-like, default=None
        A start, of the shapes of the attributes: all of them or none.
    variance_prior : 'auto', float, array-like or None, default=None
        Scale of an inverse-Wishart prior of the errors' covariances, of the shape of one of them; with one response, an
        inverse gamma(degrees_of_freedom / 2, scale / 2) of the variances. 'auto': the residual variance of one
        regression of all rows, over n_components^2 (with m responses: their covariance over n_components^(2 / m)).
        None: maximum likelihood, which has no maximum where a component fits some rows exactly: starts that end there
        fail.
    degrees_of_freedom_prior : float, default=None
        Of that prior. None: 2 more than there are responses.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        With concomitants, their means over all rows.
    coef_ : ndarray of shape (n_components, n_features), or (n_components, n_outputs, n_features)
        0 for columns that are no regressors.
    intercept_ : ndarray of shape (n_components,), or (n_components, n_outputs)
    sigma_ : ndarray of shape (n_components,), or (n_components, n_outputs)
        Standard deviations of the errors, by maximum likelihood: their squares divide by the weight of the rows, not by
        that less the number of coefficients.
    covariances_, precisions_cholesky_ : ndarray
        Of the errors: (K, m, m) full, (m, m) tied, (K, m) diag, (K,) spherical, with m responses.
    gate_intercept_, gate_coef_ : ndarray of shape (n_components,) and (n_components, n_features)
        Log-weights of a row x are gate_intercept_ + gate_coef_ x less what makes the weights add up to 1; those of the
        first component are 0. Without concomitants gate_coef_ is 0.
    n_outputs_ : int
    design_ : ndarray of shape (2, n_features)
        Mean and variance of the columns that were fitted to: from them `partial_fit` goes on.
    converged_, n_iter_, lower_bound_, lower_bounds_, log_likelihood_, status_, n_samples_seen_, n_features_in_,
    feature_names_in_, stream_, drift_score_
        See `GaussianMixture`. Likelihoods are those of y given X.

    Raises
    ------
    ValueError
        At fit, if an argument or the data cannot be used, or if every start ends in a component without errors.

    References
    ----------
    De Veaux (1989), Comput. Statist. Data Anal. 8, 227-245. Leisch (2004), J. Statist. Software 11(8). Jacobs, Jordan,
    Nowlan & Hinton (1991), Neural Computation 3, 79-87.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import RegressionMixture
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(0, 10, size=(500, 1))
    >>> y = np.where(rng.random(500) < 0.3, 5.0 - X[:, 0], 2.0 * X[:, 0]) + rng.normal(size=500)
    >>> rm = RegressionMixture(2, random_state=0).fit(X, y)
    >>> np.sort(rm.coef_[:, 0]).round(1)
    array([-1.,  2.])
    >>> rm.predict_components([[10.0]]).round().tolist() in ([[-5.0, 20.0]], [[20.0, -5.0]])
    True
    """

    _LEARNED: ClassVar[tuple[str, ...]] = (
        "weights_",
        "coef_",
        "intercept_",
        "sigma_",
        "covariances_",
        "precisions_cholesky_",
        "gate_intercept_",
        "gate_coef_",
    )
    _start_parts = ("coef_init", "intercept_init", "sigma_init")
    _parameter_constraints: ClassVar[dict] = {
        **MixtureEstimator._parameter_constraints,
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
        "regressors": ["array-like", None],
        "concomitants": ["array-like", StrOptions({"all"}), None],
        "init_params": [StrOptions(set(Regressions.starts))],
        "coef_init": ["array-like", None],
        "intercept_init": ["array-like", None],
        "sigma_init": ["array-like", None],
        "variance_prior": [None, StrOptions({"auto"}), "array-like", Interval(Real, 0.0, None, closed="neither")],
        "degrees_of_freedom_prior": [None, Interval(Real, 0.0, None, closed="neither")],
    }

    def __init__(
        self,
        n_components=1,
        *,
        covariance_type="full",
        regressors=None,
        concomitants=None,
        tol=1e-3,
        max_iter=100,
        n_init=1,
        init_params="lines",
        weights_init=None,
        coef_init=None,
        intercept_init=None,
        sigma_init=None,
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
        variance_prior=None,
        degrees_of_freedom_prior=None,
        n_threads=None,
        batch_size=None,
        online=None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.regressors = regressors
        self.concomitants = concomitants
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.coef_init = coef_init
        self.intercept_init = intercept_init
        self.sigma_init = sigma_init
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
        self.variance_prior = variance_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, callbacks=(), *, labels=None):
        """Estimate the parameters by EM.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or what `fastem.Blocks` takes
            Of the latter, which is read in blocks, the last column is the response, and y must be None.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative; 2 counts as the row twice, 0 as the row left out.
        callbacks : sequence of callables, default=()
            See `GaussianMixture.fit`.
        labels : array-like of shape (n_samples,) or (n_samples, n_components), default=None
            Components that rows are known to come from; see `GaussianMixture.fit`.

        Returns
        -------
        self
        """
        return self._fitted((X, y), sample_weight, callbacks, labels=labels)

    @available_if(lambda self: self.concomitants is None)
    def partial_fit(self, X, y=None, sample_weight=None, labels=None):
        """Learn from more rows of a stream, each once; see `GaussianMixture.partial_fit`. Not with concomitants.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
        labels : array-like of shape (n_samples,) or (n_samples, n_components), default=None

        Returns
        -------
        self
        """
        return super().partial_fit((X, y), sample_weight=sample_weight, labels=labels)

    def fit_predict(self, X, y=None, sample_weight=None, *, labels=None):
        """Fit, then return the most probable component (n_samples,) of each row: `fit(X, y).labels(X, y)`."""
        return self.fit(X, y, sample_weight, labels=labels).labels(X, y)

    def predict(self, X):
        """Expected responses (n_samples,) or (n_samples, n_outputs): the components' means by their weights."""
        X, params = self._check_X(X), self._params()
        weights, model = self._weights_of(params, X), self._fitted_model()
        means = sum(
            weights[:, k : k + 1] * model.family.predict(params.components, k, X) for k in range(weights.shape[1])
        )
        return self._squeezed(means, 1)

    def predict_components(self, X):
        """Expected responses (n_samples, n_components) or (n_samples, n_components, n_outputs) of each component."""
        X, params = self._check_X(X), self._params()
        family = self._model().family
        means = [family.predict(params.components, k, X) for k in range(len(params.weights))]
        return self._squeezed(np.stack(means, axis=1), 2)

    def predict_proba(self, X, y=None):
        """Probabilities (n_samples, n_components) of the components given each row, and its responses if there are any.

        Without responses these are the weights: the same in all rows, or those of the gates.
        """
        if y is None:
            X = self._check_X(X)
            return self._weights_of(self._params(), X)
        return self._evaluate(Mixture.posteriors, (X, y))

    def labels(self, X, y):
        """Most probable component (n_samples,) int64 of each row, given its responses."""
        return self._evaluate(Mixture.labels, (X, y))

    def log_densities(self, X, y):
        """Log-density (n_samples,) of the responses of each row, in nats."""
        return self._evaluate(Mixture.log_densities, (X, y))

    @property
    def score_samples(self):
        """Not there: `log_densities` needs the responses too."""
        raise AttributeError("a RegressionMixture has densities of y given X; use log_densities(X, y)")

    def score(self, X, y=None, sample_weight=None):
        """Coefficient of determination of `predict`, as scikit-learn's regressors have it; see `log_densities`."""
        return RegressorMixin.score(self, X, y, sample_weight)

    def bic(self, X, y=None, sample_weight=None):  # type: ignore[override]
        """Bayesian information criterion, -2 log L + p log n: lower is better.

        n is the number of rows, or the sum of their weights.
        """
        log_prob = self.log_densities(X, y)
        n = len(log_prob) if sample_weight is None else as_weight(sample_weight, len(log_prob)).sum()
        return -2 * weighted_sum(log_prob, sample_weight) + self._n_parameters() * math.log(n)

    def aic(self, X, y=None, sample_weight=None):  # type: ignore[override]
        """Akaike information criterion, -2 log L + 2 p: lower is better."""
        return -2 * weighted_sum(self.log_densities(X, y), sample_weight) + 2 * self._n_parameters()

    def sample(self, X):  # type: ignore[override]
        """Draw responses for rows: (y, components), of shapes as in `fit` and (n_samples,)."""
        X, params = self._check_X(X), self._params()
        rng = np.random.default_rng(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        weights = self._weights_of(params, X)
        labels = (rng.random((len(X), 1)) > np.cumsum(weights, axis=1)).sum(axis=1)
        labels = np.minimum(labels, weights.shape[1] - 1)
        family, y = self._model().family, np.empty((len(X), self.n_outputs_))
        for k in np.unique(labels):
            y[labels == k] = family.draw(params.components, int(k), X[labels == k], rng)
        return self._squeezed(y, 1), labels

    def standard_errors(self, X, y=None, sample_weight=None, **options):  # type: ignore[override]
        """Standard errors of coefficients, intercepts and covariances, and of weights or gates.

        Parameters
        ----------
        X, y, sample_weight
            What `fit` was given.
        **options
            method, n_bootstrap, random_state and labels: see `GaussianMixture.standard_errors`.

        Returns
        -------
        fastem.inference.Uncertainty
            Of 'coefficients' (K, n_outputs, n_features), 'intercepts' (K, n_outputs), 'covariances' of the shape of
            `covariances_`, and 'weights' (K,) or 'gates' (K, 1 + n_features), constants first.

        Raises
        ------
        ValueError
            If the fit has not converged, or the likelihood has no strict maximum there.

        Examples
        --------
        >>> import numpy as np
        >>> from fastem import RegressionMixture
        >>> rng = np.random.default_rng(0)
        >>> X, e = rng.normal(size=(400, 1)), rng.normal(size=400)
        >>> rm = RegressionMixture(tol=1e-8).fit(X, 3.0 * X[:, 0] + e)
        >>> rm.standard_errors(X, 3.0 * X[:, 0] + e).standard_errors["coefficients"].round(2)
        array([[[0.05]]])
        """
        return super().standard_errors((X, y), sample_weight, **options)

    @classmethod
    def from_parameters(cls, weights, coef, intercept, sigma, *, gate_intercept=None, gate_coef=None, **params):
        """Build a fitted mixture from known parameters.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
            With gates these are only shown.
        coef, intercept, sigma : array-like
            Of the shapes of `coef_`, `intercept_` and `sigma_`; errors are independent of each other.
        gate_intercept, gate_coef : array-like, default=None
            For a mixture with concomitants, whose columns they name by where they are not 0.
        **params
            Constructor parameters, such as covariance_type.

        Returns
        -------
        RegressionMixture

        Examples
        --------
        >>> from fastem import RegressionMixture
        >>> rm = RegressionMixture.from_parameters([0.5, 0.5], [[1.0], [-1.0]], [0.0, 0.0], [1.0, 1.0])
        >>> rm.labels([[5.0], [5.0]], [4.0, -4.0])
        array([0, 1])
        """
        coef = np.asarray(coef, dtype=np.float64)
        estimator = cls(n_components=len(coef), **params)
        if (gate_intercept is None) != (gate_coef is None):
            raise ValueError("give both of gate_intercept and gate_coef, or none")
        if gate_coef is not None and estimator.concomitants is None:
            gate_coef = finite_array("gate_coef", gate_coef, 2)
            estimator.concomitants = np.flatnonzero((gate_coef != gate_coef[:1]).any(axis=0))
        estimator._validate_params()
        estimator.n_outputs_ = 1 if coef.ndim < 3 else coef.shape[1]
        components: Any = estimator._given(coef, intercept, sigma, "coef", "intercept", "sigma")
        n_components, _, p = components.coefficients.shape
        weights = check_weights("weights", weights, n_components)
        estimator.n_features_in_ = p
        if estimator.concomitants is not None:
            gates = np.zeros((n_components, 1 + p))
            if gate_coef is not None:
                gates[:, 0], gates[:, 1:] = finite_array("gate_intercept", gate_intercept, 1), gate_coef
            components = _gated(components, gates - gates[0])
        estimator._set_known(MixtureParams(weights, components), p)
        return estimator

    # between estimator and model

    def _check_X(self, X) -> np.ndarray:
        """Rows that are regressed on, float64."""
        self._check_fitted()
        rows = as_rows(X)
        validate_data(self, X if hasattr(X, "columns") else rows, reset=False, skip_check_array=True)
        return rows.astype(np.float64, copy=False)

    def _rows_and_gaps(self, X, *, reset: bool) -> tuple[np.ndarray, bool]:
        """Rows (x, y) as one array, from the pair; no value of them is missing."""
        X, y = X
        rows = as_rows(X)
        validate_data(self, X if hasattr(X, "columns") else rows, reset=reset, skip_check_array=True)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        y = np.asarray(y)
        responses = as_rows(y[:, None] if y.ndim == 1 else y, "y")
        if len(responses) != len(rows):
            raise ValueError(f"Found inconsistent numbers of samples: X has {len(rows)}, y has {len(responses)}")
        if reset:
            self.n_outputs_ = responses.shape[1]
        elif responses.shape[1] != self.n_outputs_:
            raise ValueError(f"y has {responses.shape[1]} column(s), but the mixture has {self.n_outputs_} responses")
        return np.concatenate([rows, responses], axis=1), False

    def _check_data(self, X, sample_weight, noise_covariance=None, labels=None):
        X, y = X
        if not is_source(X) or (isinstance(X, np.ndarray) and y is not None):
            return super()._check_data((X, y), sample_weight, labels=labels)
        if y is not None:
            raise ValueError("y must be None where X is read in blocks: its last column is the response")
        self.n_outputs_ = 1
        data = super()._check_data(X, sample_weight, labels=labels)
        self.n_features_in_ = data.n_features - 1
        if hasattr(self, "feature_names_in_"):
            self.feature_names_in_ = self.feature_names_in_[:-1]
        return data

    def _checked_rows(self, X, sample_weight, dtype):
        """Rows (x, y) of the dtype of the stream if it has one, and weights (n,) or None."""
        if isinstance(X[0], np.ndarray) and X[0].ndim == 2 and len(X[0]) == 0:
            return np.empty((0, X[0].shape[1] + 1)), None
        rows = self._check_rows(X, reset="n_features_in_" not in self.__dict__)
        if dtype is not None and rows.dtype != dtype:
            with np.errstate(over="ignore"):  # becomes infinity, which is refused
                rows = as_rows(rows.astype(dtype))
        return rows, None if sample_weight is None else as_part_of_weight(sample_weight, len(rows))[:, 0]

    def _n_inputs(self, n_columns: int) -> int:
        return n_columns - self.n_outputs_

    def _n_columns(self) -> int:
        return self.n_features_in_ + self.n_outputs_

    def _is_family(self, family: Any) -> bool:
        """Whether a stream's family is what this estimator has."""
        return type(family) is Regression and family.n_responses == self.n_outputs_

    def _check_learned(self) -> None:
        """Raise ValueError if attributes do not fit together; those of a file, for one."""
        self._params()

    def _seen(self, model: Any) -> dict[str, Any]:
        return {"design_": model.family.design}

    def _numbers(self, name: str, columns: Any) -> np.ndarray | None:
        """Numbers of columns that are given by number or name."""
        if columns is None or isinstance(columns, str):
            return None
        known = list(getattr(self, "feature_names_in_", ()))
        columns = list(np.atleast_1d(np.asarray(columns, dtype=object)))
        for i, column in enumerate(columns):
            if isinstance(column, str):
                if column not in known:
                    raise ValueError(f"{name} holds {column!r}, which is no column of X; these are {known}")
                columns[i] = known.index(column)
        return np.array(columns, dtype=None if columns else np.int64)

    def _model(self) -> Any:
        """The model that the constructor parameters describe."""
        if self.degrees_of_freedom_prior is not None and self.variance_prior is None:
            raise ValueError("degrees_of_freedom_prior needs variance_prior; without one it has no effect")
        prior = None
        if self.variance_prior is not None:
            scale: Any = None if isinstance(self.variance_prior, str) else self.variance_prior
            if scale is not None and np.ndim(scale) == 0 and self.covariance_type in ("full", "tied"):
                scale = scale * np.eye(getattr(self, "n_outputs_", 1))
            prior = NormalInverseWishart(None, 0.0, self.degrees_of_freedom_prior, scale)
        arguments: dict[str, Any] = {
            "n_responses": getattr(self, "n_outputs_", 1),
            "covariance_type": self.covariance_type,
            "regressors": self._numbers("regressors", self.regressors),
            "prior": prior,
            "design": getattr(self, "design_", None),
        }
        if self.concomitants is None:
            model, family = Regressions, Regression(**arguments)
        else:
            columns = self._numbers("concomitants", self.concomitants)
            model, family = GatedRegressions, GatedRegression(**arguments, concomitants=columns)
            for name in ("weights_init", "weight_concentration_prior"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for constant weights; with concomitants they have none")
        return model(
            family,
            self.n_components,
            start=self.init_params if self.resp_init is None else self.resp_init,
            weights_init=self.weights_init,
            components_init=self._components_init(),
            weight_concentration=self.weight_concentration_prior or 1.0,
            n_threads=self.n_threads,
        )

    def _components_init(self) -> Any:
        """Regressions that a fit starts from, if they are given."""
        given = [getattr(self, name) for name in self._start_parts]
        if all(part is None for part in given):
            return None
        if any(part is None for part in given):
            raise ValueError(f"give all of {', '.join(self._start_parts)}, or none")
        components = self._given(*given, *self._start_parts)
        if self.concomitants is None:
            return components
        return _gated(components, np.zeros((len(components.intercepts), 1 + components.coefficients.shape[2])))

    def _given(self, coef, intercept, sigma, *names: str) -> RegressionParams:
        """Parameters of regressions from arrays of the shapes of the attributes."""
        m = getattr(self, "n_outputs_", 1)
        coef = finite_array(names[0], coef, 2 if m == 1 and np.ndim(coef) == 2 else 3)
        coef = coef[:, None, :] if coef.ndim == 2 else coef
        shape = coef.shape[:2]
        parts = []
        for name, part in zip(names[1:], (intercept, sigma), strict=True):
            part = finite_array(name, part, np.ndim(part))
            if part.shape not in (shape, shape[:1] if m == 1 else shape):
                raise ValueError(f"{name} has shape {part.shape}; one for each component and response is needed")
            parts.append(part.reshape(shape))
        intercepts, sigma = parts
        if not (sigma > 0).all():
            raise ValueError(f"{names[2]} must be positive")
        variances = sigma**2
        full = variances[:, :, None] * np.eye(m)
        forms = {"full": full, "tied": full.mean(axis=0), "diag": variances, "spherical": variances.mean(axis=1)}
        covariances = forms[self.covariance_type]
        roots = Gaussian(self.covariance_type).precisions_cholesky(covariances)
        return RegressionParams(intercepts, covariances, roots, coef)

    def _params(self) -> MixtureParams:
        """Attributes as parameters, checked."""
        known = self._known()
        if not isinstance(known, dict):
            return known
        weights = finite_array("weights_", known["weights_"], 1)
        k, m, p = len(weights), known["n_outputs_"], known["n_features_in_"]
        shape = Gaussian(self.covariance_type).shape(k, m)
        wanted = {
            "intercept_": (k, m),
            "covariances_": shape,
            "precisions_cholesky_": shape,
            "coef_": (k, m, p),
            "gate_intercept_": (k, 1),
            "gate_coef_": (k, p),
        }
        parts = []
        for name, size in wanted.items():
            part = finite_array(name, known[name], np.ndim(known[name]))
            if part.shape not in (size, tuple(n for i, n in enumerate(size) if i != 1) if size[1:2] == (1,) else size):
                raise ValueError(f"{name} has shape {part.shape}; {size} is needed")
            parts.append(part.reshape(size))
        components = RegressionParams(*parts[:4])
        if self.concomitants is None:
            return MixtureParams(weights, components)
        return MixtureParams(weights, _gated(components, np.concatenate(parts[4:], axis=1)))

    def _attributes(self, params: MixtureParams) -> dict[str, np.ndarray]:
        intercepts, covariances, roots, coefficients, *gates = params.components
        n_components, m, p = coefficients.shape
        variances = covariances
        if self.covariance_type in ("full", "tied"):
            variances = np.diagonal(covariances, axis1=-2, axis2=-1)
        elif self.covariance_type == "spherical":
            variances = covariances[:, None]
        if gates:
            constants, slopes = gates[0][:, 0], gates[0][:, 1:]
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                constants = np.log(params.weights / params.weights[0])
            constants, slopes = np.nan_to_num(constants, nan=0.0), np.zeros((n_components, p))
        return {
            "weights_": params.weights,
            "coef_": coefficients[:, 0] if m == 1 else coefficients,
            "intercept_": self._squeezed(intercepts, 1),
            "sigma_": self._squeezed(np.broadcast_to(np.sqrt(variances), (n_components, m)).copy(), 1),
            "covariances_": covariances,
            "precisions_cholesky_": roots,
            "gate_intercept_": constants,
            "gate_coef_": slopes,
        }

    def _squeezed(self, array: np.ndarray, axis: int) -> np.ndarray:
        """Without the axis of the responses if there is but one."""
        return array.squeeze(axis) if array.shape[axis] == 1 else array

    def _weights_of(self, params: MixtureParams, X: np.ndarray) -> np.ndarray:
        if self.concomitants is None:
            return np.broadcast_to(params.weights, (len(X), len(params.weights))).copy()
        return np.exp(self._model().family.log_weights(params.components, X))

    def _check_start(self, n_features: int | None = None) -> None:
        """Refuse to go on from parameters that are not those of the model."""
        params = self._params()
        if len(params.weights) != self.n_components or (
            n_features is not None and sum(params.components.coefficients.shape[1:]) != n_features
        ):
            raise ValueError(
                f"the last fit has {len(params.weights)} component(s) and coefficients of shape "
                f"{params.components.coefficients.shape}, which does not fit; begin anew with warm_start=False and fit"
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _settings(self, model: Mixture) -> dict[str, Any]:
        """What must stay as it is while a stream goes on."""
        regressors = model.family.regressors
        used = np.arange(self.n_features_in_) if regressors is None else np.sort(regressors)
        return {"covariance_type": model.family.covariance_type, "regressors": used, **super()._settings(model)}


def _gated(components: RegressionParams, gates: np.ndarray) -> GatedRegressionParams:
    intercepts, covariances, roots, coefficients = components
    return GatedRegressionParams(intercepts, covariances, roots, coefficients, gates)
