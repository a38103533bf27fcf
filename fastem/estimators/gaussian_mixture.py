"""scikit-learn's GaussianMixture over fastem's model and driver: validation in, attributes out, no algorithm."""

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from fastem.data import as_numbers, finite_array
from fastem.estimators.base import MixtureEstimator
from fastem.estimators.conditionals import Conditionals
from fastem.estimators.deconvolution import Deconvolution
from fastem.families.gaussian import COVARIANCE_TYPES, Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.families.normal_inverse_wishart import NormalInverseWishart
from fastem.models.mixture import Mixture, check_weights
from fastem.models.mixture_records import MixtureParams


class GaussianMixture(Deconvolution, Conditionals, MixtureEstimator):
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
    MultivariateNormal : A single component, with its mean and covariance.

    Notes
    -----
    NaN is a value that is missing, at random: the likelihood is that of what is there, and each component completes a
    row by regression (Ghahramani & Jordan 1994, Advances in Neural Information Processing Systems 6, 120-127). A row
    without any value is kept and informs nothing; a column without any is refused. Without a NaN nothing of this is
    computed.

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

    _LEARNED: ClassVar[tuple[str, ...]] = ("weights_", "means_", "covariances_", "precisions_cholesky_", "precisions_")
    _start_parts = ("weights_init", "means_init", "precisions_init")
    _takes_missing = True
    _parameter_constraints: ClassVar[dict] = {
        **MixtureEstimator._parameter_constraints,
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "mean_prior": ["array-like", None],
        "mean_precision_prior": [None, Interval(Real, 0.0, None, closed="left")],
        "degrees_of_freedom_prior": [None, Interval(Real, 0.0, None, closed="neither")],
        "covariance_prior": [None, StrOptions({"auto"}), "array-like", Interval(Real, 0.0, None, closed="neither")],
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
        estimator._set_known(MixtureParams(weights, components), means.shape[1])
        return estimator

    # between estimator and model

    def _model(self) -> Mixture:
        """The model that the constructor parameters describe."""
        return Mixture(
            self._family(normal_inverse_wishart(self)),
            self.n_components,
            start=self.init_params if self.resp_init is None else self.resp_init,
            weights_init=self.weights_init,
            means_init=self.means_init,
            precisions_init=self.precisions_init,
            weight_concentration=self.weight_concentration_prior or 1.0,
            n_threads=self.n_threads,
        )

    def _family(self, prior: NormalInverseWishart | None) -> Gaussian:
        return Gaussian(self.covariance_type, self.reg_covar, prior)

    def _params(self) -> MixtureParams:
        """Attributes as parameters, checked: users set them by hand, and the kernels index by their shapes."""
        family = Gaussian(self.covariance_type)
        known = self._known()
        if not isinstance(known, dict):
            return known
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

    def _attributes(self, params: MixtureParams) -> dict[str, np.ndarray]:
        means, covariances, roots = params.components[:3]
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

    def _settings(self, model: Mixture) -> dict[str, Any]:
        """What must stay as it is while a stream goes on."""
        return {
            "covariance_type": model.family.covariance_type,
            "reg_covar": model.family.reg_covar,
            **super()._settings(model),
        }


def normal_inverse_wishart(estimator: Any) -> NormalInverseWishart | None:
    """The prior that the parameters of an estimator describe, or None."""
    if estimator.degrees_of_freedom_prior is not None and estimator.covariance_prior is None:
        raise ValueError("degrees_of_freedom_prior needs covariance_prior; without one it has no effect")
    if estimator.mean_precision_prior is None and estimator.covariance_prior is None:
        if estimator.mean_prior is not None:
            raise ValueError("mean_prior needs mean_precision_prior; without one it has no effect")
        return None
    scale: Any = 0.0 if estimator.covariance_prior is None else estimator.covariance_prior
    return NormalInverseWishart(
        estimator.mean_prior,
        0.01 if estimator.mean_precision_prior is None else estimator.mean_precision_prior,
        estimator.degrees_of_freedom_prior,
        None if isinstance(scale, str) else scale,
    )
