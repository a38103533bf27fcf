"""Mixtures of Student's t distributions: against closed forms, limits and the answers of other packages."""

import json
import pickle

import numpy as np
import pytest
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import digamma
from scipy.stats import kstest, multivariate_t
from test_reference_cases import REFERENCE, exact, read_data, read_labels

import fastem
from fastem import Gaussian, GaussianMixture, Mixture, StudentT, StudentTMixture
from fastem.data import as_data
from fastem.families import gaussian
from fastem.families.student_t_records import StudentTParams, solve_degrees
from fastem.models.mixture_records import MixtureParams
from fastem.protocol import DegenerateError, add_stats

TYPES = ("full", "tied", "diag", "spherical")
EVERY = pytest.mark.parametrize("kind", TYPES)
ESTIMATED = pytest.mark.parametrize("degrees", ["free", "common", 4.0])
CASES = json.loads((REFERENCE / "student_t.json").read_text())
MIXTURES = [case for case in CASES if case["family"] == "tmix"]
DENSITIES = [case for case in CASES if case["family"] == "kernel"]
TO_STATIONARITY = {"tol": 1e-14, "max_iter": 30_000, "stopping": "aitken", "acceleration": "anderson", "reg_covar": 0.0}


def heavy_tailed(rng, n_samples=600, n_features=3, n_components=3, degrees=3.0, dtype=np.float64):
    """Rows of a mixture of t distributions; their components are in turn."""
    means = 4.0 * rng.normal(size=(n_components, n_features))
    roots = rng.normal(size=(n_components, n_features, n_features)) / np.sqrt(n_features) + np.eye(n_features)
    labels = in_turn(n_samples, n_components)
    rows = np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(n_samples, n_features)))
    return (means[labels] + rows * np.sqrt(degrees / rng.chisquare(degrees, size=(n_samples, 1)))).astype(dtype)


def in_turn(n_samples, n_components=3):
    """Labels 0, 1, ..., 0, 1, ...: k-means would give far rows components of their own."""
    return np.arange(n_samples) % n_components


def scale_matrices(params, kind):
    """Scale matrices (K, D, D) of parameters of any structure."""
    scales, (n_components, n_features) = params.components.covariances, params.components.means.shape
    full = {"full": lambda k: scales[k], "tied": lambda k: scales, "diag": lambda k: np.diag(scales[k])}
    return [full.get(kind, lambda k: scales[k] * np.eye(n_features))(k) for k in range(n_components)]


# densities


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_densities_and_the_log_likelihood_against_scipy(kind, dtype, rng):
    X = heavy_tailed(rng, 500, dtype=dtype)
    result = fastem.fit(Mixture(StudentT(kind), 3, start=in_turn(500)), X, max_iter=5, tol=0)
    means, degrees = result.params.components.means, result.params.components.degrees_of_freedom
    parts = [
        np.log(weight) + multivariate_t(*component).logpdf(X.astype(np.float64))
        for weight, *component in zip(
            result.params.weights, means, scale_matrices(result.params, kind), degrees, strict=True
        )
    ]
    wanted = np.logaddexp.reduce(parts)
    assert_allclose(result.model.log_densities(result.params, X), wanted, rtol=1e-12)
    posterior = np.exp(parts - wanted).T
    assert_allclose(result.model.posteriors(result.params, X), posterior, atol=1e-12)
    assert np.array_equal(result.model.labels(result.params, X), posterior.argmax(axis=1))
    stats = result.model.e_step(result.params, as_data(X).blocks[0])
    assert_allclose(stats.log_likelihood, wanted.sum(), rtol=1e-12 if dtype == np.float64 else 1e-6)
    few = result.model.family.log_densities(result.params.components, X[:7].astype(np.float64))
    assert_allclose(few.T, np.array(parts)[:, :7] - np.log(result.params.weights)[:, None], rtol=1e-12)


@pytest.mark.parametrize("case", DENSITIES, ids=[case["id"] for case in DENSITIES])
def test_log_density_in_60_digits(case):
    data = case["data"]
    model = StudentTMixture.from_parameters([1.0], [data["location"]], [data["scale_matrix"]], data["dof"])
    truth = exact(case["expected"]["log_density"])
    error = np.abs(model.score_samples(np.array(data["points"], dtype=float)) - truth) / np.maximum(1, np.abs(truth))
    assert error.max() < 1e-13


@EVERY
def test_many_degrees_of_freedom_are_a_normal_distribution(kind, rng):
    """Step by step and, within 1e-12, density by density."""
    X = simulate(rng, 400, 3, 3)
    options = {"max_iter": 15, "tol": 0, "random_state": 1}
    normal = fastem.fit(Mixture(Gaussian(kind), 3), X, **options)
    tailed = fastem.fit(Mixture(StudentT(kind, degrees_of_freedom=1e15), 3), X, **options)
    assert_allclose(tailed.history, normal.history, rtol=1e-12)
    for ours, theirs in zip(tailed.params.components[:3], normal.params.components, strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    found = tailed.model.log_densities(tailed.params, X)
    assert_allclose(found, normal.model.log_densities(normal.params, X), rtol=1e-11)


@settings(max_examples=200, deadline=None)
@given(st.floats(-4.6, 18.4))
def test_degrees_of_freedom_solve_their_equation(logarithm):
    degrees = np.exp(logarithm)
    wanted = np.log(degrees / 2) - digamma(degrees / 2)
    found = solve_degrees(np.array([wanted]), (1e-3, 1e8))
    assert_allclose(np.log(found / 2) - digamma(found / 2), wanted, rtol=1e-12, atol=4e-15)
    assert solve_degrees(np.array([0.0]), (0.1, 50.0)) == 50.0
    assert solve_degrees(np.array([1e9]), (0.1, 50.0)) == 0.1


# the E-step and the M-step


@EVERY
@ESTIMATED
@pytest.mark.parametrize("path", ["features", "whitened"])
def test_the_score_is_the_gradient(kind, degrees, path, rng, monkeypatch):
    """Fisher's identity in the model's coordinates, away from the maximum, along either path of the E-step."""
    if path == "whitened":
        monkeypatch.setattr(gaussian, "_THIN", 1e-40)
    X = heavy_tailed(rng, 300) * ([1e-2, 1.0, 1e3] if kind != "spherical" else 1.0)
    weight = rng.random(300)
    model = Mixture(StudentT(kind, degrees_of_freedom=degrees), 3, start=in_turn(300))
    result = fastem.fit(model, X, sample_weight=weight, max_iter=2, tol=0)
    model = result.model
    center = model.pack(result.params) + 0.02 * rng.normal(size=model.pack(result.params).size)
    params = model.unpack(center)
    assert_allclose(model.pack(params)[3:], center[3:], atol=1e-9)  # log-weights are free up to a constant
    block = as_data(X, weight).blocks[0]
    layout = model.family.layout(params.components, model.frame)
    assert len(layout.whitener) == (3 if path == "whitened" else 0)
    found = model.score(model.e_step(params, block), params)

    def objective(x):
        return weight @ model.log_densities(model.unpack(x), X)

    h = 1e-5
    wanted = [(objective(center + h * e) - objective(center - h * e)) / (2 * h) for e in np.eye(len(center))]
    assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


@EVERY
@ESTIMATED
def test_every_step_leads_uphill(kind, degrees, rng):
    X = heavy_tailed(rng, 300, degrees=1.0)
    for n_labels in (3, 30, 60):
        model = Mixture(StudentT(kind, degrees_of_freedom=degrees), 3, start=in_turn(300, n_labels) % 3)
        seen = fastem.fit(model, X[rng.permutation(300)] if n_labels == 60 else X, max_iter=60, tol=0).history
        assert np.diff(seen).min() >= -1e-11 * np.abs(seen).max()
        assert seen[-1] > seen[0] + 1


@EVERY
def test_expanded_steps_reach_the_optimum_of_plain_ones_sooner(kind, rng, monkeypatch):
    X = heavy_tailed(rng, 500, n_components=1, degrees=2.0)
    model = Mixture(StudentT(kind))
    options = {"max_iter": 3000, "tol": 1e-12, "stopping": "aitken"}
    expanded = fastem.fit(model, X, **options)
    monkeypatch.setattr(StudentT, "rescaled", lambda self, moments, params: moments)
    plain = fastem.fit(model, X, **options)
    assert expanded.n_iter < 0.7 * plain.n_iter
    assert_allclose(expanded.log_likelihood, plain.log_likelihood, rtol=1e-11)
    degrees = (result.params.components.degrees_of_freedom for result in (expanded, plain))
    assert_allclose(*degrees, rtol=1e-4)


@EVERY
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])
def test_the_whitened_path_agrees_with_the_features(kind, dtype, rng, monkeypatch):
    X = heavy_tailed(rng, 500, dtype=dtype)
    options = {"max_iter": 10, "tol": 0}
    model = Mixture(StudentT(kind), 3, start=in_turn(500))
    for limit in ("_SINGLE_OUTERMOST", "_SINGLE_TYPICAL"):
        monkeypatch.setattr(gaussian, limit, 1e40)  # float32 products on both paths
    plain = fastem.fit(model, X, **options)
    monkeypatch.setattr(gaussian, "_THIN", 1e-40)
    thin = fastem.fit(model, X, **options)
    layout = thin.model.family.layout(thin.params.components, thin.model.frame)
    assert len(layout.whitener) == 3
    assert layout.whitener.dtype == dtype
    assert_allclose(thin.history, plain.history, rtol=1e-12 if dtype == np.float64 else 3e-5)
    degrees = (result.params.components.degrees_of_freedom for result in (thin, plain))
    assert_allclose(*degrees, rtol=1e-9 if dtype == np.float64 else 1e-2)


def test_thin_and_wide_components_in_one_fit(rng):
    """One cluster 1e-6 wide beside one of width 1, and 1e3 away: its scale keeps its digits."""
    thin = rng.standard_t(4.0, size=(2000, 2)) * 2.0**-20
    X = np.concatenate([1024.0 + thin, rng.normal(size=(500, 2))])
    labels = np.repeat([0, 1], [2000, 500])
    result = fastem.fit(Mixture(StudentT(degrees_of_freedom=4.0), 2, start=labels), X, max_iter=200, tol=1e-13)
    layout = result.model.family.layout(result.params.components, result.model.frame)
    assert layout.order.tolist() == [1, 0]
    assert len(layout.whitener) == 1
    alone = fastem.fit(Mixture(StudentT(degrees_of_freedom=4.0)), thin, max_iter=200, tol=1e-13)
    found = result.params.components.covariances[0]
    wanted = alone.params.components.covariances[0]
    assert_allclose(found, wanted, rtol=0, atol=1e-6 * wanted.max())  # columns hardly correlate
    assert_allclose(result.params.components.means[0] - 1024.0, alone.params.components.means[0], atol=1e-12)


@EVERY
def test_the_same_bits_on_any_number_of_threads(kind, rng):
    X = heavy_tailed(rng, 20_000, 4)
    results = [
        fastem.fit(Mixture(StudentT(kind), 6, start=in_turn(20_000, 6), n_threads=n), X, max_iter=3, tol=0)
        for n in (1, 2)
    ]
    assert np.array_equal(results[0].history, results[1].history)
    for one, two in zip(results[0].params.components, results[1].params.components, strict=True):
        assert np.array_equal(one, two)


# degenerate data


def test_rows_without_tails_end_on_the_bound(rng):
    X = rng.uniform(-(3**0.5), 3**0.5, size=(2000, 2))
    tm = StudentTMixture(
        reg_covar=0.0, tol=1e-8, max_iter=2000, random_state=0, degrees_of_freedom_bounds=(1, 150)
    ).fit(X)
    assert tm.degrees_of_freedom_ == [150.0]
    errors = tm.standard_errors(X)
    assert errors.standard_errors["degrees_of_freedom"] == [0.0]
    assert_allclose(errors.standard_errors["means"], np.sqrt(1 / 2000), rtol=0.1)
    assert 0 < GaussianMixture(reg_covar=0.0).fit(X).score(X) - tm.score(X) < 0.01


def test_tails_heavier_than_any_that_is_allowed(rng):
    X = rng.standard_t(1.0, size=(500, 2))
    result = fastem.fit(Mixture(StudentT(bounds=(2.0, 10.0))), X, max_iter=500, tol=1e-9)
    assert result.params.components.degrees_of_freedom == [2.0]
    assert np.diff(result.history).min() >= -1e-9


def test_outliers_do_not_move_the_locations(rng):
    X = rng.normal(size=(400, 2))
    X[:20] = [1e4, -1e4]
    tm = StudentTMixture(random_state=0, reg_covar=0.0, tol=1e-6, max_iter=1000).fit(X)
    assert np.abs(tm.means_).max() < 0.2
    assert np.abs(GaussianMixture(random_state=0).fit(X).means_).max() > 100


@pytest.mark.parametrize("degrees", ["free", "common"])
def test_a_component_that_empties_keeps_its_parameters(degrees, rng):
    X = heavy_tailed(rng, 200, 2, 1)
    model = Mixture(StudentT(degrees_of_freedom=degrees), 2).prepare(as_data(X))
    one = fastem.fit(Mixture(StudentT(degrees_of_freedom=degrees)), X, max_iter=5, tol=0).params.components
    components = StudentTParams(*(np.concatenate([part, part]) for part in one))
    params = MixtureParams(np.array([1.0, 0.0]), components)
    stats = model.e_step(params, as_data(X).blocks[0])
    after = model.m_step(stats, params)
    assert after.weights.tolist() == [1.0, 0.0]
    for old, new in zip(components[:3], after.components[:3], strict=True):
        assert np.array_equal(old[1], new[1])
    assert (after.components.degrees_of_freedom[1] == components.degrees_of_freedom[1]) == (degrees == "free")
    assert all(np.isfinite(part).all() for part in after.components)


def test_a_point_mass_is_refused_and_a_prior_cures_it(rng):
    X = np.concatenate([np.zeros((50, 2)), rng.normal(size=(50, 2)) + 10.0])
    start = np.repeat([0, 1], 50)
    with pytest.raises(DegenerateError, match="component 0"):
        StudentTMixture(2, resp_init=start, reg_covar=0.0).fit(X)
    tm = StudentTMixture(2, resp_init=start, reg_covar=0.0, covariance_prior="auto", max_iter=2000, tol=1e-6).fit(X)
    assert np.diff(tm.lower_bounds_).min() > -1e-12
    assert np.isfinite(tm.covariances_).all()


def test_one_column_and_structures_agree(rng):
    X = heavy_tailed(rng, 300, 1, 2)
    start = np.argsort(np.argsort(X[:, 0])) * 2 // 300
    results = [
        fastem.fit(Mixture(StudentT(kind), 2, start=start), X, max_iter=20, tol=0) for kind in TYPES if kind != "tied"
    ]
    for result in results[1:]:
        assert_allclose(result.history, results[0].history, rtol=1e-13)


@pytest.mark.parametrize("kind", TYPES)
def test_integer_weights_are_repeated_rows(kind, rng):
    X, weight = heavy_tailed(rng, 300), rng.integers(0, 3, 300)
    options = {"max_iter": 8, "tol": 0}
    start = rng.integers(0, 2, 300)
    weighted = fastem.fit(Mixture(StudentT(kind), 2, start=start), X, sample_weight=weight, **options)
    rows = np.repeat(np.arange(300), weight)
    repeated = fastem.fit(Mixture(StudentT(kind), 2, start=start[rows]), X[rows], **options)
    assert_allclose(weighted.history, repeated.history, rtol=1e-9)


# moments, streams, blocks


@EVERY
@ESTIMATED
def test_recalled_moments_have_the_parameters_for_their_maximum(kind, degrees, rng):
    for prior in (None, fastem.NormalInverseWishart(mean_precision=0.5)):
        model = Mixture(StudentT(kind, prior=prior, degrees_of_freedom=degrees), 3, start=in_turn(600))
        result = fastem.fit(model, heavy_tailed(rng), max_iter=4, tol=0)
        recalled = result.model.recall(result.params, 600.0)
        again = result.model.maximize(recalled, 600.0, result.params, 0.0)
        for one, two in zip(again.components, result.params.components, strict=True):
            assert_allclose(one, two, rtol=1e-9, atol=1e-12)


@EVERY
def test_moments_of_parts_blend_into_those_of_the_whole(kind, rng):
    X = heavy_tailed(rng)
    result = fastem.fit(Mixture(StudentT(kind), 3, start=in_turn(600)), X, max_iter=4, tol=0)
    model, params = result.model, result.params
    stats = [model.e_step(params, as_data(rows).blocks[0]) for rows in (X[:150], X[150:])]
    parts = [model.condense(part, params) for part in stats]
    whole = model.condense(add_stats(stats), params)
    for one, two in zip(model.blend(*parts, 0.75), whole, strict=True):
        assert_allclose(one, two, rtol=1e-10, atol=1e-12)


@EVERY
@pytest.mark.parametrize("degrees", ["free", "common"])
def test_incremental_em_never_falls_and_meets_batch_em(kind, degrees, rng):
    X = heavy_tailed(rng, 2000, 2, 2)
    model = Mixture(StudentT(kind, degrees_of_freedom=degrees), 2, start=in_turn(2000, 2))
    batch = fastem.fit(model, X, tol=1e-11, max_iter=3000, stopping="aitken", acceleration="anderson")
    incremental = fastem.fit(
        model, X, tol=1e-11, max_iter=1000, stopping="aitken", algorithm="incremental", batch_size=250
    )
    assert np.diff(incremental.history).min() > -1e-9
    assert_allclose(incremental.history[-1], batch.log_likelihood, rtol=1e-9)


def test_a_stream_learns_the_tails(rng):
    X = rng.standard_t(3.0, size=(60_000, 2)) + rng.choice([0.0, 15.0], size=(60_000, 1))
    tm = StudentTMixture(2, random_state=0)
    for rows in np.split(X, 60):
        tm.partial_fit(rows)
    batch = StudentTMixture(2, random_state=0, tol=1e-6, max_iter=1000).fit(X)
    order = np.argsort(tm.means_[:, 0]), np.argsort(batch.means_[:, 0])
    assert_allclose(tm.degrees_of_freedom_[order[0]], batch.degrees_of_freedom_[order[1]], rtol=0.05)
    assert batch.score(X) - tm.score(X) < 1e-3
    again = StudentTMixture(2, random_state=0)
    for rows in np.split(X, [100, 20_000, 20_001]):
        again.partial_fit(rows)
    assert np.array_equal(again.degrees_of_freedom_, tm.degrees_of_freedom_)


def test_rows_from_disk_give_the_same_fit(rng, tmp_path):
    X = heavy_tailed(rng, 3000)
    np.save(tmp_path / "rows.npy", X)
    stored = fastem.Blocks(tmp_path / "rows.npy", block_rows=700)
    fits = [StudentTMixture(3, random_state=0, resp_init=in_turn(3000)).fit(data) for data in (X, stored)]
    assert_allclose(fits[1].lower_bound_, fits[0].lower_bound_, rtol=1e-10)


def test_a_fit_goes_on_as_a_stream(rng):
    X = heavy_tailed(rng, 4000, 2, 2)
    tm = StudentTMixture(2, random_state=0).fit(X)
    before = tm.degrees_of_freedom_
    tm.partial_fit(heavy_tailed(rng, 4000, 2, 2))
    assert not np.array_equal(tm.degrees_of_freedom_, before)
    with pytest.raises(ValueError, match="degrees_of_freedom was 'free' when the stream began"):
        tm.set_params(degrees_of_freedom="common").partial_fit(X)


# standard errors


def test_standard_errors_against_the_numerical_hessian_and_the_bootstrap(rng):
    X = heavy_tailed(rng, 500, 2, 2, degrees=4.0)
    tm = StudentTMixture(2, random_state=0, **TO_STATIONARITY).fit(X)
    found = tm.standard_errors(X)
    model, params = tm._model().prepare(as_data(X)), tm._params()
    center, h = model.pack(params), 1e-3
    steps = h * np.eye(len(center))

    def value(x):
        return model.log_densities(model.unpack(x), X).sum()

    hessian = [
        [
            (value(center + a + b) - value(center + a - b) - value(center - a + b) + value(center - a - b))
            / (4 * h * h)
            for a in steps
        ]
        for b in steps
    ]

    def flat(x):
        return np.concatenate([value.ravel() for value in model.estimands(model.unpack(x)).values()])

    jacobian = np.array([(flat(center + e) - flat(center - e)) / 2e-6 for e in 1e-6 * np.eye(len(center))]).T
    wanted = np.sqrt(np.diagonal(jacobian @ np.linalg.pinv(-np.array(hessian), rcond=1e-8) @ jacobian.T))
    errors = np.concatenate([value.ravel() for value in found.standard_errors.values()])
    assert_allclose(errors, wanted, rtol=1e-3)
    resampled = tm.standard_errors(X, method="bootstrap", n_bootstrap=300, random_state=1)
    assert_allclose(resampled.standard_errors["means"], found.standard_errors["means"], rtol=0.25)


# the estimator


@EVERY
def test_a_fit_survives_its_parameters_pickles_and_warm_starts(kind, rng):
    X = heavy_tailed(rng)
    tm = StudentTMixture(3, covariance_type=kind, random_state=0).fit(X)
    same = StudentTMixture.from_parameters(
        tm.weights_, tm.means_, tm.covariances_, tm.degrees_of_freedom_, covariance_type=kind
    )
    assert_allclose(same.predict_proba(X), tm.predict_proba(X), rtol=1e-12)
    assert np.array_equal(pickle.loads(pickle.dumps(tm)).score_samples(X), tm.score_samples(X))
    assert tm.bic(X) == pytest.approx(-2 * tm.score(X) * 600 + tm._n_parameters() * np.log(600))
    tm.set_params(warm_start=True, max_iter=1000, tol=1e-4).fit(X)
    assert tm.score(X) >= same.score(X) - 1e-9
    bounds = {"degrees_of_freedom_bounds": (500.0, 600.0)}
    with pytest.raises(ValueError, match="must lie within the bounds"):
        tm.set_params(**bounds).fit(X)


def test_rows_drawn_have_the_distribution_of_the_model():
    tm = StudentTMixture.from_parameters([1.0], [[2.0]], [[[9.0]]], 1.5, random_state=0)
    X, y = tm.sample(20_000)
    assert (y == 0).all()
    assert kstest((X[:, 0] - 2) / 3, "t", (1.5,)).pvalue > 0.01
    extreme = StudentTMixture.from_parameters([1.0], [[0.0]], [[[1.0]]], 0.01, random_state=0).sample(1000)[0]
    assert np.isfinite(extreme).all()


@EVERY
def test_marginal_and_conditional_distributions(kind, rng):
    """The joint density is that of some columns times that of the others given these."""
    X = heavy_tailed(rng)
    tm = StudentTMixture(3, covariance_type=kind, random_state=0).fit(X)
    row = X[5]
    joint = tm.score_samples(row[None])
    some = tm.marginal([2, 0]).score_samples(row[[2, 0]][None])
    given = tm.condition([2, 0], row[[2, 0]])
    assert_allclose(some + given.score_samples(row[[1]][None]), joint, rtol=1e-10)
    assert_allclose(given.weights_ @ given.means_, tm.predict_conditional(row[[2, 0]][None], [2, 0])[0], rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"degrees_of_freedom": "many"}, "degrees_of_freedom"),
        ({"degrees_of_freedom": 0.0}, "degrees_of_freedom"),
        ({"degrees_of_freedom": np.inf}, "degrees_of_freedom"),
        ({"degrees_of_freedom_init": -1.0}, "degrees_of_freedom_init"),
        ({"degrees_of_freedom_bounds": (2.0, 1.0)}, "0 < low <= high"),
        ({"degrees_of_freedom_bounds": (0.0, 1.0)}, "0 < low <= high"),
        ({"degrees_of_freedom_bounds": (1.0,)}, "two numbers"),
        ({"covariance_type": "round"}, "covariance_type"),
    ],
)
def test_what_cannot_be_used_is_refused_before_computing(options, words, rng):
    with pytest.raises(ValueError, match=words):
        StudentTMixture(2, **options).fit(heavy_tailed(rng))


def test_starts_are_checked(rng):
    X = heavy_tailed(rng)
    model = Mixture(StudentT(), 3)
    params = fastem.fit(Mixture(StudentT(), 3, start=in_turn(600)), X, max_iter=2, tol=0).params
    for degrees, words in [([1.0, 2.0], "3 positive"), ([1.0, 2.0, -1.0], "3 positive"), ([1.0, 2.0, 1e9], "within")]:
        bad = params._replace(components=params.components._replace(degrees_of_freedom=np.array(degrees)))
        with pytest.raises(ValueError, match=words):
            fastem.fit(model, X, start=bad)
    known = Mixture(StudentT(degrees_of_freedom=7.0), 3)
    with pytest.raises(ValueError, match=r"degrees_of_freedom=7\.0 is given"):
        fastem.fit(known, X, start=params)
    common = Mixture(StudentT(degrees_of_freedom="common"), 3)
    with pytest.raises(ValueError, match="the same for all"):
        fastem.fit(common, X, start=params)
    with pytest.raises(TypeError, match="StudentTParams"):
        fastem.fit(model, X, start=fastem.fit(Mixture(Gaussian(), 3, start=in_turn(600)), X, max_iter=1).params)
    with pytest.raises(ValueError, match="degrees_of_freedom must be given"):
        StudentTMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
    with pytest.raises(ValueError, match="1 positive number"):
        StudentTMixture.from_parameters([1.0], [[0.0]], [[[1.0]]], -3.0)


def test_attributes_set_by_hand_are_checked(rng):
    X = heavy_tailed(rng)
    tm = StudentTMixture(3, random_state=0).fit(X)
    tm.degrees_of_freedom_ = np.ones(2)
    with pytest.raises(ValueError, match="degrees_of_freedom_ must be 3 positive"):
        tm.predict(X)


# other packages


def fitted_case(case):
    model, settings = case["model"], case["settings"]
    X = read_data(case)
    degrees = {"free per component": "free", "fixed": settings.get("dof_fixed")}.get(model["dof"], model["dof"])
    init = case["init"]
    start = read_labels(init["file"], init["column"]) if init else np.zeros(len(X), int)
    tm = StudentTMixture(
        model["n_components"],
        covariance_type="tied" if model.get("scale_matrices") == "common" else "full",
        degrees_of_freedom=degrees,
        degrees_of_freedom_init=(init or {}).get("dof_start", 10.0),
        degrees_of_freedom_bounds=(0.01, settings.get("dof_upper_bound") or 1000.0),
        resp_init=start,
        **TO_STATIONARITY,
    )
    return X, tm.fit(X)


@pytest.mark.parametrize("case", MIXTURES, ids=[case["id"] for case in MIXTURES])
def test_fit_from_a_given_start(case):
    X, tm = fitted_case(case)
    expected, tolerance = case["expected"], case["tolerance"]
    assert tm.converged_
    assert_allclose(tm.log_likelihood_, expected["loglik"], rtol=0, atol=tolerance["loglik_abs"])
    assert np.diff(tm.lower_bounds_).min() >= -1e-13 * np.abs(tm.lower_bounds_).max()
    scales = tm.covariances_ if tm.covariances_.ndim == 3 else np.stack([tm.covariances_] * tm.n_components)
    assert_allclose(tm.degrees_of_freedom_, expected["dof"], rtol=tolerance["dof_rel"])
    pairs = [(tm.weights_, "weights"), (tm.means_, "means"), (scales, "scale_matrices")]
    for ours, name in pairs:
        theirs = np.array(expected[name])
        assert np.abs(ours - theirs).max() <= tolerance["parameters_rel"] * np.abs(theirs).max()
    if "bic" in expected:
        assert_allclose(tm.bic(X), expected["bic"], atol=2 * tolerance["loglik_abs"] + 1e-6)
        assert np.bincount(tm.predict(X)).tolist() == expected["classification_counts"]
        assert_allclose(tm.score_samples(X[:5]), expected["log_density_first5"], atol=100 * tolerance["loglik_abs"])


@pytest.mark.parametrize("case", MIXTURES, ids=[case["id"] for case in MIXTURES])
def test_defaults_reach_the_reference_or_beat_it(case):
    model, settings = case["model"], case["settings"]
    degrees = {"free per component": "free", "fixed": settings.get("dof_fixed")}.get(model["dof"], model["dof"])
    tm = StudentTMixture(
        model["n_components"],
        covariance_type="tied" if model.get("scale_matrices") == "common" else "full",
        degrees_of_freedom=degrees,
        reg_covar=0.0,
        random_state=0,
        tol=1e-4,
        max_iter=3000,
    ).fit(read_data(case))
    assert tm.log_likelihood_ > case["expected"]["loglik"] - 0.01


def test_robust_locations_of_mass():
    """Those of cov.trob in R's MASS."""
    for case in MIXTURES:
        if "cov_trob_center" in case["expected"]:
            _, tm = fitted_case(case)
            assert_allclose(tm.means_[0], case["expected"]["cov_trob_center"], rtol=1e-6)


@EVERY
def test_a_model_file_holds_fits_and_streams(kind, rng, tmp_path):
    X = heavy_tailed(rng, 4000, 2, 2)
    tm = StudentTMixture(2, covariance_type=kind, random_state=0).fit(X)
    stream = StudentTMixture(2, covariance_type=kind, random_state=0).partial_fit(X[:3000])
    for estimator in (tm, stream):
        fastem.save(estimator, tmp_path / "model.fastem")
        loaded = fastem.load(tmp_path / "model.fastem")
        assert np.array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
    stream.partial_fit(X[3000:])
    assert np.array_equal(loaded.partial_fit(X[3000:]).degrees_of_freedom_, stream.degrees_of_freedom_)
    tm.degrees_of_freedom_ = np.ones(3)
    with pytest.raises(fastem.ModelFileError, match="degrees_of_freedom_"):
        fastem.save(tm, tmp_path / "model.fastem")
