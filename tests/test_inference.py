"""Standard errors, marginal and conditional distributions."""

import numpy as np
import pytest
from conftest import STRUCTURES, TYPES, simulate
from scipy.stats import multivariate_normal, norm

from fastem import GaussianMixture, fit
from fastem.data import as_data
from fastem.demo import old_faithful
from fastem.inference import information

EXACT = {"reg_covar": 0.0, "tol": 1e-13, "max_iter": 20_000, "stopping": "aitken", "acceleration": "squarem"}


def fitted_model(gm, X):
    data = as_data(X)
    return gm._model().prepare(data), gm._params(), data


def numerical_hessian(function, x, h=1e-3):
    unit = np.eye(len(x)) * h
    hessian = np.empty((len(x), len(x)))
    for i in range(len(x)):
        for j in range(i + 1):
            corners = [function(x + a * unit[i] + b * unit[j]) for a, b in [(1, 1), (1, -1), (-1, 1), (-1, -1)]]
            hessian[i, j] = hessian[j, i] = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * h * h)
    return hessian


@pytest.mark.parametrize("covariance_type", TYPES + STRUCTURES)
@pytest.mark.parametrize("n_components", [1, 3])
def test_the_score_is_the_gradient(covariance_type, n_components, rng):
    """Fisher's identity, away from the maximum, in the model's coordinates."""
    X = simulate(rng, 300, 3, 3) * [1e-2, 1.0, 1e3]
    with pytest.warns(match="did not converge"):
        gm = GaussianMixture(n_components, covariance_type=covariance_type, max_iter=1, tol=0, random_state=0).fit(X)
    model, params, data = fitted_model(gm, X)
    params = model.unpack(model.pack(params) + 0.02 * rng.normal(size=model.pack(params).size))
    center = model.pack(params)
    found = model.score(model.e_step(params, data.blocks[0]), params)

    def objective(x):
        return model.log_densities(model.unpack(x), X).sum()

    h = 1e-5
    wanted = [(objective(center + h * e) - objective(center - h * e)) / (2 * h) for e in np.eye(len(center))]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_faithful_against_the_numerical_hessian_and_the_bootstrap():
    X = old_faithful()
    gm = GaussianMixture(2, random_state=0, **EXACT).fit(X)
    found = gm.standard_errors(X)
    model, params, _ = fitted_model(gm, X)
    center = model.pack(params)
    by_steps = [
        numerical_hessian(lambda x: model.log_densities(model.unpack(x), X).sum(), center, h) for h in (1e-3, 2e-3)
    ]
    hessian = (4 * by_steps[0] - by_steps[1]) / 3  # Richardson

    def flat(x):
        return np.concatenate([value.ravel() for value in model.estimands(model.unpack(x)).values()])

    jacobian = np.array([(flat(center + e) - flat(center - e)) / 2e-6 for e in 1e-6 * np.eye(len(center))]).T
    wanted = np.sqrt(np.diagonal(jacobian @ np.linalg.pinv(-hessian, rcond=1e-8) @ jacobian.T))
    errors = np.concatenate([value.ravel() for value in found.standard_errors.values()])
    np.testing.assert_allclose(errors, wanted, rtol=1e-5)
    resampled = gm.standard_errors(X, method="bootstrap", n_bootstrap=500, random_state=1)
    for name in ("weights", "means"):
        np.testing.assert_allclose(resampled.standard_errors[name], found.standard_errors[name], rtol=0.1)
    # Errors of variances from the information hold if the model does; so they are those of data drawn from it.
    draws = []
    for seed in range(500):
        drawn = model.sample(params, len(X), np.random.default_rng(seed))[0]
        refitted = fit(gm._model(), drawn, start=params, tol=1e-8, stopping="aitken", max_iter=1000)
        draws.append(refitted.params.components.covariances)
    np.testing.assert_allclose(np.std(draws, axis=0), found.standard_errors["covariances"], rtol=0.1)


def test_one_component_has_the_textbook_errors(rng):
    X = rng.normal(size=(500, 2)) @ [[2.0, 0.5], [0.0, 1.0]]
    gm = GaussianMixture(1, **EXACT).fit(X)
    found = gm.standard_errors(X)
    variances = np.diagonal(gm.covariances_[0])
    np.testing.assert_allclose(found.standard_errors["means"][0], np.sqrt(variances / 500), rtol=1e-6)
    np.testing.assert_allclose(
        np.diagonal(found.standard_errors["covariances"][0]), variances * np.sqrt(2 / 500), rtol=1e-6
    )
    assert found.standard_errors["weights"] == pytest.approx(0, abs=1e-9)
    low, high = found.interval("means", 0.9)
    np.testing.assert_allclose(high - low, 2 * norm.ppf(0.95) * found.standard_errors["means"], rtol=1e-12)
    np.testing.assert_allclose(found.interval("weights"), [[1.0], [1.0]])


def test_weights_count_as_repetitions(rng):
    X = simulate(rng, 200, 2, 2, separation=4.0)
    counts = rng.integers(1, 4, len(X))
    gm = GaussianMixture(2, random_state=0, **EXACT).fit(X, sample_weight=counts.astype(float))
    weighted = gm.standard_errors(X, counts.astype(float))
    repeated = gm.standard_errors(np.repeat(X, counts, axis=0))
    for name, errors in weighted.standard_errors.items():
        np.testing.assert_allclose(errors, repeated.standard_errors[name], rtol=1e-6)
    low, high = weighted.interval("weights")
    assert (low > 0).all()
    assert (low < gm.weights_).all()
    assert (gm.weights_ < high).all()
    assert (high < 1).all()


def test_the_bootstrap_takes_weights_for_repetitions(rng):
    X = rng.normal(size=(60, 1))
    gm = GaussianMixture(1, **EXACT).fit(X)
    options = {"method": "bootstrap", "n_bootstrap": 400, "random_state": 0}
    errors = [
        gm.standard_errors(*rows, **options).standard_errors["means"].item()
        for rows in ((X, np.full(60, 25.0)), (np.repeat(X, 25, axis=0),))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.2)
    assert errors[0] == pytest.approx(np.sqrt(gm.covariances_.item() / 1500), rel=0.2)


@pytest.mark.parametrize("seed", range(4))
def test_float32_rows(seed):
    rng = np.random.default_rng(seed)
    X = np.concatenate([rng.normal(size=(1500, 2)), rng.normal(size=(1500, 2)) + 3.0]).astype(np.float32)
    gm = GaussianMixture(2, random_state=0, **(EXACT | {"tol": 1e-10})).fit(X.astype(np.float64))
    single, double = gm.standard_errors(X), gm.standard_errors(X.astype(np.float64))
    for name, errors in double.standard_errors.items():
        np.testing.assert_allclose(single.standard_errors[name], errors, rtol=1e-5)


@pytest.mark.parametrize("far", [50.0, 1e5])
def test_a_component_far_away_changes_nothing(far):
    rng = np.random.default_rng(0)
    near = np.concatenate([rng.normal(size=(2000, 1)), rng.normal(size=(2000, 1)) + 3.0])
    X = np.concatenate([near, rng.normal(size=(2000, 1)) + far])
    start = {
        "means_init": [[0.0], [3.0], [far]],
        "weights_init": np.full(3, 1 / 3),
        "precisions_init": np.ones((3, 1, 1)),
    }
    gm = GaussianMixture(3, **start, **EXACT).fit(X)
    two = {"means_init": [[0.0], [3.0]], "weights_init": np.full(2, 0.5), "precisions_init": np.ones((2, 1, 1))}
    alone = GaussianMixture(2, **two, **EXACT).fit(near)
    found, want = gm.standard_errors(X).standard_errors, alone.standard_errors(near).standard_errors
    np.testing.assert_allclose(found["means"][:2], want["means"], rtol=2e-3)
    np.testing.assert_allclose(found["covariances"][:2], want["covariances"], rtol=2e-3)
    assert found["means"][2] == pytest.approx(gm.covariances_[2, 0] ** 0.5 / 2000**0.5, rel=1e-3)


def test_priors_sharpen(rng):
    X = rng.normal(size=(30, 1))
    plain = GaussianMixture(1, **EXACT).fit(X).standard_errors(X)
    prior = {"mean_precision_prior": 30.0, "covariance_prior": "auto"}
    sharp = GaussianMixture(1, **prior, **EXACT).fit(X).standard_errors(X)
    ratio = sharp.standard_errors["means"] / plain.standard_errors["means"]
    assert 0.4 < ratio.item() < 0.8


def test_standard_errors_are_refused_away_from_a_maximum(rng):
    X = simulate(rng, 400, 2, 3, separation=2.0)
    gm = GaussianMixture(3, random_state=0, tol=0.1, n_race=0, stopping="change").fit(X)
    with pytest.raises(ValueError, match=r"has not converged|no strict maximum"):
        gm.standard_errors(X)
    surplus = GaussianMixture.from_parameters(
        [0.5, 0.5], np.repeat(X.mean(0)[None], 2, 0), np.repeat(np.cov(X.T, bias=True)[None], 2, 0)
    )
    with pytest.raises(ValueError, match="no strict maximum"):
        surplus.standard_errors(X)
    for arguments, message in [({"method": "jackknife"}, "method"), ({"n_bootstrap": 1}, "n_bootstrap")]:
        with pytest.raises(ValueError, match=message):
            gm.standard_errors(X, **arguments)
    model, params, data = fitted_model(GaussianMixture(1, **EXACT).fit(X), X)
    for arguments in (("means", 1.0), ("medians", 0.9)):
        with pytest.raises(ValueError, match="must"):
            information(model, params, data).interval(*arguments)


# marginal and conditional


@pytest.mark.parametrize("covariance_type", TYPES)
def test_conditional_times_marginal_is_the_joint(covariance_type, rng):
    X = simulate(rng, 400, 4, 3)
    gm = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X)
    known = [2, 0]
    marginal = gm.marginal(known)
    for row in X[:5]:
        conditional = gm.condition(known, row[known])
        joint = conditional.score_samples(row[None, [1, 3]]) + marginal.score_samples(row[None, known])
        np.testing.assert_allclose(joint, gm.score_samples(row[None]), rtol=1e-10)
        mean = conditional.weights_ @ conditional.means_
        np.testing.assert_allclose(gm.predict_conditional(row[None, known], known)[0], mean, rtol=1e-10)


def test_the_conditional_of_one_normal_is_the_regression_line(rng):
    X = rng.normal(size=(50_000, 3)) @ rng.normal(size=(3, 3)) + 5.0
    gm = GaussianMixture(1, reg_covar=0).fit(X)
    design = np.c_[np.ones(len(X)), X[:, [0, 2]]]
    slope, *_ = np.linalg.lstsq(design, X[:, 1], rcond=None)
    np.testing.assert_allclose(gm.predict_conditional(X[:9, [0, 2]], [0, 2])[:, 0], design[:9] @ slope, rtol=1e-8)
    given = gm.condition([0, 2], X[0, [0, 2]])
    residual = np.var(X[:, 1] - design @ slope)
    np.testing.assert_allclose(given.covariances_.item(), residual, rtol=1e-8)
    want = multivariate_normal(gm.means_[0, [1]], gm.covariances_[0][1:2, 1:2]).logpdf(X[:5, 1])
    np.testing.assert_allclose(gm.marginal([1]).score_samples(X[:5, [1]]), want, rtol=1e-10)


def test_columns_by_name_and_bad_ones(rng):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(simulate(rng, 200, 3, 2), columns=["a", "b", "c"])
    gm = GaussianMixture(2, random_state=0).fit(X)
    named = gm.condition(["c"], [0.5])
    assert list(named.feature_names_in_) == ["a", "b"]
    np.testing.assert_array_equal(named.means_, gm.condition([2], [0.5]).means_)
    for columns, message in [
        (["d"], "no column"), ([3], "numbers from 0 to 2"), ([-1], "numbers"), ([0, 0], "twice"), ([], "at least one"),
        ([True, False], "holds True"), ([0, 1, 2], "none is left"), ([0.5], "numbers"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            gm.condition(columns, np.zeros(len(columns)))
    with pytest.raises(ValueError, match="values has shape"):
        gm.condition(["a"], [1.0, 2.0])
    with pytest.raises(ValueError, match="X has 1 columns"):
        gm.predict_conditional([[1.0]], ["a", "b"])
