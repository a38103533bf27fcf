"""Parameters that an M-step leaves as they are."""

from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np


class Held(NamedTuple):
    """Which parameters of the components stay, and their values.

    Attributes
    ----------
    masks : dict of str to ndarray of shape (K,), bool
        Of fields of the parameters: of which components they stay. Fields that are free throughout are left out.
    values : components
        Parameters of all components; those of the masks count.
    """

    masks: dict[str, np.ndarray]
    values: Any


class Freezable:
    """What families do for frozen parameters whose fields are arrays (K, ...), a part for each component.

    M-steps honour `held`; the rest follows from it.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    held: Held | None
    Params: ClassVar[Any]
    check_params: Any
    n_parameters: Any

    @property
    def frozen_fields(self) -> tuple[str, ...]:
        """Fields of the parameters that can be frozen."""
        return self.Params._fields

    def check_frozen(self, masks: dict[str, np.ndarray]) -> None:
        """Refuse to freeze what has no M-step of its own."""

    def holding(self, held: Held | None) -> Any:
        """Return the family whose M-steps leave some parameters as they are."""
        return replace(self, held=held)

    def neutral(self, n_components: int, frame: Any) -> Any:
        """Return any parameters of the right shapes, for what is not frozen."""
        raise NotImplementedError

    def placed(self, components: Any, name: str, values: dict[int, Any]) -> Any:
        """Return the components with given values of a field in some of them."""
        array = put_values(f"frozen[{name!r}]", getattr(components, name), values)
        try:
            return self.check_params(components._replace(**{name: array}), len(array), None)
        except ValueError as error:
            raise ValueError(f"frozen[{name!r}]: {error}") from None

    def put(self, components: Any) -> Any:
        """Return the components with what is held in its place."""
        if self.held is None:
            return components
        parts = {
            name: where(mask, getattr(self.held.values, name), getattr(components, name))
            for name, mask in self.held.masks.items()
        }
        return components._replace(**parts)

    def _masks(self, n_components: int) -> np.ndarray:
        """Which parameters (K, fields) are held."""
        masks, free = ({} if self.held is None else self.held.masks), np.zeros(n_components, bool)
        return np.stack([masks.get(name, free) for name in self.frozen_fields], axis=1)

    def told(self, n_components: int) -> np.ndarray:
        """Which components (K,) need no rows to be estimated, since all their parameters are held."""
        if self.held is None:
            return np.zeros(n_components, bool)
        return np.logical_and.reduce(self._masks(n_components), axis=1)

    def frozen_coordinates(self, n_coordinates: int) -> np.ndarray:
        """Which coordinates of `pack`, so many in all, belong to parameters that are held."""
        assert self.held is not None
        masks = self._masks(len(self.held.values[0]))
        return np.repeat(masks.ravel(), n_coordinates // masks.size)

    def n_frozen(self, n_features: int) -> int:
        """Number of parameters that are held."""
        if self.held is None:
            return 0
        each = self.n_parameters(1, n_features) // len(self.frozen_fields)
        return each * sum(int(mask.sum()) for mask in self.held.masks.values())


def where(mask: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The one for components of the mask (K,), the other for the rest."""
    return np.where(mask.reshape((-1,) + (1,) * (one.ndim - 1)), one, other)


def put_values(name: str, array: np.ndarray, values: dict[int, Any]) -> np.ndarray:
    """A copy of an array (K, ...) with values of some components, refused by their name if they do not fit."""
    array = array.copy()
    for number, value in values.items():
        try:
            part = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{name}[{number}] holds objects that are not numbers") from None
        if part.shape != array.shape[1:]:
            raise ValueError(f"{name}[{number}] has shape {part.shape}; {array.shape[1:]} is needed")
        array[number] = part
    return array
