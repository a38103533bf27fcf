"""Hidden Markov models beside hmmlearn: the same sequences, the same start, an iteration of each in turns.

`python -m benchmarks.peers.sequences` prints one line a workload.
"""

import statistics
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from benchmarks.peers import harness

_SPAN = {"fastem": (4, 24), "hmmlearn": (1, 3)}  # iterations of the shorter and the longer fit
_EVALUATED = 2  # iterations after which parameters are compared


class Sequences(NamedTuple):
    """Fits to sequences of one length; `target` is the least ratio of hmmlearn's time to fastem's."""

    covariance_type: str
    n_sequences: int
    length: int
    n_features: int
    n_components: int
    target: float | None = None

    @property
    def name(self) -> str:
        what = f"{self.covariance_type} GaussianHMM, {self.n_sequences} sequences of {self.length} x {self.n_features}"
        return f"{what}, K={self.n_components}"


WORKLOADS = [
    Sequences("full", 100, 10_000, 8, 8, target=10),
    Sequences("diag", 100, 10_000, 8, 8),
    Sequences("full", 20_000, 10, 4, 3),
    Sequences("full", 1, 200_000, 4, 4),
]


def prepared(workload: Sequences) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows of all sequences, and the parameters that both start from."""
    covariance_type, n_sequences, length, n_features, n_components, _ = workload
    rng = np.random.default_rng(0)
    means = 2.0 * rng.normal(size=(n_components, n_features))
    transmat = 0.8 * np.eye(n_components) + 0.2 * rng.dirichlet(np.ones(n_components), n_components)
    cumulated = transmat.cumsum(axis=1)
    states = np.empty((length, n_sequences), np.int64)
    states[0] = rng.integers(n_components, size=n_sequences)
    for t in range(1, length):
        states[t] = (rng.random((n_sequences, 1)) > cumulated[states[t - 1]]).sum(axis=1)
    states = np.minimum(states, n_components - 1).T.ravel()
    X = means[states] + rng.normal(size=(len(states), n_features))
    unit = np.tile(np.eye(n_features), (n_components, 1, 1))
    return X, {
        "startprob": np.full(n_components, 1.0 / n_components),
        "transmat": np.full((n_components, n_components), 0.2 / n_components) + 0.8 * np.eye(n_components),
        "means": means + 0.3 * rng.normal(size=means.shape),
        "covariances": unit if covariance_type == "full" else np.ones(means.shape),
    }


def compare(workload: Sequences, rounds: int = 3, names=("fastem", "hmmlearn"), say=print) -> dict | None:
    """Ratio of the medians, or None if hmmlearn is not installed."""
    X, start = prepared(workload)
    peers: dict[str, harness.Peer] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {"X": f"{folder}/X.npy", "start": f"{folder}/start.npz"}
        np.save(files["X"], X)
        np.savez(files["start"], **start)
        try:
            for name in names:
                peers[name] = harness.Peer(name)
                if peers[name].missing:
                    say(f"{name} is skipped, it is not installed: {harness.constant(name, 'INSTALL')}")
                    return None
                options = {"lengths": [workload.length] * workload.n_sequences}
                peers[name].ask(do="load", covariance_type=workload.covariance_type, options=options, **files)
                peers[name].seconds(1)
            times: dict[str, list[float]] = {name: [] for name in peers}
            for _ in range(rounds):
                for name, peer in peers.items():
                    short, long = _SPAN[name]
                    less, more = peer.seconds(short)[0], peer.seconds(long)[0]
                    times[name].append((more - less) / (long - short))
                    time.sleep(0.3)
            found = {}
            for name, peer in peers.items():
                peer.ask(do="parameters", n_iter=_EVALUATED, out=f"{folder}/out.npz")
                with np.load(f"{folder}/out.npz") as out:
                    found[name] = [out[key] for key in ("weights", "means")]  # transmat and means
        finally:
            for peer in peers.values():
                peer.close()
    ours, theirs = (statistics.median(times[name]) for name in names)
    apart = max(float(np.abs(a - b).max()) for a, b in zip(*found.values(), strict=True))
    return {"ours": ours, "theirs": theirs, "ratio": theirs / ours, "apart": apart}


def checks(say) -> list[dict]:
    """What is measured, the target, and whether it is met."""
    found = []
    for workload in WORKLOADS:
        outcome = compare(workload, say=say)
        if outcome is None:
            return []
        value = f"{outcome['ours'] * 1e3:.3g} ms, hmmlearn {outcome['theirs'] * 1e3:.3g} ms: {outcome['ratio']:.1f}"
        value += "" if outcome["apart"] < 1e-8 else f", parameters {outcome['apart']:.1g} apart !"
        met = None if workload.target is None else outcome["ratio"] >= workload.target
        goal = "" if workload.target is None else f"{workload.target:g}"
        found.append({"what": workload.name, "value": value, "target": goal, "met": met})
    return found


if __name__ == "__main__":
    for check in checks(lambda line: print(line, file=sys.stderr)):
        print(f"{check['what']}: {check['value']} {check['target'] and '(' + check['target'] + ')'}")
