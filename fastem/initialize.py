"""Starts of a mixture: centres by k-means and its kin, responsibilities by chance or given. All use the weights."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.optimize import linear_sum_assignment

from fastem.data import SMALLEST, Block, Data, as_numbers, chunks, draw_by_weight, squares, weighted_sum
from fastem.kernels.features import LINEAR
from fastem.kernels.posteriors import HARD
from fastem.kernels.sweep import by_features, statistics
from fastem.labels import allowed
from fastem.protocol import DegenerateError

CENTERS = ("kmeans", "k-means++", "k-means||", "ward", "random_from_data")
STARTS = (*CENTERS, "random")
# What 'kmeans' takes by turns in a race: it finds many clusters apart, random rows find clusters inside others.
TURNS = ("kmeans", "random_from_data", "k-means++")

# Seeding looks at so many rows at most, since it costs K passes over them; Lloyd's steps then take every row.
_SEED_ROWS, _SEED_ROWS_PER_NUMBER = 5000, 50
_LLOYD_ITERATIONS = 100
_LLOYD_TOL = 1e-4  # relative fall of the inertia
_WARD_ROWS = 2000  # of the sample that is merged: time and memory grow with its square
_OVERSAMPLING, _ROUNDS = 2, 5  # of k-means||
_CHUNK = 2**20  # responsibilities held at once
_NONE = np.empty((0, 0))  # no centres


class Sample(NamedTuple):
    """Some rows of the data, in a frame, with their weights."""

    rows: np.ndarray  # (n, D) float64
    weight: np.ndarray  # (n,)


def centers(
    method: str,
    data: Data,
    frame: np.ndarray,
    n_components: int,
    rng: np.random.Generator,
    n_threads: int,
    seeds: Any = None,
) -> np.ndarray:
    """Centres (K, D) in the frame (2, D) by one of CENTERS.

    `seeds` has `numbers` (F,) of centres that are known, their `points` (F, D), and (F,) whether they `stay` when
    Lloyd's iterations move the others (Basu, Banerjee & Mooney 2002, ICML, 27-34, section 3: 'seeded k-means').
    """
    if seeds is None:
        return _centers(method, data, frame, n_components, rng, n_threads)
    stay = np.zeros(n_components, bool)
    stay[: len(seeds.points)] = seeds.stay
    if stay.all():
        return seeds.points
    found = _centers(method, data, frame, n_components, rng, n_threads, seeds.points, stay)
    # the known ones come first, as they are found, and go to where they belong
    return found[np.argsort(np.append(seeds.numbers, np.setdiff1d(np.arange(n_components), seeds.numbers)))]


def _centers(
    method: str,
    data: Data,
    frame: np.ndarray,
    n_components: int,
    rng: np.random.Generator,
    n_threads: int,
    known: np.ndarray = _NONE,
    stay: np.ndarray | None = None,
) -> np.ndarray:
    """Centres of which some are known, these first."""
    if method == "k-means||":
        return k_means_parallel(data, frame, n_components, rng, known)
    sample = sample_rows(data, frame, max(_SEED_ROWS, _SEED_ROWS_PER_NUMBER * n_components * data.n_features), rng)
    n_others = n_components - len(known)
    if len(_first_distinct(sample.rows, n_others)) < n_others:  # the sample repeats few: add what the data have
        rows = (require_distinct(data, n_others) - frame[0]) * frame[1]
        sample = Sample(np.concatenate([sample.rows, rows]), np.append(sample.weight, np.ones(len(rows))))
    if method == "random_from_data":
        return _distinct_rows(sample, n_components, rng, known)
    if method == "ward":
        return ward(sample, n_components, rng, known)
    points = k_means_plus_plus(sample, n_components, rng, known)
    if method == "k-means++":
        return points
    identity = np.stack([np.zeros(data.n_features), np.ones(data.n_features)])
    points = lloyd(Data([Block(sample.rows, sample.weight[:, None])]), identity, points, sample, n_threads, stay)
    if len(sample.rows) < data.n_samples:
        points = lloyd(data, frame, points, sample, n_threads, stay)
    return points


def square_radius(data: Data, frame: np.ndarray, points: np.ndarray, share: float, rng: np.random.Generator) -> float:
    """Squared distance from the nearest of the points (K, D) that a share of the rows exceeds, by a sample of them."""
    rows, weight = sample_rows(data, frame, _SEED_ROWS, rng)
    nearest = np.min([_squares(rows, point) for point in points], axis=0)
    order = np.argsort(nearest, kind="stable")
    below = np.searchsorted(np.cumsum(weight[order]), (1.0 - share) * weight.sum())
    return float(nearest[order[min(below, len(order) - 1)]])


def sample_rows(data: Data, frame: np.ndarray, n_rows: int, rng: np.random.Generator) -> Sample:
    """At most about n_rows rows, drawn by their weight, evenly from all blocks if there are more."""
    rows, weights = [], []
    for block in data:
        share = -(-n_rows * len(block.X) // data.n_samples)
        if len(block.X) <= share:
            drawn = np.flatnonzero(block.counts)
            weight = block.counts[drawn]
        elif len(block.weight):
            drawn, counts = np.unique(draw_by_weight(block.weight[:, 0], share, rng), return_counts=True)
            weight = counts * (block.total_weight / share)
        else:
            drawn = np.sort(rng.choice(len(block.X), share, replace=False))
            weight = np.full(share, len(block.X) / share)
        rows.append((block.X[drawn] - frame[0]) * frame[1])
        weights.append(weight)
    return Sample(np.concatenate(rows), np.concatenate(weights))


def require_distinct(data: Data, n_components: int) -> np.ndarray:
    """Return at least n_components distinct rows of positive weight, or refuse; reads no more rows than it must."""
    distinct = np.empty((0, data.n_features))
    for x, w in chunks(data, max(1024, 4 * n_components)):
        distinct = np.unique(np.concatenate([distinct, x[w > 0]]), axis=0)
        if len(distinct) >= n_components:
            return distinct
    raise DegenerateError(
        f"X has only {len(distinct)} distinct rows of positive weight for n_components={n_components}; "
        "use fewer components"
    )


def check_distinct(data: Data, n_components: int) -> None:
    """Refuse data of fewer distinct rows of positive weight; the first few often show that they are more."""
    x, w = next(iter(chunks(data, 4 * n_components)))
    if np.isnan(x).any() or len(set(map(tuple, x[w > 0].tolist()))) < n_components:
        require_distinct(data, n_components)


def has_distinct(data: Data, n_components: int) -> bool:
    """Whether so many rows of positive weight are distinct."""
    try:
        require_distinct(data, n_components)
    except DegenerateError:
        return False
    return True


def grouped_centers(
    method: str, data: Data, frame: np.ndarray, shape: tuple[int, int], rng: np.random.Generator, n_threads: int
) -> np.ndarray:
    """Centres (n_groups * size, D), those of a group together, by one of CENTERS.

    Groups are those of centres of their own, to which as many are put as each holds, at the least squared distance.
    """
    n_groups, size = shape
    points = centers(method, data, frame, n_groups * size, rng, n_threads)
    if n_groups == 1 or size == 1:
        return points
    middles = centers(method, data, frame, n_groups, rng, n_threads)
    cost = np.stack([_squares(points, middle) for middle in middles], axis=1)
    group = linear_sum_assignment(np.repeat(cost, size, axis=1))[1] // size
    return points[np.argsort(group, kind="stable")]


def _distinct_rows(
    sample: Sample, n_components: int, rng: np.random.Generator, known: np.ndarray = _NONE
) -> np.ndarray:
    """Rows drawn by their weight, no two equal: the smallest of exponential clocks (Efraimidis & Spirakis 2006).

    They come behind what is known.
    """
    n_others = n_components - len(known)
    order = np.argsort(rng.exponential(size=len(sample.rows)) / sample.weight, kind="stable")
    first = _first_distinct(sample.rows[order], n_others)
    if len(first) < n_others:  # some differ by less than the rounding of the frame
        return k_means_plus_plus(sample, n_components, rng, known)
    return _behind(known, sample.rows[order[first]])


def _first_distinct(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Numbers of the first so many rows, no two equal; fewer if there are no more."""
    found = np.empty(0, np.int64)
    for part in (16 * n_rows, len(rows)):  # sorting all rows takes longer than all else of a start
        found = np.sort(np.unique(rows[:part], axis=0, return_index=True)[1])[:n_rows]
        if len(found) == n_rows:
            break
    return found


def _behind(known: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.concatenate([known, points]) if len(known) else points


def k_means_plus_plus(
    sample: Sample, n_components: int, rng: np.random.Generator, known: np.ndarray = _NONE
) -> np.ndarray:
    """Greedy k-means++ (Arthur & Vassilvitskii 2007, section 2.2): the best of 2 + ln K candidates for each centre.

    They come behind what is known (F, D).
    """
    n_trials = 2 + int(np.log(n_components))
    rows, weight = sample
    chosen: list[int] = []
    if len(known):
        distance = np.min([_squares(rows, point) for point in known], axis=0)
    else:
        chosen = [int(draw_by_weight(weight, 1, rng)[0])]
        distance = _squares(rows, rows[chosen[0]])
    while len(known) + len(chosen) < n_components:
        mass = weight * distance
        candidates = draw_by_weight(mass if mass.any() else weight, n_trials, rng)
        trials = [np.minimum(distance, _squares(rows, rows[c])) for c in candidates]
        best = int(np.argmin([(weight * trial).sum() for trial in trials]))
        chosen.append(int(candidates[best]))
        distance = trials[best]
    return _behind(known, rows[chosen])


def k_means_parallel(
    data: Data, frame: np.ndarray, n_components: int, rng: np.random.Generator, known: np.ndarray = _NONE
) -> np.ndarray:
    """k-means|| (Bahmani et al. 2012, algorithm 2): candidates from five passes over all rows, then k-means++ on them.

    A row becomes a candidate with a probability in proportion to its squared distance from those before, such that 2 K
    come of each pass; it weighs as much as the rows that are nearest to it. What is known comes first, and is the
    first candidates if there is any.
    """
    n_others = n_components - len(known)

    def scaled():
        for x, w in chunks(data):
            yield (x[w > 0] - frame[0]) * frame[1], w[w > 0]

    candidates = fresh = sample_rows(data, frame, 1, rng).rows[:1] if len(known) == 0 else known
    weights = [w for _, w in scaled()]
    distances = [np.full(len(w), np.inf) for w in weights]
    nearest = [np.zeros(len(w), np.int64) for w in weights]
    for last in range(_ROUNDS + 1):
        for (rows, _), distance, number in zip(scaled(), distances, nearest, strict=True):
            for new, point in enumerate(fresh, len(candidates) - len(fresh)):
                away = _squares(rows, point)
                number[away < distance] = new
                np.minimum(distance, away, out=distance)
        cost = sum(float(weighted_sum(w, distance)) for w, distance in zip(weights, distances, strict=True))
        if last == _ROUNDS or cost == 0:
            break
        rate = _OVERSAMPLING * n_components / cost
        found = zip(scaled(), distances, strict=True)
        fresh = np.concatenate([rows[rng.random(len(w)) < rate * w * distance] for (rows, w), distance in found])
        candidates = np.concatenate([candidates, fresh])
    share = sum(np.bincount(number, w, len(candidates)) for w, number in zip(weights, nearest, strict=True))
    distinct, index = np.unique(candidates, axis=0, return_inverse=True)
    if len(distinct) < n_components:  # few rows differ, or fewer came than were expected
        rows = (require_distinct(data, n_others) - frame[0]) * frame[1]
        return _distinct_rows(Sample(rows, np.ones(len(rows))), n_components, rng, known)
    return k_means_plus_plus(Sample(distinct, np.bincount(index.ravel(), share)), n_components, rng, known)


def ward(sample: Sample, n_components: int, rng: np.random.Generator, known: np.ndarray = _NONE) -> np.ndarray:
    """Means of the clusters that Ward's hierarchical clustering makes of some rows, drawn by their weight.

    Ward (1963), J. Amer. Statist. Assoc. 58, 236-244. Rows that are drawn twice count twice. What is known comes
    first, and takes the place of the cluster that is nearest to it.
    """
    rows = sample.rows
    if len(rows) > _WARD_ROWS or (sample.weight != sample.weight[0]).any():
        rows = rows[draw_by_weight(sample.weight, max(_WARD_ROWS, n_components), rng)]
    if len(np.unique(rows, axis=0)) < n_components:
        return _distinct_rows(sample, n_components, rng, known)
    labels = cut_tree(linkage(rows, "ward"), n_components)[:, 0]
    points = np.stack([rows[labels == k].mean(axis=0) for k in range(n_components)])
    for point in known:
        points = np.delete(points, np.argmin(_squares(points, point)), axis=0)
    return _behind(known, points)


def _squares(rows: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Squared distances (n,) of rows from a point: exactly 0 where they are equal."""
    away = rows - point
    return np.einsum("ij,ij->i", away, away)


def lloyd(
    data: Data,
    frame: np.ndarray,
    points: np.ndarray,
    sample: Sample,
    n_threads: int,
    stay: np.ndarray | None = None,
) -> np.ndarray:
    """Lloyd's iterations, each a sweep with a hard posterior, until the inertia falls by less than 1e-4 of itself.

    A centre that has lost its rows moves to the row of the sample that is farthest from its own centre. Some centres
    (K,) bool may have to stay.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # rows of weight 0 may lie anywhere
        square_norm = sum(float(weighted_sum(w, squares((x - frame[0]) * frame[1], w)).sum()) for x, w in chunks(data))
    before = np.inf
    for _ in range(_LLOYD_ITERATIONS):
        theta = np.concatenate([-0.5 * (points**2).sum(axis=1, keepdims=True), points], axis=1)
        states = by_features(LINEAR, theta, data.n_features)
        parts = [statistics(b.X, b.weight, frame, states, HARD, n_threads) for b in data]
        sums = sum(part[0] for part in parts)
        inertia = square_norm - 2 * sum(part[1] for part in parts)
        counts = sums[:, 0]
        moves, lost = counts > 0, counts == 0
        if stay is not None:
            moves, lost = moves & ~stay, lost & ~stay
        points = np.where(moves[:, None], sums[:, 1:] / np.where(counts > 0, counts, 1.0)[:, None], points)
        for k in np.flatnonzero(lost):
            points[k] = sample.rows[_farthest(sample, np.delete(points, k, axis=0))]
        if not lost.any() and before - inertia <= _LLOYD_TOL * abs(inertia):
            break
        before = inertia
    return points


def _farthest(sample: Sample, points: np.ndarray) -> int:
    nearest = np.min([_squares(sample.rows, point) for point in points], axis=0)
    return int(np.argmax(np.where(sample.weight > 0, nearest, -1.0)))


def random_blocks(data: Data, n_components: int, seed: int) -> Iterator[Block]:
    """Blocks whose weights are random responsibilities times the weights of the rows; the same for the same seed."""
    rng = np.random.default_rng(seed)

    def draw(first: int, n_rows: int) -> np.ndarray:
        resp = rng.random((n_rows, n_components))
        return resp / resp.sum(axis=1, keepdims=True)

    return _blocks_with(data, n_components, draw)


def blocks_by_value(data: Data, n_components: int, seed: int) -> Iterator[Block]:
    """Blocks whose weights are random responsibilities, the same for equal rows, times the weights of the rows.

    So states differ although few rows do. Each row is hashed to exponential variables, which are shared out.
    """
    keys = np.random.default_rng(seed).integers(
        2**63, size=data.n_features + n_components, dtype=np.uint64
    ) | np.uint64(1)

    for block in data:
        for first in range(0, len(block.X), max(1024, _CHUNK // n_components)):
            rows = block.X[first : first + max(1024, _CHUNK // n_components)]
            bits = (rows.astype(np.float64) + 0.0).view(np.uint64)
            hashed = np.zeros(len(rows), np.uint64)
            for column, key in zip(bits.T, keys, strict=False):
                hashed = _mixed((hashed ^ column) * key)
            resp = np.stack([_mixed(hashed + key) for key in keys[data.n_features :]], axis=1)
            resp = -np.log1p(-(resp >> np.uint64(11)).astype(np.float64) * 2.0**-53)
            resp /= np.maximum(resp.sum(axis=1, keepdims=True), SMALLEST)
            counts = block.counts[first : first + len(rows), None]
            yield Block(rows, np.ascontiguousarray(resp * counts))


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Bits that depend on all bits: the finaliser of SplitMix64 (Steele, Lea & Flood 2014, OOPSLA, figure 16)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def given_blocks(data: Data, resp: np.ndarray, n_components: int) -> Iterator[Block]:
    """Blocks whose weights are labels (N,) or responsibilities (N, K) of the user, times the weights of the rows."""

    def take(first: int, n_rows: int) -> np.ndarray:
        part = resp[first : first + n_rows]
        return (part[:, None] == np.arange(n_components)).astype(np.float64) if part.ndim == 1 else part

    return _blocks_with(data, n_components, take)


def _blocks_with(data: Data, n_components: int, resp_of: Callable[[int, int], np.ndarray]) -> Iterator[Block]:
    n_rows = max(1024, _CHUNK // n_components)
    first = 0
    for block in data:
        for start in range(0, len(block.X), n_rows):
            rows = block.X[start : start + n_rows]
            resp = resp_of(first, len(rows))
            if block.labels is not None:
                resp = _restricted(resp, allowed(block.labels[start : start + n_rows], n_components))
            if len(block.weight):
                resp = resp * block.weight[start : start + n_rows]
            yield Block(rows, np.ascontiguousarray(resp))
            first += len(rows)


def _restricted(resp: np.ndarray, can: np.ndarray) -> np.ndarray:
    """Responsibilities (n, K) of the components that rows can come from (n, K) bool; equal ones where none is left."""
    resp = np.where(can, resp, 0.0)
    resp = np.where(resp.any(axis=1, keepdims=True), resp, can)
    return resp / resp.sum(axis=1, keepdims=True)


def check_resp(resp: np.ndarray, n_samples: int, n_components: int, n_noise: int = 0) -> np.ndarray:
    """Return labels (N,) int64 or responsibilities (N, K) float64 after checking every entry.

    With noise, its label is -1, here and in what is returned K; its responsibilities are a column more.
    """
    lowest, n_states = -n_noise, n_components + n_noise
    resp = as_numbers("resp_init", resp)
    if resp.shape == (n_samples,):
        labels = resp.astype(np.int64) if np.isfinite(resp).all() else np.empty(0)
        if not np.array_equal(labels, resp):
            raise ValueError("resp_init as labels must hold integers; encode the classes as 0 to n_components - 1")
        if labels.min() < lowest or labels.max() >= n_components:
            raise ValueError(
                f"resp_init holds labels from {labels.min()} to {labels.max()}; {lowest} to {n_components - 1} are "
                "needed"
            )
        return np.where(labels < 0, n_components, labels)
    if resp.shape != (n_samples, n_states):
        raise ValueError(
            f"resp_init has shape {resp.shape}; labels ({n_samples},) or responsibilities "
            f"({n_samples}, {n_states}) are needed"
        )
    resp = np.ascontiguousarray(resp, dtype=np.float64)
    if not (resp >= 0).all() or not np.allclose(resp.sum(axis=1), 1.0):
        raise ValueError("resp_init must hold non-negative responsibilities that sum to 1 in each row")
    return resp
