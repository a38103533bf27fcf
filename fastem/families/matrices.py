"""Positive definite matrices: tests and factors, for stacks of small ones."""

import numpy as np

from fastem.kernels.double_double import whitener_of


def is_positive_definite(matrices: np.ndarray) -> bool:
    """Whether a matrix (D, D), or each of a stack, is symmetric to 1e-5 of the deviations and has a Cholesky factor."""
    unit = np.sqrt(np.abs(np.diagonal(matrices, axis1=-2, axis2=-1)))
    if not (np.abs(matrices - np.swapaxes(matrices, -1, -2)) <= 1e-5 * unit[..., None] * unit[..., None, :]).all():
        return False
    try:
        np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        return False
    return True


def first_singular(stack: np.ndarray, smallest: np.ndarray) -> np.ndarray:
    """Component and column of the first pivot that is not larger than `smallest`."""
    smallest = np.broadcast_to(smallest, stack.shape[:2])
    for k, matrix in enumerate(stack):
        for column in range(len(matrix)):
            try:
                pivot = np.linalg.cholesky(matrix[: column + 1, : column + 1])[-1, -1]
            except np.linalg.LinAlgError:
                return np.array([k, column])
            if not pivot > smallest[k, column]:
                return np.array([k, column])
    return np.array([0])


def double_double_whiteners(covariances: np.ndarray) -> np.ndarray | None:
    """(K, 2 D, D) high and low parts of the inverse Cholesky factors, or None if one is not positive definite."""
    stack = np.ascontiguousarray(covariances if covariances.ndim == 3 else covariances[None])
    n_components, n_features, _ = stack.shape
    doubled = np.zeros((n_components, 2 * n_features, n_features))
    lower = np.zeros((2, n_features, n_features))
    for covariance, out in zip(stack, doubled, strict=True):
        if not whitener_of(covariance, lower, out):
            return None
    return doubled


def apply(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Matrix times vector along the leading axes."""
    return (matrices @ vectors[..., None])[..., 0]
