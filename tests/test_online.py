"""EM over streams: steps, statistics that mix, splits that make no difference, refusals, serving, saving."""

import itertools
import threading

import numpy as np
import pytest
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

import fastem
from fastem import Gaussian, GaussianMixture, Mixture, Online
from fastem.data import Block, as_data
from fastem.online import Stream, advance, estimate, feed
from fastem.protocol import Status

TYPES = ("full", "tied", "diag", "spherical")
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
    """Whether two nested states have the same bits."""
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, np.ndarray | float | int):
        return np.array_equal(one, two, equal_nan=True)
    return True


@pytest.mark.parametrize("online", SCHEDULES, ids=str)
@given(seen=st.floats(32.0, 1e8), first=st.floats(0.1, 1e5), second=st.floats(0.1, 1e5))
@settings(derandomize=True, deadline=None)
def test_what_is_kept_of_the_old_does_not_depend_on_splits(online, seen, first, second):
    apart = online.kept(seen, first, 64) * online.kept(seen + first, second, 64)
    assert apart == pytest.approx(online.kept(seen, first + second, 64), rel=1e-9, abs=1e-300)
    assert 0 < online.kept(seen, first, 64) < 1


def test_steps_of_the_schedules():
    assert Online(exponent=1.0).kept(900.0, 100.0, 100) == pytest.approx(0.9)
    assert Online(half_life=512.0).kept(0.0, 1024.0, 1024) == pytest.approx(0.25)
    assert Online(step_size=0.1).kept(500.0, 200.0, 100) == pytest.approx(0.81)
    assert 1 - Online(exponent=0.6).kept(1e8, 100.0, 100) == pytest.approx(1e6**-0.6, rel=1e-3)


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
        model.maximize(both, blocks[2].total_weight, params),
        model.m_step(model.e_step(params, blocks[2]), params),
    )
    np.testing.assert_allclose(found.components.covariances, wanted.components.covariances, rtol=1e-12)


class Frozen(Mixture):
    """Parameters that never change."""

    def maximize(self, expected, weight, params):
        return params


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_plain_mean_of_frozen_parameters_is_the_batch(covariance_type, rng):
    """With exponent 1 the statistics are those of all rows, whatever their weights, and are worth all of them."""
    X, weight = simulate(rng, 2000, 2, 2), rng.exponential(size=2000)
    model = Frozen(Gaussian(covariance_type), 2).prepare(as_data(X))
    params = model.initialize(as_data(X), rng)
    online = Online(exponent=1.0)
    stream = feed(Stream(), (X, weight), online, 70, 100.0, lambda data: (model, params, 0.0))
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
    X, weight = two_clusters(rng, 1350), rng.integers(0, 3, size=1350).astype(float)
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
    assert gm.stream_.seen + gm.stream_.weight_waiting == pytest.approx(20_000)
    whole = GaussianMixture(2, random_state=0).fit(X)
    np.testing.assert_allclose(np.sort(gm.means_[:, 0]), np.sort(whole.means_[:, 0]), atol=0.02)
    gm.fit(X)
    assert not hasattr(gm, "stream_")
    assert np.array_equal(gm.means_, whole.means_)


def test_before_the_start_nothing_can_be_predicted(rng):
    X = two_clusters(rng, 1000)
    gm = GaussianMixture(2, random_state=0).partial_fit(X[:600])
    with pytest.raises(NotFittedError, match="weight of 1000, and 600 came so far"):
        gm.predict(X)
    gm.partial_fit(X[600:])
    assert gm.predict(X).shape == (1000,)
    assert gm.stream_.n_waiting == gm.stream_.n_batches == 0


def test_a_refused_call_changes_nothing(rng):
    X = two_clusters(rng, 3000)
    bad = X[:50].copy()
    bad[7, 1] = np.nan
    for gm in (learned(X, batch_size=100), learned(X[:500], batch_size=100), GaussianMixture(2, batch_size=100)):
        before = dict(vars(gm))
        for rows, weight, message in [
            (bad, None, "NaN at row 7, column 1"),
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
    assert same(one.stream_, two.stream_)


def test_predictions_beside_learning_see_one_state(rng):
    X = two_clusters(rng, 40_000)
    gm = learned(X[:1200], batch_size=100)
    states, seen, done = [], [], threading.Event()

    def remember():
        states.append((gm.weights_.tobytes(), gm.means_.tobytes(), gm.covariances_.tobytes()))

    def read():
        while not done.is_set():
            params = gm._params()
            seen.append(tuple(part.tobytes() for part in (params.weights, *params.components[:2])))
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


def test_a_step_on_rows_of_no_weight_is_none(rng):
    stream = learned(two_clusters(rng, 1200), batch_size=100).stream_
    assert advance(stream, Block(np.ones((10, 2)), np.zeros((10, 1))), Online(), 100) is stream
