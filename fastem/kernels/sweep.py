"""The fused pass over the rows: features -> scores -> posterior -> statistics, block by block, in lanes.

Rows are split into a number of lanes that depends on the shape only. A lane writes nothing but its own
accumulators, and lanes are added pairwise in index order, so the bits do not depend on the number of threads.
"""

import contextlib
from typing import NamedTuple

import numpy as np

from fastem.kernels import _jit
from fastem.kernels._arrays import aligned_empty, borrowed, free, matrix_at, uncounted_empty
from fastem.kernels._calls import address, address_array, call_at, kept, run_alone, run_together, take_number
from fastem.kernels._jit import VECTOR_BYTES, kernel, piece, rule, widest_vectors
from fastem.kernels.double_double import whiten_exactly
from fastem.kernels.exponentials import few_address, softmax, softmax_panel
from fastem.kernels.features import FULL, build_features, squared_norm, weigh
from fastem.kernels.inner_products import add_waiting, begin_waiting, inner_address, is_inner
from fastem.kernels.layout import clear, fetch_rows, load_columns, tile_columns, turn
from fastem.kernels.log_likelihood import count_rows
from fastem.kernels.posteriors import (
    GIVEN,
    HARD,
    NO_TAILS,
    SOFTMAX,
    first_maximum,
    log_normalizer,
    row_maximum,
    tail_addresses,
)
from fastem.kernels.products import ROWS, product_addresses
from fastem.kernels.pruning import BURY, NO_ORDER, NOTHING, exclude_address, label_address, place_rows
from fastem.kernels.quadratics import quadratic_addresses
from fastem.kernels.whiten import distance, whiten

_MAX_LANES = 64
_MIN_LANES = 8
_LANE_BYTES = 2**24  # all lanes together, if that leaves at least _MIN_LANES
_LANE_BLOCKS = 32  # blocks of a lane, if that leaves as many: clearing and adding a lane costs some blocks' work
_BLOCK_BYTES = 2**18  # a block's features, scores and responsibilities: well inside L2
_PANEL_BYTES = 3 * 2**10  # rows of which scores become responsibilities at a time
_NARROW = 64  # bytes of a row below which its features always cost less than whitening
_FEATURE_BYTES = 2**19  # features held at once; more are built in chunks, twice
# Places of addresses in what a lane calls; first come the two of `product_addresses`.
INNER, SHARE, SHARE_FEW, COUNT, HARDEN, TAKE_TAILS, TAKE_PRECISIONS = range(2, 9)
SCORE_WHITENED, ADD_WHITENED, EXCLUDE, LABEL_ROWS, LOAD, BUILD, TURN, SCORE_COLUMNS, ADD_COLUMNS, N_ADDRESSES = range(
    9, 19
)
# Places in what `workspace` makes.
PHI, _PACKED, _TURNED_RESP, INNER_SUMS, _ROOM, _TURNED, _SECOND = range(7)
# What `score` is to return.
LOG_DENSITY, LABEL, POSTERIOR, SCORE = range(4)
_SERIAL_WORK = 2_000_000  # multiply-adds below which waking the threads costs more than they give (~100 us)


@rule
def padded(n_states, itemsize):
    """n_states rounded up to half a vector, the narrowest column tile of `product`."""
    lanes = VECTOR_BYTES // (2 * itemsize)
    return -(-n_states // lanes) * lanes


@rule
def block_rows(n_rows, n_features, n_states, n_stats, itemsize):
    """Rows of a block: a multiple of 48, so that it splits into panels of three vectors in both dtypes."""
    row_bytes = (n_stats + 2 * n_states + 3 * n_features) * itemsize
    rows = 384
    while rows > 96 and rows * row_bytes > _BLOCK_BYTES:
        rows //= 2
    return min(rows, max(48, -(-n_rows // 48) * 48))


@piece
def panel_rows(width, row_bytes, itemsize):
    """Rows of a panel of a block, of which it is a multiple: of few bytes, but whole vectors of 24 or 48."""
    rows = 24 if itemsize == 8 else 48
    while 2 * rows * row_bytes <= _PANEL_BYTES and width % (2 * rows) == 0:
        rows *= 2
    return rows


class States(NamedTuple):
    """K states as a sweep takes them: by features, by whitening, or as it sees fit.

    Attributes
    ----------
    feature_map : int
        Code of `features`.
    theta : ndarray of shape (K, P), float32 or float64
        Natural parameters; the dtype is that of the products. Thin states come last, and have no theta.
    n_thin : int
        States that are whitened because their features would cancel; their sums are those of the whitened rows.
    whitener : ndarray of shape (n, D + 1 or 2, D)
        See `whiten`; of all states, so that the path is free, or of the thin ones alone.
    peak : ndarray of shape (n,), float64
        Score at distance 0 of the states that have a whitener.
    tails : ndarray of shape (K, 4) or (0, 4), float64
        Of states whose scores are minus half a squared distance and become those of Student's t: see
        `posteriors.take_tails`.
    """

    feature_map: int
    theta: np.ndarray
    n_thin: int
    whitener: np.ndarray
    peak: np.ndarray
    tails: np.ndarray = NO_TAILS


def by_features(feature_map, theta, n_features):
    """States without whiteners."""
    return States(feature_map, theta, 0, np.empty((0, 2, n_features), theta.dtype), np.empty(0))


@rule
def _goes_direct(n_listed, n_features, feature_map, whitener, n_thin):
    """Whether so few fast states of a block are cheaper by whitening than by features built for them."""
    few = 2 + n_features // 12  # measured: as fast at 2 of 8 columns, 3 of 16, 4 of 32, 8 of 64
    is_narrow = n_features * whitener.itemsize < _NARROW
    return feature_map == FULL and not is_narrow and whitener.shape[0] > n_thin and 0 < n_listed <= few


@piece
def score_states(states, listed, start, stop, built, products, columns, work, scores):
    """scores[start:stop] of the states listed there; returns whether phi holds the features of the block.

    First come the fast states, by theta phi or whitened if they are few; then the thin ones, whitened.
    """
    feature_map, theta, n_thin, whitener = states[0], states[1], states[2], states[3]
    phi, packed = work[PHI], work[_PACKED]
    n_states, n_stats = theta.shape
    n_fast = n_states - n_thin
    chunk, width = phi.shape
    end = start
    while end < stop and listed[end] < n_fast:
        end += 1
    if _goes_direct(end - start, columns.shape[0], feature_map, whitener, n_thin):
        end = start
    if end > start:
        if end - start < n_fast:
            for j in range(start, end):
                k = listed[j]
                for p in range(n_stats):
                    packed[j - start, p] = theta[k, p]
        natural = packed if end - start < n_fast else theta
        for first in range(0, n_stats, chunk):
            last = min(first + chunk, n_stats)
            if not built:
                call_at(products[BUILD], (feature_map, columns, first, last, phi, chunk >= n_stats))
            into = scores[start:]
            call_at(products[0], (natural, first, phi, end - start, 0, width, last - first, into, first == 0))
        built = chunk >= n_stats
    if end < stop:
        call_at(products[SCORE_WHITENED], (states, listed, end, stop, columns, scores))
    return built


@kernel
def _score_whitened(states, listed, start, stop, columns, scores):
    """scores[start:stop] of the states listed there, whitened."""
    _, theta, _, whitener, peak, _ = states
    for j in range(start, stop):
        k = listed[j] - theta.shape[0] + whitener.shape[0]
        row = scores[j]
        distance(columns, whitener[k], row)
        constant, half = row.dtype.type(peak[k]), row.dtype.type(0.5)
        for b in range(row.shape[0]):
            row[b] = constant - half * row[b]


@piece
def add_moments(product, source, turned, resp, weighted, second, sums, column):
    """sums[:, column] += sum of resp (B,) times the full statistics of source (D, B), turned (B, padded D)."""
    n_features, width = source.shape
    total = 0.0
    for b in range(width):
        total += resp[b]
    sums[0, column] += total
    for d in range(n_features):
        sums[1 + d, column] += weigh(source, d, resp, weighted)
    for i in range(0, n_features, ROWS):
        n_rows = min(ROWS, n_features - i)
        n_columns = padded(i + n_rows, source.itemsize)
        call_at(product, (weighted[i:], 0, turned, n_rows, 0, n_columns, width, second, True))
        p = 1 + n_features + i * (i + 1) // 2
        for d in range(n_rows):
            for j in range(i + d + 1):
                sums[p, column] += second[d, j]
                p += 1


@piece
def _add_features(feature_map, source, resp, spare, sums):
    """sums (P, 1) += sum of resp (B,) times the features of source (D, B); `spare` holds some of them at a time."""
    n_stats = sums.shape[0]
    chunk, width = spare.shape
    in_place = chunk == 0  # never: a literal would compile `build_features` once more
    for first in range(0, n_stats, chunk):
        last = min(first + chunk, n_stats)
        build_features(feature_map, source, first, last, spare, in_place)
        for p in range(last - first):
            total = 0.0
            for b in range(width):
                total += spare[p, b] * resp[b]
            sums[first + p, 0] += total


@piece
def _add_products(feature_map, listed, n_listed, n_fast, resp, built, products, columns, work, sums):
    """Add phi resp of the fast states listed, with resp (listed, B), to sums (P, columns) or to what waits for them."""
    phi, turned_resp, inner = work[PHI], work[_TURNED_RESP], work[INNER_SUMS]
    n_stats = sums.shape[0]
    chunk, width = phi.shape
    whole = n_listed >= n_fast
    for j in range(min(n_fast, n_listed)):
        whole = whole and listed[j] == j
    at_once = whole and not is_inner(n_stats, n_fast, resp.itemsize)
    if at_once:
        call_at(products[TURN], (resp, n_fast, width, turned_resp))
    n_inner = n_fast if whole else n_listed  # else thin states, of which nobody reads the sums, may lie between
    if not at_once:
        for j in range(n_inner):
            begin_waiting(inner, listed[j])
    for first in range(0, n_stats, chunk):
        last = min(first + chunk, n_stats)
        if not built:
            call_at(products[BUILD], (feature_map, columns, first, last, phi, chunk >= n_stats))
        added = sums[first:last]
        if at_once:
            n_columns = padded(n_fast, resp.itemsize)
            call_at(products[1], (phi, 0, turned_resp, last - first, 0, n_columns, width, added, False))
        else:
            call_at(products[INNER], (phi, last - first, resp, n_inner, width, inner, first, listed))


@piece
def accumulate_block(states, listed, n_listed, resp, built, products, columns, work, sums):
    """Add a block's statistics to sums (P, columns), with the responsibilities of the states that are listed.

    Thin states have the last columns, and the statistics of their own whitened rows. All but the products of a whole
    block and all states waits for `add_waiting`, in a row for each state.
    """
    feature_map, theta, n_thin, whitener = states[0], states[1], states[2], states[3]
    n_features, n_fast = columns.shape[0], theta.shape[0] - n_thin
    n_fast_listed = 0
    for j in range(n_listed):
        if listed[j] < n_fast:
            n_fast_listed += 1
    direct = _goes_direct(n_fast_listed, n_features, feature_map, whitener, n_thin)
    if n_fast_listed > 0 and not direct:
        _add_products(feature_map, listed, n_listed, n_fast, resp, built, products, columns, work, sums)
    if direct or n_fast_listed < n_listed:
        room, turned, second = work[_ROOM], work[_TURNED], work[_SECOND]
        scratch = work[INNER_SUMS], room, turned, second
        call_at(products[ADD_WHITENED], (states, listed, n_listed, direct, resp, products, columns, scratch))


@kernel
def _add_whitened(states, listed, n_listed, direct, resp, products, columns, scratch):
    """Add the statistics of the thin states, and if direct of the others too, to what waits."""
    feature_map, theta, n_thin, whitener, _, _ = states
    inner, room, turned, second = scratch
    product, product_of_sums = products[0], products[1]
    n_states, n_features, width = theta.shape[0], columns.shape[0], columns.shape[1]
    n_fast = n_states - n_thin
    centred, y, weighted = room[:n_features], room[n_features : 2 * n_features], room[2 * n_features : 3 * n_features]
    spare = room[3 * n_features :]
    turned, turned_y = turned[:width], turned[width:]
    if direct:
        turn(columns, n_features, width, turned)
    for j in range(n_listed):
        k = listed[j]
        if k < n_fast:
            if not direct:
                continue
            source, turned_source, row = columns, turned, k
        else:
            source, turned_source, row = y, turned_y, k + n_thin
            whiten(product, columns, whitener[k - n_states + whitener.shape[0]], centred, y)
            if feature_map == FULL:
                turn(y, n_features, width, turned_y)
        begin_waiting(inner, row)
        waiting = matrix_at(inner, row * inner.shape[1], theta.shape[1], 1)
        if feature_map == FULL:
            add_moments(product_of_sums, source, turned_source, resp[j], weighted, second, waiting, 0)
        else:
            _add_features(feature_map, source, resp[j], spare, waiting)


def _whitened_addresses(states, sums, is_skipping):
    """Addresses of `_score_whitened` and `_add_whitened`; nothing is compiled where no state can be whitened."""
    feature_map, theta, n_thin, whitener, _, _ = states
    if not (n_thin or is_skipping or _goes_direct(len(theta), whitener.shape[2], feature_map, whitener, n_thin)):
        return 0, 0
    like, wide, listed = np.empty((0, 0), theta.dtype), np.empty((0, 0), sums.dtype), np.empty(0, np.int64)
    products, scratch = np.empty(0, np.int64), (wide, like, like, wide)
    types = theta.dtype, sums.dtype
    return (
        address(_score_whitened, (tuple(states), listed, 0, 0, like, like), types),
        address(_add_whitened, (tuple(states), listed, 0, True, like, products, like, scratch), types),
    )


@piece
def take_weights(posterior, weight, rows, n_rows, mass, columns):
    """mass (B,) = weights of the rows, 0 beyond n_rows.

    Rows of weight 0 are moved to the centre: they may lie so far out that 0 times their square is NaN.
    """
    for b in range(mass.shape[0]):
        mass[b] = 1.0 if b < n_rows else 0.0
    for b in range(n_rows if weight.shape[0] > 0 else 0):
        largest = weight[rows[b], 0]
        for k in range(1, weight.shape[1]):
            largest = max(largest, weight[rows[b], k])
        if posterior != GIVEN:
            mass[b] = largest
        if largest == 0.0:
            for d in range(columns.shape[0]):
                columns[d, b] = 0.0


def _posterior_addresses(theta, sums, posterior, may_be_few):
    """Addresses of `softmax_panel`, of its kernel for few states and of `count_rows`; of `_harden`."""
    rows, scores, wide = np.empty(0, theta.dtype), np.empty((0, 0), theta.dtype), np.empty(0, sums.dtype)
    types = theta.dtype, sums.dtype
    if posterior == HARD:
        return 0, 0, 0, address(_harden, (scores, 0, wide, rows, rows, wide), types)
    if posterior != SOFTMAX:
        return 0, 0, 0, 0
    return (
        address(softmax_panel, (scores, 0, wide, 0, 0, rows, rows), types),
        few_address(theta) if may_be_few else 0,
        address(count_rows, (wide, rows, rows, wide, wide), types),
        0,
    )


@kernel
def _harden(scores, n_states, mass, best, label, totals):
    """scores -> mass at the first best state of each row, 0 elsewhere; adds the best scores to totals."""
    first_maximum(scores, n_states, best, label)
    for b in range(best.shape[0]):
        totals[0] += mass[b] * best[b] if mass[b] > 0.0 else 0.0
    for k in range(n_states):
        for b in range(best.shape[0]):
            scores[k, b] = mass[b] if label[b] == k else 0.0


@piece
def workspace(products, X, states, width, sums):
    """Where a lane keeps a block: its tiles, of which the first are its columns (D, width), and what it works with.

    Of that, and of nothing else, the lane has to `free` the memory.
    """
    theta = states[1]
    n_features = X.shape[1]
    n_states, n_stats = theta.shape
    n_held = ROWS if products[SCORE_COLUMNS] != 0 else _FEATURE_BYTES // (width * theta.itemsize)
    chunk = -(-min(n_stats, max(1, n_held)) // ROWS) * ROWS
    n_tiles = tile_columns(n_features, X.itemsize)
    in_place = chunk >= n_stats  # the columns are loaded where the features want them
    first = 1 if in_place else chunk
    phi = uncounted_empty(max(chunk, first + n_tiles), width, theta)
    tiles = phi[first:]
    phi = phi[:chunk]
    columns = tiles[:n_features]
    packed = uncounted_empty(n_states, n_stats, theta)
    resp = uncounted_empty(width, padded(n_states, theta.itemsize), theta)
    n_whitened = n_features if products[ADD_WHITENED] != 0 else 0
    n_waiting = n_states + states[2] if n_whitened > 0 or products[INNER] != 0 else 0
    inner = uncounted_empty(n_waiting, -(-n_stats // ROWS) * ROWS + 1, sums)
    room = uncounted_empty(3 * n_whitened + (chunk if states[2] > 0 else 1), width, theta)
    turned = uncounted_empty(2 * width, padded(n_whitened, theta.itemsize), theta)
    second = uncounted_empty(ROWS, turned.shape[1], sums)
    for k in range(inner.shape[0]):
        inner[k, -1] = 0.0  # nothing waits
    clear(turned)
    clear(resp)
    clear(phi[n_stats:])  # rows up to a whole tile, whose products nobody reads
    return tiles, columns, (phi, packed, resp, inner, room, turned, second)


def work_like(like, wide):
    """What a lane works with, by types: arrays of products and of sums."""
    return like, like, like, wide, like, like, wide


@kernel
def _sweep_lane(products, X, weight, frame, states, posterior, skip, first_row, last_row, sums, totals):
    widest_vectors()
    products, X, weight, frame = borrowed(products), borrowed(X), borrowed(weight), borrowed(frame)
    states, skip, sums, totals = borrowed(states), borrowed(skip), borrowed(sums), borrowed(totals)
    theta, tails = states[1], states[5]
    order, gaps, bounds, component, marks, labels = skip
    n_states, n_stats = theta.shape
    width = block_rows(X.shape[0], X.shape[1], n_states, n_stats, theta.itemsize)
    tiles, columns, work = workspace(products, X, states, width, sums)
    scores = uncounted_empty(n_states, width, theta)
    precisions = uncounted_empty(2 * tails.shape[0], width, sums)
    of_rows, wide_of_rows = uncounted_empty(3, width, theta), uncounted_empty(2, width, sums)
    places, of_states = uncounted_empty(2, width, component), uncounted_empty(3, n_states, component)
    best, total, label = of_rows[0], of_rows[1], of_rows[2]
    row_log, mass = wide_of_rows[0], wide_of_rows[1]
    rows, following = places[0], places[1]
    listed, chosen, n_listed = of_states[0], of_states[1], of_states[2]
    expected = sums[:n_stats]
    pruned = gaps.shape[0] > 0 and posterior != GIVEN
    phi = work[PHI]
    panel = panel_rows(width, X.shape[1] * X.itemsize, theta.itemsize)
    by_panels = (
        posterior == SOFTMAX
        and not pruned
        and labels.shape[0] + tails.shape[0] + states[2] == 0
        and (phi.shape[0] >= n_stats or products[SCORE_COLUMNS] != 0)
        and not _goes_direct(n_states, X.shape[1], states[0], states[3], states[2])
    )  # scores are then computed just before they are used
    in_registers = by_panels and products[SHARE_FEW] != 0
    by_products = by_panels and not in_registers
    by_columns = by_products and products[SCORE_COLUMNS] != 0
    for b in range(width):
        mass[b] = 1.0
    place_rows(order, first_row, last_row, following)
    for first in range(first_row, last_row, width):
        block, n_rows = first // width, min(width, last_row - first)
        rows, following = following, rows
        place_rows(order, min(first + width, last_row - 1), last_row, following)
        call_at(products[LOAD], (X, frame, rows, n_rows, tiles))
        alike = posterior == SOFTMAX and weight.shape[0] == 0 and n_rows == width
        if not alike:
            take_weights(posterior, weight, rows, n_rows, mass, columns)
        built = False
        n_listed[0] = n_states
        for k in range(n_states):
            listed[k] = k
        if posterior != GIVEN and not by_panels:
            n_scored = 0
            for stage in range(BURY + 1 if pruned else 1):
                if pruned:
                    call_at(products[EXCLUDE], (stage, skip, block, scores, best, total, chosen, listed, n_listed))
                if n_listed[0] > n_scored:  # never after the last stage, which drops some
                    built = score_states(states, listed, n_scored, n_listed[0], built, products, columns, work, scores)
                    if tails.shape[0] > 0:
                        call_at(products[TAKE_TAILS], (scores, tails, precisions))
                    row_maximum(scores, n_listed[0], best)
                    n_scored = n_listed[0]
            if pruned:
                totals[2] += 0.5 * (n_scored + n_listed[0])
        n_live = n_listed[0]
        if labels.shape[0] > 0:
            first_maximum(scores, n_live, best, label)
            mine = labels[first : first + n_rows]
            scratch = rows  # by now
            call_at(products[LABEL_ROWS], (scores, listed, n_live, best, label, bounds, marks, scratch, mine))
        if posterior == SOFTMAX:
            if by_panels and not by_columns:
                built = True
                call_at(products[BUILD], (states[0], columns, 0, n_stats, phi, True))
            parts = 3 if by_products else 2
            part = panel // parts  # fetched before and after each step: few lines can be on their way at once
            for b in range(0, width, panel):
                fetch_rows(X, following, b, b + part)
                if by_products:
                    if by_columns:
                        call_at(products[SCORE_COLUMNS], (theta, columns, b, b + panel, scores))
                    else:
                        call_at(products[0], (theta, 0, phi, n_states, b, b + panel, n_stats, scores, True))
                    fetch_rows(X, following, b + part, b + 2 * part)
                if in_registers:
                    call_at(products[SHARE_FEW], (theta, phi, mass, b, b + panel, scores, best, total))
                else:
                    call_at(products[SHARE], (scores, n_live, mass, b, b + panel, best, total))
                fetch_rows(X, following, b + (parts - 1) * part, b + panel)
            call_at(products[COUNT], (mass, best, total, row_log, totals))
            if tails.shape[0] > 0:
                call_at(products[TAKE_PRECISIONS], (scores, tails, precisions, states[2], sums))
        elif posterior == HARD:
            call_at(products[HARDEN], (scores, n_live, mass, best, label, totals))
        else:
            for b in range(width):
                for k in range(n_states):
                    scores[k, b] = weight[rows[b], k] if b < n_rows else 0.0
        if by_columns:
            call_at(
                products[ADD_COLUMNS], (columns, scores, work[_TURNED_RESP], phi, work[INNER_SUMS], listed, expected)
            )
        else:
            accumulate_block(states, listed, n_live, scores, built, products, columns, work, expected)
    add_waiting(work[INNER_SUMS], states[2], listed, expected)
    free((work, scores, precisions, of_rows, wide_of_rows, places, of_states))


@kernel
def first_row_of(lane, n_lanes, n_rows, width):
    """First row of a lane: whole blocks, dealt evenly."""
    n_blocks = -(-n_rows // width)
    return min(n_rows, lane * n_blocks // n_lanes * width)


@kernel
def _add_lane(lanes, to, lane):
    widest_vectors()
    for i in range(lanes.shape[1]):
        for j in range(lanes.shape[2]):
            lanes[to, i, j] += lanes[lane, i, j]


@kernel
def join_lanes(turns, lane, parts):
    """Once a lane is done, add up what can be; in the end lane 0 is the sum of all. parts are arrays (lanes, ., .).

    Lanes form a tree, so that the order does not depend on who is first. Who is last of two adds the second to the
    first, and goes on with both as one; whether the other is done tells the entry of turns with the second's number.
    """
    n_lanes, size = parts[0].shape[0], 1
    while size < n_lanes:
        first = lane // (2 * size) * (2 * size)
        second = first + size
        if second < n_lanes:
            if take_number(turns, second) == 0:
                return
            for part in parts:
                _add_lane(part, first, second)
        size *= 2


@kernel
def take_lanes(turns, lane_kernel, products, X, weight, frame, states, posterior, skip, sums, totals):
    """Take lanes of rows, and join them, as long as there are some."""
    n_lanes, n_rows, theta = sums.shape[0], X.shape[0], states[1]
    width = block_rows(n_rows, X.shape[1], theta.shape[0], theta.shape[1], theta.itemsize)
    lane = take_number(turns, 0)
    while lane < n_lanes:
        first, last = first_row_of(lane, n_lanes, n_rows, width), first_row_of(lane + 1, n_lanes, n_rows, width)
        mine, counted = sums[lane], totals[lane]
        clear(mine)  # by the thread that goes on with it
        clear(counted)
        arguments = products, X, weight, frame, states, posterior, skip, first, last, mine, counted[0]
        call_at(lane_kernel, arguments)
        join_lanes(turns, lane, (sums, totals))
        lane = take_number(turns, 0)


def statistics(X, weight, frame, states, posterior, n_threads, skip=NOTHING):
    """Expected sufficient statistics of all rows, one pass.

    Parameters
    ----------
    X : (N, D) float32 or float64, C-ordered
    weight : (N, 1), (0, 1) for weights of one, or (N, K) responsibilities times weights if posterior is GIVEN; float64
    frame : (2, D) float64, centre and scale: the kernel sees (X - centre) * scale
    states : States
    posterior : int, code of `posteriors`
    n_threads : int
    skip : Skip, see `pruning`

    Returns
    -------
    sums : (K, P) float64; with tails (K, P + 2), of rows times their precision, of rows, and of expected log-precisions
    log_likelihood : float, sum of weight * log-normaliser
    n_lost : int, rows that no state can have produced
    n_pairs : float, mean number of pairs of a block and a state that were scored, and added up, if pairs are skipped
    """
    theta, n_thin = states.theta, states.n_thin
    unit = weight_unit(weight, theta)
    if unit != 1.0:
        weight = weight / unit
    arguments = sweep_arguments(X, weight, frame, states, posterior, skip)
    *_, sums, totals = arguments
    run_lanes(take_lanes, arguments, len(X) * theta.size, len(sums), n_threads)
    sums, totals = sums[0], totals[0, 0]
    n_fast, n_columns = len(theta) - n_thin, sums.shape[1]
    if n_thin and n_columns > len(theta):  # columns of padding lie before those of the thin states
        sums = np.delete(sums, np.s_[n_fast : n_columns - n_thin], axis=1)
    sums = sums[:, : len(theta)]
    return np.ascontiguousarray(sums.T) * unit, float(totals[0]) * unit, int(totals[1]), float(totals[2])


def sweep_arguments(X, weight, frame, states, posterior, skip=NOTHING):
    """What the entries of a sweep take: all that its lanes need, with sums and totals, which they clear, at the end."""
    theta, n_stats = states.theta, states.theta.shape[1]
    n_columns = int(padded(len(theta) - states.n_thin, theta.itemsize)) + states.n_thin
    n_lanes = _n_lanes(len(X), n_columns, n_stats, X.shape[1], theta)
    sums = np.empty((n_lanes, n_stats + (2 if len(states.tails) else 0), n_columns))
    totals = np.empty((n_lanes, 1, 3))
    products = lane_addresses(X, frame, states, sums[0], posterior, skip)
    arguments = (products, X, weight, frame, tuple(states), posterior, tuple(skip))
    assert all(
        a.flags.c_contiguous for a in (X, weight, frame, theta, states.whitener, states.tails, *skip)
    )  # the lane sees no types
    lane = address(_sweep_lane, (*arguments, 0, 0, sums[0], totals[0, 0]))
    return lane, *arguments, sums, totals


def turns_for(work, n_lanes, n_threads):
    """Turns for lanes: as many rows as there are threads, one if the work is too short to share.

    Only the first row is used: it counts the lanes that were taken, then, for `join_lanes`, how many of two lanes are
    done, at the number of the second. Lanes that are joined are no more than _MAX_LANES.
    """
    n_rows = n_threads if n_lanes > 1 and work >= _SERIAL_WORK else 1
    return np.zeros((n_rows, max(1, min(n_lanes, _MAX_LANES))), np.int64)


def runner_for(turns):
    """What makes a call that takes these turns."""
    return run_together if len(turns) > 1 else run_alone


def region(turns):
    """What to enter around lanes with these turns."""
    return _jit.parallel_region(len(turns)) if len(turns) > 1 else contextlib.nullcontext()


def _row_addresses(X, frame, theta):
    """Addresses of what loads a block, builds its features and turns it; of codes nothing of the kind is taken."""
    if X.dtype.kind != "f":
        return 0, 0, 0
    like, rows = np.empty((0, 0), theta.dtype), np.empty(0, np.int64)
    return (
        address(load_columns, (X, frame, rows, 0, like), (X.dtype, theta.dtype)),
        address(build_features, (0, like, 0, 0, like, True), theta.dtype),
        address(turn, (like, 0, 0, like), theta.dtype),
    )


def lane_addresses(X, frame, states, sums, posterior, skip=NOTHING):
    """Addresses of what a lane calls; of what these states and this pass have no use for, 0, and it is not compiled."""
    theta, is_skipping = states.theta, len(skip.gaps) > 0
    n_stats, n_fast, n_thin = theta.shape[1], len(theta) - states.n_thin, states.n_thin
    is_direct = _goes_direct(len(theta), states.whitener.shape[2], states.feature_map, states.whitener, n_thin)
    may_be_few = not (is_skipping or is_direct or n_thin or len(states.tails))
    of_posterior = _posterior_addresses(theta, sums, posterior, may_be_few)
    is_plain = (
        states.feature_map == FULL and posterior == SOFTMAX and may_be_few and not (len(skip.labels) or of_posterior[1])
    )
    return address_array(
        (
            *product_addresses(theta, sums),
            inner_address(theta, sums) if n_fast and (is_skipping or is_inner(n_stats, n_fast, theta.itemsize)) else 0,
            *of_posterior,
            *tail_addresses(states.tails, theta, sums),
            *_whitened_addresses(states, sums, is_skipping),
            exclude_address(skip, theta),
            label_address(skip, theta),
            *_row_addresses(X, frame, theta),
            *(quadratic_addresses(theta, sums, X.shape[1]) if is_plain else (0, 0)),
        )
    )


def weight_unit(weight, theta):
    """Power of two to divide weights by: responsibilities times weights must lie inside the range of float32."""
    if theta.dtype != np.float32 or len(weight) == 0:
        return 1.0
    largest = weight.max()
    if largest == 0.0 or 2.0**-20 < largest < 2.0**20:
        return 1.0
    return 2.0 ** np.floor(np.log2(largest))


def _n_lanes(n_rows, n_columns, n_stats, n_features, theta):
    """Lanes for a shape, whatever the number of threads."""
    n_blocks = -(-n_rows // block_rows(n_rows, n_features, len(theta), n_stats, theta.itemsize))
    wanted = min(_MAX_LANES, n_blocks // _LANE_BLOCKS, _LANE_BYTES // (8 * n_stats * n_columns))
    return min(n_blocks, max(_MIN_LANES, wanted))


def call_for(take, turns, arguments):
    """The call of a kernel that takes lanes, for `runner_for`; the caller keeps the arrays alive."""
    return kept(take, (turns, *arguments))


def run_lanes(take, arguments, work, n_lanes, n_threads):
    """Let one thread or several take lanes, as the work is; the bits are the same."""
    turns = turns_for(work, n_lanes, n_threads)
    call = call_for(take, turns, arguments)
    with region(turns):
        runner_for(turns)(turns, call)


@kernel
def _score_lane(products, X, frame, states, wanted, first_row, last_row, log_prob, labels, resp):
    feature_map, theta, _, whitener, peak, tails = states
    n_features = X.shape[1]
    n_fast, n_stats = theta.shape
    n_states = n_fast + peak.shape[0]
    width = block_rows(X.shape[0], n_features, n_states, n_stats, theta.itemsize)
    phi = aligned_empty(max(n_stats, 1 + tile_columns(n_features, X.itemsize)), width, theta)
    tiles = phi[1:]
    columns = tiles[:n_features]
    y = aligned_empty(n_features, width, theta)
    scores = aligned_empty(n_states, width, theta)
    precisions = aligned_empty(2 * tails.shape[0], width, tails)
    best, total, mass = np.empty(width), np.empty(width), np.ones(width)
    rows, following = np.empty(width, np.int64), np.empty(width, np.int64)
    place_rows(NO_ORDER, first_row, last_row, following)
    for first in range(first_row, last_row, width):
        n_rows = min(width, last_row - first)
        rows, following = following, rows
        place_rows(NO_ORDER, min(first + width, last_row - 1), last_row, following)
        load_columns(X, frame, rows, n_rows, tiles)
        if n_fast > 0:
            build_features(feature_map, columns, 0, n_stats, phi, True)
            call_at(products[0], (theta, 0, phi, n_fast, 0, width, n_stats, scores, True))
        for k in range(n_states):
            fetch_rows(X, following, k * width // n_states, (k + 1) * width // n_states)
            if k < n_fast:
                continue
            row = scores[k]
            if whitener.shape[1] == 2 * n_features + 1:
                whiten_exactly(columns, whitener[k - n_fast], y)
                squared_norm(y, row)
            else:
                distance(columns, whitener[k - n_fast], row)
            for b in range(width):
                row[b] = peak[k - n_fast] - 0.5 * row[b]
        if tails.shape[0] > 0:
            call_at(products[1], (scores, tails, precisions))
        if wanted == SCORE:
            turn(scores, n_states, n_rows, resp[first : first + n_rows])
            continue
        if wanted == LABEL:
            row_maximum(scores, n_states, best)
            first_maximum(scores, n_states, best, total)
            for b in range(n_rows):
                labels[first + b] = np.int64(total[b])
            continue
        softmax(scores, n_states, mass, best, total)
        if wanted == LOG_DENSITY:
            log_normalizer(best, total, best)
            for b in range(n_rows):
                log_prob[first + b] = best[b]
            continue
        turn(scores, n_states, n_rows, resp[first : first + n_rows])


@kernel
def take_rows(turns, lane_kernel, products, X, frame, states, wanted, log_prob, labels, resp):
    """Take lanes of rows that are scored, as long as there are some."""
    n_rows, theta = X.shape[0], states[1]
    width = block_rows(n_rows, X.shape[1], theta.shape[0] + states[4].shape[0], theta.shape[1], theta.itemsize)
    n_lanes = min(_MAX_LANES, -(-n_rows // width))
    lane = take_number(turns, 0)
    while lane < n_lanes:
        first, last = first_row_of(lane, n_lanes, n_rows, width), first_row_of(lane + 1, n_lanes, n_rows, width)
        call_at(lane_kernel, (products, X, frame, states, wanted, first, last, log_prob, labels, resp))
        lane = take_number(turns, 0)


def score(X, frame, states, n_threads, wanted=LOG_DENSITY):
    """Log-normaliser (N,), best state (N,) int64, responsibilities (N, K) or scores (N, K) of each row.

    States are taken by features if they have a theta, and whitened if not; the arguments are those of `statistics`.
    """
    n_rows, n_states = len(X), len(states.theta) + len(states.peak)
    log_prob = np.empty(n_rows if wanted == LOG_DENSITY else 0)
    labels = np.empty(n_rows if wanted == LABEL else 0, np.int64)
    resp = np.empty((n_rows if wanted in (POSTERIOR, SCORE) else 0, n_states))
    theta, tails = states.theta, states.tails
    products = product_addresses(theta, theta)[0], tail_addresses(tails, theta, theta)[0]
    arguments = (products, X, frame, tuple(states), wanted)
    assert all(a.flags.c_contiguous for a in (X, frame, theta, states.whitener, tails))
    lane_kernel = address(_score_lane, (*arguments, 0, 0, log_prob, labels, resp))
    arguments = (lane_kernel, *arguments, log_prob, labels, resp)
    work = n_rows * (theta.size + states.whitener.size)
    run_lanes(take_rows, arguments, work, n_rows, n_threads)
    return {LOG_DENSITY: log_prob, LABEL: labels}.get(wanted, resp)
