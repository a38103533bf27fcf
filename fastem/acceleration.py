"""Ways from one evaluated point of EM to the next: the plain step, or a leap along the last two.

An accelerator knows models only through `pack` and `unpack`, their chart of free coordinates.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from fastem.protocol import DegenerateError, Params

_REMEMBERED = 4  # step lengths
_WORTHWHILE = 2.0  # shortest leap: where EM halves the distance with each step, there is nothing to gain
_LONGEST = 1e9  # leap, at first
_GROWTH = 4.0  # of the longest leap, each time it was taken, or was too long


class Accelerator(Protocol):
    """What proposes the next point; it is told how its proposals fare."""

    @property
    def horizon(self) -> float:
        """Plain steps, at least 1, that the last leaps were worth."""

    def leap(self, model: Any, trail: Sequence[Params]) -> Params | None:
        """Return a point beyond the last of the trail, each of which is EM's map of the one before; None for none."""

    def accepted(self) -> None:
        """The last leap led uphill."""

    def rejected(self) -> None:
        """The last leap led downhill, or nowhere."""


class Plain:
    """EM itself."""

    horizon = 1.0

    def leap(self, model, trail):
        """Never."""
        return None

    def accepted(self):
        """Nothing to learn."""

    def rejected(self):
        """Nothing to learn."""


class Squarem:
    """Squared extrapolation, scheme S3, made monotone by the driver.

    Varadhan & Roland (2008), Scand. J. Stat. 35, 335-353, equation 7 with the step length of equation 11: from the
    coordinates x0, x1 = M(x0), x2 = M(x1), with r = x1 - x0 and v = (x2 - x1) - r, to x0 + 2 a r + a^2 v, where
    a = |r| / |v|. At a = 1 that is x2. Steps are as long as they wish at first: a longest step that starts at 4 and
    grows, as is usual, took a third more passes. Each refusal divides the longest, 1e9 at first, by 4, and each step
    of that length that is accepted gives it back.
    """

    def __init__(self):
        self.longest = self.step = _LONGEST
        self.wishes = [1.0]

    @property
    def horizon(self):
        """Largest of the last step lengths, whether they were allowed or not."""
        return max(self.wishes)

    def leap(self, model, trail):
        """Extrapolate from the last three points."""
        if len(trail) < 3:
            return None
        try:
            x0, x1, x2 = (model.pack(params) for params in trail[-3:])
        except DegenerateError:  # on the boundary: only plain steps from here
            return None
        r = x1 - x0
        v = (x2 - x1) - r
        length, curvature = float(np.linalg.norm(r)), float(np.linalg.norm(v))
        wish = length / curvature if curvature > 0 else 1.0
        self.wishes = [*self.wishes[1 - _REMEMBERED :], max(1.0, wish)]
        if wish < _WORTHWHILE:
            return None
        self.step = min(wish, self.longest)
        try:
            return model.unpack(x0 + 2 * self.step * r + self.step**2 * v)
        except DegenerateError:
            self.rejected()
            return None

    def accepted(self):
        """Longer steps may be taken."""
        if self.step >= self.longest:
            self.longest *= _GROWTH

    def rejected(self):
        """Only shorter steps may be taken."""
        self.longest = max(_WORTHWHILE, self.longest / _GROWTH)


ACCELERATIONS: dict[str | None, Callable[[], Accelerator]] = {None: Plain, "squarem": Squarem}
