"""Hidden Markov models with hmmlearn's methods over fastem's model and driver: validation in, attributes out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import validate_data

from fastem.data import as_rows, finite_array, is_integer
from fastem.estimators.base import EMEstimator, check_uncertainty
from fastem.estimators.normal_mixture import NORMAL_PRIOR, normal_prior
from fastem.estimators.streaming import unchanged_on_error
from fastem.families.categorical import Categorical, CategoricalParams
from fastem.families.covariance_structures import form_of
from fastem.families.exponential import Conjugate
from fastem.families.family import Family
from fastem.families.gaussian import COVARIANCE_TYPES, Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.families.poisson import Poisson, PoissonParams
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
    _start_options: ClassVar[dict[str, Any]] = {}
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
            start = None
            if self.warm_start and self.__sklearn_is_fitted__():
                self._check_start(data.n_features)
                start = self._params()
            self.mean_length_ = data.n_samples / data.n_sequences
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
        if "n_features_in_" in self.__dict__:  # nothing is put into the attributes before the end
            self._learn(X, lengths, sequence_weight)
        else:
            with unchanged_on_error(self):
                self._learn(X, lengths, sequence_weight)
        return self

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
        return float(-2 * self.score(X, lengths) + self._n_parameters() * math.log(n_observed))

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
        return self._uncertainty(self._fitted_model(), params, data, method, n_bootstrap, random_state)

    # between estimator and model

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
        return replace(self._model(), family=self._known_family(), start="kmeans")

    def _known_family(self) -> Any:
        """The family with all that it took from the data of the fit."""
        return self._family()

    def _n_parameters(self) -> int:
        model = self._fitted_model()
        return model.n_parameters(model.family.n_columns(self._params().components))

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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class NormalEmissions(HiddenMarkovEstimator):
    """Hidden Markov models that emit from normal components."""

    _LEARNED: ClassVar[tuple[str, ...]] = ("startprob_", "transmat_", "means_", "covariances_")
    _start_parts: ClassVar[tuple[str, ...]] = ("startprob_init", "transmat_init", "means_init", "covariances_init")
    _parameter_constraints: ClassVar[dict] = {
        **HiddenMarkovEstimator._parameter_constraints,
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "means_init": ["array-like", None],
        "covariances_init": ["array-like", None],
        **NORMAL_PRIOR,
    }
    covariance_type: Any
    reg_covar: Any
    means_init: Any
    covariances_init: Any
    means_: np.ndarray
    covariances_: np.ndarray

    @property
    def covars_(self):
        """Covariances written out, (n_components, n_features, n_features) whatever their type, as in hmmlearn."""
        means, covariances, n_features = self.means_, self.covariances_, self.means_.shape[-1]
        form = form_of(self.covariance_type)
        if form == "diag":
            return covariances[..., None] * np.eye(n_features)
        if form == "spherical":
            return covariances[..., None, None] * np.eye(n_features)
        return np.broadcast_to(covariances, (*means.shape, n_features)).copy()

    def _family(self) -> Gaussian:
        return Gaussian(self.covariance_type, self.reg_covar, normal_prior(self))

    def _components_init(self) -> dict[str, Any]:
        given = {"means": self.means_init, "covariances": self.covariances_init}
        return {name: self._flat(f"{name}_init", part) for name, part in given.items() if part is not None}

    def _flat(self, name: str, part: Any) -> Any:
        """A parameter of all components from one with an axis for states and one for the components of each."""
        return part

    def _settings(self, model: HiddenMarkov) -> dict[str, Any]:
        family = {"covariance_type": model.family.covariance_type, "reg_covar": model.family.reg_covar}
        return {**super()._settings(model), **family}

    def _components(self, known: dict[str, Any], n_components: int) -> GaussianParams:
        family = Gaussian(self.covariance_type)
        means = finite_array("means_", self._flat("means_", known["means_"]), 2)
        covariances = finite_array(
            "covariances_",
            self._flat("covariances_", known["covariances_"]),
            len(family.shape(1, 1)),
        )
        if len(means) != n_components or covariances.shape != family.shape(*means.shape):
            raise ValueError(
                f"means_ {np.shape(known['means_'])} and covariances_ {np.shape(known['covariances_'])} do not fit "
                f"together for {self.covariance_type!r}, or to {len(known['startprob_'])} states"
            )
        return GaussianParams(means, covariances, family.precisions_cholesky(covariances))

    def _emissions(self, weights: np.ndarray, components: GaussianParams) -> dict[str, np.ndarray]:
        return {"means_": components.means, "covariances_": components.covariances}


class GaussianHMM(NormalEmissions):
    """Hidden Markov model with normal emissions, with hmmlearn's methods; by default maximum likelihood.

    Parameters
    ----------
    n_components : int, default=1
        Number of states K.
    covariance_type : str, default='full'
        'full', 'tied', 'diag' or 'spherical': a covariance matrix for each state, one for all, variances each, or one
        variance each. Or a structure by its name in mclust, 'EII' to 'VVV': see `GaussianMixture`.
    tol : float, default=1e-3
        For `stopping`, in nats per row.
    reg_covar : float, default=0.0
        Added to the variances after each M-step: the M-step of no objective. The sound cure for states that collapse is
        a `covariance_prior`.
    max_iter : int, default=100
        Largest number of EM iterations of a start on all rows.
    n_init : int, default=1
        Number of starts (or races, see `n_race`); the best is kept.
    init_params : {'kmeans', 'k-means++', 'k-means||', 'ward', 'random_from_data', 'random'}, default='kmeans'
        How a start finds its first states: rows are put to the nearest centre, whatever came before them, or to states
        by chance. In a race (`n_race`) 'kmeans' takes turns with others, and chains that forget with chains that last.
    startprob_init : array-like of shape (n_components,), default=None
    transmat_init : array-like of shape (n_components, n_components), default=None
        Probabilities of the first state, and of the next state, a row for each. None: uniform. What is 0 stays 0.
    means_init : array-like of shape (n_components, n_features), default=None
    covariances_init : array-like, default=None
        Of the shape of `covariances_`. What is given replaces that part of the start.
    random_state : int, RandomState instance or None, default=None
    warm_start : bool, default=False
        Start from the parameters of the last call of fit.
    verbose : int, default=0
        1 prints a line every `verbose_interval` iterations, 2 also the change and the time.
    verbose_interval : int, default=10
    stopping : {'change', 'aitken'}, default=None
        'change': the objective changes by less than `tol`; 'aitken' waits until the estimated limit is less than `tol`
        away. None: 'aitken' for a thousandth of `tol`, or 'change' if the start is given in full.
    n_race : int, default=None
        0: each start is found and followed on all rows. Otherwise so many race for each on samples of sequences, long
        ones in windows of 1000 rows. None: 12, or 0 for one state, or where the start is given in full.
    acceleration : {'auto', 'anderson', 'squarem', None}, default='auto'
        As in `fastem.GaussianMixture`; 'auto' is 'anderson', or EM itself if the start is given in full.
    algorithm : {'batch', 'minibatch', 'incremental'}, default='batch'
        How a start is followed on all rows, as in `fastem.GaussianMixture`; batches and blocks hold whole sequences.
    n_epochs : int, default=10
        Passes of 'minibatch'.
    max_time : float, default=None
        Seconds after which no further iteration begins.
    resp_init : array-like of shape (n_samples,) or (n_samples, n_components), default=None
        States from 0, or their probabilities, from which the first emissions are found instead of `init_params`.
    startprob_prior : float or array-like of shape (n_components,), default=None
    transmat_prior : float or array-like of shape (n_components, n_components), default=None
        Parameters, at least 1, of Dirichlet priors of `startprob_` and the rows of `transmat_`. None: no prior, as 1.
    mean_prior, mean_precision_prior, degrees_of_freedom_prior, covariance_prior
        Normal-inverse-Wishart prior of means and covariances, as in `fastem.GaussianMixture`. None: no prior.
    n_threads : int, default=None
        Threads of the kernels; None or -1: all that numba may use. The bits of a fit do not depend on it.
    batch_size : int, default=None
        Rows that make a step of `partial_fit`, 'minibatch' or 'incremental', in whole sequences.
    online : fastem.Online, default=None
        How `partial_fit` and 'minibatch' forget. None: `fastem.Online()`.

    Attributes
    ----------
    startprob_ : ndarray of shape (n_components,)
    transmat_ : ndarray of shape (n_components, n_components)
    means_ : ndarray of shape (n_components, n_features)
    covariances_ : ndarray
        (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.
    covars_ : ndarray of shape (n_components, n_features, n_features)
        The same written out, as in hmmlearn.
    converged_ : bool
        Whether the stopping rule was met; False where `max_iter` was reached first.
    status_ : fastem.Status
        Why the fit ended.
    n_iter_ : int
    lower_bound_, lower_bounds_ : float, list of float
        Mean log-likelihood (plus log-prior) per row that is not missing, as it entered the last, or each, M-step.
    log_likelihood_ : float
        Total log-likelihood that entered the last M-step, without the prior.
    mean_length_ : float
        Mean number of rows of the sequences of `fit`.
    n_samples_seen_ : float
        Weight of the rows of `fit`, without those missing, and of all `partial_fit` since.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X had string column names.

    See Also
    --------
    GMMHMM : States that emit from several normal components each.

    References
    ----------
    Baum, Petrie, Soules & Weiss (1970), Ann. Math. Statist. 41, 164-171; Rabiner (1989), Proc. IEEE 77, 257-286.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import GaussianHMM
    >>> true = GaussianHMM.from_parameters([1.0, 0.0], [[0.9, 0.1], [0.2, 0.8]], [[0.0], [3.0]], [[[1.0]], [[1.0]]])
    >>> X, states = true.sample(5000, random_state=0)
    >>> model = GaussianHMM(n_components=2, random_state=0).fit(X, lengths=[2000, 3000])
    >>> order = np.argsort(model.means_[:, 0])
    >>> model.transmat_[order][:, order].round(1)
    array([[0.9, 0.1],
           [0.2, 0.8]])
    >>> bool((np.argsort(order)[model.predict(X)] == states).mean() > 0.95)
    True
    """

    def __init__(
        self,
        n_components=1,
        *,
        covariance_type="full",
        tol=1e-3,
        reg_covar=0.0,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        startprob_init=None,
        transmat_init=None,
        means_init=None,
        covariances_init=None,
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
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.means_init = means_init
        self.covariances_init = covariances_init
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
        self.mean_prior = mean_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online

    @classmethod
    def from_parameters(cls, startprob, transmat, means, covariances, **params):
        """Build a fitted model from known parameters.

        Parameters
        ----------
        startprob : array-like of shape (n_components,)
        transmat : array-like of shape (n_components, n_components)
            Non-negative; startprob and each row of transmat sum to 1.
        means : array-like of shape (n_components, n_features)
        covariances : array-like
            Of the shape of `covariances_` for the covariance_type.
        **params
            Constructor parameters, such as covariance_type.

        Returns
        -------
        GaussianHMM

        Raises
        ------
        ValueError
            If a shape does not fit, probabilities do not sum to 1, or a matrix is not symmetric positive definite.
        """
        means = finite_array("means", means, 2)
        estimator = cls(n_components=len(means), **params)
        estimator._validate_params()
        covariances = Gaussian(estimator.covariance_type).check_shape("covariances", covariances, *means.shape)
        return estimator._known_as(startprob, transmat, means_=means, covariances_=covariances)


class GMMHMM(NormalEmissions):
    """Hidden Markov model whose states each emit from a mixture of normal components, with hmmlearn's methods.

    Parameters
    ----------
    n_components : int, default=1
        Number of states K.
    n_mix : int, default=1
        Number of components M of each state.
    covariance_type : str, default='full'
        'full', 'tied', 'diag' or 'spherical': a covariance matrix for each component of each state, one for all
        components of all states, variances each, or one variance each. Or a structure of all these by its name in
        mclust, 'EII' to 'VVV': see `GaussianMixture`.
    weights_init : array-like of shape (n_components, n_mix), default=None
    means_init : array-like of shape (n_components, n_mix, n_features), default=None
    covariances_init : array-like, default=None
        Of the shape of `covariances_`.
    weight_concentration_prior : float, default=None
        Parameter, at least 1, of Dirichlet priors of the rows of `weights_`. None: no prior.
    tol, reg_covar, max_iter, n_init, init_params, startprob_init, transmat_init, random_state, warm_start, verbose, \
verbose_interval, stopping, n_race, acceleration, algorithm, n_epochs, max_time, startprob_prior, transmat_prior, \
mean_prior, mean_precision_prior, degrees_of_freedom_prior, covariance_prior, n_threads, batch_size, online
        As in `fastem.GaussianHMM`. The first centres of components are put to states by what lies together.

    Attributes
    ----------
    startprob_, transmat_ : ndarray of shape (n_components,), (n_components, n_components)
    weights_ : ndarray of shape (n_components, n_mix)
    means_ : ndarray of shape (n_components, n_mix, n_features)
    covariances_ : ndarray
        (K, M, D, D) full, (D, D) tied, (K, M, D) diag, (K, M) spherical.
    covars_ : ndarray of shape (n_components, n_mix, n_features, n_features)
        The same written out.

    See Also
    --------
    GaussianHMM : What is the same, and the other attributes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import GMMHMM
    >>> rng = np.random.default_rng(0)
    >>> states = np.repeat(np.tile([0, 1], 50), 20)
    >>> X = (np.array([[-9.0, -3.0], [3.0, 9.0]])[states, rng.integers(2, size=2000)] + rng.normal(size=2000))[:, None]
    >>> model = GMMHMM(n_components=2, n_mix=2, random_state=0).fit(X)
    >>> np.sort(model.means_[:, :, 0].round(), axis=None)
    array([-9., -3.,  3.,  9.])
    >>> bool(abs(np.corrcoef(model.predict(X), states)[0, 1]) > 0.99)
    True
    """

    _LEARNED = ("startprob_", "transmat_", "weights_", "means_", "covariances_")
    _start_parts = ("startprob_init", "transmat_init", "weights_init", "means_init", "covariances_init")
    _parameter_constraints: ClassVar[dict] = {
        **{name: kinds for name, kinds in NormalEmissions._parameter_constraints.items() if name != "resp_init"},
        "n_mix": [Interval(Integral, 1, None, closed="left")],
        "weights_init": ["array-like", None],
        "weight_concentration_prior": [None, Interval(Real, 1.0, None, closed="left")],
    }
    resp_init = None  # states of rows would not tell the components
    weights_: np.ndarray

    def __init__(
        self,
        n_components=1,
        n_mix=1,
        *,
        covariance_type="full",
        tol=1e-3,
        reg_covar=0.0,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        startprob_init=None,
        transmat_init=None,
        weights_init=None,
        means_init=None,
        covariances_init=None,
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
        startprob_prior=None,
        transmat_prior=None,
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
        self.n_mix = n_mix
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.weights_init = weights_init
        self.means_init = means_init
        self.covariances_init = covariances_init
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
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_prior = mean_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online

    @classmethod
    def from_parameters(cls, startprob, transmat, weights, means, covariances, **params):
        """Build a fitted model from known parameters, of the shapes of the attributes.

        Parameters
        ----------
        startprob, transmat, weights, means, covariances : array-like
            Probabilities are non-negative; startprob and each row of transmat and weights sum to 1.
        **params
            Constructor parameters, such as covariance_type.

        Returns
        -------
        GMMHMM

        Raises
        ------
        ValueError
            If a shape does not fit, probabilities do not sum to 1, or a matrix is not symmetric positive definite.
        """
        means = finite_array("means", means, 3)
        estimator = cls(n_components=len(means), n_mix=means.shape[1], **params)
        estimator._validate_params()
        weights = check_rows_of("weights", weights, means.shape[:2])
        family, flat = Gaussian(estimator.covariance_type), estimator._flat("covariances", covariances)
        flat = family.check_shape("covariances", flat, weights.size, means.shape[2])
        covariances = estimator._by_state(flat, weights.shape)
        return estimator._known_as(startprob, transmat, weights_=weights, means_=means, covariances_=covariances)

    def _flat(self, name: str, part: Any) -> Any:
        if form_of(self.covariance_type) == "tied" and name.startswith("covariances"):
            return part
        array, lead = np.asarray(part), (int(self.n_components), int(self.n_mix))
        if array.shape[:2] != lead:
            raise ValueError(f"{name} has shape {array.shape}; its first axes must be (n_components, n_mix) = {lead}")
        return array.reshape(lead[0] * lead[1], *array.shape[2:])

    def _by_state(self, covariances: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        is_tied = form_of(self.covariance_type) == "tied"
        return covariances if is_tied else covariances.reshape(*shape, *covariances.shape[1:])

    def _emissions(self, weights: np.ndarray, components: GaussianParams) -> dict[str, np.ndarray]:
        means, covariances = components[:2]
        return {
            "weights_": weights,
            "means_": means.reshape(*weights.shape, -1),
            "covariances_": self._by_state(covariances, weights.shape),
        }


class PoissonHMM(HiddenMarkovEstimator):
    """Hidden Markov model of counts that are Poisson in each state, independently in each column.

    Parameters
    ----------
    n_components : int, default=1
        Number of states K.
    rates_init : array-like of shape (n_components, n_features), default=None
        Means of the counts that replace those of the start.
    prior : fastem.Conjugate, default=None
        Gamma prior of the rates. None: no prior.
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
        "prior": [Conjugate, None],
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
        if (rates < 0).any():
            raise ValueError(f"rates must not be negative; the smallest is {rates.min()}")
        estimator = cls(n_components=len(rates), **params)
        estimator._validate_params()
        return estimator._known_as(startprob, transmat, rates_=rates)

    def _family(self) -> Poisson:
        return Poisson(self.prior)

    def _components_init(self) -> dict[str, Any]:
        return {} if self.rates_init is None else {"rates": self.rates_init}

    def _components(self, known: dict[str, Any], n_components: int) -> PoissonParams:
        rates = finite_array("rates_", known["rates_"], 2)
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
    prior : fastem.Conjugate, default=None
        Dirichlet prior of the probabilities. None: no prior.
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
    _parameter_constraints: ClassVar[dict] = {
        **HiddenMarkovEstimator._parameter_constraints,
        "categories": [list, tuple, None],
        "emissionprob_init": ["array-like", None],
        "prior": [Conjugate, None],
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
            If a shape does not fit, or probabilities do not sum to 1.
        """
        emissionprob = finite_array("emissionprob", emissionprob, 2)
        categories = [np.arange(emissionprob.shape[1])] if categories is None else categories
        estimator = cls(n_components=len(emissionprob), **params)
        estimator._validate_params()
        family = Categorical(categories=categories)
        estimator.categories_ = list(family.values)
        if sum(map(len, family.values)) != emissionprob.shape[1]:
            raise ValueError(
                f"emissionprob has shape {emissionprob.shape}, but there are {sum(map(len, family.values))} categories"
            )
        family.recalled(np.ones(1), None).check_params(CategoricalParams(emissionprob), len(emissionprob))
        return estimator._known_as(startprob, transmat, emissionprob_=emissionprob)

    def _family(self) -> Categorical:
        return Categorical(self.prior, self.categories)

    def _known_family(self) -> Categorical:
        return Categorical(self.prior, self.__dict__.get("categories_", self.categories))

    def _seen(self, model: HiddenMarkov) -> dict[str, Any]:
        return {"categories_": list(model.family.values)}

    def _components_init(self) -> dict[str, Any]:
        return {} if self.emissionprob_init is None else {"probabilities": self.emissionprob_init}

    def _components(self, known: dict[str, Any], n_components: int) -> CategoricalParams:
        probabilities = finite_array("emissionprob_", known["emissionprob_"], 2)
        shape = n_components, sum(map(len, known["categories_"]))
        if probabilities.shape != shape:
            raise ValueError(
                f"emissionprob_ has shape {probabilities.shape}; for startprob_ and categories_ it is {shape}"
            )
        return CategoricalParams(probabilities)

    def _emissions(self, weights: np.ndarray, components: CategoricalParams) -> dict[str, np.ndarray]:
        return {"emissionprob_": components.probabilities}


class HMM(HiddenMarkovEstimator):
    """Hidden Markov model whose states emit from any family, or from mixtures of its components.

    Parameters
    ----------
    family : fastem family
        Such as `fastem.Gamma()`, `fastem.VonMises()`, or one of your own. `fastem.Gaussian` has classes of its own:
        GaussianHMM and GMMHMM.
    n_components : int, default=1
        Number of states K.
    n_mix : int, default=1
        Number of components M of each state.
    components_init : dict of str to array-like, default=None
        Parameters of the family that replace those of the start, by their names, with axis 0 for the K M components:
        those of the first state come first.
    weights_init : array-like of shape (n_components, n_mix), default=None
    weight_concentration_prior : float, default=None
        Parameter, at least 1, of Dirichlet priors of the rows of `weights_`. None: no prior.
    tol, max_iter, n_init, init_params, startprob_init, transmat_init, random_state, warm_start, verbose, \
verbose_interval, stopping, n_race, acceleration, algorithm, n_epochs, max_time, startprob_prior, transmat_prior, \
n_threads, batch_size, online
        As in `fastem.GaussianHMM`.

    Attributes
    ----------
    startprob_, transmat_ : ndarray of shape (n_components,), (n_components, n_components)
    weights_ : ndarray of shape (n_components, n_mix)
    components_ : NamedTuple of ndarray
        Parameters of the family, with axis 0 for the K M components.
    family_ : fastem family
        With what it took from the data.

    See Also
    --------
    GaussianHMM : What is the same, and the other attributes.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.random.default_rng(0).exponential(np.repeat([1.0, 20.0, 1.0], 200))[:, None]
    >>> model = fastem.HMM(fastem.ExponentialTime(), n_components=2, random_state=0).fit(X)
    >>> bool(np.bincount(model.predict(X)).min() > 150)
    True
    """

    _LEARNED = ("startprob_", "transmat_", "weights_", "components_")
    _start_parts = ("startprob_init", "transmat_init", "components_init")
    _parameter_constraints: ClassVar[dict] = {
        **{name: kinds for name, kinds in HiddenMarkovEstimator._parameter_constraints.items() if name != "resp_init"},
        "family": [Family],
        "n_mix": [Interval(Integral, 1, None, closed="left")],
        "components_init": [dict, None],
        "weights_init": ["array-like", None],
        "weight_concentration_prior": [None, Interval(Real, 1.0, None, closed="left")],
    }
    resp_init = None  # states of rows would not tell the components
    weights_: np.ndarray
    components_: Any

    def __init__(
        self,
        family,
        n_components=1,
        n_mix=1,
        *,
        tol=1e-3,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        startprob_init=None,
        transmat_init=None,
        weights_init=None,
        components_init=None,
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
        startprob_prior=None,
        transmat_prior=None,
        weight_concentration_prior=None,
        n_threads=None,
        batch_size=None,
        online=None,
    ):
        self.family = family
        self.n_components = n_components
        self.n_mix = n_mix
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.weights_init = weights_init
        self.components_init = components_init
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
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.weight_concentration_prior = weight_concentration_prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online

    def _family(self) -> Any:
        if type(self.family) is Gaussian:
            raise TypeError("family is fastem.Gaussian, which has estimators of its own: use GaussianHMM or GMMHMM")
        return self.family

    def _known_family(self) -> Any:
        return self.__dict__.get("family_", self.family)

    def _seen(self, model: HiddenMarkov) -> dict[str, Any]:
        return {"family_": model.family}

    def _components_init(self) -> dict[str, Any]:
        return dict(self.components_init or {})

    def _components(self, known: dict[str, Any], n_components: int) -> Any:
        return known["components_"]

    def _emissions(self, weights: np.ndarray, components: Any) -> dict[str, Any]:
        return {"weights_": weights, "components_": components}
