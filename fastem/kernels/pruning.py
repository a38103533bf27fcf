"""Which (block, state) pairs of a sweep cannot matter: bounds that prove it, carried from one pass to the next.

The score of a normal state is c - d**2 / 2, with d the Mahalanobis distance. A pair is dead while the score of every
row lies `cutoff` below the row's best. The pass that computes a dead pair notes its gap: the smallest difference, over
the rows of the block, between the row's best score and this one. When the parameters move, any row's distances obey
shrink * d - shift <= d_new <= stretch * d + shift, with shrink <= 1 <= stretch. So of a row whose best score is now
beta, and was at most beta + eta,

    d >= sqrt(2 (gap + c - beta - eta)),    gap_new >= beta - c_new + (shrink * d - shift)**2 / 2,

which grows with beta (shrink <= 1): the smallest best score of the block proves the pair dead, or it is computed again.
Rows are kept in an order that puts those together for which the same states are alive: so a block has few.
Hamerly (2010), SDM, carries bounds of this kind for k-means.
"""

from typing import NamedTuple

import numpy as np

from fastem.kernels._calls import address
from fastem.kernels._jit import kernel
from fastem.kernels.posteriors import least_difference

WINDOW = 2**16  # rows are put in order within windows: two bytes a row, and gathering them stays local

# What `exclude` is to do.
FIRST, SECOND, BURY = range(3)
# Rows of the array of bounds.
CONSTANT, BEFORE, CUTOFF, SHRINK, STRETCH, SHIFT = range(6)
_ROUNDING_32, _ROUNDING_64 = 1e-3, 1e-6  # a gap gives way by so much of itself: rounding of scores and of float32


class Skip(NamedTuple):
    """What a sweep takes to skip pairs; every array but `bounds` may be empty, and then nothing is skipped.

    Attributes
    ----------
    order : ndarray of shape (N,), uint16
        Offset, in its window, of the row at each place.
    gaps : ndarray of shape (n_blocks, K + 1), float32
        Gap of each pair, columns by component; 0 where the pair is to be computed. Last, the smallest of the rows'
        best scores. Written.
    bounds : ndarray of shape (6, K), float64
        Of each state of theta: score at distance 0, now and in the pass before, cut-off, shrink, stretch, shift.
    component : ndarray of shape (K,), int64
        Column of `gaps` and label of each state of theta.
    marks : ndarray of shape (K, ceil(K / 4), 16), uint16
        What each four states in a row, of which those are alive whose bits are set, add to the label of a row, by its
        best state.
    labels : ndarray of shape (N,), uint16
        What to sort the rows by, see `label_rows`, each at its place. Written.
    """

    order: np.ndarray
    gaps: np.ndarray
    bounds: np.ndarray
    component: np.ndarray
    marks: np.ndarray
    labels: np.ndarray


NO_ORDER = np.empty(0, np.uint16)
NOTHING = Skip(
    NO_ORDER,
    np.empty((0, 0), np.float32),
    np.empty((6, 0)),
    np.empty(0, np.int64),
    np.empty((0, 0, 16), np.uint16),
    np.empty(0, np.uint16),
)


@kernel
def place_rows(order, first, last, rows):
    """rows = numbers of the rows at places first, first + 1, ... below last, and the last of them beyond."""
    n_rows = min(rows.shape[0], last - first)
    if order.shape[0] > 0:
        for b in range(n_rows):
            rows[b] = ((first + b) & -WINDOW) + np.int64(order[first + b])
    else:
        for b in range(n_rows):
            rows[b] = first + b
    for b in range(n_rows, rows.shape[0]):
        rows[b] = rows[n_rows - 1]


@kernel
def label_rows(scores, listed, n_listed, best, first, bounds, marks, alive, labels):
    """labels (n_rows,) = sum of the marks of the states that are alive: the best one's number and its neighbours' bits.

    best (B,) is the score of the most probable of the states that are listed, the first (B,) of them; the others are
    dead. alive (B,) int64 is scratch, of bits of 64 states at a time. No branches, as what is alive cannot be foretold.
    """
    for b in range(labels.shape[0]):
        labels[b] = 0
    for start in range(0, marks.shape[0], 64):
        for b in range(alive.shape[0]):
            alive[b] = 0
        for j in range(n_listed):
            k = listed[j]
            if k // 64 * 64 != start:
                continue
            limit = -bounds[CUTOFF, k]
            for b in range(alive.shape[0]):
                alive[b] |= np.int64(scores[j, b] - best[b] > limit) << (k - start)
        for b in range(labels.shape[0]):
            best_state, bits, label = listed[np.int64(first[b])], alive[b], np.int64(labels[b])
            for four in range(start // 4, min(start // 4 + 16, marks.shape[1])):
                label += marks[best_state, four, bits & 15]
                bits >>= 4
            labels[b] = label


@kernel
def largest_fall(gap, bounds, component):
    """How much the best score of any row of a block can have fallen since the pass before: eta."""
    worst = np.float64(gap[component.shape[0]])
    fall = 0.0
    for k in range(component.shape[0]):
        if gap[component[k]] == 0.0:
            d = np.sqrt(max(0.0, 2.0 * (bounds[BEFORE, k] - worst)))
            far = bounds[STRETCH, k] * d + bounds[SHIFT, k]
            if not far < np.inf:  # the parameters went too far to bound anything
                return np.inf
            fall = max(fall, bounds[BEFORE, k] - bounds[CONSTANT, k] + 0.5 * (far * far - d * d))
    return fall


@kernel
def pick(gap, bounds, component, fall, worst, chosen, listed, n_listed):
    """Append to `listed` the states that are not chosen yet and may matter; returns the new length.

    `worst` is the smallest of the rows' best scores so far; at -inf only states without a gap are picked. With a
    finite one, once a pass, the gaps of the others are carried over.
    """
    for k in range(chosen.shape[0]):
        if chosen[k] != 0:
            continue
        old = np.float64(gap[component[k]])
        new = 0.0
        if old > 0.0 and worst > -np.inf:
            square = 2.0 * (old + bounds[BEFORE, k] - worst - fall)
            if square > 0.0:
                d = bounds[SHRINK, k] * np.sqrt(square) - bounds[SHIFT, k]
                if d > 0.0:
                    new = (worst - bounds[CONSTANT, k] + 0.5 * d * d) * (1.0 - _ROUNDING_64)
        if old == 0.0 or (worst > -np.inf and not new > bounds[CUTOFF, k]):
            chosen[k] = 1
            listed[n_listed] = k
            n_listed += 1
        elif worst > -np.inf:
            gap[component[k]] = new
    return n_listed


@kernel
def bury(scores, listed, n_listed, best, worst, bounds, component, gap):
    """Drop the pairs whose scores prove them dead, noting their gaps; returns how many are left."""
    rounding = _ROUNDING_32 if scores.itemsize == 4 else _ROUNDING_64
    gap[component.shape[0]] = worst - rounding * abs(worst)
    n_live = 0
    for j in range(n_listed):
        k = listed[j]
        least = least_difference(best, scores[j])
        if least > bounds[CUTOFF, k] and least < np.inf:
            gap[component[k]] = least * (1.0 - rounding)
            continue
        gap[component[k]] = 0.0
        if n_live < j:
            for b in range(best.shape[0]):
                scores[n_live, b] = scores[j, b]
            listed[n_live] = k
        n_live += 1
    return n_live


@kernel
def exclude(stage, skip, block, scores, best, scratch, chosen, listed, n_listed):
    """Put into n_listed (1,) how many states of a block are left: after `pick` without and with scores, or `bury`.

    best and scratch are (B,); chosen and listed (K,) int64, written.
    """
    _, gaps, bounds, component, _, _ = skip
    gap = gaps[block]
    if stage == FIRST:
        for k in range(chosen.shape[0]):
            chosen[k] = 0
        n_listed[0] = pick(gap, bounds, component, 0.0, -np.inf, chosen, listed, 0)
        return
    for b in range(scratch.shape[0]):
        scratch[b] = 0.0
    worst = least_difference(best, scratch) if n_listed[0] > 0 else -np.inf
    if stage == SECOND:
        fall = largest_fall(gap, bounds, component)
        n_listed[0] = pick(gap, bounds, component, fall, worst, chosen, listed, n_listed[0])
    else:
        n_listed[0] = bury(scores, listed, n_listed[0], best, worst, bounds, component, gap)


def exclude_address(skip, theta):
    """Address of `exclude` for scores of the dtype of theta; nothing is compiled where nothing is skipped."""
    if len(skip.gaps) == 0:
        return 0
    rows, scores = np.empty(0, theta.dtype), np.empty((0, 0), theta.dtype)
    numbers = np.empty(0, np.int64)
    return address(exclude, (0, tuple(skip), 0, scores, rows, rows, numbers, numbers, numbers), theta.dtype)


def label_address(skip, theta):
    """Address of `label_rows`, in the same way."""
    if len(skip.labels) == 0:
        return 0
    rows, scores = np.empty(0, theta.dtype), np.empty((0, 0), theta.dtype)
    numbers = np.empty(0, np.int64)
    arguments = scores, numbers, 0, rows, rows, skip.bounds, skip.marks, numbers, skip.labels
    return address(label_rows, arguments, theta.dtype)
