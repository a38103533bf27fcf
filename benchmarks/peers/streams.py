"""Streams and rows on disk, of fastem alone, beside the fused pass, batch EM and the disk.

`python -m benchmarks.peers.streams` prints a JSON list of checks; the harness runs it as a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

_LOST = 1e-3
_FUSED = 0.6
_A_ROW = 30.0
_OF_THE_LESSER = 0.8
_MEBIBYTES = 1024.0


def checks() -> list[dict]:
    """What is measured, the target, and whether it is met; run in a process of its own."""
    script = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "benchmarks.peers.streams"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=script)
    return json.loads(found.stdout.splitlines()[-1])


def _check(what: str, value: str, target: str, met: bool) -> dict:
    return {"what": what, "value": value, "target": target, "met": bool(met)}


def _measure() -> list[dict]:
    from benchmarks.bench_stream import OnDisk, OnePass, PartialFit

    calls = PartialFit()
    calls.setup()
    share = 1 / calls.track_batches_of_1024_over_the_fused_pass()
    a_row = calls.track_microseconds_of_a_single_row()
    found = [
        _check(
            "calls of 1024 rows, 16 columns, K=16: rate over the fused pass", f"{share:.0%}", "60%", share >= _FUSED
        ),
        _check("a single row a call, its steps included", f"{a_row:.1f} us", "30 us", a_row <= _A_ROW),
    ]
    once = OnePass()
    once.setup()
    passes, lost = once.track_time_over_two_batch_iterations(), once.track_log_likelihood_lost()
    found += [
        _check(
            "one pass over 2000000 x 16, K=16, over the first two batch iterations",
            f"{passes:.2f}",
            "1",
            passes < 1.0,
        ),
        _check(
            "held-out log-likelihood lost by it to batch EM, most of 5 seeds",
            f"{lost:.3%}",
            "0.1%",
            lost <= _LOST,
        ),
    ]
    disk = OnDisk()
    share, memory = disk.measure()
    found.append(
        _check(
            f"{disk.gigabytes:g} GB on disk: rate over the lesser of the disk's and memory's, memory",
            f"{share:.0%}, {memory:.0f} MiB",
            "80%, 1 GiB",
            share >= _OF_THE_LESSER and memory <= _MEBIBYTES,
        )
    )
    return found


if __name__ == "__main__":
    print(json.dumps(_measure()))
