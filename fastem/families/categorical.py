"""Independent categorical columns: latent classes.

    log p(x; p) = sum over the categories c of a column of [x = c] log p_c

Goodman (1974), Biometrika 61, 215-231, equation 1; Linzer & Lewis (2011), J. Statist. Software 42(10), section 2.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.data import Data, chunks, finite_array
from fastem.families.exponential import require
from fastem.families.simplex import Simplex
from fastem.families.tables import Tabled

MOST = 4096  # categories in all: a start takes dense rows of so many


class CategoricalParams(NamedTuple):
    """Probabilities (K, T) of the categories of all columns, one column after the other."""

    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class Categorical(Simplex, Tabled):
    """Categorical components: columns that are independent within a component.

    Parameters
    ----------
    prior : Conjugate, default=None
        Dirichlet distributions of the probabilities of each column. None: maximum likelihood.
    categories : list of array-like, default=None
        The values of each column. None: those that the data hold.

    Examples
    --------
    >>> import numpy as np, fastem
    >>> X = np.array([[1, 5], [1, 5], [1, 7], [2, 9], [3, 9], [3, 9]])
    >>> result = fastem.fit(fastem.Mixture(fastem.Categorical(), 2), X, random_state=0, tol=1e-9)
    >>> np.sort(result.params.components.probabilities[:, 0]).round(3)
    array([0., 1.])
    """

    categories: Any = None
    values: Any = field(default=None, repr=False, kw_only=True)  # tuple of D arrays, sorted
    _sizes: ClassVar[tuple[int, ...]]
    _owners: ClassVar[np.ndarray]
    _first: ClassVar[np.ndarray]

    is_positive: ClassVar[bool] = False
    Params: ClassVar[Any] = CategoricalParams
    spacing: ClassVar[float | None] = None

    def __post_init__(self):
        super().__post_init__()
        if self.categories is not None and self.values is None:
            given = [finite_array(f"categories[{i}]", part, 1) for i, part in enumerate(self.categories)]
            for i, part in enumerate(given):
                if len(np.unique(part)) < len(part):
                    raise ValueError(f"categories[{i}] holds a value twice")
            object.__setattr__(self, "values", tuple(np.sort(part) for part in given))
        if self.values is not None:  # what every iteration asks for
            sizes = tuple(map(len, self.values))
            object.__setattr__(self, "_sizes", sizes)
            object.__setattr__(self, "_owners", np.repeat(np.arange(len(sizes)), sizes))
            object.__setattr__(self, "_first", np.concatenate([[0], np.cumsum(sizes)[:-1]]))

    @property
    def owners(self):
        """The column of each category."""
        if self.values is None:
            raise ValueError("the categories are not known before rows are seen; give them as `categories`")
        return self._owners

    @property
    def _starts(self):
        return self._first

    def seeing(self, data: Data):
        """Return the family with the categories, and the columns that hold missing values."""
        family = replace(self, n_features=data.n_features)
        if self.values is None:
            family = replace(family, values=distinct(data, self._number))
        elif len(self.values) != data.n_features:
            raise ValueError(f"categories are given for {len(self.values)} columns, and X has {data.n_features}")
        if (total := sum(family.n_values)) > MOST:
            column, most = self._number(np.argmax(family.n_values)), max(family.n_values)
            raise ValueError(
                f"X has {total} categories, {most} of them in column {column}; at most {MOST} in "
                "all can be taken: bin numbers, or drop columns that are identifiers"
            )
        gaps, counts = np.zeros(data.n_features, bool), np.zeros(total)
        n_rows = 0
        for rows, weight in chunks(data):
            family._checked(rows, n_rows)
            n_rows += len(rows)
            numbers = family.numbers(rows)
            there = ~np.isnan(numbers)
            gaps |= ~there.all(axis=0)
            places = (numbers + family._first)[there].astype(np.int64)
            counts += np.bincount(places, np.broadcast_to(weight[:, None], there.shape)[there], total)
        seen = np.add.reduceat(counts, family._first)
        if not seen.all():
            column = self._number(np.argmin(seen))
            raise ValueError(f"column {column} of X holds no value, only missing ones; drop it")
        overall = counts / seen[family._owners]
        return replace(family, missing=gaps, overall=overall, deviation=np.sqrt(overall * (1.0 - overall)))

    def check(self, X):
        """Refuse values that are no category."""
        words = "which is none of the categories; give all that may come as `categories`, or make it missing (NaN)"
        require(X, ~np.isnan(self.numbers(X)), words)

    def check_rows(self, X):
        """Refuse values that are no category, if these are known."""
        if self.values is not None and len(self.values) == X.shape[1]:
            super().check_rows(X)

    def check_values(self, X):
        """Nothing: the density of a value that is no category is 0."""

    def known(self, X):
        """Return rows in which a value that is no category is missing."""
        return np.where(np.isnan(self.numbers(X)), np.nan, X)

    def statistics(self, X):
        """1 for the category of a cell and 0 for the others of its column."""
        numbers = self.numbers(X)
        holes = np.isnan(numbers)
        out = np.zeros((len(X), sum(self.n_values)))
        places = np.arange(len(X))[:, None] * out.shape[1] + self._first + np.where(holes, 0.0, numbers)
        out.ravel()[places.astype(np.int64)] = 1.0
        for column in np.flatnonzero(holes.any(axis=0)):
            first = self._first[column]
            out[holes[:, column], first : first + self.n_values[column]] = np.nan
        return out

    def _coding(self):
        return tuple(part.tobytes() for part in self.values)

    def moments(self, sums, scatter, layout, frame):
        """Averages of the components from the sums (K, 1 + T) of a sweep; a column is there where a category is."""
        averages = super().moments(sums, scatter, layout, frame)
        return averages._replace(shares=np.add.reduceat(averages.means, self._starts, axis=1))

    def placed(self, components, name, values):
        """Return the components with given probabilities in some of them: all in a row, or an array for each column."""
        flat = {}
        for number, value in values.items():
            if isinstance(value, list | tuple):
                parts = [finite_array(f"frozen[{name!r}][{number}]", part, np.ndim(part)).ravel() for part in value]
                value = np.concatenate(parts) if parts else value
            flat[number] = value
        return super().placed(components, name, flat)

    def recalled(self, weights, params):
        """The family as it is: parameters do not tell the categories."""
        if self.values is None:
            raise ValueError("the categories are not known; give them as `categories`")
        return replace(self, n_features=len(self.values), missing=np.ones(len(self.values), bool))

    def n_columns(self, params):
        """Number of columns."""
        return int(self.owners[-1]) + 1

    def expected_rows(self, params, resp):
        """The most probable categories (n, D) given the probabilities (n, K) of the components."""
        shares = np.split(np.einsum("nk,kt->nt", resp, params.probabilities), self._starts[1:], axis=1)
        return np.column_stack([v[part.argmax(axis=1)] for v, part in zip(self.values, shares, strict=True)])

    def draw(self, params, k, n_samples, rng):
        """Draw categories."""
        parts = zip(self.values, self._only(params, k), strict=True)
        return np.column_stack([rng.choice(values, n_samples, p=p / p.sum()) for values, p in parts])

    # tables

    @property
    def n_values(self):
        """Number of categories of each column."""
        return self._sizes

    def numbers(self, X):
        """Places (n, D) among the sorted categories; NaN for what is none of them."""
        return places_of(X, self.values)

    def log_probabilities(self, params):
        """The natural parameters."""
        return self.natural_parameters(params)

    def of_values(self, counts, by_value):
        """The counts as they are."""
        return np.column_stack([counts, by_value])


def places_of(X: np.ndarray, values: tuple[np.ndarray, ...]) -> np.ndarray:
    """Places (n, D) of rows among the sorted values of their columns; NaN for what is none of them."""
    low = np.array([part[0] for part in values])
    if all(part[-1] - part[0] == len(part) - 1 and (np.diff(part) == 1).all() for part in values):
        places = X - low
        known = (places >= 0) & (places < np.array([len(part) for part in values])) & (np.floor(places) == places)
        return np.where(known, places, np.nan)
    places = np.empty(X.shape)
    for column, part in enumerate(values):
        found = np.minimum(np.searchsorted(part, X[:, column]), len(part) - 1)
        places[:, column] = np.where(part[found] == X[:, column], found, np.nan)
    return places


def distinct(data: Data, number: Callable[[int], int]) -> tuple[np.ndarray, ...]:
    """The values of each column, sorted, without NaN; columns are called by their numbers in X."""
    found = [np.empty(0)] * data.n_features
    for rows, _ in chunks(data):
        for column, values in enumerate(_values_of(rows)):
            found[column] = np.union1d(found[column], values)
            if len(found[column]) > MOST:
                raise ValueError(
                    f"column {number(column)} of X has more than {MOST} different values; bin numbers, or drop an "
                    "identifier"
                )
    for column, values in enumerate(found):
        if len(values) == 0:
            raise ValueError(f"column {number(column)} of X holds no value, only missing ones; drop it")
    return tuple(found)


def _values_of(rows: np.ndarray) -> list[np.ndarray]:
    """The values of each column; those of few integers are counted, which takes a tenth of the time of sorting."""
    low, high = np.fmin.reduce(rows, axis=0), np.fmax.reduce(rows, axis=0)
    low, high = np.nan_to_num(low), np.nan_to_num(high)
    there = ~np.isnan(rows)
    if (high - low).sum() > MOST or not (np.floor(rows) == rows)[there].all():
        return [np.unique(column[~np.isnan(column)]) for column in rows.T]
    first = np.concatenate([[0], np.cumsum(high - low + 1)]).astype(np.int64)
    places = (np.where(there, rows, low) - low + first[:-1])[there].astype(np.int64)
    counts = np.bincount(places, minlength=first[-1])
    return [np.flatnonzero(part) + start for part, start in zip(np.split(counts, first[1:-1]), low, strict=True)]
