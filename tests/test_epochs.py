"""Mini-batch and incremental EM: optima of the batch, a free energy that never falls, rows shuffled, ends, refusals."""

import itertools
import time

import numpy as np
import pytest
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

import fastem
from fastem import Blocks, Gaussian, GaussianMixture, Mixture, Status
from fastem.data import as_data
from fastem.sources import open_data

TYPES = ("full", "tied", "diag", "spherical", "VEI", "EVE", "VEV")


UNFINISHED = pytest.mark.filterwarnings("ignore:EM did not converge:sklearn.exceptions.ConvergenceWarning")


def fitted(X, algorithm, n_components=3, sample_weight=None, **params):
    params = {"random_state": 0, "n_race": 0, "reg_covar": 0.0, "tol": 1e-6, "batch_size": 100, "n_epochs": 5} | params
    return GaussianMixture(n_components, algorithm=algorithm, **params).fit(X, sample_weight=sample_weight)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_expected_log_likelihood_is_that_under_the_posterior(covariance_type, rng):
    X, weight = simulate(rng, 300, 2, 3), rng.integers(0, 3, size=300).astype(float)
    result = fastem.fit(Mixture(Gaussian(covariance_type), 3), X, sample_weight=weight, max_iter=3, random_state=0)
    model, params = result.model, result.params
    [block] = as_data(X, weight)
    stats = model.e_step(params, block)
    expected = model.condense(stats, params)
    after = model.maximize(expected, stats.weight, params, 0.0)
    resp = model.posteriors(params, X) * weight[:, None] / weight.sum()
    for other in (params, after):
        joint = np.log(other.weights) + model.family.log_densities(other.components, X)
        assert model.expected_log_likelihood(expected, other) == pytest.approx((resp * joint).sum(), rel=1e-10)
    assert model.expected_log_likelihood(expected, after) > model.expected_log_likelihood(expected, params)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("options", [{}, {"covariance_prior": "auto", "weight_concentration_prior": 2.0}], ids=str)
def test_the_free_energy_never_falls_and_meets_the_log_likelihood(covariance_type, options, rng):
    X, weight = simulate(rng, 1500, 2, 3, separation=1.5), rng.exponential(size=1500)
    weight[:150] = 0.0  # whole blocks do not count
    options = {"covariance_type": covariance_type, "tol": 1e-10, "stopping": "change", "max_iter": 500} | options
    gm = fitted(X, "incremental", sample_weight=weight, **options)
    gains = np.diff(gm.lower_bounds_)
    assert gm.status_ is Status.CONVERGED
    assert gains.min() > -1e-12
    assert gains[-1] < 1e-7  # from the free energy to the objective itself
    batch = fitted(X, "batch", sample_weight=weight, warm_start=True, **options)
    assert gm.lower_bound_ == pytest.approx(batch.lower_bound_, abs=1e-6)


@UNFINISHED
def test_incremental_steps_learn_faster_than_those_of_the_batch(rng):
    X = simulate(rng, 4000, 2, 4, separation=1.2)
    bounds = [
        fitted(X, algorithm, 4, max_iter=15, tol=0.0, acceleration=None, batch_size=None).lower_bounds_[-1]
        for algorithm in ("batch", "incremental")
    ]
    assert bounds[1] > bounds[0]


@UNFINISHED
def test_one_block_is_the_batch(rng):
    X = simulate(rng, 400, 2, 3)
    options = {"max_iter": 10, "tol": 0.0, "batch_size": 400, "acceleration": None}
    one, two = (fitted(X, algorithm, **options) for algorithm in ("incremental", "batch"))
    np.testing.assert_allclose(one.means_, two.means_, rtol=1e-9)
    np.testing.assert_allclose(one.covariances_, two.covariances_, rtol=1e-8)
    assert one.n_iter_ == two.n_iter_ == 10


@pytest.mark.parametrize("covariance_type", TYPES)
def test_mini_batches_come_close_to_the_optimum(covariance_type, rng):
    X, weight = simulate(rng, 6000, 3, 3, separation=2.0), rng.integers(0, 3, size=6000).astype(float)
    batch = fitted(X, "batch", sample_weight=weight, covariance_type=covariance_type, n_race=6)
    gm = fitted(X, "minibatch", sample_weight=weight, covariance_type=covariance_type, n_race=6, n_epochs=10)
    assert gm.status_ is Status.EPOCHS
    assert not gm.converged_
    assert len(gm.lower_bounds_) == gm.n_iter_ == 11
    assert gm.lower_bound_ == pytest.approx(batch.lower_bound_, rel=1e-3)
    assert gm.log_likelihood_ == pytest.approx(gm.lower_bound_ * weight.sum())


@UNFINISHED
@pytest.mark.parametrize("algorithm", ["minibatch", "incremental"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_threads_or_on_where_rows_are(algorithm, dtype, rng, tmp_path):
    X = simulate(rng, 5000, 4, 3).astype(dtype)
    np.save(tmp_path / "X.npy", X)
    options = {"n_epochs": 2, "max_iter": 5, "batch_size": 500, "means_init": X[:3], "tol": 0.0}
    one, two = (fitted(X, algorithm, n_threads=n, **options) for n in (1, 2))
    np.testing.assert_array_equal(one.covariances_, two.covariances_)
    sources = [Blocks(tmp_path / "X.npy", 500), Blocks(np.load(tmp_path / "X.npy", mmap_mode="r"), 500)]
    for number, source in enumerate(sources):
        gm = fitted(source, algorithm, **options)
        if number == 0:
            first = gm
        np.testing.assert_array_equal(gm.means_, first.means_)
        assert gm.lower_bound_ == pytest.approx(one.lower_bound_, rel=1e-3)
    if algorithm == "incremental":  # blocks come in the same order
        assert first.lower_bound_ == pytest.approx(one.lower_bound_, rel=1e-9 if dtype == np.float64 else 1e-5)


@given(
    n_rows=st.integers(1, 60),
    block_rows=st.integers(1, 70),
    batch=st.integers(1, 70),
    weighted=st.booleans(),
    kind=st.sampled_from(["array", "whole", "blocks", "callable"]),
    seed=st.integers(0, 3),
)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_every_row_comes_once_in_random_order(n_rows, block_rows, batch, weighted, kind, seed):
    X = np.arange(n_rows, dtype=float)[:, None] * [1.0, -1.0]
    weight = np.arange(n_rows) + 1.0 if weighted else None
    source = {
        "array": Blocks(X, block_rows),
        "whole": X,
        "blocks": Blocks(np.asfortranarray(X), block_rows),
        "callable": Blocks(lambda: (X[i : i + 7] for i in range(0, n_rows, 7)), block_rows),
    }[kind]
    data = open_data(source, weight)
    blocks = list(data.shuffled(batch, np.random.default_rng(seed)))
    rows = np.concatenate([block.X for block in blocks])
    assert all(len(block.X) <= batch for block in blocks)
    np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], X)
    if weighted:
        np.testing.assert_array_equal(np.concatenate([block.weight[:, 0] for block in blocks]), rows[:, 0] + 1)
    again = np.concatenate([block.X for block in data.shuffled(batch, np.random.default_rng(seed))])
    np.testing.assert_array_equal(rows, again)
    cut = list(data.recut(batch))
    np.testing.assert_array_equal(np.concatenate([block.X for block in cut]), X)
    assert {len(block.X) for block in cut} <= set(range(batch + 1))


def test_files_are_read_from_many_places(rng, tmp_path):
    X = np.arange(64.0)[:, None]
    np.save(tmp_path / "X.npy", X)
    data = open_data(Blocks(tmp_path / "X.npy", 16))
    first = next(data.shuffled(16, rng)).X
    assert np.ptp(first) > 30  # a block of the file itself spans 16
    assert next(open_data(Blocks(lambda: iter([X]), 16)).shuffled(16, rng)).X.max() < 16


class Late:
    """A callback that makes a fit late."""

    def __call__(self, step):
        time.sleep(0.3)


@pytest.mark.parametrize("algorithm", ["minibatch", "incremental"])
def test_ends(algorithm, rng):
    X = simulate(rng, 1000, 2, 3)
    seen = []
    gm = GaussianMixture(3, algorithm=algorithm, random_state=0, n_race=0, tol=0.0, batch_size=100)
    gm.fit(X, callbacks=[lambda step: seen.append(step) or step.n_iter == 2])
    assert gm.status_ is Status.CALLBACK
    assert [step.n_iter for step in seen] == [1, 2]
    assert gm.lower_bounds_[:2] == [step.objective / 1000 for step in seen]
    assert gm.n_iter_ == 3  # and the last pass
    with pytest.warns(ConvergenceWarning, match="max_time"):
        gm = GaussianMixture(3, algorithm=algorithm, random_state=0, n_race=0, max_time=0.2, tol=0.0).fit(
            X, callbacks=[Late()]
        )
    assert gm.status_ is Status.MAX_TIME

    def interrupt(step):
        raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="interrupted"):
        gm = GaussianMixture(3, algorithm=algorithm, random_state=0, n_race=0).fit(X, callbacks=[interrupt])
    assert gm.status_ is Status.INTERRUPTED
    assert np.isfinite(gm.log_likelihood_)


@pytest.mark.parametrize("algorithm", ["minibatch", "incremental"])
def test_collapse_is_refused_and_the_last_fit_stays(algorithm, rng):
    X = simulate(rng, 1000, 2, 3)
    gm = fitted(X, algorithm)
    means = gm.means_
    with pytest.raises(ValueError, match=r"distinct|component"):
        gm.fit(np.repeat(X[:2], 500, axis=0))
    assert gm.means_ is means


def test_max_iter_0_leaves_the_start(rng):
    X = simulate(rng, 500, 2, 3)
    one, two = (fitted(X, algorithm, max_iter=0) for algorithm in ("batch", "minibatch"))
    np.testing.assert_array_equal(one.means_, two.means_)
    assert two.n_iter_ == 0


class Plain:
    """A model that cannot mix statistics."""

    e_step = prepare = None


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"algorithm": "hogwild"}, ValueError, "algorithm must be 'batch', 'minibatch' or 'incremental'"),
        ({"batch_size": 0}, ValueError, "batch_size must be None or a positive"),
        ({"n_epochs": 0}, ValueError, "n_epochs must be a positive"),
        ({"online": "fast"}, TypeError, "online must be None or a fastem.Online"),
        ({"algorithm": "incremental"}, ValueError, "needs a model with statistics that mix"),
    ],
)
def test_refusals(options, kind, message):
    with pytest.raises(kind, match=message):
        fastem.fit(Plain(), np.ones((5, 1)), **options)


@pytest.mark.slow
def test_ten_epochs_reach_the_optimum_of_the_batch_from_18_of_20_seeds():
    rng = np.random.default_rng(1)
    X = simulate(rng, 100_000, 8, 8, separation=1.5)
    hits = 0
    for seed in range(20):
        one, two = (
            GaussianMixture(8, random_state=seed, algorithm=algorithm).fit(X).score(X)
            for algorithm in ("batch", "minibatch")
        )
        hits += abs(one - two) <= 1e-3 * abs(one)
    assert hits >= 18


@pytest.mark.slow
def test_the_error_of_a_stream_falls_as_the_rows_grow():
    """The mean squared error of the averaged estimate is about a constant over n: slope -1 in logarithms."""
    sizes = [8_000, 32_000, 128_000]
    errors = np.zeros(len(sizes))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X = np.where(rng.random(sizes[-1]) < 0.4, rng.normal(-2.0, 1.0, sizes[-1]), rng.normal(2.0, 1.5, sizes[-1]))
        gm = GaussianMixture(2, random_state=0, n_race=2, reg_covar=0.0, batch_size=256)
        for i, (first, last) in enumerate(itertools.pairwise([0, *sizes])):
            gm.partial_fit(X[first:last, None])
            errors[i] += ((np.sort(gm.means_[:, 0]) - [-2.0, 2.0]) ** 2).sum()
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -1.3 < slope < -0.75


@pytest.mark.parametrize("algorithm", ["minibatch", "incremental"])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_weights_may_be_on_any_scale(algorithm, scale, rng):
    X = simulate(rng, 3000, 2, 3)
    one, two = (fitted(X, algorithm, sample_weight=weight) for weight in (None, np.full(3000, scale)))
    np.testing.assert_allclose(one.covariances_, two.covariances_, rtol=1e-4)
