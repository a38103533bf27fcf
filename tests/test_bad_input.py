"""Input that cannot be used is refused by name before anything is computed; all other input gives the right fit."""

import functools
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

import fastem
from fastem import Gaussian, GaussianMixture, Mixture, NormalInverseWishart
from fastem.data import as_data, as_rows
from fastem.families.covariance_structures import MODELS, form_of
from fastem.kernels import completion, sweep

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
STRUCTURES = tuple(name for name in MODELS if Gaussian(name).is_constrained)
EVERY_STRUCTURE = COVARIANCE_TYPES + STRUCTURES
ONE_UNIT = ("spherical", "EII", "EVE", "VVE", "EEV", "VEV")  # that depend on the units of each column
INIT_PARAMS = ("kmeans", "k-means++", "random", "random_from_data")
METHODS = ("predict", "predict_proba", "score_samples", "score", "bic", "aic")
on_covariance_types = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
on_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
FITTED = (
    "weights_",
    "means_",
    "covariances_",
    "precisions_",
    "precisions_cholesky_",
    "lower_bound_",
    "lower_bounds_",
    "log_likelihood_",
)


def two_groups(n_samples=60, n_features=2, seed=0):
    """Rows of two Gaussians; the first half belongs to the first."""
    rows = np.random.default_rng(seed).normal(size=(n_samples, n_features))
    rows[n_samples // 2 :] += 6
    return rows


X = two_groups()
LABELS = np.repeat([0, 1], 30)
ONE = np.eye(2)
NOTHING_BUT = np.arange(len(X)) == 3


def spoiled(values, value, place):
    values = np.array(values)
    values[place] = value
    return values


def fit(rows, n_components=2, sample_weight=None, **params):
    """GaussianMixture fitted to rows; that max_iter was reached is no failure here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(n_components, **{"random_state": 0, **params}).fit(rows, sample_weight=sample_weight)


def fit_result(rows, sample_weight=None, family=None, n_components=2, **params):
    """The same by the driver."""
    model = Mixture(family or Gaussian(reg_covar=1e-6), n_components, **params)
    return fastem.fit(model, rows, sample_weight=sample_weight, random_state=0)


def frozen(value):
    """Something that compares equal only to the same bits."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype.str, value.shape, value.tobytes()
    return type(value), repr(value)


def state(estimator):
    return {name: frozen(value) for name, value in vars(estimator).items()}


@pytest.fixture
def no_kernel(monkeypatch):
    """Fail as soon as a pass over the rows begins."""

    def refuse(*arguments):
        raise AssertionError("a kernel ran")

    for module in (sweep, completion):
        monkeypatch.setattr(module, "run_lanes", refuse)


def refused(call, *words):
    """The message of the refusal, which holds all the words (regular expressions)."""
    with pytest.raises((ValueError, TypeError)) as caught:
        strictly(call)
    message = str(caught.value)
    for word in words:
        assert re.search(word, message), (
            f"{word!r} is not in the message: {type(caught.value).__name__}: {message[:500]}"
        )
    return message


def strictly(call):
    """The answer of a call in which every warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


def test_the_spy_sees_a_fit(no_kernel):
    estimator = GaussianMixture.from_parameters([0.5, 0.5], X[:2], [ONE, ONE])
    for call in (lambda: fit(X), lambda: fit_result(X), lambda: fit(X, 1), lambda: estimator.predict(X)):
        with pytest.raises(AssertionError, match="a kernel ran"):
            call()


# rows that cannot be used, and what the refusal says of them

NOT_NUMBERS = ["X", "not numbers|real numbers"]
BAD_ROWS = {
    "no-rows": (lambda: np.empty((0, 2)), ["X", r"0 sample.*\(0, 2\)", "minimum of 1"]),
    "no-columns": (lambda: np.empty((5, 0)), ["X", r"0 feature.*\(5, 0\)", "minimum of 1"]),
    "1-D": (lambda: X[:, 0], ["X", "1 dimension", r"reshape\(-1, 1\)"]),
    "3-D": (lambda: X[None], ["X", "3 dimension", "row per sample"]),
    "scalar": (lambda: 3.0, ["X", "0 dimension", "row per sample"]),
    "none": (lambda: None, ["X"]),
    "inf": (lambda: spoiled(X, np.inf, (5, 0)), ["X", "infinity", "row 5, column 0", "drop or impute"]),
    "inf-beside-nan": (
        lambda: spoiled(spoiled(X, np.nan, (2, 0)), np.inf, (5, 0)),
        ["X", "infinity", "row 5, column 0", "drop or impute"],
    ),
    "overflow-beside-nan": (
        lambda: spoiled(spoiled(X, np.nan, (2, 1)), 1e160, (7, 1)),
        ["X", r"\[7, 1\]", "1e\\+160", "rescale"],
    ),
    "minus-inf": (lambda: spoiled(X, -np.inf, (5, 0)), ["X", "infinity", "row 5, column 0", "drop or impute"]),
    "words": (lambda: [["a", "b"], ["c", "d"]], NOT_NUMBERS),
    "numbers-as-strings": (lambda: X.astype(str), NOT_NUMBERS),
    "bytes": (lambda: X.astype("S20"), NOT_NUMBERS),
    "objects": (lambda: spoiled(X.astype(object), {}, (0, 0)), ["X", "not numbers", "dict", "encode or drop"]),
    "object-words": (lambda: spoiled(X.astype(object), "a", (0, 0)), ["X", "not numbers", "'a'", "encode or drop"]),
    "huge-int": (lambda: spoiled(X.astype(object), 10**400, (0, 0)), ["X", "too large"]),
    "complex": (lambda: X + 1j, ["X", "(?i)complex", "real numbers"]),
    "complex-zero-imaginary": (lambda: X + 0j, ["X", "(?i)complex", "real numbers"]),
    "dates": (lambda: X.astype(int).astype("M8[D]"), ["X", "datetime64", "real numbers"]),
    "records": (lambda: np.zeros(5, "f8,f8"), NOT_NUMBERS),
    "ragged": (lambda: [[1, 2], [3]], ["X", "inhomogeneous|same length"]),
    "sparse-matrix": (lambda: scipy.sparse.csr_matrix(X), ["X", "(?i)sparse", "toarray"]),
    "sparse-array": (lambda: scipy.sparse.coo_array(X), ["X", "(?i)sparse", "toarray"]),
    "masked": (lambda: np.ma.array(X, mask=np.isin(X, X[3, 1])), ["X", "mask", "drop|fill"]),
    "words-in-frame": (lambda: pd.DataFrame({"u": list("abc"), "v": [1.0, 2, 3]}), NOT_NUMBERS),
    "overflow": (lambda: spoiled(X, 1e160, (7, 1)), ["X", r"\[7, 1\]", "1e\\+160", "rescale"]),
}
# These can be scored, but not fitted with two components.
TOO_LITTLE = {
    "one-row": (lambda: X[:1], ["X", "1 sample"]),
    "underflow": (lambda: X * [1.0, 1e-160], ["X", "column 1", "underflow", "rescale"]),
}


@pytest.mark.parametrize("name", [*BAD_ROWS, *TOO_LITTLE])
def test_rows_refused_by_fit(name, no_kernel):
    make, words = {**BAD_ROWS, **TOO_LITTLE}[name]
    refused(lambda: GaussianMixture(2).fit(make()), *words)
    refused(lambda: GaussianMixture(2).fit_predict(make()), *words)
    refused(lambda: fit_result(make()), *words)


@pytest.mark.parametrize("name", BAD_ROWS)
@pytest.mark.parametrize("method", METHODS)
def test_rows_refused_after_fit(name, method, no_kernel):
    make, words = BAD_ROWS[name]
    estimator = GaussianMixture.from_parameters([0.5, 0.5], X[:2], [ONE, ONE])
    if name.endswith("frame"):
        estimator.feature_names_in_ = np.array(["u", "v"], dtype=object)
    before = state(estimator)
    refused(lambda: getattr(estimator, method)(make()), *words)
    assert state(estimator) == before


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_wrong_width(width, method, no_kernel):
    estimator = GaussianMixture.from_parameters([0.5, 0.5], X[:2], [ONE, ONE])
    refused(lambda: getattr(estimator, method)(np.zeros((5, width))), "X", f"{width} features", "2 features")


def test_wrong_column_names(no_kernel):
    estimator = GaussianMixture.from_parameters([0.5, 0.5], X[:2], [ONE, ONE])
    estimator.feature_names_in_ = np.array(["u", "v"], dtype=object)
    refused(lambda: estimator.predict(pd.DataFrame(X, columns=["u", "w"])), "feature names", "w")


@pytest.mark.parametrize("method", [*METHODS, "sample"])
def test_not_fitted(method):
    estimator = GaussianMixture(2)
    with pytest.raises(ValueError, match=r"not fitted.*'fit'"):  # scikit-learn's NotFittedError
        estimator.sample() if method == "sample" else getattr(estimator, method)(X)


START_OF_FEW = {
    **{name: {"init_params": name} for name in INIT_PARAMS},
    "labels": {"resp_init": np.arange(20) % 3},
    "parameters": {"weights_init": [0.2, 0.3, 0.5], "means_init": X[:3], "precisions_init": [ONE] * 3},
}


@pytest.mark.parametrize("name", START_OF_FEW)
def test_fewer_distinct_rows_than_components(name, no_kernel):
    few = np.repeat(X[:2], 10, axis=0)
    words = "X", "2 distinct", "n_components=3", "fewer components"
    refused(lambda: GaussianMixture(3, **START_OF_FEW[name]).fit(few), *words)
    hidden = np.r_[X[:2], X][:20]  # more distinct rows, but of weight 0
    weight = np.r_[1.0, 1.0, np.zeros(18)]
    refused(lambda: GaussianMixture(3, **START_OF_FEW[name]).fit(hidden, sample_weight=weight), *words)
    if name in INIT_PARAMS:
        refused(lambda: fit_result(few, n_components=3, start=name), *words)


# weights

BAD_WEIGHTS = {
    "negative": (lambda: spoiled(np.ones(60), -1, 3), [r"sample_weight\[3\]", "-1", "not negative"]),
    "nan": (lambda: spoiled(np.ones(60), np.nan, 3), [r"sample_weight\[3\]", "nan", "finite"]),
    "inf": (lambda: spoiled(np.ones(60), np.inf, 3), [r"sample_weight\[3\]", "inf", "finite"]),
    "all-zero": (lambda: np.zeros(60), ["sample_weight", "zero", "at least one"]),
    "short": (lambda: np.ones(59), ["sample_weight", r"\(59,\)", r"\(60,\)"]),
    "long": (lambda: np.ones(61), ["sample_weight", r"\(61,\)", r"\(60,\)"]),
    "empty": (lambda: [], ["sample_weight", r"\(0,\)", r"\(60,\)"]),
    "2-D": (lambda: np.ones((60, 1)), ["sample_weight", r"\(60, 1\)", r"\(60,\)"]),
    "scalar": (lambda: 2.0, ["sample_weight", r"\(60,\)"]),
    "strings": (lambda: ["a"] * 60, ["sample_weight", "real numbers"]),
    "complex": (lambda: np.ones(60) + 1j, ["sample_weight", "complex128", "real numbers"]),
    "nones": (lambda: [None] * 60, ["sample_weight", "object|None|nan"]),
    "ragged": (lambda: [[1]] * 59 + [[1, 2]], ["sample_weight"]),
    "sparse": (lambda: scipy.sparse.csr_matrix(np.ones((60, 1))), ["sample_weight"]),
    "masked": (lambda: np.ma.array(np.ones(60), mask=NOTHING_BUT), ["sample_weight", "mask"]),
    "overflow": (lambda: np.full(60, 1e308), ["sample_weight", "sums? to infinity", "divide"]),
    "underflow": (lambda: np.full(60, 1e-320), ["sample_weight", "multiply|scale|small"]),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_refused(name, no_kernel):
    make, words = BAD_WEIGHTS[name]
    refused(lambda: GaussianMixture(2).fit(X, sample_weight=make()), *words)
    refused(lambda: GaussianMixture(2).fit_predict(X, sample_weight=make()), *words)
    refused(lambda: fit_result(X, sample_weight=make()), *words)


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_refused_by_score(name):
    make, words = BAD_WEIGHTS[name]
    estimator = GaussianMixture.from_parameters([0.5, 0.5], X[:2], [ONE, ONE])
    refused(lambda: estimator.score(X, sample_weight=make()), *words)


def test_weights_given_twice(no_kernel):
    refused(lambda: fit_result(as_data(X, np.ones(60)), sample_weight=np.ones(60)), "sample_weight", "once")


# constructor parameters of the estimator

NOT_PD, ASYMMETRIC = np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[1.0, 0.5], [0.2, 1.0]])
BAD_PARAMETERS = {
    "K-0": ({"n_components": 0}, ["n_components", "1", "Got 0"]),
    "K-negative": ({"n_components": -1}, ["n_components", "1", "Got -1"]),
    "K-fraction": ({"n_components": 1.5}, ["n_components", "int", "Got 1.5"]),
    "K-float": ({"n_components": 2.0}, ["n_components", "int", "Got 2.0"]),
    "K-nan": ({"n_components": np.nan}, ["n_components", "int", "Got nan"]),
    "K-string": ({"n_components": "2"}, ["n_components", "int", "Got '2'"]),
    "K-none": ({"n_components": None}, ["n_components", "int", "Got None"]),
    "K-above-N": ({"n_components": 61}, ["X", "60 sample", "n_components=61", "fewer components"]),
    "covariance_type": ({"covariance_type": "round"}, ["covariance_type", "'full'", "'spherical'", "'round'"]),
    "tol-negative": ({"tol": -1.0}, ["tol", "0", "-1"]),
    "tol-nan": ({"tol": np.nan}, ["tol", "nan"]),
    "reg_covar-negative": ({"reg_covar": -1e-6}, ["reg_covar", "0", "-1e-06"]),
    "reg_covar-inf": ({"reg_covar": np.inf}, ["reg_covar", "inf"]),
    "max_iter-negative": ({"max_iter": -1}, ["max_iter", "0", "-1"]),
    "max_iter-float": ({"max_iter": 1.5}, ["max_iter", "int", "1.5"]),
    "n_init-0": ({"n_init": 0}, ["n_init", "1", "0"]),
    "init_params": ({"init_params": "best"}, ["init_params", "'kmeans'", "'best'"]),
    "random_state": ({"random_state": "seed"}, ["random_state", "int", "'seed'"]),
    "random_state-negative": ({"random_state": -1}, ["random_state", "int", "-1"]),
    "stopping": ({"stopping": "never"}, ["stopping", "'aitken'", "'never'"]),
    "warm_start": ({"warm_start": "yes"}, ["warm_start", "bool", "'yes'"]),
    "verbose": ({"verbose": -1}, ["verbose", "-1"]),
    "n_threads-0": ({"n_threads": 0}, ["n_threads", "1", "0"]),
    "n_threads-negative": ({"n_threads": -2}, ["n_threads", "1", "-2"]),
    "n_threads-float": ({"n_threads": 1.5}, ["n_threads", "int", "1.5"]),
    "weights-sum": ({"weights_init": [0.5, 0.6]}, ["weights_init", "sum", "1.1"]),
    "weights-negative": ({"weights_init": [1.5, -0.5]}, ["weights_init", "negative"]),
    "weights-short": ({"weights_init": [1.0]}, ["weights_init", r"\(1,\)", r"\(2,\)"]),
    "weights-2-D": ({"weights_init": [[0.5, 0.5]]}, ["weights_init", r"\(1, 2\)"]),
    "weights-nan": ({"weights_init": [np.nan, 1.0]}, ["weights_init", "NaN", "finite"]),
    "weights-strings": ({"weights_init": ["a", "b"]}, ["weights_init", "number"]),
    "weights-complex": ({"weights_init": np.array([0.5 + 0j, 0.5])}, ["weights_init", "real numbers"]),
    "means-rows": ({"means_init": [[1, 2]]}, ["means_init", r"\(1, 2\)", r"\(2, 2\)"]),
    "means-columns": ({"means_init": [[1], [2]]}, ["means_init", r"\(2, 1\)", r"\(2, 2\)"]),
    "means-1-D": ({"means_init": [1, 2]}, ["means_init", r"\(2,\)"]),
    "means-nan": ({"means_init": [[1, np.nan], [1, 2]]}, ["means_init", "NaN", "finite"]),
    "means-strings": ({"means_init": [["a", "b"], ["c", "d"]]}, ["means_init", "number"]),
    "means-ragged": ({"means_init": [[1, 2], [3]]}, ["means_init"]),
    "means-complex": ({"means_init": [[1j, 2], [3, 4]]}, ["means_init", "number"]),
    "precisions-shape": ({"precisions_init": ONE}, ["precisions_init", r"\(2, 2\)", "full", r"\(2, 2, 2\)"]),
    "precisions-negative": ({"precisions_init": [ONE, -ONE]}, [r"precisions_init\[1\]", "positive definite"]),
    "precisions-indefinite": ({"precisions_init": [ONE, NOT_PD]}, [r"precisions_init\[1\]", "positive definite"]),
    "precisions-zero": ({"precisions_init": [0 * ONE, ONE]}, [r"precisions_init\[0\]", "positive definite"]),
    "precisions-asymmetric": ({"precisions_init": [ONE, ASYMMETRIC]}, [r"precisions_init\[1\]", "symmetric"]),
    "precisions-nan": ({"precisions_init": [ONE, np.nan * ONE]}, ["precisions_init", "NaN", "finite"]),
    "precisions-strings": ({"precisions_init": [["a"]]}, ["precisions_init", "number"]),
    "precisions-complex": ({"precisions_init": np.array([ONE, ONE]) + 0j}, ["precisions_init", "real numbers"]),
    "precisions-tied": (
        {"precisions_init": NOT_PD, "covariance_type": "tied"},
        ["precisions_init", "positive definite"],
    ),
    "precisions-tied-shape": (
        {"precisions_init": [ONE, ONE], "covariance_type": "tied"},
        ["precisions_init", r"\(2, 2, 2\)", "tied", r"\(2, 2\)"],
    ),
    "precisions-diag": (
        {"precisions_init": [[1, 1], [1, 0]], "covariance_type": "diag"},
        ["precisions_init", "positive", r"\[1, 1\]"],
    ),
    "precisions-spherical": (
        {"precisions_init": [1, -1], "covariance_type": "spherical"},
        ["precisions_init", "positive", r"\[1\]"],
    ),
    "resp-short": ({"resp_init": np.zeros(59, int)}, ["resp_init", r"\(59,\)", r"\(60,\)"]),
    "resp-label-above": ({"resp_init": LABELS + 1}, ["resp_init", "0 to 1"]),
    "resp-label-below": ({"resp_init": LABELS - 1}, ["resp_init", "0 to 1"]),
    "resp-label-fraction": ({"resp_init": LABELS / 2}, ["resp_init", "integers"]),
    "resp-label-nan": ({"resp_init": spoiled(LABELS + 0.0, np.nan, 3)}, ["resp_init", "integers|NaN"]),
    "resp-label-string": ({"resp_init": ["a"] * 60}, ["resp_init", "integers|real numbers"]),
    "resp-columns": ({"resp_init": np.full((60, 3), 1 / 3)}, ["resp_init", r"\(60, 3\)", r"\(60, 2\)"]),
    "resp-sum": ({"resp_init": np.ones((60, 2))}, ["resp_init", "sum to 1"]),
    "resp-negative": ({"resp_init": np.tile([1.5, -0.5], (60, 1))}, ["resp_init", "negative"]),
    "resp-nan": ({"resp_init": np.full((60, 2), np.nan)}, ["resp_init", "sum to 1|NaN"]),
    "dirichlet-below-1": ({"weight_concentration_prior": 0.5}, ["weight_concentration_prior", "1", "0.5"]),
    "dirichlet-inf": ({"weight_concentration_prior": np.inf}, ["weight_concentration_prior", "inf"]),
    "mean_prior-alone": ({"mean_prior": [0, 0]}, ["mean_prior", "mean_precision_prior"]),
    "freedom-alone": ({"degrees_of_freedom_prior": 5.0}, ["degrees_of_freedom_prior", "covariance_prior"]),
    "mean_prior-shape": ({"mean_prior": [0], "mean_precision_prior": 1.0}, ["mean_prior", "2", r"\(1,\)"]),
    "mean_prior-nan": ({"mean_prior": [0, np.nan], "mean_precision_prior": 1.0}, ["mean_prior", "finite"]),
    "mean_prior-string": ({"mean_prior": ["a", "b"], "mean_precision_prior": 1.0}, ["mean_prior", "number"]),
    "mean_precision-negative": ({"mean_precision_prior": -1.0}, ["mean_precision_prior", "-1"]),
    "freedom-negative": (
        {"degrees_of_freedom_prior": -1.0, "covariance_prior": "auto"},
        ["degrees_of_freedom_prior", "-1"],
    ),
    "covariance_prior-word": ({"covariance_prior": "guess"}, ["covariance_prior", "'auto'", "'guess'"]),
    "covariance_prior-shape": ({"covariance_prior": [1, 2]}, ["covariance_prior", r"\(2, 2\)", "full", r"\(2,\)"]),
    "covariance_prior-ragged": ({"covariance_prior": [[1, 2], [3]]}, ["covariance_prior"]),
    "covariance_prior-negative": ({"covariance_prior": -ONE}, ["covariance_prior", "positive definite"]),
    "covariance_prior-zero": ({"covariance_prior": 0 * ONE}, ["covariance_prior", "positive definite"]),
    "covariance_prior-asymmetric": ({"covariance_prior": ASYMMETRIC}, ["covariance_prior", "symmetric"]),
    "covariance_prior-nan": ({"covariance_prior": np.nan * ONE}, ["covariance_prior", "finite"]),
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_parameters_refused(name, no_kernel):
    params, words = BAD_PARAMETERS[name]
    estimator = GaussianMixture(**{"n_components": 2, **params})
    given_params = {key: frozen(value) for key, value in estimator.get_params().items()}
    refused(lambda: estimator.fit(X), *words)
    assert {key: frozen(value) for key, value in estimator.get_params().items()} == given_params
    assert not hasattr(estimator, "means_")


def test_a_component_without_rows_in_the_start():
    refused(lambda: fit(X, resp_init=np.zeros(60, int)), "component 1", "weight", "fewer components|another start")


def test_start_parameters_without_density():
    """Rows so far from every component that no density is left are named as such, not fitted to NaN."""
    params = {"weights_init": [0.5, 0.5], "precisions_init": [ONE * 1e300] * 2, "means_init": X[:2] + 1e100}
    refused(lambda: fit(X, **params), "log-likelihood", "start parameters")


@pytest.mark.parametrize("n_components", [True, np.int8(2), np.uint64(2)])
def test_integers_of_any_kind(n_components):
    assert_same_fit(fit(X, n_components), fit(X, int(n_components)))


# parameters of a model and of the driver

BAD_MODELS = {
    "K-0": (lambda: Mixture(Gaussian(), 0), ["n_components", "at least 1", "0"]),
    "K-fraction": (lambda: Mixture(Gaussian(), 1.5), ["n_components", "integer", "1.5"]),
    "K-float": (lambda: Mixture(Gaussian(), 2.0), ["n_components", "integer", "2.0"]),
    "K-nan": (lambda: Mixture(Gaussian(), np.nan), ["n_components", "integer", "nan"]),
    "K-string": (lambda: Mixture(Gaussian(), "2"), ["n_components", "integer", "'2'"]),
    "K-none": (lambda: Mixture(Gaussian(), None), ["n_components", "integer", "None"]),
    "family": (lambda: Mixture("full", 2), ["family", "Gaussian", "'full'|str"]),
    "covariance_type": (lambda: Gaussian("round"), ["covariance_type", "'full'", "'round'"]),
    "reg_covar-negative": (lambda: Gaussian(reg_covar=-1), ["reg_covar", "not negative", "-1"]),
    "reg_covar-nan": (lambda: Gaussian(reg_covar=np.nan), ["reg_covar", "finite", "nan"]),
    "reg_covar-string": (lambda: Gaussian(reg_covar="small"), ["reg_covar", "number", "small"]),
    "prior": (lambda: Gaussian(prior=3.0), ["prior", "NormalInverseWishart"]),
    "dirichlet": (lambda: Mixture(Gaussian(), 2, weight_concentration=0.5), ["weight_concentration", "1", "0.5"]),
    "n_threads-0": (lambda: Mixture(Gaussian(), 2, n_threads=0), ["n_threads", "1", "0"]),
    "n_threads-negative": (lambda: Mixture(Gaussian(), 2, n_threads=-3), ["n_threads", "1", "-3"]),
    "n_threads-string": (lambda: Mixture(Gaussian(), 2, n_threads="all"), ["n_threads", "all"]),
    "start": (lambda: Mixture(Gaussian(), 2, "best"), ["start", "'kmeans'", "'best'"]),
    "weights-sum": (lambda: Mixture(Gaussian(), 2, weights_init=[0.5, 0.6]), ["weights_init", "sum", "1.1"]),
    "weights-short": (lambda: Mixture(Gaussian(), 2, weights_init=[1.0]), ["weights_init", r"\(1,\)", r"\(2,\)"]),
    "weights-nan": (lambda: Mixture(Gaussian(), 2, weights_init=[np.nan, 1]), ["weights_init", "NaN", "finite"]),
    "means-1-D": (lambda: Mixture(Gaussian(), 2, means_init=[1, 2]), ["means_init", r"\(2,\)"]),
    "means-shape": (lambda: Mixture(Gaussian(), 2, means_init=[[1, 2]]), ["means_init", r"\(1, 2\)", r"\(2, 2\)"]),
    "means-nan": (lambda: Mixture(Gaussian(), 2, means_init=[[1, 2], [3, np.nan]]), ["means_init", "NaN", "finite"]),
    "precisions-shape": (
        lambda: Mixture(Gaussian(), 2, precisions_init=ONE),
        ["precisions_init", r"\(2, 2\)", "full", r"\(2, 2, 2\)"],
    ),
    "precisions-negative": (
        lambda: Mixture(Gaussian(), 2, precisions_init=[ONE, -ONE]),
        [r"precisions_init\[1\]", "positive definite"],
    ),
    "precisions-asymmetric": (
        lambda: Mixture(Gaussian(), 2, precisions_init=[ONE, ASYMMETRIC]),
        [r"precisions_init\[1\]", "symmetric"],
    ),
    "labels": (lambda: Mixture(Gaussian(), 2, LABELS + 1), ["labels", "0 to 1"]),
    "mean_prior": (
        lambda: Mixture(Gaussian(prior=NormalInverseWishart(mean=[1.0])), 2),
        ["mean", "2", r"\(1,\)"],
    ),
    "scale_prior": (
        lambda: Mixture(Gaussian(prior=NormalInverseWishart(scale=-ONE)), 2),
        ["scale|covariance_prior", "positive definite"],
    ),
    "model-string": (lambda: "full", ["model", "Mixture|protocol", "'full'"]),
    "model-none": (lambda: None, ["model", "Mixture|protocol", "None"]),
    "model-class": (lambda: Mixture, ["model", "class|instance"]),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_model_refused(name, no_kernel):
    make, words = BAD_MODELS[name]
    refused(lambda: fastem.fit(make(), X, random_state=0), *words)


GOOD = GaussianMixture.from_parameters([0.5, 0.5], X[:2], [ONE, ONE])
BAD_ARGUMENTS = {
    "max_iter-negative": ({"max_iter": -1}, ["max_iter", "at least 0", "-1"]),
    "max_iter-float": ({"max_iter": 1.5}, ["max_iter", "integer", "1.5"]),
    "max_iter-string": ({"max_iter": "3"}, ["max_iter", "integer", "3"]),
    "n_init-0": ({"n_init": 0}, ["n_init", "at least 1", "0"]),
    "n_init-float": ({"n_init": 1.5}, ["n_init", "integer", "1.5"]),
    "tol-negative": ({"tol": -1}, ["tol", "not negative", "-1"]),
    "tol-nan": ({"tol": np.nan}, ["tol", "not negative", "nan"]),
    "tol-string": ({"tol": "small"}, ["tol", "number", "small"]),
    "stopping": ({"stopping": "never"}, ["stopping", "aitken", "'never'"]),
    "random_state-string": ({"random_state": "seed"}, ["random_state", "seed"]),
    "random_state-negative": ({"random_state": -1}, ["random_state", "-1"]),
    "callbacks": ({"callbacks": print}, ["callbacks", "sequence|list"]),
    "callbacks-not-callable": ({"callbacks": [3]}, ["callbacks", "call"]),
    "start-number": ({"start": 3}, ["start", "MixtureParams"]),
    "start-few": (
        {"start": lambda p: p._replace(weights=np.array([1.0]))},
        ["start", r"\(1,\)", r"\(2,\)"],
    ),
    "start-weights": ({"start": lambda p: p._replace(weights=np.array([0.9, 0.9]))}, ["start", "sum", "1.8"]),
    "start-nan": ({"start": lambda p: p._replace(weights=np.array([np.nan, 1]))}, ["start", "NaN", "finite"]),
    "start-means": (
        {"start": lambda p: p._replace(components=p.components._replace(means=np.zeros((2, 3))))},
        ["start", r"\(2, 3\)", r"\(2, 2\)"],
    ),
    "start-covariances": (
        {"start": lambda p: p._replace(components=p.components._replace(covariances=ONE, precisions_cholesky=ONE))},
        ["start", r"\(2, 2\)", "full", r"\(2, 2, 2\)"],
    ),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_argument_of_the_driver_refused(name, no_kernel):
    arguments, words = BAD_ARGUMENTS[name]
    if callable(arguments.get("start")):
        arguments = {"start": arguments["start"](GOOD._params())}
    refused(lambda: fastem.fit(Mixture(Gaussian(), 2), X, **arguments), *words)


# from_parameters and sample

HALF = [0.5, 0.5]
BAD_FROM_PARAMETERS = {
    "none-of-both": ((HALF, X[:2]), {}, ["covariances", "precisions", "exactly one"]),
    "both": ((HALF, X[:2], [ONE, ONE]), {"precisions": [ONE, ONE]}, ["covariances", "precisions", "exactly one"]),
    "weights-sum": (([0.5, 0.6], X[:2], [ONE, ONE]), {}, ["weights", "sum", "1.1"]),
    "weights-negative": (([1.5, -0.5], X[:2], [ONE, ONE]), {}, ["weights", "negative"]),
    "weights-length": (([1.0], X[:2], [ONE, ONE]), {}, ["weights", r"\(1,\)", r"\(2,\)"]),
    "weights-nan": (([np.nan, 1], X[:2], [ONE, ONE]), {}, ["weights", "NaN", "finite"]),
    "weights-string": (("ab", X[:2], [ONE, ONE]), {}, ["weights", "number"]),
    "means-1-D": ((HALF, X[0], [ONE, ONE]), {}, ["means", r"\(2,\)", "2 dimensions"]),
    "means-empty": (([], np.empty((0, 2)), np.empty((0, 2, 2))), {}, ["means", r"\(0, 2\)", "empty"]),
    "means-nan": ((HALF, X[:2] * np.nan, [ONE, ONE]), {}, ["means", "NaN", "finite"]),
    "means-none": ((HALF, None, [ONE, ONE]), {}, ["means"]),
    "means-complex": ((HALF, X[:2] + 0j, [ONE, ONE]), {}, ["means", "real numbers"]),
    "means-sparse": ((HALF, scipy.sparse.csr_matrix(X[:2]), [ONE, ONE]), {}, ["means"]),
    "covariances-shape": ((HALF, X[:2], ONE), {}, ["covariances", r"\(2, 2\)", "full", r"\(2, 2, 2\)"]),
    "covariances-indefinite": ((HALF, X[:2], [ONE, NOT_PD]), {}, [r"covariances\[1\]", "positive definite"]),
    "covariances-singular": ((HALF, X[:2], [ONE, np.ones((2, 2))]), {}, [r"covariances\[1\]", "positive definite"]),
    "covariances-asymmetric": ((HALF, X[:2], [ONE, ASYMMETRIC]), {}, [r"covariances\[1\]", "symmetric"]),
    "covariances-nan": ((HALF, X[:2], [ONE, ONE * np.nan]), {}, ["covariances", "NaN", "finite"]),
    "covariances-string": ((HALF, X[:2], [["a"]]), {}, ["covariances", "number"]),
    "covariances-ragged": ((HALF, X[:2], [[1], [1, 2]]), {}, ["covariances"]),
    "covariances-tiny": ((HALF, X[:2], [ONE * 1e-320, ONE]), {}, [r"covariances\[0\]", "overflow|underflow|positive"]),
    "tied": ((HALF, X[:2], NOT_PD), {"covariance_type": "tied"}, ["covariances", "positive definite"]),
    "diag": ((HALF, X[:2], [[1, 1], [1, 0]]), {"covariance_type": "diag"}, ["covariances", "positive", r"\[1, 1\]"]),
    "diag-tiny": (
        (HALF, X[:2], [[1, 1], [1, 1e-320]]),
        {"covariance_type": "diag"},
        ["covariances", r"\[1, 1\]", "overflow|underflow|positive"],
    ),
    "spherical": ((HALF, X[:2], [1, -1]), {"covariance_type": "spherical"}, ["covariances", "positive", r"\[1\]"]),
    "precisions-shape": ((HALF, X[:2]), {"precisions": ONE}, ["precisions", r"\(2, 2\)", "full", r"\(2, 2, 2\)"]),
    "precisions-indefinite": ((HALF, X[:2]), {"precisions": [ONE, NOT_PD]}, [r"precisions\[1\]", "positive definite"]),
    "precisions-asymmetric": ((HALF, X[:2]), {"precisions": [ONE, ASYMMETRIC]}, [r"precisions\[1\]", "symmetric"]),
    "precisions-tiny": (
        (HALF, X[:2]),
        {"precisions": [ONE, ONE * 1e-320]},
        [r"precisions\[1\]", "overflow|underflow|positive"],
    ),
    "covariance_type": ((HALF, X[:2], ONE), {"covariance_type": "round"}, ["covariance_type", "'round'"]),
    "unknown": ((HALF, X[:2], [ONE, ONE]), {"covariance": 1}, ["covariance"]),
    "K": ((HALF, X[:2], [ONE, ONE]), {"n_components": 3}, ["n_components"]),
}


@pytest.mark.parametrize("name", BAD_FROM_PARAMETERS)
def test_from_parameters_refused(name, no_kernel):
    arguments, params, words = BAD_FROM_PARAMETERS[name]
    refused(lambda: GaussianMixture.from_parameters(*arguments, **params), *words)


@pytest.mark.parametrize("n_samples", [0, -1, 2.5, "3", None, np.nan])
def test_sample_refused(n_samples):
    refused(lambda: GOOD.sample(n_samples), "n_samples", re.escape(repr(n_samples)))


# a fitted estimator stays as it was

REFUSED_FITS = {  # what fit is called with, and parameters set before
    "inf": ({"X": spoiled(np.c_[X, X], np.inf, (3, 1))}, {}),
    "no-value": ({"X": np.c_[X, np.full(60, np.nan)]}, {}),
    "words": ({"X": np.full((9, 3), "a")}, {}),
    "sparse": ({"X": scipy.sparse.csr_matrix(np.c_[X, X])}, {}),
    "overflow": ({"X": np.c_[X, X] * 1e160}, {}),
    "underflow": ({"X": np.c_[X, X] * 1e-160}, {}),
    "frame": ({"X": pd.DataFrame(spoiled(np.c_[X, X], np.inf, (3, 1)), columns=list("abcd"))}, {}),
    "empty-frame": ({"X": pd.DataFrame({"a": [], "b": [], "c": []})}, {}),
    "weights": ({"X": np.c_[X, X], "sample_weight": np.zeros(60)}, {}),
    "weights-length": ({"X": pd.DataFrame(np.c_[X, X], columns=list("abcd")), "sample_weight": np.ones(7)}, {}),
    "few-distinct": ({"X": np.ones((9, 3))}, {}),
    "K": ({"X": np.c_[X, X]}, {"n_components": 0}),
    "K-above-N": ({"X": np.c_[X, X][:2]}, {"n_components": 3}),
    "means_init": ({"X": np.c_[X, X]}, {"means_init": [[0, 0], [1, 1]]}),
    "precisions_init": ({"X": X}, {"precisions_init": [ONE, -ONE]}),
    "warm_start": ({"X": np.c_[X, X]}, {"warm_start": True}),
    "collapse": ({"X": np.c_[X, X]}, {"reg_covar": 0.0}),
    "constant": ({"X": np.c_[X, np.ones(60)]}, {"reg_covar": 0.0}),
    "callback": ({"X": np.c_[X, X], "callbacks": [lambda step: 1 // 0]}, {}),
}


@pytest.mark.parametrize("name", REFUSED_FITS)
def test_refused_fit_loses_nothing(name):
    arguments, params = REFUSED_FITS[name]
    estimator = fit(X).set_params(**params)
    before = state(estimator)
    with pytest.raises((ValueError, TypeError, ZeroDivisionError)):
        strictly(lambda: estimator.fit(**arguments))
    after = state(estimator)
    assert sorted(after) == sorted(before)
    assert [key for key in before if after[key] != before[key]] == []


# a first fit has nothing to start from, so warm_start cannot be wrong
@pytest.mark.parametrize("name", [name for name in REFUSED_FITS if name != "warm_start"])
def test_refused_first_fit_leaves_no_trace(name):
    arguments, params = REFUSED_FITS[name]
    estimator = GaussianMixture(2).set_params(**params)
    before = state(estimator)
    with pytest.raises((ValueError, TypeError, ZeroDivisionError)):
        strictly(lambda: estimator.fit(**arguments))
    assert state(estimator) == before


def test_warning_as_error_loses_no_fit():
    """Whoever turns ConvergenceWarning into an error still finds the parameters."""
    estimator = GaussianMixture(2, max_iter=2, tol=0.0, random_state=0)
    with pytest.raises(ConvergenceWarning):
        estimator.fit(X)
    assert_same_fit(estimator, fit(X, max_iter=2, tol=0.0))


# rows in every form

GRID = np.random.default_rng(1).integers(0, 100, size=(60, 3)) + np.repeat([0, 100], 30)[:, None]  # fits a byte


class Subclass(np.ndarray):
    pass


class HasArray:
    """What NumPy can turn into an array, and nothing else."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)


def wide(values):
    """A larger array, NaN but for the values at rows 0, 2, 4 ... and columns 1, 3, 5 ..."""
    big = np.full((2 * len(values), 2 * values.shape[1] + 1), np.nan, values.dtype)
    big[::2, 1::2] = values
    return big


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


def unaligned(values):
    return np.frombuffer(b"\0" + values.tobytes(), values.dtype, offset=1).reshape(values.shape)


LAYOUTS = {  # of an array of either dtype
    "fortran": np.asfortranarray,
    "read-only": read_only,
    "read-only-fortran": lambda values: read_only(np.asfortranarray(values)),
    "strided": lambda values: wide(values)[::2, 1::2],
    "reversed-rows": lambda values: values[::-1].copy()[::-1],
    "reversed-columns": lambda values: values[:, ::-1].copy()[:, ::-1],
    "unaligned": unaligned,
    "subclass": lambda values: values.view(Subclass),
    "frame": lambda values: pd.DataFrame(values, columns=["u", "v", "w"]),
    "unmasked": lambda values: np.ma.array(values),
}
DTYPE_NAMES = ("u1", "i2", "i4", ">i4", "i8", "u8", "f2", ">f8", "g")
NUMBERS = {  # of the grid
    "list": lambda values: values.tolist(),
    "tuple-of-rows": lambda values: tuple(values),
    "list-of-ints-and-floats": lambda values: [[int(row[0]), float(row[1]), np.float32(row[2])] for row in values],
    **{name: lambda values, name=name: values.astype(name) for name in DTYPE_NAMES},
    "big-endian-float32": lambda values: values.astype(">f4"),  # which is taken as float64
    "has-array": HasArray,
    "objects": lambda values: values.astype(object),
    "objects-int": lambda values: values.astype(int).astype(object),
    "frame-int": lambda values: pd.DataFrame(values.astype(int), columns=["u", "v", "w"]),
    "frame-mixed": lambda values: pd.DataFrame(
        {"u": values[:, 0].astype(object), "v": values[:, 1].astype("i2"), "w": values[:, 2]}
    ),
    "frame-nullable": lambda values: pd.DataFrame(values, columns=["u", "v", "w"]).astype("Int64"),
    "frame-shuffled": lambda values: pd.DataFrame(values, columns=["u", "v", "w"], index=np.arange(len(values))[::-1]),
}
BOOLS = {
    "bool": lambda values: values.astype(bool),
    "list-of-bools": lambda values: values.astype(bool).tolist(),
    "frame-bool": lambda values: pd.DataFrame(values.astype(bool), columns=["u", "v", "w"]),
    "bool-and-float": lambda values: pd.DataFrame(
        {"u": values[:, 0].astype(bool), "v": values[:, 1], "w": values[:, 2]}
    ),
}


def assert_same_fit(ours, theirs):
    for name in (*FITTED, "n_iter_", "converged_"):
        assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def assert_same_bits(form, plain, **params):
    """Fitting and scoring one form of the rows gives what the plain array gives."""
    ours, theirs = fit(form, **params), fit(plain, **params)
    assert_same_fit(ours, theirs)
    assert_array_equal(ours.predict(form), theirs.predict(plain))
    assert_array_equal(ours.score_samples(form), theirs.score_samples(plain))
    assert_array_equal(ours.predict_proba(form), theirs.predict_proba(plain))
    assert ours.bic(form) == theirs.bic(plain)
    params.pop("sample_weight", None)
    result, expected = fit_result(form), fit_result(plain)
    assert_array_equal(result.params.components.means, expected.params.components.means)
    assert_array_equal(result.history, expected.history)


@on_dtypes
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name, dtype):
    plain = two_groups(60, 3).astype(dtype)
    form = LAYOUTS[name](plain)
    before = np.array(form)
    assert_same_bits(form, plain)
    assert_array_equal(np.array(form), before)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name):
    plain = GRID.astype(np.float64)
    assert_same_bits(NUMBERS[name](plain), plain)


@pytest.mark.parametrize("name", BOOLS)
def test_bools(name):
    plain = (two_groups(60, 3) > 1).astype(np.float64)
    assert_same_bits(BOOLS[name](plain), plain)


@on_dtypes
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_memory_map(tmp_path, mode, dtype):
    plain = two_groups(60, 3).astype(dtype)
    np.save(tmp_path / "rows.npy", plain)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode=mode)
    assert np.shares_memory(as_data(mapped).blocks[0].X, mapped)  # read where it lies
    assert_same_bits(mapped, plain)
    del mapped
    assert_array_equal(np.load(tmp_path / "rows.npy"), plain)


def test_raw_memory_map(tmp_path):
    plain = two_groups(60, 3)
    plain.astype(">f8").tofile(tmp_path / "rows.bin")
    assert_same_bits(np.memmap(tmp_path / "rows.bin", ">f8", "r", shape=(60, 3)), plain)
    np.asfortranarray(plain).T.tofile(tmp_path / "columns.bin")
    assert_same_bits(np.memmap(tmp_path / "columns.bin", "f8", "r", shape=(60, 3), order="F"), plain)


@pytest.mark.parametrize("form", [read_only, np.asarray], ids=["read-only", "plain"])
@on_dtypes
def test_rows_are_not_copied(form, dtype):
    rows = form(two_groups().astype(dtype))
    assert np.shares_memory(as_rows(rows), rows)
    assert np.shares_memory(as_data(rows).blocks[0].X, rows)


WEIGHT_FORMS = {
    "int": lambda weight: weight.astype(int),
    "uint8": lambda weight: weight.astype("u1"),
    "float32": lambda weight: weight.astype(np.float32),
    "big-endian": lambda weight: weight.astype(">f8"),
    "list": lambda weight: weight.tolist(),
    "tuple": tuple,
    "strided": lambda weight: np.repeat(weight, 2)[::2],
    "reversed": lambda weight: weight[::-1].copy()[::-1],
    "column": lambda weight: np.c_[weight, weight][:, 0],
    "read-only": read_only,
    "unaligned": unaligned,
    "series": lambda weight: pd.Series(weight, index=np.arange(len(weight))[::-1]),
    "series-nullable": lambda weight: pd.Series(weight).astype("Int64"),
}


@pytest.mark.parametrize("name", WEIGHT_FORMS)
def test_weight_form(name):
    weight = np.arange(60) % 4 + 0.0
    form = WEIGHT_FORMS[name](weight)
    before = np.array(form)
    ours, theirs = fit(X, sample_weight=form), fit(X, sample_weight=weight)
    assert_same_fit(ours, theirs)
    assert_array_equal(np.array(form), before)
    assert ours.score(X, sample_weight=form) == theirs.score(X, sample_weight=weight)


def test_weight_as_bool_is_a_selection():
    chosen = np.arange(60) % 3 > 0
    start = {"resp_init": LABELS, "max_iter": 10, "tol": 0.0}
    ours = fit(X, sample_weight=chosen, **start)
    assert_close_fit(ours, fit(X[chosen], **{**start, "resp_init": LABELS[chosen]}))


START_FORMS = {
    "lists": lambda array: array.tolist(),
    "fortran": np.asfortranarray,
    "read-only": read_only,
    "big-endian": lambda array: array.astype(">f8"),
    "strided": lambda array: np.repeat(array, 2, axis=0)[::2],
    "integers": lambda array: array.astype(int) if (array == array.astype(int)).all() else array,
    "float32": lambda array: array.astype(np.float32) if (array == array.astype(np.float32)).all() else array,
}


@on_covariance_types
@pytest.mark.parametrize("name", START_FORMS)
def test_start_form(name, covariance_type):
    """Parameters in any form start the same fit, stay as the user wrote them, and are no memory of the estimator."""
    plain = {
        "weights_init": np.array([0.25, 0.75]),
        "means_init": np.array([[0.0, 1.0], [5.0, 6.0]]),
        "precisions_init": shaped([[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 3.0]]], covariance_type),
    }
    formed = {key: START_FORMS[name](value) for key, value in plain.items()}
    common = {"covariance_type": covariance_type, "max_iter": 3, "tol": 0.0}
    assert_same_fit(fit(X, **common, **formed), fit(X, **common, **plain))
    for key in plain:
        assert_array_equal(np.array(formed[key]), plain[key])
    ours = GaussianMixture.from_parameters(*formed.values(), covariance_type=covariance_type)
    theirs = GaussianMixture.from_parameters(*plain.values(), covariance_type=covariance_type)
    assert_array_equal(ours.score_samples(X), theirs.score_samples(X))


def shaped(matrices, covariance_type):
    """Matrices (K, D, D) in the estimator's shape."""
    matrices = np.array(matrices, dtype=float)
    return {
        "full": matrices,
        "tied": matrices[0],
        "diag": np.diagonal(matrices, axis1=1, axis2=2).copy(),
        "spherical": matrices[:, 0, 0].copy(),
    }[covariance_type]


@on_covariance_types
@pytest.mark.parametrize("which", ["covariances", "precisions"])
def test_from_parameters_keeps_no_memory_of_its_arguments(covariance_type, which):
    weights, means = np.array(HALF), X[:2].copy()
    matrices = shaped([ONE, 2 * ONE], covariance_type)
    estimator = GaussianMixture.from_parameters(weights, means, covariance_type=covariance_type, **{which: matrices})
    before = state(estimator)
    weights[:], means[:], matrices[...] = 0.1, 7.0, 9.0
    assert state(estimator) == before


# hard rows for which a result is possible

CONSTANT = np.c_[X, np.full(60, 7.0)]


@on_covariance_types
@pytest.mark.parametrize("value", [0.0, 7.0, -1e8, 1e100])
def test_constant_column(covariance_type, value):
    """reg_covar is the whole variance of a constant column, whatever its value; without it the column is named."""
    rows = np.c_[X, np.full(60, value)]
    if abs(value) < 1e6:
        estimator = fit(rows, covariance_type=covariance_type)
        plain = fit(np.c_[X, np.zeros(60)], covariance_type=covariance_type)
        assert_allclose(estimator.means_[:, :2], plain.means_[:, :2], rtol=1e-12)
        assert_array_equal(estimator.means_[:, 2], value)
        assert_allclose(estimator.covariances_, plain.covariances_, rtol=1e-9, atol=1e-12)
        assert_finite(estimator)
    if covariance_type != "spherical":
        words = "column 2", "constant", "reg_covar"
        refused(lambda: fit(rows, covariance_type=covariance_type, reg_covar=0.0), *words)


@on_covariance_types
def test_duplicated_column(covariance_type):
    rows = np.c_[X, X[:, 0]]
    assert_finite(fit(rows, covariance_type=covariance_type))
    if covariance_type in ("full", "tied"):
        words = "column 2", "dependent", "reg_covar"
        refused(lambda: fit(rows, covariance_type=covariance_type, reg_covar=0.0), *words)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_dependent_columns(covariance_type):
    """Rounding must not pass for the variance of a column that is a combination of others, nor of too few rows."""
    for seed in (*range(200), 3823):
        rng = np.random.default_rng(seed)
        n_features = rng.integers(2, 8)
        rows = rng.normal(size=(n_features if seed % 2 else 300, n_features)) * 10 ** rng.uniform(-3, 3, n_features)
        if seed % 2 == 0:
            rows[:, -1] = rows[:, :-1] @ 10 ** rng.uniform(-3, 3, n_features - 1)
        refused(lambda rows=rows: fit(rows, 1, covariance_type=covariance_type, reg_covar=0.0), "column", "dependent")


@on_covariance_types
@pytest.mark.parametrize("init_params", INIT_PARAMS)
def test_duplicated_rows(covariance_type, init_params):
    """As many distinct rows as components, each many times: one component for each, where reg_covar is its variance."""
    distinct = np.array([[0.0, 0.0], [5.0, 1.0], [2.0, 9.0]])
    rows = np.repeat(distinct, [5, 10, 25], axis=0)
    estimator = fit(rows, 3, covariance_type=covariance_type, init_params=init_params)
    assert_finite(estimator)
    if init_params != "random":  # which may end elsewhere
        order = np.argsort(estimator.weights_)
        assert_allclose(estimator.weights_[order], [0.125, 0.25, 0.625], rtol=1e-12)
        assert_allclose(estimator.means_[order], distinct, atol=1e-12)
        variances = np.diagonal(estimator.covariances_, axis1=-2, axis2=-1) if covariance_type == "full" else None
        assert variances is None or np.allclose(variances, 1e-6, rtol=1e-6)
        params = {"covariance_type": covariance_type, "init_params": init_params, "reg_covar": 0.0}
        refused(lambda: fit(rows, 3, **params), "component|covariance", "reg_covar")


@on_covariance_types
def test_all_rows_equal(covariance_type):
    estimator = fit(np.full((10, 2), 3.0), 1, covariance_type=covariance_type)
    assert_array_equal(estimator.means_, [[3.0, 3.0]])
    assert_allclose(estimator.covariances_, shaped([ONE * 1e-6], covariance_type), rtol=1e-9)
    refused(
        lambda: fit(np.full((10, 2), 3.0), 1, covariance_type=covariance_type, reg_covar=0.0), "constant", "reg_covar"
    )


@on_covariance_types
@pytest.mark.parametrize("init_params", INIT_PARAMS)
@pytest.mark.parametrize("exponent", [-498, 498], ids=["1e-150", "1e150"])
def test_extreme_scale(covariance_type, init_params, exponent):
    """A power of two near 1e150 or 1e-150 scales the fit and nothing else."""
    scale = 2.0**exponent
    params = {"covariance_type": covariance_type, "init_params": init_params, "reg_covar": 0.0}
    ours, plain = fit(X * scale, **params), fit(X, **params)
    assert_allclose(ours.weights_, plain.weights_, rtol=1e-12)
    assert_allclose(ours.means_ / scale, plain.means_, rtol=1e-12, atol=1e-12)
    assert_allclose(ours.covariances_ / scale / scale, plain.covariances_, rtol=1e-12, atol=1e-12)
    assert_allclose(ours.lower_bound_, plain.lower_bound_ - 2 * exponent * np.log(2), rtol=1e-12)
    assert_array_equal(ours.predict(X * scale), plain.predict(X))
    assert_finite(ours)


@on_covariance_types
@pytest.mark.parametrize("scale", [1e150, 1e-150])
def test_extreme_scale_with_reg_covar(covariance_type, scale):
    """The default reg_covar vanishes in large data and is all that is seen of small data."""
    estimator = fit(X * scale, covariance_type=covariance_type)
    assert_finite(estimator)
    if scale < 1:
        expected = shaped([ONE * 1e-6] * 2, covariance_type)
        assert_allclose(estimator.covariances_, expected, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_columns_of_extreme_scales_together(covariance_type):
    scale = np.array([2.0**-498, 2.0**498])
    params = {"covariance_type": covariance_type, "reg_covar": 0.0}
    ours, plain = fit(X * scale, **params), fit(X, **params)
    assert_allclose(ours.means_ / scale, plain.means_, rtol=1e-12, atol=1e-12)
    if covariance_type != "diag":
        assert_allclose(ours.covariances_ / scale / scale[:, None], plain.covariances_, rtol=1e-12, atol=1e-12)
    assert_array_equal(ours.predict(X * scale), plain.predict(X))
    assert_finite(ours)


@on_covariance_types
def test_float32_extremes(covariance_type):
    """The largest and the smallest normal numbers of float32: the fit is that of the same numbers in float64."""
    for scale in (2.0**120, 2.0**-115):
        rows = (X * scale).astype(np.float32)
        params = {"covariance_type": covariance_type, "reg_covar": 0.0, "resp_init": LABELS}
        ours, plain = fit(rows, **params), fit(rows.astype(np.float64), **params)
        assert_finite(ours)
        assert_allclose(ours.means_ / scale, plain.means_ / scale, rtol=1e-4, atol=1e-4)
        assert_allclose(ours.covariances_ / scale**2, plain.covariances_ / scale**2, rtol=1e-3, atol=1e-3)


FAR = [(dtype, value) for dtype in ("float64", "float32") for value in (1e5, 1e30, 3e38, 1e150)]


@on_covariance_types
@pytest.mark.parametrize(("dtype", "value"), FAR[:-1])  # float32 has no 1e150
def test_row_of_weight_0_is_removed_however_far(covariance_type, dtype, value):
    rows = np.r_[X, [[value, -value]]].astype(dtype)
    params = {"covariance_type": covariance_type, "max_iter": 10, "tol": 0.0}
    tolerance = {"float64": 1e-10, "float32": 1e-4}[dtype]
    ours = fit(rows, sample_weight=np.r_[np.ones(60), 0.0], resp_init=np.r_[LABELS, 0], **params)
    assert_close_fit(ours, fit(rows[:60], resp_init=LABELS, **params), tolerance)
    assert_finite(fit(rows, sample_weight=np.r_[np.ones(60), 0.0], **params))


@on_covariance_types
def test_one_far_row(covariance_type):
    """A single outlier at 1e100 gets its own component or, without reg_covar, a refusal that names the component."""
    rows = np.r_[X, [[1e100, 1e100]]]
    words = "component|covariance", "reg_covar"
    if covariance_type != "tied":
        refused(lambda: fit(rows, covariance_type=covariance_type, reg_covar=0.0), *words)


# properties of every small data set

SCALES = [1.0, 1.0, 1.0, 1e-3, 1e8, 1e-150, 1e150]
PHASES = [Phase.explicit, Phase.generate, Phase.shrink]  # without the explanation of failures, which takes minutes
CLEAR = r"\bX\b|component \d|common covariance|log-likelihood became"


def assert_finite(estimator):
    """Every attribute is finite, weights sum to 1 and covariances are positive definite."""
    for name in FITTED:
        assert np.isfinite(getattr(estimator, name)).all(), name
    assert (estimator.weights_ >= 0).all()
    assert estimator.weights_.sum() == pytest.approx(1.0, abs=1e-12)
    covariances = np.asarray(estimator.covariances_)
    if form_of(estimator.covariance_type) in ("full", "tied"):
        for matrix in covariances if covariances.ndim == 3 else [covariances]:
            assert_array_equal(matrix, matrix.T)
            np.linalg.cholesky(matrix)  # raises if it is not positive definite
    else:
        assert (covariances > 0).all()


def assert_close_fit(ours, theirs, tolerance=1e-10):
    for name in ("weights_", "means_", "covariances_"):
        expected = getattr(theirs, name)
        assert_allclose(
            getattr(ours, name), expected, rtol=tolerance, atol=tolerance * np.abs(expected).max(), err_msg=name
        )


@st.composite
def small_data(draw):
    """Rows with repeats, constant columns, columns of odd scales and offsets, and zero weights."""
    n_samples, n_features = draw(st.integers(2, 24)), draw(st.integers(1, 4))
    entry = st.one_of(st.integers(-3, 3).map(float), st.floats(-100, 100, allow_subnormal=False, width=32))
    rows = draw(arrays(np.float64, (n_samples, n_features), elements=entry))
    if draw(st.booleans()):
        rows = rows[draw(st.lists(st.integers(0, n_samples - 1), min_size=2, max_size=24))]
    for column in range(n_features):
        if draw(st.integers(0, 5)) == 0:
            rows[:, column] = rows[0, column]
        rows[:, column] *= draw(st.sampled_from(SCALES))
        rows[:, column] += draw(st.sampled_from([0.0, 0.0, 0.0, 1e6, -1e9]))
    weight = None
    if draw(st.booleans()):
        weight = draw(arrays(np.float64, len(rows), elements=st.sampled_from([0.0, 1.0, 1.0, 2.0, 0.125, 1e-9, 1e6])))
    return rows, weight


def found(rows, weight=None, n_components=1, init_params="kmeans", covariance_type="full", reg_covar=0.0):
    """A case that once made the test below fail."""
    return example(
        data=(np.array(rows), None if weight is None else np.array(weight)),
        n_components=n_components,
        covariance_type=covariance_type,
        init_params=init_params,
        reg_covar=reg_covar,
        single=False,
    )


def condition(covariances, rows, weight):
    """Largest ratio of variances of a component, in units of the columns: axes are found to this much rounding."""
    if covariances.ndim < 2 or covariances.shape[-1] != covariances.shape[-2]:
        return 1.0
    centred = rows - np.average(rows, axis=0, weights=weight)
    deviations = np.sqrt(np.average(centred**2, axis=0, weights=weight))
    variances = np.linalg.eigvalsh(covariances / deviations / deviations[:, None])
    return (variances[..., -1] / np.maximum(variances[..., 0], 1e-16 * variances[..., -1])).max()


def fit_or_refusal(*arguments, **params):
    try:
        return fit(*arguments, **params), None
    except ValueError as error:
        return None, error


@given(
    data=small_data(),
    n_components=st.integers(1, 5),
    covariance_type=st.sampled_from(EVERY_STRUCTURE),
    init_params=st.sampled_from(INIT_PARAMS),
    reg_covar=st.sampled_from([0.0, 0.0, 1e-6, 1e-2]),
    single=st.booleans(),
)
@settings(derandomize=True, deadline=None, max_examples=2500, phases=PHASES)
@found([[0.0], [0.0], [1e-150]], [1e-9, 0.0, 1.0])
@found([[0.0, 0.0], [0.0, 1e-150], [1.0, 0.0]], [1e-9, 1.0, 1.0])
@found([[0.0, 0.0], [1.4e151, 0.0], [0.0, 0.0]], [1e6, 1e6, 1e6])
@found([[0.0, 0.0, 0.0], [1e150, 0.0, 1e152], [0.0, 1e-3, 2e150]])
@found([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [66.77734375, 4.0, 0.0]])
@found([[0.0], [2.0], [-1.0], [1.0], [1.2e-38]], n_components=5, init_params="random_from_data")
@found(np.eye(11, 4, k=-7) + np.outer(np.arange(11) < 6, [0, 1e-150, 0, 0]), covariance_type="EEV")
@found(
    [[0.0, 0.0]] * 4 + [[-3.0, 0.0]] + [[0.0, 0.0]] * 5 + [[1.0, 0.0], [53.0, 0.0], [3.0, 0.0]] + [[0.0, 0.0]] * 2,
    [1e6] * 15,
    n_components=4,
    init_params="random",
    covariance_type="VEV",
    reg_covar=1e-6,
)
@found(
    [[0.0, 0.0, 0.0]] * 4 + [[0.0, 0.0, 1.0], [0.0, 1.0, -2.0], [1.0, 0.0, 0.0]],
    [0.0, 0.0, 0.0, 1.0, 1.0, 1e6, 1e-9],
    n_components=2,
    init_params="random",
    covariance_type="EVE",
)
def test_any_small_data(data, n_components, covariance_type, init_params, reg_covar, single):
    rows, weight = data
    if single:
        rows = np.clip(rows, -1e37, 1e37).astype(np.float32)
    params = {"covariance_type": covariance_type, "init_params": init_params, "reg_covar": reg_covar, "max_iter": 30}
    estimator, error = fit_or_refusal(rows, n_components, weight, **params)
    if error is not None:
        clear = CLEAR if weight is None or weight.any() else "sample_weight is zero"
        assert re.search(clear, str(error)), str(error)
        return
    assert_finite(estimator)
    assert isinstance(estimator.converged_, bool)
    if reg_covar == 0:
        bounds = np.array(estimator.lower_bounds_)
        noise = (1e-4 if single else 1e-9) * np.maximum(1.0, np.abs(bounds[1:]))
        if (np.diff(bounds) < -noise).any():
            noise *= np.clip(1e-7 * condition(estimator.covariances_, rows.astype(float), weight), 1.0, 1e4)
        assert (np.diff(bounds) >= -noise).all(), bounds
    labels, resp = estimator.predict(rows), estimator.predict_proba(rows)
    assert labels.min() >= 0
    assert labels.max() < n_components
    assert not np.isnan(estimator.score_samples(rows)).any()
    counted = slice(None) if weight is None else weight > 0
    assert_allclose(resp[counted].sum(axis=1), 1.0, atol=1e-12)
    assert (resp[counted][np.arange(len(resp[counted])), labels[counted]] >= resp[counted].max(axis=1) - 1e-12).all()


@functools.cache
def explicit(covariance_type, seed, n_features):
    """Overlapping rows on a grid of 2**-20, which shifts and powers of two leave exact, and labels to start from."""
    rng = np.random.default_rng(seed)
    labels = np.arange(90) % 3
    rows = rng.normal(size=(90, n_features)) + 2 * rng.normal(size=(3, n_features))[labels]
    return np.round(rows * 2**20) / 2**20, labels


on_seeds = given(
    covariance_type=st.sampled_from(EVERY_STRUCTURE), seed=st.integers(0, 2**32 - 1), n_features=st.integers(1, 5)
)
few = settings(derandomize=True, deadline=None, max_examples=200, phases=PHASES)
EXACT = {"reg_covar": 0.0, "max_iter": 10, "tol": 0.0, "stopping": "change", "n_race": 0, "acceleration": None}


@on_seeds
@few
def test_scaling_columns(covariance_type, seed, n_features):
    """Columns times powers of two: the same fit in other units, from every start."""
    rows, labels = explicit(covariance_type, seed, n_features)
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.integers(-60, 60, size=n_features)
    if covariance_type in ONE_UNIT:
        scale[:] = scale[0]
    square = {"full": scale[:, None] * scale, "tied": scale[:, None] * scale, "diag": scale**2}.get(
        form_of(covariance_type), scale[0] ** 2
    )
    init_params = INIT_PARAMS[seed % len(INIT_PARAMS)]
    for start in ({"resp_init": labels}, {"init_params": init_params}):
        params = {**EXACT, **start, "covariance_type": covariance_type}
        (plain, error), (ours, same_error) = (fit_or_refusal(x, 3, **params) for x in (rows, rows * scale))
        assert str(same_error) == str(error)
        if error is not None:  # a component has collapsed on a point, in both
            continue
        assert_allclose(ours.weights_, plain.weights_, rtol=1e-10)
        assert_allclose(ours.means_ / scale, plain.means_, rtol=1e-10, atol=1e-10)
        assert_allclose(ours.covariances_ / square, plain.covariances_, rtol=1e-10, atol=1e-10)
        shift = np.log(scale).sum()
        assert_allclose(ours.lower_bounds_, np.array(plain.lower_bounds_) - shift, rtol=1e-10, atol=1e-10)


@on_seeds
@few
def test_shifting_columns(covariance_type, seed, n_features):
    """Columns plus integers, exact on the grid: the same fit elsewhere."""
    rows, labels = explicit(covariance_type, seed, n_features)
    shift = np.random.default_rng(seed).integers(-(2**20), 2**20, size=n_features)
    params = {**EXACT, "resp_init": labels, "covariance_type": covariance_type}
    plain, ours = fit(rows, 3, **params), fit(rows + shift, 3, **params)
    assert_array_equal((rows + shift) - shift, rows)
    assert_allclose(ours.weights_, plain.weights_, rtol=1e-8)
    assert_allclose(ours.means_ - shift, plain.means_, atol=1e-8)
    assert_allclose(ours.covariances_, plain.covariances_, rtol=1e-8, atol=1e-8)
    assert_allclose(ours.lower_bounds_, plain.lower_bounds_, rtol=1e-10)


@on_seeds
@few
def test_permuting_rows(covariance_type, seed, n_features):
    rows, labels = explicit(covariance_type, seed, n_features)
    order = np.random.default_rng(seed).permutation(len(rows))
    plain = fit(rows, 3, resp_init=labels, covariance_type=covariance_type, **EXACT)
    ours = fit(rows[order], 3, resp_init=labels[order], covariance_type=covariance_type, **EXACT)
    assert_close_fit(ours, plain)
    assert_array_equal(ours.predict(rows), plain.predict(rows))


@on_seeds
@few
def test_permuting_components(covariance_type, seed, n_features):
    rows, labels = explicit(covariance_type, seed, n_features)
    order = np.array([2, 0, 1])
    plain = fit(rows, 3, resp_init=labels, covariance_type=covariance_type, **EXACT)
    ours = fit(rows, 3, resp_init=np.argsort(order)[labels], covariance_type=covariance_type, **EXACT)
    assert_allclose(ours.weights_, plain.weights_[order], rtol=1e-10)
    assert_allclose(ours.means_, plain.means_[order], atol=1e-10)


@on_seeds
@few
def test_weight_is_repetition(covariance_type, seed, n_features):
    """Weight 2 is the row twice and weight 0 is the row left out."""
    rows, labels = explicit(covariance_type, seed, n_features)
    counts = np.random.default_rng([seed, 1]).integers(0, 4, size=len(rows))
    ours = fit(rows, 3, counts, resp_init=labels, covariance_type=covariance_type, **EXACT)
    repeated = np.repeat(rows, counts, axis=0)
    theirs = fit(repeated, 3, resp_init=np.repeat(labels, counts), covariance_type=covariance_type, **EXACT)
    assert_close_fit(ours, theirs)
    assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-10)
    assert_allclose(ours.score(rows, sample_weight=counts), theirs.score(repeated), rtol=1e-10)


@on_seeds
@few
def test_weights_have_no_unit(covariance_type, seed, n_features):
    """All weights times a power of two, even an extreme one, give the same bits."""
    rows, labels = explicit(covariance_type, seed, n_features)
    weight = np.random.default_rng([seed, 1]).random(len(rows))
    unit = 2.0 ** [-1000, -3, 7, 1000][seed % 4]
    params = {**EXACT, "resp_init": labels, "covariance_type": covariance_type}
    ours, plain = fit(rows, 3, weight * unit, **params), fit(rows, 3, weight, **params)
    for name in ("weights_", "means_", "covariances_", "lower_bounds_"):
        assert_allclose(getattr(ours, name), getattr(plain, name), rtol=1e-12, err_msg=name)
