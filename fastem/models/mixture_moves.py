"""Moves of mixtures that EM cannot make: components that merge and split."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastem.data import SMALLEST, Block, Data, weighted_sum
from fastem.kernels.posteriors import GIVEN
from fastem.models.mixture_records import MixtureParams, log_of, same_bits
from fastem.protocol import DegenerateError

_FLAT = 1e-12  # part of the largest variance within components that a direction has at least, to cut along it
_MERGES, _SPLITS = 3, 3  # pairs that may merge, and components that may be split for each


class Anatomy(NamedTuple):
    """Rows of a sample, and who is responsible for them."""

    block: Block
    rows: np.ndarray  # (N, D), in units of the covariance within components
    posterior: np.ndarray  # (N, K)
    resp: np.ndarray  # (N, K), the same times the weights of the rows; both have a column more for noise
    worst_first: np.ndarray  # (K,) components by how badly they fit their rows


class Moves:
    """What `Mixture` does for `split_merge`, and for `fastem.select`."""

    family: Any
    n_components: int
    anchored: Any
    bound: Any
    posteriors: Any
    log_densities: Any
    _weights: Any
    _first_states: Any
    _moments_under: Any
    _blas_work: Any

    def moves(self, params: MixtureParams, sample: Data) -> Iterator[MixtureParams]:
        """Parameters with two components merged and a third split, the most promising first.

        Ueda et al. (2000), Neural Computation 12, 2109-2128, equation 3.1: those merge whose responsibilities are most
        alike.
        """
        anatomy = self._anatomy(params, sample)
        resp = anatomy.resp
        overlap = np.einsum("nk,nl->kl", anatomy.posterior, resp)
        size = np.sqrt(np.maximum(np.diagonal(overlap), SMALLEST))
        some = np.flatnonzero(~self.anchored)
        pairs = [(overlap[i, j] / (size[i] * size[j]), i, j) for j in some for i in some[some < j]]
        for _, i, j in sorted(pairs, reverse=True)[:_MERGES]:
            merged = resp.copy()
            merged[:, i] += merged[:, j]
            for k in [k for k in anatomy.worst_first if k not in (i, j) and not self.anchored[k]][:_SPLITS]:
                with contextlib.suppress(DegenerateError):
                    yield self._split(anatomy, merged, k, j)

    def grown(self, params: MixtureParams, sample: Data) -> Iterator[MixtureParams]:
        """Parameters of this model from those of one component less, by splitting one, the most promising first."""
        anatomy = self._anatomy(params, sample)
        more = np.insert(anatomy.resp, self.n_components - 1, 0.0, axis=1)
        for k in anatomy.worst_first[:_SPLITS]:
            with contextlib.suppress(DegenerateError):
                yield self._split(anatomy, more, k, self.n_components - 1)

    @same_bits
    def _anatomy(self, params: MixtureParams, sample: Data) -> Anatomy:
        """What moves need to know of the components.

        Ueda et al. (2000), equation 3.5: a component fits its rows the worse, the further their distribution, weighted
        by its responsibilities, is from its density.
        """
        block = sample.whole().blocks[0]
        posterior = self.posteriors(params, block)
        coded = self.family.rows(block)
        resp = posterior * block.counts[:, None]
        counts = np.maximum(resp.sum(axis=0), SMALLEST)
        # share * log(share / density of the component), where that density is posterior * density of the row / weight
        log_ratio = log_of(params.weights / counts) - self.log_densities(params, block)[:, None]
        misfit = (resp / counts * np.where(resp > 0, log_ratio, 0.0)).sum(axis=0)
        rows = self._places(params, block)
        n_components = len(counts) - self.family.n_noise
        counts, mine = counts[:n_components], resp[:, :n_components]
        means = np.einsum("nk,nd->kd", mine, rows) / counts[:, None]
        share = mine.sum(axis=1) if self.family.n_noise else block.counts
        within = np.einsum("n,nd,ne->de", share, rows, rows) - np.einsum("k,kd,ke->de", counts, means, means)
        values, axes = np.linalg.eigh(within / share.sum())
        rows = np.einsum("nd,de->ne", rows, axes / np.sqrt(np.maximum(values, _FLAT * values[-1])))
        return Anatomy(coded, rows, posterior, resp, np.argsort(-misfit[:n_components], kind="stable"))

    def _places(self, params: MixtureParams, block: Block) -> np.ndarray:
        """Where rows lie (N, S), in units in which columns are alike."""
        return self.family.positions(block.X, self.bound)

    @same_bits
    def _split(self, anatomy: Anatomy, resp: np.ndarray, k: int, j: int) -> MixtureParams:
        """Parameters under responsibilities (N, K) where component k shares its own with j, which loses what it has.

        It is cut at its mean, along the axis on which it is longest in comparison to the covariance within components.
        """
        block, resp = anatomy.block, resp.copy()
        if resp[:, k].sum() < SMALLEST:
            raise DegenerateError(f"component {k} has no rows to share")
        share = resp[:, k] / resp[:, k].sum()
        rows = anatomy.rows - weighted_sum(share, anatomy.rows)
        axis = np.linalg.eigh(np.einsum("n,nd,ne->de", share, rows, rows))[1][:, -1]
        resp[:, j] = np.where(np.einsum("nd,d->n", rows, axis) > 0, resp[:, k], 0.0)
        resp[:, k] -= resp[:, j]
        feature_map, theta = self._first_states(block.X.shape[1])
        moments = self._moments_under(lambda: [block.weighing(resp)], theta, feature_map, GIVEN)
        components = self.family.maximize(moments, None, self.bound.granule)
        return MixtureParams(self._weights(moments.counts), components)
