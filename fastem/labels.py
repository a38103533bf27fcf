"""Which components a row can come from, one integer a row.

A number from 0 on is one component, -1 is any of them. Another negative number is a set: its bits are those of the
components in it, beside that of the sign.
"""

from numbers import Real
from typing import Any

import numpy as np

from fastem.data import as_numbers

ANY = -1
_SIGN = np.iinfo(np.int64).min
_MOST = 62  # components that a set can tell apart


def as_labels(labels: Any, n_states: int, name: str = "labels") -> np.ndarray | None:
    """Return labels as one integer a row; None if there are none, or every row may come from any component.

    Parameters
    ----------
    labels : array-like of shape (n_samples,) or (n_samples, n_states), or None
        Numbers of components, -1 where unknown; or 1 (True) for the components that a row can come from, 0 for others.
    n_states : int
        Number of components, with that of the noise.

    Raises
    ------
    ValueError
        If a label is not a whole number, names a component that is not there, or leaves a row none.
    """
    if labels is None:
        return None
    given = as_numbers(name, labels)
    if given.ndim == 2:
        codes = _of_sets(given, n_states, name)
    elif given.ndim == 1:
        codes = _of_numbers(given, n_states, name)
    else:
        raise ValueError(
            f"{name} has shape {given.shape}; (n_samples,) numbers of components, -1 where unknown, or (n_samples, "
            f"{n_states}) of 0 and 1 is needed"
        )
    return None if (codes == ANY).all() else codes


def _of_numbers(given: np.ndarray, n_states: int, name: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        codes = given.astype(np.int64)
    bad = (codes != given) | (codes < ANY) | (codes >= n_states)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{name}[{row}] is {given[row]}; numbers of components from 0 to {n_states - 1}, or -1 where unknown, are "
            "needed"
        )
    return codes


def _of_sets(given: np.ndarray, n_states: int, name: str) -> np.ndarray:
    if given.shape[1] != n_states:
        raise ValueError(f"{name} has {given.shape[1]} columns; one for each of the {n_states} components is needed")
    if not np.isin(given, (0, 1)).all():
        raise ValueError(f"{name} of two dimensions must hold 0 and 1: whether a row can come from a component")
    allowed = given.astype(bool)
    counts = allowed.sum(axis=1)
    if not counts.all():
        raise ValueError(f"{name}[{int(np.argmin(counts))}] leaves no component that the row can come from")
    codes = np.where(counts == n_states, ANY, np.argmax(allowed, axis=1))
    some = (counts > 1) & (counts < n_states)
    if some.any():
        if n_states > _MOST:
            raise ValueError(f"{name}: sets of components are for at most {_MOST} of them; give one number, or -1")
        codes[some] = _SIGN + allowed[some].astype(np.int64) @ (1 << np.arange(n_states))
    return codes


def allowed(codes: Any, n_states: int) -> np.ndarray:
    """Which components, (..., n_states) bool, labels name."""
    codes, number = np.asarray(codes, np.int64)[..., None], np.arange(n_states)
    bits = codes >> np.minimum(number, _MOST) & 1 == 1
    return np.where(codes >= 0, codes == number, bits | (codes == ANY))


def only(codes: np.ndarray) -> np.ndarray:
    """Numbers of the components that alone some row can come from, ascending."""
    return np.unique(codes[codes >= 0])


def of_target(y: Any) -> Any:
    """What a target says of the components: labels if some are -1, as in semi-supervised learning; else nothing.

    Raises
    ------
    ValueError
        If all others are 1: then -1 may be a class of two as well.
    """
    given = _as_column(y)
    if given is None:
        return None
    if given.dtype.kind in "OU":
        unknown = np.array([_is_minus_one(value) for value in given], bool)
        ones = np.array([isinstance(value, Real) and value == 1 for value in given], bool)
    else:
        unknown, ones = given == ANY, given == 1
    if not unknown.any():
        return None
    if not unknown.all() and (unknown | ones).all():
        raise ValueError(
            "y holds -1 and 1 alone, which may be two classes, or say that component 1 is known; give labels=y if so, "
            "and no y else"
        )
    return y


def encoded(labels: Any, names: np.ndarray | None, n_components: int, name: str = "labels") -> Any:
    """Labels that are names of classes as numbers, and the sorted names: of component 0, 1, and so on.

    Other labels are returned as they are, and None. `names` are those that are known already.
    """
    given = _as_column(labels)
    if given is None or given.dtype.kind not in "OU" or not any(isinstance(value, str) for value in given):
        return labels, None
    unknown = np.array([_is_unknown(value) for value in given], bool)
    for row in np.flatnonzero(~unknown):
        if not isinstance(given[row], str):
            raise ValueError(f"{name}[{row}] is {given[row]!r} beside names of classes; these are strings, or -1")
    words = given[~unknown].astype(str)
    found = np.unique(words)
    names = found if names is None else names
    unseen = np.setdiff1d(found, names)
    if len(unseen):
        first = str(unseen[0])
        raise ValueError(f"{name} holds the class {first!r}, which the fit has not seen; it knows {names.tolist()}")
    if len(names) > n_components:
        raise ValueError(
            f"{name} name {len(names)} classes, and n_components is {n_components}; a class is one component: raise it"
        )
    codes = np.full(len(given), ANY)
    codes[~unknown] = np.searchsorted(names, words)
    return codes, names


def _as_column(values: Any) -> np.ndarray | None:
    """An array of one dimension, in which strings and numbers stay what they are; else None."""
    if values is None or hasattr(values, "tocsr"):
        return None
    try:
        given = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)
    except (TypeError, ValueError):
        return None
    if given.dtype == object and not any(isinstance(value, str) for value in given.flat):
        try:
            given = given.astype(np.float64)
        except (TypeError, ValueError):
            return given if given.ndim == 1 else None
    return given if given.ndim == 1 and given.dtype.kind in "OUif" else None


def _is_unknown(value: Any) -> bool:
    """Whether a label among names says that nothing is known: -1, None, NaN, or the NA of pandas."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return _is_minus_one(value) or (isinstance(value, Real) and value != value)


def _is_minus_one(value: Any) -> bool:
    return value == "-1" if isinstance(value, str) else isinstance(value, Real) and value == ANY
