"""The families of `docs/new_family.md`, beside what `test_families.py` and `test_protocol.py` ask of every family."""

import ast
import re
from dataclasses import dataclass

import numpy as np
import pytest
from guide import PAGE, new_family, plain_blocks
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

import fastem
from fastem import Mixture, WithNoise
from fastem.data import as_data
from fastem.models.mixture_records import MixtureParams

NegativeBinomial, NegativeBinomialParams = new_family.NegativeBinomial, new_family.NegativeBinomialParams


@dataclass(frozen=True, eq=False)
class Searched(NegativeBinomial):
    """The same without a maximum of its own."""

    maximum = fastem.Tabulated.maximum

    def first_guess(self, x, shares):
        mean = shares @ x
        return mean, np.ones_like(mean)


def counts(rng, n=2000, columns=2):
    means, sizes = rng.uniform(1.0, 9.0, (2, columns)), rng.uniform(0.5, 4.0, (2, columns))
    kind = rng.integers(2, size=n)
    return rng.negative_binomial(sizes[kind], (sizes / (sizes + means))[kind]).astype(float)


def test_the_family_is_short_and_comes_from_outside():
    code = next(block for block in plain_blocks(PAGE.read_text()) if "NegativeBinomial" in block)
    assert len(code.splitlines()) < 60
    tree = ast.parse(code)
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"dataclasses", "typing", "numpy", "scipy.special", "fastem"}
    public = set(re.findall(r"fastem\.(\w+)", code))
    assert public == {"Tabulated"}
    assert public <= set(fastem.__all__)


@pytest.mark.parametrize("mean", [0.01, 3.0, 1e4])
@pytest.mark.parametrize("size", [1e-3, 0.7, 50.0, 1e6])
def test_densities_are_those_of_scipy_for_any_parameters(mean, size):
    x = np.array([0.0, 1.0, 2.0, 17.0, 400.0, 20_000.0])
    params = MixtureParams(np.ones(1), NegativeBinomialParams(np.full((1, 1), mean), np.full((1, 1), size)))
    found = Mixture(NegativeBinomial()).log_densities(params, x[:, None])
    want = stats.nbinom.logpmf(x, size, size / (size + mean))
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-9 * max(1.0, size * 1e-3))


@given(seed=st.integers(0, 10_000))
@settings(derandomize=True, deadline=None, max_examples=20)
def test_the_maximum_is_that_of_an_optimizer_and_of_the_search(seed):
    rng = np.random.default_rng(seed)
    x = rng.negative_binomial(rng.uniform(0.3, 5.0), rng.uniform(0.05, 0.9), 300).astype(float)
    values, index = np.unique(x, return_inverse=True)
    shares = np.bincount(index, rng.random(300))[None] / 1.0
    shares /= shares.sum()
    (mean,), (size,) = NegativeBinomial().maximum(values, shares)
    assert mean == pytest.approx(shares[0] @ values, rel=1e-12)

    def loss(log_size):
        return -float(shares[0] @ stats.nbinom.logpmf(values, np.exp(log_size), 1 / (1 + mean / np.exp(log_size))))

    best = optimize.minimize_scalar(loss, bounds=(-13.0, 13.0), method="bounded", options={"xatol": 1e-10})
    assert loss(np.log(size)) <= best.fun + 1e-9
    (searched_mean,), (searched_size,) = Searched().maximum(values, shares)
    assert loss(np.log(searched_size)) == pytest.approx(loss(np.log(size)), abs=1e-9)
    assert searched_mean == pytest.approx(mean, rel=1e-5)


def test_the_search_takes_the_same_steps(rng):
    X = counts(rng)
    start = fastem.fit(Mixture(NegativeBinomial(), 2), X, random_state=0, max_iter=1).params
    one, two = (
        fastem.fit(Mixture(family, 2), X, start=start, max_iter=12, tol=0)
        for family in (NegativeBinomial(), Searched())
    )
    np.testing.assert_allclose(two.history, one.history, rtol=1e-10)
    assert np.diff(two.history).min() >= -1e-10 * abs(two.history[-1])


def test_counts_without_excess_are_poisson(rng):
    X = rng.binomial(10, 0.5, (400, 1)).astype(float)
    result = fastem.fit(Mixture(NegativeBinomial()), X)
    assert result.params.components.sizes[0, 0] == pytest.approx(new_family.LARGEST, rel=1e-6)
    poisson = fastem.fit(Mixture(fastem.Poisson()), X)
    assert result.log_likelihood == pytest.approx(poisson.log_likelihood, abs=1e-2)


def test_columns_of_zeros_and_empty_components(rng):
    X = np.concatenate([np.zeros((50, 1)), rng.negative_binomial(2.0, 0.05, (50, 1))]).astype(float)
    labels = np.repeat([0, 1], 50)
    result = fastem.fit(Mixture(NegativeBinomial(), 2), X, labels=labels, random_state=0)
    assert result.params.components.means[0, 0] == 0.0
    assert np.isfinite(result.history).all()
    assert result.model.log_densities(result.params, np.array([[3.0]]))[0] > -20


def test_one_column_costs_its_values(rng):
    """Rows that repeat are gone through once, with the sum of their weights."""
    X, weight = counts(rng, 20_000, 1), rng.random(20_000)
    values, index = np.unique(X, return_inverse=True)
    model = Mixture(NegativeBinomial(), 2)
    start = fastem.fit(model, X, random_state=0, max_iter=1).params
    options = {"start": start, "max_iter": 5, "tol": 0}
    whole = fastem.fit(model, X, sample_weight=weight, **options)
    few = fastem.fit(model, values[:, None], sample_weight=np.bincount(index.ravel(), weight), **options)
    np.testing.assert_allclose(whole.history, few.history, rtol=1e-12)
    codes = whole.model.family.codes(as_data(X, weight).blocks[0])
    assert len(codes.X) == len(values)


def test_values_of_later_rows(rng):
    """A table knows the values of the rows of the start; densities know all."""
    X = counts(rng, 1500, 1)
    result = fastem.fit(Mixture(NegativeBinomial(), 2), X, random_state=0)
    far = np.array([[5000.0]])
    assert np.isfinite(result.model.log_densities(result.params, far))[0]
    with pytest.raises(
        ValueError, match=r"X\[0, 0\] is 5000; which is none of the values; give all that may come as `support`"
    ):
        result.model.e_step(result.params, as_data(far).blocks[0])
    wide = fastem.fit(Mixture(NegativeBinomial(support=[np.arange(6000)[::2]]), 2), 2 * np.round(X / 2), random_state=0)
    assert np.isfinite(wide.model.e_step(wide.params, as_data(np.array([[5000.0]])).blocks[0]).log_likelihood)


@pytest.mark.parametrize(
    ("family", "X", "words"),
    [
        (NegativeBinomial(), [[1.0], [-1.0]], r"X\[1, 0\] is -1; which NegativeBinomial cannot have"),
        (NegativeBinomial(), [[1.0], [0.5]], "which NegativeBinomial cannot have"),
        (NegativeBinomial(support=[[0, 1]]), [[1.0], [2.0]], "which is none of the values"),
        (NegativeBinomial(support=[[0, 1, 1]]), [[1.0], [0.0]], r"support\[0\] holds a value twice"),
        (NegativeBinomial(support=[[0, 1]] * 2), [[1.0], [0.0]], "support is given for 2 columns, and X has 1"),
        (NegativeBinomial(), np.arange(5000.0)[:, None], "more than 4096 different values"),
        (NegativeBinomial(), np.add.outer(np.arange(4000.0), [0.0, 5000.0]), "X has 8000 values"),
    ],
)
def test_values_that_cannot_be_are_refused(family, X, words):
    with pytest.raises(ValueError, match=words):
        fastem.fit(Mixture(family), X)


def test_noise_beside_counts(rng):
    X = np.concatenate([rng.negative_binomial(5.0, 0.5, (500, 2)), rng.integers(0, 80, (50, 2))]).astype(float)
    result = fastem.fit(Mixture(WithNoise(NegativeBinomial()), 1), X, random_state=0, tol=1e-7)
    assert result.params.weights[1] == pytest.approx(1 / 11, abs=0.02)
    assert result.params.components.means[0] == pytest.approx([5.0, 5.0], abs=0.4)
    labels = result.model.labels(result.params, X)
    assert (labels[500:][X[500:].max(axis=1) > 40] == 1).all()


def test_a_family_that_says_too_little():
    @dataclass(frozen=True, eq=False)
    class Nothing(fastem.Tabulated):
        Params, domains = NegativeBinomialParams, {"means": "positive", "sizes": "positive"}

    with pytest.raises(NotImplementedError, match="first_guess"):
        fastem.fit(Mixture(Nothing()), np.array([[1.0], [2.0]]))
