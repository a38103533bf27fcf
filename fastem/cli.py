"""The command `fastem`: fit | predict | score | sample | info | stream | bench | warmup.

numpy, numba and scikit-learn are imported inside the commands: `--help` and `--version` need none of them.
"""

import argparse
import itertools
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastem
from fastem import arguments, report, stream_command

EXIT_OK, EXIT_ERROR, EXIT_NOT_CONVERGED, EXIT_INTERRUPTED = 0, 1, 3, 130  # argparse takes 2 for usage
# A table that stays serial, and one with enough multiply-adds to take the parallel kernels with every covariance type.
_WARMUP_ROWS, _WARMUP_FEATURES, _WARMUP_COMPONENTS = (200, 200_000), 2, 10
_WARMUP_SPREADS = (1.0, 1e-5)  # of a component; the second is whitened, and takes float32 rows to float64 products


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments without the name of the program; None: those of the process.

    Returns
    -------
    int
        Exit status: 0 fine, 1 a file or the data cannot be used, 3 not converged under --strict-convergence, 130
        interrupted. Wrong usage raises SystemExit(2), and --help and --version SystemExit(0), as argparse does.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["bench"]:  # its options are its own
        argv[1:1] = ["--"]
    args = _parser().parse_args(argv)
    try:
        if sys.stdout is None:
            raise ValueError("standard output is closed; send it to a file")
        with report.short_warnings():
            status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, `head` for one, has what it wanted
        report.drop_stdout()
        return EXIT_OK
    except KeyboardInterrupt:
        print("fastem: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except MemoryError:
        report.error("not enough memory; use fewer rows or columns")
    except OSError as error:
        if error.filename is None:  # not a file, so the output: a full disk, for one
            report.drop_stdout()
        where = f"{error.filename}: " if error.filename is not None else ""
        report.error(f"{where}{error.strerror or error}")
    except ValueError as error:
        report.error(str(error))
    return EXIT_ERROR


# commands


def _fit(args: argparse.Namespace) -> int:
    from sklearn.exceptions import ConvergenceWarning

    from fastem import tables

    if args.output is not None:
        tables.check_writable(args.output, args.data)
    table = _read(args, weight=args.weight)
    estimator = fastem.GaussianMixture(
        args.components,
        covariance_type=args.covariance_type,
        tol=args.tol,
        reg_covar=args.reg_covar,
        max_iter=args.max_iter,
        n_init=args.n_init,
        init_params=args.init,
        random_state=args.seed,
        stopping=args.stopping,
        n_race=args.n_race,
        split_merge=args.split_merge,
        acceleration=None if args.acceleration == "none" else args.acceleration,
        max_time=args.max_time,
        weight_concentration_prior=args.weight_concentration_prior,
        mean_prior=args.mean_prior,
        mean_precision_prior=args.mean_precision_prior,
        degrees_of_freedom_prior=args.degrees_of_freedom_prior,
        covariance_prior=_covariance_prior(args, table.X.shape[1]),
        n_threads=args.threads,
    )
    start = time.perf_counter()
    with report.progress(args.n_init) as callbacks, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, with the names of the options
        estimator.fit(table.X, sample_weight=table.weight, callbacks=callbacks)
    seconds = time.perf_counter() - start
    if table.names is not None and len(set(table.names)) == len(table.names):
        import numpy as np

        estimator.feature_names_in_ = np.array(table.names, dtype=object)
    if args.output is not None:
        fastem.save(estimator, args.output)
    extra: dict[str, Any] = {"n_samples": len(table.X), "seconds": seconds, "model": args.output}
    if args.json:
        report.print_json({**report.summary(estimator), **extra})
    else:
        print(report.text(estimator))
        saved = f", saved to {args.output}" if args.output is not None else "; not saved, see -o"
        print(f"\nfitted to {len(table.X)} rows in {seconds:.2f} s{saved}")
    if estimator.converged_:
        return EXIT_OK
    cure = "raise --max-iter or --tol, or take more starts with --n-init"
    report.warn(f"not converged after {estimator.n_iter_} iterations; {cure}")
    return EXIT_NOT_CONVERGED if args.strict_convergence else EXIT_OK


def _predict(args: argparse.Namespace) -> int:
    estimator, X = _model_and_rows(args)
    if args.proba:
        resp = estimator.predict_proba(X)
        columns = {f"component_{k}": resp[:, k] for k in range(resp.shape[1])}
        result = {"responsibilities": resp}
    else:
        labels = estimator.predict(X)
        columns = {"component": labels}
        result = {"labels": labels}
    _write(args, columns, result)
    return EXIT_OK


def _score(args: argparse.Namespace) -> int:
    if args.output != "-" and not args.samples:
        raise ValueError("-o is for the table that --samples gives; add --samples")
    estimator, X = _model_and_rows(args)
    if args.samples:
        log_density = estimator.score_samples(X)
        _write(args, {"log_density": log_density}, {"log_densities": log_density})
        return EXIT_OK
    mean = float(estimator.score(X))
    result = {
        "n_samples": len(X),
        "log_likelihood": mean * len(X),
        "mean_log_likelihood": mean,
        "bic": estimator.bic(X),
        "aic": estimator.aic(X),
    }
    if args.json:
        report.print_json(result)
    else:
        print("\n".join(f"{name:<19}  {value:.10g}" for name, value in result.items()))
    return EXIT_OK


def _sample(args: argparse.Namespace) -> int:
    from fastem import tables

    tables.check_output(args.output, args.model)
    estimator = fastem.load(args.model).set_params(random_state=args.seed)
    X, labels = estimator.sample(args.n_samples)
    names = report.feature_names(estimator)
    columns = {name: X[:, i] for i, name in enumerate(names)}
    result = {"features": names, "X": X}
    if args.labels:
        label = "component"
        while label in columns:
            label += "_"
        columns[label] = labels
        result["labels"] = labels
    _write(args, columns, result)
    return EXIT_OK


def _info(args: argparse.Namespace) -> int:
    from fastem.persistence import read_model

    model = read_model(args.model)
    if args.json:
        versions = {"format_version": model.format_version, "fastem_version": model.fastem_version}
        report.print_json({**report.summary(model.estimator), **versions, "model": args.model})
    else:
        print(report.text(model.estimator))
        print(f"\n{args.model}: format {model.format_version}, written by fastem {model.fastem_version}")
    return EXIT_OK


def _bench(args: argparse.Namespace) -> int:
    root = Path(fastem.__file__).resolve().parents[1]
    if not (root / "benchmarks" / "peers").is_dir():
        raise ValueError(
            "bench needs a clone of the repository, installed by pip install --editable: it is not in a wheel"
        )
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "benchmarks.peers", *args.options]
    return subprocess.run(command, env=environment, check=False).returncode


def _warmup(args: argparse.Namespace) -> int:
    """Compile every kernel for both dtypes by using the estimator on tables that reach it."""
    import numba
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning

    from fastem.families.covariance_structures import FORMS
    from fastem.kernels.components import WIDE
    from fastem.kernels.exponentials import FEW
    from fastem.kernels.quadratics import MOST_COLUMNS

    if numba.config.DISABLE_JIT:
        raise ValueError("numba's compiler is switched off, so there is nothing to compile; unset NUMBA_DISABLE_JIT")
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    before = _kernel_counts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # two iterations are enough to compile
        for dtype, n_rows, spread in itertools.product((np.float64, np.float32), _WARMUP_ROWS, _WARMUP_SPREADS):
            X = rng.standard_normal((n_rows, _WARMUP_FEATURES))
            X[::2] = 1.0 + spread * X[::2]
            X = X.astype(dtype)
            inits = _INITS if n_rows == _WARMUP_ROWS[0] else ("random_from_data",)
            for covariance_type, init in itertools.product(FORMS, inits):
                estimator = fastem.GaussianMixture(
                    _WARMUP_COMPONENTS,
                    covariance_type=covariance_type,
                    init_params=init,
                    max_iter=2,
                    n_race=0,
                    random_state=0,
                )
                estimator.fit(X).predict_proba(X)
        few_states = [(_WARMUP_FEATURES, k) for k in range(2, FEW + 1)]  # which have kernels of their own, as have
        few_columns = [(d, _WARMUP_COMPONENTS) for d in (*range(_WARMUP_FEATURES + 1, MOST_COLUMNS + 1), WIDE)]
        for dtype, shape in itertools.product((np.float64, np.float32), few_states + few_columns):
            n_features, n_components = shape
            X = rng.standard_normal((10 * _WARMUP_ROWS[0], n_features)).astype(dtype)  # of fewer, components are thin
            fastem.GaussianMixture(
                n_components,
                acceleration=None,  # takes several steps in one kernel
                max_iter=2,
                n_race=0,
                random_state=0,
            ).fit(X)
    correlated = [[[1.0, 1.0 - 1e-12], [1.0 - 1e-12, 1.0]]]  # scored in double-double
    fastem.GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], correlated).predict([[0.0, 0.0]])
    after = _kernel_counts()
    compiled, loaded = after[0] - before[0], after[1] - before[1]
    seconds = time.perf_counter() - start
    if args.json:
        report.print_json({"seconds": seconds, "compiled": compiled, "loaded": loaded, "cache": after[2]})
    else:
        print(f"kernels ready after {seconds:.1f} s: {compiled} compiled, {loaded} read from the cache")
        print(f"cache: {', '.join(after[2]) or 'none'}")
    return EXIT_OK


def _kernel_counts() -> tuple[int, int, list[str]]:
    """Kernels compiled and kernels read from numba's cache by this process, and the folders of the cache."""
    import numba

    dispatchers = {
        id(value): value
        for name, module in list(sys.modules.items())
        if name.startswith("fastem.kernels")
        for holder in list(vars(module).values())
        for value in (list(holder.values()) if isinstance(holder, dict) else [holder])  # some are made on demand
        if isinstance(value, numba.core.dispatcher.Dispatcher)
    }
    stats = [dispatcher.stats for dispatcher in dispatchers.values()]
    compiled = sum(sum(each.cache_misses.values()) for each in stats)
    loaded = sum(sum(each.cache_hits.values()) for each in stats)
    return compiled, loaded, sorted({each.cache_path for each in stats if each.cache_path})


# input


def _read(args: argparse.Namespace, weight: str | None = None, defaults: Sequence[str] = ()) -> Any:
    from fastem.tables import read_table

    return read_table(
        args.data,
        columns=args.columns,
        weight=weight,
        header=args.header,
        array_name=args.array,
        defaults=defaults,
    )


def _model_and_rows(args: argparse.Namespace) -> tuple[Any, Any]:
    """The model, and the columns of the table that it was fitted on."""
    from fastem import tables

    tables.check_output(args.output, args.model, args.data)
    estimator = fastem.load(args.model)
    if args.threads is not None:
        estimator.set_params(n_threads=args.threads)
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    vars(estimator).pop("feature_names_in_", None)  # columns are chosen by name here; arrays must give no warning
    X = _read(args, defaults=names).X
    if X.shape[1] != estimator.n_features_in_:
        fitted = f"{estimator.n_features_in_} ({', '.join(names)})" if names else f"{estimator.n_features_in_}"
        raise ValueError(f"{args.data} gives {X.shape[1]} columns, but {args.model} takes {fitted}; choose --columns")
    return estimator, X


def _covariance_prior(args: argparse.Namespace, n_features: int) -> Any:
    """The numbers of --covariance-prior in the shape that the covariance type asks for."""
    values = args.covariance_prior
    if values is None or values == "auto":
        return values
    from fastem.families.covariance_structures import form_of

    shape = {"diag": (n_features,), "spherical": ()}.get(form_of(args.covariance_type), (n_features, n_features))
    if len(values) != math.prod(shape):
        raise ValueError(
            f"--covariance-prior takes auto or {math.prod(shape)} numbers for {n_features} columns and "
            f"--covariance-type {args.covariance_type}; got {len(values)}"
        )
    import numpy as np

    return np.array(values).reshape(shape) if shape else values[0]


def _write(args: argparse.Namespace, columns: dict[str, Any], result: dict[str, Any]) -> None:
    """Write a table; with --json, print the rows as JSON, or where they went."""
    from fastem.tables import write_table

    if args.json and args.output == "-":
        report.print_json(result)
        return
    write_table(args.output, columns)
    if args.json:
        n_rows = len(next(iter(columns.values())))
        report.print_json({"output": args.output, "n_rows": n_rows, "columns": list(columns)})


# arguments

_INITS = ("kmeans", "k-means++", "k-means||", "ward", "random_from_data", "random")
_DATA = ".csv, .tsv, .npy, .npz or .parquet file; - is CSV from standard input"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastem", description="Fit Gaussian mixtures by EM, and use them.")
    parser.add_argument("--version", action="version", version=f"fastem {fastem.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=arguments.Parser)

    common = arguments.Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object")
    rows = arguments.Parser(add_help=False)
    rows.add_argument("data", metavar="DATA", help=_DATA)
    rows.add_argument("-c", "--columns", metavar="LIST", help=arguments.COLUMNS)
    rows.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="the first line of a .csv or .tsv holds names; default: if none of its cells is a number",
    )
    rows.add_argument("--array", metavar="NAME", help="which array of an .npz file")
    rows.add_argument("--threads", type=arguments.positive, metavar="N", help="threads to use; default: all")
    model = arguments.Parser(add_help=False)
    model.add_argument("model", metavar="MODEL", help="model file written by fit or fastem.save")
    table = arguments.Parser(add_help=False)
    table.add_argument("-o", "--output", default="-", metavar="FILE", help="table to write; default: CSV on stdout")

    def command(name: str, run: Any, parents: list[arguments.Parser], text: str) -> arguments.Parser:
        added = commands.add_parser(name, parents=[*parents, common], help=text, description=text[0].upper() + text[1:])
        added.set_defaults(run=run)
        return added

    fit = command("fit", _fit, [rows], "fit a Gaussian mixture to a table")
    fit.add_argument("-o", "--output", metavar="MODEL", help="model file to write")
    fit.add_argument(
        "-k", "--components", type=arguments.positive, default=1, metavar="K", help="number of components (1)"
    )
    fit.add_argument(
        "--covariance-type",
        choices=arguments.COVARIANCE_TYPES,
        default="full",
        metavar="NAME",
        help=arguments.COVARIANCES,
    )
    fit.add_argument("-w", "--weight", metavar="COLUMN", help="column of sample weights")
    fit.add_argument("--init", choices=_INITS, default="kmeans", help="how to start; kmeans by default")
    fit.add_argument(
        "--n-init", type=arguments.positive, default=1, metavar="N", help="starts, of which the best is kept (1)"
    )
    fit.add_argument(
        "--n-race", type=arguments.natural, metavar="N", help="so many starts race on samples; 0: one, on all rows (12)"
    )
    fit.add_argument("--split-merge", action="store_true", help="look for better optima by merging and splitting")
    fit.add_argument("--seed", type=arguments.seed, metavar="N", help="seed of the starts")
    fit.add_argument("--tol", type=float, default=1e-3, metavar="X", help="gain per row at which to stop (1e-3)")
    fit.add_argument(
        "--max-iter", type=arguments.positive, default=100, metavar="N", help="most iterations of a start (100)"
    )
    fit.add_argument(
        "--acceleration",
        choices=("auto", "anderson", "squarem", "none"),
        default="auto",
        help="leap where EM is slow (auto)",
    )
    fit.add_argument(
        "--max-time", type=arguments.seconds, metavar="S", help="seconds after which no further iteration begins"
    )
    fit.add_argument(
        "--stopping", choices=("aitken", "change"), help="rule; by default aitken for a thousandth of --tol"
    )
    fit.add_argument("--strict-convergence", action="store_true", help="exit with 3 if the fit did not converge")
    fit.add_argument("--reg-covar", type=float, default=1e-6, metavar="X", help="added to the variances (1e-6)")
    prior = fit.add_argument_group("prior", "for the posterior mode instead of maximum likelihood")
    prior.add_argument("--weight-concentration-prior", type=float, metavar="X", help="Dirichlet, on the weights")
    prior.add_argument("--mean-prior", type=arguments.numbers, metavar="LIST", help="one number a column")
    prior.add_argument("--mean-precision-prior", type=float, metavar="X", help="rows that the prior mean counts for")
    prior.add_argument("--degrees-of-freedom-prior", type=float, metavar="X", help="of the inverse Wishart")
    prior.add_argument(
        "--covariance-prior",
        type=arguments.scale,
        metavar="LIST",
        help="auto, or the scale: a matrix row by row (full, tied), one number a column (diag), one (spherical), or as "
        "the covariances of another structure are stored",
    )

    predict = command("predict", _predict, [model, rows, table], "label the rows of a table, from 0")
    predict.add_argument("--proba", action="store_true", help="write the probability of each component instead")
    score = command("score", _score, [model, rows, table], "log-likelihood, BIC and AIC of a model on a table")
    score.add_argument("--samples", action="store_true", help="write the log-density of each row instead")
    sample = command("sample", _sample, [model, table], "draw rows from a model")
    sample.add_argument("-n", "--n-samples", type=arguments.positive, default=1, metavar="N", help="rows to draw (1)")
    sample.add_argument("--seed", type=arguments.seed, metavar="N", help="seed; default: other rows each time")
    sample.add_argument("--labels", action="store_true", help="add the component that each row came from")
    command("info", _info, [model], "show a model file")
    stream = commands.add_parser("stream", help="learn from rows as they come, with checkpoints")
    stream_command.add_options(stream)
    bench = command("bench", _bench, [], "measure other packages beside this one, in a clone of the repository")
    bench.add_argument("options", nargs="*", metavar="OPTION", help="see python -m benchmarks.peers --help")
    command("warmup", _warmup, [], "compile all kernels into numba's cache, once an installation")
    return parser
