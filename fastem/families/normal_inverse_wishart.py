"""The conjugate prior of normal means and covariances, in the shape of each covariance structure."""

import math
from typing import Any, NamedTuple

import numpy as np

from fastem.data import as_numbers
from fastem.families.matrices import is_positive_definite


class NormalInverseWishart(NamedTuple):
    """Conjugate prior of means and covariances (Fraley & Raftery 2007, J. Classification 24, section 3).

    mu_k | Sigma_k ~ N(mean, Sigma_k / mean_precision) and Sigma_k ~ inverse Wishart(degrees_of_freedom, scale);
    for diag and spherical the variances are inverse gamma(degrees_of_freedom / 2, scale / 2). For mclust's other
    structures see `ResolvedPrior.strength`; their scale has the shape of the form that they are stored in.

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

    def strength(self, letters: str, form: str, n_components: int, n_features: int) -> tuple[float, float]:
        """Rows that the prior adds to the weight of each component's covariance, and part of its scale for each.

        The density is a power of |Sigma_k| and an exponential of tr(scale Sigma_k^-1). The power is nu + D + 1, or
        nu + 2 for variances, and one more from the prior of the mean. A covariance that all components have has one
        prior. Where only parts are common there is no conjugate prior; mclust has its own powers for VEI, EVI, EEV and
        VEV, which are taken as they are (they follow from its maxima), and for the others, which it refuses under a
        prior, each covariance has its inverse Wishart.
        """
        added = float(self.mean_precision > 0)
        if not self.has_scale:
            return added, 0.0
        power = self.degrees_of_freedom + (n_features + 1 if form in ("full", "tied") else 2)
        if letters in ("EEE", "EEI", "EII"):
            per_row = n_features if form == "spherical" else 1
            return added + power / (n_components * per_row), 1.0 / n_components
        as_mclust = {
            "VEI": (power + added) / n_features,
            "EVI": power / n_components,
            "EEV": (power + added) / n_components,
            "VEV": 0.0,
        }
        return as_mclust.get(letters, added + (power / n_features if form == "spherical" else power)), 1.0

    def log_density(
        self, letters: str, form: str, means: np.ndarray, log_det: np.ndarray, whiteners: np.ndarray
    ) -> float:
        """Log-density up to a constant, from log|precision| (K,) and the whiteners (K, D, D) or (K, D)."""
        rows, share = self.strength(letters, form, *means.shape)
        total = rows * float(log_det.sum())
        if self.mean_precision > 0:
            gap = means - self.mean
            y = (whiteners @ gap[:, :, None])[:, :, 0] if whiteners.ndim == 3 else whiteners * gap
            total -= self.mean_precision * float((y**2).sum())
        if form == "spherical":
            whiteners = whiteners[:, :1]
        if whiteners.ndim == 3:
            trace = float((whiteners * (whiteners @ self.scale)).sum()) if self.has_scale else 0.0
        else:
            trace = float((self.scale * whiteners * whiteners).sum())  # the square alone may overflow
        return 0.5 * (total - share * trace)


NO_PRIOR = ResolvedPrior(np.zeros(1), 0.0, 0.0, np.zeros(()))
