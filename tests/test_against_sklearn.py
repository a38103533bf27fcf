"""fastem.GaussianMixture beside scikit-learn's: same start, same steps, same answers, same user code."""

import contextlib
import inspect
import io
import pickle
import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastem import GaussianMixture

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


def simulated(n_samples, n_features, n_components, spread=2.0):
    """Rows of a Gaussian mixture with correlated components, which overlap unless they are spread far."""
    rng = np.random.default_rng(0)
    centers = spread * rng.standard_normal((n_components, n_features))
    mixing = rng.standard_normal((n_components, n_features, n_features)) / np.sqrt(n_features)
    labels = rng.integers(n_components, size=n_samples)
    noise = rng.standard_normal((n_samples, n_features))
    return centers[labels] + np.einsum("nij,nj->ni", mixing[labels] + 0.3 * np.eye(n_features), noise)


DATA = {  # rows, number of components
    "iris": (load_iris().data, 3),
    "wine": (load_wine().data, 3),
    "digits": (PCA(10, random_state=0).fit_transform(load_digits().data), 10),
    "D1-K2": (simulated(400, 1, 2), 2),
    "D2-K1": (simulated(100, 2, 1), 1),
    "D2-K8": (simulated(2000, 2, 8), 8),
    "D5-K3": (simulated(700, 5, 3), 3),
    "D8-K16": (simulated(3000, 8, 16), 16),
    "D20-K4": (simulated(1000, 20, 4), 4),
}
on_data = pytest.mark.parametrize("name", DATA)
on_covariance_types = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def start(X, n_components, covariance_type):
    """Explicit start: distinct rows as means, unequal weights, the precisions of all columns together."""
    precision = 1 / np.maximum(X.var(axis=0), 1e-3)
    precisions = {
        "full": np.tile(np.diag(precision), (n_components, 1, 1)),
        "tied": np.diag(precision),
        "diag": np.tile(precision, (n_components, 1)),
        "spherical": np.full(n_components, 1 / X.var(axis=0).mean()),
    }[covariance_type]
    weights = np.arange(n_components, 2 * n_components) / np.arange(n_components, 2 * n_components).sum()
    means = X[np.random.default_rng(0).choice(len(X), n_components, replace=False)]
    return {"weights_init": weights, "means_init": means, "precisions_init": precisions}


def run(Estimator, X, covariance_type, n_steps, given, **params):
    """Exactly n_steps EM steps from the given start."""
    n_components = len(given["weights_init"])
    model = Estimator(n_components, covariance_type=covariance_type, max_iter=n_steps, tol=0, **given, **params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X)


def deviations(model, n_features):
    """Standard deviations (K, D) of the components of a fitted model."""
    covariances = np.asarray(model.covariances_, dtype=float)
    variances = {
        "full": lambda: np.diagonal(covariances, axis1=1, axis2=2),
        "tied": lambda: np.diagonal(covariances),
        "diag": lambda: covariances,
        "spherical": lambda: covariances[:, None],
    }[model.covariance_type]()
    return np.broadcast_to(np.sqrt(variances), (model.n_components, n_features))


def largest_difference(ours, theirs, offset=0.0):
    """Differences in units that do not depend on the scale of a column: weights by themselves, the rest by sigma."""
    sigma = deviations(theirs, theirs.means_.shape[1])
    units = {"full": sigma[:, :, None] * sigma[:, None, :], "tied": np.outer(sigma[0], sigma[0]), "diag": sigma**2}
    means = theirs.means_ + offset
    return max(
        np.max(np.abs(ours.weights_ - theirs.weights_) / theirs.weights_),
        np.max(np.abs(ours.means_ - means) / np.maximum(sigma, np.abs(means))),
        np.max(np.abs(ours.covariances_ - theirs.covariances_) / units.get(theirs.covariance_type, sigma[:, 0] ** 2)),
    )


@on_data
@on_covariance_types
@pytest.mark.parametrize("reg_covar", [0.0, 1e-3])
@pytest.mark.parametrize("n_steps", [1, 5, 20])
def test_same_start_same_steps(name, covariance_type, reg_covar, n_steps):
    X, n_components = DATA[name]
    given = start(X, n_components, covariance_type)
    ours, theirs = (
        run(Estimator, X, covariance_type, n_steps, given, reg_covar=reg_covar)
        for Estimator in (GaussianMixture, Reference)
    )
    assert ours.n_iter_ == theirs.n_iter_ == n_steps
    assert ours.converged_ == theirs.converged_
    assert largest_difference(ours, theirs) <= 1e-8
    assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-10)
    assert_allclose(ours.lower_bound_, theirs.lower_bound_, rtol=1e-10)
    assert_allclose(ours.score(X), theirs.score(X), rtol=1e-10)


@on_covariance_types
def test_flat_directions(covariance_type):
    """A constant column, a repeated column and repeated rows: only reg_covar keeps the covariances positive."""
    X = simulated(500, 3, 3)
    X = np.repeat(np.column_stack([X, X[:, 0], np.zeros(len(X))]), 2, axis=0)
    given = start(X, 3, covariance_type)
    theirs = run(Reference, X, covariance_type, 20, given)
    offset = np.array([0.0, 0, 0, 0, 7])  # scikit-learn's variance of a column of sevens has rounding errors of 1e-14
    given["means_init"] = given["means_init"] + offset
    ours = run(GaussianMixture, X + offset, covariance_type, 20, given)
    assert largest_difference(ours, theirs, offset) <= 1e-8
    assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-10)


@on_covariance_types
@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_far_from_the_origin(covariance_type, offset):
    """scikit-learn loses digits there, so its answer for the shifted rows (an exact subtraction) is the truth."""
    X = simulated(700, 5, 3) + offset
    given = start(X - offset, 3, covariance_type)
    theirs = run(Reference, X - offset, covariance_type, 20, given)
    ours = run(GaussianMixture, X, covariance_type, 20, {**given, "means_init": given["means_init"] + offset})
    assert largest_difference(ours, theirs, offset) <= 1e-8
    assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-10)


@on_data
@on_covariance_types
def test_float32(name, covariance_type):
    """Against the float64 answer for the same rounded rows: single precision leaves 1e-4 sigma after ten steps."""
    X, n_components = DATA[name]
    X = X.astype(np.float32)
    given = start(X.astype(np.float64), n_components, covariance_type)
    ours = run(GaussianMixture, X, covariance_type, 10, given)
    theirs = run(Reference, X.astype(np.float64), covariance_type, 10, given)
    assert largest_difference(ours, theirs) <= 1e-4
    assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-5, atol=1e-5)


@on_covariance_types
@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
def test_float32_variances_far_from_the_origin(covariance_type, offset):
    """Variances far below eps * offset**2, where E[x**2] - E[x]**2 turns negative in single precision."""
    X = (simulated(700, 3, 2, spread=4.0) + offset).astype(np.float32)
    shifted = X.astype(np.float64) - offset
    given = start(shifted, 2, covariance_type)
    theirs = run(Reference, shifted, covariance_type, 10, given)
    ours = run(GaussianMixture, X, covariance_type, 10, {**given, "means_init": given["means_init"] + offset})
    assert deviations(ours, 3).min() > 0  # false for the root of a negative variance too
    assert largest_difference(ours, theirs, offset) <= 1e-4


@on_covariance_types
def test_no_steps_keep_the_start(covariance_type):
    """With one component every start is the same; scikit-learn warns of nothing then."""
    X, _ = DATA["iris"]
    ours, theirs = (
        Estimator(covariance_type=covariance_type, max_iter=0).fit(X) for Estimator in (GaussianMixture, Reference)
    )
    assert largest_difference(ours, theirs) <= 1e-12
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)


@on_data
@on_covariance_types
def test_the_same_parameters_say_the_same(name, covariance_type):
    X, n_components = DATA[name]
    theirs = run(Reference, X, covariance_type, 20, start(X, n_components, covariance_type))
    ours = GaussianMixture.from_parameters(
        theirs.weights_, theirs.means_, theirs.covariances_, covariance_type=covariance_type
    )
    assert_allclose(ours.precisions_, theirs.precisions_, rtol=1e-8, atol=1e-8 * np.abs(theirs.precisions_).max())
    assert ours.precisions_cholesky_.shape == theirs.precisions_cholesky_.shape
    assert_array_equal(ours.predict(X), theirs.predict(X))
    assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-10)
    assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-10, atol=1e-10)
    for criterion in ("score", "bic", "aic"):
        assert_allclose(getattr(ours, criterion)(X), getattr(theirs, criterion)(X), rtol=1e-10, err_msg=criterion)


@on_covariance_types
def test_precisions_define_the_same_model(covariance_type):
    X, n_components = DATA["D5-K3"]
    theirs = run(Reference, X, covariance_type, 20, start(X, n_components, covariance_type))
    ours = GaussianMixture.from_parameters(
        theirs.weights_, theirs.means_, precisions=theirs.precisions_, covariance_type=covariance_type
    )
    assert largest_difference(ours, theirs) <= 1e-10
    assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-10)


@on_covariance_types
def test_sample(covariance_type):
    X, n_components = DATA["D5-K3"]
    theirs = run(Reference, X, covariance_type, 20, start(X, n_components, covariance_type))
    ours = GaussianMixture.from_parameters(
        theirs.weights_, theirs.means_, theirs.covariances_, covariance_type=covariance_type, random_state=0
    )
    (X_ours, y_ours), (X_theirs, y_theirs) = ours.sample(30_000), theirs.sample(30_000)
    assert X_ours.shape == X_theirs.shape
    assert y_ours.shape == y_theirs.shape
    assert np.all(np.diff(y_ours) >= 0)  # component after component, as scikit-learn's
    assert_allclose(np.bincount(y_ours) / len(y_ours), theirs.weights_, rtol=0, atol=0.015)  # 5 standard errors
    error = np.abs(X_ours.mean(axis=0) - theirs.weights_ @ theirs.means_)
    assert np.all(error <= 5 * X_ours.std(axis=0) / np.sqrt(len(X_ours)))
    refitted = GaussianMixture(3, covariance_type=covariance_type, resp_init=y_ours, max_iter=2, tol=1e9).fit(X_ours)
    assert largest_difference(refitted, theirs) <= 0.1
    assert ours.sample()[0].shape == (1, X.shape[1])
    with pytest.raises(ValueError, match="n_samples"):
        ours.sample(0)


SCRIPT = """
import numpy as np
import pandas as pd
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from {package} import GaussianMixture

centers = [[0, 0], [6, 0], [0, 7], [8, 8]]
X, y = make_blobs([50, 100, 150, 200], centers=centers, cluster_std=[0.5, 1.0, 0.7, 0.4], random_state=0)
settings = dict(tol=1e-8, max_iter=1000, random_state=0, n_init=3)

for covariance_type in ("full", "tied", "diag", "spherical"):
    model = GaussianMixture(n_components=4, covariance_type=covariance_type, **settings).fit(X)
    order = np.argsort(model.weights_)
    print(covariance_type, model.converged_, model.means_.shape, model.covariances_.shape, model.precisions_.shape)
    print(model.weights_[order], model.means_[order], model.score(X), model.bic(X), model.aic(X), model.lower_bound_)
    print(np.bincount(model.predict(X))[order], np.sort(model.predict_proba(X).max(axis=1))[:5])
    print([len(part) for part in model.sample(7)], model.n_features_in_)

bics = [GaussianMixture(k, **settings).fit(X).bic(X) for k in (1, 4)]
print("components:", np.argmin(bics), bics)

frame = pd.DataFrame(X, columns=["east", "north"])
pipeline = make_pipeline(StandardScaler(), GaussianMixture(4, **settings)).fit(frame)
print(pipeline.score(frame), pipeline.predict(frame).shape, list(pipeline[-1].fit(frame).feature_names_in_))

search = GridSearchCV(GaussianMixture(4, **settings), {{"covariance_type": ["spherical", "diag", "tied"]}}, cv=3)
search.fit(X[np.random.default_rng(0).permutation(len(X))])
print(search.best_params_, search.best_score_, search.cv_results_["mean_test_score"])

model = GaussianMixture(4, init_params="random_from_data", **settings)
labels = model.fit_predict(X)
print((labels == model.predict(X)).all(), model.set_params(n_components=2).get_params()["n_components"])

model = GaussianMixture(4, means_init=centers, warm_start=True, max_iter=20)
print(model.fit(X).n_iter_ >= model.fit(X).n_iter_, model.means_, np.sqrt(model.covariances_[:, 0, 0]))
"""


def printed(package):
    """What the script prints when it imports the estimator from this package: words, and numbers."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(SCRIPT.format(package=package), {})
    number = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
    return number.sub("#", out.getvalue()).split(), np.array(number.findall(out.getvalue()), dtype=float)


def test_the_same_script_runs_through_both():
    (words, numbers), (reference_words, reference_numbers) = printed("fastem"), printed("sklearn.mixture")
    assert "".join(words) == "".join(reference_words)
    assert_allclose(numbers, reference_numbers, rtol=1e-4, atol=1e-4)


def test_constructor_begins_with_the_parameters_of_scikit_learn():
    ours, theirs = (inspect.signature(Estimator).parameters for Estimator in (GaussianMixture, Reference))
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert (ours[name].kind, ours[name].default) == (parameter.kind, parameter.default), name
    for name in list(ours)[len(theirs) :]:
        assert ours[name].kind is inspect.Parameter.KEYWORD_ONLY, name


def test_get_params_and_repr():
    ours, theirs = GaussianMixture().get_params(), Reference().get_params()
    assert {name: ours[name] for name in theirs} == theirs
    assert repr(GaussianMixture(3, tol=1e-5)) == repr(Reference(3, tol=1e-5))


def test_pickle_keeps_the_answers():
    X, n_components = DATA["iris"]
    model = GaussianMixture(n_components, random_state=0).fit(X)
    assert_array_equal(pickle.loads(pickle.dumps(model)).score_samples(X), model.score_samples(X))


@parametrize_with_checks([GaussianMixture()])
def test_scikit_learn_estimator_checks(estimator, check):
    check(estimator)
