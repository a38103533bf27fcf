"""Arguments of the command line: their types, whose errors argparse turns into its messages, and a parser."""

import argparse
from typing import Any

COVARIANCE_TYPES = (
    *("full", "tied", "diag", "spherical"),
    *("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV"),
    *("E", "V"),
)
COVARIANCES = "full (default), tied, diag or spherical, or a name of mclust's, EII to VVV; for one column also E or V"
COLUMNS = "columns to use: names, numbers from 1, ranges, as in a,b,3-5; default: those of the model, or all"


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {value}")
    return value


def natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative; got {value}")
    return value


def seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be between 0 and 2**32 - 1; got {value}")
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds that is not negative; got {text}")
    return value


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def scale(text: str) -> str | list[float]:
    return text if text == "auto" else numbers(text)


# argparse names the type in its messages
positive.__name__ = natural.__name__ = "whole number"
seed.__name__, numbers.__name__ = "seed", "list of numbers"
seconds.__name__ = "number of seconds"
scale.__name__ = "scale: auto or a list of numbers"


class Parser(argparse.ArgumentParser):
    """A parser of a command, which may take a last positional argument behind options, as most programs do."""

    intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, see argparse."""
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        self.intermixed = False  # the other way comes back to this one
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True
