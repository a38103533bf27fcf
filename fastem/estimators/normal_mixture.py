"""Mixtures whose components have means and covariances: what their estimators share."""

from typing import Any, ClassVar

import numpy as np

from fastem.data import as_numbers, finite_array
from fastem.estimators.base import MixtureEstimator
from fastem.estimators.conditionals import Conditionals
from fastem.estimators.normal_components import NormalComponents
from fastem.families.covariance_structures import form_of
from fastem.families.gaussian import Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.models.mixture import Mixture, check_weights
from fastem.models.mixture_records import MixtureParams


class NormalMixture(NormalComponents, Conditionals, MixtureEstimator):
    """Parameters and attributes of `GaussianMixture`."""

    _LEARNED: ClassVar[tuple[str, ...]] = (
        *("weights_", "means_", "covariances_", "precisions_cholesky_", "precisions_"),
        "noise_weight_",
    )
    _start_parts = ("weights_init", "means_init", "precisions_init")
    _parameter_constraints: ClassVar[dict] = {
        **MixtureEstimator._parameter_constraints,
        **MixtureEstimator._constraints,
        **NormalComponents._normal_constraints,
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
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
        frozen=None,
        noise=False,
        noise_volume=None,
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
        self.frozen = frozen
        self.noise = noise
        self.noise_volume = noise_volume

    @classmethod
    def from_parameters(cls, weights, means, covariances=None, *, precisions=None, **params):
        """Build a fitted mixture from known parameters.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
            Positive or zero, summing to 1. With `noise`, which then needs `noise_volume`, it has what they lack of 1.
        means : array-like of shape (n_components, n_features)
        covariances, precisions : array-like
            Exactly one of them, of the shape of `covariances_` for the covariance_type.
        **params
            Constructor parameters, such as covariance_type.

        Returns
        -------
        estimator of this class

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
        if estimator.noise:
            if estimator.noise_volume is None:
                raise ValueError("noise_volume follows from rows, and there are none; give it")
            weights = estimator._with_rest(weights, "weights")
        weights = check_weights("weights", weights, len(means) + bool(estimator.noise))
        if (covariances is None) == (precisions is None):
            raise ValueError("give exactly one of covariances and precisions")
        if precisions is not None:
            components = family.from_precisions(means, family.check_shape("precisions", precisions, *means.shape))
        else:
            covariances = family.check_shape("covariances", covariances, *means.shape)
            components = GaussianParams(means, covariances, family.precisions_cholesky(covariances))
        estimator._set_known(MixtureParams(weights, components), means.shape[1])
        estimator.noise_volume_ = float(estimator.noise_volume) if estimator.noise else None
        estimator.noise_box_ = None
        return estimator

    # between estimator and model

    def _model(self) -> Mixture:
        """The model that the constructor parameters describe."""
        return self._mixture(self._family(), means_init=self.means_init, precisions_init=self.precisions_init)

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
        if self._known_noise()[0] is not None:
            weights = np.append(weights, known["noise_weight_"])
        return MixtureParams(weights, components)

    def _attributes(self, params: MixtureParams) -> dict[str, Any]:
        means, covariances, roots = params.components[:3]
        is_matrix = form_of(self.covariance_type) in ("full", "tied")
        precisions = roots @ np.swapaxes(roots, -1, -2) if is_matrix else roots**2
        return {
            "weights_": params.weights[: len(means)],
            "means_": means,
            "covariances_": covariances,
            "precisions_cholesky_": roots,
            "precisions_": precisions,
            "noise_weight_": float(params.weights[len(means) :].sum()),
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
