"""Starts that race on a sample."""

import numpy as np
import pytest
from conftest import simulate

import fastem
from fastem import Gaussian, GaussianMixture, Mixture
from fastem.data import Block, Data, as_data
from fastem.protocol import Status

OPTIONS = {"reg_covar": 0.0, "tol": 1e-4, "stopping": "aitken", "max_iter": 20_000}


def clusters(rng, n_samples=30_000):
    """Twelve clusters in a plane, some near others: k-means often puts two centres into one."""
    centres = rng.normal(size=(12, 2)) * 6.0
    return centres[rng.integers(12, size=n_samples)] + rng.normal(size=(n_samples, 2))


def test_the_worst_race_beats_the_worst_start(rng):
    X = clusters(rng)
    single = [GaussianMixture(12, random_state=s, **OPTIONS).fit(X).lower_bound_ for s in range(8)]
    raced = [GaussianMixture(12, random_state=s, n_race=6, **OPTIONS).fit(X).lower_bound_ for s in range(8)]
    assert min(raced) > min(single)
    assert np.median(raced) >= np.median(single) - 1e-4


def test_few_passes_read_all_rows(rng):
    """The winner arrives on all rows where EM has little left to do; what the samples took is not counted."""
    X = clusters(rng)
    options = OPTIONS | {"random_state": 0}
    assert GaussianMixture(12, n_race=6, **options).fit(X).n_iter_ < GaussianMixture(12, **options).fit(X).n_iter_


def test_the_same_seed_gives_the_same_bits(rng):
    X = clusters(rng)
    one, two = (GaussianMixture(12, n_race=3, random_state=4, n_threads=n).fit(X) for n in (1, 2))
    assert np.array_equal(one.means_, two.means_)


def test_rows_of_weight_zero_are_never_drawn(rng):
    X = clusters(rng)
    weight = np.ones(len(X))
    weight[::2] = 0.0
    X[::2] = 1e6
    fitted = GaussianMixture(3, n_race=2, random_state=0).fit(X, sample_weight=weight)
    assert np.abs(fitted.means_).max() < 100


def test_a_small_problem_races_on_all_rows(rng):
    X = simulate(rng, 300, 2, 3)
    fitted = GaussianMixture(3, n_race=4, random_state=0).fit(X)
    assert fitted.converged_


def test_samples_of_data(rng):
    X = np.arange(20.0)[:, None]
    data = Data([Block(X[:7], np.empty((0, 1))), Block(X[7:], np.empty((0, 1)))])
    taken = data.take(np.array([19, 3, 8, 0]))
    assert taken.blocks[0].X[:, 0].tolist() == [0.0, 3.0, 8.0, 19.0]
    weighted = as_data(X, np.repeat([0.0, 2.0], 10))
    assert weighted.n_counting == 10
    drawn = weighted.draw(10, np.random.default_rng(0))
    assert sorted(drawn) == list(range(10, 20))
    assert weighted.take(drawn[:3]).total_weight == 6.0


def test_time_runs_out_during_the_race(rng):
    result = fastem.fit(Mixture(Gaussian(), 12), clusters(rng), n_race=50, max_time=0.0, random_state=0)
    assert result.status is Status.MAX_TIME
    assert result.n_iter == 1
    assert -20 < result.log_likelihood / 30_000 < -3  # of all rows: a sample of 5000 has a sixth of it


def test_refusals(rng):
    class Bare:
        def e_step(self, params, block):
            raise AssertionError

    X = rng.normal(size=(9, 1))
    with pytest.raises(ValueError, match="resp_init gives one start"):
        GaussianMixture(2, n_race=2, resp_init=np.arange(9) % 2).fit(X)
    with pytest.raises(ValueError, match="n_race must be an integer"):
        fastem.fit(Mixture(Gaussian()), X, n_race=-1)
    with pytest.raises(ValueError, match="n_race needs a model with"):
        fastem.fit(Bare(), X, n_race=2)
