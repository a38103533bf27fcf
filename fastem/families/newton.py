"""Many small maximisations at once, by Newton's method with differences: M-steps that have no closed form."""

from collections.abc import Callable

import numpy as np

_STEP = 1e-3  # of central differences, of fourth order for slopes: errors of about 1e-12
_ITERATIONS, _HALVINGS, _REFINEMENTS = 100, 60, 3
_LONGEST = 2.0  # step of coordinates that are bounded, which are logarithms and logits
_FLAT = 1e-8  # of the largest curvature of a problem, below which its other directions are taken to be so curved
_SETTLED = 1e-20  # predicted gain, as part of the value, at which a problem is solved
# Predicted gain, as part of the value, of steps that may lower it by its rounding: slopes know better then.
_BLIND, _ROUNDING = 1e-9, 4 * np.finfo(np.float64).eps
_TINY = np.finfo(np.float64).tiny

Value = Callable[[np.ndarray], np.ndarray]


def maximize_each(value: Value, start: np.ndarray, free: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Where each of many functions of a few coordinates has a maximum, uphill from a start.

    Parameters
    ----------
    value : callable
        Coordinates (..., F) to values (...): each is a function of its own coordinates alone, and may be NaN or -inf
        where these are impossible.
    start : ndarray of shape (..., F)
    free : ndarray of bool that broadcasts to this shape
        Which coordinates may move.
    far : ndarray of shape (F,)
        Coordinates end within this distance of 0; inf for those that may be of any size.

    Returns
    -------
    ndarray of shape (..., F)
        No value is lower than at the start, but for rounding.
    """
    free = np.broadcast_to(free, start.shape)
    at = np.where(free, np.clip(start, -far, far), start)
    longest = np.where(np.isfinite(far), _LONGEST, np.inf)
    with np.errstate(all="ignore"):
        best = value(at)
        steps = _steps(value, at, best, far)
        is_open = np.isfinite(best)
        for _ in range(_ITERATIONS):
            step, gain = _newton(*_derivatives(value, at, best, steps), free)
            step *= np.minimum(1.0, (longest / np.maximum(np.abs(step), _TINY)).min(axis=-1))[..., None]
            size = 1.0 + np.abs(best)
            is_open &= gain > _SETTLED * size
            if not is_open.any():
                break
            enough = best - np.where(gain < _BLIND * size, _ROUNDING * size, 0.0)
            waits = is_open.copy()
            for _ in range(_HALVINGS):
                trial = np.where(free, np.clip(at + np.where(waits[..., None], step, 0.0), -far, far), at)
                there = value(trial)
                better = waits & (there >= enough)
                at, best = np.where(better[..., None], trial, at), np.where(better, there, best)
                waits &= ~better
                if not waits.any():
                    break
                step *= 0.5
            is_open &= ~waits  # what no step raises is at the limit of rounding
    return at


def _newton(slopes: np.ndarray, curvatures: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps (..., F) uphill and the gain (...) that they promise, twice; what is not free has none."""
    slopes = np.where(free, slopes, 0.0)
    unit = 1.0 / np.sqrt(np.maximum(np.abs(np.einsum("...ii->...i", curvatures)), _TINY))  # scales may differ widely
    scaled = -curvatures * unit[..., :, None] * unit[..., None, :]
    usable = np.isfinite(scaled).all(axis=(-1, -2), keepdims=True) & free[..., :, None] & free[..., None, :]
    sizes, axes = np.linalg.eigh(np.where(usable, scaled, np.eye(free.shape[-1])))
    sizes = np.maximum(np.abs(sizes), _FLAT * np.abs(sizes).max(axis=-1, keepdims=True))
    along = np.einsum("...ij,...i->...j", axes, slopes * unit) / np.maximum(sizes, _TINY)
    step = unit * np.einsum("...ij,...j->...i", axes, along)
    return step, (step * slopes).sum(axis=-1)


def _steps(value: Value, at: np.ndarray, best: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Steps (..., F) of the differences: those of coordinates of any size follow from the curvature."""
    steps = np.full(at.shape, _STEP)
    for i in np.flatnonzero(~np.isfinite(far)):
        unit = np.eye(at.shape[-1])[i]
        for _ in range(_REFINEMENTS):
            h = steps[..., i]
            up, down = (value(at + sign * h[..., None] * unit) for sign in (1.0, -1.0))
            curvature = np.abs(up - 2.0 * best + down) / h**2
            wanted = _STEP / np.sqrt(np.maximum(curvature, _TINY))
            steps[..., i] = np.where(np.isfinite(wanted), np.minimum(wanted, 1.0 + np.abs(at[..., i])), h / 16)
    return steps


def _derivatives(value: Value, at: np.ndarray, best: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (..., F) and Hessians (..., F, F)."""
    n = at.shape[-1]
    slopes, curvatures = np.empty(at.shape), np.empty((*at.shape, n))
    units = [np.where(np.arange(n) == i, steps, 0.0) for i in range(n)]
    for i, unit in enumerate(units):
        h = steps[..., i]
        up, down = value(at + unit), value(at - unit)
        slopes[..., i] = (8.0 * (up - down) - (value(at + 2 * unit) - value(at - 2 * unit))) / (12.0 * h)
        curvatures[..., i, i] = (up - 2.0 * best + down) / h**2
        for j, other in enumerate(units[:i]):
            mixed = value(at + unit + other) - value(at + unit - other) - value(at - unit + other)
            mixed = (mixed + value(at - unit - other)) / (4.0 * h * steps[..., j])
            curvatures[..., i, j] = curvatures[..., j, i] = mixed
    return slopes, curvatures
