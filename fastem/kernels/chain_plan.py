"""How a chain and its sequences come to the kernels: padded, and dealt out to lanes in stretches and pieces."""

from typing import NamedTuple

import numpy as np

from fastem.kernels._jit import from_python, kernel
from fastem.kernels.forward_backward import padded_states

_MAX_LANES, _MIN_LANES = 64, 8
_LANE_BYTES = 2**24  # of all lanes' sums together, if that leaves _MIN_LANES
_PIECE_BYTES = 2**25  # of a lane's likelihoods and forward probabilities
FLOOR = 1e-300  # of a likelihood that is not 0, so that it is not taken for impossible


class Chain(NamedTuple):
    """A Markov chain as a sweep takes it, padded to `padded_states` columns with zeros.

    Attributes
    ----------
    start : ndarray of shape (Kp,)
        Probabilities of the first state.
    matrix, turned : ndarray of shape (Kp, Kp)
        Transition probabilities, from rows to columns, and transposed.
    log_start, log_matrix : ndarray of shape (K,), (K, K)
    owner : ndarray of shape (n_components,), int64
        State that each row of theta emits from.
    """

    start: np.ndarray
    matrix: np.ndarray
    turned: np.ndarray
    log_start: np.ndarray
    log_matrix: np.ndarray
    owner: np.ndarray


def new_chain(start, matrix, owner):
    """The chain of probabilities start (K,) and matrix (K, K)."""
    n_states = len(start)
    width = int(padded_states(n_states))
    wide_start, wide = np.zeros(width), np.zeros((width, width))
    wide_start[:n_states], wide[:n_states, :n_states] = start, matrix
    with np.errstate(divide="ignore"):
        logs = np.log(start), np.log(matrix)
    return Chain(wide_start, wide, np.ascontiguousarray(wide.T), *logs, np.ascontiguousarray(owner, dtype=np.int64))


class Plan(NamedTuple):
    """How sequences are dealt out, a function of their lengths and the shape of the model alone.

    Attributes
    ----------
    offsets : ndarray of shape (S + 1,), int64
        First row of each sequence, and the number of rows.
    weight : ndarray of shape (S,)
        Of each sequence.
    stretches : ndarray of shape (n, 2), int64
        First and last sequence of each, the last not included; those of weight 0 are in none.
    lanes : ndarray of shape (n_lanes + 1,), int64
        First stretch of each lane, and their number.
    capacity : int
        Rows that a lane keeps at once: a multiple of the block.
    """

    offsets: np.ndarray
    weight: np.ndarray
    stretches: np.ndarray
    lanes: np.ndarray
    capacity: int


@from_python
@kernel
def _cut(offsets, weight, most, out):
    """Write stretches of at most so many rows, or of one sequence; return how many."""
    n, s = 0, 0
    n_sequences = weight.shape[0]
    while s < n_sequences:
        first = s
        while s < n_sequences and weight[s] > 0.0 and (s == first or offsets[s + 1] - offsets[first] <= most):
            s += 1
        if s == first:
            s += 1
            continue
        out[n, 0], out[n, 1] = first, s
        n += 1
    return n


def new_plan(offsets, weight, width, n_columns, lane_bytes, piece_rows=None):
    """Plan for sequences of these weights (S,), with so many bytes of sums in a lane.

    width is the number of rows of a block, n_columns that of padded states.
    """
    stretches = np.empty((len(weight), 2), np.int64)
    n = _cut(offsets, weight, width, stretches)
    stretches = stretches[:n].copy()
    sizes = offsets[stretches[:, 1]] - offsets[stretches[:, 0]]
    n_rows = np.cumsum(sizes)
    n_lanes = min(n, max(_MIN_LANES, min(_MAX_LANES, _LANE_BYTES // lane_bytes)))
    shares = np.arange(1, n_lanes) * (n_rows[-1] / n_lanes)  # lanes of about as many rows
    lanes = np.concatenate([[0], np.searchsorted(n_rows, shares), [n]]).astype(np.int64)
    most = piece_rows or max(width, _PIECE_BYTES // (16 * n_columns) // width * width)
    return Plan(offsets, weight, stretches, lanes, int(min(most, -(-sizes.max() // width) * width)))


@kernel
def copy_row(source, i, target, j):
    """target[j] = source[i]; NumPy's way takes seconds to compile, for its errors."""
    for k in range(source.shape[1]):
        target[j, k] = source[i, k]


@from_python
@kernel
def mark(plan, first_sequence, last_sequence, first, last, begins, weight):
    """begins (n + 1,) uint8 and the sequence's weight (n,) for rows first..last-1."""
    offsets, sequence_weight = plan[0], plan[1]
    for t in range(last - first + 1):
        begins[t] = 0
    for s in range(first_sequence, last_sequence):
        if first <= offsets[s] <= last:
            begins[offsets[s] - first] = 1
        for t in range(max(offsets[s], first), min(offsets[s + 1], last)):
            weight[t - first] = sequence_weight[s]
    if offsets[last_sequence] <= last:
        begins[offsets[last_sequence] - first] = 1
