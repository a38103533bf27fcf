"""What users do with hidden Markov estimators: hmmlearn's calls, streams, and everything that can be given wrongly."""

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastem
from fastem import GMMHMM, HMM, CategoricalHMM, GaussianHMM, PoissonHMM, Status

TYPES = ("full", "tied", "diag", "spherical")
LENGTHS = [150, 1, 249, 200]
TRUE = GaussianHMM.from_parameters(
    [0.6, 0.3, 0.1],
    [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]],
    [[0.0, 0.0], [4.0, 1.0], [0.0, 5.0]],
    [np.eye(2), [[1.0, 0.5], [0.5, 1.0]], 0.5 * np.eye(2)],
)
COUNTS = PoissonHMM.from_parameters([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], [[2.0], [10.0]])
WORDS = CategoricalHMM.from_parameters(
    [1.0, 0.0], [[0.9, 0.1], [0.3, 0.7]], [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], categories=[[3, 5, 8]]
)
FITS = {
    **{name: (GaussianHMM(3, covariance_type=name, random_state=0), TRUE) for name in TYPES},
    "mixed": (GMMHMM(2, 2, random_state=0), TRUE),
    "mixed-tied": (GMMHMM(2, 2, covariance_type="tied", random_state=0), TRUE),
    "poisson": (PoissonHMM(2, random_state=0), COUNTS),
    "categorical": (CategoricalHMM(2, random_state=0), WORDS),
    "any": (HMM(fastem.Normal(), 3, random_state=0), TRUE),
}
EVERY = pytest.mark.parametrize(("model", "true"), FITS.values(), ids=FITS)


def drawn(true, seed=0):
    return np.concatenate([true.sample(n, random_state=seed + i)[0] for i, n in enumerate(LENGTHS)])


@pytest.fixture(scope="module")
def fitted():
    """Each estimator, fitted once."""
    cache = {}

    def fit(model, true):
        key = id(model)
        if key not in cache:
            X = drawn(true)
            cache[key] = (X, clone(model).set_params(max_iter=1000).fit(X, LENGTHS))
        return cache[key]

    return fit


# as hmmlearn has it


@EVERY
def test_every_method(model, true, fitted):
    X, hmm = fitted(model, true)
    n_rows, n_states = sum(LENGTHS), hmm.n_components
    assert hmm.converged_
    assert hmm.status_ is Status.CONVERGED
    assert hmm.startprob_.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(hmm.transmat_.sum(axis=1), 1.0)
    log_prob, posteriors = hmm.score_samples(X, LENGTHS)
    assert posteriors.shape == (n_rows, n_states)
    np.testing.assert_allclose(posteriors.sum(axis=1), 1.0)
    assert np.array_equal(posteriors, hmm.predict_proba(X, LENGTHS))
    assert log_prob == pytest.approx(hmm.score(X, LENGTHS), rel=1e-13)
    assert hmm.score(X, LENGTHS) >= hmm.log_likelihood_ - 1e-9 * abs(log_prob)
    parts = np.split(X, np.cumsum(LENGTHS)[:-1])
    assert sum(hmm.score(part) for part in parts) == pytest.approx(log_prob, rel=1e-12)
    path_prob, states = hmm.decode(X, LENGTHS)
    assert path_prob <= log_prob
    assert np.array_equal(states, hmm.predict(X, LENGTHS))
    assert np.array_equal(states, np.concatenate([hmm.predict(part) for part in parts]))
    right, states = hmm.decode(X, LENGTHS, algorithm="map")
    assert np.array_equal(states, posteriors.argmax(axis=1))
    assert right == pytest.approx(posteriors.max(axis=1).sum())
    p = hmm._n_parameters()
    assert hmm.bic(X, LENGTHS) == pytest.approx(-2 * log_prob + p * np.log(n_rows))
    assert hmm.aic(X, LENGTHS) == pytest.approx(-2 * log_prob + 2 * p)
    pi = hmm.get_stationary_distribution()
    np.testing.assert_allclose(pi @ hmm.transmat_, pi, atol=1e-12)
    ahead = hmm.forecast(X, LENGTHS, n_steps=3)
    assert ahead.shape == (len(LENGTHS), 3, n_states)
    last = posteriors[np.cumsum(LENGTHS) - 1]
    np.testing.assert_allclose(ahead[:, 0], last @ hmm.transmat_, rtol=1e-12)
    np.testing.assert_allclose(ahead[:, 2], last @ np.linalg.matrix_power(hmm.transmat_, 3), rtol=1e-12)
    Y, drawn_states = hmm.sample(500, random_state=1)
    assert Y.shape == (500, X.shape[1])
    assert set(drawn_states) <= set(range(n_states))
    assert hmm.sample(5, random_state=1, currstate=1)[1][0] == 1
    assert np.isfinite(hmm.score(Y))


@EVERY
def test_a_copy_a_pickle_and_a_refit_are_the_same(model, true, fitted):
    X, hmm = fitted(model, true)
    again = clone(hmm).fit(X, LENGTHS)
    loaded = pickle.loads(pickle.dumps(hmm))
    for other in (again, loaded):
        assert np.array_equal(other.transmat_, hmm.transmat_)
        assert np.array_equal(other.predict_proba(X, LENGTHS), hmm.predict_proba(X, LENGTHS))
    assert again.get_params().keys() == model.get_params().keys()


@EVERY
def test_missing_rows_and_weights(model, true):
    X = drawn(true)
    X[10:20] = np.nan
    hmm = clone(model).set_params(max_iter=300).fit(X, LENGTHS, sequence_weight=[1.0, 0.0, 2.0, 1.0])
    assert hmm.n_samples_seen_ == 140 + 2 * 249 + 200
    assert np.isfinite(hmm.predict_proba(X, LENGTHS)).all()
    assert np.isfinite(hmm.score(np.vstack([X[:5], np.full_like(X[:5], np.nan)]), [5, 5]))
    nothing = np.full((4, X.shape[1]), np.nan)
    assert hmm.score(nothing) == pytest.approx(0.0, abs=1e-12)
    chain = [hmm.startprob_ @ np.linalg.matrix_power(hmm.transmat_, t) for t in range(4)]
    np.testing.assert_allclose(hmm.predict_proba(nothing), chain, rtol=1e-12)


def test_the_default_is_maximum_likelihood_and_convergence_is_told():
    """hmmlearn's default has a prior of the covariances, and its monitor says converged when n_iter is reached."""
    X = drawn(TRUE)
    one = GaussianHMM(1).fit(X, LENGTHS)
    np.testing.assert_allclose(one.covariances_[0], np.cov(X.T, bias=True), rtol=1e-12)
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=2"):
        short = GaussianHMM(3, max_iter=2, n_race=0, random_state=0).fit(X, LENGTHS)
    assert not short.converged_
    assert short.status_ is Status.MAX_ITER
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianHMM(3, max_iter=0, random_state=0).fit(X, LENGTHS)


def test_parameters_are_found_again():
    X = np.concatenate([TRUE.sample(4000, random_state=i)[0] for i in range(5)])
    hmm = GaussianHMM(3, random_state=0).fit(X, [4000] * 5)
    order = [int(np.argmin(((hmm.means_ - mean) ** 2).sum(axis=1))) for mean in TRUE.means_]
    np.testing.assert_allclose(hmm.means_[order], TRUE.means_, atol=0.1)
    np.testing.assert_allclose(hmm.covariances_[order], TRUE.covariances_, atol=0.1)
    np.testing.assert_allclose(hmm.transmat_[np.ix_(order, order)], TRUE.transmat_, atol=0.03)


@pytest.mark.parametrize("kind", TYPES)
def test_covars_are_written_out(kind):
    X = drawn(TRUE)
    hmm = GaussianHMM(2, covariance_type=kind, random_state=0, max_iter=1000).fit(X, LENGTHS)
    assert hmm.covars_.shape == (2, 2, 2)
    full = GaussianHMM.from_parameters(hmm.startprob_, hmm.transmat_, hmm.means_, hmm.covars_)
    assert full.score(X, LENGTHS) == pytest.approx(hmm.score(X, LENGTHS), rel=1e-12)


def test_attributes_set_by_hand_as_hmmlearn_users_do():
    hmm = GaussianHMM(2, covariance_type="diag")
    hmm.startprob_, hmm.transmat_ = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.1, 0.9]])
    hmm.means_, hmm.covariances_ = np.array([[0.0], [5.0]]), np.array([[1.0], [1.0]])
    assert hmm.predict([[0.1], [0.2], [5.1]]).tolist() == [0, 0, 1]
    hmm.transmat_ = np.array([[0.9, 0.2], [0.1, 0.9]])
    with pytest.raises(ValueError, match=r"transmat_\[0\] must be non-negative and sum to 1"):
        hmm.predict([[0.1]])
    hmm.transmat_ = np.eye(3)
    with pytest.raises(ValueError, match=r"transmat_ has shape \(3, 3\)"):
        hmm.predict([[0.1]])


def test_hmmlearns_names_can_be_set_too():
    hmm = GaussianHMM(2, covariance_type="diag")
    hmm.startprob_, hmm.transmat_ = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.1, 0.9]])
    hmm.means_, hmm.covars_ = np.array([[0.0], [5.0]]), np.array([[1.0], [4.0]])
    assert hmm.covars_.tolist() == [[[1.0]], [[4.0]]]
    assert np.array_equal(hmm.covariances_, [[1.0], [4.0]])
    counts = PoissonHMM(2)
    counts.startprob_, counts.transmat_, counts.lambdas_ = hmm.startprob_, hmm.transmat_, [[1.0], [9.0]]
    assert counts.predict([[1], [0], [12]]).tolist() == [0, 0, 1]


def test_the_mean_length_is_that_of_what_counts():
    X = drawn(TRUE)
    hmm = GaussianHMM(3, random_state=0).fit(X, LENGTHS, sequence_weight=[1.0, 0.0, 2.0, 0.0])
    assert hmm.mean_length_ == (150 + 2 * 249) / 3


def test_one_component_a_state_is_a_gaussian_hmm():
    X = drawn(TRUE)
    start = {"startprob_init": [0.4, 0.3, 0.3], "transmat_init": np.full((3, 3), 1 / 3)}
    means, covariances = TRUE.means_ + 0.3, np.tile(np.eye(2), (3, 1, 1))
    plain = GaussianHMM(3, means_init=means, covariances_init=covariances, **start).fit(X, LENGTHS)
    mixed = GMMHMM(
        3, 1, weights_init=np.ones((3, 1)), means_init=means[:, None], covariances_init=covariances[:, None], **start
    ).fit(X, LENGTHS)
    assert np.array_equal(mixed.lower_bounds_, plain.lower_bounds_)
    assert np.array_equal(mixed.means_[:, 0], plain.means_)
    assert np.array_equal(mixed.covariances_[:, 0], plain.covariances_)


def test_a_mixture_of_parameters_given(rng):
    weights = np.array([[0.3, 0.7], [0.6, 0.4]])
    means = rng.normal(size=(2, 2, 3)) * 4
    for kind, covariances in [
        ("full", np.tile(np.eye(3), (2, 2, 1, 1))),
        ("tied", np.eye(3)),
        ("diag", np.ones((2, 2, 3))),
        ("spherical", np.ones((2, 2))),
    ]:
        hmm = GMMHMM.from_parameters(
            [0.5, 0.5], np.full((2, 2), 0.5), weights, means, covariances, covariance_type=kind
        )
        X, states = hmm.sample(400, random_state=0)
        assert hmm.covars_.shape == (2, 2, 3, 3)
        flat = fastem.GaussianMixture.from_parameters(
            weights.ravel() / 2, means.reshape(4, 3), np.tile(np.eye(3), (4, 1, 1))
        )
        assert hmm.score(X) == pytest.approx(flat.score_samples(X).sum(), rel=1e-12)
        assert (hmm.predict(X) == states).mean() > 0.8
    with pytest.raises(ValueError, match="its first axes must be"):
        GMMHMM.from_parameters(
            [0.5, 0.5], np.full((2, 2), 0.5), weights, means, np.ones((2, 3)), covariance_type="diag"
        )


def test_more_states_than_values():
    """Two symbols and three states: no three rows are distinct."""
    X = (np.random.default_rng(0).random((400, 1)) < np.tile([0.1, 0.9, 0.5, 0.9], 100)[:, None]).astype(int)
    hmm = CategoricalHMM(3, random_state=0, max_iter=2000).fit(X)
    one = CategoricalHMM(1).fit(X)
    assert hmm.score(X) > one.score(X) + 20
    assert len(np.unique(hmm.emissionprob_[:, 0].round(3))) == 3


def test_unseen_categories_are_impossible_unless_they_are_named():
    X = np.array([[1], [2], [2], [1], [4], [4]])
    hmm = CategoricalHMM(2, random_state=0, max_iter=500).fit(X)
    assert hmm.score([[1], [3]]) == -np.inf
    with pytest.raises(ValueError, match="sequence 1 is impossible"):
        hmm.predict_proba([[1], [2], [3]], [2, 1])
    with pytest.raises(ValueError, match="sequence 0 is impossible"):
        hmm.predict([[3]])
    with pytest.raises(ValueError, match="sequence 0 is impossible"):
        hmm.forecast([[3]])
    wide = CategoricalHMM(
        2, categories=[[1, 2, 3, 4]], prior=fastem.Conjugate(1.0, [0.25] * 4), random_state=0, max_iter=500
    ).fit(X)
    assert np.isfinite(wide.score([[1], [3]]))
    assert wide.emissionprob_.shape == (2, 4)


def test_states_can_start_from_labels():
    X, states = TRUE.sample(500, random_state=0)
    hmm = GaussianHMM(3, resp_init=states).fit(X)
    assert (hmm.predict(X) == states).mean() > 0.9
    with pytest.raises(ValueError, match="none can race"):
        GaussianHMM(3, resp_init=states, n_race=3).fit(X)


def test_warm_start_goes_on():
    X = drawn(TRUE)
    hmm = GaussianHMM(3, random_state=0, warm_start=True, max_iter=3, tol=0, n_race=0, stopping="change")
    with pytest.warns(ConvergenceWarning):
        hmm.fit(X, LENGTHS)
    first = hmm.lower_bound_
    with pytest.warns(ConvergenceWarning):
        hmm.fit(X, LENGTHS)
    assert hmm.lower_bounds_[0] > first
    with pytest.raises(ValueError, match="are needed to go on"):
        hmm.set_params(n_components=2).fit(X, LENGTHS)
    assert hmm.means_.shape == (3, 2)


def test_float32_rows_stay_float32():
    X = drawn(TRUE).astype(np.float32)
    single = GaussianHMM(3, random_state=0).fit(X, LENGTHS)
    double = GaussianHMM(3, random_state=0).fit(X.astype(np.float64), LENGTHS)
    assert single.score(X, LENGTHS) == pytest.approx(double.score(X, LENGTHS), rel=1e-5)
    assert single.means_.dtype == np.float64


def test_a_memory_map_is_read_where_it_is(tmp_path):
    X = drawn(TRUE)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    one, two = (GaussianHMM(3, random_state=0, max_iter=500).fit(rows, LENGTHS) for rows in (X, mapped))
    assert np.array_equal(one.lower_bounds_, two.lower_bounds_)
    run = fastem.Sequences(mapped, LENGTHS).blocks[0]
    assert np.shares_memory(run.X, mapped)


def test_scikit_learns_tools():
    X = drawn(COUNTS)
    search = GridSearchCV(PoissonHMM(random_state=0, max_iter=500), {"n_components": [1, 2]}, cv=3).fit(X)
    assert search.best_params_ == {"n_components": 2}
    pipe = make_pipeline(StandardScaler(), GaussianHMM(2, random_state=0, max_iter=500)).fit(X)
    assert pipe.predict(X).shape == (len(X),)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["count"])
    named = PoissonHMM(2, random_state=0, max_iter=500).fit(frame, LENGTHS)
    assert named.feature_names_in_.tolist() == ["count"]
    with pytest.raises(ValueError, match="feature names"):
        named.predict(frame.rename(columns={"count": "other"}))


def test_verbose_and_callbacks(capsys):
    X, seen = drawn(TRUE), []
    GaussianHMM(2, random_state=0, verbose=1, verbose_interval=1, n_race=0).fit(X, LENGTHS, callbacks=[seen.append])
    assert "Iteration 2" in capsys.readouterr().out
    assert seen[0].n_iter == 1
    stopped = GaussianHMM(2, random_state=0, n_race=0).fit(X, LENGTHS, callbacks=[lambda step: step.n_iter == 2])
    assert stopped.status_ is Status.CALLBACK


# priors


def test_dirichlet_priors_are_added_to_the_counts():
    X, start = np.array([[0.0], [0.0], [9.0], [0.0], [9.0]]), {"means_init": [[0.0], [9.0]]}
    start |= {"covariances_init": [1.0, 1.0], "covariance_type": "spherical", "reg_covar": 1.0}
    hmm = GaussianHMM(
        2,
        startprob_init=[0.5, 0.5],
        transmat_init=[[0.5, 0.5], [0.5, 0.5]],
        startprob_prior=[3.0, 1.0],
        transmat_prior=[[2.0, 1.0], [1.0, 4.0]],
        **start,
    ).fit(X, [3, 2])
    np.testing.assert_allclose(hmm.startprob_, [1.0, 0.0], atol=1e-8)
    np.testing.assert_allclose(hmm.transmat_, [[(1 + 1) / 4, 2 / 4], [0.0, 1.0]], atol=1e-6)


# standard errors


def test_standard_errors():
    X = np.concatenate([COUNTS.sample(200, random_state=i)[0] for i in range(40)])
    lengths = [200] * 40
    hmm = PoissonHMM(2, random_state=0, tol=1e-7, max_iter=2000).fit(X, lengths)
    found = hmm.standard_errors(X, lengths)
    assert set(found.estimates) == {"startprob", "transmat", "rates"}
    low, high = found.interval("transmat", 0.999)
    order = np.argsort(hmm.rates_[:, 0])
    assert (low[np.ix_(order, order)] < COUNTS.transmat_).all()
    assert (high[np.ix_(order, order)] > COUNTS.transmat_).all()
    assert ((low > 0) & (high < 1)).all()
    drawn_errors = hmm.standard_errors(X, lengths, method="bootstrap", n_bootstrap=60, random_state=0).standard_errors
    for name in ("transmat", "rates"):
        np.testing.assert_allclose(drawn_errors[name], found.standard_errors[name], rtol=0.4)
    with pytest.raises(ValueError, match="fewer than 10"):
        hmm.standard_errors(X[:400], [200, 200], method="bootstrap")
    with pytest.raises(ValueError, match="method must be"):
        hmm.standard_errors(X, lengths, method="sandwich")
    with pytest.raises(ValueError, match="not converged"), pytest.warns(ConvergenceWarning):
        PoissonHMM(2, random_state=0, max_iter=2, n_race=0).fit(X, lengths).standard_errors(X, lengths)


@pytest.mark.parametrize("name", ["full", "tied", "spherical", "mixed", "mixed-tied", "categorical", "poisson"])
def test_standard_errors_have_names_and_shapes_of_the_attributes(name):
    model, true = FITS[name]
    params = {"n_components": 1, "tol": 1e-9, "max_iter": 5000, "random_state": 1}
    X = np.random.default_rng(0).normal(size=(300, 2)) + 6.0 * np.random.default_rng(1).integers(2, size=(300, 1))
    if name in ("categorical", "poisson"):
        X = drawn(true)
    hmm = clone(model).set_params(**params).fit(X)
    found = hmm.standard_errors(X)
    assert set(found.estimates) == {part.removesuffix("_") for part in hmm._LEARNED}
    for part, errors in found.standard_errors.items():
        assert errors.shape == found.estimates[part].shape
        np.testing.assert_allclose(found.estimates[part], getattr(hmm, f"{part}_"), rtol=1e-12)
    assert len(found.covariance) == sum(part.size for part in found.estimates.values())


def test_intervals_of_probabilities_lie_between_0_and_1():
    hmm = CategoricalHMM(2, tol=1e-9, max_iter=5000, random_state=0).fit(drawn(WORDS), LENGTHS)
    found = hmm.standard_errors(drawn(WORDS), LENGTHS)
    for name in ("startprob", "transmat", "emissionprob"):
        low, high = found.interval(name, 0.9999)
        assert (low >= 0).all()
        assert (high <= 1).all()
        assert (low <= found.estimates[name] + 1e-12).all()


def test_standard_errors_of_a_single_sequence_take_its_start_as_known():
    X = COUNTS.sample(3000, random_state=3)[0]
    hmm = PoissonHMM(2, random_state=0, tol=1e-8, max_iter=2000).fit(X)
    found = hmm.standard_errors(X)
    assert found.standard_errors["startprob"].tolist() == [0.0, 0.0]
    assert (found.standard_errors["transmat"] > 0.001).all()


# streams


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(0, 3))
def test_it_makes_no_difference_how_sequences_come(cuts, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 90, 60)
    X = np.concatenate([COUNTS.sample(int(n), random_state=int(i))[0] for i, n in enumerate(lengths)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    whole = PoissonHMM(2, random_state=0, batch_size=200).partial_fit(X, lengths)
    parts, first = PoissonHMM(2, random_state=0, batch_size=200), 0
    for cut in [*cuts, len(lengths)]:
        last = min(first + cut, len(lengths))
        if last > first:
            parts.partial_fit(X[offsets[first] : offsets[last]], lengths[first:last])
        first = last
    assert parts.stream_.n_batches == whole.stream_.n_batches > 2
    assert np.array_equal(parts.rates_, whole.rates_)
    assert np.array_equal(parts.transmat_, whole.transmat_)
    assert parts.n_samples_seen_ == lengths.sum()
    assert parts.status_ is Status.STREAMED


@pytest.mark.parametrize("name", ["full", "tied", "mixed", "poisson", "categorical", "any"])
def test_a_stream_learns(name):
    model, true = FITS[name]
    X = np.concatenate([true.sample(100, random_state=i)[0] for i in range(200)])
    lengths = [100] * 200
    hmm = clone(model).set_params(batch_size=1000)
    for first in range(0, 200, 7):
        rows = X[100 * first : 100 * (first + 7)]
        hmm.partial_fit(rows, lengths[first : first + 7])
    batch = clone(model).set_params(max_iter=1000).fit(X, lengths)
    assert hmm.score(X, lengths) / len(X) > batch.score(X, lengths) / len(X) - 0.02
    assert hmm.n_iter_ == hmm.stream_.n_batches
    again = pickle.loads(pickle.dumps(hmm)).partial_fit(X[:700], lengths[:7])
    assert again.n_samples_seen_ == len(X) + 700


def test_a_stream_goes_on_after_a_fit():
    X = np.concatenate([COUNTS.sample(100, random_state=i)[0] for i in range(60)])
    hmm = PoissonHMM(2, random_state=0, batch_size=500).fit(X[:3000], [100] * 30)
    before = hmm.rates_.copy()
    hmm.partial_fit(X[3000:], [100] * 30)
    assert not np.array_equal(hmm.rates_, before)
    np.testing.assert_allclose(hmm.rates_, before, rtol=0.2)
    assert hmm.n_samples_seen_ == 6000


def test_rows_that_wait_and_refusals_of_streams():
    X = COUNTS.sample(400, random_state=0)[0]
    hmm = PoissonHMM(2, random_state=0).partial_fit(X[:200], [200])
    with pytest.raises(NotFittedError, match="takes 1000 rows, and 200 came so far"):
        hmm.predict(X)
    state = hmm.stream_
    with pytest.raises(ValueError, match="lengths sum to 3"):
        hmm.partial_fit(X, [3])
    assert hmm.stream_ is state
    assert hmm.partial_fit(np.empty((0, 1))).stream_ is state
    assert hmm.discard_waiting().stream_.n_waiting == 0
    hmm.partial_fit(np.tile(X, (4, 1)), [400] * 4)
    with pytest.raises(ValueError, match="n_components was 2"):
        hmm.set_params(n_components=3).partial_fit(X)
    with pytest.raises(ValueError, match="starved='remove'"):
        PoissonHMM(2, online=fastem.Online(starved="remove")).partial_fit(X)
    missing = PoissonHMM(2, random_state=0).fit(X).partial_fit(np.full((5, 1), np.nan))
    assert missing.n_samples_seen_ == 400
    with pytest.raises(ValueError, match="resp_init is for fit"):
        PoissonHMM(2, resp_init=np.zeros(400, int)).partial_fit(X)


# refusals


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (GaussianHMM(0), "n_components"),
        (GaussianHMM(2, covariance_type="half"), "covariance_type"),
        (GaussianHMM(2, tol=-1.0), "tol"),
        (GaussianHMM(2, startprob_init=[1.0]), "startprob_init has shape"),
        (GaussianHMM(2, transmat_init=np.ones((2, 2))), r"transmat_init\[0\]"),
        (GaussianHMM(2, means_init=[[0.0]] * 2), "means has shape"),
        (GaussianHMM(2, covariances_init=np.zeros((2, 2, 2))), "must be positive definite"),
        (GaussianHMM(2, startprob_prior=0.5), "startprob_prior"),
        (GaussianHMM(2, transmat_prior=[[1.0, 1.0]]), "transmat_concentration must be"),
        (GaussianHMM(2, algorithm="online"), "algorithm"),
        (GaussianHMM(2, online=fastem.Online(starved="reseed")), "starved='reseed'"),
        (GaussianHMM(2, degrees_of_freedom_prior=5.0), "degrees_of_freedom_prior needs covariance_prior"),
        (GMMHMM(2, 0), "n_mix"),
        (GMMHMM(2, 2, means_init=np.zeros((4, 2))), "its first axes must be"),
        (GMMHMM(2, 2, weights_init=np.ones((2, 2))), r"weights_init\[0\]"),
        (PoissonHMM(2), "Poisson counts are integers"),
        (PoissonHMM(2, rates_init=[[-1.0, 1.0]] * 2), "Poisson counts are integers"),
        (HMM(fastem.Gaussian(), 2), "use GaussianHMM or GMMHMM"),
        (HMM(fastem.Normal(), 2, components_init={"mean": [[0.0]]}), r"components_init has \['mean'\]"),
    ],
)
def test_wrong_parameters_are_refused_and_nothing_changes(model, words):
    X = drawn(TRUE)
    before = dict(model.__dict__)
    with pytest.raises((ValueError, TypeError), match=words):
        model.fit(X, LENGTHS)
    assert model.__dict__ == before


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda X: X[:, 0], "X has 1 dimension"),
        (lambda X: X[:0], "0 sample"),
        (lambda X: np.where(np.arange(len(X))[:, None] == 7, np.inf, X), "infinity at row 7"),
        (lambda X: np.where((np.arange(len(X)) == 7)[:, None] & (np.arange(2) == 1), np.nan, X), "row 7, column 1"),
        (lambda X: X.astype(str), "string|dtype|numbers"),
        (lambda X: np.full_like(X, np.nan), "nothing but NaN"),
    ],
)
def test_wrong_rows_are_refused(rows, words):
    X = drawn(TRUE)
    hmm = GaussianHMM(2, random_state=0).fit(X, LENGTHS)
    means = hmm.means_
    with pytest.raises((ValueError, TypeError), match=words):
        hmm.fit(rows(X))
    assert hmm.means_ is means


def test_wrong_calls_are_refused():
    X = drawn(TRUE)
    with pytest.raises(NotFittedError):
        GaussianHMM(2).predict(X)
    hmm = GaussianHMM(2, random_state=0).fit(X, LENGTHS)
    for call, words in [
        (lambda: hmm.predict(X[:, :1]), "X has 1 features"),
        (lambda: hmm.predict(X, [3]), "lengths sum to 3"),
        (lambda: hmm.decode(X, algorithm="best"), "algorithm must be"),
        (lambda: hmm.forecast(X, n_steps=0), "n_steps must be"),
        (lambda: hmm.sample(0), "n_samples must be"),
        (lambda: hmm.sample(3, currstate=2), "currstate must be a state from 0 to 1"),
        (lambda: hmm.fit(X, LENGTHS, sequence_weight=np.ones(len(X))), "one weight per sequence"),
        (lambda: GaussianHMM.from_parameters([1.0], [[1.0]], [[0.0]], [[[-1.0]]]), "positive definite"),
        (lambda: PoissonHMM.from_parameters([1.0], [[1.0]], [[-1.0]]), "must not be negative"),
        (lambda: CategoricalHMM.from_parameters([1.0], [[1.0]], [[0.5, 0.6]]), "sum to 1"),
        (lambda: CategoricalHMM.from_parameters([1.0], [[1.0]], [[1.0]], [[1, 2]]), "there are 2 categories"),
        (lambda: GaussianHMM.from_parameters([1.0], [[1.0, 0.0]], [[0.0]], [[[1.0]]]), "transmat has shape"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


def test_a_state_that_collapses_is_named():
    X = np.concatenate([np.zeros((50, 1)), np.random.default_rng(0).normal(5.0, 1.0, (50, 1))])
    with pytest.raises(ValueError, match=r"component . has a singular covariance"):
        GaussianHMM(2, n_race=0, random_state=0).fit(X)
    hmm = GaussianHMM(2, random_state=0, covariance_prior="auto").fit(X)
    assert np.isfinite(hmm.score(X))


def test_short_and_single_sequences():
    assert GaussianHMM(1, reg_covar=1.0).fit([[0.0], [1.0]], [1, 1]).transmat_.tolist() == [[1.0]]
    hmm = PoissonHMM(2, random_state=0, max_iter=500).fit([[1], [9], [8], [1], [2], [7]], [1] * 6)
    np.testing.assert_allclose(hmm.transmat_, hmm.transmat_ / hmm.transmat_.sum(axis=1, keepdims=True))
    assert hmm.score([[1], [9]], [1, 1]) == pytest.approx(hmm.score([[1]]) + hmm.score([[9]]))


# hmmlearn itself, where it is installed


@pytest.mark.parametrize("kind", TYPES)
def test_agreement_with_hmmlearn(kind):
    theirs = pytest.importorskip("hmmlearn.hmm")
    X = drawn(TRUE)
    model = theirs.GaussianHMM(
        3, kind, n_iter=8, tol=-np.inf, init_params="", min_covar=0, covars_prior=0, covars_weight=1
    )
    model.startprob_, model.transmat_ = np.full(3, 1 / 3), np.full((3, 3), 1 / 3)
    model.means_ = TRUE.means_ + 0.5
    unit = {"full": np.tile(np.eye(2), (3, 1, 1)), "tied": np.eye(2), "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    model.covars_ = unit[kind]
    start = dict(startprob_init=model.startprob_, transmat_init=model.transmat_, means_init=model.means_)
    with pytest.warns(ConvergenceWarning):
        ours = GaussianHMM(3, covariance_type=kind, covariances_init=unit[kind], max_iter=8, tol=0, **start).fit(
            X, LENGTHS
        )
    model.fit(X, LENGTHS)
    np.testing.assert_allclose(ours.means_, model.means_, rtol=1e-9, atol=1e-9)
    covars = model.covars_[::2] if kind == "spherical" else model.covars_  # hmmlearn's has one for each column
    np.testing.assert_allclose(ours.covars_, covars, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(ours.transmat_, model.transmat_, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours.score(X, LENGTHS), model.score(X, LENGTHS), rtol=1e-11)
    np.testing.assert_allclose(ours.predict_proba(X, LENGTHS), model.predict_proba(X, LENGTHS), atol=1e-9)
    assert ours.decode(X, LENGTHS)[0] == pytest.approx(model.decode(X, LENGTHS)[0], rel=1e-11)
    assert np.array_equal(ours.predict(X, LENGTHS), model.predict(X, LENGTHS))
    assert ours.bic(X, LENGTHS) == pytest.approx(model.bic(X, LENGTHS))
