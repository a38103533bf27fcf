"""Time to an answer: whole calls with each peer's own start, until a log-likelihood that the best of them reaches."""

import math
import tempfile
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from benchmarks.peers.harness import Peer, PeerError
from benchmarks.peers.workloads import mean_log_likelihood

from .. import datasets

NEAR = 1e-4  # nats a row below the best log-likelihood that any contender reaches
_BEYOND = 1.1  # times the target that a peer may go on for
_ENDLESS = 1e6  # seconds
_LEAST = 1.0  # seconds that it may go on for at least


class Answer(NamedTuple):
    """Data and number of components; `targets` is the least ratio of a peer's time to fastem's."""

    name: str
    rows: Callable[[], np.ndarray]
    n_components: int
    seeds: int
    targets: Mapping[str, float] = MappingProxyType({})


ANSWERS = [
    Answer("100000 x 8, K=10", lambda: datasets.mixture(100_000, 8, 10), 10, 5, {"sklearn": 30}),
    Answer("china.jpg, K=8", datasets.china, 8, 3, {"sklearn": 80}),
    Answer("1000000 x 16, K=32", lambda: datasets.mixture(1_000_000, 16, 32), 32, 2, {"sklearn": 60, "onedal": 8}),
]


class Curve(NamedTuple):
    """Mean log-likelihood of all rows over the seconds of a call; where the peer's own defaults end; its final value.

    The final value is that of the parameters, evaluated by one program for all.
    """

    seconds: list[float]
    log_likelihood: list[float]
    stop: float
    final: float


def measure(answer: Answer, names, say=print) -> dict:
    """Curves of all seeds and peers, the common log-likelihood, and the time that each needs for it."""
    X = answer.rows()
    names = [name for name in names if name == "fastem" or name in answer.targets]
    curves: dict[str, list[Curve]] = {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/X.npy", X)
        budget = math.inf
        for name in names:  # fastem first: it says how long the others may take
            curves[name] = []
            peer = Peer(name)
            try:
                peer.ask(do="rows", X=f"{folder}/X.npy", n_components=answer.n_components)
                for seed in range(answer.seeds):
                    allowed = budget * answer.targets.get(name, 1.0) / answer.seeds  # those of all calls count
                    found = peer.ask(do="curve", seed=seed, budget=min(allowed, _ENDLESS), out=f"{folder}/out.npz")
                    with np.load(f"{folder}/out.npz") as out:
                        parameters = [np.asarray(out[key], np.float64) for key in ("weights", "means", "covariances")]
                    final = mean_log_likelihood(X, "full", *parameters)
                    curves[name].append(Curve(*map(list, zip(*found["curve"], strict=True)), found["stop"], final))
                    say(f"{answer.name}, {name}, seed {seed}: {final:.5f}, {curves[name][-1].seconds[-1]:.2f} s")
            except PeerError as error:
                say(f"{error}; left out of {answer.name}")
                del curves[name]
            finally:
                peer.close()
            if name == "fastem":
                common = max(curve.final for curve in curves["fastem"]) - NEAR
                budget = max(_LEAST, _BEYOND * expected_seconds(curves["fastem"], common)[0])
    common = max(curve.final for runs in curves.values() for curve in runs) - NEAR
    own = expected_seconds(curves["fastem"], common)[0]
    peers = {}
    for name, runs in curves.items():
        seconds, n_reached = expected_seconds(runs, common)
        peers[name] = {
            "seconds": seconds,
            "reached": n_reached,
            "calls": len(runs),
            "ratio": seconds / own,
            "stop": float(np.median([curve.stop for curve in runs])),
            "at_stop": float(np.median([np.interp(curve.stop, curve.seconds, curve.log_likelihood) for curve in runs])),
            "curves": [[curve.seconds, curve.log_likelihood] for curve in runs],
        }
    return {"name": answer.name, "common": common, "targets": dict(answer.targets), "peers": peers}


def expected_seconds(runs: list[Curve], common: float) -> tuple[float, int]:
    """Seconds of all calls until they reach a log-likelihood, or end, over the number that reach it; and that number.

    That is what it takes, on average, to get there by calling again and again. Where none gets there, the seconds of
    all calls: it takes more.
    """
    spent, n_reached = 0.0, 0
    for curve in runs:
        reached = [s for s, value in zip(curve.seconds, curve.log_likelihood, strict=True) if value >= common]
        n_reached += bool(reached)
        spent += reached[0] if reached else curve.seconds[-1]
    return spent / max(n_reached, 1), n_reached


def text(results: list[dict], title: Callable[[str], str]) -> list[str]:
    """Lines of a page."""
    lines = [
        "## Time to an answer",
        "",
        "Whole calls with full covariances, each peer from starts of its own: the seconds until the best mean "
        f"log-likelihood of a row that any call of any contender reaches, less {NEAR:g}. Where only some calls get "
        "there it is the time of all over the number that do, as by calling again and again; > where none does. "
        "fastem and scikit-learn by their defaults, oneDAL by its initialiser em_gmm_init; but scikit-learn and oneDAL "
        "go on beyond the end of their defaults, and start again where nothing is gained, until all calls together "
        "have spent the time that the target allows.",
        "",
        "![log-likelihood over time](peers_answers.png)",
        "",
        "| data | common | peer | reached by | seconds | peer / fastem | target | default's end: s, median there |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for name, peer in result["peers"].items():
            target = result["targets"].get(name)
            goal = "" if target is None else f"{target:g} {'met' if peer['ratio'] >= target else 'missed'}"
            more = "" if peer["reached"] else "> "
            ratio = "" if name == "fastem" else f"{more}{peer['ratio']:.0f}"
            lines.append(
                f"| {result['name']} | {result['common']:.4f} | {title(name)} | {peer['reached']} of {peer['calls']} | "
                f"{more}{peer['seconds']:.2f} | {ratio} | {goal} | {peer['stop']:.2f}, {peer['at_stop']:.4f} |"
            )
    return [*lines, ""]


def plot(figure, results: list[dict], title: Callable[[str], str], colors: Mapping[str, str]) -> None:
    """Curves of log-likelihood over time, a panel a workload; a dot is the end of the peer's own defaults."""
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, result in zip(panels, results, strict=True):
        for name, peer in result["peers"].items():
            for number, (seconds, values) in enumerate(peer["curves"]):
                style = {"color": colors[name], "linewidth": 1, "marker": ".", "drawstyle": "steps-post"}
                axes.plot(seconds, values, label=title(name) if number == 0 else None, **style)
            axes.plot(peer["stop"], peer["at_stop"], "o", color=colors[name])
        low = min(peer["at_stop"] for peer in result["peers"].values())
        axes.axhline(result["common"], color="grey", linewidth=0.8)
        axes.set(xscale="log", xlabel="seconds", title=result["name"])
        axes.set_ylim(low - 1.5 * (result["common"] - low), result["common"] + 0.3 * (result["common"] - low))
    panels[0].set_ylabel("mean log-likelihood of a row")
    panels[-1].legend(loc="lower right")
