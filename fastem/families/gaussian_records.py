"""What is known of normal components: parameters, moments, and what covariances have in common."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastem.families.covariance_structures import form_of, letters_of


class GaussianParams(NamedTuple):
    """Parameters of K normal components, in the units of the data.

    Attributes
    ----------
    means : ndarray of shape (K, D)
    covariances : ndarray of shape (K, D, D) full, (D, D) tied, (K, D) diag or (K,) spherical form
    precisions_cholesky : ndarray of the same shape
        Upper triangular U with U U' the precision (full, tied), or reciprocal standard deviations.
    """

    means: np.ndarray
    covariances: np.ndarray
    precisions_cholesky: np.ndarray


class Moments(NamedTuple):
    """Weight, mean and covariance about the mean of each component, in the units of the data."""

    counts: np.ndarray  # (K,)
    means: np.ndarray  # (K, D)
    covariances: np.ndarray  # (K, D, D) full, (D, D) tied: pooled, (K, D) diag, (K,) spherical: mean over columns


class Structure:
    """What the covariances of K components have in common, and the form in which they are stored."""

    covariance_type: str

    @cached_property
    def form(self) -> str:
        """'full', 'tied', 'diag' or 'spherical'."""
        return form_of(self.covariance_type)

    @cached_property
    def letters(self) -> str:
        """Whether volume, shape and orientation are equal (E), vary (V), or are the identity (I)."""
        return letters_of(self.covariance_type)

    @cached_property
    def is_constrained(self) -> bool:
        """Whether covariances of the form need not have the structure."""
        return self.letters not in ("VVV", "EEE", "VVI", "VII")

    @cached_property
    def is_common(self) -> bool:
        """Whether all components have one covariance."""
        return self.letters in ("EEE", "EEI", "EII")

    @cached_property
    def _is_matrix(self) -> bool:
        return self.form in ("full", "tied")

    @property
    def of_columns(self) -> str:
        """Structure that some of the columns have, alone or given others."""
        lost = self.letters in ("EVI", "EVE", "VVE", "EEV", "VEV", "EVV")
        return self.form if lost else self.covariance_type

    def check_columns(self, n_features: int) -> None:
        """Refuse a number of columns that the structure is not for."""
        if self.covariance_type in ("E", "V") and n_features != 1:
            raise ValueError(
                f"covariance_type={self.covariance_type!r} is for one column; for {n_features} columns take "
                f"{self.letters!r}, or another of mclust's names of three letters"
            )

    @property
    def has_independent_columns(self) -> bool:
        """Whether a column says nothing of the others within a component."""
        return not self._is_matrix

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Shape of covariances, precisions and their roots."""
        self.check_columns(n_features)
        return {
            "full": (n_components, n_features, n_features),
            "tied": (n_features, n_features),
            "diag": (n_components, n_features),
            "spherical": (n_components,),
        }[self.form]
