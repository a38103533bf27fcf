"""Which lines of asv's table count as slow-downs."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TABLE = """
| Change   | Before [aaaa] <v1>   | After [bbbb]   |   Ratio | Benchmark (Parameter)      |
|----------|----------------------|----------------|---------|----------------------------|
| +        | 10.0±0.2ms           | 15.0±1ms       |    1.5  | bench_fit.Shape.time_fit   |
| +        | 10.0±0.2μs           | 20.0±1μs       |    2    | bench_kernels.Block.time   |
| +        | 100M                 | 150M           |    1.5  | bench_fit.Shape.peakmem    |
| -        | 2.00±0.1s            | 1.00±0.1s      |    0.5  | bench_fit.China.time_fit   |
"""


def run(table, *options):
    command = [sys.executable, "-m", "benchmarks.regressions", *options]
    return subprocess.run(command, input=table, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in a wheel")
@pytest.mark.parametrize(
    ("absolute", "counted"),
    [
        ("2e-3", ["Shape.time_fit", "peakmem"]),
        ("1e-6", ["Shape.time_fit", "Block", "peakmem"]),
        ("1", ["peakmem"]),
    ],
)
def test_a_slow_down_counts_past_both_thresholds(absolute, counted):
    done = run(TABLE, "--absolute", absolute)
    assert done.returncode == 1
    assert done.stdout.startswith(TABLE)
    told = done.stdout.split("thresholds:")[1]
    assert [name for name in ("Shape.time_fit", "Block", "peakmem", "China") if name in told] == counted


def test_nothing_slower_is_success_and_no_table_is_not():
    assert run(TABLE.replace("| + ", "| - ")).returncode == 0
    assert run("BENCHMARKS NOT SIGNIFICANTLY CHANGED.\n").returncode == 0
    assert run("").returncode == 1
