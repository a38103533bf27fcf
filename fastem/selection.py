"""How many components, of which structure: a table of fitted candidates, and a test of one more component."""

import contextlib
import math
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from fastem.data import as_data, as_rows, is_integer, is_real
from fastem.estimators.gaussian_mixture import GaussianMixture
from fastem.families.gaussian import COVARIANCE_TYPES
from fastem.protocol import DegenerateError

_DEFAULTS = {"stopping": "aitken", "tol": 1e-6, "max_iter": 1000, "n_race": 5}
CRITERIA = ("bic", "aic", "icl", "held-out")


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
        columns = ["n_components", "covariance_type", "n_parameters", "log_likelihood", "bic", "aic", "icl", "held_out"]
        lines = [" ".join(f"{name:>15}" for name in columns)]
        for row in self.table:
            cells = [getattr(row, name) for name in columns]
            lines.append(" ".join(f"{cell:15.3f}" if isinstance(cell, float) else f"{cell:>15}" for cell in cells))
        return "\n".join(lines)


def select(
    X: Any,
    *,
    n_components: Iterable[int] = range(1, 10),
    covariance_type: str | Iterable[str] = COVARIANCE_TYPES,
    criterion: str = "bic",
    held_out: float = 0.2,
    sample_weight: Any = None,
    random_state: Any = None,
    **params: Any,
) -> Selection:
    """Fit every combination of a number of components and a structure; return the best by a criterion, and the table.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
    n_components : iterable of int, default=range(1, 10)
        Numbers larger than that of the rows are left out.
    covariance_type : str or iterable of str, default=('full', 'tied', 'diag', 'spherical')
    criterion : {'bic', 'aic', 'icl', 'held-out'}, default='bic'
    held_out : float, default=0.2
        Part of the rows, drawn at random, that 'held-out' keeps from the fits.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights count as numbers of rows, also in the criteria.
    random_state : int, RandomState instance or None, default=None
        Every candidate starts from the same seed.
    **params
        Constructor parameters of `GaussianMixture`; by default stopping='aitken', tol=1e-6, max_iter=1000, n_init=1,
        n_race=5.

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
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {list(CRITERIA)}; got {criterion!r}")
    block = as_data(X, sample_weight).blocks[0]
    X, weight = block.X, block.counts
    numbers = _numbers(n_components, len(X))
    types = [covariance_type] if isinstance(covariance_type, str) else list(covariance_type)
    if not types or any(name not in COVARIANCE_TYPES for name in types):
        raise ValueError(f"covariance_type must hold some of {list(COVARIANCE_TYPES)}; got {types}")
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    params = _DEFAULTS | params
    kept, judged = np.arange(len(X)), np.empty(0, np.int64)
    if criterion == "held-out":
        if not is_real(held_out, 0.0) or not 0 < held_out < 1:
            raise ValueError(f"held_out must lie between 0 and 1; got {held_out!r}")
        order = np.random.default_rng(seed).permutation(len(X))
        n_judged = max(1, round(held_out * len(X)))
        kept, judged = np.sort(order[n_judged:]), np.sort(order[:n_judged])
        if len(kept) < 2:
            raise ValueError(f"held_out={held_out} leaves {len(kept)} row(s) to fit; at least 2 are needed")
    fitted = []
    for name in types:
        for k in numbers:
            estimator = GaussianMixture(k, covariance_type=name, random_state=seed, **params)
            fitted.append(_fit(estimator, X, weight, kept, judged))
    name = criterion.replace("-", "_")
    fitted.sort(key=lambda pair: (math.isnan(getattr(pair[0], name)), getattr(pair[0], name)))
    if fitted[0][1] is None:
        raise ValueError(f"no candidate could be fitted; the first failed so: {fitted[0][0].failure}")
    return Selection(fitted[0][1], [row for row, _ in fitted], criterion)


@contextlib.contextmanager
def _unwarned():
    """Surplus components hardly ever converge; the table says which did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _numbers(n_components: Iterable[int], n_samples: int) -> list[int]:
    numbers = list(n_components) if isinstance(n_components, Iterable) else [n_components]
    if not numbers or not all(is_integer(k, 1) for k in numbers):
        raise ValueError(f"n_components must hold integers of at least 1; got {numbers}")
    numbers = [int(k) for k in numbers if k <= n_samples]
    if not numbers:
        raise ValueError(f"every n_components is larger than the number of rows, {n_samples}")
    return numbers


def _fit(estimator, X, weight, kept, judged) -> tuple[Candidate, GaussianMixture | None]:
    """A candidate's row, and its fit if there is one."""
    rows, counts = X[kept], weight[kept]
    nan = math.nan
    try:
        with _unwarned():
            estimator.fit(rows, sample_weight=None if (counts == 1).all() else counts)
    except DegenerateError as error:
        row = Candidate(
            estimator.n_components, estimator.covariance_type, 0, nan, nan, nan, nan, nan, False, str(error)
        )
        return row, None
    total = _log_likelihood(estimator, rows, counts)
    n_parameters, n_rows = estimator._n_parameters(), float(counts.sum())
    bic = -2 * total + n_parameters * math.log(n_rows)
    certainty = np.log(estimator.predict_proba(rows).max(axis=1))
    held = -2 * _log_likelihood(estimator, X[judged], weight[judged]) if len(judged) else nan
    row = Candidate(
        n_components=estimator.n_components,
        covariance_type=estimator.covariance_type,
        n_parameters=n_parameters,
        log_likelihood=total,
        bic=bic,
        aic=-2 * total + 2 * n_parameters,
        icl=bic - 2 * float((certainty * counts).sum()),
        held_out=held,
        converged=estimator.converged_,
        failure="",
    )
    return row, estimator


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
    X = as_rows(X)
    state = check_random_state(random_state)
    params = _DEFAULTS | params

    def fit_both(rows):
        seed = state.randint(np.iinfo(np.int32).max)
        pair = [GaussianMixture(int(k), random_state=seed, **params) for k in (n_components, n_components + 1)]
        with _unwarned():
            values = [estimator.fit(rows).score(rows) * len(rows) for estimator in pair]
        return pair[0], max(0.0, 2 * (values[1] - values[0]))

    null, statistic = fit_both(X)
    rng = np.random.default_rng(state.randint(np.iinfo(np.int32).max))
    replicates: list[float] = []
    collapsed = 0
    while len(replicates) < n_bootstrap:
        rows = null._model().sample(null._params(), len(X), rng)[0].astype(X.dtype)
        try:
            replicates.append(fit_both(rows)[1])
        except DegenerateError:
            collapsed += 1
            if collapsed > n_bootstrap:
                raise
    values = np.array(replicates)
    return LikelihoodRatio(statistic, float((1 + (values >= statistic).sum()) / (1 + n_bootstrap)), values)
