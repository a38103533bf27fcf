"""Normal components of rows with missing values: against an EM that takes the rows one by one, and at the edges."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from conftest import simulate
from exponential_kinds import punched
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastem
from benchmarks.peers.adapters import rowwise
from fastem import GaussianMixture, MultivariateNormal
from fastem.data import as_data
from fastem.families.gaussian import Gaussian
from fastem.families.gaussian_records import GaussianParams
from fastem.families.normal_inverse_wishart import NormalInverseWishart
from fastem.kernels import batches, completion, patterns, sweep
from fastem.models import missing
from fastem.models.missing import IncompleteMixture, IncompleteNormal
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams
from fastem.protocol import DegenerateError, Status, add_stats

TYPES = ("full", "tied", "diag", "spherical")
EVERY_TYPE = pytest.mark.parametrize("name", TYPES)


def components(rng, n_components, n_features):
    """Weights, means and covariances of any mixture."""
    means = 2.0 * rng.normal(size=(n_components, n_features))
    roots = rng.normal(size=(n_components, n_features, n_features)) / np.sqrt(n_features) + np.eye(n_features)
    return rng.dirichlet(np.ones(n_components)), means, roots @ np.swapaxes(roots, 1, 2)


def mixture_params(weights, means, covariances):
    return MixtureParams(weights, GaussianParams(means, covariances, Gaussian().precisions_cholesky(covariances)))


def assert_step(model, data, X, sample_weight, parameters, rtol=1e-9):
    """An E-step and an M-step are those of the rows one by one."""
    params = mixture_params(*parameters)
    stats = add_stats(model.e_step(params, block) for block in data)
    total, *sums = rowwise.expectations(X.astype(float), *parameters, sample_weight)
    assert_allclose(stats.log_likelihood, total, rtol=1e-11, atol=1e-9)
    moments = model._moments(stats, params)
    counts, first, second = sums
    some = counts > 1e-6 * counts.sum()
    assert_allclose(moments.counts, counts, rtol=rtol, atol=rtol)
    _, means, covariances = rowwise.maximize(counts[some], first[some], second[some])
    assert_allclose(moments.means[some], means, rtol=rtol, atol=rtol)
    assert_allclose(moments.covariances[some], covariances, rtol=rtol, atol=rtol * np.abs(covariances).max())


# the E-step against rows one by one


@given(
    n_rows=st.integers(4, 60),
    n_features=st.integers(1, 7),
    n_components=st.integers(1, 10),
    part=st.floats(0.0, 0.9),
    apart=st.sampled_from([0.0, 0.5, 2.0]),
    single=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_any_gaps(n_rows, n_features, n_components, part, apart, single, seed):
    """Any pattern, weights of zero, rows without a value; with and without a sweep for the rows without gaps."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features)) * 3.0
    if single:
        X = X.astype(np.float32)
    X[rng.random(X.shape) < part] = np.nan
    X[:2] = [[1.0], [2.0]]  # so that every column has a value, and two
    weight = np.append([1.0, 0.5], rng.integers(0, 3, n_rows - 2))
    data = as_data(X, weight, allow_nan=True)
    before, missing._MANY_COMPLETE = missing._MANY_COMPLETE, apart
    try:
        model = IncompleteMixture(Gaussian(), 1).prepare(data).in_double()
        model = IncompleteMixture(Gaussian(), n_components, frame=model.frame)
        assert_step(model, data, X, weight, components(rng, n_components, n_features))
    finally:
        missing._MANY_COMPLETE = before


@pytest.mark.parametrize("n_components", [1, 3, 9])
@pytest.mark.parametrize("n_features", [2, 5, 17])
def test_runs_longer_than_blocks_and_shorter(n_components, n_features, rng):
    """A few patterns that go on over several blocks, and lanes that begin in the middle of one; then many of a row."""
    X = rng.normal(size=(1100, n_features))
    X[200:700, 0] = np.nan
    X[400:900, n_features // 2] = np.nan
    X[1000:][rng.random((100, n_features)) < 0.6] = np.nan
    X = X[rng.permutation(len(X))]
    data = as_data(X, allow_nan=True)
    frame = IncompleteMixture(Gaussian()).prepare(data).frame
    model = IncompleteMixture(Gaussian(), n_components, frame=frame)
    assert_step(model, data, X, None, components(rng, n_components, n_features))
    if n_components == 1:
        assert_step(IncompleteNormal(Gaussian(), frame=frame), data, X, None, components(rng, 1, n_features))


@pytest.mark.parametrize("n_features", [40, 70, 130])
def test_many_columns(n_features, rng):
    """Patterns of more than one word, and regressions of more columns than are left."""
    X = rng.normal(size=(60, n_features))
    X[rng.random(X.shape) < np.linspace(0.02, 0.95, 60)[:, None]] = np.nan
    X[0] = 0.0
    data = as_data(X, allow_nan=True)
    model = IncompleteMixture(Gaussian(), 2, frame=IncompleteMixture(Gaussian()).prepare(data).frame)
    assert_step(model, data, X, None, components(rng, 2, n_features))


@EVERY_TYPE
def test_threads_change_no_bits(name, rng, monkeypatch):
    X = punched(simulate(rng, 60_000, 4, 3), rng)
    together, runs = sweep.run_together, []
    monkeypatch.setattr(sweep, "run_together", lambda *arguments: runs.append(1) or together(*arguments))
    found = []
    for n_threads in (1, 2):
        gm = GaussianMixture(3, covariance_type=name, random_state=0, n_race=2, max_iter=3, tol=0, n_threads=n_threads)
        with pytest.warns(match="did not converge"):
            gm.fit(X)
        found.append((gm.means_, gm.covariances_, gm.score_samples(X), gm.predict_proba(X), gm.impute(X)))
        assert bool(runs) == (n_threads == 2)
    assert all(map(np.array_equal, *found))


@EVERY_TYPE
def test_rows_without_gaps_have_the_same_sums_either_way(name, rng, monkeypatch):
    X = simulate(rng, 500, 3, 3)
    X[::5, 1] = np.nan
    results = []
    for part in (0.5, 2.0):
        monkeypatch.setattr(missing, "_MANY_COMPLETE", part)
        result = fastem.fit(Mixture(Gaussian(name), 3), X, max_iter=10, tol=0, random_state=0)
        stats = result.model.e_step(result.params, as_data(X, allow_nan=True).blocks[0])
        assert stats.sums.any() == (part < 1.0)
        results.append(result)
    assert_allclose(results[0].history, results[1].history, rtol=1e-12)


@EVERY_TYPE
def test_nothing_missing_is_the_mixture_itself(name, rng):
    """Without a NaN the model is the plain one; and the other one goes the same way."""
    X = simulate(rng, 400, 3, 2)
    options = {"max_iter": 15, "tol": 0, "random_state": 0}
    plain = fastem.fit(Mixture(Gaussian(name), 2), X, **options)
    assert type(plain.model) is Mixture
    start = plain.model.initialize(as_data(X), np.random.default_rng(0))
    forced = fastem.fit(IncompleteMixture(Gaussian(name), 2), X, start=start, max_iter=15, tol=0)
    again = fastem.fit(Mixture(Gaussian(name), 2), X, start=start, max_iter=15, tol=0)
    assert type(forced.model) is IncompleteMixture
    assert_allclose(forced.history, again.history, rtol=1e-12)


def test_only_missing_ones_mixed_in(rng):
    """A row without any value changes nothing but the number of rows."""
    X = punched(simulate(rng, 300, 3, 2), rng)
    more = np.insert(X, [0, 100, 300], np.nan, axis=0)
    options = {"n_components": 2, "random_state": 0, "n_race": 0}
    one, two = GaussianMixture(**options).fit(X), GaussianMixture(**options).fit(more)
    assert_allclose(two.means_, one.means_, rtol=1e-9)
    assert_allclose(two.log_likelihood_, one.log_likelihood_, rtol=1e-12)
    assert_allclose(two.bic(more), two.bic(X), rtol=1e-12)
    assert two.score_samples(more)[0] == 0.0
    assert_allclose(two.predict_proba(more)[0], two.weights_, rtol=1e-12)
    assert two.predict(more)[0] == np.argmax(two.weights_)
    assert_allclose(two.impute(more)[0], two.weights_ @ two.means_, rtol=1e-12)


@EVERY_TYPE
def test_objective_never_falls(name, rng):
    """At every step, with and without a prior, at half of the values missing."""
    for prior in (None, NormalInverseWishart()):
        for seed in range(3):
            X = simulate(rng, 250, 4, 3, separation=1.5)
            X[rng.random(X.shape) < 0.5] = np.nan
            seen = fastem.fit(Mixture(Gaussian(name, prior=prior), 3), X, max_iter=40, tol=0, random_state=seed).history
            assert np.diff(seen).min() >= -1e-11 * abs(seen[-1])
            assert seen[-1] > seen[0]


# the kernels


@pytest.mark.parametrize("n_seen", range(7))
def test_regressions_of_eight(n_seen, rng):
    """Both ways, by precisions and by covariances; each lane another component and other columns."""
    n_features = 7
    n_missing = n_features - n_seen
    _, _, covariances = components(rng, 3, n_features)
    precisions = np.linalg.inv(covariances)
    which = np.array([0, 1, 2, 0, 1, 2, 2, 0])
    columns = np.array([rng.permutation(n_features) for _ in range(8)])
    slopes, spreads, logs = np.empty(8 * n_missing * n_seen), np.empty(8 * n_missing**2), np.empty(8)
    log_roots = 0.5 * np.linalg.slogdet(precisions)[1]
    scratch = batches.scratch_of(n_features)
    batches.regress(precisions, covariances, log_roots, which, columns, n_seen, slopes, spreads, logs, scratch)
    for lane, (k, order) in enumerate(zip(which, columns, strict=True)):
        o, m = order[:n_seen], order[n_seen:]
        covariance = covariances[k]
        want = np.linalg.solve(covariance[np.ix_(o, o)], covariance[np.ix_(o, m)]).T
        spread = covariance[np.ix_(m, m)] - want @ covariance[np.ix_(o, m)]
        assert_allclose(slopes.reshape(n_missing, n_seen, 8)[:, :, lane], want, rtol=1e-9, atol=1e-11)
        assert_allclose(spreads.reshape(n_missing, n_missing, 8)[:, :, lane], spread, rtol=1e-9, atol=1e-11)
        assert logs[lane] == pytest.approx(0.5 * np.linalg.slogdet(spread)[1], abs=1e-9)


@pytest.mark.parametrize("n_features", [1, 3, 16, 17, 64, 65, 100])
def test_groups(n_features, rng):
    X = rng.normal(size=(200, n_features))
    X[rng.random(X.shape) < 1.5 / n_features] = np.nan
    X[7] = np.nan
    gaps = np.isnan(X)
    counting = rng.random(200) < 0.9
    for keep_empty in (False, True):
        groups = patterns.group(X, counting, keep_empty)
        wanted = counting if keep_empty else counting & ~gaps.all(axis=1)
        assert sorted(groups.order) == np.flatnonzero(wanted).tolist()
        assert len(groups.missing) == len(np.unique(gaps[wanted], axis=0))
        assert (np.diff(groups.n_missing) >= 0).all()
        for g, words in enumerate(groups.missing):
            rows = groups.order[groups.starts[g] : groups.starts[g + 1]]
            bits = [bool(int(words[d // 64]) >> (d % 64) & 1) for d in range(n_features)]
            assert (gaps[rows] == bits).all()
            assert (np.diff(rows.astype(int)) > 0).all()  # in their order


def test_few_rows_stand_for_many(rng):
    """Weight, mean and scatter of each pattern, of dependent columns too."""
    X = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 1e3
    X[:, 3] = 2.0 * X[:, 0]
    X[rng.random(X.shape) < 0.3] = np.nan
    weight = rng.integers(0, 3, 500).astype(float)[:, None]
    frame = np.stack([np.full(4, 1e3), np.full(4, 0.5)])
    groups = patterns.group(X, weight[:, 0] > 0)
    rows, weights = patterns.condense(X, weight, frame, groups)
    few = patterns.group(rows)
    assert len(rows) == (5 - groups.n_missing).sum()
    for g in range(len(groups.missing)):
        many = groups.order[groups.starts[g] : groups.starts[g + 1]]
        some = few.order[few.starts[g] : few.starts[g + 1]]
        seen = ~np.isnan(X[many[0]])
        for x, w, y, v in [((X[many][:, seen] - 1e3) * 0.5, weight[many, 0], rows[some][:, seen], weights[some, 0])]:
            assert v.sum() == pytest.approx(w.sum(), rel=1e-13)
            mean = np.average(x, axis=0, weights=w)
            assert_allclose(np.average(y, axis=0, weights=v), mean, rtol=1e-11, atol=1e-12)
            scatter = ((x - mean) * w[:, None]).T @ (x - mean)
            assert_allclose(((y - mean) * v[:, None]).T @ (y - mean), scatter, rtol=1e-9, atol=1e-10)


# densities and what is filled in


def conditional(gm, x):
    """Weights, means and covariances of the missing columns of a row given the others, by `condition`."""
    seen = np.flatnonzero(~np.isnan(x))
    given = gm.condition(seen, x[seen])
    return given.weights_, given.means_, given.covariances_


@EVERY_TYPE
def test_densities_are_those_of_the_marginal_mixtures(name, rng):
    X = punched(simulate(rng, 80, 4, 3), rng, 0.4)
    X[:, 0] = rng.normal(size=80)
    gm = GaussianMixture(3, covariance_type=name, random_state=0).fit(simulate(rng, 300, 4, 3))
    log_densities, resp, labels = gm.score_samples(X), gm.predict_proba(X), gm.predict(X)
    for i, x in enumerate(X):
        seen = np.flatnonzero(~np.isnan(x))
        part = gm.marginal(seen)
        assert log_densities[i] == pytest.approx(part.score_samples(x[None, seen])[0], rel=1e-12)
        assert_allclose(resp[i], part.predict_proba(x[None, seen])[0], rtol=1e-9, atol=1e-14)
        assert labels[i] == resp[i].argmax()


def test_densities_of_covariances_in_bad_condition(rng):
    """Two columns that differ by 1e-6 of a deviation: exact whichever is missing."""
    root = np.array([[1.0, 0.0, 0.0], [1.0, 1e-6, 0.0], [0.3, 0.0, 1.0]])
    covariance = root @ root.T
    gm = GaussianMixture.from_parameters([1.0], [[0.0, 0.0, 0.0]], [covariance])
    X = rng.normal(size=(3, 3))
    X[np.arange(3), np.arange(3)] = np.nan
    for x, found in zip(X, gm.score_samples(X), strict=True):
        seen = ~np.isnan(x)
        inner = covariance[np.ix_(seen, seen)]
        if seen[0] and seen[1]:  # SciPy takes this one for singular
            continue
        assert found == pytest.approx(scipy.stats.multivariate_normal(cov=inner).logpdf(x[seen]), rel=1e-12)


@EVERY_TYPE
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_impute(name, dtype, rng):
    gm = GaussianMixture(3, covariance_type=name, random_state=0).fit(simulate(rng, 400, 3, 3))
    X = simulate(rng, 60, 3, 3).astype(dtype)
    X[rng.random(X.shape) < 0.3] = np.nan
    X[:, 1] = 0.5
    filled = gm.impute(X)
    assert filled.dtype == dtype
    seen = ~np.isnan(X)
    assert np.array_equal(filled[seen], X[seen])
    for x, full in zip(X, filled, strict=True):
        if np.isnan(x).any():
            weights, means, _ = conditional(gm, x.astype(float))
            want = weights @ means
            assert_allclose(full[np.isnan(x)], want, rtol=1e-9 if dtype == np.float64 else 1e-5, atol=1e-6)
    assert np.array_equal(gm.impute(filled), filled)


@EVERY_TYPE
def test_draws_have_the_conditional_distribution(name, rng):
    gm = GaussianMixture(2, covariance_type=name, random_state=0).fit(simulate(rng, 400, 3, 2, separation=1.0))
    x = np.array([np.nan, 0.3, np.nan])
    draws = gm.impute(np.tile(x, (40_000, 1)), method="draw", random_state=1)[:, [0, 2]]
    weights, means, covariances = conditional(gm, x)
    if name == "tied":
        covariances = np.broadcast_to(covariances, (2, 2, 2))
    elif name != "full":
        covariances = np.array([np.eye(2) * c for c in covariances])
    mean = weights @ means
    covariance = np.einsum("k,kij->ij", weights, covariances)
    covariance = covariance + np.einsum("k,ki,kj->ij", weights, means - mean, means - mean)
    error = np.sqrt(np.diagonal(covariance) / len(draws))
    assert (np.abs(draws.mean(axis=0) - mean) < 5 * error).all()
    assert_allclose(np.cov(draws.T), covariance, atol=0.06 * np.abs(covariance).max())
    rows = np.tile(x, (100, 1))
    again = [gm.impute(rows, method="draw", random_state=seed) for seed in (3, 3, 4)]
    assert np.array_equal(again[0], again[1])
    assert not np.array_equal(again[1], again[2])


def test_impute_refuses(rng):
    gm = GaussianMixture(2, random_state=0).fit(simulate(rng, 100, 2, 2))
    with pytest.raises(ValueError, match="method must be 'mean' or 'draw'; got 'median'"):
        gm.impute([[np.nan, 1.0]], method="median")
    with pytest.raises(ValueError, match="3 features"):
        gm.impute([[np.nan, 1.0, 2.0]])
    with pytest.raises(ValueError, match="infinity"):
        gm.impute([[np.nan, np.inf]])


# one normal


def test_one_normal_without_gaps_is_the_closed_form(rng):
    X = simulate(rng, 300, 4, 2)
    weight = rng.random(300)
    normal = MultivariateNormal().fit(X, sample_weight=weight)
    assert_allclose(normal.mean_, np.average(X, axis=0, weights=weight), rtol=1e-12)
    assert_allclose(normal.covariance_, np.cov(X.T, aweights=weight, bias=True), rtol=1e-11)
    assert normal.converged_
    diagonal = MultivariateNormal(covariance_type="diag").fit(X)
    assert_allclose(diagonal.covariance_, X.var(axis=0), rtol=1e-12)


def test_one_normal_far_from_the_origin(rng):
    X = rng.normal(size=(1000, 2)) @ [[1.0, 0.5], [0.0, 1.0]]
    X[::3, 0] = np.nan
    near, far = MultivariateNormal().fit(X), MultivariateNormal().fit(X + 2.0**27)
    assert_allclose(far.covariance_, near.covariance_, rtol=1e-6)  # the rows are rounded to 1e-8
    assert_allclose(far.mean_ - 2.0**27, near.mean_, atol=1e-7)


def test_one_normal_is_a_mixture_of_one(rng):
    """By sums over patterns, and row by row."""
    X = punched(simulate(rng, 3000, 4, 1), rng, 0.3)
    weight = rng.integers(0, 3, 3000).astype(float)
    options = {"tol": 0, "max_iter": 12, "start": mixture_params(*components(rng, 1, 4))}
    one = fastem.fit(IncompleteNormal(Gaussian()), X, sample_weight=weight, **options)
    many = fastem.fit(Mixture(Gaussian()), X, sample_weight=weight, **options)
    assert_allclose(one.history, many.history, rtol=1e-11)
    assert_allclose(one.params.components.covariances, many.params.components.covariances, rtol=1e-10)


def test_available_cases_are_the_answer_where_columns_are_independent(rng):
    X = punched(rng.normal(size=(400, 3)) * [1.0, 10.0, 0.1], rng, 0.4)
    normal = MultivariateNormal(covariance_type="diag", tol=1e-10).fit(X)
    assert_allclose(normal.mean_, np.nanmean(X, axis=0), rtol=1e-9)
    assert_allclose(normal.covariance_, np.nanvar(X, axis=0), rtol=1e-7)


def observed(vector, X):
    """Log-likelihood of means and a lower triangle."""
    n_features = X.shape[1]
    covariance = np.zeros((n_features, n_features))
    rows, columns = np.tril_indices(n_features)
    covariance[rows, columns] = covariance[columns, rows] = vector[n_features:]
    return rowwise.expectations(X, np.ones(1), vector[None, :n_features], covariance[None])[0]


def test_standard_errors_are_those_of_the_observed_information(rng):
    X = punched(simulate(rng, 120, 2, 1), rng, 0.3)
    normal = MultivariateNormal(tol=1e-10).fit(X)
    errors = normal.standard_errors(X)
    assert list(errors.estimates) == ["mean", "covariance"]
    at = np.append(normal.mean_, normal.covariance_[np.tril_indices(2)])
    h, units = 1e-3, np.eye(5)
    hessian = np.array(
        [
            [
                sum(s * t * observed(at + s * h * a + t * h * b, X) for s in (1, -1) for t in (1, -1)) / (4 * h * h)
                for b in units
            ]
            for a in units
        ]
    )
    want = np.sqrt(np.diagonal(np.linalg.inv(-hessian)))
    assert_allclose(errors.standard_errors["mean"], want[:2], rtol=1e-4)
    assert_allclose(errors.standard_errors["covariance"][np.tril_indices(2)], want[2:], rtol=1e-4)
    drawn = normal.standard_errors(X, method="bootstrap", n_bootstrap=100, random_state=0)
    assert_allclose(drawn.standard_errors["mean"], want[:2], rtol=0.3)
    low, high = errors.interval("mean")
    assert (low < normal.mean_).all()
    assert (normal.mean_ < high).all()


def test_standard_errors_of_a_mixture_grow_with_the_gaps(rng):
    X = simulate(rng, 400, 2, 2, separation=6.0)
    options = {"n_components": 2, "reg_covar": 0.0, "tol": 1e-9, "max_iter": 1000, "random_state": 0}
    before = GaussianMixture(**options).fit(X).standard_errors(X).standard_errors["means"]
    X[::2, 0] = np.nan
    after = GaussianMixture(**options).fit(X).standard_errors(X).standard_errors["means"]
    assert (np.sort(after[:, 0]) > 1.1 * np.sort(before[:, 0])).all()


def test_what_a_normal_knows_of_some_columns(rng):
    X = punched(simulate(rng, 200, 3, 1), rng)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    normal = MultivariateNormal().fit(frame)
    part = normal.marginal(["c", "a"])
    assert_allclose(part.covariance_, normal.covariance_[np.ix_([2, 0], [2, 0])])
    given = normal.condition(["b"], [1.0])
    assert given.feature_names_in_.tolist() == ["a", "c"]
    assert_allclose(normal.predict_conditional([[1.0]], ["b"])[0], given.mean_, rtol=1e-12)
    row = pd.DataFrame([[np.nan, 1.0, np.nan]], columns=["a", "b", "c"])
    assert_allclose(normal.impute(row)[0, [0, 2]], given.mean_, rtol=1e-12)
    assert normal.sample(7).shape == (7, 3)
    assert normal.aic(frame) == pytest.approx(-2 * normal.score_samples(frame).sum() + 2 * 9)


def test_a_normal_with_a_prior(rng):
    """The posterior mode of complete rows in closed form; of gaps what every step climbs to."""
    X = simulate(rng, 50, 2, 1)
    prior = {"covariance_prior": np.eye(2), "degrees_of_freedom_prior": 5.0, "mean_precision_prior": 2.0}
    normal = MultivariateNormal(**prior, mean_prior=[0.0, 0.0], tol=1e-10).fit(X)
    mean = X.sum(axis=0) / 52.0
    assert_allclose(normal.mean_, mean, rtol=1e-10)
    scatter = (X - mean).T @ (X - mean) + 2.0 * np.outer(mean, mean) + np.eye(2)
    assert_allclose(normal.covariance_, scatter / (50 + 1 + 5 + 3), rtol=1e-10)
    gaps = punched(X, rng)
    assert np.isfinite(MultivariateNormal(covariance_prior="auto").fit(gaps).covariance_).all()


@parametrize_with_checks([MultivariateNormal(reg_covar=1e-6)])  # some have fewer rows than columns
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_normals_are_saved_and_cloned(rng, tmp_path):
    X = punched(simulate(rng, 200, 3, 1), rng)
    normal = MultivariateNormal(covariance_prior="auto", random_state=3).fit(X)
    fastem.save(normal, tmp_path / "normal.fastem")
    loaded = fastem.load(tmp_path / "normal.fastem")
    assert np.array_equal(loaded.score_samples(X), normal.score_samples(X))
    assert loaded.get_params() == clone(normal).get_params()
    normal.covariance_ = normal.covariance_[:2]
    with pytest.raises(fastem.ModelFileError, match="covariance_"):
        fastem.save(normal, tmp_path / "broken.fastem")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mean_init": [0.0]}, r"mean_init has shape \(1,\); \(3,\) is needed"),
        ({"covariance_init": np.eye(2)}, r"covariance_init has shape \(2, 2\); \(3, 3\) is needed"),
        ({"covariance_init": -np.eye(3)}, "positive definite"),
        ({"covariance_type": "tied"}, "covariance_type"),
        ({"mean_init": [0.0, np.nan, 1.0]}, "mean_init holds NaN"),
    ],
)
def test_normals_refuse(params, message, rng):
    with pytest.raises(ValueError, match=message):
        MultivariateNormal(**params).fit(punched(simulate(rng, 30, 3, 1), rng))


# at the edges


@pytest.mark.parametrize("estimator", [GaussianMixture(2, random_state=0), MultivariateNormal()])
def test_a_column_without_a_value_is_refused(estimator, rng):
    X = simulate(rng, 100, 3, 2)
    X[:, 1] = np.nan
    with pytest.raises(ValueError, match="column 1 of X has no value in any row that counts"):
        estimator.fit(X)
    X[3, 1] = 0.0
    weight = np.ones(100)
    weight[3] = 0.0
    with pytest.raises(ValueError, match="column 1 of X has no value in any row that counts"):
        estimator.fit(X, sample_weight=weight)
    with pytest.raises(ValueError, match="column 0 of X has no value"):
        estimator.fit(np.full((5, 2), np.nan))


def test_each_pattern_seen_once(rng):
    X = simulate(rng, 31, 5, 1)
    for i in range(31):
        X[i, [bool((i + 1) >> d & 1) for d in range(5)]] = np.nan
    X = np.concatenate([X, simulate(rng, 20, 5, 1)])
    assert len(patterns.group(X).missing) == 31  # the empty one aside
    normal = MultivariateNormal(tol=1e-8).fit(X)
    assert np.diff(normal.lower_bounds_).min() > -1e-12
    total = rowwise.expectations(X, np.ones(1), normal.mean_[None], normal.covariance_[None])[0]
    assert normal.score(X) * len(X) == pytest.approx(total, rel=1e-11)


def test_dependent_columns_are_refused(rng):
    X = rng.normal(size=(300, 3))
    X[:, 2] = X[:, 0] + X[:, 1]
    X[::4, 1] = np.nan
    with pytest.raises(ValueError, match="singular covariance"):
        MultivariateNormal().fit(X)
    with pytest.raises(ValueError, match="singular covariance"):
        GaussianMixture(2, reg_covar=0.0, random_state=0).fit(X)
    assert np.isfinite(GaussianMixture(2, random_state=0).fit(X).covariances_).all()


def test_a_constant_column(rng):
    X = punched(simulate(rng, 200, 3, 2), rng)
    X[:, 1] = np.where(np.isnan(X[:, 1]), np.nan, 4.0)
    with pytest.raises(ValueError, match="constant or dependent"):
        MultivariateNormal(max_iter=10_000).fit(X)
    gm = GaussianMixture(2, random_state=0).fit(X)
    assert_allclose(gm.means_[:, 1], 4.0, rtol=1e-6)


@pytest.mark.parametrize("estimator", [MultivariateNormal, GaussianMixture])
def test_a_constant_column_gives_a_prior_no_scale(estimator, rng):
    X = punched(simulate(rng, 200, 3, 2), rng)
    X[:, 1] = np.where(np.isnan(X[:, 1]), np.nan, 4.0)
    with pytest.raises(ValueError, match="column 1 of X is constant"):
        estimator(covariance_prior="auto").fit(X)


@pytest.mark.parametrize("rows", [[[np.nan, np.nan]], [[np.nan, np.nan]] * 3])
def test_no_criterion_of_nothing(rows):
    normal = MultivariateNormal.from_parameters([0.0, 1.0], np.eye(2))
    with pytest.raises(ValueError, match="bic needs at least one"):
        normal.bic(rows)
    assert normal.score(rows) == 0.0


def test_a_component_that_loses_its_rows(rng):
    """Nothing is left of it: it keeps its parameters, and has no weight."""
    X = punched(rng.normal(size=(200, 2)), rng)
    start = mixture_params(np.array([0.5, 0.5]), np.array([[0.0, 0.0], [1e4, 1e4]]), np.array([np.eye(2)] * 2))
    result = fastem.fit(Mixture(Gaussian(), 2), X, start=start, max_iter=60, tol=0)
    assert result.params.weights[1] == 0.0
    assert np.array_equal(result.params.components.means[1], start.components.means[1])
    kept = result.model.keep(result.params, np.array([0]))[1]
    alone = fastem.fit(Mixture(Gaussian()), X, max_iter=5, tol=0, start=kept)
    assert alone.log_likelihood == pytest.approx(result.log_likelihood, rel=1e-10)


def test_rows_that_no_component_can_have(rng):
    X = punched(rng.normal(size=(50, 2)), rng)
    start = mixture_params(np.ones(1), np.array([[1e160, 0.0]]), np.array([np.eye(2)]))
    with pytest.raises(DegenerateError, match="log-likelihood became"):
        fastem.fit(Mixture(Gaussian()), X, start=start)


def test_columns_in_any_unit(rng):
    X = punched(simulate(rng, 300, 3, 1), rng, 0.3)
    scale, shift = np.array([1e-30, 1.0, 1e40]), np.array([1e-27, -1e3, 1e40])
    plain, moved = MultivariateNormal(tol=1e-9).fit(X), MultivariateNormal(tol=1e-9).fit(X * scale + shift)
    assert_allclose(moved.mean_, plain.mean_ * scale + shift, rtol=1e-9)
    assert_allclose(moved.covariance_ / scale / scale[:, None], plain.covariance_, rtol=1e-6, atol=1e-9)


# starts, streams, files


def clusters_with_gaps(rng, n_samples=600, part=0.2):
    """Three clusters far apart, and the labels of their rows."""
    labels = rng.integers(3, size=n_samples)
    X = rng.normal(size=(n_samples, 4)) + 8.0 * np.array([[0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 1, 1]])[labels]
    X[rng.random(X.shape) < part] = np.nan
    return X, labels


def agreement(gm, X, labels):
    """Part of the rows in the component that most of their cluster is in, if that is another for each."""
    table = np.zeros((3, 3), int)
    np.add.at(table, (labels, gm.predict(X)), 1)
    return table.max(axis=1).sum() / len(X) if len(set(table.argmax(axis=1))) == 3 else 0.0


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "k-means||", "ward", "random_from_data", "random"])
@pytest.mark.parametrize("name", ["full", "diag"])
def test_every_start(init_params, name, rng):
    X, labels = clusters_with_gaps(rng)
    gm = GaussianMixture(3, covariance_type=name, init_params=init_params, random_state=0, n_init=2).fit(X)
    assert agreement(gm, X, labels) > 0.95
    one = GaussianMixture(3, covariance_type=name, init_params=init_params, random_state=0, n_race=0, max_iter=3, tol=0)
    with pytest.warns(match="did not converge"):
        one.fit(X)
    assert np.diff(one.lower_bounds_).min() >= -1e-6  # reg_covar


def test_starts_from_labels_and_responsibilities(rng):
    X, labels = clusters_with_gaps(rng)
    one = GaussianMixture(3, resp_init=labels).fit(X)
    assert (one.predict(X) == labels).mean() > 0.97
    two = GaussianMixture(3, resp_init=np.eye(3)[labels]).fit(X)
    assert_allclose(two.means_, one.means_, rtol=1e-12)


def test_races_moves_and_algorithms_reach_one_optimum(rng):
    X, _ = clusters_with_gaps(rng, 3000)
    ways = [
        {},
        {"n_race": 0},
        {"split_merge": True},
        {"acceleration": "squarem"},
        {"algorithm": "incremental"},
        {"algorithm": "minibatch", "batch_size": 300},
    ]
    totals = [GaussianMixture(3, random_state=0, **way).fit(X).score(X) for way in ways]
    assert_allclose(totals[:-1], totals[0], atol=1e-5)
    assert totals[-1] == pytest.approx(totals[0], abs=5e-3)


@EVERY_TYPE
def test_streams(name, rng):
    """Gaps from the first row on, and gaps that come late."""
    X, labels = clusters_with_gaps(rng, 8000)
    gm = GaussianMixture(3, covariance_type=name, random_state=0).partial_fit(X)
    assert agreement(gm, X[:500], labels[:500]) > 0.95
    batch = GaussianMixture(3, covariance_type=name, random_state=0).fit(X)
    assert gm.score(X) == pytest.approx(batch.score(X), abs=0.02)
    late = np.where(np.isnan(X), 0.0, X)
    late[4000:] = X[4000:]
    gm = GaussianMixture(3, covariance_type=name, random_state=0).partial_fit(late[:4000])
    assert type(gm.stream_.model) is Mixture
    gm.partial_fit(late[4000:])
    assert type(gm.stream_.model) is IncompleteMixture
    assert np.isfinite(gm.score(X))
    gm.partial_fit(np.full((5000, 4), np.nan))  # which inform nothing
    assert np.isfinite(gm.means_).all()


@pytest.mark.parametrize("starved", ["reseed", "remove"])
def test_starved_components_under_gaps(starved, rng):
    X = punched(rng.normal(size=(4000, 2)), rng)
    late = punched(rng.normal(size=(12_000, 2)) + rng.choice([0.0, 30.0], size=(12_000, 1)), rng)
    online = fastem.Online(half_life=1000.0, starved=starved)
    gm = GaussianMixture(4, random_state=0, online=online, reg_covar=1e-3).partial_fit(X).partial_fit(late)
    assert np.isfinite(gm.means_).all()
    assert gm.means_.max() > 20.0


def test_streams_are_saved_with_their_gaps(rng, tmp_path):
    X, _ = clusters_with_gaps(rng, 3000)
    for estimator in (GaussianMixture(3, random_state=0), MultivariateNormal()):
        estimator.partial_fit(X[:2500])
        fastem.save(estimator, tmp_path / "stream.fastem")
        loaded = fastem.load(tmp_path / "stream.fastem").partial_fit(X[2500:])
        estimator.partial_fit(X[2500:])
        assert np.array_equal(loaded.score_samples(X), estimator.score_samples(X))


def test_files_and_blocks(rng, tmp_path):
    """The same bits as the same blocks in memory, wherever the gaps are."""
    X, _ = clusters_with_gaps(rng, 3000)
    X[1000:2000] = np.where(np.isnan(X[1000:2000]), 1.0, X[1000:2000])  # a block without gaps
    np.save(tmp_path / "rows.npy", X)
    options = {"random_state": 0, "n_components": 3}
    stored = GaussianMixture(**options).fit(fastem.Blocks(tmp_path / "rows.npy", 1000))
    blocks = GaussianMixture(**options).fit(lambda: (X[i : i + 500] for i in range(0, 3000, 500)))
    whole = GaussianMixture(**options).fit(X)
    assert_allclose(stored.score(X), whole.score(X), atol=1e-6)
    assert_allclose(blocks.score(X), whole.score(X), atol=1e-6)
    normal = MultivariateNormal().fit(X)
    assert_allclose(MultivariateNormal().fit(fastem.Blocks(X, 700)).covariance_, normal.covariance_, rtol=1e-6)
    hollow = X.copy()
    hollow[:1000, 2] = np.nan  # a block in which a column has no value
    stored = MultivariateNormal().fit(fastem.Blocks(hollow, 1000))
    assert_allclose(stored.mean_, MultivariateNormal().fit(hollow).mean_, rtol=1e-6)
    for algorithm in ("minibatch", "incremental"):
        gm = GaussianMixture(3, random_state=0, algorithm=algorithm).fit(fastem.Blocks(X, 1000))
        assert gm.score(X) == pytest.approx(whole.score(X), abs=0.02)


def test_tables(rng):
    """Nullable columns of pandas and nulls of Arrow."""
    pyarrow = pytest.importorskip("pyarrow")
    X, _ = clusters_with_gaps(rng, 300)
    plain = GaussianMixture(3, random_state=0).fit(X)
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert np.array_equal(GaussianMixture(3, random_state=0).fit(frame.astype("Float64")).means_, plain.means_)
    table = pyarrow.Table.from_pandas(frame)
    assert table.column("a").null_count > 0
    assert_allclose(GaussianMixture(3, random_state=0).fit(table).means_, plain.means_, rtol=1e-9)


def test_selection_under_gaps(rng):
    X, _ = clusters_with_gaps(rng, 500, 0.1)
    chosen = fastem.select(X, n_components=range(1, 5), covariance_type=["diag", "spherical"], random_state=0)
    assert chosen.best.n_components == 3


def test_memory_of_missing_rows_is_bounded():
    """Rows that are filled or drawn are so a part at a time."""
    assert missing._PART * 64 * 8 <= 2**25
    assert completion.completed_rows(10**6, 64, 64) == 48


# reference cases

REFERENCE = Path(__file__).parent / "reference"
CASES = json.loads((REFERENCE / "missing.json").read_text())


def reference_cases(family):
    chosen = [case for case in CASES if case["family"] == family]
    return pytest.mark.parametrize("case", chosen, ids=[case["id"] for case in chosen])


def read_rows(case):
    """Rows of a case that have a value; empty cells are NaN."""
    data = case["data"]
    frame = pd.read_csv(REFERENCE / data["file"])[data["columns"]].astype(float)
    transform = data.get("transform")
    if transform:
        logs = transform.removeprefix("natural log of ").split(", ")
        frame[logs] = np.log(frame[logs])
    return frame.to_numpy()[~frame.isna().all(axis=1)]


def assert_close(found, wanted, rtol):
    wanted = np.array(wanted)
    assert_allclose(found, wanted, rtol=0, atol=rtol * np.abs(wanted).max())


def assert_trace(estimator, n_rows, expected, tolerance):
    history = np.array(estimator.lower_bounds_) * n_rows
    assert history[0] == pytest.approx(expected["loglik_at_start"], abs=tolerance)
    trace = expected["loglik_after_k_em_steps"]
    after = [history[min(k, len(history) - 1)] for k in trace["k"]]
    assert_allclose(after, trace["loglik"], rtol=0, atol=tolerance)


@reference_cases("mvn-missing")
def test_normals_of_the_references(case):
    X, init, expected, tolerance = read_rows(case), case["init"], case["expected"], case["tolerance"]
    assert len(X) == expected["n_rows_used"]
    assert np.isnan(X).sum() == expected["n_missing"]
    normal = MultivariateNormal(
        mean_init=init["mean"], covariance_init=init["covariance"], tol=1e-14, max_iter=10_000
    ).fit(X)
    assert_trace(normal, len(X), expected, tolerance["trace_abs"])
    assert normal.score(X) * len(X) == pytest.approx(expected["loglik"], abs=tolerance["loglik_abs"])
    assert_close(normal.mean_, expected["mean"], tolerance["parameters_rel"])
    assert_close(normal.covariance_, expected["covariance"], tolerance["parameters_rel"])
    first = expected["conditional_means_first10"]
    assert_close(normal.impute(X)[: len(first)], first, tolerance["parameters_rel"])
    assert normal._n_parameters() == expected["n_parameters"]
    default = MultivariateNormal(max_iter=5000).fit(X)
    assert default.score(X) * len(X) > expected["loglik"] - 1e-3
    assert default.status_ is Status.CONVERGED


@reference_cases("gmm-missing")
def test_mixtures_of_the_references(case):
    X, init, expected, tolerance = read_rows(case), case["init"], case["expected"], case["tolerance"]
    k = case["model"]["n_components"]
    gm = GaussianMixture(
        k,
        weights_init=init["weights"],
        means_init=init["means"],
        precisions_init=np.linalg.inv(init["covariances"]),
        reg_covar=0.0,
        tol=1e-14,
        max_iter=10_000,
    ).fit(X)
    assert_trace(gm, len(X), expected, tolerance["trace_abs"])
    assert gm.score(X) * len(X) == pytest.approx(expected["loglik"], abs=tolerance["loglik_abs"])
    for name in ("weights", "means", "covariances"):
        assert_close(getattr(gm, f"{name}_"), expected[name], tolerance["parameters_rel"])
    assert np.bincount(gm.predict(X), minlength=k).tolist() == expected["classification_counts"]
    default = GaussianMixture(k, reg_covar=0.0, random_state=0).fit(X)
    assert default.score(X) * len(X) > expected["loglik"] - 1e-3
