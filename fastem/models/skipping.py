"""When to put rows in order and to carry bounds, so that a sweep skips what cannot matter (`kernels/pruning.py`)."""

from typing import Any, NamedTuple

import numpy as np

from fastem.kernels._jit import one_blas_thread
from fastem.kernels.pruning import NOTHING, WINDOW, Skip

# A pair may be cut where it moves neither the log-likelihood nor its component's own sums by a unit of rounding:
# exp(-CUTOFF) = 2**-58, times the share of the component (or 1 / K) in the whole.
_CUTOFF = 40.0
# A component that ends with so small a part of its expected weight may have lost it to the cut: the pass is repeated.
_LOST = 1e-5
_FEW_STATES = 3  # at most so many are never skipped
_SMALL_WORK = 2e7  # multiply-adds below which a pass is too short to gain
_PROBED = 200  # rows by which the gain of an order is estimated
_WORTHWHILE = 0.4  # part of the pairs of a row and a component beyond which no order pays
_USELESS = 0.6  # part of the pairs of a block and a component beyond which an order is given up
_BLOCKING = 1.5  # the latter part over the former, about
_GATHERING = 0.75  # rows that are gathered cost so many multiply-adds more for each product of two columns
_PRICE = 1.5  # passes that a new order costs: one without skipping, and to look, label and sort
_PAUSE = 4  # passes after an order was given up, four times as many each time


class Point(NamedTuple):
    """Parameters of a pass."""

    params: Any
    log_weights: np.ndarray


class Skipping:
    """Order, gaps and schedule of one block of rows in one climb; the passes tell it their parameters in turn."""

    def __init__(self, n_components: int, n_statistics: int, n_features: int):
        self.room = 1.0 - _GATHERING * n_features**2 / (n_components * n_statistics)  # to gain, of a pass
        self.order, self.gaps = NOTHING.order, NOTHING.gaps
        self.last: Point | None = None  # of the pass before
        self.is_wanted = False  # an order of the rows, from the next pass on
        self.n_passes = 0  # since the last order, or the last that was given up
        self.next_probe = 1
        self.pause = _PAUSE
        self.fewest = 1.0  # smallest part of the pairs that was computed since
        self.excess = 0.0  # passes spent above it

    @property
    def n_dense(self) -> int:
        """Passes to come that compute every pair, before there is anything to decide."""
        return max(0, self.next_probe - self.n_passes) if len(self.order) == 0 else 0

    def passed(self, n_passes: int, params, log_weights: np.ndarray) -> None:
        """Take note of so many passes that computed every pair, of which the last was over these parameters."""
        self.n_passes += n_passes
        self.last = Point(params, log_weights)

    def look(self, family, params, log_weights: np.ndarray, X: np.ndarray) -> int:
        """Return how many passes from these parameters on compute every pair, and nothing else, for all that is known.

        Looks at some rows if it is time to.
        """
        if len(self.order) > 0:
            return 0
        if self.n_dense == 0 and not self.is_wanted:
            now = Point(params, log_weights)
            self.is_wanted = self._wants_order(family, self.last or now, now, X)
        return 0 if self.is_wanted else max(1, self.n_dense)

    def before(self, family, params, log_weights, layout, X: np.ndarray, n_blocks: int) -> Skip:
        """Return what the next pass, over these parameters, is to take."""
        is_plain = self.look(family, params, log_weights, X) > 0
        now = Point(params, log_weights)
        last, self.last = self.last or now, now
        if is_plain:
            return NOTHING
        component = layout.order
        n_components = len(component)
        cutoff = _cutoff(log_weights)
        marks, labels = NOTHING.marks, NOTHING.labels
        if self.is_wanted or self._wants_order(family, last, now, X):
            self.is_wanted = False
            with one_blas_thread((n_components * X.shape[1]) ** 2):
                gaps = family.expected_gaps(params, log_weights)[np.ix_(component, component)]
            marks, labels = marks_of(gaps, component), np.empty(len(X), np.uint16)
        if len(self.order) == 0:
            bounds = np.take(np.tile(cutoff, (len(NOTHING.bounds), 1)), component, axis=1)
            return NOTHING._replace(bounds=bounds, component=component, marks=marks, labels=labels)
        if self.gaps.shape != (n_blocks, n_components + 1):
            self.gaps = np.zeros((n_blocks, n_components + 1), np.float32)
            self.n_passes = 0
        peaks = (family.peaks(*point) for point in (now, last))
        bounds = np.stack([*peaks, cutoff, *family.motion(last.params, params)])
        bounds = np.take(bounds, component, axis=1)
        return Skip(self.order, self.gaps, bounds, component, marks, labels)

    def after(self, skip: Skip, n_pairs: float) -> None:
        """Take note of a pass: sort by its labels, or count what it computed."""
        self.n_passes += 1
        if len(skip.labels):
            self.order, self.gaps = order_by(skip.labels, self.order), NOTHING.gaps
            self.n_passes, self.next_probe, self.fewest, self.excess = 0, _PAUSE, 1.0, 0.0
        elif len(skip.order) and self.n_passes > 1:  # the first pass in a new order computes every pair
            part = n_pairs / (len(skip.gaps) * len(skip.component))
            self.fewest = min(self.fewest, part)
            self.excess += part - self.fewest
            if part > _USELESS * self.room:
                self.order, self.gaps = NOTHING.order, NOTHING.gaps
                self.pause *= 4  # what was useless will be for some time
                self.n_passes, self.next_probe, self.fewest, self.excess = 0, self.pause, 1.0, 0.0

    def _wants_order(self, family, last: Point, now: Point, X: np.ndarray) -> bool:
        """Whether rows should be put in order anew, if as many passes are to come as there were since the last time."""
        if self.excess > _PRICE:
            return True
        if self.n_passes < self.next_probe:
            return False
        self.next_probe = self.n_passes + 1 + self.n_passes // 2
        if len(self.order) == 0:
            limit = _WORTHWHILE * self.room
        else:
            limit = (self.fewest - _PRICE / self.n_passes) / _BLOCKING
        if limit <= 0.0:
            return False
        with one_blas_thread(2 * _PROBED * len(now.log_weights) * X.shape[1] ** 2):  # twice as many rows, at most
            return part_that_may_matter(family, last, now, _cutoff(now.log_weights), X, limit) < limit


def _cutoff(log_weights: np.ndarray) -> np.ndarray:
    """Distance (K,) from the best score of a row at which a pair is cut."""
    return _CUTOFF + np.maximum(np.log(len(log_weights)), -log_weights)


def part_that_may_matter(
    family, last: Point, now: Point, cutoff: np.ndarray, X: np.ndarray, limit: float = 1.0
) -> float:
    """Part of the pairs of some rows and a component: mean of those alive and those that known gaps leave open.

    The latter are no fewer than the former, which are all that is counted if they reach the limit.
    """
    rows = X[:: max(1, len(X) // _PROBED)].astype(np.float64)
    rows = rows[~np.isnan(rows).any(axis=1)]  # the others do not count
    if len(rows) == 0:
        return 1.0
    after = family.log_densities(now.params, rows) + now.log_weights
    best = after.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # components of weight 0
        alive = 1.0 - float((best - after > cutoff).mean())
        if alive >= limit:
            return alive
        before = family.log_densities(last.params, rows) + last.log_weights
        shrink, _, shift = family.motion(last.params, now.params)
        distance = np.maximum(shrink * np.sqrt(np.maximum(2.0 * (family.peaks(*last) - before), 0.0)) - shift, 0.0)
        proven = best - family.peaks(*now) + 0.5 * distance**2 > cutoff
    return 0.5 * (alive + 1.0 - float(proven.mean()))


def marks_of(gaps: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Marks of labels, see `Skip`, that sort rows by their best component, then by which states near it are alive.

    The nearest by the gaps (K, K), from the state of a row, have the highest bits, as many as a label has room for.
    """
    n_states = len(gaps)
    bits = min(16 - (n_states - 1).bit_length(), n_states - 1)
    order = np.argsort(gaps + np.diag(np.full(n_states, np.inf)), axis=1, kind="stable")[:, :bits]
    marks = np.zeros((n_states, -(-n_states // 4) * 4), np.uint16)
    marks[np.arange(n_states), np.arange(n_states)] = component << bits
    np.put_along_axis(marks, order, (1 << np.arange(bits)[::-1]).astype(np.uint16), axis=1)
    fours = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(np.uint16)
    return marks.reshape(n_states, -1, 4) @ fours.T


def order_by(labels: np.ndarray, order: np.ndarray = NOTHING.order) -> np.ndarray:
    """Offsets (N,), within windows of 2**16 places, that put rows in the order of their labels; overwrites these.

    With an order, labels are of the rows at its places.
    """
    for first in range(0, len(labels), WINDOW):
        window = labels[first : first + WINDOW]
        places = np.argsort(window, kind="stable")
        window[:] = order[first : first + WINDOW][places] if len(order) else places
    return labels


def may_skip(family, n_rows: int, n_components: int, n_statistics: int) -> bool:
    """Whether a sweep of this shape has anything to gain."""
    return (
        family.has_distances
        and _FEW_STATES < n_components <= np.iinfo(np.uint16).max
        and n_rows * n_components * n_statistics > _SMALL_WORK
    )


def skipping_of(block, family, n_components: int, n_statistics: int) -> Skipping | None:
    """The notes of a block, None if it keeps none or a sweep has nothing to gain."""
    if block.notes is None or not may_skip(family, len(block.X), n_components, n_statistics):
        return None
    return block.notes.setdefault("skipping", Skipping(n_components, n_statistics, block.X.shape[1]))


def has_lost(counts: np.ndarray, weights: np.ndarray, total: float) -> bool:
    """Whether a component has lost nearly all its weight, so that what was cut may have mattered to it."""
    return bool((counts < _LOST * weights * total).any())
