"""The batch driver: stopping, restarts, callbacks, status; on a model that is not a mixture, and on mixtures."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from conftest import simulate

import fastem
from fastem import Gaussian, Mixture
from fastem.climb import aitken, change
from fastem.protocol import DegenerateError, Status, add_stats


class LinkageStats(NamedTuple):
    weight: float
    log_likelihood: float
    hidden: float
    rest: float


class Linkage:
    """The genetic linkage example (Dempster, Laird & Rubin 1977, section 1): cells 1/2 + t/4, (1-t)/4, (1-t)/4, t/4.

    Shows that the driver knows nothing but the protocol.
    """

    starts = (0.5,)

    def __init__(self, starts=(0.5,)):
        self.starts = iter(starts)

    def prepare(self, data):
        return self

    def check_params(self, t):
        return t

    def initialize(self, data, rng):
        return next(self.starts)

    def e_step(self, t, block):
        (y,) = block.X
        if not 0 < t < 1:
            raise DegenerateError("t must lie between 0 and 1")
        cells = np.array([0.5 + t / 4, (1 - t) / 4, (1 - t) / 4, t / 4])
        return LinkageStats(y.sum(), float(y @ np.log(cells)), y[0] * (t / 4) / (0.5 + t / 4) + y[3], y[1] + y[2])

    def m_step(self, stats, t):
        return stats.hidden / (stats.hidden + stats.rest)

    def log_prior(self, t):
        return 0.0


COUNTS = np.array([[125.0, 18.0, 20.0, 34.0]])


def test_a_foreign_model_through_the_protocol():
    result = fastem.fit(Linkage(), COUNTS, tol=1e-15, max_iter=200)
    assert result.params == pytest.approx((15 + math.sqrt(53809)) / 394, rel=1e-8)
    assert result.status is Status.CONVERGED
    assert (np.diff(result.history) >= -1e-12).all()
    assert result.n_iter == len(result.history)
    assert result.log_likelihood == result.history[-1]


def test_the_best_start_is_kept_and_degenerate_ones_are_passed_over():
    result = fastem.fit(Linkage((1.5, 0.01, 0.5)), COUNTS, n_init=3, max_iter=1, tol=0)
    assert result.history[0] == fastem.fit(Linkage((0.5,)), COUNTS, max_iter=1, tol=0).history[0]
    with pytest.raises(DegenerateError, match="between 0 and 1"):
        fastem.fit(Linkage((1.5, 2.5)), COUNTS, n_init=2)


def test_callbacks_see_every_iteration_and_can_stop():
    seen = []

    def watch(step):
        seen.append(step)
        return step.n_iter == 4

    result = fastem.fit(Linkage(), COUNTS, tol=0, callbacks=[watch])
    assert result.status is Status.CALLBACK
    assert [step.n_iter for step in seen] == [1, 2, 3, 4]
    assert [step.objective for step in seen] == result.history.tolist()
    assert seen[0].change == math.inf
    assert seen[2].change == pytest.approx((result.history[2] - result.history[1]) / COUNTS.sum())
    assert seen[0].params == 0.5


def test_max_iter_is_reported():
    result = fastem.fit(Linkage(), COUNTS, tol=0, max_iter=3)
    assert result.status is Status.MAX_ITER
    assert result.n_iter == 3
    assert "max_iter" in result.status.value


def test_a_custom_rule_and_an_explicit_start():
    result = fastem.fit(Linkage(), COUNTS, start=0.6, stopping=lambda history, tol: len(history) == 2)
    assert result.n_iter == 2
    assert result.status is Status.CONVERGED


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_iter": -1}, "max_iter"),
        ({"n_init": 0}, "n_init"),
        ({"tol": -1.0}, "tol"),
        ({"tol": math.nan}, "tol"),
        ({"stopping": "soon"}, "stopping"),
    ],
)
def test_arguments_are_refused_before_computing(arguments, words):
    model = Linkage()
    model.e_step = None
    with pytest.raises(ValueError, match=words):
        fastem.fit(model, COUNTS, **arguments)


def test_the_objective_costs_no_extra_pass():
    passes = []

    class Counting(Linkage):
        def e_step(self, t, block):
            passes.append(t)
            return super().e_step(t, block)

    result = fastem.fit(Counting(), COUNTS, tol=1e-8)
    assert len(passes) == result.n_iter


def test_no_blocks_is_an_error():
    with pytest.raises(ValueError, match="no blocks"):
        add_stats([])


# stopping rules


def test_change_stops_on_the_size_of_the_last_change():
    assert not change([0.0], 1.0)
    assert change([0.0, 0.5], 1.0)
    assert change([0.5, 0.0], 1.0)
    assert not change([0.0, 1.0], 1.0)


def test_aitken_stops_on_the_distance_to_the_limit():
    limit, ratio = 3.0, 0.9
    history = [limit - ratio**i for i in range(200)]
    stops = next(n for n in range(3, 200) if aitken(history[:n], 1e-3))
    assert ratio ** (stops - 1) == pytest.approx(1e-3, rel=0.2)  # `change` would stop at a distance of 9e-3
    early = next(n for n in range(3, 200) if change(history[:n], 1e-3))
    assert ratio ** (early - 1) > 5e-3


def test_aitken_stops_where_only_noise_is_left_but_not_while_gains_grow():
    assert aitken([1.0, 2.0, 2.0], 0.0)
    assert not aitken([0.0, 1.0, 3.0], 1e9)
    assert not aitken([0.0, 1.0], 1e9)


def test_aitken_stops_where_rounding_makes_steps_fall(rng):
    up_and_down = [-2.0, -1.0, *np.resize([-1.0 + 1e-6, -1.0], 9)]
    assert not aitken(up_and_down[:4], 1e-9)  # one fall may be chance
    assert aitken(up_and_down[:6], 1e-9)
    X = simulate(rng, 40_000, 3, 4, separation=4.0).astype(np.float32)
    for acceleration in (None, "squarem", "anderson"):
        result = fastem.fit(
            Mixture(Gaussian("spherical"), 4),
            X,
            stopping="aitken",
            tol=1e-9,
            max_iter=200,
            random_state=0,
            acceleration=acceleration,
        )
        assert result.status is Status.CONVERGED
        assert result.n_iter < 60


def test_aitken_goes_on_where_scikit_learns_rule_stops_short(rng):
    X = rng.normal(size=(2000, 1)) + np.where(rng.random((2000, 1)) < 0.25, 2.0, 0.0)
    model = fastem.Mixture(fastem.Gaussian(), 2)
    options = {"random_state": 0, "max_iter": 20_000}
    best = fastem.fit(model, X, tol=1e-13, **options).log_likelihood
    loose = fastem.fit(model, X, tol=1e-6, **options)
    true = fastem.fit(model, X, tol=1e-6, stopping="aitken", **options)
    assert best - loose.log_likelihood > 10 * 1e-6 * len(X)
    assert best - true.log_likelihood < 2 * 1e-6 * len(X)


def test_no_iterations_return_the_start():
    result = fastem.fit(Linkage(), COUNTS, max_iter=0)
    assert result.params == 0.5
    assert result.n_iter == 0
    assert result.status is Status.MAX_ITER


def test_more_starts_are_never_worse(rng):
    X = simulate(rng, 300, 2, 5, separation=2)
    model = fastem.Mixture(fastem.Gaussian(), 5, start="random_from_data")
    reached = [fastem.fit(model, X, n_init=n, random_state=0, max_iter=30).history[-1] for n in (1, 3, 8)]
    assert reached[0] <= reached[1] <= reached[2]
    assert reached[2] > reached[0]


def test_the_same_seed_gives_the_same_bits(rng):
    X = simulate(rng)
    for start in ("kmeans", "k-means++", "random", "random_from_data"):
        model = fastem.Mixture(fastem.Gaussian(), 3, start=start)
        one, two, other = (fastem.fit(model, X, random_state=seed, max_iter=5, tol=0) for seed in (1, 1, 2))
        assert np.array_equal(one.history, two.history)
        assert not np.array_equal(one.history, other.history) or start == "kmeans"
