"""Linear regressions whose weights depend on the row: multinomial logits of some of its columns, the gates.

    log p(k | x) = g_k . (1, x) - log sum_l exp(g_l . (1, x)),    g of the first component 0

Jacobs, Jordan, Nowlan & Hinton (1991), Neural Computation 3, 79-87; as concomitant variables: Dayton & Macready (1988),
J. Amer. Statist. Assoc. 83, 173-178.

A gate is linear in the row, and -|x - g|^2 / 2 differs from g . x by what is common to all components, or constant. So
gates go where the whitener has its centre, and a component that is whitened has them too. Then squares of the gates
cancel. Where a plane tells the components apart the likelihood rises with the steepness of the gates for ever: EM
follows slowly, and leaps, which do not, end where digits of the likelihood are left.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fastem.data import Data, finite_array
from fastem.families.family import Frame
from fastem.families.matrices import apply
from fastem.families.regression import Regression
from fastem.families.regression_records import RegressionParams, columns_of
from fastem.protocol import DegenerateError

_STEEPEST = 1e4  # slope of a gate in the frame, of leaps: the log-density of a row is then exact to 1e-8
_TINY = np.finfo(np.float64).tiny


class GatedRegressionParams(NamedTuple):
    """Parameters of K regressions, as in `RegressionParams`, and of their gates."""

    intercepts: np.ndarray
    covariances: np.ndarray
    precisions_cholesky: np.ndarray
    coefficients: np.ndarray
    gates: np.ndarray  # (K, 1 + p): constant and slopes, 0 for the first component and for columns without a part


@dataclass(frozen=True, eq=False)
class GatedRegression(Regression):
    """Linear regressions, and gates in some of their columns.

    Parameters
    ----------
    n_responses, covariance_type, regressors, prior
        See `Regression`.
    concomitants : array-like of int, default=None
        Columns that the weights depend on. None: all but the responses.
    """

    concomitants: Any = field(default=None, kw_only=True)

    def seeing(self, data: Data) -> Any:
        """Return the family with the columns that it regresses on and those of the gates."""
        family: Any = super().seeing(data)
        p = data.n_features - self.n_responses
        return replace(family, concomitants=columns_of("concomitants", self.concomitants, p))

    def framed_gates(self, params: Any, frame: Frame) -> np.ndarray:
        """Gates (K, 1 + p) for columns as the frame has them."""
        p = params.coefficients.shape[2]
        slopes = params.gates[:, 1:] / frame.scale[:p]
        constants = params.gates[:, 0] + params.gates[:, 1:] @ frame.center[:p]
        return np.column_stack([constants, slopes])

    def unframed_gates(self, gates: np.ndarray, frame: Frame) -> np.ndarray:
        """What `framed_gates` undoes."""
        p = gates.shape[1] - 1
        slopes = gates[:, 1:] * frame.scale[:p]
        return np.column_stack([gates[:, 0] - slopes @ frame.center[:p], slopes])

    def _whiteners(self, params: Any, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """W, centres and log-constants; scores lack |x|^2 / 2 of the columns of the gates, which all have in common."""
        whiteners, centers, constants = super()._whiteners(params, frame)
        p = params.coefficients.shape[2]
        gates = self.framed_gates(params, frame)
        slopes = params.coefficients * frame.scale[p:, None] / frame.scale[:p]
        whiteners[:, self.concomitants, self.concomitants] = 1.0
        centers[:, :p] = gates[:, 1:]
        centers[:, p:] += apply(slopes, gates[:, 1:])
        return whiteners, centers, constants + gates[:, 0] + 0.5 * (gates[:, 1:] ** 2).sum(axis=1)

    def maximize(self, moments: Any, old: Any, granule: np.ndarray, fewest: float = 0.0) -> Any:
        """Regressions as in `Regression`; gates stay, or are those of constant weights."""
        params = super().maximize(moments, old, granule, fewest)
        if old is not None:
            return GatedRegressionParams(*params, old.gates)
        gates = np.zeros((len(moments.counts), 1 + moments.means.shape[1]))
        logs = np.log(np.maximum(moments.counts, _TINY))
        gates[:, 0] = logs - logs[0]
        return GatedRegressionParams(*params, gates)

    def keep(self, params: Any, kept: np.ndarray) -> Any:
        """Parameters of some of the components (k,) int; gates are those relative to the first of them."""
        gates = params.gates[kept]
        return GatedRegressionParams(*super().keep(params, kept), gates - gates[0])

    def check_params(self, params: Any, n_components: int, frame: Frame) -> Any:
        """Return parameters that a user gave, after checking shapes, finiteness and sign."""
        if not isinstance(params, GatedRegressionParams):
            raise TypeError(f"start.components must be GatedRegressionParams; got {type(params).__name__}")
        checked = super().check_params(RegressionParams(*params[:4]), n_components, frame)
        gates = finite_array("start.components.gates", params.gates, 2)
        p = frame.center.size - self.n_responses
        if gates.shape != (n_components, 1 + p):
            raise ValueError(f"start.components.gates has shape {gates.shape}; {(n_components, 1 + p)} is needed")
        if gates[:, 1 + np.setdiff1d(np.arange(p), self.concomitants)].any():
            raise ValueError("start.components.gates must be 0 for columns that are not among the concomitants")
        return GatedRegressionParams(*checked, gates - gates[0])

    def estimands(self, params: Any) -> dict[str, np.ndarray]:
        """Return what standard errors are given for."""
        return {**super().estimands(params), "gates": params.gates}

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters, without one weight for each component but the first, which the gates have too."""
        p = n_features - self.n_responses
        slopes = (n_components - 1) * (p if self.concomitants is None else len(np.atleast_1d(self.concomitants)))
        return super().n_parameters(n_components, n_features) + slopes

    def log_weights(self, params: Any, X: np.ndarray) -> np.ndarray:
        """Logarithms (n, K) of the weights in rows (n, p) that are regressed on."""
        logits = params.gates[:, 0] + np.einsum("np,kp->nk", X, params.gates[:, 1:])
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    def pack(self, params: Any, frame: Frame) -> np.ndarray:
        """Coordinates of the regressions, then the gates in the frame."""
        gates = self.framed_gates(params, frame)[1:]
        columns = np.append(0, 1 + self.concomitants)
        return np.concatenate([super().pack(params, frame), gates[:, columns].ravel()])

    def unpack(self, vector: np.ndarray, n_components: int, frame: Frame) -> Any:
        """Parameters at the coordinates of `pack`."""
        columns = np.append(0, 1 + self.concomitants)
        size = (n_components - 1) * len(columns)
        rest = vector[: len(vector) - size]
        gates = np.zeros((n_components, 1 + frame.center.size - self.n_responses))
        gates[1:, columns] = vector[len(rest) :].reshape(n_components - 1, len(columns))
        if np.abs(gates[:, 1:]).max(initial=0.0) > _STEEPEST:
            raise DegenerateError("the gates are too steep for their rounding: a plane tells the components apart")
        params = super().unpack(rest, n_components, frame)
        return GatedRegressionParams(*params, self.unframed_gates(gates, frame))
