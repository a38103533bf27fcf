"""The peak of memory above what is in use, from Linux's high-water mark after a reset."""

from collections.abc import Callable
from pathlib import Path

RESET = Path("/proc/self/clear_refs")


def mebibytes_above(call: Callable[[], object]) -> float:
    """MiB of resident memory that a call takes at its peak, above what is resident before it."""
    RESET.write_text("5")  # the high-water mark is now what is resident
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 2**10
