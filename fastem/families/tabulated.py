"""Discrete families by the values that columns hold: any distribution of counts, or of categories.

The statistics of a column are the shares of its values, which are sufficient for every discrete distribution:

    log p(x; theta) = sum over the values v of a column of [x = v] log p(v; theta)

So an M-step is the maximum of sum_v share_v log p(v; theta), a sum over the values and not over rows, and an E-step is
look-up (`tables.Tabled`): with one column, rows count as many as there are values.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from fastem.data import Data, finite_array
from fastem.families.categorical import MOST, distinct, places_of
from fastem.families.exponential import _FAR, require
from fastem.families.newton import maximize_each
from fastem.families.tables import Tabled

_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class OfValues(Tabled):
    """Columns whose statistics are shares of values; a value that is missing counts in none of them."""

    values: Any = field(default=None, repr=False, kw_only=True)  # tuple of D arrays, sorted

    noun: ClassVar[str] = "values"
    argument: ClassVar[str] = "support"  # by which all that may come are given

    @property
    def support_given(self) -> Any:
        """All values that may come, a list of arrays, or None for those that the data hold."""
        raise NotImplementedError

    @property
    def _marked(self) -> np.ndarray:
        return np.zeros(len(self.missing), bool)  # what is missing counts 0 in every statistic

    @property
    def _starts(self) -> np.ndarray:
        """First statistic (D,) of each column; those of a column follow each other."""
        return np.concatenate([[0], np.cumsum(self.n_values)[:-1]])

    @property
    def owners(self):
        """The column of each value."""
        return np.repeat(np.arange(len(self.values)), self.n_values)

    @property
    def n_values(self):
        """Number of values of each column."""
        return tuple(map(len, self.values))

    def known_values(self, n_features: int) -> tuple[np.ndarray, ...] | None:
        """The values that were given, sorted, after checking them."""
        if self.support_given is None:
            return None
        name = self.argument
        given = [finite_array(f"{name}[{i}]", part, 1) for i, part in enumerate(self.support_given)]
        for i, part in enumerate(given):
            if len(np.unique(part)) < len(part):
                raise ValueError(f"{name}[{i}] holds a value twice")
        if len(given) != n_features:
            raise ValueError(f"{name} is given for {len(given)} columns, and X has {n_features}")
        return tuple(np.sort(part) for part in given)

    def seeing(self, data: Data):
        """Return the family with the values of each column, and the columns in which some are missing."""
        family = replace(
            self, n_features=data.n_features, values=self.known_values(data.n_features) or distinct(data, self._number)
        )
        if (total := sum(family.n_values)) > MOST:
            column = int(np.argmax(family.n_values))
            raise ValueError(
                f"X has {total} {self.noun}, {family.n_values[column]} of them in column {column}; at most {MOST} in "
                "all can be taken: bin numbers, or drop columns that are identifiers"
            )
        gaps, mean, deviation = family.looked_over(data, family.statistics)
        return replace(family, missing=gaps, overall=mean, deviation=deviation)

    def check(self, X):
        """Refuse values that are not known."""
        words = f"which is none of the {self.noun}; give all that may come as `{self.argument}`, or make it missing"
        require(X, ~np.isnan(self.numbers(X)), words)

    def statistics(self, X):
        """1 for the value of a cell and 0 for the others of its column."""
        numbers = self.numbers(X)
        out = np.zeros((len(X), sum(self.n_values)))
        for column, (first, n) in enumerate(zip(self._starts, self.n_values, strict=True)):
            part = numbers[:, column]
            out[:, first : first + n] = part[:, None] == np.arange(n)
            out[np.isnan(part), first : first + n] = np.nan
        return out

    def log_partition(self, params):
        """0: probabilities are normalised as they are."""
        return np.zeros((self.n_components(params), len(self.values)))

    def _coding(self):
        return tuple(part.tobytes() for part in self.values)

    def moments(self, sums, scatter, layout, frame):
        """Averages of the components from the sums (K, 1 + T) of a sweep; a column is there where a value is."""
        averages = super().moments(sums, scatter, layout, frame)
        return averages._replace(shares=np.add.reduceat(averages.means, self._starts, axis=1))

    def recalled(self, weights, params):
        """The family with the values that were given: parameters do not tell them."""
        values = self.values or self.known_values(super().n_columns(params))
        if values is None:
            raise ValueError(f"the {self.noun} are not known; give them as `{self.argument}`")
        return replace(self, n_features=len(values), values=values, missing=np.ones(len(values), bool))

    def numbers(self, X):
        """Places (n, D) among the sorted values; NaN for what is none of them."""
        return places_of(X, self.values)

    def log_probabilities(self, params):
        """The natural parameters."""
        return self.natural_parameters(params)

    def of_values(self, counts, by_value):
        """The counts as they are."""
        return np.column_stack([counts, by_value])


@dataclass(frozen=True, eq=False)
class Tabulated(OfValues):
    """A base for discrete distributions of one's own, of columns that are independent within a component.

    A class of it says `Params`, a NamedTuple of arrays (K, D), `domains`, what the values of each field may be ('real',
    'angle', 'positive', 'not negative', 'unit'), and `log_probability`, `first_guess` and `draw`; perhaps
    `maximum` (else the maximum is searched for from the first guess, by Newton's method with differences),
    `allows` and `column_means`. See docs/new_family.md.

    The values of each column are learned from the data, at most 4096 in all. A pass over rows costs an addition for
    every group of columns whose values have few combinations, and rows that repeat are gone through once; an M-step
    costs what `log_probability` does on the values.

    Parameters
    ----------
    prior : Conjugate, default=None
        Rows whose shares of the values are given. None: maximum likelihood.
    support : list of array-like, default=None
        The values of each column that may come. None: those that the data hold. A stream whose later rows bring others
        needs it.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from typing import NamedTuple
    >>> import numpy as np, fastem
    >>> from scipy.special import xlogy
    >>> class Shifted(NamedTuple):
    ...     means: np.ndarray
    >>> @dataclass(frozen=True, eq=False)
    ... class Trials(fastem.Tabulated):  # until the first success
    ...     Params, domains = Shifted, {"means": "positive"}
    ...     def log_probability(self, x, means):
    ...         return xlogy(x, means) - (x + 1) * np.log1p(means)
    ...     def maximum(self, x, shares):
    ...         return (shares @ x,)
    >>> X = np.random.default_rng(0).geometric(0.25, size=(5000, 1)) - 1.0
    >>> fastem.fit(fastem.Mixture(Trials()), X).params.components.means.round()
    array([[3.]])
    """

    support: Any = None

    spacing: ClassVar[float | None] = 1.0

    # what a family says

    def allows(self, x: np.ndarray) -> np.ndarray:
        """Return which values (n, D) the distribution can have: counts."""
        return (x >= 0) & (np.floor(x) == x)

    def log_probability(self, x: np.ndarray, *params: np.ndarray) -> np.ndarray:
        """Return log p (K, V) of the values x (V,) of a column, under each field of the parameters (K, 1)."""
        raise NotImplementedError(f"{type(self).__name__} must have log_probability(x, *parameters)")

    def first_guess(self, x: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return parameters (K,) of a column to begin a search from, given shares (K, V) of the values x (V,)."""
        raise NotImplementedError(f"{type(self).__name__} must have first_guess(x, shares), or maximum(x, shares)")

    def maximum(self, x: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the parameters (K,) of a column that maximise sum_v shares_v log p(x_v), with shares (K, V) of 1."""
        domains = list(self.domains.values())

        def value(at):
            fields = (self._values(domain, at[:, i : i + 1]) for i, domain in enumerate(domains))
            scores = self.log_probability(x, *fields)
            return np.where(shares > 0, shares * np.where(shares > 0, scores, 0.0), 0.0).sum(axis=1)

        guess = zip(domains, self.first_guess(x, shares), strict=True)
        start = np.stack([self._coordinates(domain, part) for domain, part in guess], axis=1)
        far = np.array([np.inf if domain in ("real", "angle") else _FAR for domain in domains])
        found = maximize_each(value, start, np.ones(start.shape, bool), far)
        return tuple(self._values(domain, found[:, i]) for i, domain in enumerate(domains))

    # what follows

    @property
    def support_given(self):
        """The argument."""
        return self.support

    def check(self, X):
        """Refuse values that the distribution cannot have, and those that are not known."""
        require(X, self.allows(X), f"which {type(self).__name__} cannot have")
        super().check(X)

    def check_rows(self, X):
        """Refuse values that the distribution cannot have, and those that are not known, if any is."""
        if self.values is None:
            self.check_values(X)
        else:
            super().check_rows(X)

    def check_values(self, X):
        """Refuse values that the distribution cannot have."""
        require(X, self.allows(X), f"which {type(self).__name__} cannot have")

    def natural_parameters(self, params):
        """Logarithms of the probabilities."""
        fields = [[part[:, j : j + 1] for part in params] for j in range(len(self.values))]
        return np.concatenate([self.log_probability(x, *of) for x, of in zip(self.values, fields, strict=True)], axis=1)

    def estimate(self, means):
        """Parameters of largest likelihood given the shares of all values."""
        found = []
        for x, part in zip(self.values, np.split(means, self._starts[1:], axis=1), strict=True):
            seen = part.any(axis=0)
            shares = part[:, seen]
            found.append(self.maximum(x[seen], shares / shares.sum(axis=1, keepdims=True)))
        return self.Params(*(np.stack(columns, axis=1) for columns in zip(*found, strict=True)))

    def expectation(self, params):
        """Probabilities of the values; together less than 1 where others are possible."""
        return np.exp(self.natural_parameters(params))

    def positions(self, X, frame):
        """Where rows lie (n, D): values in units of their deviation, at their mean if missing."""
        mean, unit = self._spread
        return np.nan_to_num((X - mean) / unit, nan=0.0)

    def _placed(self, statistics):
        mean, unit = self._spread
        total = np.add.reduceat(statistics, self._starts, axis=1)
        return (np.add.reduceat(statistics * np.concatenate(self.values), self._starts, axis=1) / total - mean) / unit

    @property
    def _spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (D,) of all rows."""
        x = np.concatenate(self.values)
        mean = np.add.reduceat(self.overall * x, self._starts)
        variance = np.add.reduceat(self.overall * (x - mean[self.owners]) ** 2, self._starts)
        return mean, np.where(variance > _TINY, np.sqrt(variance), 1.0)

    def exact_codes(self, params, log_weights, X):
        """Rows of codes and the score of each; of values too that were not known before."""
        return super(Tabulated, self._of(X)).exact_codes(params, log_weights, X)

    def impossible(self, params, possible, X):
        """Rows (n,) bool that have density 0 under each component that is possible (K,), or None if there are none."""
        return super(Tabulated, self._of(X)).impossible(params, possible, X)

    def _of(self, X: np.ndarray) -> Any:
        """The family with the values of some rows."""
        X = X.astype(np.float64, copy=False)
        self.check_values(X)
        found = (np.unique(column[~np.isnan(column)]) for column in X.T)
        return replace(self, values=tuple(column if len(column) else np.zeros(1) for column in found))
