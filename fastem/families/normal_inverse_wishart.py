"""The conjugate prior of normal means and covariances, in the shape of each covariance structure."""

import math
from typing import Any, NamedTuple

import numpy as np

from fastem.data import as_numbers
from fastem.families.matrices import is_positive_definite


class NormalInverseWishart(NamedTuple):
    """Conjugate prior of means and covariances (Fraley & Raftery 2007, J. Classification 24, section 3).

    mu_k | Sigma_k ~ N(mean, Sigma_k / mean_precision) and Sigma_k ~ inverse Wishart(degrees_of_freedom, scale);
    for diag and spherical the variances are inverse gamma(degrees_of_freedom / 2, scale / 2).

    Attributes
    ----------
    mean : array-like of shape (D,), default=None
        None: the mean of the data.
    mean_precision : float, default=0.01
        0: no prior on the means.
    degrees_of_freedom : float, default=None
        None: D + 2.
    scale : array-like, default=None
        (D, D) for full and tied, (D,) for diag, float for spherical. None: the covariance of the data / K^(2/D).
        0: no prior on the covariances.
    """

    mean: Any = None
    mean_precision: float = 0.01
    degrees_of_freedom: float | None = None
    scale: Any = None

    def resolve(
        self, covariance_type: str, mean: np.ndarray, covariance: np.ndarray, n_components: int
    ) -> "ResolvedPrior":
        """Fill what is open from the mean (D,) and covariance (D, D) of the data, and check what is given."""
        n_features = mean.size
        center = mean if self.mean is None else np.array(as_numbers("mean_prior", self.mean), float)
        freedom = n_features + 2.0 if self.degrees_of_freedom is None else float(self.degrees_of_freedom)
        spread = covariance / n_components ** (2.0 / n_features)
        defaults = {"diag": np.diag(spread), "spherical": np.trace(spread) / n_features}
        scale = np.asarray(defaults.get(covariance_type, spread))
        if self.scale is not None:
            scale = np.array(as_numbers("covariance_prior", self.scale), float)
            if scale.ndim and not scale.any():
                raise ValueError("covariance_prior is zero everywhere; it must be positive definite")
        if scale.ndim == 0 and covariance_type == "diag":
            scale = np.full(n_features, float(scale))
        if self.scale is None and not np.diagonal(spread).all():
            column = int(np.flatnonzero(np.diagonal(spread) == 0)[0])
            raise ValueError(
                f"covariance_prior='auto' takes its scale from the data, but column {column} of X is constant; drop it "
                "or give a scale"
            )
        prior = ResolvedPrior(center, float(self.mean_precision), freedom, scale)
        prior.check(covariance_type, n_features)
        return prior


class ResolvedPrior(NamedTuple):
    """A NormalInverseWishart with every number in place."""

    mean: np.ndarray
    mean_precision: float
    degrees_of_freedom: float
    scale: np.ndarray

    @property
    def has_scale(self) -> bool:
        """Whether the covariances have a prior."""
        return bool(np.any(self.scale != 0))

    def check(self, covariance_type: str, n_features: int) -> None:
        """Refuse numbers that make no density."""
        mean, mean_precision, freedom, scale = self
        if not (mean_precision >= 0 and math.isfinite(mean_precision)):
            raise ValueError(f"mean_precision_prior must be finite and not negative; got {mean_precision}")
        if mean.shape != (n_features,) or not np.isfinite(mean).all():
            raise ValueError(f"mean_prior must hold {n_features} finite numbers; got shape {mean.shape}")
        if not self.has_scale:
            return
        shape = {"diag": (n_features,), "spherical": ()}.get(covariance_type, (n_features, n_features))
        if scale.shape != shape or not np.isfinite(scale).all():
            raise ValueError(
                f"covariance_prior must be finite, of shape {shape} for {covariance_type!r}; got {scale.shape}"
            )
        if not is_positive_definite(scale if scale.ndim == 2 else np.diag(np.atleast_1d(scale))):
            raise ValueError("covariance_prior must be symmetric positive definite")
        if not (freedom > 0 and math.isfinite(freedom)):
            raise ValueError(f"degrees_of_freedom_prior must be a positive finite number; got {freedom}")

    def exponent(self, covariance_type: str, n_features: int) -> float:
        """What the prior of a covariance adds to the weight of its rows: nu + D + 1, or nu + 2 for variances."""
        if not self.has_scale:
            return 0.0
        return self.degrees_of_freedom + (n_features + 1 if covariance_type in ("full", "tied") else 2)

    def log_density(self, covariance_type: str, means: np.ndarray, log_det: np.ndarray, whiteners: np.ndarray) -> float:
        """Log-density up to a constant, from log|precision| (K,) and the whiteners (K, D, D) or (K, D)."""
        total = 0.0
        n_features = means.shape[1]
        if self.mean_precision > 0:
            gap = means - self.mean
            y = (whiteners @ gap[:, :, None])[:, :, 0] if whiteners.ndim == 3 else whiteners * gap
            total += 0.5 * float((log_det - self.mean_precision * (y**2).sum(axis=1)).sum())
        if not self.has_scale:
            return total
        if covariance_type == "tied":
            log_det, whiteners = log_det[:1], whiteners[:1]
        if covariance_type == "spherical":
            log_det, whiteners = log_det / n_features, whiteners[:, :1]
        if whiteners.ndim == 3:
            trace = float((whiteners * (whiteners @ self.scale)).sum())
        else:
            trace = float((self.scale * whiteners * whiteners).sum())  # the square alone may overflow
        return total + 0.5 * (self.exponent(covariance_type, n_features) * float(log_det.sum()) - trace)


NO_PRIOR = ResolvedPrior(np.zeros(1), 0.0, 0.0, np.zeros(()))
