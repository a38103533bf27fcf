"""Mixtures of columns of several families."""

import pickle

import numpy as np
import pandas as pd
import pytest
from exponential_kinds import punched
from scipy import special, stats
from sklearn.base import clone

import fastem
from fastem.families.categorical import CategoricalParams
from fastem.families.mixed import MixedParams
from fastem.families.normal import NormalParams
from fastem.families.normal_block import NormalBlockParams
from fastem.families.poisson import PoissonParams
from fastem.models.mixture_records import MixtureParams
from fastem.sources import Blocks

NAMES = ["visits", "income", "region", "height", "weight"]
FAMILIES = [("poisson", [0]), ("log_normal", [1]), ("categorical", [2]), ("gaussian_full", [3, 4])]


def table(rng, n_samples=600):
    """Counts, positive numbers, categories and two correlated measurements of two kinds of people."""
    labels = rng.integers(2, size=n_samples)
    height = rng.normal(160 + 15 * labels, 6.0)
    columns = [
        rng.poisson(1 + 6 * labels),
        np.exp(rng.normal(3 + labels, 0.5)),
        np.where(rng.random(n_samples) < 0.7, labels, 2),
        height,
        0.9 * (height - 100) + rng.normal(0, 4, n_samples),
    ]
    return np.column_stack(columns).astype(float), labels


def test_densities_are_those_of_scipy(rng):
    X, _ = table(rng, 50)
    X[::5, 0] = np.nan
    X[::7, 2] = np.nan
    family = fastem.Mixed(
        [
            (fastem.Normal(), [1]),
            (fastem.Poisson(), [0]),
            (fastem.NormalBlock(), [4, 3]),
            (fastem.Categorical(categories=[[0, 1, 2]]), [2]),
        ]
    )
    covariances = np.array([[[30.0, 10.0], [10.0, 20.0]], [[50.0, -5.0], [-5.0, 40.0]]])
    blocks = NormalBlockParams(np.array([[60.0, 160.0], [70.0, 175.0]]), covariances)
    probabilities = np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])
    components = MixedParams(
        (
            NormalParams(np.array([[20.0], [50.0]]), np.array([[100.0], [300.0]])),
            PoissonParams(np.array([[1.0], [7.0]])),
            blocks,
            CategoricalParams(probabilities),
        )
    )
    params = MixtureParams(np.array([0.4, 0.6]), components)
    model = fastem.Mixture(family, 2)
    joint = np.empty((50, 2))
    for k in range(2):
        normal = stats.norm.logpdf(X[:, 1], components.parts[0].means[k, 0], components.parts[0].variances[k, 0] ** 0.5)
        counts = np.nan_to_num(stats.poisson.logpmf(X[:, 0], components.parts[1].rates[k, 0]))
        block = stats.multivariate_normal.logpdf(X[:, [4, 3]], blocks.means[k], covariances[k])
        category = np.where(np.isnan(X[:, 2]), 0.0, np.log(probabilities[k][np.nan_to_num(X[:, 2]).astype(int)]))
        joint[:, k] = np.log(params.weights[k]) + normal + counts + block + category
    np.testing.assert_allclose(model.log_densities(params, X), special.logsumexp(joint, axis=1), rtol=1e-10)
    np.testing.assert_allclose(model.posteriors(params, X), special.softmax(joint, axis=1), rtol=1e-7, atol=1e-12)
    strange = X[:2].copy()
    strange[0, 2] = 5.0
    assert np.isneginf(model.log_densities(params, strange)).tolist() == [True, False]
    strange[0, 2] = np.nan
    np.testing.assert_allclose(model.posteriors(params, strange).sum(axis=1), 1.0)


def test_parts_alone_are_their_own_mixtures(rng):
    """A mixture of one family's columns is that of the family."""
    X, _ = table(rng)
    start = rng.integers(2, size=len(X))
    options = {"resp_init": start, "max_iter": 15, "tol": 0.0}
    with pytest.warns(match="did not converge"):
        mixed = fastem.MixedMixture(2, families={"gaussian_full": [0, 1]}, **options).fit(X[:, 3:])
    with pytest.warns(match="did not converge"):
        gaussian = fastem.GaussianMixture(2, reg_covar=0.0, **options).fit(X[:, 3:])
    np.testing.assert_allclose(mixed.lower_bounds_, gaussian.lower_bounds_, rtol=1e-12)
    np.testing.assert_allclose(mixed.components_[0].covariances, gaussian.covariances_, rtol=1e-9)
    assert mixed._n_parameters() == gaussian._n_parameters()


INSTANCES = [("poisson", 0), (fastem.LogNormal(), 1), ("categorical", (2,)), (fastem.NormalBlock(), np.array([3, 4]))]


@pytest.mark.parametrize("families", [FAMILIES, dict(FAMILIES), INSTANCES], ids=["pairs", "dict", "instances"])
def test_what_a_fitted_mixture_answers(families, rng, tmp_path):
    X, labels = table(rng)
    mixture = fastem.MixedMixture(2, families=families, random_state=0).fit(X)
    found = mixture.predict(X)
    assert max(np.mean(found == labels), np.mean(found != labels)) > 0.95
    np.testing.assert_allclose(mixture.predict_proba(X).sum(axis=1), 1.0)
    assert mixture.score(X) * len(X) == pytest.approx(mixture.log_likelihood_, rel=1e-6)
    assert mixture._n_parameters() == 1 + 2 * (1 + 2 + 2 + 5)
    rows, _ = mixture.sample(100)
    assert rows.shape == (100, 5)
    assert np.isfinite(mixture.score_samples(rows)).all()
    assert [type(part).__name__ for part in mixture.components_] == [
        "PoissonParams", "LogNormalParams", "CategoricalParams", "NormalBlockParams",
    ]  # fmt: skip
    assert mixture.families_[2][0].values[0].tolist() == [0.0, 1.0, 2.0]
    again = pickle.loads(pickle.dumps(mixture))
    assert np.array_equal(again.score_samples(X), mixture.score_samples(X))
    fastem.save(mixture, tmp_path / "m.fastem")
    loaded = fastem.load(tmp_path / "m.fastem")
    assert np.array_equal(loaded.predict_proba(X), mixture.predict_proba(X))
    assert np.array_equal(loaded.sample(5)[0], mixture.sample(5)[0])
    errors = mixture.set_params(tol=1e-8).fit(X).standard_errors(X)
    assert errors.standard_errors["rates_0"].shape == (2, 1)
    order = np.argsort(mixture.components_[0].rates[:, 0])
    want = np.sqrt(mixture.components_[0].rates[:, 0] / (mixture.weights_ * len(X)))
    np.testing.assert_allclose(errors.standard_errors["rates_0"][order, 0], want[order], rtol=0.15)
    assert clone(mixture).fit(X).n_iter_ > 0


def test_names_of_columns(rng):
    X, _ = table(rng)
    families = {"poisson": "visits", "log_normal": ["income"], "categorical": 2, "gaussian_full": ["height", "weight"]}
    frame = pd.DataFrame(X, columns=NAMES)
    named = fastem.MixedMixture(2, families=families, random_state=0).fit(frame)
    numbered = fastem.MixedMixture(2, families=FAMILIES, random_state=0).fit(X)
    assert np.array_equal(named.weights_, numbered.weights_)
    assert np.array_equal(named.predict(frame), numbered.predict(X))
    with pytest.raises(ValueError, match="has no column names; give a DataFrame"):
        clone(named).fit(X)
    with pytest.raises(ValueError, match="families name the column 'age', which X does not have"):
        clone(named).set_params(families={"poisson": "age"}).fit(frame)


def test_missing_values_and_imputation(rng):
    X, _ = table(rng)
    holes = punched(X, rng)
    holes[:, 3:] = X[:, 3:]  # a row of correlated columns is whole
    mixture = fastem.MixedMixture(2, families=FAMILIES, random_state=0).fit(holes)
    filled = mixture.impute(holes)
    assert np.array_equal(filled[~np.isnan(holes)], holes[~np.isnan(holes)])
    assert set(filled[:, 2]) <= {0.0, 1.0, 2.0}
    drawn = mixture.impute(holes, method="draw", random_state=0)
    assert np.isfinite(mixture.score_samples(drawn)).all()
    holes[4, 4] = np.nan
    with pytest.raises(ValueError, match="X contains NaN at row 4, column 4; drop or impute"):
        mixture.fit(holes)


@pytest.mark.parametrize(
    ("families", "words"),
    [
        ((), "families must be a dict from family to columns, or a list of pairs"),
        ({"poisson": [0, 1]}, "column 2 of X has 0 families"),
        ([("poisson", [0]), ("gaussian", [0, 1, 2, 3, 4])], "column 0 of X has 2 families"),
        ({"gaussian": [0, 1, 2, 3, 4, 7]}, "families name column 7, and X has 5 columns"),
        ({"normal": [0, 1, 2, 3, 4]}, "'normal' is no family; use one of"),
        ([("poisson", [0, 1]), ("gaussian", [2, 3, 4])], r"X\[0, 1\] is .*; Poisson counts are integers"),
        ([("gaussian", [0, 1, 2]), ("bernoulli", [4, 3])], r"X\[0, 4\] is .*; binary values are 0 and 1"),
    ],
)
def test_what_is_refused(families, words, rng):
    X, _ = table(rng)
    with pytest.raises(ValueError, match=words):
        fastem.MixedMixture(2, families=families).fit(X)


def test_families_are_exponential(rng):
    X, _ = table(rng)
    with pytest.raises(TypeError, match="families must be names or exponential families"):
        fastem.MixedMixture(2, families=[(fastem.Gaussian(), [0, 1, 2, 3, 4])]).fit(X)
    with pytest.raises(TypeError, match="parts must be of exponential families"):
        fastem.Mixed([(fastem.Gaussian(), [0])])
    with pytest.raises(ValueError, match="each of them once; they are"):
        fastem.Mixed([(fastem.Poisson(), [0, 2])])
    with pytest.raises(ValueError, match="covariance_type must be 'full' or 'spherical'"):
        fastem.NormalBlock(covariance_type="tied")
    with pytest.raises(ValueError, match=r"prior\.mean must be None for a NormalBlock"):
        fastem.NormalBlock(prior=fastem.Conjugate(1.0, [0.0]))


def test_from_parameters():
    families = [("poisson", [0]), (fastem.Categorical(categories=[[0, 1]]), [1])]
    mixture = fastem.MixedMixture.from_parameters([0.5, 0.5], [[[1.0], [9.0]], [[0.9, 0.1], [0.2, 0.8]]], families)
    assert mixture.predict([[0, 0], [9, 1], [np.nan, np.nan]]).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="must have an entry for each of the 2 families"):
        fastem.MixedMixture.from_parameters([1.0], [[[1.0]]], families)
    with pytest.raises(ValueError, match="must hold rates"):
        fastem.MixedMixture.from_parameters([1.0], [{"rate": [[1.0]]}, [[0.9, 0.1]]], families)
    with pytest.raises(ValueError, match=r"parts\[1\]\.probabilities must not be negative and sum to 1"):
        fastem.MixedMixture.from_parameters([1.0], [[[1.0]], [[0.9, 0.2]]], families)
    with pytest.raises(ValueError, match="categories are not known"):
        fastem.MixedMixture.from_parameters([1.0], [[[1.0]], [[0.9, 0.1]]], [("poisson", [0]), ("categorical", [1])])


def test_given_starts_warm_starts_and_priors(rng):
    X, _ = table(rng)
    first = fastem.MixedMixture(2, families=FAMILIES, random_state=0, tol=1e-8).fit(X)
    given = clone(first).set_params(components_init=first.components_, weights_init=first.weights_).fit(X)
    assert given.lower_bounds_[0] == pytest.approx(first.lower_bound_, rel=1e-8)
    warm = first.set_params(warm_start=True)
    assert warm.fit(X).n_iter_ <= 6
    smoothed = fastem.MixedMixture(2, families=FAMILIES, prior=50.0, random_state=0).fit(X)
    assert smoothed.families_[0][0].prior == fastem.Conjugate(50.0)
    assert np.ptp(smoothed.components_[0].rates) < np.ptp(first.components_[0].rates)
    own = [(fastem.Poisson(fastem.Conjugate(1e6)), 0), *FAMILIES[1:]]
    assert np.ptp(fastem.MixedMixture(2, families=own, random_state=0).fit(X).components_[0].rates) < 0.1


def test_streams_and_disks(rng, tmp_path):
    X, _ = table(rng, 6000)
    best = fastem.MixedMixture(2, families=FAMILIES, random_state=0).fit(X)
    stream = fastem.MixedMixture(2, families=FAMILIES, random_state=0, batch_size=500)
    for first in range(0, 3000, 500):
        stream.partial_fit(X[first : first + 500])
    fastem.save(stream, tmp_path / "s.fastem")
    again = fastem.load(tmp_path / "s.fastem")
    for one in (stream, again):
        for first in range(3000, 6000, 500):
            rows = X[first : first + 500].copy()
            rows[::9, :3] = np.nan
            one.partial_fit(rows)
    assert np.array_equal(stream.weights_, again.weights_)
    assert stream.score(X) > best.score(X) - 0.05
    with pytest.raises(ValueError, match="families was"):
        stream.set_params(families=[("geometric", [0]), *FAMILIES[1:]]).partial_fit(X[:500])
    resumed = fastem.load(tmp_path / "s.fastem").set_params(online=fastem.Online(half_life=2000.0))
    assert resumed.partial_fit(X).score(X) > best.score(X) - 0.05
    np.save(tmp_path / "X.npy", X)
    sources = str(tmp_path / "X.npy"), lambda: (X[i : i + 500] for i in range(0, 6000, 500))
    one, two = (clone(best).fit(Blocks(source, block_rows=700)) for source in sources)
    assert np.array_equal(one.weights_, two.weights_)
