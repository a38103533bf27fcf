"""Several steps of EM in one kernel: the bits of single steps, from the same start to the same end or refusal."""

import numpy as np
import pytest
from conftest import simulate

import fastem
from fastem import Gaussian, Mixture, NormalInverseWishart
from fastem.climb import _AT_ONCE
from fastem.data import as_data
from fastem.families import gaussian
from fastem.kernels import steps, sweep
from fastem.kernels._jit import use_threads
from fastem.models import mixture_steps, skipping
from fastem.protocol import Ascent, DegenerateError, Status


def same(one, two):
    assert one.params.weights.tobytes() == two.params.weights.tobytes()
    for a, b in zip(one.params.components, two.params.components, strict=True):
        assert a.tobytes() == b.tobytes()
    assert one.history.tobytes() == two.history.tobytes()
    assert one[1] == two[1]
    assert one[3:5] == two[3:5]


def both(model, X, **options):
    """The fit as it is, and one whose single steps are watched."""
    options = {"random_state": 0, "tol": 1e-8, **options}
    return fastem.fit(model, X, **options), fastem.fit(model, X, callbacks=[lambda step: None], **options)


PRIOR = NormalInverseWishart(mean_precision=0.1, degrees_of_freedom=8.0)
MODELS = {
    "maximum likelihood": Mixture(Gaussian(), 3),
    "reg_covar": Mixture(Gaussian(reg_covar=1), 3),
    "prior": Mixture(Gaussian(prior=PRIOR), 3),
    "prior of means": Mixture(Gaussian(prior=NormalInverseWishart(mean_precision=2)), 3),
    "prior of weights": Mixture(Gaussian(), 3, weight_concentration=3),
    "priors of all": Mixture(Gaussian(prior=PRIOR), 9, weight_concentration=np.float32(1.7)),
    "nine components": Mixture(Gaussian(reg_covar=0.1), 9),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("max_iter", [1, _AT_ONCE - 1, _AT_ONCE, 3 * _AT_ONCE + 1, 500])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_several_steps_have_the_bits_of_single_ones(model, max_iter, dtype, rng):
    X = simulate(rng, 300, 2)
    if dtype == np.float32:  # no component of three is so thin that it wants float64
        X = (rng.normal(size=(300, 2)) + 2.0 * rng.integers(0, 3, (300, 1))).astype(dtype)
    one, two = both(model, X, max_iter=max_iter, tol=1e-8 if max_iter > 4 * _AT_ONCE else 0)
    same(one, two)
    assert one.n_iter == max_iter or one.status is Status.CONVERGED
    data = as_data(X)
    ascent = one.model.several_steps(one.params, data, 4)
    if dtype == np.float32 and model is MODELS["priors of all"] and max_iter > 4:
        return  # of few rows each, some are thin in the end
    assert len(ascent.objectives) == 4  # or nothing is tested here
    assert ascent.objectives[0] == pytest.approx(one.model.e_step(one.params, data.blocks[0]).log_likelihood + (
        one.model.log_prior(one.params)
    ), rel=1e-15)  # fmt: skip


def test_products_are_of_the_dtype_that_the_model_was_prepared_for(rng):
    """Which need not be that of the rows."""
    X = rng.normal(size=(300, 2)) + 2.0 * rng.integers(0, 3, (300, 1))
    rows = X.astype(np.float32)
    single = fastem.fit(Mixture(Gaussian(), 3), rows, max_iter=5, random_state=0)
    for model, data in (
        (single.model, rows),
        (single.model.in_double(), rows),
        (single.model, rows.astype(np.float64)),
    ):
        data = as_data(data)
        ascent, params = model.several_steps(single.params, data, 3), single.params
        assert len(ascent.objectives) == 3
        for log_likelihood in ascent.log_likelihoods:
            stats = model.e_step(params, data.blocks[0])
            assert stats.log_likelihood == log_likelihood
            params = model.m_step(stats, params)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n_features", "n_components"), [(1, 2), (2, 2), (7, 2), (20, 2), (20, 3), (17, 9)])
def test_weights_columns_and_rules(n_features, n_components, dtype, rng):
    """From 17 columns and 3 components on, eight components are taken at a time."""
    n_rows = 200 * n_components
    X = (
        rng.normal(size=(n_rows, n_features)) + 6.0 / n_components * rng.integers(0, n_components, (n_rows, 1))
    ).astype(dtype)
    weight = rng.integers(0, 3, n_rows) * 1.5
    for stopping in ("change", "aitken"):
        for family in (Gaussian(), Gaussian(prior=NormalInverseWishart(mean_precision=0.3))):
            same(*both(Mixture(family, n_components), X, sample_weight=weight, stopping=stopping, tol=1e-4))
    one = fastem.fit(Mixture(Gaussian(), n_components), X, tol=1e-4, random_state=0)
    assert one.status is Status.CONVERGED
    assert one.n_iter % _AT_ONCE  # a rule that stops between two calls
    assert len(one.model.several_steps(one.params, as_data(X), 2).objectives) == 2


def test_thin_components_are_left_to_single_steps(rng):
    """EM from apart, far from the origin of the frame, to components that have to be whitened."""
    X = rng.normal(size=(300, 2)) * [1.0, 1e-7] + np.outer(rng.integers(0, 2, 300), [3.0, 3.0])
    one, two = both(Mixture(Gaussian(), 2), X)
    same(one, two)
    ascent = one.model.several_steps(one.params, as_data(X), 4)
    assert len(ascent.objectives) == 0
    assert ascent.point(0).weights.tobytes() == one.params.weights.tobytes()


def test_a_collapse_is_refused_alike(rng):
    X = np.concatenate([rng.normal(size=(50, 2)), np.full((3, 2), 9.0)])
    start = np.repeat([0, 1], [48, 5])
    words = []
    for callbacks in ([], [lambda step: None]):
        with pytest.raises(DegenerateError) as caught:
            fastem.fit(Mixture(Gaussian(), 2, start=start), X, tol=0, max_iter=400, callbacks=callbacks)
        words.append(str(caught.value))
    assert words[0] == words[1]
    assert "singular covariance" in words[0]


def test_what_is_not_finite_is_refused_alike(rng):
    """A component of weight 0 under a prior of the weights."""
    X = rng.normal(size=(60, 2))
    model = Mixture(Gaussian(), 2, weight_concentration=2.0)
    start = fastem.fit(model, X, random_state=0)
    empty = start.params._replace(weights=np.array([1.0, 0.0]))
    assert len(start.model.several_steps(start.params, as_data(X), 4).objectives) == 4
    assert len(start.model.several_steps(empty, as_data(X), 4).objectives) == 0
    words = []
    for callbacks in ([], [lambda step: None]):
        with pytest.raises(DegenerateError, match="became -inf at iteration 1") as caught:
            fastem.fit(model, X, start=empty, callbacks=callbacks)
        words.append(str(caught.value))
    assert words[0] == words[1]


def test_numbers_near_the_largest(rng):
    """A count times a covariance is beyond all numbers, their posterior mode is not."""
    X = 1e150 * rng.normal(size=(100, 2))
    weight = np.full(100, 1e9)
    one, two = both(Mixture(Gaussian(prior=NormalInverseWishart())), X, sample_weight=weight)
    same(one, two)
    np.testing.assert_allclose(one.params.components.covariances[0], np.cov(X.T, bias=True), rtol=1e-6)


def test_a_prior_that_is_not_resolved_adds_nothing(rng):
    X = rng.normal(size=(60, 2))
    params = fastem.fit(Mixture(Gaussian()), X).params
    assert Mixture(Gaussian(prior=NormalInverseWishart())).log_prior(params) == 0.0


def test_an_interrupt_keeps_whole_batches(rng):
    X = simulate(rng, 300, 2)
    asked = []

    def rule(history, tol):
        asked.append(len(history))
        if len(asked) == _AT_ONCE + 5:
            raise KeyboardInterrupt
        return False

    found = fastem.fit(Mixture(Gaussian(), 3), X, stopping=rule, random_state=0)
    assert found.status is Status.INTERRUPTED
    assert found.n_iter == len(found.history) == _AT_ONCE
    want = fastem.fit(Mixture(Gaussian(), 3), X, tol=0, max_iter=_AT_ONCE, random_state=0)
    assert found.params.weights.tobytes() == want.params.weights.tobytes()
    assert found.log_likelihood == want.log_likelihood


def test_after_a_closer_look_steps_go_together_again(rng, monkeypatch):
    X = simulate(rng, 300, 2)
    asked = []
    several = Mixture.several_steps

    def watched(model, params, data, n_steps):
        asked.append(n_steps)
        ascent = several(model, params, data, n_steps)
        return ascent._replace(objectives=ascent.objectives[:3], pause=_AT_ONCE) if len(asked) == 1 else ascent

    want = fastem.fit(Mixture(Gaussian(), 3), X, tol=0, max_iter=60, random_state=0)
    monkeypatch.setattr(Mixture, "several_steps", watched)
    same(fastem.fit(Mixture(Gaussian(), 3), X, tol=0, max_iter=60, random_state=0), want)
    assert asked == [_AT_ONCE, _AT_ONCE, _AT_ONCE, 60 - 3 - 3 * _AT_ONCE]


def test_what_has_no_kernel_says_so(rng):
    X = simulate(rng, 300, 2)
    data, blocks = as_data(X), fastem.Blocks([X[:100], X[100:]])

    def ascent(model, rows=data, **options):
        result = fastem.fit(model, rows, random_state=0, max_iter=2, **options)
        return result.model.several_steps(result.params, rows, 2)

    assert ascent(Mixture(Gaussian(), 2)) is not None
    for family in (Gaussian("diag"), Gaussian("EEV"), fastem.StudentT()):
        assert ascent(Mixture(family, 2)) is None
    assert ascent(Mixture(Gaussian(), 2, weight_cost=1.0)) is None
    assert ascent(Mixture(Gaussian(), 2, frozen={"weights": True}, weights_init=[0.5, 0.5])) is None
    assert ascent(Mixture(Gaussian(), 2), blocks) is None
    assert ascent(Mixture(Gaussian(), 2), as_data(X.astype(np.float32), np.full(len(X), 1e-9))) is None
    holes = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    assert ascent(Mixture(Gaussian(), 2), as_data(holes, allow_nan=True)) is None


def test_long_passes_are_left_to_single_steps(rng, monkeypatch):
    X = simulate(rng, 300, 2)
    result = fastem.fit(Mixture(Gaussian(), 2), X, random_state=0)
    work = 300 * (2 * (6 + mixture_steps._OF_PAIR) + mixture_steps._OF_ROW)
    monkeypatch.setattr(mixture_steps, "_WORK", 3 * work)
    assert len(result.model.several_steps(result.params, as_data(X), 7).objectives) == 3
    monkeypatch.setattr(mixture_steps, "_WORK", 2 * work - 1)
    assert result.model.several_steps(result.params, as_data(X), 7) is None


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("may_skip", [False, True])
def test_steps_on_threads_have_the_bits_of_single_ones(may_skip, n_threads, rng, monkeypatch):
    """Also where every so often a step looks whether rows should be put in order, and then steps skip pairs."""
    labels = rng.integers(0, 9, 20_000)
    X = 15.0 * np.stack([labels // 3, labels % 3], axis=1) + rng.normal(size=(20_000, 2))
    monkeypatch.setattr(skipping, "_SMALL_WORK", 0 if may_skip else np.inf)
    monkeypatch.setattr(skipping, "_GATHERING", 0.0)
    done, orders, n_turns = [], [], []
    several, order_by, runner_for = Mixture.several_steps, skipping.order_by, steps.runner_for

    def watched(model, params, data, n_steps):
        ascent = several(model, params, data, n_steps)
        done.append(len(ascent.objectives))
        return ascent

    monkeypatch.setattr(Mixture, "several_steps", watched)
    monkeypatch.setattr(skipping, "order_by", lambda *arguments: orders.append(1) or order_by(*arguments))
    monkeypatch.setattr(steps, "runner_for", lambda turns: n_turns.append(len(turns)) or runner_for(turns))
    monkeypatch.setattr(sweep, "_SERIAL_WORK", 0)
    start = np.where(rng.random(20_000) < 0.8, rng.integers(0, 9, 20_000), labels)
    model = Mixture(Gaussian(), 9, start=start, n_threads=n_threads)
    one, two = both(model, X, max_iter=70, tol=0)
    same(one, two)
    assert 0 < sum(done) < 70 if may_skip else sum(done) == 70
    assert len(orders) == 2 if may_skip else not orders  # one in each fit
    assert set(n_turns) == {use_threads(n_threads)}


@pytest.mark.parametrize("prior", [None, PRIOR])
def test_the_steps_agree_with_numpy(prior, rng, monkeypatch):
    X = simulate(rng, 300, 2)
    model = Mixture(Gaussian(prior=prior, reg_covar=1e-3), 3)
    one = fastem.fit(model, X, max_iter=20, tol=0, random_state=0)
    assert one.model.several_steps(one.params, as_data(X), 1) is not None
    monkeypatch.setattr(gaussian, "_FEW_COLUMNS", 0)
    two = fastem.fit(model, X, max_iter=20, tol=0, random_state=0)
    assert two.model.several_steps(two.params, as_data(X), 1) is None
    np.testing.assert_allclose(one.history, two.history, rtol=1e-11)
    np.testing.assert_allclose(one.params.components.covariances, two.params.components.covariances, rtol=1e-7)


def test_max_time_ends_a_climb(rng):
    X = rng.normal(size=(200, 2))
    result = fastem.fit(Mixture(Gaussian(), 4), X, tol=0, max_iter=10**7, max_time=0.2, random_state=0)
    assert result.status is Status.MAX_TIME
    assert result.n_iter > _AT_ONCE


def test_no_more_steps_go_together_than_there_is_time_for(rng):
    X = rng.normal(size=(20_000, 2))
    options = {"tol": 0, "max_iter": 1000, "random_state": 0, "n_race": 0}
    result = fastem.fit(Mixture(Gaussian(), 3), X, max_time=1e-9, **options)
    assert result.status is Status.MAX_TIME
    assert result.n_iter == 1


def test_a_model_that_can_take_no_steps_ends_all_the_same(rng, monkeypatch):
    X = simulate(rng, 300, 2)
    want = fastem.fit(Mixture(Gaussian(), 3), X, tol=0, max_iter=9, random_state=0)
    nothing = Ascent(1.0, np.empty(0), np.empty(0), None, 0)
    monkeypatch.setattr(Mixture, "several_steps", lambda *_: nothing)
    same(fastem.fit(Mixture(Gaussian(), 3), X, tol=0, max_iter=9, random_state=0), want)
