"""Each kernel against a plain oracle, in both dtypes."""

import gc
import itertools
import math
import os
import warnings
from typing import ClassVar

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import config, types
from numba.core.event import Listener, install_listener
from numba.core.runtime import _nrt_python, rtsys
from numpy.testing import assert_allclose, assert_array_equal

import fastem
from fastem import Gaussian, GaussianHMM, Mixture
from fastem.kernels import _calls, _jit, layout, sweep, whiten
from fastem.kernels._arrays import free
from fastem.kernels._calls import take_number
from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel, widest_vectors
from fastem.kernels.completion import completed_rows
from fastem.kernels.components import (
    invert_roots,
    invert_roots_of_wide,
    natural_full,
    natural_of_wide,
    take_logs,
)
from fastem.kernels.double_double import two_product, two_sum, whiten_exactly, whitener_of
from fastem.kernels.exp_log import _exp_32, _exp_64, log
from fastem.kernels.exponentials import _few_states, few_address, softmax, softmax_panel
from fastem.kernels.features import DIAGONAL, FULL, LINEAR, SPHERICAL, build_features, n_statistics, weigh
from fastem.kernels.inner_products import _inner_tile_plain, add_inner_products, is_inner
from fastem.kernels.layout import _load_tile_plain, _turn_tile_plain, load_columns, tile_columns, turn
from fastem.kernels.log_likelihood import _note, _note_plain, sum_logs
from fastem.kernels.posteriors import GIVEN, HARD, SOFTMAX, first_maximum, least_difference, row_maximum
from fastem.kernels.products import ROWS, _tile_plain, product
from fastem.kernels.pruning import WINDOW, place_rows
from fastem.kernels.quadratics import _quadratic_scores, _scores, add_quadratics, quadratic_addresses
from fastem.kernels.sweep import States, by_features
from fastem.kernels.whiten import _distance_tile_plain, distance

MAPS = {"linear": LINEAR, "diagonal": DIAGONAL, "spherical": SPHERICAL, "full": FULL}


def features_of(name, x):
    """The feature map of rows (n, D), written out."""
    n, d = x.shape
    quadratic = {
        "linear": np.empty((n, 0)),
        "diagonal": x**2,
        "spherical": (x**2).sum(1, keepdims=True),
        "full": np.stack([x[:, i] * x[:, j] for i in range(d) for j in range(i + 1)], axis=1),
    }[name]
    return np.concatenate([np.ones((n, 1)), x, quadratic], axis=1)


# exp and log


@pytest.mark.parametrize(("function", "dtype", "low"), [(_exp_64, np.float64, -700.0), (_exp_32, np.float32, -70.0)])
def test_exp_is_within_an_ulp(function, dtype, low, rng):
    x = np.concatenate([rng.uniform(low, 0, 3000), -np.logspace(-20, 0, 200), [0.0]]).astype(dtype)
    got = np.array([function(v) for v in x], dtype)
    with mpmath.workdps(30):
        want = [mpmath.exp(mpmath.mpf(float(v))) for v in x]
        error = [
            abs(mpmath.mpf(float(g)) - w) / mpmath.mpf(float(np.spacing(dtype(w))))
            for g, w in zip(got, want, strict=True)
        ]
    assert max(error) < 1.0


@pytest.mark.parametrize(("dtype", "low"), [(np.float64, -700.0), (np.float32, -70.0)])
@pytest.mark.parametrize("width", [1, 15, 16, 32, 203])
@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_of_a_block(dtype, low, width, weighted, rng):
    """Within some roundings, and what the argument times 16 / ln 2 is rounded by; 0 below the smallest."""
    eps = np.finfo(dtype).eps
    scores = np.where(rng.random((5, width)) < 0.2, 0.0, rng.uniform(low, 0, (5, width))).astype(dtype)
    scores[0, ::7], scores[2, ::5], scores[3] = -np.inf, 1.01 * low, 0.0
    scores[:4] += rng.normal(size=width).astype(dtype)
    scores[:4, width // 2] = -np.inf  # no state can have produced this row
    first, last = width // 3, width - width // 5
    inside = np.zeros(width, bool)
    inside[first:last] = True
    mass = rng.uniform(0, 3, width) if weighted else np.ones(width)
    got, best, total = scores.copy(), np.full(width, np.nan, dtype), np.full(width, np.nan, dtype)
    softmax_panel(got, 4, mass, first, last, best, total)
    top = np.maximum(scores[:4].max(axis=0), np.finfo(dtype).min)
    x = (scores[:4] - top).astype(np.longdouble)
    e = np.where(x >= low, np.exp(x), 0.0)
    sums = e.sum(axis=0)
    want = e / np.where(sums > 0, sums, 1.0) * mass
    assert_array_equal(got[:4, inside][want[:, inside] == 0], 0.0)
    assert (np.abs(got[:4] - want) <= eps * (9.0 + np.abs(np.maximum(x, low))) * want)[:, inside].all()
    assert_array_equal(best[inside], top[inside])
    np.testing.assert_allclose(total[inside], sums[inside].astype(dtype), rtol=8 * eps)
    assert_array_equal(got[:, ~inside], scores[:, ~inside])
    assert_array_equal(got[4], scores[4])
    assert np.isnan(best[~inside]).all()
    assert np.isnan(total[~inside]).all()
    whole, outputs = scores.copy(), (best.copy(), total.copy())
    softmax(whole, 4, mass, *outputs)
    assert_array_equal(whole[:, inside], got[:, inside])
    assert_array_equal(outputs[0], top)


@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-13), (np.float32, 1e-5)])
@pytest.mark.parametrize("n_states", range(1, 9))
def test_scores_of_few_states_need_no_memory(dtype, close, n_states, rng):
    for n_stats in (1, 6, 17):
        width, first, last = 96, 16, 80
        theta = rng.normal(size=(n_states, n_stats)).astype(dtype)
        theta[-1, 0] = -np.inf  # a component without weight
        phi = rng.normal(size=(n_stats, width)).astype(dtype)
        phi[0] = 1.0
        mass, scores = rng.uniform(0, 3, width), np.zeros((n_states, width), dtype)
        product(theta, 0, phi, n_states, first, last, n_stats, scores, True)
        want, best, total = scores.copy(), np.zeros(width, dtype), np.zeros(width, dtype)
        softmax_panel(want, n_states, mass, first, last, best, total)
        got, outputs = np.zeros_like(want), (np.zeros(width, dtype), np.zeros(width, dtype))
        _few_states(n_states)(theta, phi, mass, first, last, got, *outputs)
        np.testing.assert_allclose(got, want, rtol=close, atol=close)
        np.testing.assert_allclose(outputs, (best, total), rtol=close, atol=close)
        assert_array_equal(got[:, :first], 0.0)
        assert_array_equal(got[:, last:], 0.0)
    assert few_address(np.zeros((9, 3), dtype)) == 0


@pytest.mark.parametrize(("function", "dtype"), [(_exp_64, np.float64), (_exp_32, np.float32)])
def test_exp_flushes_to_zero(function, dtype):
    assert function(dtype(-np.inf)) == 0.0
    assert function(dtype(-1e30)) == 0.0
    assert function(dtype(0.0)) == 1.0
    assert math.isnan(function(dtype(np.nan))) or function(dtype(np.nan)) == 0.0


def test_log_is_within_an_ulp(rng):
    x = np.concatenate([np.exp(rng.uniform(-700, 700, 3000)), 1 + rng.uniform(-1e-8, 1e-8, 500), [1.0, 2.0, 0.5]])
    got = np.array([log(v) for v in x])
    with mpmath.workdps(40):
        want = [mpmath.log(mpmath.mpf(float(v))) for v in x]
        error = [
            abs(mpmath.mpf(g) - w) / mpmath.mpf(float(np.spacing(abs(float(w)))))
            for g, w in zip(got, want, strict=True)
            if w
        ]
    assert max(error) < 1.0
    assert log(1.0) == 0.0


# double-double


@given(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_error_free_transformations(a, b):
    with mpmath.workdps(700):
        s, e = two_sum(a, b)
        assert mpmath.mpf(s) + mpmath.mpf(e) == mpmath.mpf(a) + mpmath.mpf(b)
        if abs(a * b) > 1e-250:
            p, e = two_product(a, b)
            assert mpmath.mpf(p) + mpmath.mpf(e) == mpmath.mpf(a) * mpmath.mpf(b)


def test_double_double_whitener_of_a_hilbert_matrix():
    n = 8
    hilbert = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
    whitener, lower = np.zeros((2 * n, n)), np.zeros((2, n, n))
    assert whitener_of(hilbert, lower, whitener)
    with mpmath.workdps(60):
        want = mpmath.cholesky(mpmath.matrix(hilbert.tolist())) ** -1
        x = np.linspace(1, 2, n)
        y = np.zeros((n, 1))
        whiten_exactly(np.ascontiguousarray(x[:, None]), np.vstack([whitener, np.zeros((1, n))]), y)
        image = want * mpmath.matrix(x.tolist())
        for i in range(n):
            assert abs(mpmath.mpf(y[i, 0]) - image[i]) <= 4e-16 * abs(image[i])
            for j in range(i + 1):
                got = mpmath.mpf(whitener[i, j]) + mpmath.mpf(whitener[n + i, j])
                assert abs(got - want[i, j]) <= mpmath.mpf(10) ** -20 * abs(want[i, j])


def test_double_double_whitener_refuses_an_indefinite_matrix():
    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])
    assert not whitener_of(matrix, np.zeros((2, 2, 2)), np.zeros((4, 2)))


# products


def shapes():
    return [(m, n, depth) for m in (1, 2, 3, 5, 7, 8, 13, 24) for n in (1, 2, 3, 4, 5, 7) for depth in (1, 2, 17)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("wide", [False, True], ids=["same", "float64-sums"])
@pytest.mark.parametrize("fresh", [False, True])
def test_product_matches_the_oracle_and_touches_nothing_else(dtype, wide, fresh, rng):
    half = VECTOR_BYTES // 2 // np.dtype(dtype).itemsize
    for m, halves, depth in shapes():
        n = halves * half
        a = rng.normal(size=(m, depth + 3)).astype(dtype)
        b = rng.normal(size=(depth, n + 5)).astype(dtype)
        c = rng.normal(size=(m + 2, n + 7)).astype(np.float64 if wide else dtype)
        want = c.copy()
        if fresh:
            c[:m, :n] = np.nan
            want[:m, :n] = 0.0
        want[:m, :n] += a[:, 2 : 2 + depth].astype(np.float64) @ b[:, :n]
        first = half * int(rng.integers(halves))
        product(a, 2, b, m, 0, first, depth, c, fresh)
        product(a, 2, b, m, first, n, depth, c, fresh)
        np.testing.assert_allclose(
            c[:m, :n],
            want[:m, :n],
            rtol=2e-4 if dtype == np.float32 else 1e-12,
            atol=1e-5 if dtype == np.float32 else 1e-12,
        )
        assert np.array_equal(c[m:], want[m:])
        assert np.array_equal(c[:, n:], want[:, n:])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("wide", [False, True], ids=["same", "float64-sums"])
def test_inner_products_match_the_oracle_and_touch_nothing_else(dtype, wide, rng):
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for m, n, vectors in itertools.product((1, 3, 6, 7, 8, 13, 24), (1, 2, 3, 4, 5, 8), (1, 2, 6)):
        high, depth = -(-m // ROWS) * ROWS, vectors * lanes
        a = rng.normal(size=(high, depth + 3)).astype(dtype)
        b = rng.normal(size=(n + 1, depth + 1)).astype(dtype)
        a[m:], b[n:] = np.nan, np.nan
        places = rng.permutation(n + 2)
        sums = rng.normal(size=(n + 2, high + 3)).astype(np.float64 if wide else dtype)
        want = sums.copy()
        want[places[:n], 2 : 2 + m] += b[:n, :depth].astype(np.float64) @ a[:m, :depth].astype(np.float64).T
        add_inner_products(a, m, b, n, depth, sums, 2, places)
        close = {"rtol": 2e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
        sums[:, 2 + m : 2 + high] = want[:, 2 + m : 2 + high]  # up to a whole tile there is room
        np.testing.assert_allclose(sums, want, **close)
        assert np.array_equal(sums[places[n:]], want[places[n:]])
        assert np.array_equal(sums[:, :2], want[:, :2])
        assert np.array_equal(sums[:, 2 + high :], want[:, 2 + high :])


def test_the_plain_inner_tile_is_a_product(rng):
    a, b, c = rng.normal(size=(ROWS + 1, 7)), rng.normal(size=(3, 7)), np.ones((3, ROWS + 2))
    places = np.array([5, 0, 2])
    _inner_tile_plain(a, 8, 7, b, 8, 7, c, 1, c.shape[1], places, 1, 6, ROWS, 2)
    np.testing.assert_allclose(c[[0, 2], 1:-1], 1.0 + b[1:, 1:] @ a[1:, 1:].T)
    assert np.all(c[1] == 1.0)
    assert np.all(c[:, [0, -1]] == 1.0)


@pytest.mark.parametrize("fresh", [False, True])
def test_the_plain_tile_is_a_product(fresh, rng):
    a, b, c = rng.normal(size=(3, 6)), rng.normal(size=(6, VECTOR_BYTES // 8 + 1)), np.zeros((4, VECTOR_BYTES // 8 + 2))
    _tile_plain(a, 6, 6, b, 1, b.shape[1], c, c.shape[1] + 1, c.shape[1], 6, fresh, 2, 1, 1)
    np.testing.assert_allclose(c[1:3, 1:-1], a[1:] @ b[:, 1:])
    assert not c[[0, 3]].any()
    assert not c[:, [0, -1]].any()


# rows to columns


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_turning_is_transposing_and_touches_nothing_else(dtype, rng):
    side = VECTOR_BYTES // np.dtype(dtype).itemsize
    for m, n in [(1, 1), (3, side), (side, side), (2 * side + 1, side + 3), (side - 1, 3 * side)]:
        a = rng.normal(size=(m + 1, n + 2)).astype(dtype)
        out = np.full((n + 3, m + 1), 7.0, dtype)
        turn(a, m, n, out)
        assert np.array_equal(out[:n, :m], a[:m, :n].T)
        assert (out[n:] == 7.0).all()
        assert (out[:, m:] == 7.0).all()


def test_the_plain_tile_turns(rng):
    side = VECTOR_BYTES // 8
    a, out = rng.normal(size=(side, side + 1)), np.zeros((side, side + 2))
    _turn_tile_plain(a, 1, side + 1, out, 2, side + 2)
    assert np.array_equal(out[:, 2:], a[:, 1:].T)


@pytest.mark.parametrize("tile", ["compiled", "plain"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("out_dtype", [np.float32, np.float64])
def test_rows_are_loaded_as_columns(tile, dtype, out_dtype, rng, monkeypatch):
    load, width = load_columns, 48
    if tile == "plain":
        load = getattr(load_columns, "py_func", load_columns)
        monkeypatch.setattr(layout, "_load_tile", _load_tile_plain)
    for n_features in (1, 2, 5, 8, 16, 19):
        X = rng.normal(size=(60, n_features)).astype(dtype)
        center = rng.normal(size=n_features).astype(dtype)
        frame = np.stack([center.astype(np.float64), np.exp2(rng.integers(-3, 3, n_features))])
        in_order = np.minimum(np.arange(width) + 30, 59)
        for rows, n_rows in [(in_order, 30), (rng.integers(0, 60, width), width), (np.full(width, 59), 1)]:
            tiles = np.full((tile_columns(n_features, X.itemsize), width), np.nan, out_dtype)
            load(X, frame, rows, n_rows, tiles)
            want = ((X[rows].astype(np.float64) - frame[0]) * frame[1]).astype(out_dtype).T
            assert np.array_equal(tiles[:n_features, :n_rows], want[:, :n_rows])
            assert not tiles[:n_features, n_rows:].any()


# whitening


@pytest.mark.parametrize("tile", ["compiled", "plain"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 7, 8, 19])
def test_distance_is_the_norm_of_whitened_rows(tile, dtype, n_features, rng, monkeypatch):
    measure, width = distance, 96
    if tile == "plain":
        measure = getattr(distance, "py_func", distance)
        monkeypatch.setattr(whiten, "_distance_tile", _distance_tile_plain)
    columns = rng.normal(size=(n_features, width)).astype(dtype)
    mean, root = rng.normal(size=n_features), np.tril(rng.normal(size=(n_features, n_features)))
    out = np.full(width, np.nan, dtype)
    measure(columns, np.vstack([root, mean]).astype(dtype), out)
    rtol = 1e-13 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(out, ((root @ (columns - mean[:, None])) ** 2).sum(axis=0), rtol=rtol)
    deviations = rng.random(n_features)
    measure(columns, np.vstack([deviations, mean]).astype(dtype), out)
    if n_features > 1:  # with one column the two forms are the same
        want = ((deviations[:, None] * (columns - mean[:, None])) ** 2).sum(axis=0)
        np.testing.assert_allclose(out, want, rtol=rtol)


# features


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_features_whole_and_in_chunks(name, n_features, rng):
    x = rng.normal(size=(7, n_features))
    frame = np.stack([rng.normal(size=n_features), np.exp2(rng.integers(-3, 3, n_features))])
    tiles = np.full((tile_columns(n_features, x.itemsize), 48), np.nan)
    columns = tiles[:n_features]
    X = np.concatenate([np.full((2, n_features), 9.0), x])
    load_columns(X, frame, np.minimum(np.arange(2, 50), len(X) - 1), 7, tiles)
    assert not columns[:, 7:].any()
    want = features_of(name, (x - frame[0]) * frame[1]).T
    n_stats = n_statistics(MAPS[name], n_features)
    assert want.shape[0] == n_stats
    for chunk in (n_stats, 1, 3):
        for first in range(0, n_stats, chunk):
            last = min(n_stats, first + chunk)
            phi = np.full((last - first, 48), np.nan)
            build_features(MAPS[name], columns, first, last, phi, False)
            np.testing.assert_allclose(phi[:, :7], want[first:last], rtol=1e-15)
            assert np.isfinite(phi).all()


@helper
def _weighed(source, d, mass, weighted):
    return weigh(source, d, mass, weighted)


@helper
def _least(values, others):
    return least_difference(values, others)


@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-14), (np.float32, 1e-6)])
@pytest.mark.parametrize("width", [48, 96, 384])
def test_rows_of_a_block_are_weighed_and_compared_in_vectors(width, dtype, close, rng):
    source, mass = rng.normal(size=(3, width)).astype(dtype), rng.uniform(size=width).astype(dtype)
    weighted = np.zeros_like(source)
    total = _weighed(source, 1, mass, weighted)
    assert_array_equal(weighted[1], source[1] * mass)
    assert not weighted[[0, 2]].any()
    assert total == pytest.approx(math.fsum(weighted[1].astype(float)), rel=close, abs=10 * close)
    values, others = source[0], source[2]
    assert _least(values, others) == (values - others).min()
    others[-1] = -np.inf  # a state without weight
    assert _least(values, others) == (values - others)[np.isfinite(others)].min(initial=np.inf)
    for place in (0, width // 2, width - 1):
        low = values.copy()
        low[place] = -1e30
        assert _least(low, np.zeros_like(low)) == low[place]
        low[place] = np.nan
        assert math.isnan(_least(low, others))


@pytest.mark.parametrize("in_order", [False, True])
def test_rows_are_placed_within_their_windows(in_order, rng):
    n_rows = WINDOW + 1000
    order = np.empty(0, np.uint16)
    want = np.arange(n_rows)
    if in_order:
        parts = [rng.permutation(WINDOW), rng.permutation(1000)]
        order, want = np.concatenate(parts).astype(np.uint16), np.concatenate([parts[0], WINDOW + parts[1]])
    for first, last in ((0, n_rows), (WINDOW - 50, n_rows), (n_rows - 7, n_rows), (96, 100)):
        rows = np.full(96, -1)
        place_rows(order, first, last, rows)
        assert_array_equal(rows, want[np.minimum(np.arange(first, first + 96), last - 1)])


@pytest.mark.skipif(VECTOR_BYTES < 64, reason="fewer registers")
@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-13), (np.float32, 1e-5)])
@pytest.mark.parametrize("n_features", range(2, 9))
def test_scores_and_sums_of_quadratics_need_few_features(n_features, dtype, close, rng):
    n_stats, width, first, last = n_statistics(FULL, n_features), 192, 48, 144
    columns = rng.normal(size=(n_features, width)).astype(dtype)
    phi = features_of("full", columns.T).T
    for n_states in (1, 9, 16, 40):
        theta = rng.normal(size=(n_states, n_stats)).astype(dtype)
        theta[-1, 0] = -np.inf  # a component without weight
        scores = np.zeros((n_states, width), dtype)
        _quadratic_scores(n_features)(theta, columns, first, last, scores)
        np.testing.assert_allclose(scores[:, first:last], (theta @ phi)[:, first:last], rtol=close, atol=20 * close)
        assert_array_equal(scores[:, :first], 0.0)
        assert_array_equal(scores[:, last:], 0.0)
        resp, listed = rng.uniform(size=(n_states, width)).astype(dtype), np.arange(n_states)
        turned = np.zeros((width, sweep.padded(n_states, resp.itemsize)), dtype)
        for by_inner in (False, True):
            inner, sums = (
                np.full((n_states * by_inner, -(-n_stats // ROWS) * ROWS + 1), np.nan),
                np.zeros((n_stats, 40)),
            )
            inner[:, -1] = 0.0
            for _ in range(2):
                add_quadratics(columns, resp, turned, np.full((ROWS, width), np.nan, dtype), inner, listed, sums)
            got = inner[:, :n_stats].T if by_inner else sums[:, :n_states]
            np.testing.assert_allclose(got, 2.0 * phi @ resp.T, rtol=10 * close, atol=100 * close)
            assert not sums[:, n_states * (not by_inner) :].any()


def test_quadratics_of_many_columns_take_features():
    assert quadratic_addresses(np.zeros((9, 55)), np.zeros((55, 9)), 9) == (0, 0)
    assert quadratic_addresses(np.zeros((9, 3)), np.zeros((3, 9)), 1) == (0, 0)
    assert quadratic_addresses(np.zeros((1, 15)), np.zeros((15, 1)), 4) == (0, 0)  # the start of every fit


@pytest.mark.skipif(VECTOR_BYTES < 64 or PLAIN, reason="fewer registers, or loops")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_columns_of_quadratics_stay_in_registers(dtype):
    @helper
    def scores_of_eight(theta, columns, first, last, scores):
        _scores(theta, columns, 8, first, last, scores)

    columns = np.zeros((8, 96), dtype)
    scores_of_eight(np.zeros((2, 45), dtype), columns, 0, 96, columns)
    lines = _assembly(scores_of_eight)
    start = next(i for i, line in enumerate(lines) if line.startswith("fastem_quadratic_8"))
    code = list(itertools.takewhile(lambda line: "cfi_endproc" not in line, lines[start:]))
    assert sum("vfmadd" in line and "zmm" in line for line in code) == 3 * (36 + 8)
    assert sum("zmm" in line and "rsp" in line for line in code) <= 4  # one column, at most, lies on the stack


# the sweep


def sweep_oracle(name, x, weight, theta, posterior, n_thin, whitener):
    scores = features_of(name, x) @ theta.T
    n_fast = len(theta) - n_thin
    ys = []
    for t in range(n_thin):
        w, mean = whitener[t, :-1], whitener[t, -1]
        y = (x - mean) * w if len(w) == 1 and x.shape[1] > 1 else (x - mean) @ w.T
        ys.append(y)
        scores[:, n_fast + t] = theta[n_fast + t, 0] - 0.5 * (y**2).sum(axis=1)
    best = scores.max(axis=1)
    if posterior == SOFTMAX:
        e = np.exp(scores - best[:, None])
        resp, value = e / e.sum(axis=1, keepdims=True), best + np.log(e.sum(axis=1))
    elif posterior == HARD:
        resp, value = np.eye(len(theta))[scores.argmax(axis=1)], best
    else:
        resp, value = weight, np.zeros(len(x))
    w = np.ones(len(x)) if weight.shape[0] == 0 else weight[:, 0]
    resp = resp if posterior == GIVEN else resp * w[:, None]
    sums = resp.T @ features_of(name, x)
    for t, y in enumerate(ys):
        sums[n_fast + t] = resp[:, n_fast + t] @ features_of(name, y)
    return sums, float(w @ value) if posterior != GIVEN else 0.0


@pytest.mark.parametrize("posterior", [SOFTMAX, HARD, GIVEN], ids=["softmax", "hard", "given"])
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])
def test_sweep_matches_the_oracle(name, posterior, dtype, rng):
    for n_rows, n_features, n_states, n_thin, weighted in [
        (1, 1, 1, 0, False),
        (500, 3, 5, 0, True),
        (901, 2, 4, 2, False),
        (97, 4, 3, 3, True),
        (777, 6, 13, 5, True),
        (400, 9, 33, 1, False),
        (1000, 2, 8, 0, False),
        (700, 5, 9, 0, False),
        (901, 8, 16, 0, True),
        (600, 7, 40, 0, False),
    ]:
        x = rng.normal(size=(n_rows, n_features)).astype(dtype).astype(np.float64)
        theta = rng.normal(size=(n_states, n_statistics(MAPS[name], n_features))) * 0.3
        theta[:, 1 + n_features :] = -np.abs(theta[:, 1 + n_features :])
        theta[n_states - n_thin :, 1:] = 0.0
        theta = theta.astype(dtype).astype(np.float64)
        rows = n_features if name == "full" else 1
        whitener = (
            np.concatenate(
                [
                    np.tril(
                        rng.normal(size=(n_thin, rows, n_features))
                        if rows > 1
                        else np.abs(rng.normal(size=(n_thin, 1, n_features))),
                        k=0 if rows > 1 else n_features,
                    ),
                    rng.normal(size=(n_thin, 1, n_features)),
                ],
                axis=1,
            )
            .astype(dtype)
            .astype(np.float64)
        )
        weight = rng.integers(0, 3, size=(n_rows, 1)).astype(float) if weighted else np.empty((0, 1))
        if posterior == GIVEN:
            weight = rng.dirichlet(np.ones(n_states), size=n_rows)
        frame = np.stack([np.zeros(n_features), np.ones(n_features)])
        peak = theta[n_states - n_thin :, 0].copy()
        states = States(MAPS[name], theta.astype(dtype), n_thin, whitener.astype(dtype), peak)
        sums, log_likelihood, n_lost, _ = sweep.statistics(x.astype(dtype), weight, frame, states, posterior, 1)
        want, value = sweep_oracle(name, x, weight, theta, posterior, n_thin, whitener)
        tolerance = 1e-11 if dtype == np.float64 else 2e-4
        np.testing.assert_allclose(sums, want, rtol=tolerance, atol=tolerance * n_rows**0.5 * 10)
        assert log_likelihood == pytest.approx(value, rel=tolerance, abs=tolerance)
        assert n_lost == 0


@pytest.mark.parametrize("n_states", [3, 16, 19])
@pytest.mark.parametrize("n_features", [40, 60])
def test_sweep_in_chunks_of_features_matches_the_oracle(n_features, n_states, rng):
    x = rng.normal(size=(200, n_features))
    n_stats = n_statistics(FULL, n_features)
    assert n_stats * 96 * 8 > sweep._FEATURE_BYTES  # so that features are built in more than one chunk
    theta = rng.normal(size=(n_states, n_stats)) * 0.01
    frame = np.stack([np.zeros(n_features), np.ones(n_features)])
    states = by_features(FULL, theta, n_features)
    sums, value, *_ = sweep.statistics(x, np.empty((0, 1)), frame, states, SOFTMAX, 1)
    want, expected = sweep_oracle("full", x, np.empty((0, 1)), theta, SOFTMAX, 0, states.whitener)
    np.testing.assert_allclose(sums, want, rtol=1e-10, atol=1e-10)
    assert value == pytest.approx(expected, rel=1e-12)


def test_rows_without_any_density_are_counted():
    theta = np.array([[-np.inf, 0.0], [-np.inf, 0.0]])
    frame, states = np.array([[0.0], [1.0]]), by_features(LINEAR, theta, 1)
    sums, value, n_lost, _ = sweep.statistics(np.ones((3, 1)), np.empty((0, 1)), frame, states, SOFTMAX, 1)
    assert n_lost == 3
    assert value == -np.inf
    assert not sums.any()


def test_a_state_of_weight_zero_takes_nothing(rng):
    theta = np.array([[0.0, 0.1], [-np.inf, 0.0]])
    frame, states = np.array([[0.0], [1.0]]), by_features(LINEAR, theta, 1)
    x = rng.normal(size=(50, 1))
    sums, value, n_lost, _ = sweep.statistics(x, np.empty((0, 1)), frame, states, SOFTMAX, 1)
    np.testing.assert_allclose(sums, [[50, x.sum()], [0, 0]], rtol=1e-14, atol=1e-14)
    assert n_lost == 0
    assert value == pytest.approx(0.1 * x.sum())


@pytest.mark.parametrize("posterior", [SOFTMAX, HARD, GIVEN], ids=["softmax", "hard", "given"])
@pytest.mark.parametrize(("n_features", "n_thin"), [(4, 0), (4, 3), (38, 1)], ids=["features", "thin", "chunks"])
@pytest.mark.parametrize("n_states", [8, 35])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])
def test_serial_and_parallel_entries_give_the_same_bits(dtype, n_states, n_features, n_thin, posterior, rng):
    n_rows = 20_000 if n_features == 4 else 1_000
    x = rng.normal(size=(n_rows, n_features)).astype(dtype)
    theta = (rng.normal(size=(n_states, n_statistics(FULL, n_features))) * 0.1).astype(dtype)
    assert n_rows * theta.size > sweep._SERIAL_WORK
    frame = np.stack([np.zeros(n_features), np.ones(n_features)])
    whitener = np.tril(rng.normal(size=(n_thin, n_features + 1, n_features))).astype(dtype)
    weight = rng.random((n_rows, n_states if posterior == GIVEN else 1))
    arguments = (x, weight, frame, States(FULL, theta, n_thin, whitener, np.zeros(n_thin)), posterior)
    one, two = sweep.statistics(*arguments, 1), sweep.statistics(*arguments, 2)
    assert np.array_equal(one[0], two[0])
    assert one[1:] == two[1:]
    assert np.isfinite(one[0]).all()


@pytest.mark.parametrize("unit", [2.0**-140, 2.0**-30, 2.0**40, 2.0**130])
def test_weights_of_any_size_in_float32(unit, rng):
    x = rng.normal(size=(500, 2)).astype(np.float32)
    theta = (rng.normal(size=(3, n_statistics(FULL, 2))) * 0.1).astype(np.float32)
    frame, states = np.stack([np.zeros(2), np.ones(2)]), by_features(FULL, theta, 2)
    weight = rng.random((500, 1))
    plain = sweep.statistics(x, weight, frame, states, SOFTMAX, 1)
    scaled = sweep.statistics(x, weight * unit, frame, states, SOFTMAX, 1)
    np.testing.assert_allclose(scaled[0] / unit, plain[0], rtol=1e-6)
    assert scaled[1] / unit == pytest.approx(plain[1], rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_states", range(1, 11))
def test_weights_of_one_have_the_bits_of_none(n_states, dtype, rng):
    """Also where blocks are not full, or few states stay in registers."""
    for n_rows, n_features in ((1000, 2), (40, 3), (500, 9)):
        x = rng.normal(size=(n_rows, n_features)).astype(dtype)
        theta = rng.normal(size=(n_states, n_statistics(FULL, n_features))).astype(dtype) * dtype(0.1)
        theta[:, 1 + n_features :] = -np.abs(theta[:, 1 + n_features :])
        arguments = (
            np.stack([np.zeros(n_features), np.ones(n_features)]),
            by_features(FULL, theta, n_features),
            SOFTMAX,
            1,
        )
        none, ones = (sweep.statistics(x, w, *arguments) for w in (np.empty((0, 1)), np.ones((n_rows, 1))))
        for one, two in zip(none, ones, strict=True):
            assert_array_equal(one, two)
        parts = [sweep.statistics(x[rows], np.empty((0, 1)), *arguments)[1] for rows in (slice(0, 33), slice(33, None))]
        np.testing.assert_allclose(sum(parts), none[1], rtol=1e-12 if dtype == np.float64 else 1e-5)


def test_statistics_of_many_states_are_products_and_those_of_few_are_not():
    """Both ways are among the shapes above, whatever the width of a vector."""
    for itemsize in (8, 4):
        assert is_inner(15, 3, itemsize)
        assert is_inner(820, 1, itemsize)
        assert is_inner(45, VECTOR_BYTES // 8, itemsize)
        for n_stats, n_states in ((820, 16), (861, 34)):
            assert not is_inner(n_stats, n_states, itemsize)
    assert not is_inner(28, 32, 8)


@helper
def _copy_of_workspace(products, X, states, width, sums):
    """Python cannot hold arrays that nobody counts."""
    _, _, work = sweep.workspace(products, X, states, width, sums)
    phi, packed, resp, inner, room, turned, second = work
    copies = (
        phi.copy(),
        packed.copy(),
        resp.copy(),
        inner.copy(),
        room.copy(),
        turned.copy(),
        second.copy(),
    )
    free(work)
    return copies


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_workspace_is_of_the_types_that_kernels_called_by_address_are_compiled_for(dtype):
    theta, sums, products = np.zeros((3, 15), dtype), np.zeros((15, 4)), np.arange(sweep.N_ADDRESSES)
    states = tuple(by_features(FULL, theta, 4))
    work = _copy_of_workspace(products, np.zeros((5, 4), dtype), states, 48, sums)
    like = sweep.work_like(np.empty((0, 0), dtype), np.empty((0, 0)))
    assert [a.dtype for a in work] == [a.dtype for a in like]
    assert [a.ndim for a in work] == [a.ndim for a in like]


def _allocations(run):
    """How often compiled code took memory, and gave it back, in a run."""
    run()  # compiles
    was_counted = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        run()
        after = rtsys.get_allocation_stats()
    finally:
        if not was_counted:
            _nrt_python.memsys_disable_stats()
    return after.mi_alloc - before.mi_alloc, after.mi_free - before.mi_free


@pytest.mark.skipif(config.DISABLE_JIT, reason="Python counts its arrays")
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("n_features", "n_states", "n_thin"), [(3, 3, 0), (40, 3, 0), (5, 12, 0), (5, 3, 1)])
def test_what_nobody_counts_is_freed_once(n_features, n_states, n_thin, n_threads, rng):
    """Memory of a lane: its features are whole, built in parts beside its columns, or for sums alone; thin states."""
    n_rows, n_stats = 20_000, n_statistics(FULL, n_features)
    assert (n_stats * 96 * 8 > sweep._FEATURE_BYTES) == (n_features == 40)
    X, weight = rng.normal(size=(n_rows, n_features)), np.ones((n_rows, 1))
    states = by_features(FULL, 1e-3 * rng.normal(size=(n_states, n_stats)), n_features)
    if n_thin:
        whitener = np.concatenate([np.eye(n_features), np.zeros((1, n_features))])[None]
        states = states._replace(n_thin=n_thin, whitener=whitener, peak=np.zeros(n_thin))
    frame = np.array([np.zeros(n_features), np.ones(n_features)])
    taken, freed = _allocations(lambda: sweep.statistics(X, weight, frame, states, SOFTMAX, n_threads))
    assert taken == freed > 10


@pytest.mark.skipif(config.DISABLE_JIT, reason="Python counts its arrays")
def test_chains_free_what_nobody_counts(rng):
    X = rng.normal(size=(300, 2))
    model = GaussianHMM(2, max_iter=2, tol=0, random_state=0)
    with warnings.catch_warnings(action="ignore"):
        taken, freed = _allocations(lambda: model.fit(X, lengths=[100, 200]))
    assert taken == freed > 10


@pytest.mark.skipif(config.DISABLE_JIT, reason="kernels are Python")
def test_kernels_of_kernels_have_no_entry_of_their_own_and_can_be_called_all_the_same():
    x = np.array([2.0, 3.0])
    assert log.targetoptions["no_cpython_wrapper"]
    assert not take_logs.targetoptions["no_cpython_wrapper"]
    assert log(2.0) == pytest.approx(math.log(2.0), rel=1e-15)
    take_logs(x, x)
    assert_allclose(x, [math.log(2.0), math.log(3.0)], rtol=1e-15)


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_the_collector_rests_while_kernels_are_compiled_and_is_left_as_it_was():
    class Look(Listener):
        def __init__(self):
            self.seen = []

        def on_start(self, event):
            self.seen.append(gc.isenabled())

        def on_end(self, event):
            pass

    class Fork(Look):
        statuses: ClassVar = []

        def on_start(self, event):
            assert not gc.isenabled()
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # a child of a thread
                child = os.fork()
            if child == 0:
                os._exit(0 if gc.isenabled() else 1)
            self.statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    def enabled_in(function):
        with install_listener("numba:compile", Look()) as look:
            helper(function).compile((types.float64,))
        return look.seen

    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert set(enabled_in(log.py_func)) == {False}  # its parts may be compiled on the way
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert enabled_in(lambda x: x) == [True]  # not ours
    nobodys = {}
    exec("def nobodys(x): return x", {}, nobodys)
    assert enabled_in(nobodys["nobodys"]) == [True]
    gc.disable()
    try:
        enabled_in(log.py_func)
        assert not gc.isenabled()
    finally:
        gc.enable()
    with install_listener("numba:compile", Fork()) as fork:
        helper(log.py_func).compile((types.float64,))
    assert set(fork.statuses) == {0}  # a child goes on collecting
    gc.freeze()
    try:
        enabled_in(log.py_func)
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_lanes_depend_on_the_shape_alone():
    theta = np.zeros((16, 153))
    lanes = [sweep._n_lanes(n, 16, 153, 16, theta) for n in (1, 96, 97, 10_000, 10_000_000)]
    assert lanes == [1, 1, 2, 8, 64]
    assert sweep._n_lanes(10_000_000, 64, 50_000, 300, np.zeros((64, 50_000))) == sweep._MIN_LANES


@pytest.mark.parametrize("n_lanes", [1, 2, 3, 5, 8, 13, 64])
def test_lanes_are_joined_to_the_same_bits_whoever_is_first(n_lanes, rng):
    """Each once and after it is done; the last to come finds all others added up."""
    sums, totals = rng.normal(size=(n_lanes, 3, 5)) * 1e3, rng.normal(size=(n_lanes, 1, 3))
    found = []
    for order in (np.arange(n_lanes), np.arange(n_lanes)[::-1], *(rng.permutation(n_lanes) for _ in range(5))):
        parts, turns = (np.full_like(sums, np.nan), np.full_like(totals, np.nan)), sweep.turns_for(0, n_lanes, 1)
        for lane in order:
            parts[0][lane], parts[1][lane] = sums[lane], totals[lane]
            sweep.join_lanes(turns, lane, parts)
        assert turns[0, 1:].tolist() == [2] * (n_lanes - 1)
        found.append([part[0] for part in parts])
    assert_allclose(found[0][0], sums.sum(axis=0), rtol=1e-12, atol=1e-9)
    assert_allclose(found[0][1], totals.sum(axis=0), rtol=1e-12, atol=1e-12)
    for part, first in zip(zip(*found, strict=True), found[0], strict=True):
        assert all((other == first).all() for other in part)


@kernel
def _lanes_without_memory(turns, bad, done):
    lane = take_number(turns, 0)
    while lane < done.shape[0]:
        if lane == bad:
            raise MemoryError("a block does not fit in memory")
        done[lane] = 1.0
        lane = take_number(turns, 0)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_lane_that_finds_no_memory_is_told_of(n_threads, monkeypatch):
    """Also by another thread, where numba forgets it."""
    monkeypatch.setattr(sweep, "_SERIAL_WORK", 0)
    for _ in range(5):
        done = np.zeros(64)
        with pytest.raises(MemoryError, match=r"a block does not fit|no memory for a block"):
            sweep.run_lanes(_lanes_without_memory, (5, done), 1, 64, n_threads)
        assert done[5] == 0.0
        sweep.run_lanes(_lanes_without_memory, (64, done), 1, 64, n_threads)
        assert (done == 1.0).all()


@pytest.mark.parametrize("step", ["_load_index", "_save_data", "_save_index"])
@pytest.mark.parametrize("is_done", [False, True])
def test_processes_that_save_kernels_at_once_leave_no_wrong_code(step, is_done, tmp_path, monkeypatch):
    """Whenever the other, which found an empty index, comes in between: code is that of its types or missing."""
    one, other = (_jit._CacheFile(str(tmp_path), "kernel", "stamp") for _ in range(2))
    monkeypatch.setattr(other, "_load_index", dict)
    own_step = getattr(one, step)

    def interrupted(*arguments):
        monkeypatch.setattr(one, step, own_step)
        found = own_step(*arguments) if is_done else None
        other.save("types of the other", "code of the other")
        return found if is_done else own_step(*arguments)

    monkeypatch.setattr(one, step, interrupted)
    one.save("types of one", "code of one")
    one, other = (one.load(f"types of {name}") for name in ("one", "the other"))
    assert one in (None, "code of one")
    assert other in (None, "code of the other")
    assert one or other


def test_cached_kernels_have_files_named_by_types(tmp_path):
    """A key that is there keeps its file; others have one each."""
    file = _jit._CacheFile(str(tmp_path), "kernel", "stamp")
    for code in ("first", "second"):
        for key in ("a", "b"):
            file.save(key, code + key)
    assert [file.load(key) for key in ("a", "b", "c")] == ["seconda", "secondb", None]
    assert len(list(tmp_path.glob("*.nbc"))) == 2
    if not _jit.PLAIN:
        assert type(sweep._sweep_lane._cache._cache_file) is _jit._CacheFile
        assert type(_calls.run_together._cache._cache_file) is _jit._CacheFile


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n_states", "width"), [(1, 16), (2, 48), (16, 96), (70, 48)])
def test_labels_are_of_the_first_of_the_best(n_states, width, dtype, rng):
    """Of rows with one best state, with several, and with none; states beyond are not looked at."""
    scores = rng.integers(-3, 0, (n_states + 1, width)).astype(dtype)
    scores[n_states] = 0.0
    scores[:n_states, 5] = -np.inf
    best, label = np.empty(width, dtype), np.full(width, 99, dtype)
    row_maximum(scores, n_states, best)
    kernel(lambda *arguments: first_maximum(*arguments))(scores, n_states, best, label)
    assert_array_equal(label, scores[:n_states].argmax(axis=0))


def test_no_rows_are_scored():
    """There is nothing to do, and nothing is written."""
    result = fastem.fit(Mixture(Gaussian(), 2), np.random.default_rng(0).normal(size=(50, 2)), random_state=0)
    assert result.model.log_densities(result.params, np.empty((0, 2))).shape == (0,)


@pytest.mark.parametrize("n_features", [17, 31, 64])
@pytest.mark.parametrize("n_components", [1, 3, 7, 8, 9, 17])
def test_eight_wide_components_at_a_time(n_components, n_features, rng):
    """The same as one by one; good tells of any bad component, wherever it is."""
    spread = rng.normal(size=(n_components, n_features, 2 * n_features))
    covariances = spread @ np.swapaxes(spread, 1, 2) / n_features
    means, center, scale = rng.normal(size=(n_components, n_features)), rng.normal(size=n_features), np.ones(n_features)
    scale[::3] = 0.25
    smallest, log_weights, found = np.full(n_features, 1e-9), np.log(rng.random(n_components)), []
    for natural, invert in ((natural_full, invert_roots), (natural_of_wide, invert_roots_of_wide)):
        roots, good = np.full(covariances.shape, np.nan), np.empty(1, np.int64)
        invert(covariances, smallest, 1e12, roots, good)
        assert good[0] == n_components
        theta = np.empty((n_components, n_statistics(FULL, n_features)))
        whitener, peaks = np.empty((n_components, n_features + 1, n_features)), np.empty(n_components)
        natural(means, roots, log_weights, center, scale, theta, whitener, peaks)
        found.append((roots, theta, whitener, peaks))
        for k in {0, n_components // 2, n_components - 1}:
            bad, others = covariances.copy(), np.empty_like(roots)
            bad[k, 2] = bad[k, :, 2] = 0.0
            invert(bad, smallest, 1e12, others, good)
            assert good[0] < n_components
            bad[k, 2, 2] = np.nan
            invert(bad, smallest, 1e12, others, good)
            assert good[0] < n_components
            invert(covariances, smallest, 1.0, others, good)  # no column is independent of the others
            assert good[0] < n_components
    for one, eight in zip(*found, strict=True):
        assert_allclose(eight, one, rtol=1e-9, atol=1e-10 * np.abs(one).max())
    assert np.allclose(found[1][0] @ np.swapaxes(found[1][0], 1, 2) @ covariances, np.eye(n_features), atol=1e-8)


def _assembly(kernel):
    """Lines of a kernel's machine code."""
    return kernel.inspect_asm(kernel.signatures[0]).splitlines()


def _names_libm(lines):
    return any(f"${name}" in line or f"{name}@" in line for line in lines for name in ("exp", "log", "expf", "logf"))


def test_inner_loops_are_vector_instructions_without_calls(rng):
    """exp of the posterior becomes vector code: the constants of its polynomial are loaded as whole vectors."""

    fresh = helper(getattr(softmax, "py_func", softmax))  # code from a cache cannot be inspected
    fresh(rng.normal(size=(2, 16)), 2, np.ones(16), np.zeros(16), np.zeros(16))
    lines = _assembly(fresh)
    assert not _names_libm(lines)
    if VECTOR_BYTES >= 32:
        packed = [line for line in lines if "vfmadd" in line and "pd" in line and ("ymm" in line or "zmm" in line)]
        assert len(packed) >= 11  # the degree of the polynomial
    if VECTOR_BYTES == 64:  # the table, in two registers
        assert any("vpermt2pd" in line or "vpermi2pd" in line for line in lines)

    @helper
    def with_libm(x):
        return math.exp(x) + math.log(x)

    with_libm(1.5)
    assert _names_libm(_assembly(with_libm))  # so that the check above can fail


@pytest.mark.skipif(VECTOR_BYTES < 64, reason="the compiler prefers half a vector only where it has 64 bytes")
def test_loops_take_whole_vectors():

    def plain(x):
        for b in range(x.shape[0]):
            x[b] *= 0.5

    @helper
    def wide(x):
        widest_vectors()
        for b in range(x.shape[0]):
            x[b] *= 0.5

    wide(np.ones(64))
    plain = helper(plain)
    plain(np.ones(64))
    wanted = '"prefer-vector-width"="512"'
    assert wanted in wide.inspect_llvm(wide.signatures[0])
    assert wanted not in plain.inspect_llvm(plain.signatures[0])
    assert any("vmulpd" in line and "zmm" in line for line in _assembly(wide))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("width", [48, 96, 384])
def test_the_log_likelihood_of_a_block_takes_few_logarithms(dtype, width, rng):
    best, total = rng.normal(scale=100, size=width).astype(dtype), rng.uniform(1, 60_000, width).astype(dtype)
    mass = np.where(np.arange(width) < width - 5, 1.0, 0.0)
    scratch = np.empty(width)
    total[mass == 0] = np.nan  # rows beyond the last
    want = math.fsum(float(b) + math.log(t) for b, t in zip(best[mass > 0], total[mass > 0].astype(float), strict=True))
    assert sum_logs(mass, best, total, scratch) == pytest.approx(want, rel=1e-13, abs=1e-10)
    ones = np.where(mass == 0, 1.0, total).astype(dtype)
    want_of_all = math.fsum(float(b) + math.log(t) for b, t in zip(best, ones.astype(float), strict=True))
    assert sum_logs(np.ones(width), best, ones, scratch) == pytest.approx(want_of_all, rel=1e-13, abs=1e-10)
    weights = mass * rng.uniform(0, 3, width)
    want = math.fsum(m * (float(b) + math.log(t)) for m, b, t in zip(weights, best, total, strict=True) if m > 0)
    assert sum_logs(weights, best, total, scratch) == pytest.approx(want, rel=1e-13, abs=1e-10)
    best[3], total[3] = np.finfo(dtype).min, 0.0  # no state can have produced this row
    assert sum_logs(mass, best, total, scratch) == -np.inf
    assert sum_logs(2.0 * mass, best, total, scratch) == -np.inf
    ones[3] = 0.0
    assert sum_logs(np.ones(width), best, ones, scratch) == -np.inf
    ones[3], mass[3] = np.nan, 0.0
    assert np.isfinite(sum_logs(mass, best, ones, scratch))
    mass[4] = 1e-300  # neither 0 nor 1
    want = math.fsum(m * (float(b) + math.log(t)) for m, b, t in zip(mass, best, ones, strict=True) if m > 0)
    assert sum_logs(mass, best, ones, scratch) == pytest.approx(want, rel=1e-13, abs=1e-10)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_block_is_noted_alike_in_vectors_and_in_loops(dtype, rng):
    @helper
    def note(mass, best, total, notes):
        _note(mass, best, total, notes)

    for n_rows in (48, 144, 384):
        best, total = rng.normal(size=n_rows).astype(dtype), rng.uniform(1, 9, n_rows).astype(dtype)
        for mass in (np.ones(n_rows), rng.integers(0, 2, n_rows).astype(float), rng.uniform(0, 2, n_rows)):
            for lost in (False, True):
                total[7] = np.nan if lost else 1.0
                notes = np.full((2, 48), np.inf)
                note(mass, best, total, notes[0])
                _note_plain(mass, best, total, notes[1])
                is_lost = lost and mass[7] > 0
                assert notes[0, 1] == notes[1, 1] == is_lost
                assert notes[0, 2] == notes[1, 2] == np.any((mass != 0) & (mass != 1))
                if not is_lost:
                    np.testing.assert_allclose(notes[0, 0], notes[1, 0], rtol=1e-11)
                    np.testing.assert_allclose(*np.log(notes[:, 3:11]).sum(axis=1), rtol=1e-12)


def test_blocks_are_as_wide_as_their_log_likelihood_takes_them():
    shapes = itertools.product((1, 47, 1000, 10**7), (1, 5, 40, 300), (1, 16, 500), (4, 8))
    widths = [sweep.block_rows(n, d, k, n_statistics(FULL, d), itemsize) for n, d, k, itemsize in shapes]
    widths += [completed_rows(n, k, d) for n, d, k in itertools.product((1, 47, 10**6), (1, 5, 300), (1, 16, 500))]
    assert all(width % 48 == 0 and 48 <= width <= 384 for width in widths)


def test_a_block_of_very_many_states_has_logarithms():
    width = 384
    notes = sum_logs(np.ones(width), np.zeros(width), np.full(width, 2.0**21), np.empty(width))
    assert notes == pytest.approx(width * 21 * math.log(2))


def test_panels_are_whole_vectors_and_divide_a_block():
    for itemsize, n_features, n_rows in itertools.product((4, 8), (1, 2, 3, 8, 16, 100), (1, 200, 100_000)):
        width = sweep.block_rows(n_rows, n_features, 4, 10, itemsize)
        rows = sweep.panel_rows(width, n_features * itemsize, itemsize)
        assert width % rows == 0
        assert rows % (24 if itemsize == 8 else 48) == 0
