"""EM over streams: steps, statistics that mix, splits that make no difference, refusals, serving, saving."""

import contextlib
import dataclasses
import itertools
import re
import sys
import threading
import warnings

import numpy as np
import pytest
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

import fastem
from fastem import Gaussian, GaussianMixture, Mixture, Online
from fastem.data import Block, as_data
from fastem.families.normal_inverse_wishart import NormalInverseWishart
from fastem.online import Stream, estimate, feed
from fastem.protocol import Status

TYPES = ("full", "tied", "diag", "spherical", "VEI", "EVE", "VEV")
SCHEDULES = [
    Online(),
    Online(exponent=1.0),
    Online(exponent=0.75),
    Online(half_life=3000.0),
    Online(step_size=0.05),
]


def two_clusters(rng, n_rows):
    X = rng.normal(size=(n_rows, 2))
    X[rng.random(n_rows) < 0.4] += [5.0, 1.0]
    return X


def learned(X, splits=(), **params):
    """A mixture that learned the rows in calls that end at the splits."""
    gm = GaussianMixture(2, random_state=0, n_race=2, **params)
    for first, last in itertools.pairwise([0, *sorted(splits), len(X)]):
        gm.partial_fit(X[first:last])
    return gm


def same(one, two):
    """Whether two nested states have the same types and bits."""
    if type(one) is not type(two):
        return False
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(two, field.name)) for field in dataclasses.fields(one))
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two, equal_nan=True)
    return one == two or (one != one and two != two)


@pytest.mark.parametrize("online", SCHEDULES, ids=str)
@given(seen=st.floats(32.0, 1e8), first=st.floats(0.1, 1e5), second=st.floats(0.1, 1e5))
@settings(derandomize=True, deadline=None)
def test_what_is_forgotten_does_not_depend_on_splits(online, seen, first, second):
    kept = (1 - online.share(seen, first, 64)) * (1 - online.share(seen + first, second, 64))
    assert 1 - kept == pytest.approx(online.share(seen, first + second, 64), rel=1e-9)
    assert 0 < online.share(seen, first, 64) <= 1
    tiny = online.share(seen, 1e-20, 64)
    assert tiny == pytest.approx(1e-10 * online.share(seen, 1e-10, 64), rel=1e-6)  # nothing cancels


def test_steps_of_the_schedules():
    assert Online(exponent=1.0).share(900.0, 100.0, 100) == pytest.approx(0.1)
    assert Online(half_life=512.0).share(0.0, 1024.0, 1024) == pytest.approx(0.75)
    assert Online(step_size=0.1).share(500.0, 200.0, 100) == pytest.approx(0.19)
    assert Online(exponent=0.6).share(1e8, 100.0, 100) == pytest.approx(1e6**-0.6, rel=1e-3)
    assert Online().share(0.0, 100.0, 100) == 1.0


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_blended_statistics_are_those_of_all_rows(covariance_type, far, rng):
    X, weight = simulate(rng, 900, 3, 3) + far, rng.integers(0, 3, size=900).astype(float)
    result = fastem.fit(Mixture(Gaussian(covariance_type), 3), X, random_state=0, max_iter=3)
    model, params = result.model, result.params
    blocks = [Block(X[:300], weight[:300, None]), Block(X[300:], weight[300:, None]), Block(X, weight[:, None])]
    one, two, both = (model.condense(model.e_step(params, block), params) for block in blocks)
    share = blocks[1].total_weight / blocks[2].total_weight
    for mine, theirs in zip(model.blend(one, two, share), both, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-9)
    for mine, theirs in zip(model.blend(one, two, 0.0), one, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    for mine, theirs in zip(model.blend(one, two, 1.0), two, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-10)
    found, wanted = (
        model.maximize(both, blocks[2].total_weight, params, 1.0),
        model.m_step(model.e_step(params, blocks[2]), params),
    )
    np.testing.assert_allclose(found.components.covariances, wanted.components.covariances, rtol=1e-12)


class Frozen(Mixture):
    """Parameters that never change."""

    def maximize(self, expected, weight, params, unit):
        return params


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_plain_mean_of_frozen_parameters_is_the_batch(covariance_type, rng):
    """With exponent 1 the statistics are those of all rows, whatever their weights, and are worth all of them."""
    X, weight = simulate(rng, 2000, 2, 2), rng.exponential(size=2000)
    model = Frozen(Gaussian(covariance_type), 2).prepare(as_data(X))
    params = model.initialize(as_data(X), rng)
    online = Online(exponent=1.0)
    stream = feed(Stream(), (X, weight), online, 70, 100, lambda data: (model, params))
    taken = len(X) - stream.n_waiting
    block = Block(X[:taken], weight[:taken, None])
    for mine, theirs in zip(stream.expected, model.condense(model.e_step(params, block), params), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-10)
    assert stream.weight == pytest.approx(block.total_weight)
    assert stream.seen == pytest.approx(block.total_weight)
    for mine, theirs in zip(estimate(stream), params, strict=True):
        assert mine is theirs


@given(st.lists(st.integers(0, 1700), max_size=12))
@settings(derandomize=True, deadline=None, max_examples=15)
def test_splits_into_calls_make_no_difference(splits):
    X = two_clusters(np.random.default_rng(3), 1700)
    expected = learned(X, batch_size=100)
    found = learned(X, splits, batch_size=100)
    assert found.stream_.n_waiting == expected.stream_.n_waiting
    assert same(found.stream_._replace(waiting=()), expected.stream_._replace(waiting=()))
    assert np.array_equal(found.means_, expected.means_)
    rows = [np.concatenate([X[:0], *(part for part, _ in gm.stream_.waiting)]) for gm in (found, expected)]
    assert np.array_equal(*rows)


def test_one_row_a_call_and_weights(rng):
    X, weight = two_clusters(rng, 1850), rng.integers(0, 3, size=1850).astype(float)
    whole, single = (GaussianMixture(2, random_state=0, n_race=2, batch_size=100) for _ in range(2))
    whole.partial_fit(X, sample_weight=weight)
    for row, w in zip(X, weight, strict=True):
        single.partial_fit(row[None], sample_weight=[w])
    assert np.array_equal(whole.means_, single.means_)
    assert whole.stream_.n_batches == single.stream_.n_batches > 0
    assert whole.n_samples_seen_ == single.n_samples_seen_ == weight.sum()


def test_the_callers_rows_are_not_kept(rng):
    X = two_clusters(rng, 1550)
    expected = learned(X, batch_size=100)
    gm, buffer = GaussianMixture(2, random_state=0, n_race=2, batch_size=100), np.empty((50, 2))
    for first in range(0, len(X), 50):
        buffer[:] = X[first : first + 50]
        gm.partial_fit(buffer)
    assert np.array_equal(gm.means_, expected.means_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_one_pass_comes_near_batch_em(covariance_type, dtype, rng):
    X = simulate(rng, 40_000, 3, 4, separation=4.0).astype(dtype)
    X, held = X[:-5000], X[-5000:]
    params = {"covariance_type": covariance_type, "random_state": 0}
    batch = GaussianMixture(4, max_iter=1000, tol=0.05, **params).fit(X)
    stream = GaussianMixture(4, batch_size=256, **params).partial_fit(X)
    assert stream.score(held) > batch.score(held) - 1e-3 * abs(batch.score(held))
    assert stream.stream_.model.bound.dtype == dtype


def test_the_average_is_less_noisy(rng):
    X = two_clusters(rng, 60_000)
    batch = GaussianMixture(2, random_state=0).fit(X)
    errors = {}
    for average in (False, True):
        gm = learned(X, batch_size=50, online=Online(average=average))
        order = np.argsort(gm.means_[:, 0]), np.argsort(batch.means_[:, 0])
        errors[average] = np.abs(gm.means_[order[0]] - batch.means_[order[1]]).max()
    assert errors[True] < 0.5 * errors[False]


def test_a_stream_that_jumps_is_followed_within_some_half_lives(rng):
    X = two_clusters(rng, 30_000)
    X[15_000:] += [0.0, 4.0]
    gm = learned(X, batch_size=200, online=Online(half_life=1000.0))
    expected = GaussianMixture(2, random_state=0).fit(X[20_000:])
    np.testing.assert_allclose(np.sort(gm.means_, axis=0), np.sort(expected.means_, axis=0), atol=0.3)
    assert gm.stream_.weight == pytest.approx(1000 / np.log(2), rel=0.1)
    forgetful = learned(X[:15_000], batch_size=200, online=Online(half_life=1000.0))
    before = forgetful.stream_.log_density
    assert forgetful.partial_fit(X[15_000:15_200]).stream_.log_density < before - 1.0


def test_the_frame_moves_with_the_rows(rng):
    """Rows that wander off far beyond those of the start are learned as well as rows that stay."""
    home, away = (GaussianMixture(2, random_state=0, batch_size=50, online=Online(half_life=200.0)) for _ in range(2))
    for shift in [*np.zeros(30), *np.linspace(0.0, 100.0, 2000), *np.full(300, 100.0)]:
        rows = two_clusters(rng, 50)
        home.partial_fit(rows)
        away.partial_fit(rows + shift)
    order = np.argsort(home.means_[:, 0]), np.argsort(away.means_[:, 0])
    np.testing.assert_allclose(away.covariances_[order[1]], home.covariances_[order[0]], rtol=1e-4, atol=1e-4)
    assert np.abs(away.stream_.model.bound.center - 100.0).max() < 10


def test_partial_fit_goes_on_from_a_fit_and_fit_begins_anew(rng):
    X = two_clusters(rng, 20_000)
    gm = GaussianMixture(2, random_state=0, online=Online(exponent=1.0)).fit(X[:10_000])
    before = gm.means_.copy()
    gm.partial_fit(X[10_000:10_010])
    assert gm.n_samples_seen_ == 10_010
    assert np.array_equal(gm.means_, before)
    assert gm.predict(X).shape == (20_000,)
    gm.partial_fit(X[10_010:11_100])
    assert 0 < np.abs(gm.means_ - before).max() < 0.05  # a thousand rows beside ten thousand
    gm.partial_fit(X[11_100:])
    assert gm.status_ is Status.STREAMED
    assert not gm.converged_
    assert gm.stream_.seen + gm.stream_.n_waiting == pytest.approx(20_000)
    whole = GaussianMixture(2, random_state=0).fit(X)
    np.testing.assert_allclose(np.sort(gm.means_[:, 0]), np.sort(whole.means_[:, 0]), atol=0.02)
    gm.fit(X)
    assert not hasattr(gm, "stream_")
    assert np.array_equal(gm.means_, whole.means_)


def test_before_the_start_nothing_can_be_predicted(rng):
    X = two_clusters(rng, 1000)
    gm = GaussianMixture(2, random_state=0).partial_fit(X[:600])
    with pytest.raises(NotFittedError, match="takes 1000 rows, and 600 came so far"):
        gm.predict(X)
    gm.partial_fit(X[600:])
    assert gm.predict(X).shape == (1000,)
    assert gm.stream_.n_waiting == gm.stream_.n_batches == 0


def test_a_refused_call_changes_nothing(rng):
    X = two_clusters(rng, 3000)
    bad = X[:50].copy()
    bad[7, 1] = np.inf
    for gm in (learned(X, batch_size=100), learned(X[:500], batch_size=100), GaussianMixture(2, batch_size=100)):
        before = dict(vars(gm))
        for rows, weight, message in [
            (bad, None, "infinity at row 7, column 1"),
            (X[:5], [1, 1, 1, 1, -1], r"sample_weight\[4\] is -1"),
            (X[:5], [1.0], "one weight per row"),
            (X[0], None, "1 dimension"),
            ([["a", "b"]], None, "not numbers|dtype"),
        ]:
            with pytest.raises((ValueError, TypeError), match=message):
                gm.partial_fit(rows, sample_weight=weight)
            assert vars(gm).keys() == before.keys()
            assert all(vars(gm)[name] is value for name, value in before.items())
    with pytest.raises(ValueError, match="3 features"):
        learned(X[:500]).partial_fit(np.ones((4, 3)))
    collapsing = GaussianMixture(2, reg_covar=0.0, batch_size=100)
    with pytest.raises(ValueError, match="distinct rows"):
        collapsing.partial_fit(np.ones((1000, 2)))
    assert not hasattr(collapsing, "stream_")


def test_empty_calls_and_rows_of_no_weight(rng):
    X = two_clusters(rng, 1500)
    gm = learned(X, batch_size=100)
    before = gm.stream_
    assert gm.partial_fit(np.empty((0, 2))).stream_ is before
    idle = gm.partial_fit(X[:100] + 1e9, sample_weight=np.zeros(100))
    assert np.array_equal(idle.means_, learned(X, batch_size=100).means_)
    with pytest.raises(ValueError, match="features"):
        gm.partial_fit(np.empty((0, 3)))


def test_a_component_without_rows_keeps_its_covariance(rng):
    X = two_clusters(rng, 4000)
    gm = learned(X, batch_size=100, online=Online(half_life=100.0), reg_covar=0.0)
    near = X[X[:, 0] < 2.0]
    gm.partial_fit(np.tile(near, (5, 1)))  # the other cluster has gone
    starved = int(np.argmin(gm.weights_))
    assert gm.weights_[starved] * gm.stream_.weight < 3
    assert (np.linalg.eigvalsh(gm.covariances_[starved]) > 0.1).all()
    gm.partial_fit(X)
    assert gm.weights_.min() > 0.3  # and is found again


def test_a_prior_counts_as_many_rows_as_are_remembered(rng):
    X = two_clusters(rng, 20_000)
    options = {"covariance_prior": 10.0, "degrees_of_freedom_prior": 500.0, "covariance_type": "spherical"}
    gm = learned(X, batch_size=100, online=Online(half_life=300.0), reg_covar=0.0, **options)
    remembered = GaussianMixture(2, random_state=0, reg_covar=0.0, **options).fit(X[:430])
    np.testing.assert_allclose(np.sort(gm.covariances_), np.sort(remembered.covariances_), rtol=0.15)


def test_the_same_bits_on_any_number_of_threads(rng):
    X = simulate(rng, 9000, 6, 5)
    one, two = (GaussianMixture(5, random_state=0, n_threads=n, batch_size=2000).partial_fit(X) for n in (1, 2))
    assert same(one.stream_._replace(model=None), two.stream_._replace(model=None))
    assert same(one.stream_.model.bound, two.stream_.model.bound)


def test_predictions_beside_learning_see_one_state(rng):
    X = two_clusters(rng, 12_000)
    gm = learned(X[:1200], batch_size=100)
    states, seen, done = [], [], threading.Event()

    def remember():
        parts = gm.weights_, gm.means_, gm.covariances_, gm.precisions_cholesky_
        states.append(tuple(part.tobytes() for part in parts))

    def read():
        while not done.is_set():
            params = gm._params()
            seen.append(tuple(part.tobytes() for part in (params.weights, *params.components)))
            gm.predict(X[:10])

    readers = [threading.Thread(target=read) for _ in range(3)]
    remember()
    for reader in readers:
        reader.start()
    for first in range(1200, len(X), 100):
        gm.partial_fit(X[first : first + 100])
        remember()
    done.set()
    for reader in readers:
        reader.join()
    assert len(set(seen)) > 3
    assert set(seen) <= set(states)


@pytest.mark.parametrize("n_rows", [700, 1234, 2500])
def test_a_saved_stream_goes_on_as_if_nothing_had_happened(n_rows, rng, tmp_path):
    X = two_clusters(rng, 5000)
    options = {"covariance_prior": "auto", "online": Online(exponent=0.7)}
    gm = learned(X[:n_rows], splits=[3, n_rows - 11], **options)
    fastem.save(gm, tmp_path / "stream.fastem")
    again = fastem.load(tmp_path / "stream.fastem")
    assert same(again.stream_, gm.stream_)
    for one in (gm, again):
        one.partial_fit(X[n_rows:])
    assert same(again.stream_, gm.stream_)
    assert np.array_equal(again.means_, gm.means_)
    fastem.save(gm, tmp_path / "one.fastem")
    fastem.save(again, tmp_path / "two.fastem")
    assert fastem.load(tmp_path / "one.fastem").online == Online(exponent=0.7)
    assert (tmp_path / "one.fastem").read_bytes() == (tmp_path / "two.fastem").read_bytes()


def test_columns_by_name(rng):
    pandas = pytest.importorskip("pandas")
    X = two_clusters(rng, 1200)
    gm = GaussianMixture(2, random_state=0).partial_fit(pandas.DataFrame(X, columns=["a", "b"]))
    assert gm.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        gm.partial_fit(pandas.DataFrame(X, columns=["b", "a"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exponent": 0.5}, r"exponent must lie in \(0.5, 1\]"),
        ({"exponent": 1.1}, "exponent must lie"),
        ({"half_life": 0.0}, "half_life must be"),
        ({"step_size": 1.0}, "step_size must be"),
        ({"half_life": 5.0, "step_size": 0.5}, "two ways to forget"),
    ],
)
def test_refusals_of_schedules(arguments, message):
    with pytest.raises(ValueError, match=message):
        Online(**arguments)


def test_waiting_rows_that_no_step_can_take_can_be_dropped(rng):
    X = two_clusters(rng, 1300)
    gm = learned(X, batch_size=100, reg_covar=0.0)
    means, seen = gm.means_, gm.n_samples_seen_
    gm.partial_fit(np.array([[1e140, 0.0]]))
    with pytest.raises(ValueError, match=r"1 rows of earlier calls .* discard_waiting\(\) drops them"):
        gm.partial_fit(X[:100])
    assert gm.stream_.n_waiting == 1
    gm.discard_waiting().partial_fit(X[:100])
    assert gm.stream_.n_waiting == 0
    assert gm.n_samples_seen_ == seen + 100
    assert gm.stream_.n_rows == 1401  # the dropped row came too
    assert np.abs(gm.means_ - means).max() < 1
    assert GaussianMixture().discard_waiting().__dict__.get("stream_") is None


def test_what_overflows_later_is_refused_at_once(rng):
    X = two_clusters(rng, 1200)
    gm = learned(X.astype(np.float32), batch_size=100)
    before = gm.stream_
    with pytest.raises(ValueError, match="infinity"):
        gm.partial_fit(np.full((1, 2), 1e100))
    with pytest.raises(ValueError, match="sum to infinity"):
        gm.partial_fit(X[:2], sample_weight=[1e308, 1e308])
    assert gm.stream_ is before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": -1}, "batch_size"),
        ({"online": "abc"}, "online"),
        ({"n_components": 5}, "n_components was 2 when the stream began and is 5"),
        ({"covariance_type": "diag"}, "covariance_type was 'full'"),
        ({"reg_covar": 5.0}, "reg_covar was"),
        ({"covariance_prior": "auto"}, "the prior of the components was"),
    ],
)
def test_changed_parameters_are_checked(changed, message, rng, tmp_path):
    X = two_clusters(rng, 1500)
    gm = learned(X, batch_size=100)
    before = {name: getattr(gm, name) for name in changed}
    gm.set_params(**changed)
    with pytest.raises(ValueError, match=message):
        gm.partial_fit(X[:5])
    gm.set_params(**before).partial_fit(X[:5])
    fastem.save(gm, tmp_path / "stream.fastem")
    again = fastem.load(tmp_path / "stream.fastem").set_params(**changed)
    with pytest.raises(ValueError, match=message.replace("covariance_prior", "prior")):
        again.partial_fit(X[:5])
    gm.set_params(batch_size=50, n_threads=1, online=Online(half_life=50.0)).partial_fit(X[:100])
    assert gm.stream_.n_waiting == 5
    assert gm.stream_.model.n_threads == 1


@pytest.mark.parametrize("scale", [1000.0, 1e-3])
def test_the_start_takes_rows_whatever_they_weigh(scale, rng):
    X = two_clusters(rng, 3000)
    gm = GaussianMixture(2, random_state=0).partial_fit(X[:999], sample_weight=np.full(999, scale))
    with pytest.raises(NotFittedError, match="takes 1000 rows, and 999 came"):
        gm.predict(X)
    gm.partial_fit(X[999:], sample_weight=np.full(2001, scale))
    assert gm.stream_.seen == pytest.approx(2024 * scale)
    np.testing.assert_allclose(np.sort(gm.means_[:, 0]), [0.0, 5.0], atol=0.25)


def test_a_fit_goes_on_with_any_batch(rng):
    X = two_clusters(rng, 6000)
    options = {"random_state": 0, "reg_covar": 0.0, "tol": 1.0, "online": Online(exponent=1.0)}
    gm = GaussianMixture(5, batch_size=1, **options).fit(X)
    means = gm.means_
    assert np.abs(gm.partial_fit(X[:10]).means_ - means).max() < 0.1
    gm = GaussianMixture(2, batch_size=100, **options).fit(X)
    assert np.isfinite(gm.partial_fit(np.tile(X[:1], (100, 1))).score(X))  # equal rows
    gm = GaussianMixture(2, batch_size=100, resp_init=np.arange(6000) % 2, **options).fit(X)
    assert np.isfinite(gm.partial_fit(X[:100]).score(X))
    gm = GaussianMixture(2, covariance_prior="auto", **options).fit(100.0 * X)
    gm.partial_fit(X[:1024])
    prior = fastem.fit(gm._model(), 100.0 * X, random_state=0).model.family.resolved
    np.testing.assert_allclose(gm.stream_.model.family.resolved.scale, prior.scale, rtol=0.05)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_statistics_recalled_under_a_prior(covariance_type, rng):
    X = simulate(rng, 800, 2, 3)
    prior = NormalInverseWishart(mean=[1.0, -1.0], mean_precision=20.0, degrees_of_freedom=50.0)
    model = Mixture(Gaussian(covariance_type, 1e-3, prior), 3, weight_concentration=30.0)
    result = fastem.fit(model, X, random_state=0)
    model, params = result.model, result.params
    again = model.maximize(model.recall(params, 800.0), 800.0, params, 1.0)
    for mine, theirs in zip([again.weights, *again.components], [params.weights, *params.components], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_a_prior_counts_once_after_a_fit(rng):
    X = rng.normal(10.0, 1.0, size=(4096, 1))
    options = {"mean_prior": [0.0], "mean_precision_prior": 1000.0, "reg_covar": 0.0, "online": Online(exponent=1.0)}
    gm = GaussianMixture(1, **options).fit(X[:1024]).partial_fit(X[1024:])
    np.testing.assert_allclose(gm.means_, GaussianMixture(1, **options).fit(X).means_, rtol=1e-3)


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
def test_a_starved_component_under_a_prior_of_the_means_keeps_its_covariance(covariance_type, rng):
    X = two_clusters(rng, 4000)
    options = {"mean_precision_prior": 0.01, "reg_covar": 0.0, "covariance_type": covariance_type}
    gm = learned(X, batch_size=100, online=Online(half_life=100.0), **options)
    gm.partial_fit(np.tile(X[X[:, 0] < 2.0], (5, 1)))
    starved = int(np.argmin(gm.weights_))
    assert np.min(np.linalg.eigvalsh(np.atleast_2d(np.eye(2) * gm.covariances_[starved]))) > 0.1


def test_far_rows_of_no_weight_do_not_matter(rng):
    X = two_clusters(rng, 1200)
    gm, other = (learned(X, batch_size=100) for _ in range(2))
    more, weight = np.vstack([X[:99], [[1e20, 0.0]]]), np.append(np.ones(99), 0.0)
    gm.partial_fit(more, sample_weight=weight)
    other.partial_fit(np.vstack([X[:99], X[:1]]), sample_weight=weight)
    np.testing.assert_allclose(gm.means_, other.means_, rtol=1e-10)


@pytest.mark.parametrize("online", SCHEDULES, ids=str)
def test_weights_too_small_to_tell(online, rng):
    X = two_clusters(rng, 1200)
    gm = learned(X, batch_size=100, online=online)
    means = gm.stream_.params.components.means
    gm.partial_fit(X[:100], sample_weight=np.full(100, 1e-25))
    np.testing.assert_allclose(gm.stream_.params.components.means, means, rtol=1e-12)


def test_saving_and_failing_fits_beside_learning_see_one_state(rng, tmp_path):
    X = two_clusters(rng, 20_000)
    gm = learned(X[:1200], batch_size=50)
    done, torn = threading.Event(), []

    def save():
        while not done.is_set():
            fastem.save(gm, tmp_path / "model.fastem")
            saved = fastem.load(tmp_path / "model.fastem")
            if saved.n_iter_ != saved.stream_.n_batches or saved.lower_bound_ != saved.stream_.log_density:
                torn.append(saved.n_iter_)

    def read():
        while not done.is_set():
            try:
                gm.predict(X[:5])
            except (AttributeError, NotFittedError) as error:
                torn.append(error)

    threads = [threading.Thread(target=save), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for first in range(1200, len(X), 50):
        gm.partial_fit(X[first : first + 50])
        if first % 1000 == 0:
            with pytest.raises(ValueError, match="infinity"):
                gm.fit([[np.inf, 1.0]])
    done.set()
    for thread in threads:
        thread.join()
    assert torn == []


def squares(rng, n_rows, centers):
    """Rows about some of the corners of a square, and farther out."""
    return np.asarray(centers, float)[rng.integers(len(centers), size=n_rows)] + rng.normal(size=(n_rows, 2))


CORNERS = [[0, 0], [8, 0], [0, 8], [8, 8]]


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_starved_component_moves_to_where_rows_are_new(covariance_type, rng):
    moved = [*CORNERS[:3], [8, -8]]
    scores = {}
    for policy in ("freeze", "reseed"):
        online = Online(half_life=500.0, starved=policy)
        gm = GaussianMixture(4, random_state=0, batch_size=256, covariance_type=covariance_type, online=online)
        gm.partial_fit(squares(np.random.default_rng(1), 10_000, CORNERS))
        gm.partial_fit(squares(np.random.default_rng(2), 30_000, moved))
        scores[policy] = gm.score(squares(np.random.default_rng(3), 10_000, moved))
    best = GaussianMixture(4, random_state=0, covariance_type=covariance_type)
    best.fit(squares(np.random.default_rng(4), 10_000, moved))
    best = best.score(squares(np.random.default_rng(3), 10_000, moved))
    assert scores["reseed"] > best - 0.03
    if covariance_type == "full":
        assert scores["freeze"] < best - 0.2


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_starved_component_is_removed(covariance_type, rng, tmp_path):
    online = Online(half_life=500.0, starved="remove")
    gm = GaussianMixture(4, random_state=0, batch_size=256, covariance_type=covariance_type, online=online)
    gm.partial_fit(squares(rng, 10_000, CORNERS)).partial_fit(squares(rng, 10_000, CORNERS[:3]))
    X = squares(rng, 1000, CORNERS[:3])
    assert gm.weights_.shape == (3,)
    assert gm.weights_.sum() == pytest.approx(1.0)
    assert set(gm.predict(X)) == {0, 1, 2}
    assert gm.predict_proba(X).shape == (1000, 3)
    assert gm.sample(10)[0].shape == (10, 2)
    n_parameters = (gm.bic(X) + 2 * gm.score_samples(X).sum()) / np.log(1000)
    assert n_parameters == pytest.approx(Gaussian(covariance_type).n_parameters(3, 2) + 2)
    fastem.save(gm, tmp_path / "three.fastem")
    again = fastem.load(tmp_path / "three.fastem")
    one, two = (mixture.partial_fit(X) for mixture in (gm, again))
    np.testing.assert_array_equal(one.means_, two.means_)


def test_the_last_component_stays(rng):
    gm = GaussianMixture(1, online=Online(half_life=1.0, starved="remove"), batch_size=10, reg_covar=1e-3)
    gm.partial_fit(rng.normal(size=(1100, 3)))
    assert gm.weights_.tolist() == [1.0]


def test_a_reservoir_is_saved_and_forgets(rng, tmp_path):
    X = two_clusters(rng, 5000)
    options = {"batch_size": 100, "online": Online(half_life=200.0, starved="reseed")}
    gm = learned(X[:2000], **options)
    reservoir = gm.stream_.reservoir
    assert len(reservoir.rows) == 256
    assert reservoir.seen.min() > gm.stream_.seen - gm.stream_.weight
    fastem.save(gm, tmp_path / "one.fastem")
    again = fastem.load(tmp_path / "one.fastem")
    assert same(gm.partial_fit(X[2000:]).stream_, again.partial_fit(X[2000:]).stream_)
    seen, score = reservoir.seen.max(), reservoir.log_densities
    kept = reservoir.after(np.zeros((2, 2)), np.array([score.min() - 1, score.max() + 1]), seen + 1.0, 1e9)
    assert len(kept.rows) == 256
    assert kept.log_densities.min() == score.min() - 1
    assert kept.log_densities.max() <= score.max()
    assert len(kept.after(np.zeros((1, 2)), np.zeros(1), seen + 1e6, 10.0).rows) == 1


def test_the_drift_score_tells_what_is_new():
    rng = np.random.default_rng(5)
    gm = GaussianMixture(2, random_state=0, batch_size=250)
    scores, shift = [], np.array([0.0, 2.0])
    for _ in range(200):
        gm.partial_fit(two_clusters(rng, 250))
        scores.append(getattr(gm, "drift_score_", np.nan))
    assert np.isnan(scores[:8]).all()
    assert np.nanmax(scores) < 4.5
    assert np.nanstd(scores) == pytest.approx(1.0, abs=0.35)
    with pytest.warns(fastem.DriftWarning):
        gm.partial_fit(shift + two_clusters(rng, 250))
    assert gm.drift_score_ > 10
    for _ in range(300):
        gm.partial_fit(shift + two_clusters(rng, 250))
    assert abs(gm.drift_score_) < 4.5  # it is the new habit


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stream: stream._replace(n_waiting=10**6),
        lambda stream: stream._replace(n_waiting=-5),
        lambda stream: stream._replace(seen="x"),
        lambda stream: stream._replace(weight=float("nan")),
        lambda stream: stream._replace(dtype=np.dtype(np.int64)),
        lambda stream: stream._replace(waiting=((np.full((1, 2), np.inf), None),), n_waiting=1, n_counting=1),
        lambda stream: stream._replace(waiting=((np.ones((1, 2)), -np.ones(1)),), n_waiting=1, n_counting=1),
        lambda stream: stream._replace(params=None),
        lambda stream: stream._replace(model=dataclasses.replace(stream.model, family=Gaussian("diag"))),
        lambda stream: stream._replace(model=dataclasses.replace(stream.model, n_components=3)),
        lambda stream: stream._replace(expected=stream.expected._replace(counts=np.array([0.5, np.nan]))),
        lambda stream: stream._replace(means=(stream.means[0]._replace(n_batches=0),)),
        lambda stream: stream._replace(drift=None),
    ],
)
def test_a_crafted_stream_is_refused(spoil, rng, tmp_path):
    gm = learned(two_clusters(rng, 1550), batch_size=100)
    fastem.save(gm, tmp_path / "model.fastem")
    gm.stream_ = spoil(gm.stream_)
    with pytest.raises(fastem.ModelFileError, match="stream_"):
        fastem.save(gm, tmp_path / "model.fastem")


@pytest.mark.parametrize("n_calls", [1, 50])
def test_sorted_rows_give_a_warning_that_names_the_cure(n_calls, rng):
    X = simulate(rng, 60_000, 4, 4, separation=4.0)
    shuffled = GaussianMixture(4, random_state=0).partial_fit(X)  # no warning
    X = X[np.argsort(shuffled.predict(X), kind="stable")]
    best = GaussianMixture(4, random_state=0).fit(X).score(X)
    assert shuffled.score(X) == pytest.approx(best, rel=0.01)
    gm = GaussianMixture(4, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for rows in np.array_split(X, n_calls):
            gm.partial_fit(rows)
    [warning] = caught
    assert warning.category is fastem.DriftWarning
    assert warning.filename == __file__
    assert re.search("algorithm='minibatch'.*half_life", str(warning.message))
    assert gm.score(X) < best - 0.1 * abs(best)
    cured = GaussianMixture(4, random_state=0, algorithm="minibatch", n_epochs=1).fit(X)
    assert cured.score(X) == pytest.approx(best, rel=0.01)


def test_forgetting_gives_no_warning(rng):
    X = simulate(rng, 40_000, 4, 4, separation=4.0)
    gm = GaussianMixture(4, random_state=0, online=Online(half_life=2000.0)).partial_fit(X).partial_fit(X + 20.0)
    assert gm.stream_.drift.n_alarms > 0


CALLS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 30, 150, 700]),  # rows
        st.sampled_from([None, "ones", "whole", "fractions", "zeros"]),  # weights
        st.sampled_from(["sound", "sound", "NaN", "infinite", "negative weight", "too few weights"]),
    ),
    min_size=1,
    max_size=12,
)


@given(calls=CALLS, constant=st.booleans(), batch_size=st.sampled_from([1, 50, 100]), seed=st.integers(0, 5))
@settings(derandomize=True, deadline=None, max_examples=25)
def test_any_sequence_of_calls(calls, constant, batch_size, seed):
    """Refused calls change nothing, and the others do what one call with all their rows does."""
    rng = np.random.default_rng(seed)
    options = {"random_state": 0, "n_race": 2, "batch_size": batch_size if sum(n for n, *_ in calls) < 3000 else 100}
    gm, taken, weights = GaussianMixture(2, **options), [], []
    for n_rows, kind, state in calls:
        X = two_clusters(rng, n_rows) if n_rows else np.empty((0, 2))
        if constant:
            X[:, 1] = 3.0
        weight = {
            None: None,
            "ones": np.ones(n_rows),
            "whole": rng.integers(0, 3, size=n_rows).astype(float),
            "fractions": rng.exponential(size=n_rows),
            "zeros": np.zeros(n_rows),
        }[kind]
        if state == "NaN" and n_rows:
            X[n_rows // 2, 0] = np.nan
        elif state != "sound" and n_rows:
            if state == "infinite":
                X[n_rows // 2, 0] = np.inf
            else:
                weight = -np.ones(n_rows) if state == "negative weight" else np.ones(n_rows + 1)
            before = dict(vars(gm))
            with pytest.raises(ValueError, match=r"X contains|sample_weight"):
                gm.partial_fit(X, sample_weight=weight)
            assert vars(gm).keys() == before.keys()
            assert all(vars(gm)[name] is value for name, value in before.items())
            continue
        gm.partial_fit(X, sample_weight=weight)
        taken.append(X)
        weights.append(np.ones(n_rows) if weight is None else weight)
    if not sum(map(len, taken)):
        return
    whole = GaussianMixture(2, **options).partial_fit(np.concatenate(taken), sample_weight=np.concatenate(weights))
    kept = {"waiting": ()}
    assert same(gm.stream_._replace(model=None, **kept), whole.stream_._replace(model=None, **kept))
    if gm.stream_.model is not None:
        assert np.array_equal(gm.means_, whole.means_)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("starved", ["freeze", "remove"])
def test_weights_may_be_on_any_scale(scale, starved, rng):
    X = two_clusters(rng, 6000)
    online = Online(half_life=1000.0, starved=starved)
    scaled = Online(half_life=1000.0 * scale, starved=starved)
    one = GaussianMixture(2, random_state=0, batch_size=100, reg_covar=0.0, online=online).partial_fit(X)
    two = GaussianMixture(2, random_state=0, batch_size=100, reg_covar=0.0, online=scaled)
    two.partial_fit(X, sample_weight=np.full(6000, scale))
    np.testing.assert_allclose(one.covariances_, two.covariances_, rtol=1e-6)
    two = GaussianMixture(2, random_state=0, batch_size=100, reg_covar=0.0)
    two.partial_fit(X, sample_weight=np.full(6000, scale))
    np.testing.assert_allclose(
        np.sort(np.linalg.det(two.covariances_)), np.sort(np.linalg.det(one.covariances_)), rtol=0.3
    )


def test_steps_that_depend_on_the_components_left_do_not_depend_on_splits():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30_000, 2)) + 12.0 * rng.integers(4, size=(30_000, 2))
    X[10_000:] = X[10_000:] % 6.0
    online = Online(half_life=16_000.0, starved="remove")
    found = []
    for n_calls in (1, 40):
        gm = GaussianMixture(20, random_state=0, n_race=2, online=online)
        for rows in np.array_split(X, n_calls):
            gm.partial_fit(rows)
        found.append(gm)
    assert len(found[0].means_) <= 20
    assert np.array_equal(found[0].means_, found[1].means_)
    assert found[0].stream_.n_waiting == found[1].stream_.n_waiting


def test_bits_do_not_depend_on_threads_of_blas(rng):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    X = rng.normal(size=(2600, 200)) + 1e7 * np.repeat([[1.0], [2.0]], 1300, axis=0)
    found = []
    for n_threads in (1, 2):
        with threadpoolctl.threadpool_limits(n_threads):
            gm = GaussianMixture(2, random_state=0, n_race=0, batch_size=500, covariance_prior="auto")
            gm.set_params(weights_init=[0.5, 0.5], means_init=[X[0], X[-1]], precisions_init=[np.eye(200)] * 2)
            found.append(gm.fit(X).partial_fit(X[:500]).covariances_)
    assert np.array_equal(*found)


def test_components_other_than_those_of_the_fit_are_refused(rng):
    X = two_clusters(rng, 2000)
    gm = GaussianMixture(2, random_state=0).fit(X).set_params(n_components=5)
    with pytest.raises(ValueError, match="n_components"):
        gm.partial_fit(X)
    with pytest.raises(ValueError, match="resp_init is for fit"):
        GaussianMixture(2, resp_init=np.arange(1000) % 2).partial_fit(X)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_reseeding_beside_a_constant_column(covariance_type, rng):
    X = np.column_stack([two_clusters(rng, 4000), np.ones(4000)])
    online = Online(half_life=100.0, starved="reseed")
    gm = GaussianMixture(2, random_state=0, batch_size=25, covariance_type=covariance_type, online=online).partial_fit(
        X
    )
    gm.partial_fit(np.tile(X[X[:, 0] < 2.0], (3, 1)))
    assert np.isfinite(gm.score(X))


def test_reseeding_with_a_short_memory(rng):
    online = Online(half_life=100.0, starved="reseed")
    gm = GaussianMixture(4, random_state=0, batch_size=32, online=online)
    gm.partial_fit(squares(rng, 10_000, CORNERS))
    gm.partial_fit(squares(rng, 20_000, [*CORNERS[:3], [8, -8]]))
    assert gm.stream_.tried > 0


def test_a_row_beyond_all_sense_is_an_error_with_a_cure(rng):
    X = rng.normal(size=(1200, 2))
    gm = GaussianMixture(1, batch_size=100).partial_fit(X[:1050])
    X[1070, 0] = 1e80
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fastem.DriftWarning)
        with contextlib.suppress(ValueError):
            gm.partial_fit(X[1050:])


def test_going_on_from_covariances_below_reg_covar(rng, tmp_path):
    gm = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1e-8]]], online=Online(half_life=1e5), batch_size=1000)
    X = 1e-4 * rng.normal(size=(3000, 1))
    gm.partial_fit(X)
    assert np.isfinite(gm.stream_.model.bound.deviation).all()
    assert gm.covariances_[0, 0, 0] == pytest.approx(1e-6 + 1e-8, rel=0.2)
    fastem.save(gm, tmp_path / "model.fastem")


def test_averages_that_collapse_give_the_last_step(rng):
    gm = GaussianMixture(2, random_state=0, reg_covar=0.0, batch_size=50, online=Online(half_life=200.0, average=True))
    X = two_clusters(rng, 3000)
    gm.partial_fit(X[:1100])
    for first in range(1100, 3000, 50):
        rows = X[first : first + 50].copy()
        rows[X[first : first + 50, 0] > 2.5] = [50.0, 50.0]
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("ignore")
            gm.partial_fit(rows[:49]).partial_fit(rows[49:])
        assert hasattr(gm, "means_")


def test_batch_sizes_of_numpy(rng, tmp_path):
    gm = GaussianMixture(2, random_state=0, batch_size=np.int64(100)).partial_fit(two_clusters(rng, 1550))
    fastem.save(gm, tmp_path / "model.fastem")
    assert fastem.load(tmp_path / "model.fastem").stream_.n_waiting == 50


def test_what_is_dropped_was_never_seen(rng):
    gm = GaussianMixture(2, random_state=0, batch_size=100).partial_fit(two_clusters(rng, 1000))
    gm.partial_fit(np.ones((1, 2)), sample_weight=[1e20]).discard_waiting()
    assert gm.n_samples_seen_ == 1000
    state = np.random.RandomState(3)
    before = state.get_state()[2]
    with pytest.raises(ValueError, match="distinct"):
        GaussianMixture(2, random_state=state).partial_fit(np.ones((1000, 1)))
    assert state.get_state()[2] == before
    with pytest.raises(ValueError, match="average must be"):
        Online(average="no")


def test_fitting_and_learning_beside_predicting(rng):
    X = two_clusters(rng, 3000)
    gm = learned(X[:1500], batch_size=100)
    done, torn = threading.Event(), []

    def read():
        while not done.is_set():
            try:
                gm.predict(X[:5])
                assert gm.means_.shape == (2, 2)
            except Exception as error:
                torn.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(20):
            gm.set_params(n_race=0).fit(X)
            gm.partial_fit(X[:500])
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert torn == []
