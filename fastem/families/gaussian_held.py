"""Means and covariances of normal components that stay as they are."""

from typing import Any

import numpy as np

from fastem.families.family import Frame
from fastem.families.gaussian_records import GaussianParams, Structure
from fastem.families.held import Freezable, Held, put_values, where


class HeldGaussians(Structure, Freezable):
    """What `Gaussian` does for frozen parameters.

    Given means that stay, the rows' covariances about these are what an M-step takes, whatever their structure:
    S_k + (x_k - mu_k)(x_k - mu_k)'. Covariances that stay move no mean, as the maximum over a mean does not depend on
    its covariance; with a prior neither, since its covariance is a multiple of that.
    """

    held: Held | None
    check_shape: Any
    precisions_cholesky: Any

    @property
    def frozen_fields(self) -> tuple[str, ...]:
        """Fields of the parameters that can be frozen; roots of precisions follow the covariances."""
        return "means", "covariances"

    @property
    def _has_own_covariances(self) -> bool:
        """Whether the covariance of a component has nothing to do with those of others."""
        return self.letters in ("VVV", "VVI", "VII")

    @property
    def _holds_covariances(self) -> bool:
        """Whether covariances that share something are held, all of them."""
        return self.held is not None and "covariances" in self.held.masks and not self._has_own_covariances

    def check_frozen(self, masks: dict[str, np.ndarray]) -> None:
        """Refuse covariances of some components if they share something with the others."""
        mask = masks.get("covariances")
        if mask is not None and not self._has_own_covariances and not mask.all():
            raise ValueError(
                f"frozen['covariances'] must be True for covariance_type={self.covariance_type!r}, where components "
                "share a part of their covariances; or use 'full', 'diag' or 'spherical'"
            )

    def neutral(self, n_components: int, frame: Frame) -> GaussianParams:
        """Return parameters at the centre of a frame, one of its units wide."""
        means = np.tile(frame.center, (n_components, 1))
        variances = 1.0 / frame.scale**2
        shape = self.shape(n_components, len(variances))
        if self._is_matrix:
            variances = np.diag(variances)
        elif len(shape) == 1:
            variances = variances[0]
        covariances = np.broadcast_to(variances, shape).copy()
        return GaussianParams(means, covariances, self.precisions_cholesky(covariances))

    def placed(self, components: GaussianParams, name: str, values: dict[int, Any]) -> GaussianParams:
        """Return the components with given means or covariances in some of them."""
        label = f"frozen[{name!r}]"
        if name == "means":
            means = put_values(label, components.means, values)
            if not np.isfinite(means).all():
                raise ValueError(f"{label} holds NaN or infinity; every entry must be finite")
            return components._replace(means=means)
        if not self._has_own_covariances:
            raise ValueError(
                f"{label} must be True for covariance_type={self.covariance_type!r}; give the values as precisions_init"
            )
        covariances = put_values(label, components.covariances, values)
        self.check_shape(label, covariances, *components.means.shape)
        mask = np.isin(np.arange(len(covariances)), list(values))
        roots = where(mask, self.precisions_cholesky(covariances), components.precisions_cholesky)
        return GaussianParams(components.means, covariances, roots)

    def put(self, components: GaussianParams) -> GaussianParams:
        """Return the components with what is held in its place."""
        if self.held is None:
            return components
        masks, values = self.held
        if "means" in masks:
            components = components._replace(means=where(masks["means"], values.means, components.means))
        if "covariances" not in masks:
            return components
        if not self._has_own_covariances:
            return components._replace(covariances=values.covariances, precisions_cholesky=values.precisions_cholesky)
        return components._replace(
            covariances=where(masks["covariances"], values.covariances, components.covariances),
            precisions_cholesky=where(masks["covariances"], values.precisions_cholesky, components.precisions_cholesky),
        )

    def _with_held(self, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
        """Covariances, those that are held in their place."""
        return HeldGaussians.put(self, GaussianParams(means, covariances, covariances)).covariances

    def known_centers(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers (F,) of the components whose means are held, and these (F, D) in the frame."""
        if self.held is None:
            return np.empty(0, np.int64), np.empty((0, 0))
        means = self.held.values.means
        numbers = np.flatnonzero(self._held_means(len(means)))
        return numbers, ((means - frame.center) * frame.scale)[numbers]

    def frozen_coordinates(self, n_coordinates: int) -> np.ndarray:
        """Which coordinates of `pack`, so many in all, belong to parameters that are held."""
        assert self.held is not None
        n_components, n_features = self.held.values.means.shape
        free = np.zeros(n_components, bool)
        means, covariances = (self.held.masks.get(name, free) for name in ("means", "covariances"))
        n_others = n_coordinates - means.size * n_features
        others = np.repeat(covariances, n_others // n_components) if self._has_own_covariances else covariances.all()
        return np.concatenate([np.repeat(means, n_features), np.broadcast_to(others, n_others)])

    def n_frozen(self, n_features: int) -> int:
        """Number of parameters that are held."""
        if self.held is None:
            return 0
        n_components = len(self.held.values.means)
        total = 0
        for name, mask in self.held.masks.items():
            if name == "means":
                total += int(mask.sum()) * n_features
            else:  # all of them, where they are shared
                covariances = self.n_parameters(n_components, n_features) - n_components * n_features
                total += covariances * int(mask.sum()) // n_components
        return total

    def _held_means(self, n_components: int) -> np.ndarray:
        """Which means (K,) are held."""
        free = np.zeros(n_components, bool)
        return free if self.held is None else self.held.masks.get("means", free)

    def _about_held_means(
        self, counts: np.ndarray, means: np.ndarray, covariances: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means, those that are held in their places, and covariances about these."""
        assert self.held is not None
        held = self._held_means(len(counts))
        gaps = np.where(held[:, None], means - self.held.values.means, 0.0)
        shape = self.shape(*means.shape)
        if len(shape) == 3:
            covariances = covariances + gaps[:, :, None] * gaps[:, None, :]
        elif self._is_matrix:
            covariances = covariances + np.einsum("k,ki,kj->ij", counts / counts.sum(), gaps, gaps)
        else:
            squares = gaps**2 if len(shape) == 2 else (gaps**2).mean(axis=1)
            covariances = covariances + squares
        return where(held, self.held.values.means, means), covariances
