"""What must hold of every hidden Markov model, through the protocol alone; one row of MODELS a model."""

import itertools
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from conftest import STRUCTURES

import fastem
from fastem.inference import information
from fastem.models.hidden_markov import HiddenMarkov
from fastem.models.hidden_markov_records import HiddenMarkovParams, occupancy, stationary
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams
from fastem.protocol import DegenerateError, add_stats
from fastem.sequences import Sequences

MAP = fastem.NormalInverseWishart(mean_precision=0.5, degrees_of_freedom=7.0)
TYPES = ("full", "tied", "diag", "spherical")
LENGTHS = (1, 60, 2, 150, 37, 150)
PRIORS = {"startprob_concentration": 1.5, "transmat_concentration": 2.0}


def normal_rows(rng, states):
    means = 2.5 * rng.normal(size=(3, 2))
    return means[states] + rng.normal(size=(len(states), 2)) * np.array([1.0, 0.5])


def counts(rng, states):
    return rng.poisson(np.array([[1.0, 9.0], [5.0, 3.0], [12.0, 8.0]])[states]).astype(float)


def categories(rng, states):
    tables = rng.dirichlet(np.ones(4), size=(2, 3))
    return np.stack([(rng.random((len(states), 1)) > table[states].cumsum(axis=1)).sum(axis=1) for table in tables], 1)


def waits(rng, states):
    return rng.gamma(np.array([2.0, 5.0, 9.0])[states], np.array([1.0, 2.0, 0.5])[states])[:, None]


MODELS = {
    **{name: (HiddenMarkov(fastem.Gaussian(name), 3), normal_rows) for name in TYPES + STRUCTURES},
    "full-map": (HiddenMarkov(fastem.Gaussian(prior=MAP), 3, **PRIORS), normal_rows),
    "mixed": (HiddenMarkov(fastem.Gaussian(), 2, 2), normal_rows),
    "mixed-map": (
        HiddenMarkov(fastem.Gaussian("diag", prior=MAP), 2, 3, weight_concentration=1.5, **PRIORS),
        normal_rows,
    ),
    "poisson": (HiddenMarkov(fastem.Poisson(), 3), counts),
    "poisson-mixed": (HiddenMarkov(fastem.Poisson(fastem.Conjugate()), 2, 2, **PRIORS), counts),
    "categorical": (HiddenMarkov(fastem.Categorical(fastem.Conjugate()), 3), categories),
    "categorical-mixed": (HiddenMarkov(fastem.Categorical(fastem.Conjugate()), 2, 2), categories),
    "gamma": (HiddenMarkov(fastem.Gamma(), 3), waits),
}
EVERY = pytest.mark.parametrize(("model", "rows"), MODELS.values(), ids=MODELS)


class Case(NamedTuple):
    X: np.ndarray
    lengths: np.ndarray
    weight: np.ndarray  # of the sequences
    data: Sequences
    model: HiddenMarkov  # prepared
    params: HiddenMarkovParams  # a few steps into a fit


def simulated(rng, rows, lengths=LENGTHS):
    transmat = np.array([[0.9, 0.1, 0.0], [0.05, 0.9, 0.05], [0.1, 0.1, 0.8]])
    states = []
    for length in lengths:
        states.append(rng.integers(3))
        for _ in range(length - 1):
            states.append(rng.choice(3, p=transmat[states[-1]]))
    return rows(rng, np.array(states)).astype(float)


def case_of(model, rows, rng, dtype=np.float64):
    X = simulated(rng, rows).astype(dtype)
    X[[70, 71, 200]] = np.nan
    weight = np.array([1.0, 2.0, 3.0, 1.0, 0.0, 2.0])
    data = Sequences(X, LENGTHS, weight)
    result = fastem.fit(model, data, max_iter=4, tol=0, random_state=1)
    return Case(X, np.array(LENGTHS), weight, data, result.model, result.params)


def stats_of(case, data, params=None):
    return add_stats(case.model.e_step(case.params if params is None else params, run) for run in data)


def assert_stats_equal(one, two, rtol=1e-11):
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, np.max(np.abs(b), initial=0)))


def assert_params_equal(one, two, rtol=1e-10):
    for a, b in zip([*one[:3], *one[3]], [*two[:3], *two[3]], strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


def gradient(function, x, h=1e-5):
    return np.array([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(len(x))])


# statistics


@EVERY
def test_statistics_add_over_sequences(model, rows, rng):
    case = case_of(model, rows, rng)
    whole = stats_of(case, case.data)
    parts = [case.data.blocks[0].between(i, j) for i, j in ((0, 1), (1, 4), (4, 6))]
    assert_stats_equal(stats_of(case, Sequences.of(parts)), whole)
    assert_stats_equal(stats_of(case, case.data.recut(100)), whole)


@EVERY
def test_integer_weights_repeat_sequences_and_zero_removes_them(model, rows, rng):
    case = case_of(model, rows, rng)
    repeated = case.data.blocks[0].take(np.repeat(np.arange(6), case.weight.astype(int)))
    plain = Sequences(np.where(repeated.weight > 0, repeated.X, np.nan), repeated.lengths)
    assert plain.total_weight == case.data.total_weight
    assert_stats_equal(stats_of(case, case.data), stats_of(case, plain))


@EVERY
def test_missing_rows_are_summed_out(model, rows, rng):
    """The likelihood with a row missing is that of a chain that moves twice."""
    case = case_of(model, rows, rng)
    X = case.X[100:110]
    holes = np.insert(X, [4], np.full((2, X.shape[1]), np.nan), axis=0)
    whole = case.model.log_likelihoods(case.params, Sequences(holes).blocks[0])[0]
    scores = case.model._log_emissions(case.params, Sequences(X).blocks[0])
    alpha = case.params.startprob * np.exp(scores[0])
    for t in range(1, 10):
        alpha = alpha @ np.linalg.matrix_power(case.params.transmat, 3 if t == 4 else 1) * np.exp(scores[t])
    assert whole == pytest.approx(np.log(alpha.sum()), rel=1e-12)
    assert stats_of(case, Sequences(holes)).log_likelihood == pytest.approx(whole, rel=1e-9)
    nothing = Sequences(np.vstack([X, np.full((3, X.shape[1]), np.nan)]), [10, 3])  # the second says nothing
    assert stats_of(case, nothing).log_likelihood == pytest.approx(stats_of(case, Sequences(X)).log_likelihood)


@EVERY
def test_the_log_likelihood_is_that_of_exact_densities(model, rows, rng):
    case = case_of(model, rows, rng)
    exact = case.model.log_likelihoods(case.params, case.data.blocks[0])
    assert exact @ case.weight == pytest.approx(stats_of(case, case.data).log_likelihood, rel=1e-9)


@pytest.mark.parametrize("name", TYPES)
def test_float32_statistics_are_close(name, rng):
    case = case_of(HiddenMarkov(fastem.Gaussian(name), 3), normal_rows, rng, np.float32)
    double = Sequences(case.X.astype(np.float64), LENGTHS, case.weight)
    single, exact = stats_of(case, case.data), stats_of(case._replace(model=case.model.prepare(double)), double)
    assert case.model.frame.dtype == np.float32
    assert single.log_likelihood == pytest.approx(exact.log_likelihood, rel=1e-6)
    np.testing.assert_allclose(single.transitions, exact.transitions, rtol=1e-4, atol=1e-3)


# the M-step


@EVERY
def test_m_step_is_a_stationary_point(model, rows, rng):
    case = case_of(model, rows, rng)
    model, stats = case.model, stats_of(case, case.data)
    expected, after = model.condense(stats, case.params), model.m_step(stats, case.params)

    def objective(vector):
        params = model.unpack(vector)
        return stats.weight * model.expected_log_likelihood(expected, params) + model.log_prior(params)

    assert np.abs(gradient(objective, model.pack(after))).max() < 1e-3
    assert np.abs(gradient(objective, model.pack(case.params))).max() > 1e-2  # so that the test can fail


@EVERY
def test_fisher_identity(model, rows, rng):
    """The gradient of the log-likelihood is the score at the same parameters."""
    case = case_of(model, rows, rng)
    at = case.model.pack(case.params)
    want = gradient(lambda x: stats_of(case, case.data, case.model.unpack(x)).log_likelihood, at)
    got = case.model.score(stats_of(case, case.data), case.params)
    scale = np.abs(want).max()
    far = at != 0  # at a root of 0 there are two sides
    np.testing.assert_allclose(got[far], want[far], rtol=1e-4, atol=1e-5 * scale)
    assert scale > 1e-2


@EVERY
def test_objective_never_falls(model, rows, rng):
    for seed in range(2):
        data = Sequences(simulated(rng, rows), LENGTHS)
        for acceleration in (None, "anderson", "squarem"):
            result = fastem.fit(model, data, max_iter=40, tol=0, random_state=seed, acceleration=acceleration)
            seen = result.history
            assert np.diff(seen).min() >= -1e-10 * abs(seen[-1])
            assert seen[-1] > seen[0]


# equivariance and degenerate equalities


@EVERY
def test_permuted_states_give_permuted_answers(model, rows, rng):
    case = case_of(model, rows, rng)
    n_states, n_mix = case.params.weights.shape
    order = np.roll(np.arange(n_states), 1)
    components = (order[:, None] * n_mix + np.arange(n_mix)).ravel()

    def permuted(params):
        return HiddenMarkovParams(
            params.startprob[order],
            params.transmat[np.ix_(order, order)],
            params.weights[order],
            case.model.family.keep(params.components, components),
        )

    plain = case.model.m_step(stats_of(case, case.data), case.params)
    moved = permuted(case.params)
    after = case.model.m_step(stats_of(case, case.data, moved), moved)
    assert_params_equal(after, permuted(plain), rtol=1e-9)


@EVERY
def test_a_chain_without_memory_is_a_mixture(model, rows, rng):
    """Equal rows of transmat, and startprob equal to them: the same family, the same steps."""
    case = case_of(model, rows, rng)
    model = replace(case.model, startprob_concentration=1.0, transmat_concentration=1.0, weight_concentration=1.0)
    share = rng.dirichlet(np.ones(model.n_components))
    params = case.params._replace(startprob=share, transmat=np.tile(share, (len(share), 1)))
    run = case.data.blocks[0]
    stats = model.e_step(params, run)

    mixture = replace(Mixture(model.family, share.size * model.n_mix), frame=model.frame)
    weights = (share[:, None] * params.weights).ravel()
    mixed = mixture.e_step(MixtureParams(weights, params.components), run.rows_alone())
    assert stats.log_likelihood == pytest.approx(mixed.log_likelihood, rel=1e-11)
    np.testing.assert_allclose(stats.sums, mixed.sums, rtol=1e-10, atol=1e-10 * np.abs(mixed.sums).max())
    after, wanted = model.m_step(stats, params), mixture.m_step(mixed, MixtureParams(weights, params.components))
    for a, b in zip(after.components, wanted.components, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * np.abs(b).max())
    totals = stats.starts.sum() + stats.transitions.sum()
    assert totals == pytest.approx((case.weight * case.lengths).sum(), rel=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_states_with_heavy_tails(kind, rng):
    """Student's t needs precisions on the way down too; and its steps, though expanded, never lead down."""
    X = simulated(rng, normal_rows)
    clean = fastem.fit(HiddenMarkov(fastem.Gaussian(kind), 3), Sequences(X, LENGTHS), random_state=0).params.components
    given = {"means": clean.means, "covariances": clean.covariances, "degrees_of_freedom": np.full(3, 10.0)}
    model = HiddenMarkov(fastem.StudentT(kind), 3, components_init=given)
    data = Sequences(X + rng.standard_t(2.0, size=X.shape), LENGTHS)
    result = fastem.fit(model, data, max_iter=200, tol=1e-9, stopping="aitken", random_state=0)
    assert np.diff(result.history).min() >= -1e-9 * abs(result.history[-1])
    assert result.params.components.degrees_of_freedom.min() < 5.0
    model, params = result.model, result.params
    at = model.pack(params)
    moved = model.unpack(at + 0.05 * rng.normal(size=at.size) * (at != 0))
    want = gradient(lambda x: model.e_step(model.unpack(x), data.blocks[0]).log_likelihood, model.pack(moved))
    got = model.score(model.e_step(moved, data.blocks[0]), moved)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
    exact = model.log_likelihoods(params, data.blocks[0]).sum()
    assert exact == pytest.approx(model.e_step(params, data.blocks[0]).log_likelihood, rel=1e-9)
    share = rng.dirichlet(np.ones(3))
    alike = params._replace(startprob=share, transmat=np.tile(share, (3, 1)))
    stats = model.e_step(alike, data.blocks[0])
    mixture = replace(Mixture(model.family, 3), frame=model.frame)
    mixed = mixture.e_step(MixtureParams(share, params.components), data.blocks[0].rows_alone())
    assert stats.log_likelihood == pytest.approx(mixed.log_likelihood, rel=1e-11)
    np.testing.assert_allclose(stats.sums, mixed.sums, rtol=1e-9, atol=1e-10 * np.abs(mixed.sums).max())


def test_components_are_states_that_do_not_last(rng):
    """Two components of a state are two states with the same future; their transitions follow from the weights."""
    case = case_of(HiddenMarkov(fastem.Gaussian(), 2, 2), normal_rows, rng)
    startprob, transmat, weights, components = case.params
    spread = weights.ravel()
    wide = HiddenMarkovParams(
        np.repeat(startprob, 2) * spread,
        np.repeat(np.repeat(transmat, 2, axis=0), 2, axis=1) * spread,
        np.ones((4, 1)),
        components,
    )
    stats = stats_of(case, case.data)
    expanded = replace(case.model, n_components=4, n_mix=1)
    wanted = add_stats(expanded.e_step(wide, run) for run in case.data)
    assert stats.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(stats.sums, wanted.sums, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        stats.transitions, wanted.transitions.reshape(2, 2, 2, 2).sum(axis=(1, 3)), rtol=1e-9, atol=1e-9
    )


def test_one_state_is_the_maximum_likelihood_estimate(rng):
    X = simulated(rng, normal_rows)
    result = fastem.fit(HiddenMarkov(fastem.Gaussian()), Sequences(X, LENGTHS), random_state=0)
    np.testing.assert_allclose(result.params.components.means[0], X.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(result.params.components.covariances[0], np.cov(X.T, bias=True), rtol=1e-12)
    assert result.params.transmat.tolist() == [[1.0]]
    mixture = fastem.fit(Mixture(fastem.Gaussian()), X, random_state=0)
    assert result.log_likelihood == pytest.approx(mixture.log_likelihood, rel=1e-12)


def test_a_state_never_visited_keeps_its_parameters(rng):
    X = simulated(rng, normal_rows)
    data = Sequences(X, LENGTHS)
    model = HiddenMarkov(fastem.Gaussian("diag"), 2).prepare(data)
    params = model.initialize(data, rng)
    means = np.array([[0.0, 0.0], [1e8, 1e8]])
    params = params._replace(
        startprob=np.array([1.0, 0.0]), transmat=np.eye(2), components=params.components._replace(means=means)
    )
    after = model.m_step(add_stats(model.e_step(params, run) for run in data), params)
    for part, old in zip(after.components, params.components, strict=True):
        assert np.array_equal(part[1], old[1])
    assert np.array_equal(after.transmat, np.eye(2))
    np.testing.assert_allclose(after.components.means[0], X.mean(axis=0), rtol=1e-12)


def test_affine_equivariance(rng):
    X = simulated(rng, normal_rows)
    scale, shift = np.array([2.0**-20, 2.0**30]), np.array([3e-6, -1e12])
    options = {"max_iter": 15, "tol": 0, "random_state": 3}
    model = HiddenMarkov(fastem.Gaussian(), 3)
    plain = fastem.fit(model, Sequences(X, LENGTHS), **options).params
    moved = fastem.fit(model, Sequences(X * scale + shift, LENGTHS), **options).params
    np.testing.assert_allclose(moved.transmat, plain.transmat, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(moved.components.means, plain.components.means * scale + shift, rtol=1e-7)


# drivers


@EVERY
def test_coordinates_go_there_and_back(model, rows, rng):
    case = case_of(model, rows, rng)
    assert_params_equal(case.model.unpack(case.model.pack(case.params)), case.params, rtol=1e-12)


@EVERY
def test_statistics_are_recalled(model, rows, rng):
    """The parameters are the maximum of what is recalled for them."""
    case = case_of(model, rows, rng)
    params = case.model.m_step(stats_of(case, case.data), case.params)
    expected = case.model.recall(params, 5000.0)  # with so many the priors explain no probability by themselves
    assert_params_equal(case.model.maximize(expected, 5000.0, params, 0.0), params, rtol=1e-8)
    assert expected.moments.counts.sum() == pytest.approx(1.0)
    assert expected.starts.sum() + expected.transitions.sum() == pytest.approx(1.0)


@EVERY
def test_stepwise_em_without_forgetting_is_batch_em(model, rows, rng):
    case = case_of(model, rows, rng)
    stats = stats_of(case, case.data)
    expected = case.model.condense(stats, case.params)
    blended = case.model.blend(case.model.recall(case.params, 10.0), expected, 1.0)
    batch = case.model.m_step(stats, case.params)
    assert_params_equal(case.model.maximize(blended, stats.weight, case.params, 0.0), batch, rtol=1e-9)


@pytest.mark.parametrize("name", ["full", "tied", "mixed", "poisson", "categorical", "gamma"])
@pytest.mark.parametrize("algorithm", ["minibatch", "incremental"])
def test_many_steps_in_a_pass_reach_what_batch_em_reaches(name, algorithm, rng):
    model, rows = MODELS[name]
    lengths = np.full(120, 25)
    data = Sequences(simulated(rng, rows, lengths), lengths)
    options = {"max_iter": 300, "tol": 1e-8, "stopping": "aitken", "random_state": 0, "n_race": 6}
    batch = fastem.fit(model, data, acceleration="anderson", **options)
    other = fastem.fit(model, data, algorithm=algorithm, batch_size=600, acceleration="anderson", **options)
    assert other.history[-1] / data.total_weight > batch.history[-1] / data.total_weight - 0.05
    if algorithm == "incremental":
        assert np.diff(other.history).min() >= -1e-9 * abs(other.history[-1])


def test_races_take_samples_of_sequences(rng, monkeypatch):
    monkeypatch.setattr("fastem.models.mixture._RACE_ROWS", 500)
    lengths = [3000, 10, 2000, 700]
    data = Sequences(simulated(rng, normal_rows, lengths), lengths)
    model = HiddenMarkov(fastem.Gaussian(), 3)
    raced = fastem.fit(model, data, n_race=6, random_state=0, max_iter=200, tol=1e-6)
    alone = max(fastem.fit(model, data, random_state=s, max_iter=200, tol=1e-6).history[-1] for s in range(4))
    assert raced.history[-1] >= alone - 1.0
    again = fastem.fit(model, data, n_race=6, random_state=0, max_iter=200, tol=1e-6)
    assert np.array_equal(raced.history, again.history)


def test_draws_are_runs_of_sequences(rng):
    X = np.arange(6000.0)[:, None]
    lengths = np.array([4, 2500, 3, 1, 3492])
    weight = np.array([1.0, 1.0, 0.0, 1.0, 2.0])
    data = Sequences(X, lengths, weight)
    drawn = data.draw(2700, rng)
    assert len(drawn) == len(set(drawn)) == 2700
    assert not set(drawn) & {2504, 2505, 2506}  # of weight 0
    sample = data.take(drawn)
    run = sample.blocks[0]
    assert np.array_equal(run.X[:, 0], np.sort(drawn))
    number = np.searchsorted(np.cumsum(lengths), run.X[:, 0], side="right")
    for a, b in itertools.pairwise(run.offsets):
        assert (np.diff(run.X[a:b, 0]) == 1).all()
        assert len(set(number[a:b])) == 1
    assert np.array_equal(run.sequence_weight, weight[number[run.offsets[:-1]]])
    assert np.array_equal(run.counts, weight[number])
    order = np.searchsorted(np.sort(drawn), drawn)
    first = sample.take(order[:1000])
    assert np.array_equal(first.blocks[0].X[:, 0], np.sort(drawn[:1000]))


@pytest.mark.parametrize("name", ["full", "tied", "poisson", "mixed"])
def test_bits_do_not_depend_on_threads(name, rng):
    model, rows = MODELS[name]
    lengths = rng.integers(1, 2000, 40)
    data = Sequences(simulated(rng, rows, lengths), lengths)
    fits = [fastem.fit(replace(model, n_threads=n), data, max_iter=4, tol=0, n_race=2, random_state=0) for n in (1, 2)]
    assert np.array_equal(fits[0].history, fits[1].history)
    one, two = ([*fit.params[:3], *fit.params[3]] for fit in fits)
    assert all(map(np.array_equal, one, two))


@pytest.mark.parametrize("name", ["full", "tied", "poisson", "mixed"])
def test_standard_errors_are_those_of_the_numeric_information(name, rng):
    model, rows = MODELS[name]
    lengths = np.full(60, 40)
    data = Sequences(simulated(rng, rows, lengths), lengths)
    result = fastem.fit(
        model, data, max_iter=5000, tol=1e-12, stopping="aitken", acceleration="anderson", n_race=4, random_state=0
    )
    model, params = result.model, result.params
    chain = [np.where(part < 1e-8, 0.0, part) for part in params[:3]]
    params = HiddenMarkovParams(*(part / part.sum(-1, keepdims=True) for part in chain), params.components)
    found = information(model, params, data)

    # in logarithms of the positive probabilities instead of roots, with as many coordinates as there are parameters
    shapes = [part.shape for part in params[:3]]
    tail = model.pack(params)[sum(map(np.size, params[:3])) :]
    rows_of = [row for part in params[:3] for row in np.atleast_2d(part)]
    free = [np.flatnonzero(row)[:-1] for row in rows_of]

    def unpacked(x):
        parts, first = [], 0
        for row, kept in zip(rows_of, free, strict=True):
            new = row.copy()
            new[kept] = row[kept] * np.exp(x[first : first + len(kept)])
            first += len(kept)
            parts.append(new / new.sum())
        sizes = np.cumsum([shape[0] if len(shape) > 1 else 1 for shape in shapes])
        pieces = np.split(np.arange(len(parts)), sizes[:-1])
        chain = [
            np.array([parts[i] for i in piece]).reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)
        ]
        tail_model = model.unpack(np.concatenate([np.ones(sum(map(np.size, params[:3]))), x[first:]]))
        return HiddenMarkovParams(*chain, tail_model.components)

    x0 = np.concatenate([np.zeros(sum(map(len, free))), tail])
    log_likelihood = lambda x: add_stats(model.e_step(unpacked(x), run) for run in data).log_likelihood  # noqa: E731
    h, n = 1e-3, len(x0)
    hessian = np.empty((n, n))
    for i, j in itertools.combinations_with_replacement(range(n), 2):
        a, b = h * np.eye(n)[i], h * np.eye(n)[j]
        terms = [log_likelihood(x0 + s * a + t * b) * s * t for s in (1, -1) for t in (1, -1)]
        hessian[i, j] = hessian[j, i] = sum(terms) / (4 * h * h)
    estimands = lambda x: np.concatenate([v.ravel() for v in model.estimands(unpacked(x)).values()])  # noqa: E731
    jacobian = np.array([(estimands(x0 + 1e-6 * e) - estimands(x0 - 1e-6 * e)) / 2e-6 for e in np.eye(n)]).T
    # the hessian of a transmat row with one state left has no free coordinate, and that of flat directions no inverse
    want = np.sqrt(np.diagonal(jacobian @ np.linalg.inv(-hessian) @ jacobian.T))
    got = np.concatenate([v.ravel() for v in found.standard_errors.values()])
    np.testing.assert_allclose(got, want, rtol=0.01, atol=1e-6 * want.max())


# the chain alone


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 100])
def test_occupancy_is_the_mean_over_rows(n_rows, rng):
    startprob, transmat = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4), 4)
    total, now = np.zeros(4), startprob
    for _ in range(n_rows):
        total, now = total + now, now @ transmat
    np.testing.assert_allclose(occupancy(startprob, transmat, n_rows), total / n_rows, rtol=1e-12)


def test_stationary_distributions(rng):
    transmat = rng.dirichlet(np.ones(5), 5)
    pi = stationary(transmat)
    np.testing.assert_allclose(pi @ transmat, pi, rtol=1e-13)
    assert pi.sum() == pytest.approx(1.0)
    absorbing = np.array([[0.5, 0.5, 0.0], [0.0, 0.3, 0.7], [0.0, 0.4, 0.6]])
    pi = stationary(absorbing)
    assert pi[0] == 0
    np.testing.assert_allclose(pi @ absorbing, pi, atol=1e-15)
    assert stationary(np.array([[0.0, 1.0], [1.0, 0.0]])).tolist() == [0.5, 0.5]
    tiny = np.array([[1 - 1e-15, 1e-15], [1e-12, 1 - 1e-12]])
    np.testing.assert_allclose(stationary(tiny), [1000 / 1001, 1 / 1001], rtol=1e-3)
    with pytest.raises(ValueError, match="several stationary distributions"):
        stationary(np.eye(2))


# refusals


def test_a_model_is_checked_before_computing(rng):
    X = simulated(rng, normal_rows)
    data = Sequences(X, LENGTHS)
    family = fastem.Gaussian()
    with pytest.raises(TypeError, match="Sequences"):
        fastem.fit(HiddenMarkov(family, 2), X)
    for options, words in [
        ({"n_mix": 0}, "n_mix must be an integer"),
        ({"startprob_init": [0.5, 0.4]}, "startprob_init must be non-negative and sum to 1"),
        ({"transmat_init": [[0.5, 0.5], [0.9, 0.2]]}, r"transmat_init\[1\] must be non-negative and sum to 1"),
        ({"transmat_init": np.eye(3)}, r"transmat_init has shape \(3, 3\)"),
        ({"weights_init": [[0.5, 0.5]]}, "weights_init has shape"),
        ({"transmat_concentration": 0.5}, "transmat_concentration must be a finite number of at least 1"),
        ({"startprob_concentration": [1.0, np.nan]}, "startprob_concentration must be"),
        ({"transmat_concentration": 2.0, "transmat_init": np.eye(2)}, "transmat_init is 0 where its prior is above 1"),
        ({"components_init": {"mean": [[0.0, 0.0]] * 2}}, r"components_init has \['mean'\]"),
        ({"components_init": {"means": [[0.0], [1.0]]}}, "means has shape"),
        ({"start": "nearest"}, "start must be one of"),
        ({"start": [0, 1]}, "resp_init has shape"),
        ({"start": np.zeros(400, int), "n_mix": 2}, "start gives the states"),
    ]:
        with pytest.raises(ValueError, match=words):
            fastem.fit(HiddenMarkov(family, 2, **options), data)
    holes = X.copy()
    holes[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN at row 3, column 1"):
        fastem.fit(HiddenMarkov(family, 2), Sequences(holes, LENGTHS))
    with pytest.raises(DegenerateError, match="observed row"):
        fastem.fit(HiddenMarkov(family, 5), Sequences(X[:3]))
    with pytest.raises(ValueError, match="split_merge needs a model with `moves`"):
        fastem.fit(HiddenMarkov(family, 2), data, split_merge=True)
    with pytest.raises(ValueError, match="starved"):
        fastem.fit(HiddenMarkov(family, 2), data, algorithm="minibatch", online=fastem.Online(starved="reseed"))


def test_zeros_of_the_start_stay(rng):
    """Also through the guard of a race, leaps, and steps of mini-batches."""
    lengths = np.full(50, 30)
    states = np.minimum(np.tile(np.arange(30) // 10, 50), 2)
    data = Sequences(normal_rows(rng, states), lengths)
    left = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    model = HiddenMarkov(fastem.Gaussian(), 3, startprob_init=[1.0, 0.0, 0.0], transmat_init=left)
    for options in ({"n_race": 4, "acceleration": "anderson"}, {"algorithm": "minibatch", "batch_size": 300}):
        params = fastem.fit(model, data, random_state=0, **options).params
        assert not params.transmat[left == 0].any()
        assert params.startprob.tolist() == [1.0, 0.0, 0.0]
    assert model.n_parameters(2) == 2 + 3 * 5


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([5, 4], "lengths sum to 9, but X has 10 rows"),
        ([5, 0, 5], r"lengths\[1\] is 0; a sequence has at least one row"),
        ([-1, 11], r"lengths\[0\] is -1"),
        ([2.5, 7.5], "lengths must hold integers"),
        ([np.nan, 10], "lengths must hold integers"),
        ([], "lengths has shape"),
        ([[5, 5]], "lengths has shape"),
        (["a"], "lengths"),
        (10, "lengths has shape"),
    ],
)
def test_lengths_are_checked(lengths, words):
    with pytest.raises((ValueError, TypeError), match=words):
        Sequences(np.zeros((10, 1)), lengths)


def test_weights_of_sequences_are_checked():
    X = np.arange(10.0)[:, None]
    with pytest.raises(ValueError, match="one weight per sequence is needed"):
        Sequences(X, [4, 6], np.ones(10))
    with pytest.raises(ValueError, match=r"sequence_weight\[1\] is -1"):
        Sequences(X, [4, 6], [1, -1])
    with pytest.raises(ValueError, match="sequence_weight is zero"):
        Sequences(X, [4, 6], [0, 0])
    with pytest.raises(ValueError, match="nothing but NaN"):
        Sequences(np.full((4, 2), np.nan))
    with pytest.raises(ValueError, match="infinity"):
        Sequences(np.array([[1.0], [np.inf]]))
