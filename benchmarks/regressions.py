"""Slow-downs that count, out of asv's table: `asv continuous ... | python -m benchmarks.regressions --absolute 2e-3`.

asv knows a relative threshold only, and a benchmark of some microseconds passes that by noise. A line marked `+` counts
if it is also slower by so many seconds; sizes, counts and other units have no absolute threshold.
"""

import argparse
import re
import sys

_UNITS = {"ns": 1e-9, "μs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_VALUE = re.compile(r"([0-9.]+(?:e[+-]?\d+)?)(?:±[0-9.]+(?:e[+-]?\d+)?)?\s*([a-zA-Zμ]*)")


def seconds(text: str) -> float | None:
    """Value of a cell of asv's table in seconds; None in another unit."""
    found = _VALUE.search(text)
    unit = _UNITS.get(found[2]) if found else None
    return None if unit is None else float(found[1]) * unit


def regressions(lines, absolute: float) -> list[str]:
    """Lines of the table that tell a slow-down past both thresholds."""
    found = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 6 or cells[1] != "+":
            continue
        before, after = seconds(cells[2]), seconds(cells[3])
        if before is None or after is None or after - before > absolute:
            found.append(line.rstrip("\n"))
    return found


def main(argv=None) -> int:
    """Copy standard input to standard output; 1 if a slow-down counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--absolute", type=float, default=2e-3, metavar="SECONDS", help="least slow-down (2e-3)")
    arguments = parser.parse_args(argv)
    lines = []
    for line in sys.stdin:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    slower = regressions(lines, arguments.absolute)
    if slower:
        print("\nSlower past both thresholds:", *slower, sep="\n")
    elif not any("|" in line or "BENCHMARKS NOT SIGNIFICANTLY CHANGED" in line for line in lines):
        print("\nasv compared nothing")
        return 1
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
