"""The process of one peer: a request a line, as JSON, and an answer. It needs NumPy and the peer, nothing else."""

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main(name):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a peer prints goes to stderr
    state = {}

    def answer(**fields):
        answers.write(json.dumps(fields) + "\n")

    try:
        peer = importlib.import_module(f"benchmarks.peers.adapters.{name}")  # oneDAL has to come before NumPy
        import numpy as np

        answer(version=peer.version())
    except ImportError as error:
        answer(missing=str(error))
        return
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "load":
                X = np.load(request["X"]).copy()  # memory of its own, not what a file was read into
                with np.load(request["start"]) as start:
                    names = start.files
                    run = peer.prepare(X, dict(start), request["model"], **request["options"])
                state = {"run": run, "names": names}
                answer(ok=True)
            elif request["do"] == "rows":
                state = {"X": np.load(request["X"]).copy(), "n_components": request["n_components"]}
                peer.curve(state["X"][:20_000], 2, 0, 0.0)  # compiles, loads
                answer(ok=True)
            elif request["do"] == "curve":
                curve, stop, found = peer.curve(state["X"], state["n_components"], request["seed"], request["budget"])
                np.savez(request["out"], **dict(zip(("weights", "means", "covariances"), found, strict=True)))
                answer(curve=curve, stop=stop)
            elif request["do"] == "time":
                times = []
                for _ in range(request["repeat"]):
                    begin = time.perf_counter()
                    state["run"](request["n_iter"])
                    times.append(time.perf_counter() - begin)
                answer(seconds=min(times), n_iter=getattr(state["run"], "n_iter", request["n_iter"]))
            elif request["do"] == "parameters":
                np.savez(request["out"], **dict(zip(state["names"], state["run"](request["n_iter"]), strict=True)))
                answer(ok=True)
        except Exception as error:
            with contextlib.suppress(OSError):
                traceback.print_exc(file=sys.stderr)
            answer(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
