"""One multivariate normal, of rows of which values may be missing."""

from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import StrOptions

from fastem.data import as_numbers, finite_array
from fastem.estimators.base import DensityEstimator
from fastem.estimators.conditionals import Conditionals
from fastem.estimators.imputation import Imputation
from fastem.estimators.normal_components import NormalComponents
from fastem.families.gaussian import Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.models.missing import IncompleteNormal
from fastem.models.mixture_records import MixtureParams

_ONE = np.ones(1)


class MultivariateNormal(NormalComponents, Imputation, Conditionals, DensityEstimator):
    """Mean and covariance of rows of which values may be missing, by maximum likelihood or with a prior.

    The likelihood is that of what is there, which is right where values are missing at random (Rubin 1976): whether one
    is missing may depend on others, but not on itself. Rows that lack the same columns are summed up once, so that an
    iteration of EM takes the same time however many they are.

    Parameters
    ----------
    covariance_type : {'full', 'diag'}, default='full'
        A covariance matrix, or variances alone.
    tol : float, default=1e-3
        For `stopping`, in nats per sample.
    reg_covar : float, default=0.0
        Added to the variances after each M-step, in squared units of the data.
    max_iter : int, default=1000
    mean_init : array-like of shape (n_features,), default=None
    covariance_init : array-like, default=None
        Of the shape of `covariance_`. None: mean and variances of what there is of each column.
    random_state : int, RandomState instance or None, default=None
        Of `sample`.
    warm_start : bool, default=False
        Start from the parameters of the last call of fit.
    verbose : int, default=0
        1 prints a line every `verbose_interval` iterations, 2 also the change and the time.
    verbose_interval : int, default=10
    stopping : {'change', 'aitken'}, default=None
        'change' stops when the objective changes by less than `tol`, 'aitken' when its estimated limit is less than
        `tol` away. None: 'aitken' for a thousandth of `tol`, or 'change' if mean_init and covariance_init are given.
    acceleration : {'auto', 'anderson', 'squarem', None}, default='auto'
        See `GaussianMixture`; 'auto' is 'anderson', or EM itself if mean_init and covariance_init are given.
    max_time : float, default=None
        Seconds after which no further iteration begins.
    mean_prior, mean_precision_prior, degrees_of_freedom_prior, covariance_prior : default=None
        Of the normal-inverse-Wishart prior, as in `GaussianMixture`; 'auto' takes the covariance of the data.
    n_threads : int, default=None
        Threads of the kernels; None or -1: all that numba may use. The bits of a fit do not depend on it.
    batch_size : int, default=None
        Rows of a step of `partial_fit`.
    online : fastem.Online, default=None
        How `partial_fit` forgets. None: `fastem.Online()`.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,)
    covariance_, precision_, precision_cholesky_ : ndarray of shape (n_features, n_features), or (n_features,) for diag
        The precision is U U' with U, precision_cholesky_, upper triangular; for diag U is the reciprocal deviation.
    converged_ : bool
    n_iter_ : int
    log_likelihood_ : float
        Total, of what was there, that entered the last M-step, without the prior.
    lower_bound_ : float
        The same with the log-prior, per sample; `lower_bounds_` those of every iteration.
    status_ : fastem.Status
        Why the fit ended.
    n_samples_seen_ : float
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X had string column names.

    Raises
    ------
    ValueError
        At fit, if an argument or the data cannot be used, a column holds no value, or the likelihood has no maximum:
        columns that depend on others, or too few rows with the values to tell all covariances.

    See Also
    --------
    GaussianMixture : Several such components.

    References
    ----------
    Little & Rubin (2002), Statistical Analysis with Missing Data, section 11.2. Rubin (1976), Biometrika 63, 581-592.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import MultivariateNormal
    >>> X = np.array([[1.0, 2.0], [2.0, 2.5], [3.0, np.nan], [4.0, 5.5], [np.nan, 3.0], [6.0, 6.0]])
    >>> normal = MultivariateNormal().fit(X)
    >>> normal.mean_.round(2)
    array([3.04, 3.79])
    >>> normal.impute(X)[2].round(2)
    array([3.  , 3.76])
    """

    _LEARNED = ("mean_", "covariance_", "precision_cholesky_", "precision_")
    _start_parts = ("mean_init", "covariance_init")
    _takes_missing = True
    _parameter_constraints: ClassVar[dict] = {
        "covariance_type": [StrOptions({"full", "diag"})],
        **{
            name: DensityEstimator._parameter_constraints[name]
            for name in (
                "tol",
                "max_iter",
                "random_state",
                "warm_start",
                "verbose",
                "verbose_interval",
                "stopping",
                "acceleration",
                "max_time",
                "n_threads",
                "batch_size",
                "online",
            )
        },
        **{
            name: NormalComponents._normal_constraints[name]
            for name in (
                "reg_covar",
                "mean_prior",
                "mean_precision_prior",
                "degrees_of_freedom_prior",
                "covariance_prior",
            )
        },
        "mean_init": ["array-like", None],
        "covariance_init": ["array-like", None],
    }
    # What a single component leaves no choice of.
    n_components = n_init = 1
    n_race, n_epochs = 0, 1
    split_merge = False
    algorithm = "batch"
    resp_init = weight_concentration_prior = None

    def __init__(
        self,
        *,
        covariance_type="full",
        tol=1e-3,
        reg_covar=0.0,
        max_iter=1000,
        mean_init=None,
        covariance_init=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        stopping=None,
        acceleration="auto",
        max_time=None,
        mean_prior=None,
        mean_precision_prior=None,
        degrees_of_freedom_prior=None,
        covariance_prior=None,
        n_threads=None,
        batch_size=None,
        online=None,
    ):
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.mean_init = mean_init
        self.covariance_init = covariance_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.stopping = stopping
        self.acceleration = acceleration
        self.max_time = max_time
        self.mean_prior = mean_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.online = online

    @classmethod
    def from_parameters(cls, mean, covariance, **params):
        """Build a fitted normal from known parameters.

        Parameters
        ----------
        mean : array-like of shape (n_features,)
        covariance : array-like
            Of the shape of `covariance_` for the covariance_type.
        **params
            Constructor parameters, such as covariance_type.

        Returns
        -------
        MultivariateNormal

        Raises
        ------
        ValueError
            If a shape does not fit, or the covariance is not symmetric positive definite.

        Examples
        --------
        >>> from fastem import MultivariateNormal
        >>> normal = MultivariateNormal.from_parameters([0.0, 5.0], [[1.0, 0.5], [0.5, 2.0]])
        >>> normal.condition([0], [2.0]).mean_
        array([6.])
        """
        estimator = cls(**params)
        estimator._validate_params()
        means = finite_array("mean", mean, 1)[None]
        family = Gaussian(estimator.covariance_type)
        covariances = family.check_shape("covariance", as_numbers("covariance", covariance)[None], *means.shape)
        components = GaussianParams(means, covariances, family.precisions_cholesky(covariances))
        estimator._set_known(MixtureParams(_ONE, components), means.shape[1])
        return estimator

    def sample(self, n_samples=1):
        """Draw rows (n_samples, n_features)."""
        return super().sample(n_samples)[0]

    def standard_errors(self, X, sample_weight=None, *, method="information", n_bootstrap=200, random_state=None):
        """Standard errors of mean and covariance, from the rows the normal was fitted to.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sample_weight : array-like of shape (n_samples,), default=None
            What `fit` was given.
        method : {'information', 'bootstrap'}, default='information'
            The inverse of the observed information (Oakes 1999): that of what is there, which is what missing values
            ask for; or fits to rows with random weights (Rubin 1981), each from these parameters.
        n_bootstrap : int, default=200
        random_state : int, RandomState instance or None, default=None
            Seed of the bootstrap.

        Returns
        -------
        fastem.inference.Uncertainty
            `standard_errors['mean']` and `['covariance']`, of the shapes of the attributes, their `covariance`, and
            `interval('mean', level=0.95)`.

        Raises
        ------
        ValueError
            If the fit has not converged, or the likelihood has no strict maximum there.

        Examples
        --------
        >>> import numpy as np
        >>> from fastem import MultivariateNormal
        >>> X = np.random.default_rng(0).normal(size=(400, 1)) * 3.0
        >>> X[300:] = np.nan
        >>> errors = MultivariateNormal().fit(X).standard_errors(X).standard_errors
        >>> float(np.round(errors["mean"][0] * 300**0.5, 1))
        3.1
        """
        return super().standard_errors(
            X, sample_weight, method=method, n_bootstrap=n_bootstrap, random_state=random_state
        )

    # between estimator and model

    def _model(self) -> IncompleteNormal:
        """The model that the constructor parameters describe."""
        family = self._family()
        means = covariances = None
        if self.mean_init is not None:
            means = finite_array("mean_init", self.mean_init, 1)[None]
        if self.covariance_init is not None:
            covariances = as_numbers("covariance_init", self.covariance_init)[None]
        return IncompleteNormal(family, means_init=means, covariances_init=covariances, n_threads=self.n_threads)

    def _fitted_model(self) -> IncompleteNormal:
        return self._model()

    def _params(self) -> MixtureParams:
        """Attributes as parameters, checked: users set them by hand, and the kernels index by their shapes."""
        family = Gaussian(self.covariance_type)
        known = self._known()
        if not isinstance(known, dict):
            return known
        means = finite_array("mean_", known["mean_"], 1)[None]
        covariances, roots = (
            as_numbers(name, known[name]).astype(np.float64)[None] for name in ("covariance_", "precision_cholesky_")
        )
        shape = family.shape(*means.shape)
        if covariances.shape != shape or roots.shape != shape:
            raise ValueError(
                f"mean_ {means.shape[1:]}, covariance_ {covariances.shape[1:]} and precision_cholesky_ "
                f"{roots.shape[1:]} do not fit together for {self.covariance_type!r}"
            )
        return MixtureParams(_ONE, GaussianParams(means, covariances, roots))

    def _attributes(self, params: MixtureParams) -> dict[str, np.ndarray]:
        mean, covariance, root = (part[0] for part in params.components)
        return {
            "mean_": mean,
            "covariance_": covariance,
            "precision_cholesky_": root,
            "precision_": root @ root.T if self.covariance_type == "full" else root**2,
        }

    def _check_start(self, n_features: int | None = None) -> None:
        """Refuse to go on from parameters that are not those of the model."""
        last = np.shape(self.covariance_)
        n_features = len(self.mean_) if n_features is None else n_features
        wanted = Gaussian(self.covariance_type).shape(1, n_features)[1:]
        if last != wanted:
            raise ValueError(
                f"covariance_ of the last fit has shape {last}, but {wanted} is needed to go on; set covariance_type "
                "back, or begin anew with warm_start=False and fit"
            )

    def _of(self, params: MixtureParams, columns: np.ndarray) -> Any:
        """A fitted normal of the same kind with other parameters, over some of the columns."""
        mean, covariance, _ = (part[0] for part in params.components)
        other = type(self).from_parameters(mean, covariance, covariance_type=self.covariance_type)
        if hasattr(self, "feature_names_in_"):
            other.feature_names_in_ = self.feature_names_in_[columns]
        return other
