"""Hidden Markov models whose states emit from normal components."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from fastem.data import finite_array
from fastem.estimators.hidden_markov import HiddenMarkovEstimator
from fastem.estimators.normal_components import NormalComponents
from fastem.families.covariance_structures import form_of
from fastem.families.gaussian import Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.models.hidden_markov import check_rows_of


class NormalEmissions(NormalComponents, HiddenMarkovEstimator):
    """Hidden Markov models that emit from normal components."""

    _LEARNED: ClassVar[tuple[str, ...]] = ("startprob_", "transmat_", "means_", "covariances_")
    _start_parts: ClassVar[tuple[str, ...]] = ("startprob_init", "transmat_init", "means_init", "covariances_init")
    _parameter_constraints: ClassVar[dict] = {
        **HiddenMarkovEstimator._parameter_constraints,
        **NormalComponents._normal_constraints,
        "means_init": ["array-like", None],
        "covariances_init": ["array-like", None],
    }
    means_init: Any
    covariances_init: Any
    means_: np.ndarray
    covariances_: np.ndarray

    @property
    def covars_(self):
        """Covariances written out, (n_components, n_features, n_features) whatever their type, as in hmmlearn.

        Set, as there, in the shape of `covariances_`.
        """
        means, covariances, n_features = self.means_, self.covariances_, self.means_.shape[-1]
        form = form_of(self.covariance_type)
        if form == "diag":
            return covariances[..., None] * np.eye(n_features)
        if form == "spherical":
            return covariances[..., None, None] * np.eye(n_features)
        return np.broadcast_to(covariances, (*means.shape, n_features)).copy()

    @covars_.setter
    def covars_(self, covariances):
        self.covariances_ = covariances

    def _components_init(self) -> dict[str, Any]:
        given = {"means": self.means_init, "covariances": self.covariances_init}
        return {name: self._flat(f"{name}_init", part) for name, part in given.items() if part is not None}

    def _flat(self, name: str, part: Any) -> Any:
        """A parameter of all components from one with an axis for states and one for the components of each."""
        return part

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
        Mean number of rows of the sequences of `fit`, by their weights.
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
