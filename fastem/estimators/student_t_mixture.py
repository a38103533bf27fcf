"""Mixtures of Student's t distributions: `GaussianMixture` for rows with heavy tails and outliers."""

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from fastem.data import finite_array
from fastem.estimators.normal_mixture import NormalMixture
from fastem.families.covariance_structures import has_structure
from fastem.families.gaussian import Gaussian
from fastem.families.student_t import StudentT
from fastem.families.student_t_records import StudentTParams
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams


class StudentTMixture(NormalMixture):
    """Mixture of Student's t distributions: outliers count little, and how little is estimated.

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    covariance_type : str, default='full'
        Of the scale matrices; see `GaussianMixture`.
    degrees_of_freedom : {'free', 'common'} or float, default='free'
        Estimated for each component, estimated for all together, or known. The fewer, the heavier the tails; from 30
        or so on a component is hardly told from a normal one.
    degrees_of_freedom_init : float, default=10.0
        What they are estimated from.
    degrees_of_freedom_bounds : (float, float), default=(0.01, 1000.0)
        Between which they are estimated. Where the likelihood has no maximum in between, as of normal rows, they end
        on a bound, and have a standard error of 0.
    tol, reg_covar, max_iter, n_init, init_params, weights_init, means_init, precisions_init, random_state, warm_start,
    verbose, verbose_interval, stopping, n_race, split_merge, acceleration, algorithm, n_epochs, max_time, resp_init,
    weight_concentration_prior, mean_prior, mean_precision_prior, degrees_of_freedom_prior, covariance_prior, n_threads,
    batch_size, online, frozen, noise, noise_volume
        See `GaussianMixture`. Priors are those of its means and covariances, here of locations and scale matrices;
        `degrees_of_freedom_prior` is that of their inverse-Wishart distribution. The estimation of degrees of freedom
        is what takes EM the longest: see `acceleration`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
        Locations: the means, where there are more than 1 degree of freedom.
    covariances_, precisions_, precisions_cholesky_ : ndarray
        Scale matrices, their inverses and the roots of these, of the shapes in `GaussianMixture`. A component with
        nu > 2 degrees of freedom has nu / (nu - 2) times its scale matrix for a covariance; with fewer, none.
    degrees_of_freedom_ : ndarray of shape (n_components,)

    And the other attributes of `GaussianMixture`.

    Raises
    ------
    ValueError
        At fit, if an argument or the data cannot be used, or if every start ends in a collapsed component.

    References
    ----------
    Peel & McLachlan (2000), Statistics and Computing 10, 339-348. Liu, Rubin & Wu (1998), Biometrika 85, 755-770.

    Examples
    --------
    >>> import numpy as np
    >>> from fastem import StudentTMixture
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_t(3.0, size=(4000, 1)) + rng.choice([0.0, 20.0], size=(4000, 1))
    >>> tm = StudentTMixture(n_components=2, degrees_of_freedom="common", random_state=0).fit(X)
    >>> tm.degrees_of_freedom_.round()
    array([3., 3.])
    >>> np.sort(tm.means_[:, 0]).round() + 0.0
    array([ 0., 20.])
    """

    _LEARNED: ClassVar[tuple[str, ...]] = (*NormalMixture._LEARNED, "degrees_of_freedom_")
    _parameter_constraints: ClassVar[dict] = {
        **NormalMixture._parameter_constraints,
        "degrees_of_freedom": [StrOptions({"free", "common"}), Interval(Real, 0.0, None, closed="neither")],
        "degrees_of_freedom_init": [Interval(Real, 0.0, None, closed="neither")],
        "degrees_of_freedom_bounds": [tuple, list],
    }

    def __init__(
        self,
        n_components=1,
        *,
        covariance_type="full",
        degrees_of_freedom="free",
        degrees_of_freedom_init=10.0,
        degrees_of_freedom_bounds=(0.01, 1000.0),
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
        frozen=None,
        noise=False,
        noise_volume=None,
    ):
        super().__init__(
            n_components,
            covariance_type=covariance_type,
            tol=tol,
            reg_covar=reg_covar,
            max_iter=max_iter,
            n_init=n_init,
            init_params=init_params,
            weights_init=weights_init,
            means_init=means_init,
            precisions_init=precisions_init,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
            verbose_interval=verbose_interval,
            stopping=stopping,
            n_race=n_race,
            split_merge=split_merge,
            acceleration=acceleration,
            algorithm=algorithm,
            n_epochs=n_epochs,
            max_time=max_time,
            resp_init=resp_init,
            weight_concentration_prior=weight_concentration_prior,
            mean_prior=mean_prior,
            mean_precision_prior=mean_precision_prior,
            degrees_of_freedom_prior=degrees_of_freedom_prior,
            covariance_prior=covariance_prior,
            n_threads=n_threads,
            batch_size=batch_size,
            online=online,
            frozen=frozen,
            noise=noise,
            noise_volume=noise_volume,
        )
        self.degrees_of_freedom = degrees_of_freedom
        self.degrees_of_freedom_init = degrees_of_freedom_init
        self.degrees_of_freedom_bounds = degrees_of_freedom_bounds

    @classmethod
    def from_parameters(cls, weights, means, covariances=None, degrees_of_freedom=None, *, precisions=None, **params):
        """Build a fitted mixture from known parameters.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
        means : array-like of shape (n_components, n_features)
        covariances, precisions : array-like
            Exactly one of them: scale matrices or their inverses, of the shape of `covariances_`.
        degrees_of_freedom : array-like of shape (n_components,) or float
            Any positive numbers. (Those of the constructor, which say how they are estimated, are left as they are.)
        **params
            Constructor parameters, such as covariance_type.

        Returns
        -------
        StudentTMixture

        Raises
        ------
        ValueError
            See `GaussianMixture.from_parameters`; or if degrees of freedom are missing or not positive.

        Examples
        --------
        >>> from fastem import StudentTMixture
        >>> StudentTMixture.from_parameters([1.0], [[0.0]], [[[1.0]]], 4.0).score_samples([[0.0], [100.0]]).round(2)
        array([ -0.98, -20.54])
        """
        if degrees_of_freedom is None:
            raise ValueError("degrees_of_freedom must be given, one for each component or one for all")
        estimator = super().from_parameters(weights, means, covariances, precisions=precisions, **params)
        degrees = finite_array("degrees_of_freedom", np.atleast_1d(degrees_of_freedom), 1)
        if degrees.shape not in ((1,), estimator.weights_.shape) or not (degrees > 0).all():
            raise ValueError(
                f"degrees_of_freedom must be {len(estimator.weights_)} positive number(s); got {degrees_of_freedom!r}"
            )
        estimator.degrees_of_freedom_ = np.broadcast_to(degrees, estimator.weights_.shape).copy()
        return estimator

    # between estimator and model

    def _family(self) -> StudentT:
        return StudentT(
            self.covariance_type,
            self.reg_covar,
            self._prior(),
            degrees_of_freedom=self.degrees_of_freedom,
            first=self.degrees_of_freedom_init,
            bounds=tuple(self.degrees_of_freedom_bounds),
        )

    def _params(self) -> MixtureParams:
        params = super()._params()
        if isinstance(params.components, StudentTParams):
            return params
        degrees = finite_array("degrees_of_freedom_", self._known()["degrees_of_freedom_"], 1)
        if degrees.shape != (len(params.components.means),) or not (degrees > 0).all():
            raise ValueError(
                f"degrees_of_freedom_ must be {len(params.components.means)} positive number(s); got {degrees}"
            )
        means, covariances, roots = params.components
        return MixtureParams(params.weights, StudentTParams(means, covariances, roots, degrees))

    def _check_learned(self) -> None:
        """Raise ValueError if attributes do not fit together; those of a file, for one."""
        n_features = self._params().components.means.shape[1]
        if self.n_features_in_ != n_features:
            raise ValueError(f"means_ has {n_features} columns, but n_features_in_ is {self.n_features_in_}")

    def _attributes(self, params: MixtureParams) -> dict[str, Any]:
        attributes = super()._attributes(params)
        if isinstance(params.components, StudentTParams):  # not while `from_parameters` has but the others
            attributes["degrees_of_freedom_"] = params.components.degrees_of_freedom
        return attributes

    def _of(self, params: MixtureParams, columns: np.ndarray) -> Any:
        """A fitted mixture of the same kind with other parameters, over some of the columns."""
        means, covariances, _, degrees = params.components
        family = Gaussian(self._family().of_columns)
        structure = family.covariance_type
        if family.form == "tied" and covariances.ndim == 3:  # given values, scales differ
            structure = "full"
        elif family.is_constrained and not has_structure(family.letters, covariances):
            structure = family.form
        other = type(self).from_parameters(params.weights, means, covariances, degrees, covariance_type=structure)
        if hasattr(self, "feature_names_in_"):
            other.feature_names_in_ = self.feature_names_in_[columns]
        return other

    def _check_start(self, n_features: int | None = None) -> None:
        super()._check_start(n_features)
        name = "degrees_of_freedom_ of the last fit"
        self._family().check_degrees(name, self.degrees_of_freedom_, self.n_components)

    def _settings(self, model: Mixture) -> dict[str, Any]:
        family = model.family
        degrees = {"degrees_of_freedom": family.degrees_of_freedom, "degrees_of_freedom_bounds": family.bounds}
        return {**degrees, **super()._settings(model)}
