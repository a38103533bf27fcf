"""Parameters and statistics of hidden Markov models, and what is said of the chain alone."""

from typing import Any, NamedTuple

import numpy as np

_TINY = np.finfo(np.float64).tiny


class HiddenMarkovParams(NamedTuple):
    """Parameters of a chain of K states, each of which emits rows from M components of a family.

    Attributes
    ----------
    startprob : ndarray of shape (K,)
        Probabilities of the first state of a sequence.
    transmat : ndarray of shape (K, K)
        Probabilities of the next state, a row for each state.
    weights : ndarray of shape (K, M)
        Of the components of each state.
    components : NamedTuple
        Parameters of the family, for K M components: those of the first state come first.
    """

    startprob: np.ndarray
    transmat: np.ndarray
    weights: np.ndarray
    components: Any


class HiddenMarkovStats(NamedTuple):
    """Additive statistics of sequences under some parameters.

    Attributes
    ----------
    weight : float
        Total weight of the rows that are not missing.
    log_likelihood : float
        Of the parameters that went in.
    starts : ndarray of shape (K,)
        Expected number of sequences that begin in each state.
    transitions : ndarray of shape (K, K)
        Expected number of transitions.
    sums : ndarray of shape (K M, P)
        Expected statistics of the components, in the order of the encoding of those parameters.
    scatter : ndarray of shape (D, D) or (0, 0)
        Second moment of all rows in the frame, where the family's features lack it (tied covariances).
    """

    weight: float
    log_likelihood: float
    starts: np.ndarray
    transitions: np.ndarray
    sums: np.ndarray
    scatter: np.ndarray


class ChainMoments(NamedTuple):
    """Statistics per unit of weight, which do not depend on the parameters they were found under."""

    starts: np.ndarray  # (K,)
    transitions: np.ndarray  # (K, K)
    moments: Any  # of the family


def mode(counts: np.ndarray, extra: np.ndarray | float, old: np.ndarray) -> np.ndarray:
    """Mode of probabilities (..., n) given counts and a Dirichlet prior of parameters 1 + extra; old if both are 0."""
    raised = counts + extra
    total = raised.sum(axis=-1, keepdims=True)
    return np.where(total > _TINY, raised / np.maximum(total, _TINY), old)


def log_dirichlet(extra: np.ndarray, probabilities: np.ndarray) -> float:
    """Log-density, up to a constant, of a Dirichlet prior of parameters 1 + extra."""
    held = extra > 0
    with np.errstate(divide="ignore"):
        return float((extra[held] * np.log(probabilities[held])).sum())


def expected_log(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Sum of counts * log(probabilities), where 0 log 0 is 0."""
    some = counts > 0
    with np.errstate(divide="ignore"):
        return float((counts[some] * np.log(probabilities[some])).sum())


def pack_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Coordinates of probabilities (..., n): any vector z stands for z**2 / sum(z**2).

    So a probability may be 0, where it stays, and leaps past 0 come back; logarithms would be infinite.
    """
    return np.sqrt(probabilities).ravel()


def unpack_probabilities(coordinates: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities at these coordinates; NaN where all are 0."""
    squares = coordinates.reshape(shape) ** 2
    with np.errstate(invalid="ignore"):
        return squares / squares.sum(axis=-1, keepdims=True)


def score_probabilities(counts: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Gradient of sum(counts log p) in the coordinates of `pack_probabilities`: 2 (n / z - z sum(n))."""
    roots = np.sqrt(probabilities)
    ratio = np.divide(counts, roots, out=np.zeros_like(roots), where=roots > 0)
    return (2.0 * (ratio - roots * counts.sum(axis=-1, keepdims=True))).ravel()


def occupancy(startprob: np.ndarray, transmat: np.ndarray, n_rows: float) -> np.ndarray:
    """Mean probability (K,) of each state over the first n_rows rows of a sequence.

    By doubling: the sum of the first 2 n powers of the matrix is (I + A^n) times that of the first n.
    """
    total, now, power = np.zeros_like(startprob), startprob, transmat
    sums = np.eye(len(startprob))
    left = max(1, int(n_rows))
    while left:
        if left & 1:
            total = total + now @ sums
            now = now @ power
        left >>= 1
        if left:
            sums = sums + sums @ power
            power = power @ power
            power = power / power.sum(axis=1, keepdims=True)
    return total / total.sum()


def stationary(transmat: np.ndarray) -> np.ndarray:
    """Stationary distribution (K,) of a chain, pi = pi A.

    By the algorithm of Grassmann, Taksar & Heyman (1985), Operations Research 33, 1107-1116, which subtracts nothing.

    Raises
    ------
    ValueError
        If there are several: states that never reach each other.
    """
    n_states = len(transmat)
    reach = ((transmat > 0) | np.eye(n_states, dtype=bool)).astype(np.float64)
    for _ in range(n_states.bit_length()):
        reach = (reach @ reach > 0).astype(np.float64)
    recurrent = (reach <= reach.T).all(axis=1)  # is reached from all that it reaches
    if not reach[np.ix_(recurrent, recurrent)].all():
        raise ValueError("the chain has several stationary distributions: some of its states never reach each other")
    kept = np.flatnonzero(recurrent)
    matrix = transmat[np.ix_(kept, kept)].astype(np.float64)
    for k in range(len(kept) - 1, 0, -1):
        matrix[:k, k] /= matrix[k, :k].sum()
        matrix[:k, :k] += matrix[:k, k : k + 1] * matrix[k : k + 1, :k]
    weights = np.ones(len(kept))
    for k in range(1, len(kept)):
        weights[k] = weights[:k] @ matrix[:k, k]
    found = np.zeros(n_states)
    found[kept] = weights / weights.sum()
    return found
