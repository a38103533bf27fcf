"""Estimators of mixtures of exponential families: what users do with them, all classes alike."""

import inspect
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from exponential_kinds import CATEGORIES, KINDS, draw_rows, punched
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastem
from fastem.sources import Blocks

CLASSES = {
    "Poisson": fastem.PoissonMixture,
    "Geometric": fastem.GeometricMixture,
    "Bernoulli": fastem.BernoulliMixture,
    "Categorical": fastem.LatentClass,
    "Multinomial": fastem.MultinomialMixture,
    "ExponentialTime": fastem.ExponentialMixture,
    "Gamma": fastem.GammaMixture,
    "LogNormal": fastem.LogNormalMixture,
    "Beta": fastem.BetaMixture,
    "VonMises": fastem.VonMisesMixture,
}
EVERY = pytest.mark.parametrize("name", CLASSES)
COLUMNWISE = [name for name in CLASSES if name != "Multinomial"]
SAFE = {"random_state": 0, "prior": 0.5}  # no component collapses


def fitted(name, rng, n_components=2, n_samples=400, **params):
    X = draw_rows(name, rng, n_samples, min(3, n_components + 1) if n_components > 1 else 1)
    return CLASSES[name](n_components, **{**SAFE, **params}).fit(X), X


def parameters(mixture):
    parts = []
    for name in mixture._LEARNED:
        value = getattr(mixture, name)
        parts += value if isinstance(value, list) else [value]
    return parts


def assert_same(one, two):
    assert all(np.array_equal(a, b) for a, b in zip(parameters(one), parameters(two), strict=True))


@EVERY
def test_what_a_fitted_mixture_answers(name, rng):
    mixture, X = fitted(name, rng)
    resp = mixture.predict_proba(X)
    assert resp.shape == (400, 2)
    np.testing.assert_allclose(resp.sum(axis=1), 1.0)
    assert np.array_equal(mixture.predict(X), resp.argmax(axis=1))
    assert np.array_equal(mixture.fit_predict(X), mixture.predict(X))
    density = mixture.score_samples(X)
    assert mixture.score(X) == pytest.approx(density.mean())
    assert mixture.log_likelihood_ == pytest.approx(density.sum(), rel=1e-5)
    n_parameters = mixture._n_parameters()
    per_component = {"Categorical": 2 + 1 + 3, "Multinomial": 2}.get(name, 3 * len(KINDS[name].family.domains))
    assert n_parameters == 2 * per_component + 1
    assert mixture.bic(X) == pytest.approx(-2 * density.sum() + n_parameters * np.log(400))
    assert mixture.aic(X) == pytest.approx(-2 * density.sum() + 2 * n_parameters)
    weight = rng.integers(0, 3, 400)
    repeated = np.repeat(X, weight, axis=0)
    for method in ("score", "bic", "aic"):
        want = getattr(mixture, method)(repeated)
        assert getattr(mixture, method)(X, sample_weight=weight) == pytest.approx(want)
    rows, labels = mixture.sample(50)
    assert rows.shape == (50, 3)
    assert np.isfinite(mixture.score_samples(rows)).all()
    assert np.array_equal(np.sort(labels), labels)
    assert mixture.converged_
    assert mixture.n_features_in_ == 3
    assert type(mixture).__doc__.count("<") == 0


@EVERY
def test_from_parameters(name, rng):
    mixture, X = fitted(name, rng)
    cls = CLASSES[name]
    if name == "Categorical":
        again = cls.from_parameters(mixture.weights_, mixture.probabilities_, mixture.categories_)
        with pytest.raises(ValueError, match="sum to 1"):
            cls.from_parameters([0.5, 0.5], [[[0.5, 0.4], [0.5, 0.5]]])
        with pytest.raises(ValueError, match="as many values"):
            cls.from_parameters([0.5, 0.5], [[[0.5, 0.5], [0.5, 0.5]]], [[1, 2, 3]])
    else:
        fields = {attribute[:-1]: getattr(mixture, attribute) for attribute in mixture._LEARNED}
        again = cls.from_parameters(**fields)
        assert_same(cls.from_parameters(*fields.values()), again)
        wrong = {**fields, next(reversed(fields)): np.full((3, 3), 0.3)}
        with pytest.raises(ValueError, match=r"has shape \(3, 3\); \(2, 3\) is needed"):
            cls.from_parameters(**wrong)
        with pytest.raises(TypeError, match="give weights and"):
            cls.from_parameters(mixture.weights_)
    rest = [getattr(mixture, attribute) for attribute in mixture._LEARNED[1:]]
    with pytest.raises(ValueError, match="must be non-negative and sum to 1"):
        cls.from_parameters([0.5, 0.6], *rest)
    for method in ("predict_proba", "score_samples"):
        np.testing.assert_allclose(getattr(again, method)(X), getattr(mixture, method)(X), rtol=1e-9, atol=1e-12)
    assert again.status_ is fastem.Status.NOT_ITERATED
    assert again.sample(3)[0].shape == (3, 3)


@EVERY
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_start_is_given(name, rng):
    """Then the steps are those of EM, from these parameters."""
    mixture, X = fitted(name, rng, prior=None, max_iter=3, n_race=0, tol=0.0, stopping="change", acceleration=None)
    components = mixture.probabilities_ if name == "Categorical" else tuple(parameters(mixture)[1:])
    components = components[0] if len(components) == 1 else components
    given = CLASSES[name](2, components_init=components, weights_init=mixture.weights_, max_iter=2, tol=0.0)
    assert given.fit(X).lower_bounds_[0] == pytest.approx(mixture.score(X), rel=1e-9)
    if name != "Categorical":
        named = dict(zip([a[:-1] for a in mixture._LEARNED[1:]], parameters(mixture)[1:], strict=True))
        assert_same(clone(given).set_params(components_init=named).fit(X), given)
        with pytest.raises(ValueError, match="components_init has the keys"):
            clone(given).set_params(components_init={"strange": 1}).fit(X)
    equal = clone(given).set_params(weights_init=None, max_iter=0).fit(X)
    np.testing.assert_allclose(equal.weights_, 0.5)
    with pytest.raises(ValueError, match="gives one start for all rows, so that none can race"):
        clone(given).set_params(n_race=3).fit(X)
    with pytest.raises(ValueError, match="shape"):
        clone(given).set_params(n_components=3, weights_init=None).fit(X)


@EVERY
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_warm_start(name, rng):
    mixture, X = fitted(name, rng, max_iter=3, tol=0.0, n_race=0, stopping="change", warm_start=True)
    before = mixture.lower_bound_
    mixture.fit(X)
    assert mixture.lower_bounds_[0] > before
    with pytest.raises(ValueError, match="components of 3 columns, but 3 of 3"):
        mixture.set_params(n_components=3).fit(X)


@EVERY
def test_pickle_clone_and_files(name, rng, tmp_path):
    mixture, X = fitted(name, rng)
    fastem.save(mixture, tmp_path / "m.fastem")
    for again in (pickle.loads(pickle.dumps(mixture)), fastem.load(tmp_path / "m.fastem")):
        assert_same(again, mixture)
        assert np.array_equal(again.score_samples(X), mixture.score_samples(X))
        assert again.get_params().keys() == mixture.get_params().keys()
        assert np.array_equal(again.sample(5)[0], mixture.sample(5)[0])
    assert clone(mixture).get_params()["prior"] == 0.5
    with pytest.raises(NotFittedError):
        clone(mixture).predict(X)


@EVERY
def test_files_that_were_changed_are_refused(name, rng, tmp_path):
    mixture, _ = fitted(name, rng)
    mixture.weights_ = np.array([0.5, 0.5, 0.5])
    with pytest.raises(fastem.ModelFileError):
        fastem.save(mixture, tmp_path / "m.fastem")
    mixture, _ = fitted(name, rng)
    mixture.n_features_in_ = 7
    with pytest.raises(fastem.ModelFileError, match="n_features_in_"):
        fastem.save(mixture, tmp_path / "m.fastem")


@EVERY
@pytest.mark.parametrize("after_fit", [False, True])
def test_streams(name, after_fit, rng, tmp_path):
    X = draw_rows(name, rng, 4000)
    best = CLASSES[name](2, **SAFE).fit(X)
    mixture = CLASSES[name](2, **SAFE, batch_size=200)
    if after_fit:
        mixture.fit(X[:500])
    for first in range(500 if after_fit else 0, 2000, 250):
        mixture.partial_fit(X[first : first + 250])
    fastem.save(mixture, tmp_path / "m.fastem")
    again = fastem.load(tmp_path / "m.fastem")
    for one in (mixture, again):
        for first in range(2000, 4000, 250):
            rows = X[first : first + 250]
            one.partial_fit(punched(rows, np.random.default_rng(first)) if name in COLUMNWISE else rows)
    assert_same(mixture, again)
    assert mixture.score(X) > best.score(X) - 0.03 * abs(best.score(X))
    if name == "Categorical":
        assert all(np.array_equal(a, b) for a, b in zip(mixture.categories_, CATEGORIES, strict=True))
        with pytest.raises(ValueError, match="none of the categories"):
            mixture.partial_fit(np.full((250, 3), 9.0))
        assert_same(mixture, again)
    with pytest.raises(ValueError, match="prior of the components was"):
        mixture.set_params(prior=3.0).partial_fit(X[:300])


@pytest.mark.parametrize("begun", [False, True], ids=["before the start", "between steps"])
@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("VonMises", "Categorical")])
def test_a_stream_refuses_values_with_the_call_that_brings_them(name, begun, rng):
    """They would wait for a step, which no later call could take."""
    X = draw_rows(name, rng, 2500)
    mixture = CLASSES[name](2, **SAFE).partial_fit(X[: 1500 if begun else 10])
    assert hasattr(mixture, "weights_") is begun  # which are kept from here on
    before = dict(vars(mixture))
    bad = X[:5].copy()
    bad[3, 1] = -0.5
    with pytest.raises(ValueError, match=r"X\[3, 1\] is -0\.5"):
        mixture.partial_fit(bad)
    assert vars(mixture).keys() == before.keys()
    assert all(value is before[key] for key, value in vars(mixture).items())
    mixture.partial_fit(X[1500:])


def test_a_stream_refuses_categories_and_mixed_columns_with_the_call_that_brings_them(rng):
    X = rng.integers(0, 3, size=(1500, 2)).astype(float)
    for mixture in (
        fastem.LatentClass(2, **SAFE).partial_fit(X),
        fastem.LatentClass(2, categories=[[0, 1, 2]] * 2, **SAFE),
        fastem.MixedMixture(2, families={"poisson": 0, "categorical": 1}, **SAFE).partial_fit(X),
    ):
        with pytest.raises(ValueError, match=r"X\[1, 1\] is 7; which is none of the categories"):
            mixture.partial_fit([[0.0, 1.0], [0.0, 7.0]])
    mixed = fastem.MixedMixture(2, families={"poisson": 1, "categorical": 0}, **SAFE)
    with pytest.raises(ValueError, match=r"X\[0, 1\] is -1; Poisson counts"):
        mixed.partial_fit([[5.0, -1.0]])


@EVERY
def test_rows_on_disk(name, rng, tmp_path):
    X = draw_rows(name, rng, 1500)
    np.save(tmp_path / "X.npy", X)
    memory = CLASSES[name](2, **SAFE).fit(Blocks(lambda: (X[i : i + 400] for i in range(0, 1500, 400)), block_rows=400))
    disk = CLASSES[name](2, **SAFE).fit(Blocks(str(tmp_path / "X.npy"), block_rows=400))
    assert_same(memory, disk)


@EVERY
def test_standard_errors(name, rng):
    """Intervals of both methods agree, at a maximum inside."""
    mixture, X = fitted(name, rng, n_components=1, prior=None, tol=1e-8)
    by_information = mixture.standard_errors(X).standard_errors
    by_bootstrap = mixture.standard_errors(X, method="bootstrap", n_bootstrap=120, random_state=0).standard_errors
    for field in KINDS[name].family.Params._fields:
        ratio = by_bootstrap[field] / by_information[field]
        assert ((ratio > 0.6) & (ratio < 1.7)).mean() > 0.8


@pytest.mark.parametrize("name", COLUMNWISE)
def test_imputing(name, rng):
    mixture, X = fitted(name, rng)
    holes = punched(X, rng)
    refit = clone(mixture).fit(holes)
    filled = refit.impute(holes)
    there = ~np.isnan(holes)
    assert np.array_equal(filled[there], X[there])
    assert np.isfinite(filled).all()
    draws = [refit.impute(holes, method="draw", random_state=seed) for seed in (1, 1, 2)]
    assert all(np.array_equal(drawn[there], X[there]) for drawn in draws)
    assert np.isfinite(refit.score_samples(draws[0])).all()
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert np.array_equal(refit.impute(X), X)


def test_multinomial_has_nothing_to_impute(rng):
    mixture, X = fitted("Multinomial", rng)
    assert not hasattr(mixture, "impute")
    with pytest.raises(ValueError, match="X contains NaN"):
        mixture.predict([[1.0, np.nan, 2.0]])
    assert mixture.n_trials_ == X.sum(axis=1).mean()
    assert set(mixture.sample(10, n_trials=7)[0].sum(axis=1)) == {7}
    assert set(mixture.set_params(n_trials=5).fit(X).sample(10)[0].sum(axis=1)) == {5}
    with pytest.raises(ValueError, match="n_trials must be None or a positive integer"):
        mixture.sample(3, n_trials=0.5)


@EVERY
def test_data_frames(name, rng):
    X = pd.DataFrame(draw_rows(name, rng, 200), columns=["a", "b", "c"])
    mixture = CLASSES[name](2, **SAFE).fit(X)
    assert mixture.feature_names_in_.tolist() == ["a", "b", "c"]
    assert np.array_equal(mixture.predict(X), mixture.fit(X.to_numpy()).predict(X.to_numpy()))


@EVERY
def test_attributes_set_by_hand(name, rng):
    mixture, X = fitted(name, rng)
    again = CLASSES[name](2, categories=mixture.categories_) if name == "Categorical" else CLASSES[name](2)
    for attribute in mixture._LEARNED:
        setattr(again, attribute, getattr(mixture, attribute))
    np.testing.assert_allclose(again.score_samples(X), mixture.score_samples(X), rtol=1e-9, atol=1e-12)
    again.weights_ = np.array([1.0])
    with pytest.raises(ValueError, match="do not fit together"):
        again.predict(X)


@EVERY
def test_a_refused_fit_changes_nothing(name, rng):
    mixture, X = fitted(name, rng)
    before = dict(vars(mixture))
    bad = X.copy()
    bad[3, 2] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        mixture.fit(bad)
    assert vars(mixture) == before
    with pytest.raises(ValueError, match="X has 2 features"):
        mixture.predict(X[:, :2])


@EVERY
def test_search_and_pipelines(name, rng):
    X = draw_rows(name, rng, 300)
    search = GridSearchCV(CLASSES[name](**SAFE), {"n_components": [1, 2]}, cv=2).fit(X)
    assert np.isfinite(search.best_score_)
    pipeline = make_pipeline(FunctionTransformer(), CLASSES[name](2, **SAFE)).fit(X)
    assert pipeline.predict(X).shape == (300,)


@EVERY
def test_signatures_agree(name):
    """What all have in common has the same defaults as in the others."""
    base = inspect.signature(fastem.PoissonMixture).parameters
    mine = inspect.signature(CLASSES[name]).parameters
    for parameter, value in base.items():
        assert mine[parameter].default == value.default
        assert f"{parameter} :" in CLASSES[name].__doc__
    assert set(mine) - set(base) <= {"categories", "n_trials"}


def test_categories_are_part_of_a_latent_class_model(rng):
    X = draw_rows("Categorical", rng, 300)
    classes = fastem.LatentClass(2, random_state=0).fit(X)
    assert [part.shape for part in classes.probabilities_] == [(2, 3), (2, 2), (2, 4)]
    strange = X[:5].copy()
    strange[0, 0] = 17.0
    assert np.array_equal(np.isneginf(classes.score_samples(strange)), [True, False, False, False, False])
    strange[0, 0] = np.nan
    np.testing.assert_allclose(classes.predict_proba(strange).sum(axis=1), 1.0)
    part = X[X[:, 2] != 7.0]
    fewer = clone(classes).fit(part)
    assert fewer.probabilities_[2].shape == (2, 3)
    more = clone(classes).set_params(categories=list(CATEGORIES)).fit(part)
    assert np.array_equal(more.probabilities_[2][:, 3], [0.0, 0.0])
    warm = clone(classes).set_params(warm_start=True).fit(X).fit(part)  # goes on with the categories it has
    assert warm.probabilities_[2].shape == (2, 4)
    with pytest.raises(ValueError, match="none of the categories"):
        clone(classes).set_params(warm_start=True).fit(part).fit(X)
    errors = classes.set_params(prior=2.0, tol=1e-9).fit(X).standard_errors(X)
    assert errors.standard_errors["probabilities"].shape == (2, 9)


def test_frequencies_are_weights(rng):
    """A table of patterns with their counts is the same as its rows."""
    X = draw_rows("Categorical", rng, 500)
    patterns, counts = np.unique(X, axis=0, return_counts=True)
    rows = fastem.LatentClass(2, random_state=0, tol=1e-8).fit(X)
    table = fastem.LatentClass(2, random_state=0, tol=1e-8).fit(patterns, sample_weight=counts)
    assert table.log_likelihood_ == pytest.approx(rows.log_likelihood_, abs=1e-3)
    assert table.bic(patterns, sample_weight=counts) == pytest.approx(rows.bic(X), abs=1e-2)


# Data of the checks are clouds around 0 that are shifted to begin at 0 where negative values are refused. Counts,
# binary values, proportions and values above 0 they are not, so that every fit of those would be refused.
CHECKED = [fastem.VonMisesMixture(), fastem.ExponentialMixture(), fastem.LatentClass(max_iter=50)]


@parametrize_with_checks(CHECKED)
def test_scikit_learn_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("cls", [fastem.BernoulliMixture, fastem.LatentClass])
def test_standard_errors_on_the_boundary(cls, rng):
    """A probability of 0 or 1 is taken as known: it has no error, and the others are what they are without it."""
    X = (rng.random((500, 3)) < [0.3, 0.0, 0.8]).astype(float)
    X[:, 1] = 1.0
    mixture = cls(1, tol=1e-9).fit(X)
    errors = mixture.standard_errors(X).standard_errors["probabilities"]
    errors = errors if cls is fastem.BernoulliMixture else errors[:, [1, 2, 4]]
    p = X.mean(axis=0)
    np.testing.assert_allclose(errors[0], np.sqrt(p * (1 - p) / 500), rtol=1e-5, atol=1e-12)


def test_standard_errors_of_latent_classes_with_zeros():
    """Seven pathologists, three classes: poLCA has half of the probabilities on the boundary."""
    path = Path(__file__).parent / "reference" / "data" / "carcinoma.csv"
    X = np.loadtxt(path, delimiter=",", skiprows=1)
    classes = fastem.LatentClass(3, random_state=0, tol=1e-7, max_iter=20_000).fit(X)
    errors = classes.standard_errors(X).standard_errors
    p = np.concatenate(classes.probabilities_, axis=1)
    on_boundary = np.minimum(p, 1 - p) * (classes.weights_ * len(X))[:, None] < 1e-3
    assert on_boundary.sum() >= 8
    assert np.array_equal(errors["probabilities"] == 0, on_boundary)
    assert errors["probabilities"].max() < 0.25
    np.testing.assert_allclose(errors["weights"], np.sqrt(classes.weights_ * (1 - classes.weights_) / len(X)), rtol=0.5)
