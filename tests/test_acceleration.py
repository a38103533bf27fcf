"""Accelerated fits: monotone, to the same optimum, in fewer passes; and what else ends a fit."""

import itertools
import signal
import threading
import warnings

import numpy as np
import pytest
from conftest import STRUCTURES, TYPES, simulate
from sklearn.exceptions import ConvergenceWarning

import fastem
from fastem import Gaussian, GaussianMixture, Mixture
from fastem.acceleration import Anderson, Squarem
from fastem.data import as_data
from fastem.protocol import DegenerateError, Status

LEAPING = ("anderson", "squarem")


def overfitted(rng, n_samples=4000):
    """Two clusters in two columns, for a fit of four components: EM is slow."""
    X = rng.normal(size=(n_samples, 2))
    X[: n_samples // 2] += 3.0
    return X


@pytest.mark.parametrize("covariance_type", TYPES + STRUCTURES)
def test_coordinates_go_there_and_back(covariance_type, rng):
    X = simulate(rng, 500, 3, 3) * [1e-3, 1.0, 1e4] + 7.0
    result = fastem.fit(Mixture(Gaussian(covariance_type), 3), X, max_iter=3, tol=0, random_state=0)
    model, params = result.model, result.params
    vector = model.pack(params)
    assert vector.ndim == 1
    again = model.unpack(vector)
    np.testing.assert_allclose(again.weights, params.weights, rtol=1e-13)
    for one, other in zip(again.components, params.components, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * np.abs(other).max())
    np.testing.assert_allclose(model.pack(again), vector, rtol=1e-9, atol=1e-9)
    moved = model.unpack(vector + 0.1 * rng.normal(size=vector.size))  # any vector is a parameter
    model.check_params(moved)
    for wild in (1e4, np.nan, np.inf):
        with pytest.raises(DegenerateError, match="overflow"):
            model.unpack(np.full(vector.size, wild))


@pytest.mark.parametrize("acceleration", LEAPING)
@pytest.mark.parametrize("covariance_type", TYPES + STRUCTURES)
@pytest.mark.parametrize("prior", [None, "auto"])
def test_leaps_are_monotone_and_reach_the_same_optimum(acceleration, covariance_type, prior, rng):
    X = simulate(rng, 1500, 3, 3, separation=2.0)
    options = {"random_state": 3, "reg_covar": 0.0, "covariance_type": covariance_type, "covariance_prior": prior}
    options |= {"n_race": 0, "stopping": "change", "tol": 1e-10, "max_iter": 20_000}
    plain = GaussianMixture(3, acceleration=None, **options).fit(X)
    fast = GaussianMixture(3, acceleration=acceleration, **options).fit(X)
    assert fast.converged_
    assert fast.n_iter_ <= 1.1 * plain.n_iter_ + 3
    assert np.diff(fast.lower_bounds_).min() >= -1e-12
    assert fast.lower_bound_ == pytest.approx(plain.lower_bound_, abs=2e-7)


@pytest.mark.parametrize("acceleration", LEAPING)
def test_leaps_take_far_fewer_passes_where_em_is_slow(acceleration, rng):
    X = overfitted(rng)
    options = {"random_state": 0, "reg_covar": 0.0, "max_iter": 100_000, "stopping": "aitken", "tol": 1e-6, "n_race": 0}
    plain = GaussianMixture(3, acceleration=None, **options).fit(X)
    fast = GaussianMixture(3, acceleration=acceleration, **options).fit(X)
    assert plain.n_iter_ > 300
    assert fast.n_iter_ < 0.5 * plain.n_iter_
    assert fast.lower_bound_ > plain.lower_bound_ - 5e-6


def test_a_leap_downhill_is_taken_back(rng):
    """An accelerator that always leaps to nonsense costs passes, and changes nothing."""

    class Wild(Squarem):
        refused = 0

        def leap(self, model, trail):
            return model.unpack(model.pack(trail[-1]) + 3.0) if len(trail) > 2 else None

        def rejected(self):
            Wild.refused += 1

    X = simulate(rng, 600, 2, 2, separation=1.0)  # so close that 21 steps do not end
    options = {"random_state": 1, "max_iter": 21, "tol": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fastem.acceleration.ACCELERATIONS, "squarem", Wild)
        wild = fastem.fit(Mixture(Gaussian(), 2), X, acceleration="squarem", **options)
    plain = fastem.fit(Mixture(Gaussian(), 2), X, **options)
    assert Wild.refused > 5
    assert wild.n_iter == 21
    assert len(wild.history) == 21 - Wild.refused
    assert np.array_equal(wild.history, plain.history[: len(wild.history)])


class Line:
    """A model whose EM moves a point a share of its way to the optimum of a parabola, or as a test has it."""

    def __init__(self, image):
        self.image = image

    def pack(self, params):
        return params

    def unpack(self, vector):
        return vector


def trail_of(model, start, n=3):
    points = [np.asarray(start, dtype=float)]
    for _ in range(n - 1):
        points.append(model.image(points[-1]))
    return points


def test_anderson_solves_a_linear_map_in_as_many_leaps_as_it_has_slow_directions():
    rates = np.array([0.999, 0.99, 0.9])
    model, accelerator = Line(lambda x: rates * x), Anderson()
    x = np.array([1.0, -2.0, 3.0])
    for _ in range(5):
        leap = accelerator.leap(model, [x, model.image(x)])
        x = model.image(x) if leap is None else leap
        if leap is not None:
            accelerator.accepted()
    assert np.abs(x).max() < 1e-9
    assert accelerator.horizon > 100


def test_anderson_yields_to_squared_extrapolation_for_longer_and_longer():
    model, accelerator = Line(lambda x: 0.99 * x), Anderson()
    trail = trail_of(model, [1.0, 2.0])

    def spell():
        """Leaps by squared extrapolation, after two refusals."""
        refusals = 0
        while refusals < 2:
            refusals += accelerator.leap(model, trail) is not None and not accelerator.rejected()
        n = 0
        while accelerator.spell:
            squared = Squarem().leap(model, trail)
            assert np.array_equal(accelerator.leap(model, trail), squared)
            accelerator.accepted()
            n += 1
        return n

    assert [spell() for _ in range(3)] == [2, 4, 8]
    for _ in range(5):
        if accelerator.leap(model, trail) is not None:
            accelerator.accepted()
    assert spell() == 8  # four leaps taken in a row halve it


def test_long_vectors_leap_to_the_same_bits_on_any_number_of_threads(rng):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    rates = rng.uniform(0.9, 0.999, size=40_000)
    model, start = Line(lambda x: rates * x), rng.normal(size=40_000)
    leaps = []
    for n_threads in (1, 2):
        with threadpoolctl.threadpool_limits(n_threads):
            squared, anderson = Squarem(), Anderson()
            points = trail_of(model, start, 4)
            leaps.append([squared.leap(model, points)])
            for i in range(2, 5):
                leaps[-1].append(anderson.leap(model, points[:i]))
    for one, two in zip(*leaps, strict=True):
        assert (one is None and two is None) or np.array_equal(one, two)


def test_the_last_leap_is_not_returned_untried(rng):
    """Whatever max_iter, the parameters returned are no worse than the last objective."""
    X = overfitted(rng)
    for max_iter, acceleration in itertools.product(range(1, 14), LEAPING):
        result = fastem.fit(
            Mixture(Gaussian(), 4), X, acceleration=acceleration, max_iter=max_iter, tol=0.0, random_state=0
        )
        reached = result.model.log_densities(result.params, X).sum()
        assert reached >= result.log_likelihood - 1e-9 * abs(reached)


def test_a_model_without_coordinates_is_refused(rng):
    class Bare:
        def e_step(self, params, block):
            raise AssertionError

    with pytest.raises(ValueError, match=r"pack.*Bare lacks"):
        fastem.fit(Bare(), rng.normal(size=(5, 1)), acceleration="squarem")
    for wrong in ("quick", 3, ["squarem"]):
        with pytest.raises(ValueError, match="acceleration must be one of"):
            fastem.fit(Mixture(Gaussian()), rng.normal(size=(5, 1)), acceleration=wrong)


def test_max_time(rng):
    X = overfitted(rng)
    options = {"random_state": 0, "stopping": "change", "tol": 0.0, "max_iter": 10**9, "n_init": 3}
    with pytest.warns(ConvergenceWarning, match="max_time=0.2 seconds"):
        fitted = GaussianMixture(4, max_time=0.2, **options).fit(X)
    assert fitted.status_ is Status.MAX_TIME
    assert not fitted.converged_
    with pytest.warns(ConvergenceWarning, match="max_time"):
        assert GaussianMixture(4, max_time=0, **options).fit(X).n_iter_ == 1
    for wrong in (-1.0, np.nan, "1"):
        with pytest.raises(ValueError, match="max_time must be"):
            fastem.fit(Mixture(Gaussian()), X, max_time=wrong)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to a thread")
def test_control_c_keeps_the_best_so_far(rng):
    X = overfitted(rng)
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))

    def begin(step):  # the climb on all rows: before, there may be nothing to keep
        if step.n_iter == 1:
            timer.start()

    try:
        with pytest.warns(ConvergenceWarning, match="was interrupted and kept"):
            fitted = GaussianMixture(4, stopping="change", tol=0.0, max_iter=10**9, random_state=0).fit(
                X, callbacks=[begin]
            )
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, old)
    assert fitted.status_ is Status.INTERRUPTED
    assert fitted.score(X) >= fitted.lower_bound_ - 1e-12


def test_interrupted_at_the_second_start_keeps_the_first(rng):
    X = overfitted(rng, 400)
    seen = []

    class Stopping(Mixture):
        def initialize(self, data, rng):
            seen.append(1)
            if len(seen) == 2:
                raise KeyboardInterrupt
            return super().initialize(data, rng)

    result = fastem.fit(Stopping(Gaussian(), 2), as_data(X), n_init=5, max_iter=3, tol=0.0, random_state=0)
    assert result.status is Status.INTERRUPTED
    assert len(seen) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(result.history).all()
