"""Hidden Markov models with hmmlearn's methods over fastem's model and driver: validation in, attributes out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import validate_data

from fastem.data import as_rows, finite_array, is_integer
from fastem.estimators.base import EMEstimator, check_uncertainty, log_size
from fastem.estimators.streaming import unchanged_on_error
from fastem.inference import Uncertainty
from fastem.models.hidden_markov import HiddenMarkov, check_rows_of
from fastem.models.hidden_markov_records import HiddenMarkovParams, stationary
from fastem.models.mixture import check_weights
from fastem.protocol import Iteration
from fastem.sequences import Run, Sequences, as_run

_FEWEST = 10  # sequences that a bootstrap draws from
_BOUNDARY = 1e-8  # probabilities that standard errors take for 0


class HiddenMarkovEstimator(EMEstimator):
    """Fitting a hidden Markov model and using it, whatever the family of its emissions.

    A class of it says which family that is (`_family`), and how its parameters become attributes and start values.
    """

    n_mix: Any = 1
    _takes_missing: ClassVar[bool] = True
    _takes_sequences: ClassVar[bool] = True
    _start_options: ClassVar[dict[str, Any]] = {}
    _reported_as: ClassVar[dict[str, str]] = {}  # parameters of the family whose attributes have other names
    _parameter_constraints: ClassVar[dict] = {
        **EMEstimator._parameter_constraints,
        "startprob_init": ["array-like", None],
        "transmat_init": ["array-like", None],
        "startprob_prior": [None, Interval(Real, 1.0, None, closed="left"), "array-like"],
        "transmat_prior": [None, Interval(Real, 1.0, None, closed="left"), "array-like"],
    }
    startprob_init: Any
    transmat_init: Any
    startprob_prior: Any
    transmat_prior: Any
    startprob_: np.ndarray
    transmat_: np.ndarray
    _family: Callable[[], Any]
    _components_init: Callable[[], dict[str, Any]]
    _components: Callable[[dict[str, Any], int], Any]
    _emissions: Callable[[np.ndarray, Any], dict[str, Any]]

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, lengths=None, sequence_weight=None, callbacks: Sequence[Callable[[Iteration], Any]] = ()):
        """Estimate the parameters by EM (Baum & Welch).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows of all sequences, one after the other. A row of NaN alone is missing: time passes, but nothing was
            observed. A memory map is read as it is, never copied as a whole.
        lengths : array-like of shape (n_sequences,), default=None
            Number of rows of each sequence, at least 1; they sum to n_samples. None: a single sequence.
        sequence_weight : array-like of shape (n_sequences,), default=None
            Non-negative; 2 counts as the sequence twice, 0 as the sequence left out.
        callbacks : sequence of callables, default=()
            Each is called with a `fastem.Iteration` after every E-step over all rows, refused leaps aside; a true
            answer stops the start.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an argument or the data cannot be used (nothing is computed then and a fitted estimator stays as it was),
            or if every start ends in a collapsed state.
        """
        with unchanged_on_error(self):
            data = self._sequences(X, lengths, sequence_weight, reset=True)
            start = self._last_params(data.n_features)
            self.mean_length_ = data.mean_length
            self._fit_data(data, start, callbacks)
        self._warn_of_the_end()
        return self

    def partial_fit(self, X, lengths=None, sequence_weight=None):  # type: ignore[override]
        """Learn from more sequences of a stream, each once.

        The first ones make the start: 1000 rows, or ten for each component and each of its `n_features` + 1 parameters
        if these are more. Until there are so many, nothing can be predicted. After a fit there is no start. Then as
        many sequences as have `batch_size` rows make a step of stepwise EM; sequences wait until there are so many.
        It makes no difference how they are split into calls. `fit` begins anew; `partial_fit` never does.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        lengths : array-like of shape (n_sequences,), default=None
        sequence_weight : array-like of shape (n_sequences,), default=None
            As in `fit`. A sequence is never continued by a later call.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or the weights cannot be used, the start or a step collapses, or a parameter of the model was changed
            since the stream began; the estimator is as before the call.

        References
        ----------
        Cappe & Moulines (2009), J. R. Statist. Soc. B 71, 593-613, section 2.
        """
        return self._learned_from(X, lengths, sequence_weight)

    def decode(self, X, lengths=None, algorithm="viterbi"):
        """Find the states of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        lengths : array-like of shape (n_sequences,), default=None
        algorithm : {'viterbi', 'map'}, default='viterbi'
            'viterbi': the most probable path of each sequence (of equal ones that of the first states). 'map': the most
            probable state of each row by itself, which may be a path that is impossible.

        Returns
        -------
        log_prob : float
            Log-probability of the paths together with the rows; for 'map', as in hmmlearn, the expected number of rows
            whose state is right.
        states : ndarray of shape (n_samples,), int64

        Raises
        ------
        ValueError
            If an argument cannot be used, or a sequence is impossible under the model.
        """
        if algorithm not in ("viterbi", "map"):
            raise ValueError(f"algorithm must be 'viterbi' or 'map'; got {algorithm!r}")
        model, params, run = self._evaluated(X, lengths)
        if algorithm == "viterbi":
            log_prob, states = model.paths(params, run)
            return float(log_prob.sum()), states
        resp = model.posteriors(params, run)[1]
        return float(resp.max(axis=1).sum()), np.argmax(resp, axis=1)

    def predict(self, X, lengths=None):
        """Most probable path of states (n_samples,) int64 of each sequence of X (n_samples, n_features)."""
        return self.decode(X, lengths)[1]

    def predict_proba(self, X, lengths=None):
        """Probability (n_samples, n_components) of each state given all the rows of its sequence."""
        return self.score_samples(X, lengths)[1]

    def score_samples(self, X, lengths=None):
        """Log-likelihood of all sequences, and the probability (n_samples, n_components) of each state, as hmmlearn."""
        model, params, run = self._evaluated(X, lengths)
        log_prob, resp = model.posteriors(params, run)
        return float(log_prob.sum()), resp

    def score(self, X, lengths=None):
        """Total log-likelihood of the sequences of X (n_samples, n_features); -inf if one is impossible."""
        model, params, run = self._evaluated(X, lengths)
        return float(model.log_likelihoods(params, run).sum())

    def forecast(self, X, lengths=None, n_steps=1):
        """Predict the states of the rows that would follow.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        lengths : array-like of shape (n_sequences,), default=None
        n_steps : int, default=1
            Number of rows ahead.

        Returns
        -------
        ndarray of shape (n_sequences, n_steps, n_components)
            Probability of each state in each of the rows that follow each sequence, given the rows of the sequence.
        """
        if not is_integer(n_steps, 1):
            raise ValueError(f"n_steps must be an integer of at least 1; got {n_steps!r}")
        model, params, run = self._evaluated(X, lengths)
        return model.forecast(params, run, int(n_steps))

    def bic(self, X, lengths=None):
        """Bayesian information criterion on X, -2 log L + p log n, with n the rows not missing: lower is better."""
        n_observed = self._evaluated(X, lengths)[2].n_counting
        return float(-2 * self.score(X, lengths) + self._n_parameters() * log_size(n_observed))

    def aic(self, X, lengths=None):
        """Akaike information criterion on X, -2 log L + 2 p: lower is better."""
        return float(-2 * self.score(X, lengths) + 2 * self._n_parameters())

    def sample(self, n_samples=1, random_state=None, currstate=None):
        """Draw a sequence.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            None: that of the estimator.
        currstate : int, default=None
            State of the first row. None: drawn from `startprob_`.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        states : ndarray of shape (n_samples,), int64
        """
        self._check_fitted()
        if not is_integer(n_samples, 1):
            raise ValueError(f"n_samples must be an integer of at least 1; got {n_samples!r}")
        params = self._params()
        if currstate is not None:
            n_states = len(params.startprob)
            if not is_integer(currstate, 0) or currstate >= n_states:
                raise ValueError(f"currstate must be a state from 0 to {n_states - 1}; got {currstate!r}")
            params = params._replace(startprob=np.eye(n_states)[int(currstate)])
        source = check_random_state(self.random_state if random_state is None else random_state)
        rng = np.random.default_rng(source.randint(np.iinfo(np.int32).max))
        return self._fitted_model().sample(params, np.array([int(n_samples)]), rng)

    def get_stationary_distribution(self):
        """Distribution (n_components,) that the transitions leave as it is; refused if there are several."""
        self._check_fitted()
        return stationary(self._params().transmat)

    def standard_errors(
        self, X, lengths=None, sequence_weight=None, *, method="information", n_bootstrap=200, random_state=None
    ) -> Uncertainty:
        """Standard errors of the parameters, from the sequences the model was fitted to.

        Parameters
        ----------
        X, lengths, sequence_weight
            What `fit` was given.
        method : {'information', 'bootstrap'}, default='information'
            The inverse of the observed information (Oakes 1999), at twice as many E-steps as there are parameters; or
            fits to sequences with random weights (Rubin 1981), each from these parameters, which takes at least ten.
        n_bootstrap : int, default=200
        random_state : int, RandomState instance or None, default=None
            Seed of the bootstrap.

        Returns
        -------
        fastem.inference.Uncertainty
            `standard_errors['transmat']` and so on, of the shapes of the attributes. Probabilities below 1e-8 lie on
            the boundary: they are taken for 0 with certainty, and the errors of all others hold given that.

        Raises
        ------
        ValueError
            If the fit has not converged, or the likelihood has no strict maximum there.
        """
        self._check_fitted()
        check_uncertainty(method, n_bootstrap)
        data, params = self._sequences(X, lengths, sequence_weight, reset=False), self._params()
        if method == "bootstrap" and data.n_sequences < _FEWEST:
            raise ValueError(
                f"a bootstrap draws whole sequences, and X has {data.n_sequences}, fewer than {_FEWEST}; use "
                "method='information'"
            )
        chain = (np.where(part < _BOUNDARY, 0.0, part) for part in params[:3])
        params = params._replace(
            **dict(zip(params._fields, (part / part.sum(axis=-1, keepdims=True) for part in chain), strict=False))
        )
        found = self._uncertainty(self._fitted_model(), params, data, method, n_bootstrap, random_state)
        estimates, errors = map(self._as_attributes, found[:2])
        return Uncertainty(estimates, errors, found.covariance)

    # between estimator and model

    def _as_attributes(self, estimands: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the model reports, by the names and of the shapes of the attributes."""
        named = {self._reported_as.get(name, name): part for name, part in estimands.items()}
        return {name: part.reshape(np.shape(getattr(self, f"{name}_", part))) for name, part in named.items()}

    def _sequences(self, X, lengths, sequence_weight, *, reset: bool) -> Sequences:
        """Rows to fit to, or to say something of."""
        rows = as_rows(X, allow_nan=True)
        validate_data(self, X if hasattr(X, "columns") else rows, reset=reset, skip_check_array=True)
        return Sequences(rows, lengths, sequence_weight)

    def _evaluated(self, X, lengths) -> tuple[HiddenMarkov, HiddenMarkovParams, Run]:
        self._check_fitted()
        rows = as_rows(X, allow_nan=True)
        validate_data(self, X if hasattr(X, "columns") else rows, reset=False, skip_check_array=True)
        return self._fitted_model(), self._params(), self._run(rows, lengths)

    def _checked_part(self, X, *given) -> Run | None:
        """Sequences as `feed` takes them, or None if there are no rows."""
        lengths, sequence_weight, dtype = given
        rows, _ = self._checked_rows(X, None, dtype)
        return self._run(rows, lengths, sequence_weight) if len(rows) else None

    def _run(self, rows: np.ndarray, lengths: Any, sequence_weight: Any = None) -> Run:
        """Sequences, whatever they hold."""
        data = Sequences.of([as_run(rows, lengths, sequence_weight)])
        if not self._family().takes_missing:
            data.refuse_gaps()
        return next(data.runs())

    def _model(self) -> HiddenMarkov:
        """The model that the constructor parameters describe."""
        if self.online is not None and self.online.starved != "freeze":
            raise ValueError(
                f"online has starved={self.online.starved!r}, which is for mixtures: a state that is not visited keeps "
                "its parameters; use starved='freeze'"
            )
        return HiddenMarkov(
            self._family(),
            self.n_components,
            self.n_mix,
            start=self.init_params if self.resp_init is None else self.resp_init,
            startprob_init=self.startprob_init,
            transmat_init=self.transmat_init,
            weights_init=getattr(self, "weights_init", None),
            components_init=self._components_init() or None,
            startprob_concentration=1.0 if self.startprob_prior is None else self.startprob_prior,
            transmat_concentration=1.0 if self.transmat_prior is None else self.transmat_prior,
            weight_concentration=getattr(self, "weight_concentration_prior", None) or 1.0,
            n_threads=self.n_threads,
            mean_length=self.__dict__.get("mean_length_", 1.0),
        )

    def _fitted_model(self) -> HiddenMarkov:
        """The model of the parameters that were learned."""
        n_states = len(self.startprob_)
        if n_states != self.n_components:
            raise ValueError(
                f"startprob_ is for {n_states} states, but n_components={self.n_components}; set it back, or fit again"
            )
        return replace(self._model(), family=self._known_family(), start="kmeans")

    def _resumed_model(self) -> HiddenMarkov:
        return replace(self._fitted_model(), family=self._known_family().under_prior_of(self._family()))

    def _known_family(self) -> Any:
        """The family with all that it took from the data of the fit."""
        return self._family()

    def _is_family(self, family: Any) -> bool:
        """Whether a stream's family is what this estimator has."""
        return type(family) is type(self._family())

    def _check_learned(self) -> None:
        """Raise ValueError if attributes do not fit together; those of a file, for one."""
        params, family = self._params(), self._known_family()
        n_columns = family.n_columns(params.components)
        if self.n_features_in_ != n_columns:
            raise ValueError(f"the parameters are for {n_columns} columns, but n_features_in_ is {self.n_features_in_}")

    def _settings(self, model: HiddenMarkov) -> dict[str, Any]:
        """What must stay as it is while a stream goes on."""
        return {
            "n_components": model.n_components,
            "n_mix": model.n_mix,
            "startprob_prior": model.startprob_concentration,
            "transmat_prior": model.transmat_concentration,
            "weight_concentration_prior": model.weight_concentration,
            "the prior of the components": model.family.prior,
        }

    def _params(self) -> HiddenMarkovParams:
        """Attributes as parameters, checked: users set them by hand, and the kernels index by their shapes."""
        known = self._known()
        if not isinstance(known, dict):
            return known
        n_states = len(finite_array("startprob_", known["startprob_"], 1))
        startprob = check_weights("startprob_", known["startprob_"], n_states)
        transmat = check_rows_of("transmat_", known["transmat_"], (n_states, n_states))
        weights = np.ones((n_states, 1))
        if "weights_" in known:
            weights = check_rows_of("weights_", known["weights_"], (n_states, self.n_mix))
        return HiddenMarkovParams(startprob, transmat, weights, self._components(known, weights.size))

    def _attributes(self, params: HiddenMarkovParams) -> dict[str, np.ndarray]:
        named = {"startprob_": params.startprob, "transmat_": params.transmat}
        return {**named, **self._emissions(params.weights, params.components)}

    def _known_as(self, startprob: Any, transmat: Any, **emissions: np.ndarray) -> Any:
        """Take parameters that were given, not fitted."""
        n_states = int(self.n_components)
        startprob = check_weights("startprob", startprob, n_states)
        transmat = check_rows_of("transmat", transmat, (n_states, n_states))
        self.__dict__.update(startprob_=startprob, transmat_=transmat, **emissions)
        params = self._params()
        self._set_known(params, self._known_family().n_columns(params.components))
        return self

    def _check_start(self, n_features: int | None = None) -> None:
        """Refuse to go on from parameters that are not those of the model."""
        params, family = self._params(), self._known_family()
        last = len(params.startprob), params.weights.shape[1], family.n_columns(params.components)
        wanted = int(self.n_components), int(self.n_mix), last[2] if n_features is None else n_features
        if last != wanted:
            raise ValueError(
                f"the parameters of the last fit are for {last} states, components of each and columns, but {wanted} "
                "are needed to go on; set n_components back, or begin anew with warm_start=False and fit"
            )
