"""How many components, of which structure: a table of fitted candidates, and a test of one more component."""

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from fastem.climb import Callback
from fastem.data import Data, as_data, as_rows, is_integer, is_real
from fastem.em import fit
from fastem.estimators.gaussian_mixture import GaussianMixture
from fastem.families.covariance_structures import FORMS, MODELS, UNIVARIATE
from fastem.families.gaussian import COVARIANCE_TYPES
from fastem.kernels._jit import use_threads
from fastem.models.mixture import Mixture
from fastem.models.mixture_records import MixtureParams
from fastem.protocol import DegenerateError, Status

_DEFAULTS = {"stopping": "aitken", "tol": 1e-6, "max_iter": 1000}
CRITERIA = ("bic", "aic", "icl", "mml", "held-out")
METHODS = ("each", "annihilation")
_GIVEN = ("weights_init", "means_init", "precisions_init", "resp_init", "frozen")
_GROWN_FROM = 20_000  # rows, at most, on which one component more is looked for


class Candidate(NamedTuple):
    """One row of the table; lower values of every criterion are better.

    Attributes
    ----------
    n_components : int
    covariance_type : str
    n_parameters : int
    log_likelihood : float
        Total, of the rows that were fitted; NaN if no start could be fitted.
    bic, aic, icl : float
        -2 log L + p log n, -2 log L + 2 p, and BIC + twice the entropy of the classification (Biernacki, Celeux &
        Govaert 2000, IEEE PAMI 22, 719-725), with the most probable component of each row.
    mml : float
        Twice the message length of Figueiredo & Jain (2002), IEEE PAMI 24, 381-396, equation 15; components of fewer
        than 12 rows count as of 12, and a covariance that all share is added once.
    held_out : float
        -2 log-likelihood of the rows that were held out; NaN without any.
    converged : bool
    failure : str
        Why there is no fit; empty if there is one.
    """

    n_components: int
    covariance_type: str
    n_parameters: int
    log_likelihood: float
    bic: float
    aic: float
    icl: float
    mml: float
    held_out: float
    converged: bool
    failure: str


class Selection(NamedTuple):
    """Outcome of `select`.

    Attributes
    ----------
    best : GaussianMixture
        The fitted candidate with the least criterion.
    table : list of Candidate
        All candidates, from the best to the worst; those without a fit last.
    criterion : str
    """

    best: GaussianMixture
    table: list[Candidate]
    criterion: str

    def __str__(self) -> str:
        """The table as text."""
        columns = [name for name in Candidate._fields if name not in ("converged", "failure")]
        lines = [" ".join(f"{name:>15}" for name in columns)]
        for row in self.table:
            cells = [getattr(row, name) for name in columns]
            lines.append(" ".join(f"{cell:15.3f}" if isinstance(cell, float) else f"{cell:>15}" for cell in cells))
        return "\n".join(lines)


def select(
    X: Any,
    *,
    n_components: Iterable[int] = range(1, 10),
    covariance_type: str | Iterable[str] = FORMS,
    criterion: str = "bic",
    method: str = "each",
    held_out: float = 0.2,
    sample_weight: Any = None,
    random_state: Any = None,
    n_jobs: int | None = None,
    **params: Any,
) -> Selection:
    """Fit numbers of components of several structures; return the best by a criterion, and the table.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
    n_components : iterable of int, default=range(1, 10)
        What cannot be fitted, for one more components than rows, is a line of the table that says why.
    covariance_type : str or iterable of str, default=('full', 'tied', 'diag', 'spherical')
        Names that `GaussianMixture` takes, or 'all': the fourteen of mclust, or for one column its two.
    criterion : {'bic', 'aic', 'icl', 'mml', 'held-out'}, default='bic'
    method : {'each', 'annihilation'}, default='each'
        'each': each number, from the smallest; the fit before it, with a component split, races among its starts.
        'annihilation': one run down from the largest, in which a component dies when it counts fewer rows than half
        its parameters, and the weakest where none does (Figueiredo & Jain 2002); numbers that are passed over are
        lines of the table without a fit. The paper's criterion is 'mml', which takes small components sooner than
        'bic'. The climbs of the run are EM's own steps; `n_init` and `acceleration` serve the last fit of each number
        only.
    held_out : float, default=0.2
        Part of the rows, drawn at random, that 'held-out' keeps from the fits.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights count as numbers of rows, also in the criteria.
    random_state : int, RandomState instance or None, default=None
        Every candidate starts from the same seed.
    n_jobs : int, default=None
        Structures that are fitted at once, with the threads shared among them; None or -1: all. The result does not
        depend on it.
    **params
        Constructor parameters of `GaussianMixture`; by default stopping='aitken', tol=1e-6, max_iter=1000.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        If an argument cannot be used, or no candidate can be fitted.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 6.0])
    >>> chosen = fastem.select(X, n_components=range(1, 4), random_state=0)
    >>> chosen.best.n_components, chosen.best.covariance_type
    (2, 'spherical')
    """
    for name, value, known in (("criterion", criterion, CRITERIA), ("method", method, METHODS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {list(known)}; got {value!r}")
    if n_jobs not in (None, -1) and not is_integer(n_jobs, 1):
        raise ValueError(f"n_jobs must be None, -1 or a positive integer; got {n_jobs!r}")
    GaussianMixture(**params)._validate_params()
    block = as_data(X, sample_weight, allow_nan=True).whole().blocks[0]
    X, weight = block.X, block.counts
    numbers = _numbers(n_components)
    types = [covariance_type] if isinstance(covariance_type, str) else list(covariance_type)
    if types == ["all"]:
        types = list(UNIVARIATE if X.shape[1] == 1 else MODELS)
    if not types or any(name not in COVARIANCE_TYPES for name in types):
        raise ValueError(f"covariance_type must be 'all' or hold some of {list(COVARIANCE_TYPES)}; got {types}")
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    params = _DEFAULTS | params
    given = [name for name in _GIVEN if params.get(name) is not None]
    if given:
        raise ValueError(f"{given[0]} has the shape of one number of components; leave it out")
    kept, judged = np.arange(len(X)), np.empty(0, np.int64)
    if criterion == "held-out":
        if not is_real(held_out, 0.0) or not 0 < held_out < 1:
            raise ValueError(f"held_out must lie between 0 and 1; got {held_out!r}")
        order = np.random.default_rng(seed).permutation(len(X))
        n_judged = max(1, round(held_out * len(X)))
        kept, judged = np.sort(order[n_judged:]), np.sort(order[:n_judged])
        if len(kept) < 2:
            raise ValueError(f"held_out={held_out} leaves {len(kept)} row(s) to fit; at least 2 are needed")
    data = as_data(X[kept], None if (weight == 1).all() else weight[kept], allow_nan=True)
    n_threads = use_threads(GaussianMixture(**params).n_threads)
    n_jobs = min(len(types), n_threads if n_jobs in (None, -1) else int(n_jobs))
    chain = _each if method == "each" else _annihilated
    stopped = threading.Event()

    def end_if_stopped(_):  # asked after each E-step over all rows: a race runs to its end
        if stopped.is_set():
            raise KeyboardInterrupt

    def run(name: str) -> list[tuple[Candidate, GaussianMixture | None]]:
        shared = {**params, "covariance_type": name, "random_state": seed, "n_threads": max(1, n_threads // n_jobs)}
        rows = []
        for k, estimator, failure in chain(data, numbers, shared, [end_if_stopped]):
            rows.append((_candidate(k, name, estimator, failure, data, X[judged], weight[judged]), estimator))
            if estimator is not None:
                estimator.n_threads = params.get("n_threads")
        return rows

    if n_jobs == 1:
        fitted = [pair for name in types for pair in run(name)]
    else:
        with ThreadPoolExecutor(n_jobs) as pool:
            try:
                fitted = [pair for rows in pool.map(run, types) for pair in rows]
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
    name = criterion.replace("-", "_")
    fitted.sort(key=lambda pair: (math.isnan(getattr(pair[0], name)), getattr(pair[0], name)))
    if fitted[0][1] is None:
        raise ValueError(f"no candidate could be fitted; the first failed so: {fitted[0][0].failure}")
    return Selection(fitted[0][1], [row for row, _ in fitted], criterion)


def _numbers(n_components: Iterable[int]) -> list[int]:
    numbers = list(n_components) if isinstance(n_components, Iterable) else [n_components]
    if not numbers or not all(is_integer(k, 1) for k in numbers):
        raise ValueError(f"n_components must hold integers of at least 1; got {numbers}")
    return [int(k) for k in numbers]


_Tried = tuple[int, GaussianMixture | None, str]  # number of components, the fit or None, why there is none


def _each(data: Data, numbers: list[int], params: dict[str, Any], callbacks: list[Callback]) -> Iterator[_Tried]:
    """Fits of the numbers, ascending; each takes part in the starts of the next."""
    before: GaussianMixture | None = None
    sample = data
    if data.n_counting > _GROWN_FROM:
        sample = data.take(data.draw(_GROWN_FROM, np.random.default_rng(params["random_state"])))
    for k in sorted(numbers):
        entrants = []
        if before is not None and before.n_components == k - 1:
            larger = GaussianMixture(k, **params)
            if larger._resolved(warm=False)["n_race"]:
                with contextlib.suppress(DegenerateError):  # the fit will say so
                    entrants = list(larger._model().prepare(data).grown(before._params(), sample))
        tried = _tried(data, k, params, entrants=entrants, callbacks=callbacks)
        before = tried[1]
        yield tried


def _annihilated(data: Data, numbers: list[int], params: dict[str, Any], callbacks: list[Callback]) -> Iterator[_Tried]:
    """Fits from the largest number to the smallest as components die (Figueiredo & Jain 2002, figure 2)."""
    left = sorted(set(numbers))
    start: MixtureParams | None = None
    while left:
        try:
            if start is None:
                estimator = GaussianMixture(left[-1], **params)
                options = {"tol": estimator.tol, "max_iter": estimator.max_iter, "max_time": estimator.max_time}
                model = estimator._model().prepare(data).guarded(data)
                model = replace(model, weight_cost=0.5 * _component_size(model, data.n_features))
                start = model.initialize(data, np.random.default_rng(params["random_state"]))
            result = fit(model, data, start=start, stopping="aitken", callbacks=[_has_dead, *callbacks], **options)
        except DegenerateError as error:  # there may be a start with fewer
            yield left.pop(), None, str(error)
            start = None
            continue
        if result.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        weights = result.params.weights
        if not weights.all():
            kept = np.flatnonzero(weights)
        else:
            if len(weights) == left[-1]:
                left.pop()
                # without the cost of components
                yield _tried(data, len(weights), params, start=result.params, callbacks=callbacks)
            kept = np.delete(np.arange(len(weights)), np.argmin(weights))
        while left and left[-1] > len(kept):
            yield left.pop(), None, "components died together, and left fewer"
        if left:
            model, start = model.keep(result.params, kept)


def _has_dead(step) -> bool:
    return not step.params.weights.all()


def _tried(data: Data, k: int, params: dict[str, Any], **options) -> _Tried:
    """A fit, or why there is none."""
    try:
        return k, _fitted(GaussianMixture(k, **params), data, **options), ""
    except DegenerateError as error:
        return k, None, str(error)


def _fitted(estimator: GaussianMixture, data: Data, **options) -> GaussianMixture:
    """The estimator after its fit; Control-C ends not only that."""
    estimator._fit_data(data, **options)
    if estimator.status_ is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return estimator


def _component_size(model: Mixture, n_features: int) -> int:
    """Parameters of one component, its weight aside."""
    one, two = (model.family.n_parameters(k, n_features) for k in (1, 2))
    return two - one


def _candidate(
    k: int, name: str, estimator: GaussianMixture | None, failure: str, data: Data, held: np.ndarray, weight: np.ndarray
) -> Candidate:
    """A row of the table."""
    nan = math.nan
    if estimator is None:
        return Candidate(k, name, 0, nan, nan, nan, nan, nan, nan, False, failure)
    block = data.blocks[0]
    rows, counts = block.X, block.counts
    total = _log_likelihood(estimator, rows, counts)
    n_parameters, n_rows = estimator._n_parameters(), data.total_weight
    bic = -2 * total + n_parameters * math.log(n_rows)
    certainty = np.log(estimator.predict_proba(rows).max(axis=1))
    size = _component_size(estimator._model(), rows.shape[1])
    n_shared = n_parameters - k * (size + 1) + 1  # a common covariance is sent once
    lengths = np.log(np.maximum(n_rows * estimator.weights_ / 12, 1.0))  # no part of a message is shorter than nothing
    message = size * float(lengths.sum()) + k * (math.log(n_rows / 12) + size + 1)
    message += n_shared * (math.log(n_rows / 12) + 1)
    return Candidate(
        n_components=k,
        covariance_type=name,
        n_parameters=n_parameters,
        log_likelihood=total,
        bic=bic,
        aic=-2 * total + 2 * n_parameters,
        icl=bic - 2 * float((certainty * counts).sum()),
        mml=message - 2 * total,
        held_out=-2 * _log_likelihood(estimator, held, weight) if len(held) else nan,
        converged=estimator.converged_,
        failure="",
    )


def _log_likelihood(estimator, rows, counts) -> float:
    """Total, of the rows that count."""
    counting = counts > 0
    return float((estimator.score_samples(rows)[counting] * counts[counting]).sum())


class LikelihoodRatio(NamedTuple):
    """Outcome of `bootstrap_test`.

    Attributes
    ----------
    statistic : float
        Twice the gain in log-likelihood by one more component.
    p_value : float
        Part of the statistics, that of the data among them, which are at least as large.
    replicates : ndarray of shape (n_bootstrap,)
        Statistics of rows drawn from the smaller mixture.
    """

    statistic: float
    p_value: float
    replicates: np.ndarray


def bootstrap_test(
    X: Any, n_components: int, *, n_bootstrap: int = 99, random_state: Any = None, **params: Any
) -> LikelihoodRatio:
    """Test `n_components` components against one more, by the parametric bootstrap of the likelihood ratio.

    McLachlan (1987), Appl. Statist. 36, 318-324: the statistic has no chi-squared distribution, so rows are drawn from
    the fitted smaller mixture, and both mixtures are fitted to them.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
    n_components : int
        Of the smaller mixture.
    n_bootstrap : int, default=99
    random_state : int, RandomState instance or None, default=None
    **params
        Constructor parameters of `GaussianMixture`; defaults as in `select`.

    Returns
    -------
    LikelihoodRatio

    Raises
    ------
    ValueError
        If an argument cannot be used, or a fit to the data collapses.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(100, 1)), rng.normal(size=(100, 1)) + 5.0])
    >>> fastem.bootstrap_test(X, 1, n_bootstrap=19, random_state=0).p_value
    0.05
    """
    if not is_integer(n_components, 1):
        raise ValueError(f"n_components must be an integer of at least 1; got {n_components!r}")
    if not is_integer(n_bootstrap, 1):
        raise ValueError(f"n_bootstrap must be an integer of at least 1; got {n_bootstrap!r}")
    params = _DEFAULTS | params
    GaussianMixture(**params)._validate_params()
    X = as_rows(X)
    state = check_random_state(random_state)

    def fit_both(rows):
        seed = state.randint(np.iinfo(np.int32).max)
        numbers = (int(n_components), int(n_components) + 1)
        pair = [_fitted(GaussianMixture(k, random_state=seed, **params), as_data(rows)) for k in numbers]
        values = [estimator.score(rows) * len(rows) for estimator in pair]
        return pair[0], max(0.0, 2 * (values[1] - values[0]))

    null, statistic = fit_both(X)
    rng = np.random.default_rng(state.randint(np.iinfo(np.int32).max))
    replicates: list[float] = []
    collapsed = 0
    while len(replicates) < n_bootstrap:
        rows = null._scoring_model().sample(null._params(), len(X), rng)[0].astype(X.dtype)
        try:
            replicates.append(fit_both(rows)[1])
        except DegenerateError:
            collapsed += 1
            if collapsed > n_bootstrap:
                raise
    values = np.array(replicates)
    return LikelihoodRatio(statistic, float((1 + (values >= statistic).sum()) / (1 + n_bootstrap)), values)
