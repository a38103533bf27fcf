"""Parameters of a mixture that stay as they are: which, with which values, and what is left for an M-step."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastem.data import is_real
from fastem.families.held import Held
from fastem.models.mixture_records import MixtureParams
from fastem.protocol import DegenerateError

_WEIGHTS = "weights"


class Choice(NamedTuple):
    """Components of which a parameter is frozen, and the values that are given for some of them."""

    mask: np.ndarray  # (K,) bool
    values: dict[int, Any]

    @property
    def has_all_values(self) -> bool:
        return set(np.flatnonzero(self.mask)) <= set(self.values)


def choices(frozen: Any, n_components: int, family: Any) -> dict[str, Choice]:
    """What `frozen` says, by the name of the parameter; see `Mixture`.

    Raises
    ------
    ValueError or TypeError
        If it names a parameter or a component that is not there, or one that cannot be frozen.
    """
    if frozen is None:
        return {}
    if not isinstance(frozen, Mapping):
        raise TypeError(
            f"frozen must be a dict from names of parameters to components, such as {{'means': [0, 2]}}; got {frozen!r}"
        )
    known = (_WEIGHTS, *family.frozen_fields)
    found = {}
    for name, which in frozen.items():
        if name not in known:
            raise ValueError(f"frozen names {name!r}; what can be frozen here is {', '.join(known)}")
        choice = _choice(name, which, n_components + family.n_noise * (name == _WEIGHTS))
        if choice.mask.any():
            found[name] = choice
    fields = {name: choice.mask for name, choice in found.items() if name != _WEIGHTS}
    if fields:
        family.check_frozen(fields)
    return found


def _choice(name: str, which: Any, size: int) -> Choice:
    if which is None or isinstance(which, bool | np.bool_):
        return Choice(np.full(size, bool(which)), {})
    values = dict(which) if isinstance(which, Mapping) else {}
    numbers = np.asarray(list(which) if isinstance(which, Iterable) and not isinstance(which, np.ndarray) else which)
    if numbers.size == 0:
        return Choice(np.zeros(size, bool), {})
    if numbers.dtype == bool and numbers.shape == (size,):
        return Choice(numbers, {})
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise TypeError(
            f"frozen[{name!r}] must be True, numbers of components, {size} times True or False, or a dict from numbers "
            f"to values; got {which!r}"
        )
    if numbers.min() < 0 or numbers.max() >= size:
        raise ValueError(f"frozen[{name!r}] names components {numbers.tolist()}; they are numbered 0 to {size - 1}")
    return Choice(np.isin(np.arange(size), numbers), {int(k): value for k, value in values.items()})


class Constraints:
    """What `Mixture` does for frozen parameters."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    family: Any
    n_components: int
    n_states: Any
    frozen: Any
    held_weights: Any
    weights_init: Any
    means_init: Any
    precisions_init: Any
    components_init: Any
    weight_concentration: float
    labelled: Any
    bound: Any

    def holding(self, params: MixtureParams | None) -> Any:
        """Return the model that keeps what is frozen: at the values given for it, else as it is in the parameters.

        Without parameters, those of the explicit start count; if these do not tell all, nothing is held yet.
        """
        found = choices(self.frozen, self.n_components, self.family)
        if not found:
            return self
        fields = {name: choice for name, choice in found.items() if name != _WEIGHTS}
        if params is None and not all(choice.has_all_values or self._has_start(name) for name, choice in found.items()):
            return replace(self, family=self.family.holding(None), held_weights=None)
        family, weights = self.family, None
        if fields:
            components = self._started() if params is None else params.components
            for name, choice in fields.items():
                if choice.values:
                    components = family.placed(components, name, choice.values)
            family = family.holding(Held({name: choice.mask for name, choice in fields.items()}, components))
        if _WEIGHTS in found:
            weights = self._held_weights(found[_WEIGHTS], self.weights_init if params is None else params.weights)
        return replace(self, family=family, held_weights=weights)

    def _has_start(self, name: str) -> bool:
        if name != _WEIGHTS and self.components_init is not None:
            return True
        start = {_WEIGHTS: self.weights_init, "means": self.means_init, "covariances": self.precisions_init}
        return start.get(name) is not None

    def _started(self) -> Any:
        """Components that hold what is given explicitly of the start."""
        if self.components_init is not None:
            return self.components_init
        components = self.family.neutral(self.n_components, self.bound)
        if self.means_init is not None:
            components = components._replace(means=self.means_init)
        if self.precisions_init is not None:
            components = self.family.from_precisions(components.means, self.precisions_init)
        return components

    def _held_weights(self, choice: Choice, given: Any) -> np.ndarray:
        """Weights (n_states,) that stay, NaN for those that do not."""
        held = np.full(self.n_states, np.nan)
        if given is not None:
            held[choice.mask] = np.asarray(given)[choice.mask]
        for number, value in choice.values.items():
            if not is_real(value, 0.0):
                raise ValueError(f"frozen['weights'][{number}] must be a number that is not negative; got {value!r}")
            held[number] = value
        total, n_free = float(np.nansum(held)), int(np.isnan(held).sum())
        if n_free == 0 and not math.isclose(total, 1.0, abs_tol=1e-8):
            raise ValueError(f"all weights are frozen, and sum to {total:.10g}; they must sum to 1, or leave some free")
        if n_free and not total < 1.0:
            raise ValueError(f"the frozen weights sum to {total:.10g}, which leaves nothing for the other {n_free}")
        return held if n_free else held / total

    def require_held(self) -> None:
        """Refuse to go on where values of what is frozen are not known."""
        if self.frozen is None:
            return
        found = choices(self.frozen, self.n_components, self.family)
        fields = [name for name in found if name != _WEIGHTS]
        if (fields and self.family.held is None) or (_WEIGHTS in found and self.held_weights is None):
            name = next(name for name, choice in found.items() if not (choice.has_all_values or self._has_start(name)))
            raise ValueError(
                f"frozen[{name!r}] names components without values; give these in a dict, "
                f"frozen={{{name!r}: {{0: ...}}}}, or start from parameters that hold them"
            )

    def put(self, params: MixtureParams) -> MixtureParams:
        """Return the parameters with what is held in its place; free weights share what is left in proportion."""
        weights = params.weights
        if self.held_weights is not None:
            weights = self._sharing(weights)
        return MixtureParams(weights, self.family.put(params.components))

    def _sharing(self, sizes: np.ndarray) -> np.ndarray:
        """Weights of which the free ones share what is left in proportion to their sizes.

        The maximum of sum_k size_k log weight_k given the others.
        """
        weights = self.held_weights.copy()
        free = np.isnan(weights)
        shares = sizes[free]
        if shares.size and not shares.sum() > 0:
            shares = np.ones_like(shares)
        weights[free] = (1.0 - np.nansum(self.held_weights)) * shares / shares.sum() if shares.size else []
        return weights

    @property
    def n_unknown(self) -> int:
        """Number of components that are not frozen in all their parameters, and so take rows to be estimated."""
        if self.frozen is None:
            return self.n_components
        found = choices(self.frozen, self.n_components, self.family)
        fields = [choice.mask for name, choice in found.items() if name != _WEIGHTS]
        if not fields or len(fields) < len(self.family.frozen_fields):
            return self.n_components
        return self.n_components - int(np.logical_and.reduce(fields).sum())

    @property
    def anchored(self) -> np.ndarray:
        """Which components (K,) have a meaning: labelled rows, or parameters that are frozen and not all others'."""
        mask = np.zeros(self.n_components, bool) if self.labelled is None else self.labelled.copy()
        if self.frozen is None:
            return mask
        for choice in choices(self.frozen, self.n_components, self.family).values():
            if not choice.mask.all():
                mask |= choice.mask[: self.n_components]
        return mask

    def require_numbers(self) -> None:
        """Refuse to leave components out where frozen parameters or labels name others by their numbers."""
        if self.anchored.any():
            raise ValueError(
                "no component can be removed where frozen parameters or labels name some by their numbers; use "
                "starved='freeze' or 'reseed'"
            )

    # coordinates

    @property
    def _free_weights(self) -> np.ndarray:
        """Which weights (n_states,) have a coordinate: if one alone is free, it follows from the others."""
        if self.held_weights is None:
            return np.ones(self.n_states, bool)
        free = np.isnan(self.held_weights)
        return free if free.sum() > 1 else np.zeros(self.n_states, bool)

    def _pack_weights(self, weights: np.ndarray) -> np.ndarray:
        """Logarithms of the free weights up to a constant."""
        free = weights if self.held_weights is None else weights[self._free_weights]
        if not free.all():
            raise DegenerateError("a component has weight 0, which has no coordinates; use fewer components")
        logs = np.log(free)
        return logs - logs.mean() if len(logs) else logs

    def _unpack_weights(self, logs: np.ndarray) -> np.ndarray:
        """Weights at these coordinates; 0 where they overflow."""
        if self.held_weights is None:
            sizes = np.exp(logs - logs.max())
            return sizes / sizes.sum()
        sizes = np.exp(logs - logs.max()) if len(logs) else np.ones(int(self._free_weights.sum()))
        everything = np.ones(self.n_states)
        everything[self._free_weights] = sizes
        return self._sharing(everything)

    def _score_weights(self, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Gradient in the coordinates: sum_k counts_k log weight_k, of weights that share what is left."""
        if self.held_weights is None:
            return counts - counts.sum() * weights
        free = self._free_weights
        counts, shares = counts[free], weights[free]
        return counts - counts.sum() * shares / shares.sum() if len(counts) else counts

    def _free_coordinates(self, template: np.ndarray) -> np.ndarray:
        """Which coordinates of the components are free."""
        return ~self.family.frozen_coordinates(len(template))
