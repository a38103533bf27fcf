"""The M-steps of covariances that share their volume, shape or orientation: the fourteen models of mclust.

    Sigma_k = volume_k D_k A_k D_k',    D_k orthogonal, A_k diagonal with |A_k| = 1

Three letters say whether volume, shape A and orientation D are equal for all components (E), vary (V), or are the
identity (I). Given weights m_k and covariances S_k of rows about their means, an M-step is the minimum of

    F = sum_k m_k (log|Sigma_k| + tr(Sigma_k^-1 S_k))

under the structure (Celeux & Govaert 1995, Pattern Recognition 28, 781-793, where VEV is [lambda_k D_k A D_k'], and so
on; the letters are those of Fraley & Raftery 1998, Computer J. 41, 578-588, table 1). VVV, EEE, VVI and VII are
scikit-learn's full, tied, diag and spherical, whose minima the family has itself. Of the others

    EII, EEI  the mean of the S_k
    EVI, EVV  S_k brought to the same volume, the weighted mean of |S_k|^(1/D)
    EEV       eigenvectors of each S_k, and the mean of their sorted eigenvalues
    VEI, VEE  volume_k C: convex in the logarithms of the volumes, by Newton's method
    VEV       eigenvectors of each S_k, and VEI of their sorted eigenvalues
    EVE, VVE  a common D: descent over rotations, from the D there was, so that F never rises

All but the last three lines are closed forms. The paper alternates between the factors for VEI, VEE and VEV, which ends
at the same minimum after 3 to 9 times as many iterations.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fastem.kernels._jit import one_blas_thread

FORMS = ("full", "tied", "diag", "spherical")  # scikit-learn's names
MODELS = ("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")  # mclust's
UNIVARIATE = ("E", "V")  # mclust's for one column
_LETTERS = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII", "E": "EII", "V": "VII"}
# The form of a model's covariances: how they are stored, and what moments its M-step needs.
_FORM = {
    "EEE": "tied",
    **dict.fromkeys(("EII", "VII"), "spherical"),
    **dict.fromkeys(("EEI", "VEI", "EVI", "VVI"), "diag"),
}

_NEWTON_STEPS, _LONGEST = 100, 4.0  # most, and the longest step in logarithms of volumes
_EXACT, _NEAR = 1e-20, 1e-10  # twice the predicted decrease of F per row at which a Newton step is the last
_HALVINGS = 10  # of a step that leads uphill
_ROTATIONS, _REMEMBERED = 300, 6  # most, and how many a descent looks back on
_TURN = 0.5  # radians, the longest rotation in a plane
_SETTLED = 1e-25  # gain of a step, per row, at which a descent ends: angles of 1e-12
_AS_NEAR_AS_CAN_BE = 1e-31  # the same for what is diagonal but for rounding
_FLAT = 1e-8  # of the largest curvature
_ROUNDING = 4 * np.finfo(np.float64).eps
_ARMIJO = 1e-4
_SINGULAR = 16 * np.finfo(np.float64).eps  # times D, eigenvalues of correlations that are 0
_SAME = 1e-5  # of the standard deviations: numbers that were written down
_TINY = np.finfo(np.float64).tiny
_NOTHING = 1e-150  # of all weights, too little to have a part in what is shared
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)


def letters_of(covariance_type: str) -> str:
    """The three letters of a structure, by any of its names."""
    return _LETTERS.get(covariance_type, covariance_type)


def form_of(covariance_type: str) -> str:
    """Which of 'full', 'tied', 'diag' and 'spherical' the covariances of a structure are stored as."""
    return _FORM.get(letters_of(covariance_type), "full")


def constrained(letters: str, masses: np.ndarray, covariances: np.ndarray, old: np.ndarray | None) -> np.ndarray:
    """Covariances of a structure that minimise F.

    Parameters
    ----------
    letters : str
        A model without a form of its own: neither of VVV, EEE, VVI, VII.
    masses : ndarray of shape (K,)
        Weights m_k, with that of a prior; those of 0 have no part in what is shared.
    covariances : ndarray of shape (K, D, D), (K, D) or (K,)
        S_k, in the form of the structure.
    old : ndarray of the same shape or None
        Covariances of the structure where a descent over rotations begins.

    Raises
    ------
    numpy.linalg.LinAlgError
        If F has no minimum, since a matrix is singular that all components share, or none that is a number.
    """
    if not np.isfinite(covariances).all():
        raise np.linalg.LinAlgError("a covariance overflows")
    unit = _units(letters, covariances)
    square = unit[:, None] * unit if covariances.ndim == 3 else unit**2
    with one_blas_thread(max(covariances.shape) ** 3), np.errstate(over="ignore", invalid="ignore"):
        scaled_old = None if old is None else old / square
        found = square * _constrained(letters, masses, covariances / square, scaled_old)
    if not np.isfinite(found).all():
        raise np.linalg.LinAlgError("a covariance overflows")
    return found


def _units(letters: str, covariances: np.ndarray) -> np.ndarray:
    """Powers of two, (D,) or (1,), in which standard deviations are about 1; for all columns one where it matters."""
    variances = np.einsum("kii->ki", covariances) if covariances.ndim == 3 else covariances
    largest = np.atleast_1d(variances.max(axis=0))
    if letters[2] in "EV" and letters not in ("VEE", "EVV"):
        largest = np.full_like(largest, largest.max())
    return np.exp2(np.floor(0.5 * np.log2(np.where(largest > _TINY, largest, 1.0))))


def _constrained(letters: str, masses: np.ndarray, covariances: np.ndarray, old: np.ndarray | None) -> np.ndarray:
    """The same in units in which nothing overflows."""
    if letters in ("EII", "EEI"):
        return np.broadcast_to(_mean(masses, covariances), covariances.shape).copy()
    if letters in ("VEI", "VEE"):
        volumes, common = _proportional(masses, covariances)
        return volumes.reshape((-1,) + (1,) * common.ndim) * common
    if letters in ("EVI", "EVV"):
        return _of_one_volume(masses, covariances)
    if letters in ("EVE", "VVE"):
        return _of_one_orientation(letters[0] == "E", masses, covariances, old)
    axes, deviations, _ = np.linalg.svd(_roots(covariances))
    variances = np.where(_can_be_told(deviations**2), deviations**2, 0.0)
    if letters == "EEV":
        common = _mean(masses, variances)
        if not (common > 0).all():
            raise np.linalg.LinAlgError("a variance of 0")
        return _assembled(axes, np.broadcast_to(common, variances.shape))
    volumes, shape = _proportional(masses, variances)
    return _assembled(axes, volumes[:, None] * shape)


def _can_be_told(variances: np.ndarray) -> np.ndarray:
    """Which of the variances (K, D) along rotated axes are more than what rounding leaves of the largest."""
    return variances > (_ROUNDING * variances.shape[1]) ** 2 * variances.max(axis=1, keepdims=True)


def has_structure(letters: str, covariances: np.ndarray) -> bool:
    """Whether covariances, or precisions, of positive definite components are of a structure up to 1e-5."""
    try:
        nearest = constrained(letters, np.ones(len(covariances)), covariances, covariances)
    except np.linalg.LinAlgError:
        return False
    unit = covariances
    if covariances.ndim == 3:
        deviations = np.sqrt(np.einsum("kii->ki", covariances))
        unit = deviations[:, :, None] * deviations[:, None, :]
    return bool((np.abs(nearest - covariances) <= _SAME * unit).all())


def leveled(letters: str, logs: np.ndarray) -> np.ndarray:
    """The nearest logarithms of eigenvalues (K, D) that have the volumes and shapes of a structure."""
    volumes = logs.mean(axis=1, keepdims=True)
    shapes = logs - volumes
    if letters[0] == "E":
        volumes = volumes.mean(axis=0, keepdims=True)
    if letters[1] == "E":
        shapes = shapes.mean(axis=0, keepdims=True)
    return np.broadcast_to(volumes + shapes, logs.shape)


def common_axes(logs: np.ndarray) -> np.ndarray:
    """Orthogonal D (D, D) in which symmetric matrices (K, D, D) are as near to diagonal as can be.

    The least sum of squares off the diagonals (Cardoso & Souloumiac 1996, SIAM J. Matrix Anal. 17, 161-164), from the
    eigenvectors of a combination with weights that are in no simple ratio, so that its eigenvalues coincide where all
    do.
    """
    mixed = np.einsum("k,kij->ij", 0.5 + np.arange(1, len(logs) + 1) * _GOLDEN % 1.0, logs)
    size = max(float(np.abs(logs).max()), _TINY)

    def tilted(axes: np.ndarray) -> _Tilt:
        turned = axes.T @ (logs / size) @ axes
        diagonal = np.einsum("kii->ki", turned)
        gaps = diagonal[:, :, None] - diagonal[:, None, :]
        off = turned * (1.0 - np.eye(len(axes)))
        value = 0.5 * float((off**2).sum())
        slope, curvature = np.einsum("kij,kij->ij", off, gaps), np.einsum("kij,kij->ij", gaps, gaps)
        return _Tilt(value, _ROUNDING * (value + math.sqrt(value)), slope, curvature)  # of entries, which are up to 1

    return _descend(tilted, np.linalg.eigh(mixed)[1], _AS_NEAR_AS_CAN_BE)[0]


def _mean(masses: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.einsum("k,k...->...", masses / masses.sum(), values)


def _roots(covariances: np.ndarray) -> np.ndarray:
    """R (K, D, D) with R R' = S, also of singular ones; eigenvalues of S are squares of its singular values.

    What is lost to rounding is small in the units of each column, as the tests for dependent columns expect it.
    """
    try:
        return np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        deviations = np.sqrt(np.einsum("kii->ki", covariances))[:, :, None]
        unit = np.where(deviations > 0, deviations, 1.0)
        values, axes = np.linalg.eigh(covariances / (unit * np.swapaxes(unit, 1, 2)))
        values = np.where(values > _SINGULAR * covariances.shape[1], values, 0.0)
        return deviations * axes * np.sqrt(values)[:, None, :]


def _assembled(axes: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Symmetric matrices (K, D, D) from their axes, (K, D, D) or (D, D), and eigenvalues (K, D)."""
    matrices = (axes * variances[:, None, :]) @ np.swapaxes(axes, -1, -2)
    return 0.5 * (matrices + np.swapaxes(matrices, 1, 2))


def _of_one_volume(masses: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Covariances, or variances of columns, scaled to the weighted mean of the volumes |S_k|^(1/D)."""
    if covariances.ndim == 3:
        signs, log_det = np.linalg.slogdet(covariances)
    else:
        signs = np.where(covariances > 0, 1.0, 0.0).min(axis=1)
        log_det = np.log(np.where(covariances > 0, covariances, 1.0)).sum(axis=1)
    if not (signs > 0).all():
        raise np.linalg.LinAlgError("a singular covariance")
    logs = log_det / covariances.shape[-1]
    top = logs.max()
    volume = top + np.log(_mean(masses, np.exp(logs - top)))
    return np.exp(volume - logs).reshape((-1,) + (1,) * (covariances.ndim - 1)) * covariances


def _proportional(masses: np.ndarray, covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Volumes (K,) and C, (D, D) or the diagonal (D,), of Sigma_k = volume_k C.

    With shares p_k of the weights and l_k the logarithms of the volumes, the best C is T = sum_k p_k exp(-l_k) S_k, so
    that F is log|T| + D sum_k p_k l_k up to a constant and a factor: convex, with gradient D p_k - tr Y_k and Hessian
    [k = j] tr Y_k - tr(Y_k Y_j), where Y_k is p_k exp(-l_k) S_k whitened by T. Adding one constant to all l_k changes
    nothing; Newton's steps have mean 0.
    """
    n_features = covariances.shape[-1]
    sizes = np.einsum("kii->k", covariances) if covariances.ndim == 3 else covariances.sum(axis=1)
    some = (masses > _NOTHING * masses.sum()) & (sizes > 0)
    shares, chosen = masses[some] / masses[some].sum(), covariances[some]
    parts, traces, _ = _shared(shares, chosen)
    if not (traces > 0).all():
        raise np.linalg.LinAlgError("variances of a component that are nothing beside those of others")
    logs = np.log(traces / (n_features * shares))
    parts, traces, log_det = _shared(shares * np.exp(-logs), chosen)
    value = log_det + n_features * float(shares @ logs)
    before = np.inf
    for _ in range(_NEWTON_STEPS):
        gradient = n_features * shares - traces
        flat = parts.reshape(len(parts), -1)
        hessian = np.diag(traces) - np.einsum("ki,ji->kj", flat, flat) + n_features * shares[:, None] * shares
        step = -np.linalg.solve(hessian, gradient)
        slope = float(gradient @ step)
        step *= min(1.0, _LONGEST / max(float(np.abs(step).max()), 1.0))
        for _ in range(_HALVINGS):
            parts, traces, log_det = _shared(shares * np.exp(-logs - step), chosen)
            there = log_det + n_features * float(shares @ (logs + step))
            if there <= value + _ROUNDING * max(1.0, abs(value)):
                break
            step *= 0.5
        else:
            break
        logs, value = logs + step, there
        if -slope < _EXACT or (-slope < _NEAR and slope < 0.1 * before):  # or at the limit of rounding
            break
        before = slope
    common = np.einsum("k,k...->...", shares * np.exp(-logs), chosen)
    if common.ndim == 1:
        return (covariances / common).mean(axis=1), common
    return np.einsum("ij,kij->k", np.linalg.inv(common), covariances) / n_features, common


def _shared(factors: np.ndarray, covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Terms of a sum, (K, D, D) or (K, D), whitened by it, their traces, and the log-determinant of the sum."""
    terms = factors.reshape((-1,) + (1,) * (covariances.ndim - 1)) * covariances
    total = terms.sum(axis=0)
    if total.ndim == 1:
        if not (total > 0).all():
            raise np.linalg.LinAlgError("a variance of 0")
        return terms / total, (terms / total).sum(axis=1), float(np.log(total).sum())
    lower = np.linalg.cholesky(total)
    whitener = np.linalg.inv(lower)
    parts = whitener @ terms @ whitener.T
    return parts, np.einsum("kii->k", parts), 2.0 * float(np.log(np.diagonal(lower)).sum())


def _of_one_orientation(
    is_one_volume: bool, masses: np.ndarray, covariances: np.ndarray, old: np.ndarray | None
) -> np.ndarray:
    """D diag(w_k) D' with the best D, where w_k are the variances of S_k along its columns, of one volume if asked.

    Given D the rest is VVI or EVI. So with shares p_k of the weights F is, up to a constant and a factor, the mean of
    sum_j log w_kj, whose minima are the common principal components of Flury (1984), J. Amer. Statist. Assoc. 79,
    892-898; or D times the logarithm of the mean of the volumes. It has several minima, so D is looked for from where
    it was, and else from the axes of the mean of the S_k and of the heaviest of them.
    """
    some = masses > 0
    shares = masses[some] / masses[some].sum()
    roots = np.swapaxes(_roots(covariances[some]), 1, 2)
    n_features = roots.shape[-1]

    def tilted(axes: np.ndarray) -> _Tilt:
        factors = roots @ axes
        turned = np.swapaxes(factors, 1, 2) @ factors
        variances = np.einsum("kii->ki", turned)
        if not _can_be_told(variances).all():
            raise np.linalg.LinAlgError("a variance of 0")
        logs = np.log(variances)
        pull = shares
        if is_one_volume:
            volumes = logs.mean(axis=1)
            top = volumes.max()
            pull = shares * np.exp(volumes - top)
            value = n_features * (top + np.log(pull.sum()))
            pull = pull / pull.sum()
        else:
            value = shares @ logs.sum(axis=1)
        inverse = 1.0 / variances
        gaps = inverse[:, None, :] - inverse[:, :, None]
        slope = np.einsum("k,kij,kij->ij", pull, turned, gaps)
        spread = variances[:, :, None] - variances[:, None, :]
        rounding = _ROUNDING * n_features * (1.0 + float(np.abs(logs).max()))
        return _Tilt(float(value), rounding, slope, np.einsum("k,kij,kij->ij", pull, spread, gaps))

    if old is not None:
        starts: Sequence[np.ndarray] = [common_axes(log_of(old))]
    else:
        heaviest = covariances[np.argmax(masses)]
        starts = [np.linalg.svd(_roots(matrix[None]))[0][0] for matrix in (_mean(masses, covariances), heaviest)]
    axes, _ = min((_descend(tilted, start, _SETTLED) for start in starts), key=lambda found: found[1].value)
    variances = np.einsum("kji->ki", (np.swapaxes(_roots(covariances), 1, 2) @ axes) ** 2)
    if is_one_volume:
        variances = _of_one_volume(masses, variances)
    return _assembled(axes, variances)


def log_of(covariances: np.ndarray) -> np.ndarray:
    """Matrix logarithms (K, D, D)."""
    axes, deviations, _ = np.linalg.svd(_roots(covariances))
    if not (deviations > 0).all():
        raise np.linalg.LinAlgError("a singular covariance")
    return _assembled(axes, 2.0 * np.log(deviations))


_Known = tuple[np.ndarray, np.ndarray, float]  # a step, the change of the slope, and the reciprocal of their product


class _Tilt(NamedTuple):
    """A function f of an orthogonal D, with f(D exp(S)) about f + sum_i<j (2 slope_ij S_ij + curvature_ij S_ij^2)."""

    value: float
    rounding: float  # that the value may be off
    slope: np.ndarray  # (D, D), skew
    curvature: np.ndarray  # (D, D), symmetric; exact where all matrices are diagonal

    def inverse(self) -> np.ndarray:
        """Reciprocals of the curvatures, bounded."""
        least = max(_FLAT * float(self.curvature.max()), _TINY)
        return 1.0 / np.maximum(self.curvature, least)

    def gain(self) -> float:
        """What f would gain by a step if the curvatures were exact."""
        return 0.5 * float((self.slope**2 * self.inverse()).sum())


def _descend(tilted: Callable[[np.ndarray], _Tilt], axes: np.ndarray, settled: float) -> tuple[np.ndarray, _Tilt]:
    """Descend to a minimum over rotations, never uphill, until a step would gain less than `settled`.

    A quasi-Newton method with limited memory (Nocedal & Wright 2006, Numerical Optimization, algorithm 7.4) in the
    angles of the planes of all pairs of columns. Steps by the curvatures of the pairs alone would be 1.2 to 5 times as
    many; rotations pair by pair (Flury & Gautschi 1986) are a loop over pairs.
    """
    unit = np.eye(len(axes))
    known: deque[_Known] = deque(maxlen=_REMEMBERED)
    at = tilted(axes)
    gain = at.gain()
    for _ in range(_ROTATIONS):
        if gain < settled:
            break
        step = -_newton(at.slope, at.inverse(), known)
        if (at.slope * step).sum() >= 0:
            known.clear()
            step = -at.slope * at.inverse()
        step *= min(1.0, _TURN / float(np.abs(step).max()))
        is_better = False
        for _ in range(_HALVINGS):
            turned = axes @ np.linalg.solve(unit - 0.5 * step, unit + 0.5 * step)  # Cayley's map, for the exponential
            there = tilted(turned)
            if abs(there.value - at.value) <= at.rounding:  # only the slope still tells
                is_better = there.gain() < 0.5 * gain
                break
            is_better = there.value <= at.value + _ARMIJO * float((at.slope * step).sum())
            if is_better:
                break
            step = 0.5 * step
        if is_better:
            change = there.slope - at.slope
            curvature = float((step * change).sum())
            if curvature > 0:
                known.append((step, change, 1.0 / curvature))
            axes, at, gain = turned, there, there.gain()
        elif known:
            known.clear()
        else:
            break
    return axes, at


def _newton(
    slope: np.ndarray, inverse: np.ndarray, known: Sequence[tuple[np.ndarray, np.ndarray, float]]
) -> np.ndarray:
    """The slope times the inverse Hessian that the known steps and changes of slope tell."""
    shares = []
    for step, change, factor in reversed(known):
        shares.append(factor * float((step * slope).sum()))
        slope = slope - shares[-1] * change
    direction = inverse * slope
    for (step, change, factor), share in zip(known, reversed(shares), strict=True):
        direction = direction + (share - factor * float((change * direction).sum())) * step
    return direction
