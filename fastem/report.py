"""What the command line prints: a fitted model for people and for machines, warnings, errors, progress."""

import contextlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

_PROGRESS_SECONDS = 0.1
_SHOWN_FEATURES = 6
_WAITING = "a stream before its start"


def print_json(value: dict[str, Any]) -> None:
    """Print one object of strict JSON."""
    print(json.dumps(plain(value), allow_nan=False))


def plain(value: Any) -> Any:
    """Only what strict JSON has: numbers that are not finite become null, and foreign objects their text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def feature_names(estimator: Any) -> list[str]:
    """Names of the columns of a fitted model; x1, x2 ... where it was fitted without names."""
    given = getattr(estimator, "feature_names_in_", None)
    if given is None:
        return [f"x{i + 1}" for i in range(estimator.n_features_in_)]
    return [str(name) for name in given]


def summary(estimator: Any) -> dict[str, Any]:
    """A model for machines: fitted, or a stream that waits for its start."""
    head = {
        "class": type(estimator).__name__,
        "covariance_type": estimator.covariance_type,
        "features": feature_names(estimator),
        "parameters": estimator.get_params(),
    }
    stream = getattr(estimator, "stream_", None)
    if stream is not None:
        head |= {"n_rows": stream.n_rows, "n_waiting": stream.n_waiting}
    if not estimator.__sklearn_is_fitted__():
        return {**head, "status": "WAITING", "message": _WAITING, "n_components": estimator.n_components}
    return {
        **head,
        "n_components": len(estimator.weights_),
        "status": estimator.status_.name,
        "message": estimator.status_.value,
        "converged": estimator.converged_,
        "n_iter": estimator.n_iter_,
        "log_likelihood": estimator.log_likelihood_,
        "lower_bound": estimator.lower_bound_,
        "weights": estimator.weights_,
        "means": estimator.means_,
        "covariances": estimator.covariances_,
        "noise_weight": getattr(estimator, "noise_weight_", 0.0),
        "drift_score": getattr(estimator, "drift_score_", None),
    }


def text(estimator: Any, names: list[str] | None = None) -> str:
    """A model for people: how the fit ended, and a line a component."""
    stream: Any = getattr(estimator, "stream_", None)
    if not estimator.__sklearn_is_fitted__():
        return f"{' '.join(repr(estimator).split())}\nstatus          {_WAITING}; {stream.n_rows} rows came so far"
    names = names or feature_names(estimator)
    shown = names[:_SHOWN_FEATURES]
    hidden = len(names) - len(shown)
    rows = [["component", "weight", *shown]]
    for k, (weight, mean) in enumerate(zip(estimator.weights_, estimator.means_, strict=True)):
        rows.append([str(k), f"{weight:.4f}", *(f"{value:.6g}" for value in mean[: len(shown)])])
    if getattr(estimator, "noise_volume_", None) is not None:
        rows.append(["noise", f"{estimator.noise_weight_:.4f}", *([""] * len(shown))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines = [
        " ".join(repr(estimator).split()),
        f"status          {estimator.status_.value} ({estimator.n_iter_} iterations)",
        f"log-likelihood  {estimator.log_likelihood_:.10g}"
        if math.isfinite(estimator.log_likelihood_)
        else "log-likelihood  unknown",
        f"covariances     {estimator.covariance_type}",
        *(
            [f"stream          {stream.n_rows} rows, drift score {getattr(estimator, 'drift_score_', math.nan):.2f}"]
            if stream
            else []
        ),
        "",
        "weights and means" + (f", the first {len(shown)} of {len(names)} features" if hidden else ""),
        *table,
    ]
    return "\n".join(lines)


def drop_stdout() -> None:
    """Send what a broken standard output still has in its buffer nowhere, or the flush at exit would fail again."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def error(message: str) -> None:
    """Print an error, as one line."""
    print(f"fastem: error: {' '.join(message.split())}", file=sys.stderr)


def warn(message: Any) -> None:
    """Print a warning, as one line."""
    print(f"fastem: warning: {' '.join(str(message).split())}", file=sys.stderr)


@contextlib.contextmanager
def short_warnings() -> Iterator[None]:
    """Show warnings to a user as lines, without code; those for developers not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = lambda message, *_, **__: warn(message)
        yield


@contextlib.contextmanager
def progress(n_init: int) -> Iterator[list[Any]]:
    """Callbacks that keep one line of progress on a terminal, by tqdm where that is installed; none elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield []
        return
    try:
        from tqdm import tqdm
    except ImportError:
        with _plain_progress(n_init) as callbacks:
            yield callbacks
        return
    with tqdm(file=sys.stderr, unit="iteration", leave=False, mininterval=_PROGRESS_SECONDS) as bar:

        def advance(step: Any) -> None:
            bar.set_description(f"start {step.start + 1}/{n_init}", refresh=False)
            bar.set_postfix(objective=f"{step.objective:.8g}", refresh=False)
            bar.update()

        yield [advance]


@contextlib.contextmanager
def _plain_progress(n_init: int) -> Iterator[list[Any]]:
    shown, last = 0, -math.inf

    def show(step: Any) -> None:
        nonlocal shown, last
        now = time.monotonic()
        if now - last >= _PROGRESS_SECONDS:
            line = f"start {step.start + 1}/{n_init}, iteration {step.n_iter}, objective {step.objective:.8g}"
            print("\r" + line.ljust(shown), end="", file=sys.stderr, flush=True)
            shown, last = len(line), now

    try:
        yield [show]
    finally:
        print("\r" + " " * shown + "\r", end="", file=sys.stderr, flush=True)
