"""Peers in processes of their own, taking turns."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.peers.workloads import Workload, mean_log_likelihood, prepared

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sklearn", "onedal", "armadillo", "gmmx", "opencv", "pomegranate", "hmmlearn", "stepmix")
IN_NUMPY = ("onehot", "rowwise", "patternwise", "componentwise")  # plain programs, for what packages fit slowly or not
PEERS = ("fastem", *PACKAGES, *IN_NUMPY)
SHORT, LONG = 4, 24  # an iteration is (time of LONG - time of SHORT) / (LONG - SHORT)
_EVALUATED = 20_000  # rows on which they are
_BUDGET = 2.0  # seconds that a slow peer may take between the two; its iterations all cost the same
_TOO_SLOW = 4.0  # seconds of an iteration beyond which a peer is left out of a workload
_REST = 0.3  # seconds between turns: threads of OpenMP spin a while after their work
_PATIENCE = 900  # seconds for one answer, beside the budget it is given


class PeerError(RuntimeError):
    """A peer failed, or its process ended."""


class Peer:
    """The process of one peer."""

    def __init__(self, name: str):
        self.name = name
        own = ROOT / ".venv-peers" / name / "bin" / "python"
        worker = str(Path(__file__).with_name("worker.py"))
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        self.process = subprocess.Popen(
            [str(own) if own.exists() else sys.executable, worker, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        first = self._answer()
        self.missing = first.get("missing")
        self.version = first.get("version")

    def ask(self, **request):
        """Send a request and return the answer; a failure of the peer raises PeerError."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # the process has ended; its answer says so
        return self._answer(_PATIENCE + request.get("budget", 0.0))

    def _answer(self, patience: float = _PATIENCE):
        timer = threading.Timer(patience, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            self.log.seek(0)
            last = self.log.read().strip().splitlines()[-1:] or ["no message"]
            raise PeerError(f"{self.name}: its process ended with status {self.process.wait()}: {last[0]}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.name}: {answer['error']}")
        return answer

    def seconds(self, n_iter: int, repeat: int = 1) -> tuple[float, int]:
        """Time of one fit of so many iterations, the least of some; and the iterations that it did."""
        answer = self.ask(do="time", n_iter=n_iter, repeat=repeat)
        return answer["seconds"], answer["n_iter"]

    def close(self):
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Outcome(NamedTuple):
    """Seconds of an iteration (or call) of one peer, and the mean log-likelihood it reached."""

    median: float
    fastest: float
    log_likelihood: float | None
    version: str


def compare(
    workload: Workload, names, rounds: int, options=None, n_iter=(SHORT, LONG), say=print
) -> dict[str, Outcome]:
    """Measure peers on one workload, in turns.

    options : dict from the name of a measurement to (peer, extra constructor parameters), default: each peer once
    """
    runs = options or {name: (name, {}) for name in names}
    X, start = prepared(workload)
    peers: dict[str, Peer] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {"X": f"{folder}/X.npy", "start": f"{folder}/start.npz"}
        np.save(files["X"], X)
        np.savez(files["start"], **start)
        try:
            spans = {}
            for label, (name, extra) in runs.items():
                peer = peers[label] = Peer(name)
                if peer.missing:
                    say(f"{name} is skipped, it is not installed: {constant(name, 'INSTALL')}")
                    peers.pop(label).close()
                    continue
                try:
                    peer.ask(do="load", model=workload.model, options={**workload.options, **extra}, **files)
                    spans[label] = _span(peer, *n_iter)
                except PeerError as error:
                    say(f"{error}; left out of {workload.name}")
                    peers.pop(label).close()
            times = {label: [] for label in peers}
            for _ in range(rounds):
                for label, peer in peers.items():
                    times[label].append(_one_iteration(peer, *spans[label]))
                    time.sleep(_REST)
            reached = {}
            for label, peer in peers.items():
                if "method" not in runs[label][1]:
                    peer.ask(do="parameters", n_iter=workload.compared, out=f"{folder}/out.npz")
                    with np.load(f"{folder}/out.npz") as out:
                        found = [np.asarray(out[name], np.float64) for name in start]
                    part = workload.smaller(_EVALUATED)
                    rows = X[: part.n_samples].astype(np.float64)
                    reached[label] = mean_log_likelihood(rows, part.model, *found, length=part.length)
            return {
                label: Outcome(
                    statistics.median(times[label]), min(times[label]), reached.get(label), peers[label].version
                )
                for label in peers
            }
        finally:
            for peer in peers.values():
                peer.close()


_NEEDED = object()


def constant(name, attribute, default=_NEEDED):
    """A constant of an adapter, read without importing the peer."""
    import ast

    tree = ast.parse(Path(__file__).with_name("adapters").joinpath(f"{name}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == attribute:
            return ast.literal_eval(node.value)
    if default is not _NEEDED:
        return default
    raise AttributeError(f"adapter {name} lacks {attribute}")


def supports(name: str, workload: Workload) -> bool:
    """Whether a peer fits this model and dtype, to rows of which values are missing if there are."""
    return workload.fits in constant(name, "FITS") and workload.dtype in constant(name, "DTYPES")


def title(name: str) -> str:
    return constant(name, "TITLE")


def tolerance(name: str, workload: Workload) -> float:
    """Relative difference of log-likelihoods that is no disagreement."""
    return max(constant(name, "TOLERANCE"), 1e-4 if workload.dtype == "float32" and name != "fastem" else 0.0)


def _span(peer, short, long):
    """Iterations of the shorter and the longer fit, fewer for a slow peer; and repeats of a fast one."""
    first, _ = peer.seconds(1)  # compiles, loads
    if short == 0:
        peer.seconds(long)
        return short, long, 50
    tried = max(short, 1) if first < _BUDGET else 1
    once, _ = peer.seconds(tried)
    each = max(once / tried, 1e-6)
    if each > constant(peer.name, "TOO_SLOW", _TOO_SLOW):
        raise PeerError(f"{peer.name}: an iteration takes {each:.0f} s")
    if each > _BUDGET / (long - short) and peer.name != "fastem":
        short, long = 1, 1 + max(2, round(_BUDGET / each))
    _one_iteration(peer, short, long, 1)  # or it fails here, before its turns
    return short, long, max(1, min(50, round(0.05 / once)))


def _one_iteration(peer, short, long, repeat):
    """Seconds of an iteration; if the shorter fit has none, of the whole longer call."""
    if short == 0:
        return peer.seconds(long, repeat)[0]
    (more, n_long), (less, n_short) = peer.seconds(long, repeat), peer.seconds(short, repeat)
    if n_long <= n_short:
        raise PeerError(f"{peer.name}: it stops after {n_long} iterations of {long}")
    return (more - less) / (n_long - n_short)
