"""What users do to a GaussianMixture besides fitting it: set attributes, pickle, warm starts, mixed options."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import PACKAGE, simulate
from sklearn.mixture import GaussianMixture as Theirs

from fastem import GaussianMixture, Status

TYPES = ("full", "tied", "diag", "spherical")


@pytest.mark.parametrize("kind", TYPES)
def test_attributes_set_by_hand_as_scikit_learn_users_do(kind, rng):
    X = simulate(rng)
    fitted = Theirs(3, covariance_type=kind, random_state=0).fit(X)
    ours = GaussianMixture(3, covariance_type=kind)
    ours.weights_, ours.means_, ours.precisions_cholesky_ = fitted.weights_, fitted.means_, fitted.precisions_cholesky_
    np.testing.assert_allclose(ours.score_samples(X), fitted.score_samples(X), rtol=1e-10)
    ours.covariances_ = fitted.covariances_
    np.testing.assert_allclose(ours.score_samples(X), fitted.score_samples(X), rtol=1e-10)
    for width in (2, 5):
        with pytest.raises(ValueError, match=f"X has {width} features"):
            ours.score_samples(np.zeros((4, width)))
    ours.weights_ = fitted.weights_[:2]
    with pytest.raises(ValueError, match="do not fit together"):
        ours.predict(X)


def test_score_leaves_rows_of_weight_zero_out():
    ours = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1e-6]]])
    assert ours.score([[0.0], [1e152]], sample_weight=[1.0, 0.0]) == ours.score([[0.0]])


def test_status_is_pickled_by_name():
    data = pickle.dumps(Status.CONVERGED)
    assert pickle.loads(data) is Status.CONVERGED
    assert Status.CONVERGED.value.encode() not in data


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"degrees_of_freedom_prior": 5.0}, "degrees_of_freedom_prior needs covariance_prior"),
        (
            {"degrees_of_freedom_prior": 5.0, "mean_precision_prior": 1.0},
            "degrees_of_freedom_prior needs covariance_prior",
        ),
        ({"mean_prior": [0.0, 0.0, 0.0]}, "mean_prior needs mean_precision_prior"),
    ],
)
def test_prior_options_without_effect_are_refused(options, words, rng):
    with pytest.raises(ValueError, match=words):
        GaussianMixture(2, **options).fit(simulate(rng))


def test_auto_prior_of_a_constant_column_names_it(rng):
    X = simulate(rng)
    X[:, 1] = 3.0
    with pytest.raises(ValueError, match="column 1 of X is constant"):
        GaussianMixture(2, covariance_prior="auto").fit(X)


def test_covariance_prior_without_a_prior_of_the_means(rng):
    X = simulate(rng, 50, 2, 1)
    options = {"covariance_prior": np.eye(2), "degrees_of_freedom_prior": 6.0, "reg_covar": 0.0}
    gm = GaussianMixture(1, mean_precision_prior=0.0, **options).fit(X)
    scatter = (X - X.mean(axis=0)).T @ (X - X.mean(axis=0))
    np.testing.assert_allclose(gm.means_[0], X.mean(axis=0))
    np.testing.assert_allclose(gm.covariances_[0], (np.eye(2) + scatter) / (6 + 50 + 2 + 1))


def test_warm_start_goes_on_where_the_last_fit_ended(rng):
    X = simulate(rng)
    gm = GaussianMixture(3, random_state=0, warm_start=True, tol=0, max_iter=3, n_race=0, stopping="change")
    with pytest.warns(match="did not converge"):
        gm.fit(X)
    reached = gm.lower_bound_
    with pytest.warns(match="did not converge"):
        gm.fit(X)
    assert gm.lower_bounds_[0] > reached
    with pytest.raises(ValueError, match="warm_start"):
        gm.set_params(covariance_type="diag").fit(X)


# The bits of a fit must not depend on BLAS, whose bits depend on its number of threads.
BITS = """
import sys, hashlib, warnings
import numpy as np
warnings.simplefilter("ignore")
from fastem import GaussianMixture
digest = hashlib.sha256()
for n_samples, n_features, kind in ((30_000, 40, "diag"), (3_000, 130, "full"), (3_000, 130, "tied")):
    X = np.random.default_rng(0).normal(size=(n_samples, n_features)) * np.linspace(1, 3, n_features)
    options = dict(n_race=2, split_merge=kind == "full", reg_covar=1e-2)
    gm = GaussianMixture(3, covariance_type=kind, max_iter=2, tol=0, random_state=0, n_threads=1, **options).fit(X)
    expected = gm.predict_conditional(X[:, :20], np.arange(20))
    for array in (gm.means_, gm.covariances_, gm.precisions_cholesky_, np.array(gm.lower_bounds_), expected):
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_bits_do_not_depend_on_the_threads_of_blas():
    import os

    seen = set()
    for n_threads in ("1", "2", "4"):
        names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, n_threads), "PYTHONPATH": str(PACKAGE.parent)}
        done = subprocess.run([sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True)
        seen.add(done.stdout)
    assert len(seen) == 1


def test_the_threads_of_blas_are_put_back_after_overlapping_uses():
    import threadpoolctl

    from fastem.kernels._jit import one_blas_thread

    def blas_threads():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        first, second = one_blas_thread(10**9), one_blas_thread(10**9)
        first.__enter__()
        second.__enter__()
        assert set(blas_threads()) == {1}
        first.__exit__(None, None, None)
        assert set(blas_threads()) == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before
        with one_blas_thread(10):
            assert blas_threads() == before


def test_names_of_parameters_are_the_callers_own():
    before = GaussianMixture().get_params()
    GaussianMixture._get_param_names().clear()
    assert GaussianMixture().get_params() == before

    class Mine(GaussianMixture):
        def __init__(self, n_components=1):
            super().__init__(n_components)

    assert Mine._get_param_names() == ["n_components"]
