"""Skipping pairs that cannot matter: to the same answer, and what it rests on."""

import numpy as np
import pytest
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st

import fastem
from fastem.data import as_data
from fastem.kernels import _jit
from fastem.kernels.pruning import CUTOFF, WINDOW, label_rows
from fastem.models import skipping
from fastem.models.mixture_records import MixtureParams

TYPES = ("full", "diag", "spherical")


@pytest.fixture(autouse=True)
def _always(monkeypatch):
    monkeypatch.setattr(skipping, "_SMALL_WORK", 0)
    monkeypatch.setattr(skipping, "_WORTHWHILE", 2.0)  # any order will do
    monkeypatch.setattr(skipping, "_GATHERING", 0.0)


def climbed(model, data, params, n_steps):
    """Parameters and log-likelihoods of some steps over blocks as they are, and the parts of the pairs computed."""
    history, parts = [], []
    for _ in range(n_steps):
        stats = [model.e_step(params, block) for block in data]
        history.append(sum(s.log_likelihood for s in stats))
        for block in data:
            state = (block.notes or {}).get("skipping")
            if state is not None and len(state.order):
                parts.append(state.fewest)
        params = model.m_step(fastem.protocol.add_stats(stats), params)
    return params, np.array(history), parts


@pytest.mark.parametrize("weighted", [False, True], ids=["rows", "weights"])
@pytest.mark.parametrize("separation", [0.7, 6.0], ids=["overlapping", "separated"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_answer_is_that_of_the_dense_pass(covariance_type, dtype, separation, weighted, rng):
    X = simulate(rng, 20_000, 3, 8, separation=separation, dtype=dtype)
    weight = rng.integers(0, 3, len(X)).astype(float) if weighted else None
    data = as_data(X, weight)
    model = fastem.Mixture(fastem.Gaussian(covariance_type), 8).prepare(data)
    start = model.initialize(data, np.random.default_rng(0))
    dense, expected, _ = climbed(model, data, start, 8)
    skipped, found, parts = climbed(model, data.with_notes(), start, 8)
    tolerance = 1e-10 if dtype == np.float64 else 1e-6  # few live states are whitened, more go through features
    np.testing.assert_allclose(found, expected, rtol=tolerance)
    for one, two in zip((skipped.weights, *skipped.components), (dense.weights, *dense.components), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e2 * tolerance, atol=tolerance)
    if separation > 1:
        assert min(parts) < 0.6


@pytest.mark.parametrize("covariance_type", TYPES)
def test_parameters_that_jump(covariance_type, rng, monkeypatch):
    """Steps of any size and direction, unlike EM's: gaps must never prove dead what is alive."""
    X = simulate(rng, 5000, 4, 8, separation=4.0)
    monkeypatch.setattr(skipping, "_USELESS", 2.0)  # and none is given up
    data = as_data(X)
    model = fastem.Mixture(fastem.Gaussian(covariance_type), 8).prepare(data)
    params = fastem.fit(model, data, random_state=0).params
    notes, n_skipped = data.with_notes(), 0
    for step in range(40):
        size = 10.0 ** rng.uniform(-5, 0.3)
        means = params.components.means + size * rng.normal(size=params.components.means.shape)
        unit = np.exp(0.3 * min(size, 1.0) * rng.normal(size=8))
        covariances = params.components.covariances * unit.reshape(-1, *[1] * (params.components.covariances.ndim - 1))
        roots = model.family.precisions_cholesky(covariances)
        weights = rng.dirichlet(np.full(8, 2.0)) if step % 5 == 0 else params.weights
        jumped = MixtureParams(weights, fastem.families.gaussian.GaussianParams(means, covariances, roots))
        found, expected = (model.e_step(jumped, d.blocks[0]) for d in (notes, data))
        assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-11)
        np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-8, atol=1e-8)
        state = notes.blocks[0].notes["skipping"]
        n_skipped += len(state.order) > 0 and state.fewest < 1.0
        if size < 0.1:
            params = jumped
    assert n_skipped > 5


def test_thin_components_are_skipped_too(rng):
    centers = 1e3 * rng.normal(size=(6, 4))
    X = np.concatenate([c + 10.0 ** -(4 * (k % 2)) * rng.normal(size=(900, 4)) for k, c in enumerate(centers)])
    data = as_data(rng.permutation(X))
    model = fastem.Mixture(fastem.Gaussian(), 6).prepare(data)
    start = model.initialize(data, np.random.default_rng(0))
    assert len(model.family.layout(start.components, model.bound).whitener) >= 2
    _, expected, _ = climbed(model, data, start, 6)
    _, found, parts = climbed(model, data.with_notes(), start, 6)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert min(parts) < 0.5


def test_a_component_that_lost_its_rows_is_taken_from_a_whole_pass(rng):
    """Far from all rows its responsibilities lie below the cut-off; the pass that finds it empty is done again."""
    X = simulate(rng, 3000, 2, 4, separation=5.0)
    data = as_data(X)
    model = fastem.Mixture(fastem.Gaussian(), 4).prepare(data)
    start = model.initialize(data, np.random.default_rng(0))
    notes = data.with_notes()
    params, _, _ = climbed(model, notes, start, 5)
    means = params.components.means.copy()
    means[0] += 15.0 * np.sqrt(params.components.covariances[0].diagonal().max())
    moved = MixtureParams(params.weights, params.components._replace(means=means))
    block = notes.blocks[0]
    for _ in range(3):  # labelled, sorted and skipping passes alike
        found = model.e_step(moved, block)
        expected = model.e_step(moved, data.blocks[0])
        assert 0 < expected.sums[0, 0] < 1e-10
        np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-9, atol=1e-300)


@given(st.integers(0, 2**32 - 1), st.sampled_from(TYPES), st.floats(1e-6, 3.0))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_motion_bounds_every_distance(seed, covariance_type, step):
    rng = np.random.default_rng(seed)
    n_components, n_features = 3, 4
    family = fastem.Gaussian(covariance_type)

    def random_params(center, spread):
        means = center + spread * rng.normal(size=(n_components, n_features))
        if covariance_type == "full":
            root = np.eye(n_features) + spread * rng.normal(size=(n_components, n_features, n_features)) / 4
            covariances = root @ np.swapaxes(root, 1, 2) + 1e-3 * np.eye(n_features)
        else:
            covariances = np.exp(spread * rng.normal(size=family.shape(n_components, n_features)))
        return fastem.families.gaussian.GaussianParams(means, covariances, family.precisions_cholesky(covariances))

    old = random_params(0.0, step)
    new = random_params(old.means, step)
    shrink, stretch, shift = family.motion(old, new)
    rows = 10.0 * rng.normal(size=(50, n_features))

    def distances(params):
        roots = params.precisions_cholesky
        gaps = rows[None] - params.means[:, None]
        if covariance_type == "full":
            return np.linalg.norm(gaps @ roots, axis=2)
        return np.linalg.norm(gaps * (roots[:, None] if roots.ndim == 2 else roots[:, None, None]), axis=2)

    slack = 1e-11 * (1 + distances(old))
    assert (distances(new) >= shrink[:, None] * distances(old) - shift[:, None] - slack).all()
    assert (distances(new) <= stretch[:, None] * distances(old) + shift[:, None] + slack).all()


def test_equal_parameters_do_not_move(rng):
    X = simulate(rng, 500, 3, 3)
    params = fastem.fit(fastem.Mixture(fastem.Gaussian(), 3), X, random_state=0).params.components
    shrink, stretch, shift = fastem.Gaussian().motion(params, params)
    np.testing.assert_allclose([shrink, stretch], 1.0, rtol=1e-6)
    assert not shift.any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_states", [2, 5, 16, 64, 65, 200])
def test_labels_name_the_best_component_then_who_is_alive_near_it(n_states, dtype, rng):
    width, n_rows = 48, 41
    gaps, component = rng.random((n_states, n_states)), rng.permutation(n_states)
    n_bits = min(16 - (n_states - 1).bit_length(), n_states - 1)
    scores = (-60 * rng.random((n_states, width))).astype(dtype)
    best, first = scores.max(axis=0), scores.argmax(axis=0)
    bounds, labels = np.empty((6, n_states)), np.full(n_rows, 7, np.uint16)
    bounds[CUTOFF] = rng.uniform(20, 40, n_states)
    marks = skipping.marks_of(gaps, component)
    alive = scores - best > -bounds[CUTOFF, :, None]
    listed = rng.permutation(np.flatnonzero(alive.any(axis=1)))  # the others may have been excluded
    places = np.full(n_states, -1)
    places[listed] = np.arange(len(listed))
    arguments = scores[listed], listed, len(listed), best, places[first].astype(dtype)
    label_rows(*arguments, bounds, marks, rng.integers(0, 9, width), labels)
    for b in range(n_rows):
        mine = gaps[first[b]].copy()
        mine[first[b]] = np.inf
        alive = [scores[k, b] - best[b] > -bounds[CUTOFF, k] for k in np.argsort(mine)[:n_bits]]
        assert f"{labels[b]:016b}" == f"{component[first[b]]:b}".zfill(16 - n_bits) + "".join(
            "1" if bit else "0" for bit in alive
        )


def test_order_puts_labels_together_within_windows(rng):
    labels = rng.integers(0, 7, WINDOW + 1000).astype(np.uint16)
    order = skipping.order_by(labels.copy()).astype(int)
    for first in (0, WINDOW):
        window = order[first : first + WINDOW]
        assert np.array_equal(np.sort(window), np.arange(len(window)))
        assert (np.diff(labels[first : first + WINDOW][window].astype(int)) >= 0).all()
    window_of, others = np.arange(len(order)) // WINDOW * WINDOW, rng.integers(0, 5, len(order)).astype(np.uint16)
    again = skipping.order_by(others[order + window_of], order.astype(np.uint16)).astype(int)
    for first in (0, WINDOW):
        window = again[first : first + WINDOW]
        assert np.array_equal(np.sort(window), np.arange(len(window)))
        assert (np.diff(others[first : first + WINDOW][window].astype(int)) >= 0).all()
        assert not np.array_equal(window, order[first : first + WINDOW])


def test_looks_keep_blas_to_one_thread(rng, monkeypatch):
    """The bits of a large product depend on how many there are; here one of twice as many rows as are looked at."""
    guarded, part = [], skipping.part_that_may_matter
    monkeypatch.setattr(
        skipping, "part_that_may_matter", lambda *looked: guarded.append(_jit._blas_limit.users > 0) or part(*looked)
    )
    data = as_data(simulate(rng, 4000, 8, 16)).with_notes()
    model = fastem.Mixture(fastem.Gaussian(), 16).prepare(data)
    climbed(model, data, model.initialize(data, np.random.default_rng(0)), 3)
    assert guarded
    assert all(guarded)


def test_rows_are_labelled_anew_while_pairs_are_skipped(rng, monkeypatch):
    """The labels are those of a pass over every pair, each at the place of its row."""
    wanted, calls, order_by = iter([True, False, False, True]), [], skipping.order_by
    monkeypatch.setattr(skipping.Skipping, "_wants_order", lambda *_: next(wanted, False))
    monkeypatch.setattr(
        skipping, "order_by", lambda labels, order: calls.append((labels.copy(), order)) or order_by(labels, order)
    )
    data = as_data(simulate(rng, 20_000, 3, 8, separation=4.0)).with_notes()
    model = fastem.Mixture(fastem.Gaussian(), 8).prepare(data)
    params = model.initialize(data, np.random.default_rng(0))
    for _ in range(4):
        params, _, _ = climbed(model, data, params, 1)
    state = data.blocks[0].notes["skipping"]
    model.e_step(params, data.blocks[0])
    assert len(calls) == 2
    found, order = calls[1]
    assert len(order) == 20_000
    fresh, wanted = data.with_notes(), iter([True])
    model.e_step(params, fresh.blocks[0])
    model.e_step(params, fresh.blocks[0])
    by_row, none = calls[2]
    assert len(none) == 0
    assert (found == by_row[order]).mean() > 0.999  # scores near the cut-off are rounded in their own way
    assert np.array_equal(np.sort(state.order), np.arange(20_000))
    again = climbed(model, data, params, 2)[1]
    np.testing.assert_allclose(again, climbed(model, as_data(data.blocks[0].X), params, 2)[1], rtol=1e-10)


def test_a_climb_leaves_no_trace_in_its_data(rng):
    """Each start has notes of its own: its bits do not depend on what was fitted to the same data before."""
    data = as_data(simulate(rng, 4000, 3, 6, separation=4.0))
    model = fastem.Mixture(fastem.Gaussian(), 6)
    first, again = (fastem.fit(model, data, random_state=0, tol=0, max_iter=8) for _ in range(2))
    assert np.array_equal(first.history, again.history)
    assert data.blocks[0].notes is None
    start = first.model.initialize(data, np.random.default_rng(3))
    alone = fastem.fit(model, data, start=start, tol=0, max_iter=4)
    assert np.array_equal(alone.history, fastem.fit(model, data, start=start, tol=0, max_iter=4).history)


def test_tied_and_small_problems_are_not_skipped(rng, monkeypatch):
    data = as_data(simulate(rng, 400, 3, 6)).with_notes()
    tied = fastem.Mixture(fastem.Gaussian("tied"), 6).prepare(data)
    tied.e_step(tied.initialize(data, np.random.default_rng(0)), data.blocks[0])
    monkeypatch.undo()
    full = fastem.Mixture(fastem.Gaussian(), 6).prepare(data)
    full.e_step(full.initialize(data, np.random.default_rng(0)), data.blocks[0])
    assert not data.blocks[0].notes


def test_few_multiply_adds_are_not_worth_gathering_rows(monkeypatch):
    """Of 16 columns and components: variances leave little to gain, full covariances most of a pass."""
    monkeypatch.undo()
    rooms = [skipping.Skipping(16, n_statistics, 16).room for n_statistics in (18, 33, 153)]
    assert rooms == sorted(rooms)
    assert rooms[0] < 0.5 < 0.9 < rooms[-1]


@pytest.mark.parametrize("seed", range(6))
def test_a_look_that_ends_early_decides_as_a_whole_one(seed):
    rng = np.random.default_rng(seed)
    X = simulate(rng, 2000, 4, 5, separation=1.0 + seed)
    model = fastem.Mixture(fastem.Gaussian(), 5)
    first, second = (fastem.fit(model, X, max_iter=n, tol=0, n_race=0, random_state=0).params for n in (3, 4))
    points = [skipping.Point(params.components, np.log(params.weights)) for params in (first, second)]
    arguments = (model.family, *points, np.full(5, 40.0), X)
    whole = skipping.part_that_may_matter(*arguments)
    assert 0.0 < whole < 1.0
    for limit in (0.5 * whole, whole, 1.5 * whole, 0.01, 1.0):
        assert (skipping.part_that_may_matter(*arguments, limit) < limit) == (whole < limit)
