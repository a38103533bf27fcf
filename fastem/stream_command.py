"""The command `fastem stream`: learn from rows as they come, and save the model with its whole stream now and then.

The bits of the model and of what is printed depend on the rows and the seed alone: not on how bytes come in pieces,
where checkpoints fall, or how often the command was killed and resumed.
"""

import argparse
import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import fastem
from fastem import arguments, report

if TYPE_CHECKING:
    import numpy as np

_BYTES = 1 << 18  # read at a time; a pipe gives what it has
_POLL = 0.1  # seconds between two looks at a file that is followed
_LONGEST_WAIT = 3600.0  # seconds: select takes no more than some years


def add_options(parser: arguments.Parser) -> None:
    """Describe the command to argparse."""
    parser.description = "Learn from rows as they come, each once, and save the model with its stream now and then."
    parser.set_defaults(run=run)
    parser.intermixed = True
    add = parser.add_argument
    add("model", metavar="MODEL", help="model file to go on with, or to begin")
    add("data", metavar="ROWS", nargs="?", default="-", help=".csv or .tsv file; default: CSV from standard input")
    add("-c", "--columns", metavar="LIST", help=arguments.COLUMNS)
    add(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="the first line holds names; default: if no cell of it is a number",
    )
    add("--threads", type=arguments.positive, metavar="N", help="threads to use, from now on; default: all")
    add("--follow", action="store_true", help="at the end of the file wait for more, until SIGINT or SIGTERM")
    add(
        "--resume",
        action="store_true",
        help="ROWS are the same from their beginning: pass over those that MODEL has taken",
    )
    add(
        "--discard-waiting",
        action="store_true",
        help="first drop the rows of MODEL that no step has taken yet: the cure if one of them makes a step impossible",
    )
    add(
        "--output",
        choices=("labels", "scores", "none"),
        default="none",
        help="a line a row on standard output, by the model that has not seen the row (none)",
    )
    add("--checkpoint-rows", type=arguments.positive, metavar="N", help="save MODEL after each N rows")
    add(
        "--checkpoint-seconds",
        type=arguments.seconds,
        default=60.0,
        metavar="S",
        help="save MODEL after S seconds in which rows came (60)",
    )
    new = parser.add_argument_group("new model", "kept in MODEL; given again, they must be the same")
    add = new.add_argument
    add(
        "-k",
        "--components",
        "--n-components",
        dest="n_components",
        type=arguments.positive,
        metavar="K",
        help="number of components",
    )
    add("--covariance-type", choices=arguments.COVARIANCE_TYPES, metavar="NAME", help=arguments.COVARIANCES)
    add("--seed", type=arguments.seed, metavar="N", help="seed of the start")
    add(
        "--batch-size",
        type=arguments.positive,
        metavar="N",
        help="rows that make a step; by default as the model needs",
    )
    add("--half-life", type=float, metavar="X", help="rows after which the old counts half")
    add("--exponent", type=float, metavar="X", help="of the fall of the step sizes, in (0.5, 1] (0.6)")
    add("--step-size", type=float, metavar="X", help="constant, in (0, 1)")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from fastem.tables import check_writable

    if args.follow and args.data == "-":
        raise ValueError("--follow is for a file; standard input is read until it is closed anyway")
    if args.data != "-" and Path(args.data).suffix.lower() not in (".csv", ".tsv"):
        raise ValueError(f"{args.data} is no .csv or .tsv file; - is CSV from standard input")
    check_writable(args.model, args.data)
    estimator = _estimator(args)
    with _open(args.data) as file, _Signals() as signals:
        status = _Learner(args, estimator, file, signals).run()
    if not status and signals.caught and not args.follow:
        if signals.caught == signal.SIGINT:
            raise KeyboardInterrupt
        print("fastem: terminated", file=sys.stderr)
        return 128 + signals.caught
    return status


def _estimator(args: argparse.Namespace) -> Any:
    """The model of the file, or a new one."""
    from fastem.online import Online

    schedule = {name: getattr(args, name) for name in ("half_life", "exponent", "step_size")}
    schedule = {name: value for name, value in schedule.items() if value is not None}
    if not os.path.exists(args.model):
        if args.n_components is None:
            raise ValueError(f"there is no {args.model}; begin a new model with --n-components")
        return fastem.GaussianMixture(
            args.n_components,
            covariance_type=args.covariance_type or "full",
            random_state=args.seed,
            n_threads=args.threads,
            batch_size=args.batch_size,
            online=Online(**schedule) if schedule else None,
        )
    estimator = fastem.load(args.model)
    online = estimator.online or Online()
    kept = {
        "n_components": estimator.n_components,
        "covariance_type": estimator.covariance_type,
        "seed": estimator.random_state,
        "batch_size": estimator.batch_size,
        **{name: getattr(online, name) for name in schedule},
    }
    for name, value in kept.items():
        given = getattr(args, name)
        if given is not None and given != value:
            raise ValueError(
                f"--{name.replace('_', '-')} {given} is for a new model, and {args.model} has {value}; leave it out"
            )
    if args.threads is not None:
        estimator.set_params(n_threads=args.threads)
    if args.discard_waiting:
        estimator.discard_waiting()
    return estimator


@contextlib.contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    """Bytes without a buffer: a read gives what there is."""
    if path == "-" and sys.stdin is None:
        raise ValueError("standard input is closed")
    with open(sys.stdin.fileno() if path == "-" else path, "rb", buffering=0, closefd=path != "-") as file:
        yield file


class _Signals:
    """SIGINT and SIGTERM, remembered: a run of rows and its checkpoint end first. Those ignored stay ignored."""

    def __init__(self) -> None:
        self.caught = 0

    def __enter__(self) -> "_Signals":
        # A signal writes a byte here at once, so that it also ends a wait which begins just after it came.
        self._reading, writing = os.pipe()
        self._pipe = self._reading, writing
        if os.name != "nt":  # where select takes sockets alone; a signal is seen after the next bytes there
            os.set_blocking(writing, False)
            self._wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._handlers = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if os.name != "nt":
            signal.set_wakeup_fd(self._wakeup)
        for each in self._pipe:
            os.close(each)

    def _catch(self, number: int, _: object) -> None:
        self.caught = self.caught or number

    def wait(self, seconds: float, file: BinaryIO | None = None) -> bool:
        """Wait for bytes of a file, a signal, or the end of some seconds; whether the file can be read."""
        if os.name == "nt":
            if file is None:
                time.sleep(seconds)
            return file is not None
        files: list[Any] = [self._reading] if file is None else [self._reading, file]
        ready = select.select(files, [], [], min(max(0.0, seconds), _LONGEST_WAIT))[0]
        if self._reading in ready:
            os.read(self._reading, 4096)  # it may be another signal of the process
        return file in ready


class _Learner:
    """A model that learns the rows of a file, with its checkpoints."""

    def __init__(self, args: argparse.Namespace, estimator: Any, file: BinaryIO, signals: _Signals):
        from fastem.tables import CsvRows

        self.args, self.estimator, self.file, self.signals = args, estimator, file, signals
        self.label = "standard input" if args.data == "-" else args.data
        # Arrays would give a warning that the model knows names, so it gets them back when it is saved.
        self.names: Any = vars(estimator).pop("feature_names_in_", None)
        self.rows = CsvRows(self.label, "\t" if args.data.lower().endswith(".tsv") else ",", args.header, self._choose)
        stream = getattr(estimator, "stream_", None)
        self.n_passed_over = stream.n_rows if args.resume and stream is not None else 0
        self.n_unsaved = int(args.discard_waiting)
        self._next_checkpoint()

    def run(self) -> int:
        """Learn all rows, and save; the exit status."""
        try:
            self._read()
        except BrokenPipeError:  # the reader of the output, `head` for one, has what it wanted
            report.drop_stdout()
        except Exception:
            self._save_at_the_end()
            raise
        return 0 if self._save_at_the_end() else 1

    def _choose(self, names: list[str] | None, width: int) -> list[int]:
        import numpy as np

        from fastem.tables import columns_or_defaults

        known = () if self.names is None else self.names.tolist()
        places = columns_or_defaults(self.args.columns, known, names, width, self.label)
        n_features = getattr(self.estimator, "n_features_in_", None)
        if n_features is None:
            chosen = [names[i] for i in places] if names is not None else []
            if chosen and len(set(chosen)) == len(chosen):
                self.names = np.array(chosen, dtype=object)
        elif len(places) != n_features:
            raise ValueError(
                f"{self.label} gives {len(places)} columns, but {self.args.model} takes {n_features}; choose --columns"
            )
        return places

    def _read(self) -> None:
        """Learn until the rows end, or until a signal if they are followed."""
        n_bytes = 0
        while not self.signals.caught:
            left = self.deadline - time.monotonic() if self.n_unsaved else math.inf
            if left <= 0:
                self._checkpoint()
                continue
            is_ready = self.signals.wait(left, self.file)
            if self.signals.caught or not is_ready or (data := self.file.read(_BYTES)) is None:
                continue
            n_bytes += len(data)
            if self.args.follow and not data:
                if os.fstat(self.file.fileno()).st_size < n_bytes:
                    raise ValueError(f"{self.label} became shorter while it was followed")
                self.signals.wait(min(left, _POLL))
                continue
            for rows in self.rows.feed(data, last=not data):
                self._learn(rows)
            if not data:
                self._check_end()
                return

    def _check_end(self) -> None:
        """Refuse an end of the rows that cannot be right."""
        if self.signals.caught:
            return
        if self.n_passed_over:
            n_taken = self.estimator.stream_.n_rows
            raise ValueError(
                f"{self.label} has {n_taken - self.n_passed_over} rows, but {self.args.model} has taken {n_taken}: "
                "these are not the same rows from their beginning; leave out --resume to learn them as new ones"
            )
        if not hasattr(self.estimator, "n_features_in_"):
            raise ValueError(f"{self.label} has no rows")

    def _learn(self, rows: "np.ndarray") -> None:
        """Learn rows (n, D) in runs that end where a step of the stream or a checkpoint does, or at a signal."""
        n_passed = min(self.n_passed_over, len(rows))
        self.n_passed_over -= n_passed
        rows = rows[n_passed:]
        while len(rows) and not self.signals.caught:
            n_run = min(len(rows), max(1, self.estimator._rows_to_step(rows.shape[1])), self.n_to_checkpoint)
            run, rows = rows[:n_run], rows[n_run:]
            self._write(run)
            try:
                self.estimator.partial_fit(run)
            except fastem.DegenerateError as error:
                raise ValueError(
                    f"{self.label}: no step could be made with these rows and those that wait: {error}; here that is "
                    "--discard-waiting"
                ) from error
            self.n_unsaved += n_run
            self.n_to_checkpoint -= n_run
            if self.n_to_checkpoint == 0 or time.monotonic() >= self.deadline:
                self._checkpoint()

    def _write(self, rows: "np.ndarray") -> None:
        """Print a line for each row, by parameters that have not seen it; empty lines before the stream's start."""
        if self.args.output == "none":
            return
        if not self.estimator.__sklearn_is_fitted__():
            text = "\n" * len(rows)
        else:
            score = self.estimator.predict if self.args.output == "labels" else self.estimator.score_samples
            text = "".join(f"{value}\n" for value in score(rows).tolist())
        sys.stdout.write(text)
        sys.stdout.flush()

    # checkpoints

    def _next_checkpoint(self) -> None:
        self.n_to_checkpoint = self.args.checkpoint_rows or sys.maxsize
        self.deadline = time.monotonic() + self.args.checkpoint_seconds

    def _checkpoint(self) -> None:
        """Save; if that fails, say so and go on."""
        try:
            self._save()
        except OSError as error:
            reason = error.strerror or error
            report.warn(
                f"{self.args.model}: checkpoint failed: {reason}; the file is as it was, the next one tries again"
            )
        self._next_checkpoint()

    def _save_at_the_end(self) -> bool:
        """Save what is not saved yet; whether that was possible."""
        try:
            if self.n_unsaved:
                self._save()
        except OSError as error:
            reason = error.strerror or error
            report.error(
                f"{self.args.model}: saving failed: {reason}; the last {self.n_unsaved} rows are not in the file"
            )
            return False
        return True

    def _save(self) -> None:
        """Save the model with its stream, with the rows that wait in one piece, however they came."""
        from fastem.data import cut

        stream = self.estimator.stream_
        if len(stream.waiting) > 1:
            whole = cut(list(stream.waiting), stream.n_waiting)[0]
            self.estimator.stream_ = stream._replace(waiting=(whole,))
        if self.names is not None:
            self.estimator.feature_names_in_ = self.names
        try:
            fastem.save(self.estimator, self.args.model)
        finally:
            vars(self.estimator).pop("feature_names_in_", None)
        self.n_unsaved = 0
