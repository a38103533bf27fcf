"""Mixtures of regressions with gates: mixtures of experts, whose weights are multinomial logits of the row.

A second sweep over the columns of the gates alone gives what their Newton step needs. Its states are pairs of
components with the score g_k + g_l, so that their responsibilities are products of two weights: expectations of
products of weights and of columns make gradient and Hessian.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastem.data import Block
from fastem.families.gated_regression import GatedRegression
from fastem.families.gaussian import unpack_second
from fastem.kernels._jit import use_threads
from fastem.kernels.features import FULL, n_statistics
from fastem.kernels.posteriors import SOFTMAX
from fastem.kernels.sweep import LABEL, LOG_DENSITY, by_features, statistics
from fastem.models.mixture_records import MixtureParams, same_bits
from fastem.models.regressions import Regressions

_CHUNK = 2**16  # log-densities that are held at once
_LONGEST = 1e100  # ratio of slope to curvature that a step takes for what it is
_RIDGE = 1e-12  # of the weight of the rows, beside the curvature: gates that nothing tells stay where they are


class GatedStats(NamedTuple):
    """Additive statistics of rows under some parameters."""

    weight: float
    log_likelihood: float
    sums: np.ndarray  # (K, P) of the regressions
    scatter: np.ndarray  # (0, 0)
    pairs: np.ndarray  # (K (K + 1) / 2, P) of pairs of gates


@dataclass(frozen=True, eq=False)
class GatedRegressions(Regressions):
    """Mixture of K linear regressions, weighted by gates; see `Regressions`.

    `MixtureParams.weights` are the means of the weights over all rows. Such a model does not learn from streams.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> x = np.linspace(-2.0, 2.0, 400)
    >>> noise = np.random.default_rng(0).normal(size=(2, 400))
    >>> rows = np.column_stack([x, np.where(x + noise[0] > 0, 1.0 + x, 5.0 - x) + 0.1 * noise[1]])
    >>> model = fastem.GatedRegressions(fastem.GatedRegression(), 2)
    >>> result = fastem.fit(model, rows, n_race=12, random_state=0, max_iter=200)
    >>> result.params.components.coefficients.ravel().round(1).tolist() in ([-1.0, 1.0], [1.0, -1.0])
    True
    """

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.family, GatedRegression):
            raise TypeError(f"family must be a fastem.GatedRegression; got {self.family!r}")
        for name, none in (("weights_init", None), ("weight_concentration", 1.0), ("weight_cost", 0.0)):
            if getattr(self, name) != none:
                raise ValueError(f"{name} is for weights that are the same in all rows; gates have none")

    # what the driver asks before it offers streams and passes of many M-steps
    @property
    def condense(self) -> Any:
        raise AttributeError("statistics of gates belong to their parameters and cannot be mixed")

    # the protocol

    @same_bits
    def e_step(self, params: MixtureParams, block: Block) -> Any:
        """Two sweeps over a block."""
        family, frame = self.family, self.bound
        layout = family.layout(params.components, frame)
        states = family.natural(params.components, np.zeros(self.n_components), layout, frame)
        sums, log_likelihood, _ = self._sweep(block, states, SOFTMAX)
        pairs, doubled = self._pairs(params, block)
        # the sweep's scores lack half the squares of the gates' columns, which the sum over pairs has
        c = len(family.concomitants)
        squares = float(np.diagonal(unpack_second(pairs[:, 1 + c :].sum(axis=0)[None], c)[0]).sum()) if c else 0.0
        total = log_likelihood + 0.5 * squares - 0.5 * doubled
        return GatedStats(block.total_weight, total, sums, np.empty((0, 0)), pairs)

    def _pairs(self, params: MixtureParams, block: Block) -> tuple[np.ndarray, float]:
        """Sums of the pairs of gates, and twice their log-normaliser."""
        columns = self.family.concomitants
        rows = block.derived(("gates", columns.tobytes()), lambda whole: _of_columns(whole, columns))
        gates = self.family.framed_gates(params.components, self.bound)[:, np.append(0, 1 + columns)]
        first, second = np.tril_indices(self.n_components)
        width = rows.X.shape[1]
        theta = np.zeros((len(first), n_statistics(FULL, width)))
        theta[:, : 1 + len(columns)] = gates[first] + gates[second]
        theta[:, 0] += np.where(first == second, 0.0, math.log(2.0))
        frame = self.bound.rows[:, columns] if len(columns) else np.array([[0.0], [1.0]])
        states, n_threads = by_features(FULL, theta, width), use_threads(self.n_threads)
        sums, doubled, _, _ = statistics(rows.X, rows.weight, np.ascontiguousarray(frame), states, SOFTMAX, n_threads)
        return (sums if len(columns) else sums[:, :1]), doubled

    @same_bits
    def m_step(self, stats: Any, params: MixtureParams) -> MixtureParams:
        """Regressions by least squares, gates by a step of Newton's that leads uphill."""
        moments = self._moments(stats, params)
        components = self.family.maximize(moments, params.components, self.bound.granule)
        gates = self.family.framed_gates(params.components, self.bound)
        gates = gates + self._newton_step(moments, stats)
        components = components._replace(gates=self.family.unframed_gates(gates, self.bound))
        return MixtureParams(moments.counts / moments.counts.sum(), components)

    def _slopes(self, moments: Any, stats: Any) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (K, 1 + c) of the expected log-weights in the frame, and expected products (K, K, 1 + c, 1 + c)."""
        columns = self.family.concomitants
        n_components, c = self.n_components, len(columns)
        products = np.empty((len(stats.pairs), 1 + c, 1 + c))
        products[:, 0, 0] = stats.pairs[:, 0]
        products[:, 0, 1:] = products[:, 1:, 0] = stats.pairs[:, 1 : 1 + c]
        products[:, 1:, 1:] = unpack_second(stats.pairs[:, 1 + c :], c) if c else 0.0
        first, second = np.tril_indices(n_components)
        table = np.empty((n_components, n_components, 1 + c, 1 + c))
        table[first, second] = products * np.where(first == second, 1.0, 0.5)[:, None, None]
        table[second, first] = table[first, second]
        place = (moments.means[:, columns] - self.bound.center[columns]) * self.bound.scale[columns]
        responsible = moments.counts[:, None] * np.column_stack([np.ones(n_components), place])
        return responsible - table.sum(axis=1)[:, 0], table

    def _newton_step(self, moments: Any, stats: Any) -> np.ndarray:
        """Step (K, 1 + p) of the gates in the frame, the first row 0.

        Along a step d the third derivative of the log-normaliser is at most s times the second, with s the largest
        range of the d_k . x over k (Bach 2010, Electron. J. Statist. 4, 384-414, section 2.1). So the objective still
        rises at t = log(1 + s a / b) / s, with a the slope along d and b minus the curvature: 1 at the end.
        """
        gradient, table = self._slopes(moments, stats)
        n_components, q = gradient.shape
        step = np.zeros((n_components, self.bound.center.size - self.family.n_responses + 1))
        if n_components == 1:
            return step
        blocks = -table.copy()
        diagonal = np.arange(n_components)
        blocks[diagonal, diagonal] += table.sum(axis=1)
        size = (n_components - 1) * q
        hessian = blocks[1:, 1:].transpose(0, 2, 1, 3).reshape(size, size)
        slope = gradient[1:].ravel()
        values, vectors = np.linalg.eigh(hessian)
        values = np.maximum(values, 0.0) + _RIDGE * stats.weight
        direction = vectors @ ((vectors.T @ slope) / values)
        uphill, curvature = float(slope @ direction), float(direction @ (hessian @ direction))
        if not (uphill > 0.0 and np.isfinite(direction).all()):
            return step
        turns = np.zeros((n_components, q))
        turns[1:] = direction.reshape(n_components - 1, q)
        gaps = np.abs(turns[:, None] - turns)
        reach = self.bound.reach[self.family.concomitants]
        spread = float((gaps[:, :, 0] + gaps[:, :, 1:] @ reach).max())
        ratio = spread * uphill / curvature if curvature > spread * uphill / _LONGEST else _LONGEST
        length = math.log1p(ratio) / spread if spread > 0.0 else 1.0
        step[:, np.append(0, 1 + self.family.concomitants)] = length * turns
        return step

    def log_prior(self, params: MixtureParams) -> float:
        """Log-density of the prior, up to a constant."""
        return self.family.log_prior(params.components)

    def pack(self, params: MixtureParams) -> np.ndarray:
        """Coordinates of the family in the frame."""
        return self.family.pack(params.components, self.bound)

    @same_bits
    def unpack(self, vector: np.ndarray) -> MixtureParams:
        """Parameters at these coordinates; the weights are those at the centre of all rows."""
        logs = np.zeros(self.n_components)
        params = super().unpack(np.concatenate([logs, vector]))
        center = self.bound.center[None, : params.components.coefficients.shape[2]]
        return params._replace(weights=np.exp(self.family.log_weights(params.components, center)[0]))

    @same_bits
    def score(self, stats: Any, params: MixtureParams) -> np.ndarray:
        """Gradient of the log-likelihood of the rows in the coordinates of `pack`, at the parameters of the stats."""
        moments = self._moments(stats, params)
        gradient = self._slopes(moments, stats)[0]
        return np.concatenate([self.family.score(params.components, moments, self.bound), gradient[1:].ravel()])

    def estimands(self, params: MixtureParams) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        return self.family.estimands(params.components)

    # beyond fitting

    @same_bits
    def _score(self, params: MixtureParams, X: np.ndarray, wanted: int) -> np.ndarray:
        X = np.asarray(X.X if isinstance(X, Block) else X, dtype=np.float64)
        n_columns = self.family.n_columns(params.components)
        if X.ndim != 2 or X.shape[1] != n_columns:
            raise ValueError(f"X has shape {X.shape}; the parameters are for {n_columns} columns")
        family = self.family
        p, found = n_columns - family.n_responses, []
        n_rows = max(1, _CHUNK // self.n_components)
        for first in range(0, len(X), n_rows):
            rows = X[first : first + n_rows]
            joint = family.log_densities(params.components, rows) + family.log_weights(params.components, rows[:, :p])
            if wanted == LABEL:
                found.append(np.argmax(joint, axis=1))
                continue
            total = np.logaddexp.reduce(joint, axis=1)
            found.append(total if wanted == LOG_DENSITY else np.exp(joint - total[:, None]))
        return np.concatenate(found)


def _of_columns(block: Block, columns: np.ndarray) -> Block:
    """Some columns of the rows; a constant one if there are none."""
    X = block.X[:, columns] if len(columns) else np.zeros((len(block.X), 1), block.X.dtype)
    return Block(np.ascontiguousarray(X), block.weight)
