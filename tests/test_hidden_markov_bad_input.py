"""Hidden Markov estimators on data that are degenerate, missing or wrong, and on changes between calls."""

import copy
import functools

import numpy as np
import pytest
from sklearn.base import clone

import fastem
from fastem import GMMHMM, HMM, CategoricalHMM, GaussianHMM, PoissonHMM
from fastem.families.poisson import PoissonParams

RNG = np.random.default_rng(5)
STATES = np.repeat(RNG.integers(0, 2, 30), 10)
NORMAL = np.array([[0.0, 0.0], [4.0, 1.0]])[STATES] + RNG.normal(size=(300, 2))
COUNTS = RNG.poisson(np.array([[1.0, 3.0], [20.0, 3.0]])[STATES]).astype(float)
CODES = np.where(RNG.random((300, 2)) < 0.8, STATES[:, None], 2.0)
LENGTHS = [100, 200]
MODELS = {
    "normal": (GaussianHMM(2), NORMAL),
    "mixtures": (GMMHMM(2, 2), NORMAL),
    "poisson": (PoissonHMM(2), COUNTS),
    "categorical": (CategoricalHMM(2), CODES),
    "columns": (HMM(fastem.Normal(), 2), NORMAL),
    "heavy tails": (HMM(fastem.StudentT(), 2), NORMAL),
}
EVERY = pytest.mark.parametrize(("model", "X"), MODELS.values(), ids=MODELS)
CHAIN = [0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]]


def new(model, **params):
    return clone(model).set_params(**{"random_state": 0, "max_iter": 300, "n_race": 2} | params)


@functools.cache
def kept(name):
    model, X = MODELS[name]
    return new(model).fit(X, LENGTHS)


def fitted(model):
    """A copy of the model, fitted once."""
    return copy.deepcopy(kept(next(name for name, (one, _) in MODELS.items() if one is model)))


# what is missing


@EVERY
def test_a_column_that_is_all_missing_is_named(model, X):
    X = X.copy()
    X[:, 1] = np.nan
    with pytest.raises(ValueError, match=r"column 1"):
        new(model).fit(X, LENGTHS)


@EVERY
def test_a_missing_value_is_summed_out_or_refused(model, X):
    gap = X.copy()
    gap[3, 1] = np.nan
    if not new(model)._family().takes_missing:
        for call in (new(model).fit, new(model).partial_fit, fitted(model).predict):
            with pytest.raises(ValueError, match=r"NaN at row 3, column 1; .* make all of the row NaN"):
                call(gap, LENGTHS)
        return
    hmm = new(model).fit(gap, LENGTHS)
    # the same two columns, of which a state's are independent: a value that is missing is a factor of 1
    family, params = hmm._known_family(), hmm._params()
    whole, part = (hmm._fitted_model()._log_emissions(params, hmm._run(rows, LENGTHS)) for rows in (X, gap))
    np.testing.assert_allclose(np.delete(part, 3, axis=0), np.delete(whole, 3, axis=0), rtol=1e-12)
    alone = family.log_densities(params.components, gap[3:4])
    np.testing.assert_allclose(part[3], alone[0], rtol=1e-12)
    assert (part[3] > whole[3]).all()
    assert np.isfinite(hmm.predict_proba(gap, LENGTHS)).all()


@EVERY
def test_rows_and_sequences_that_are_missing_inform_nothing(model, X):
    gap = X.copy()
    gap[:100] = np.nan
    hmm = new(model).fit(gap, LENGTHS)
    assert hmm.n_samples_seen_ == 200
    assert hmm.score(gap[:100]) == pytest.approx(0.0, abs=1e-11)
    chain = hmm.predict_proba(gap, LENGTHS)[:100]
    np.testing.assert_allclose(chain[1:], chain[:-1] @ hmm.transmat_, atol=1e-12)
    np.testing.assert_allclose(chain[0], hmm.startprob_, atol=1e-12)
    assert hmm.score(gap, LENGTHS) == pytest.approx(hmm.score(X[100:]), rel=1e-12)


@EVERY
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_refused_everywhere(model, X, value):
    hmm = fitted(model)
    bad = X.copy()
    bad[7, 1] = value
    for call in (new(model).fit, hmm.predict, hmm.score, hmm.partial_fit, hmm.forecast, hmm.standard_errors):
        with pytest.raises(ValueError, match="infinity at row 7, column 1"):
            call(bad, LENGTHS)


# lengths


@EVERY
@pytest.mark.parametrize(
    ("lengths", "words"),
    [([100, 0, 200], r"lengths\[1\] is 0"), ([100, 100], "sum to 200, but X has 300"), ([301], "sum to 301")],
)
def test_lengths_that_do_not_add_up(model, X, lengths, words):
    hmm = fitted(model)
    seen = hmm.n_samples_seen_
    for call in (hmm.fit, hmm.partial_fit, hmm.decode, hmm.predict_proba, hmm.score, hmm.forecast, hmm.bic):
        with pytest.raises(ValueError, match=words):
            call(X, lengths)
    assert hmm.n_samples_seen_ == seen


@EVERY
def test_sequences_of_one_row_tell_nothing_of_transitions(model, X):
    start = np.array([[0.6, 0.4], [0.3, 0.7]])
    hmm = new(model, transmat_init=start).fit(X, np.ones(300, int))
    np.testing.assert_allclose(hmm.transmat_, start, atol=1e-12)
    one = hmm.predict_proba(X[:1])
    assert hmm.forecast(X[:1], n_steps=2)[0] == pytest.approx(np.vstack([one @ start, one @ start @ start]))
    alone = sum(hmm.score(row) for row in X[:5, None])
    assert hmm.score(X[:5], [1] * 5) == pytest.approx(alone, rel=1e-12)
    assert hmm.decode(X[:1])[0] <= hmm.score(X[:1])


@EVERY
def test_more_states_than_rows_are_refused(model, X):
    with pytest.raises(ValueError, match=r"3 observed row\(s\) for n_components=5; use fewer"):
        new(model, n_components=5).fit(X[:3])
    gap = X[:6].copy()
    gap[3:] = np.nan
    with pytest.raises(ValueError, match=r"3 observed row\(s\) for n_components=5"):
        new(model, n_components=5).fit(gap)
    with pytest.raises(ValueError, match="0 sample"):
        new(model).fit(X[:0])


@EVERY
def test_weights_of_sequences_that_cannot_be(model, X):
    for weights, words in (
        ([0.0, 0.0], "zero for every sequence"),
        ([1.0, np.nan], r"sequence_weight\[1\] is nan"),
        ([1.0, -1.0], r"sequence_weight\[1\] is -1"),
        ([1.0], "one weight per sequence"),
    ):
        with pytest.raises(ValueError, match=words):
            new(model).fit(X, LENGTHS, sequence_weight=weights)


# states


@EVERY
def test_a_state_that_is_never_visited(model, X):
    """State 1 cannot be reached: it keeps what it starts with, and nothing is NaN."""
    hmm = new(model, startprob_init=[1.0, 0.0], transmat_init=[[1.0, 0.0], [0.3, 0.7]]).fit(X, LENGTHS)
    assert hmm.startprob_.tolist() == [1.0, 0.0]
    np.testing.assert_allclose(hmm.transmat_, [[1.0, 0.0], [0.3, 0.7]], rtol=1e-12)
    resp = hmm.predict_proba(X, LENGTHS)
    np.testing.assert_allclose(resp, np.tile([1.0, 0.0], (300, 1)), atol=1e-14)
    assert hmm.predict(X, LENGTHS).tolist() == [0] * 300
    assert hmm.get_stationary_distribution().tolist() == [1.0, 0.0]
    assert np.isfinite(hmm.score(X, LENGTHS))
    assert (hmm.sample(50, random_state=0)[1] == 0).all()
    after = hmm.partial_fit(X, LENGTHS).partial_fit(X, LENGTHS)
    assert after.startprob_.tolist() == [1.0, 0.0]
    assert np.isfinite(after.predict_proba(X, LENGTHS)).all()


def test_states_that_never_meet_have_no_stationary_distribution():
    hmm = PoissonHMM.from_parameters([0.5, 0.5], np.eye(2), [[1.0], [9.0]])
    with pytest.raises(ValueError, match="several stationary distributions"):
        hmm.get_stationary_distribution()


def test_underflow_in_one_sequence_is_done_in_logarithms():
    """State 1 is lost in 400 rows, by more than float64 can hold, and wins in the last; the other sequence is not."""
    hmm = GaussianHMM.from_parameters([0.5, 0.5], np.eye(2), [[0.0], [4.0]], [[[1.0]], [[1.0]]])
    X = np.concatenate([np.zeros(400), np.full(500, 4.0), [0.0, 1.0, 0.0]])[:, None]
    level, resp = hmm.score_samples(X, [900, 3])
    paths = np.array([[(-0.5 * ((part - mean) ** 2)).sum() for mean in (0.0, 4.0)] for part in (X[:900], X[900:])])
    expected = np.logaddexp.reduce(paths + np.log(0.5), axis=1) - 0.5 * np.log(2 * np.pi) * np.array([900, 3])
    assert level == pytest.approx(expected.sum(), rel=1e-12)
    np.testing.assert_allclose(resp[:900, 1], 1.0, rtol=1e-12)
    assert hmm.decode(X, [900, 3])[1].tolist() == [1] * 900 + [0] * 3


# categories


def test_unseen_categories():
    hmm = new(CategoricalHMM(2), prior=1.0, batch_size=100).fit(CODES, LENGTHS)
    other = CODES.copy()
    other[3, 1] = 7.0
    assert hmm.score(other, LENGTHS) == -np.inf
    for call in (hmm.predict, hmm.predict_proba, hmm.forecast):
        with pytest.raises(ValueError, match="sequence 0 is impossible"):
            call(other, LENGTHS)
    for call in (hmm.partial_fit, new(CategoricalHMM(2), categories=[[0, 1, 2]] * 2).fit):
        with pytest.raises(ValueError, match=r"X\[3, 1\] is 7; which is none of the categories"):
            call(other, LENGTHS)
    wide = new(CategoricalHMM(2), prior=1.0, categories=[[0, 1, 2, 7]] * 2).fit(CODES, LENGTHS)
    assert wide.emissionprob_.shape == (2, 8)


def test_a_stream_of_categories_goes_on_after_a_fit():
    hmm = new(CategoricalHMM(2), batch_size=100).fit(CODES, LENGTHS)
    before = hmm.score(CODES, LENGTHS)
    for _ in range(3):
        hmm.partial_fit(CODES, LENGTHS)
    assert hmm.n_iter_ == 6
    assert hmm.score(CODES, LENGTHS) == pytest.approx(before, abs=1.0)
    named = new(HMM(fastem.Categorical(), 2), batch_size=100).fit(CODES, LENGTHS)
    assert named.partial_fit(CODES, LENGTHS).n_iter_ == 2


def test_known_categories_are_in_the_order_of_their_probabilities():
    with pytest.raises(ValueError, match="categories must be ascending"):
        CategoricalHMM.from_parameters(*CHAIN, [[0.8, 0.2], [0.1, 0.9]], categories=[[3, 1]])
    hmm = CategoricalHMM.from_parameters(*CHAIN, [[0.8, 0.2], [0.1, 0.9]], categories=[[1, 3]])
    assert hmm.score([[1]]) == pytest.approx(np.log(0.45))


@pytest.mark.parametrize("rest", [{"scales": [[1.0], [5.0]]}, {}])
def test_a_start_that_is_given_in_part_still_races(rest):
    X = np.random.default_rng(0).gamma(2.0, np.repeat([1.0, 5.0, 1.0], 60))[:, None]
    init = {"shapes": [[2.0], [2.0]], **rest}
    hmm = HMM(fastem.Gamma(), 2, components_init=init, n_race=3, random_state=0)
    hmm.set_params(startprob_init=CHAIN[0], transmat_init=CHAIN[1])
    if rest:
        with pytest.raises(ValueError, match="gives one start for all rows"):
            hmm.fit(X)
    else:
        assert hmm.fit(X).converged_


def test_no_criterion_of_nothing():
    hmm = PoissonHMM.from_parameters(*CHAIN, [[1.0], [2.0]])
    with pytest.raises(ValueError, match="bic needs at least one"):
        hmm.bic([[np.nan], [np.nan]])
    assert hmm.score([[np.nan], [np.nan]]) == pytest.approx(0.0, abs=1e-12)


def test_parameters_of_categories_set_by_hand():
    hmm = CategoricalHMM(2)
    hmm.startprob_, hmm.transmat_ = CHAIN
    hmm.emissionprob_ = [[0.8, 0.2], [0.1, 0.9]]
    assert hmm.score([[0]]) == pytest.approx(np.log(0.45))
    hmm.emissionprob_ = [[0.8, 0.3], [0.1, 0.9]]
    with pytest.raises(ValueError, match="sum to 1"):
        hmm.score([[0]])
    rates = PoissonHMM(2)
    rates.startprob_, rates.transmat_ = CHAIN
    rates.rates_ = [[-1.0], [2.0]]
    with pytest.raises(ValueError, match="rates_ must not be negative"):
        rates.score([[0]])


# changes between calls


@EVERY
def test_another_number_of_states_after_a_fit_is_refused(model, X):
    hmm = fitted(model).set_params(n_components=3)
    for call in (hmm.predict, hmm.score, hmm.forecast, hmm.partial_fit):
        with pytest.raises(ValueError, match="n_components"):
            call(X, LENGTHS)
    assert hmm.set_params(n_components=2).predict(X, LENGTHS).shape == (300,)


def test_another_family_after_a_fit_is_refused():
    hmm = new(HMM(fastem.Poisson(), 2)).fit(COUNTS, LENGTHS).set_params(family=fastem.Geometric())
    with pytest.raises(ValueError, match="the last fit was of Poisson"):
        hmm.partial_fit(COUNTS, LENGTHS)
    stream = new(HMM(fastem.Poisson(), 2))
    for _ in range(4):
        stream.partial_fit(COUNTS, LENGTHS)
    with pytest.raises(ValueError, match="family was 'Poisson' when the stream began"):
        stream.set_params(family=fastem.Geometric()).partial_fit(COUNTS, LENGTHS)
    prior = new(HMM(fastem.Poisson(), 2)).fit(COUNTS, LENGTHS)
    prior.set_params(family=fastem.Poisson(fastem.Conjugate(1e9, [5.0, 5.0])), warm_start=True)
    np.testing.assert_allclose(prior.fit(COUNTS, LENGTHS).components_.rates, 5.0, rtol=1e-4)


@pytest.mark.parametrize("family", [fastem.FactorAnalyzer(1), fastem.GatedRegression()])
def test_families_that_need_a_model_of_their_own(family):
    with pytest.raises(TypeError, match="needs a model of its own"):
        HMM(family, 2).fit(NORMAL)


# any family


def test_states_with_regressions_of_their_own():
    x = RNG.normal(size=(2000, 1))
    states = np.repeat(np.tile([0, 1], 20), 50)
    y = np.where(states == 0, 1.0 + 2.0 * x[:, 0], -1.0 - x[:, 0]) + 0.3 * RNG.normal(size=2000)
    rows = np.column_stack([x, y])
    hmm = new(HMM(fastem.Regression(), 2)).fit(rows, [1000, 1000])
    order = np.argsort(-hmm.components_.intercepts[:, 0])
    np.testing.assert_allclose(hmm.components_.intercepts[order, 0], [1.0, -1.0], atol=0.05)
    np.testing.assert_allclose(hmm.components_.coefficients[order, 0, 0], [2.0, -1.0], atol=0.05)
    assert (np.argsort(order)[hmm.predict(rows, [1000, 1000])] == states).mean() > 0.98
    one = new(HMM(fastem.Regression(), 1)).fit(rows)
    slope, intercept = np.polyfit(x[:, 0], y, 1)
    assert one.components_.coefficients[0, 0, 0] == pytest.approx(slope)
    assert one.components_.intercepts[0, 0] == pytest.approx(intercept)


@pytest.mark.parametrize(
    ("family", "components", "row"),
    [
        (fastem.Poisson(), {"rates": [[1.0], [9.0]]}, [9.0]),
        (fastem.Normal(), {"means": [[0.0], [5.0]], "variances": [[1.0], [2.0]]}, [4.0]),
        (fastem.Categorical(categories=[[2, 4]]), {"probabilities": [[0.9, 0.1], [0.2, 0.8]]}, [4.0]),
        (
            fastem.StudentT(),
            {"means": [[0.0], [5.0]], "covariances": np.ones((2, 1, 1)), "degrees_of_freedom": [4.0, 9.0]},
            [5.5],
        ),
        (
            fastem.Regression(),
            {"intercepts": [[1.0], [2.0]], "coefficients": [[[1.0]], [[-1.0]]], "covariances": np.ones((2, 1, 1))},
            [3.0, -1.0],
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, fastem.families.family.Family) else "",
)
def test_parameters_that_are_known(family, components, row):
    hmm = HMM.from_parameters(family, *CHAIN, components)
    params = hmm._params().components
    log_densities = hmm._known_family().log_densities(params, np.array([row]))[0]
    assert hmm.score([row]) == pytest.approx(np.logaddexp.reduce(np.log(0.5) + log_densities))
    assert hmm.predict([row]).tolist() == [1]
    assert hmm.converged_ is False
    with pytest.raises(ValueError, match="are needed"):
        HMM.from_parameters(family, *CHAIN, {**components, "other": 1.0})
    name = next(iter(components))
    with pytest.raises(ValueError, match="has shape"):
        HMM.from_parameters(family, *CHAIN, {**components, name: np.ravel(components[name])})
    with pytest.raises(ValueError, match=r"transmat must|transmat\[0\] must|transmat has"):
        HMM.from_parameters(family, [0.5, 0.5], [[0.9, 0.9], [0.2, 0.8]], components)


def test_known_parameters_of_mixtures_and_wrong_ones():
    rates = PoissonParams(np.array([[1.0], [2.0], [8.0], [9.0]]))
    hmm = HMM.from_parameters(fastem.Poisson(), *CHAIN, rates, weights=[[0.5, 0.5], [0.2, 0.8]])
    assert hmm.n_mix == 2
    assert hmm.sample(5, random_state=0)[0].shape == (5, 1)
    with pytest.raises(ValueError, match=r"rates must be not negative"):
        HMM.from_parameters(fastem.Poisson(), *CHAIN, {"rates": [[1.0], [-2.0]]})
    with pytest.raises(TypeError, match="must be PoissonParams"):
        HMM.from_parameters(fastem.Poisson(), *CHAIN, ([[1.0], [2.0]],))
    with pytest.raises(ValueError, match="categories are not known"):
        HMM.from_parameters(fastem.Categorical(), *CHAIN, {"probabilities": [[0.5, 0.5], [0.1, 0.9]]})
    hmm.components_ = PoissonParams(np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"rates has shape \(3, 1\)"):
        hmm.predict([[1]])


def test_a_prior_can_be_a_number_of_rows():
    for model, X in (MODELS["poisson"], MODELS["categorical"]):
        one, two = (new(model, prior=prior).fit(X, LENGTHS) for prior in (2.0, fastem.Conjugate(2.0)))
        assert one.score(X, LENGTHS) == two.score(X, LENGTHS)
        with pytest.raises(ValueError, match="prior"):
            new(model, prior=-1.0).fit(X)
