"""Exponential families: densities, estimates, missing and impossible values, what is refused; each against SciPy."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from exponential_kinds import CATEGORIES, EVERY_KIND, KINDS, SIZES, draw_rows, punched, seen, simplex
from hypothesis import given, settings
from scipy import optimize, special
from scipy import stats as scipy_stats

import fastem
from fastem.data import Block, as_data
from fastem.families import beta, gamma, tables, von_mises
from fastem.families.bernoulli import BernoulliParams
from fastem.families.categorical import CategoricalParams
from fastem.families.geometric import GeometricParams
from fastem.families.poisson import PoissonParams
from fastem.inference import information
from fastem.models.mixture_records import MixtureParams
from fastem.online import Online, Stream, feed
from fastem.protocol import add_stats
from fastem.sources import Blocks

EVERY = pytest.mark.parametrize("name", EVERY_KIND)
WITH_MISSING = [name for name in EVERY_KIND if KINDS[name].family.takes_missing]
WEIGHTS = np.array([0.5, 0.3, 0.2])


def mixture_of(name, rng, n_components=3):
    """A mixture with known parameters, and rows of it."""
    kind = KINDS[name]
    params = MixtureParams(WEIGHTS[:n_components] / WEIGHTS[:n_components].sum(), kind.params(rng, n_components))
    return fastem.Mixture(seen(kind), n_components), params, draw_rows(name, rng, 200)


def by_scipy(name, params, X):
    """Log-densities (n, K) of rows under each component, with missing cells left out."""
    kind, columns = KINDS[name], []
    for k in range(len(params.weights)):
        filled = np.where(np.isnan(X), np.nan_to_num(X[~np.isnan(X).any(axis=1)][:1]), X)
        parts = kind.log_density(params.components, k, filled)
        columns.append(np.where(np.isnan(X), 0.0, parts).sum(axis=1) if parts.shape == X.shape else parts.sum(axis=1))
    return np.column_stack(columns)


# densities


@EVERY
@pytest.mark.parametrize("missing", [False, True], ids=["whole", "missing"])
def test_densities_are_those_of_scipy(name, missing, rng):
    model, params, X = mixture_of(name, rng)
    if missing and not model.family.takes_missing:
        pytest.skip("has no missing values")
    X = punched(X, rng) if missing else X
    each = by_scipy(name, params, X)
    np.testing.assert_allclose(model.family.log_densities(params.components, X), each, rtol=1e-11, atol=1e-11)
    joint = each + np.log(params.weights)
    total = special.logsumexp(joint, axis=1)
    np.testing.assert_allclose(model.log_densities(params, X), total, rtol=1e-11, atol=1e-11)
    resp = np.exp(joint - total[:, None])
    np.testing.assert_allclose(model.posteriors(params, X), resp, rtol=1e-9, atol=1e-13)
    assert np.array_equal(model.labels(params, X), resp.argmax(axis=1))


@EVERY
def test_a_row_that_is_all_missing_informs_nothing(name, rng):
    if name not in WITH_MISSING:
        pytest.skip("has no missing values")
    model, params, X = mixture_of(name, rng)
    nothing = np.full((1, 3), np.nan)
    np.testing.assert_allclose(model.log_densities(params, nothing), 0.0, atol=1e-12)
    np.testing.assert_allclose(model.posteriors(params, nothing)[0], params.weights, rtol=1e-12)
    stats = [
        model.resumed(params, 1.0, X.dtype).e_step(params, as_data(X, allow_nan=True).blocks[0]) for X in (X, nothing)
    ]
    both = add_stats(stats)
    assert both.log_likelihood == pytest.approx(stats[0].log_likelihood, rel=1e-14)
    model = model.resumed(params, 1.0, X.dtype)
    one, two = model.m_step(stats[0], params), model.m_step(both, params)
    for a, b in zip(one.components, two.components, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_allclose(two.weights * 201, one.weights * 200 + params.weights, rtol=1e-12)


@EVERY
def test_fits_do_not_depend_on_the_order_of_columns(name, rng):
    """Nor on a column that is the same for all components."""
    if name == "Categorical" or not KINDS[name].family.takes_missing:
        pytest.skip("its columns are no pieces, or differ in their categories")
    model, params, X = mixture_of(name, rng, 2)
    order = np.array([2, 0, 1])
    turned = MixtureParams(params.weights, type(params.components)(*(part[:, order] for part in params.components)))
    one = fastem.fit(model, X, start=params, max_iter=4, tol=0)
    two = fastem.fit(model, X[:, order], start=turned, max_iter=4, tol=0)
    np.testing.assert_allclose(one.history, two.history, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "factor"), [("ExponentialTime", 2.0**40), ("Gamma", 2.0**-20), ("LogNormal", 2.0**30), ("Normal", 2.0**50)]
)
def test_units_do_not_matter(name, factor, rng):
    X = draw_rows(name, rng, 300)
    options = {"max_iter": 15, "tol": 0, "random_state": 0}
    model = fastem.Mixture(KINDS[name].family, 3)
    one, two = fastem.fit(model, X, **options), fastem.fit(model, X * factor, **options)
    np.testing.assert_allclose(two.history + X.size * np.log(factor), one.history, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(two.params.weights, one.params.weights, rtol=1e-6)


# estimates


@EVERY
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_estimate_inverts_expectation(name, seed):
    kind = KINDS[name]
    params, family = kind.params(np.random.default_rng(seed), 4), seen(kind)
    found = family.estimate(family.expectation(params))
    for one, two in zip(found, params, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


@EVERY
def test_one_component_is_the_maximum_likelihood_estimate(name, rng):
    """No other parameters make weighted rows likelier, by SciPy's densities."""
    kind, X = KINDS[name], draw_rows(name, rng, 150)
    weight = rng.random(150)
    result = fastem.fit(fastem.Mixture(kind.family), X, sample_weight=weight)
    family = result.model.family

    def log_likelihood(vector):
        params = family.unpack(vector, 1, result.model.bound)
        return -float(weight @ kind.log_density(params, 0, X).sum(axis=1))

    at = family.pack(result.params.components, result.model.bound)
    best = optimize.minimize(
        log_likelihood, at + 0.1 * rng.normal(size=at.shape), method="BFGS", options={"gtol": 1e-6}
    )
    assert result.log_likelihood == pytest.approx(-best.fun, rel=1e-9)
    np.testing.assert_allclose(-log_likelihood(at), result.log_likelihood, rtol=1e-11)


@settings(max_examples=200, deadline=None)
@given(log_shape=st.floats(-6, 25))
def test_gamma_shapes_to_full_accuracy(log_shape):
    shape = np.exp(np.array([[log_shape]]))
    gap, slope = gamma.log_minus_digamma(shape)
    np.testing.assert_allclose(gamma.gamma_shape(gap), shape, rtol=1e-13)
    if shape < 1e3:
        np.testing.assert_allclose(gap, np.log(shape) - special.digamma(shape), rtol=1e-11)
        np.testing.assert_allclose(slope, 1 / shape - special.polygamma(1, shape), rtol=1e-10)


@settings(max_examples=200, deadline=None)
@given(log_kappa=st.floats(-12, 30))
def test_concentrations_to_full_accuracy(log_kappa):
    kappa = np.exp(np.array([[log_kappa]]))
    short, slope = von_mises.shortfall(kappa)
    rtol = max(1e-12, 1e-15 / kappa[0, 0])  # a small kappa is what 1 - short leaves of its digits
    np.testing.assert_allclose(von_mises.concentration(short), kappa, rtol=rtol)
    near = (von_mises.shortfall(kappa * 1.0001)[0] - von_mises.shortfall(kappa * 0.9999)[0]) / (0.0002 * kappa)
    np.testing.assert_allclose(slope, near, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("kappa", [1e-3, 0.7, 20.0, 59.999, 60.001, 500.0, 1e8])
def test_ratio_of_bessel_functions_against_many_digits(kappa):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        want = float(1 - mpmath.besseli(1, kappa) / mpmath.besseli(0, kappa))
    np.testing.assert_allclose(von_mises.shortfall(np.array([kappa]))[0], want, rtol=2e-14)


@pytest.mark.parametrize("kappa", [0.0, 1e-9, 1.0, 1e5])
def test_von_mises_of_any_concentration(kappa, rng):
    family = fastem.VonMises()
    params = von_mises.VonMisesParams(np.array([[1.0]]), np.array([[kappa]]))
    X = np.array([[1.0], [1.1], [-2.0], [7.5]])
    want = scipy_stats.vonmises.logpdf(X, kappa, loc=1.0)[:, 0] if kappa else np.full(4, -np.log(2 * np.pi))
    np.testing.assert_allclose(family.log_densities(params, X)[:, 0], want, rtol=1e-9)


@settings(max_examples=100, deadline=None)
@given(log_a=st.floats(-3, 12), log_b=st.floats(-3, 12))
def test_beta_shapes_of_any_size(log_a, log_b):
    params = beta.BetaParams(np.exp([[log_a]]), np.exp([[log_b]]))
    family = fastem.Beta()
    found = family.estimate(family.expectation(params))
    rtol = 1e-9 + 1e-13 * max(params.a[0, 0] / params.b[0, 0], params.b[0, 0] / params.a[0, 0]) * sum(params)[0, 0]
    np.testing.assert_allclose(np.array(found), np.array(params), rtol=rtol)


# missing values


@pytest.mark.parametrize("name", WITH_MISSING)
def test_estimates_come_from_what_is_there(name, rng):
    """One component of a column with holes is that of the column without them."""
    X = draw_rows(name, rng, 200)
    holes = X.copy()
    holes[::3, 1] = np.nan
    whole = fastem.fit(fastem.Mixture(KINDS[name].family), np.delete(X, np.s_[::3], axis=0))
    found = fastem.fit(fastem.Mixture(KINDS[name].family), holes)
    one, two = (result.params.components for result in (found, whole))
    if name == "Categorical":
        one, two = ([part[:, 3:5] for part in params] for params in (one, two))  # those of column 1
    else:
        one, two = ([part[:, 1] for part in params] for params in (one, two))
    np.testing.assert_allclose(one, two, rtol=1e-9)


@pytest.mark.parametrize("name", WITH_MISSING)
def test_a_column_that_is_all_missing_is_refused(name, rng):
    X = draw_rows(name, rng, 20)
    X[:, 1] = np.nan
    with pytest.raises(ValueError, match="column 1 of X holds no value, only missing ones; drop it"):
        fastem.fit(fastem.Mixture(KINDS[name].family, 2), X)


def test_multinomial_rows_are_whole(rng):
    X = draw_rows("Multinomial", rng, 20)
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="X contains NaN at row 3, column 1"):
        fastem.fit(fastem.Mixture(fastem.Multinomial(), 2), X)


@pytest.mark.parametrize("name", WITH_MISSING)
def test_imputing(name, rng):
    """Expectations given the rest of a row by Bayes' rule, and draws whose mean they are."""
    model, params, X = mixture_of(name, rng)
    X[:, 1] = np.nan
    filled = model.impute(params, X[:50])
    assert np.array_equal(filled[:, [0, 2]], X[:50][:, [0, 2]])
    resp = model.posteriors(params, X[:50])
    drawn = model.impute(params, np.repeat(X[:1], 4000, axis=0), rng)
    assert np.array_equal(np.unique(drawn[:, 0]), [X[0, 0]])
    if name == "Categorical":
        shares = resp @ params.components.probabilities[:, 3:5]
        assert np.array_equal(filled[:, 1], CATEGORIES[1][shares.argmax(axis=1)])
        assert np.mean(drawn[:, 1] == CATEGORIES[1][0]) == pytest.approx(shares[0, 0], abs=0.03)
        return
    if name == "VonMises":
        mean = np.angle(np.exp(1j * drawn[:, 1]).mean())
        assert np.abs(np.angle(np.exp(1j * (filled[0, 1] - mean)))) < 0.2
        return
    np.testing.assert_allclose(filled[:, 1], resp @ model.family.column_means(params.components)[:, 1], rtol=1e-12)
    error = drawn[:, 1].std() / np.sqrt(4000)
    assert abs(drawn[:, 1].mean() - filled[0, 1]) < 5 * error


# values that are impossible


def test_impossible_values_have_density_zero_and_posteriors():
    """As a limit: what is impossible under all components tells them not apart, what is under some rules these out."""
    family = fastem.Poisson()
    params = MixtureParams(np.array([0.25, 0.75]), PoissonParams(np.array([[0.0, 1.0, 0.0], [0.0, 3.0, 2.0]])))
    model = fastem.Mixture(family, 2)
    X = np.array([[0.0, 2.0, 0.0], [3.0, 2.0, 0.0], [0.0, 5.0, 1.0], [2.0, 1.0, 4.0]])
    density = model.log_densities(params, X)
    assert np.array_equal(np.isneginf(density), [False, True, False, True])
    assert density[2] == pytest.approx(np.log(0.75) + scipy_stats.poisson.logpmf([0, 5, 1], [0, 3, 2]).sum())
    resp = model.posteriors(params, X)
    np.testing.assert_allclose(resp[1], resp[0], rtol=1e-9)
    np.testing.assert_allclose(resp[2:], [[0, 1], [0, 1]], atol=1e-300)


def test_poisson_against_sixty_digits():
    counts = np.array([0, 0, 3, 5, 1e6, 1e6, 50, 0])
    rates = np.array([1e-10, 0, 0, 5, 1e6, 1001000, 1e-5, 1e6])
    want = [-1e-10, 0, -np.inf, -1.7403021806115442, -7.826693895520143, -8.326360811986977, -724.1240502002844, -1e6]
    model = fastem.Mixture(fastem.Poisson())
    found = [
        model.log_densities(MixtureParams(np.ones(1), PoissonParams(np.array([[rate]]))), np.array([[count]]))[0]
        for count, rate in zip(counts, rates, strict=True)
    ]
    np.testing.assert_allclose(found, want, rtol=1e-14, atol=1e-8)


@pytest.mark.parametrize("name", ["Bernoulli", "Categorical"])
def test_probabilities_of_zero_and_one(name):
    if name == "Bernoulli":
        family = fastem.Bernoulli()
        components = BernoulliParams(np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 0.25]]))
    else:
        family = seen(KINDS[name])
        family = replace(family, values=3 * (np.array([0.0, 1.0]),), categories=None)
        components = CategoricalParams(np.array([[1, 0, 0, 1, 0.5, 0.5], [0, 1, 0, 1, 0.75, 0.25]], dtype=float))
    params = MixtureParams(np.array([0.5, 0.5]), components)
    model = fastem.Mixture(family, 2)
    X = np.array([[0, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 1], [np.nan, 1, 1], [np.nan, 0, np.nan]], dtype=float)
    density = model.log_densities(params, X)
    with np.errstate(divide="ignore"):
        want = np.log([0.25, 0.375, 0, 0, 0.375, 0])
    np.testing.assert_allclose(density, want, rtol=1e-12)
    resp = model.posteriors(params, X)
    np.testing.assert_allclose(resp[:4], [[1, 0], [0, 1], [0, 1], [1, 0]], atol=1e-200)
    np.testing.assert_allclose(resp[4:], [[2 / 3, 1 / 3], [0.5, 0.5]], rtol=1e-9)


@pytest.mark.parametrize("name", ["Poisson", "Bernoulli", "Categorical", "Multinomial", "Geometric"])
def test_components_on_the_boundary_are_fitted_without_nan(name, rng):
    """A column of zeros, and clusters that are each constant in some column."""
    X = np.zeros((60, 3))
    X[:20, 1], X[20:, 2] = 1.0, 1.0
    X[::2, 1] = 1.0
    result = fastem.fit(fastem.Mixture(KINDS[name].family if name != "Categorical" else fastem.Categorical(), 2), X,
                        n_race=4, max_iter=200, tol=1e-9, acceleration="anderson", random_state=0)  # fmt: skip
    assert np.isfinite(result.history).all()
    assert np.diff(result.history).min() > -1e-10 * abs(result.history[-1])
    assert all(np.isfinite(part).all() for part in result.params.components)
    np.testing.assert_allclose(result.model.log_densities(result.params, X).sum(), result.history[-1], rtol=1e-6)
    assert np.isfinite(result.model.posteriors(result.params, X + np.array([1.0, 0, 0]) * (name == "Poisson"))).all()


def test_categories_that_were_never_seen(rng):
    """Their density is 0, and the other cells tell the component; to fit them is refused."""
    X = np.array([[1.0, 5.0], [2.0, 5.0], [1.0, 7.0], [2.0, 7.0]] * 5)
    result = fastem.fit(fastem.Mixture(fastem.Categorical(), 2), X, random_state=0)
    model, params = result.model, result.params
    strange = np.array([[3.0, 5.0], [1.0, 6.0]])
    assert np.isneginf(model.log_densities(params, strange)).all()
    missing = np.array([[np.nan, 5.0], [1.0, np.nan]])
    np.testing.assert_allclose(model.posteriors(params, strange), model.posteriors(params, missing), rtol=1e-12)
    with pytest.raises(ValueError, match=r"X\[0, 0\] is 3; which is none of the categories; give all"):
        model.e_step(params, as_data(strange).blocks[0])
    given = fastem.Categorical(categories=[[1, 2, 3], [5, 6, 7]], prior=fastem.Conjugate(1.0, np.full(6, 1 / 3)))
    smoothed = fastem.fit(fastem.Mixture(given, 2), X, random_state=0)
    assert np.isfinite(smoothed.model.log_densities(smoothed.params, strange)).all()
    assert smoothed.params.components.probabilities.min() > 0


# what is refused

BAD = [
    ("Poisson", 1.5, r"X\[2, 1\] is 1.5; Poisson counts are integers from 0 on"),
    ("Poisson", -1.0, r"X\[2, 1\] is -1; Poisson counts"),
    ("Geometric", 0.5, "geometric counts are integers from 0 on"),
    ("Multinomial", -2.0, "multinomial counts are integers from 0 on"),
    ("Bernoulli", 2.0, "binary values are 0 and 1; LatentClass takes any"),
    ("Categorical", 9.0, "none of the categories"),
    ("ExponentialTime", -0.1, "Negative values in data cannot be exponentially distributed"),
    ("Gamma", 0.0, "gamma-distributed values are positive"),
    ("LogNormal", 0.0, "log-normally distributed values are positive"),
    ("Beta", 1.0, "lie between 0 and 1, without the ends"),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD, ids=[f"{name}-{value}" for name, value, _ in BAD])
def test_values_that_a_family_cannot_have_are_refused(name, value, words, rng):
    X = draw_rows(name, rng, 30)
    X[2, 1] = value
    with pytest.raises(ValueError, match=words):
        fastem.fit(fastem.Mixture(KINDS[name].family, 2), X)
    blocks = Blocks(lambda: iter([X[:2], X[2:]]), block_rows=2)
    with pytest.raises(ValueError, match=words):
        fastem.fit(fastem.Mixture(KINDS[name].family, 2), blocks)


@pytest.mark.parametrize("name", ["Gamma", "Beta", "VonMises", "Normal", "LogNormal", "ExponentialTime", "NormalBlock"])
def test_constant_columns_are_degenerate(name, rng):
    X = draw_rows(name, rng, 30)
    X[:, 1] = 0.0 if name == "ExponentialTime" else 0.5
    with pytest.raises(fastem.DegenerateError, match="in column 1; use fewer components, another start, or a prior"):
        fastem.fit(fastem.Mixture(KINDS[name].family), X)


IMPOSSIBLE_MEANS = {  # of three columns
    "Poisson": [1.0, -1.0, 1.0],
    "Geometric": [1.0, -1.0, 1.0],
    "Bernoulli": [0.5, 1.5, 0.5],
    "ExponentialTime": [1.0, -1.0, 1.0],
    "Gamma": [1.0, 1.0, 1.0, -0.5, 0.5, -0.5],  # the mean logarithm is above the logarithm of the mean
    "LogNormal": [0.0, 2.0, 0.0, 1.0, 3.0, 1.0],  # the square of the mean is above the mean square
    "Beta": [-1.0, -0.5, -1.0, -1.0, -0.5, -1.0],
    "VonMises": [0.5, 0.9, 0.5, 0.5, 0.9, 0.5],
    "Multinomial": [1.0, -1.0, 1.0],
}


@pytest.mark.parametrize("name", IMPOSSIBLE_MEANS)
def test_means_of_a_prior_that_no_rows_have_are_refused(name, rng):
    """Not as a component that has collapsed, and not taken: out of -1 and the data a rate may come."""
    X = draw_rows(name, rng, 60)
    family = replace(KINDS[name].family, prior=fastem.Conjugate(0.5, IMPOSSIBLE_MEANS[name]))
    with pytest.raises(ValueError, match=r"prior\.mean holds means of statistics that no \w+ distribution has"):
        fastem.fit(fastem.Mixture(family), X)


def test_means_of_a_prior_may_be_on_the_boundary_of_counts():
    X = np.array([[0.0], [1.0], [2.0]])
    one = fastem.fit(fastem.Mixture(fastem.Poisson(fastem.Conjugate(3.0, [0.0]))), X)
    np.testing.assert_allclose(one.params.components.rates, 0.5)
    two = fastem.fit(fastem.Mixture(fastem.Bernoulli(fastem.Conjugate(2.0, [1.0]))), np.minimum(X, 1.0))
    np.testing.assert_allclose(two.params.components.probabilities, 0.8)


def test_geometric_densities_of_large_means(rng):
    """log(m / (1 + m)) is small where m is large, and is multiplied by as large a count."""
    family, means = fastem.Geometric(n_features=1), 1e9 * np.ones((1, 1))
    X = np.arange(1.0, 5e9, 1e8)[:, None]
    wanted = X[:, 0] * -np.log1p(1e-9) - np.log1p(1e9)
    found = family.log_densities(GeometricParams(means), X)[:, 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-13)


def test_arguments_of_families_are_checked(rng):
    with pytest.raises(TypeError, match=r"prior must be a fastem\.Conjugate or None"):
        fastem.Poisson(prior=3.0)
    with pytest.raises(ValueError, match=r"prior\.rows must be a positive finite number"):
        fastem.Poisson(prior=fastem.Conjugate(-1.0))
    X = draw_rows("Poisson", rng, 30)
    with pytest.raises(ValueError, match=r"prior.mean has shape \(2,\); \(3,\), one per statistic"):
        fastem.fit(fastem.Mixture(fastem.Poisson(prior=fastem.Conjugate(1.0, [1.0, 2.0]))), X)
    with pytest.raises(ValueError, match=r"categories\[0\] holds a value twice"):
        fastem.Categorical(categories=[[1, 1, 2]])
    with pytest.raises(ValueError, match="categories are given for 1 columns, and X has 3"):
        fastem.fit(fastem.Mixture(fastem.Categorical(categories=[[1, 2]])), X)
    with pytest.raises(ValueError, match="more than 4096"):
        fastem.fit(fastem.Mixture(fastem.Categorical()), rng.permutation(10_000).reshape(-1, 2).astype(float))
    with pytest.raises(ValueError, match="holds zeros only"):
        fastem.fit(fastem.Mixture(fastem.Multinomial()), np.zeros((5, 3)))
    model = fastem.Mixture(fastem.Poisson(), 2).prepare(as_data(X))
    for rates, words in [
        ([[1.0, 2, 3]], "shape"),
        ([[1.0, 2, 3], [1, 2, -1]], "must be not negative; it reaches from -1 to 3"),
        ([[1.0, 2, 3], [1, 2, np.nan]], "NaN"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.check_params(MixtureParams(np.array([0.5, 0.5]), PoissonParams(np.array(rates))))
    with pytest.raises(TypeError, match=r"start\.components must be PoissonParams"):
        model.check_params(MixtureParams(np.array([0.5, 0.5]), BernoulliParams(np.zeros((2, 3)))))


# every way to fit


@EVERY
def test_other_algorithms_come_to_the_same(name, rng):
    X = draw_rows(name, rng, 3000)
    model = fastem.Mixture(KINDS[name].family, 2)
    options = {"n_race": 6, "tol": 1e-9, "max_iter": 2000, "stopping": "aitken", "random_state": 0}
    batch = fastem.fit(model, X, **options)
    for accelerated in ("anderson", "squarem"):
        found = fastem.fit(model, X, acceleration=accelerated, **options)
        assert found.history[-1] == pytest.approx(batch.history[-1], rel=1e-6)
    found = fastem.fit(model, X, algorithm="incremental", **options)
    assert found.history[-1] == pytest.approx(batch.history[-1], rel=1e-6)
    assert np.diff(found.history).min() > -1e-10 * abs(found.history[-1])
    quick = fastem.fit(model, X, algorithm="minibatch", n_epochs=5, batch_size=256, random_state=0, n_race=6)
    assert quick.history[-1] == pytest.approx(batch.history[-1], rel=0.01)


@EVERY
def test_blocks_on_disk_give_the_bits_of_blocks_in_memory(name, rng, tmp_path):
    X = draw_rows(name, rng, 2000)
    X = punched(X, rng, 0.02) if name in WITH_MISSING else X
    model = fastem.Mixture(KINDS[name].family, 2)
    np.save(tmp_path / "X.npy", X)
    data = as_data(X, allow_nan=True).recut(300)
    options = {"n_race": 3, "max_iter": 12, "tol": 0, "random_state": 0}
    memory = fastem.fit(model, data, **options)
    disk = fastem.fit(model, Blocks(str(tmp_path / "X.npy"), block_rows=300), **options)
    assert np.array_equal(memory.history, disk.history)
    whole = fastem.fit(model, X, **options)
    assert whole.history[-1] == pytest.approx(disk.history[-1], rel=1e-3)


@EVERY
def test_bits_do_not_depend_on_threads(name, rng):
    X = np.tile(draw_rows(name, rng, 10_000), (12, 1))
    runs = [
        fastem.fit(fastem.Mixture(KINDS[name].family, 3, n_threads=n), X, max_iter=3, tol=0, random_state=0)
        for n in (1, 2)
    ]
    assert np.array_equal(runs[0].history, runs[1].history)
    assert all(np.array_equal(a, b) for a, b in zip(runs[0].params.components, runs[1].params.components, strict=True))


@EVERY
@pytest.mark.parametrize("online", [Online(), Online(half_life=2000.0, starved="reseed"), Online(starved="remove")])
def test_streams_learn(name, online, rng):
    """Missing values that come late included: what has not been missing so far may be."""
    X = draw_rows(name, rng, 6000)
    model = fastem.Mixture(KINDS[name].family, 2)

    def start(data):
        result = fastem.fit(model, data, n_race=6, max_iter=20, random_state=0)
        return result.model, result.params

    stream = Stream()
    for first in range(0, 6000, 500):
        rows = X[first : first + 500]
        rows = punched(rows, rng) if first >= 3000 and name in WITH_MISSING else rows
        stream = feed(stream, (rows, None), online, 500, 1000, start)
    reached = stream.model.log_densities(stream.params, X).mean()
    best = fastem.fit(model, X, n_race=6, random_state=0).log_likelihood / len(X)
    assert reached > best - 0.05 * abs(best)


@EVERY
def test_a_stream_goes_on_from_parameters(name, rng):
    model, params, X = mixture_of(name, rng)
    resumed = model.resumed(params, 500.0, np.dtype(np.float64))
    expected = resumed.recall(params, 500.0)
    again = resumed.maximize(expected, 500.0, params, 1.0)
    for one, two in zip(again.components, params.components, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-12)
    stats = resumed.e_step(params, as_data(X).blocks[0])
    assert stats.log_likelihood == pytest.approx(model.log_densities(params, X).sum(), rel=1e-11)


@EVERY
def test_standard_errors_are_those_of_the_numeric_hessian(name, rng):
    """The inverse of the Hessian of the observed log-likelihood, by differences of its values alone."""
    X = draw_rows(name, rng, 400, n_components=1)
    kind = KINDS[name]
    result = fastem.fit(fastem.Mixture(kind.family), X, tol=1e-10)
    model, data = result.model, as_data(X)
    found = information(model, result.params, data)
    at = model.pack(result.params)

    def value(vector):
        return float(kind.log_density(model.unpack(vector).components, 0, X).sum())

    n, h = len(at), 1e-3
    units = h * np.eye(n)
    hessian = np.array(
        [
            [
                (value(at + a + b) - value(at + a - b) - value(at - a + b) + value(at - a - b)) / (4 * h * h)
                for b in units
            ]
            for a in units
        ]
    )
    covariance = np.linalg.pinv(-hessian, rcond=1e-6)
    jacobian = np.array(
        [
            np.concatenate(
                [
                    (p - q).ravel()
                    for p, q in zip(model.unpack(at + u).components, model.unpack(at - u).components, strict=True)
                ]
            )
            for u in units
        ]
    ).T / (2 * h)
    want = np.sqrt(np.diagonal(jacobian @ covariance @ jacobian.T))
    errors = np.concatenate([found.standard_errors[field].ravel() for field in result.params.components._fields])
    np.testing.assert_allclose(errors, want, rtol=5e-3)


# tables


def test_groups_of_columns_hold_every_value_once():
    grouping = tables.group((3, 2, 70, 2, 2, 2, 2, 2, 2, 2), (False, True, False, *[False] * 7))
    assert np.count_nonzero(grouping.radix, axis=1).max() == 1
    assert grouping.sizes.prod() == 3 * 3 * 70 * 2**7
    assert grouping.sizes[np.arange(len(grouping.sizes)) != 1].max() <= 64
    total = 3 + 2 + 70 + 14
    counts = np.bincount(grouping.members.ravel(), minlength=total + 1)[:total]
    assert (counts > 0).all()
    assert np.array_equal(np.diff(grouping.starts, append=len(grouping.pairs)), counts)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_columns", [3, 12, 40])
def test_rows_that_repeat_are_gone_through_once(weighted, n_columns, rng):
    few = rng.integers(0, 3, (25, n_columns)).astype(float)
    few[3, 1] = np.nan
    X = few[rng.integers(25, size=4000)]
    weight = rng.integers(0, 3, (4000, 1)).astype(float) if weighted else np.empty((0, 1))
    family = fastem.Categorical().seeing(as_data(X, allow_nan=True))
    codes = family.codes(Block(X, weight))
    assert codes.total_weight == (weight.sum() if weighted else 4000)
    assert len(codes.X) <= 25 or n_columns == 40  # 40 columns have more patterns than numbers
    different = rng.integers(0, 3, (4000, 12)).astype(float)
    family = fastem.Categorical().seeing(as_data(different))
    assert len(family.codes(Block(different, np.empty((0, 1)))).X) == 4000


@pytest.mark.parametrize("n_categories", [2, 5, 100])
@pytest.mark.parametrize("missing", [False, True])
def test_look_up_agrees_with_one_hot_features(n_categories, missing, rng):
    X = rng.integers(0, n_categories, (3000, 7)).astype(float)
    X = punched(X, rng) if missing else X
    data = as_data(X, rng.random(3000), allow_nan=True)
    model = fastem.Mixture(fastem.Categorical(), 5).prepare(data)
    params = model.initialize(data, rng)
    by_table = model.e_step(params, data.blocks[0])
    layout = model.family.layout(params.components, model.bound)
    states = model.family.natural(params.components, np.log(params.weights), layout, model.bound)
    sums, log_likelihood, _ = model._sweep(model.family.rows(data.blocks[0]), states, 0)
    np.testing.assert_allclose(by_table.sums, sums, rtol=1e-10, atol=1e-10)
    assert by_table.log_likelihood == pytest.approx(log_likelihood, rel=1e-13)


def test_values_need_not_be_consecutive_integers(rng):
    X = np.column_stack([rng.choice(part, 300) for part in CATEGORIES])
    family = fastem.Categorical().seeing(as_data(X))
    assert all(np.array_equal(a, b) for a, b in zip(family.values, CATEGORIES, strict=True))
    assert np.array_equal(
        np.column_stack([v[n.astype(int)] for v, n in zip(CATEGORIES, family.numbers(X).T, strict=True)]), X
    )
    plain = np.column_stack([np.searchsorted(v, column) for v, column in zip(CATEGORIES, X.T, strict=True)])
    one, two = (
        fastem.fit(fastem.Mixture(fastem.Categorical(), 2), rows.astype(float), random_state=0) for rows in (X, plain)
    )
    np.testing.assert_allclose(one.history, two.history, rtol=1e-13)
    assert simplex(rng, 2, 3).shape == (2, 3)
    assert sum(SIZES) == one.params.components.probabilities.shape[1]
