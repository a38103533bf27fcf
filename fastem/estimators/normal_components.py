"""What estimators of normal components share, be these a mixture's, the states' of a chain, or one alone."""

from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from fastem.families.gaussian import COVARIANCE_TYPES, Gaussian
from fastem.families.normal_inverse_wishart import NormalInverseWishart


class NormalComponents:
    """The family that the constructor parameters describe, and how a stream knows it again; before the base class."""

    _normal_constraints: ClassVar[dict[str, list[Any]]] = {
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "mean_prior": ["array-like", None],
        "mean_precision_prior": [None, Interval(Real, 0.0, None, closed="left")],
        "degrees_of_freedom_prior": [None, Interval(Real, 0.0, None, closed="neither")],
        "covariance_prior": [None, StrOptions({"auto"}), "array-like", Interval(Real, 0.0, None, closed="neither")],
    }
    covariance_type: Any
    reg_covar: Any
    mean_prior: Any
    mean_precision_prior: Any
    degrees_of_freedom_prior: Any
    covariance_prior: Any

    def _prior(self) -> NormalInverseWishart | None:
        freedom, scale = self.degrees_of_freedom_prior, self.covariance_prior
        mean, precision = self.mean_prior, self.mean_precision_prior
        if freedom is not None and scale is None:
            raise ValueError("degrees_of_freedom_prior needs covariance_prior; without one it has no effect")
        if mean is not None and scale is None and precision is None:
            raise ValueError("mean_prior needs mean_precision_prior; without one it has no effect")
        if scale is None and precision is None:
            return None
        if scale is None:
            scale = 0.0
        precision = 0.01 if precision is None else precision
        return NormalInverseWishart(mean, precision, freedom, None if isinstance(scale, str) else scale)

    def _family(self) -> Gaussian:
        return Gaussian(self.covariance_type, self.reg_covar, self._prior())

    def _is_family(self, family: Any) -> bool:
        """Whether a stream's family is what this estimator has."""
        if type(family) is not type(self._family()):
            return False
        return family.covariance_type == self.covariance_type and family.reg_covar == self.reg_covar

    def _settings(self, model: Any) -> dict[str, Any]:
        """What must stay as it is while a stream goes on."""
        return {
            "covariance_type": model.family.covariance_type,
            "reg_covar": model.family.reg_covar,
            **super()._settings(model),  # type: ignore[misc]
        }
