"""What a hidden Markov model says of sequences: how likely they are, their states, what would follow, new ones."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastem.data import as_writable
from fastem.kernels._jit import use_threads
from fastem.kernels.chain_plan import new_chain
from fastem.kernels.chains import best_paths, smooth, walk
from fastem.models.hidden_markov_records import HiddenMarkovParams
from fastem.models.mixture_records import MixtureParams, same_bits
from fastem.sequences import Run

_CHUNK = 2**18  # rows whose states are looked at together, if their sequences are no longer


class ChainStates:
    """What `HiddenMarkov` does with parameters that are known."""

    family: Any
    n_components: int
    n_mix: int
    n_threads: int | None
    emissions: Any
    _blas_work: Any

    def log_likelihoods(self, params: HiddenMarkovParams, run: Run) -> np.ndarray:
        """Log-likelihood (n_sequences,) of each sequence."""
        return np.concatenate([self._smoothed(params, part, False)[0] for part in _parts(run)])

    def posteriors(self, params: HiddenMarkovParams, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood (n_sequences,) of each sequence, and the probability (N, K) of each state given all its rows.

        Raises
        ------
        ValueError
            If a sequence is impossible.
        """
        log_prob, resp = zip(*(self._smoothed(params, part, True) for part in _parts(run)), strict=True)
        return _possible(np.concatenate(log_prob)), np.concatenate(resp)

    def paths(self, params: HiddenMarkovParams, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability (n_sequences,) of the most probable path of each sequence, and its states (N,) int64."""
        found = []
        for part in _parts(run):
            scores = self._log_emissions(params, part)
            found.append(best_paths(self._chain(params), scores, part.offsets, use_threads(self.n_threads)))
        log_prob, states = zip(*found, strict=True)
        return _possible(np.concatenate(log_prob)), np.concatenate(states)

    def forecast(self, params: HiddenMarkovParams, run: Run, n_steps: int) -> np.ndarray:
        """Probability (n_sequences, n_steps, K) of the states of the rows that would follow each sequence."""
        last = [self._smoothed(params, part, True) for part in _parts(run)]
        _possible(np.concatenate([log_prob for log_prob, _ in last]))
        now = np.concatenate([resp[part.offsets[1:] - 1] for (_, resp), part in zip(last, _parts(run), strict=True)])
        out = np.empty((len(now), n_steps, self.n_components))
        for step in range(n_steps):
            now = np.einsum("sj,jk->sk", now, params.transmat)
            out[:, step] = now
        return out

    def sample(
        self, params: HiddenMarkovParams, lengths: np.ndarray, rng: np.random.Generator, state: int = -1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw sequences of these lengths: rows (N, D) and their states (N,); the first may begin after a state."""
        states = np.empty(int(lengths.sum()), np.int64)
        start, matrix = np.cumsum(params.startprob), np.cumsum(params.transmat, axis=1)
        first = 0
        for length in lengths:
            last = first + int(length)
            walk(start, matrix, rng.random(int(length)), state, states[first:last])
            first, state = last, -1
        within = rng.random(len(states)) * params.weights.sum(axis=1)[states]
        components = (within[:, None] >= np.cumsum(params.weights, axis=1)[states][:, :-1]).sum(axis=1)
        components += states * self.n_mix
        X = np.empty((len(states), self.family.n_columns(params.components)))
        for k in range(self.n_components * self.n_mix):
            chosen = np.flatnonzero(components == k)
            X[chosen] = self.family.sample(params.components, k, len(chosen), rng)
        return X, states

    def _chain(self, params: HiddenMarkovParams) -> Any:
        return new_chain(params.startprob, params.transmat, np.arange(self.n_components))

    def _smoothed(self, params: HiddenMarkovParams, run: Run, wanted: bool) -> tuple[np.ndarray, np.ndarray]:
        scores = self._log_emissions(params, run)
        return smooth(self._chain(params), scores, run.offsets, use_threads(self.n_threads), wanted)

    @same_bits
    def _log_emissions(self, params: HiddenMarkovParams, run: Run) -> np.ndarray:
        """Log-density (N, K) of each row in each state; 0 where the row is missing."""
        n_columns = self.family.n_columns(params.components)
        if run.X.shape[1] != n_columns:
            raise ValueError(f"X has {run.X.shape[1]} columns; the parameters are for {n_columns}")
        scores = self.emissions.scores(MixtureParams(params.weights.ravel(), params.components), as_writable(run.X))
        if self.n_mix > 1:
            with np.errstate(invalid="ignore"):
                scores = np.logaddexp.reduce(scores.reshape(len(scores), self.n_components, self.n_mix), axis=2)
        scores[run.missing] = 0.0
        return scores


def _parts(run: Run) -> Iterator[Run]:
    """The sequences, as many at a time as are looked at together."""
    return (run.between(*group) for group in run.groups(_CHUNK))


def _possible(log_prob: np.ndarray) -> np.ndarray:
    """Refuse sequences that the model cannot have produced."""
    if not np.isfinite(log_prob).all():
        s = int(np.argmin(np.isfinite(log_prob)))
        raise ValueError(
            f"sequence {s} is impossible under the model: no path of states can have produced all its rows"
        )
    return log_prob
