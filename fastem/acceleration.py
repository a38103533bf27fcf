"""Ways from one evaluated point of EM to the next: the plain step, or a leap along the last two.

An accelerator knows models only through `pack` and `unpack`, their chart of free coordinates.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from fastem.protocol import DegenerateError, Params

_REMEMBERED = 4  # step lengths
_WORTHWHILE = 2.0  # shortest leap: where EM halves the distance with each step, there is nothing to gain
_LONGEST = 1e9  # leap, at first
_GROWTH = 4.0  # of the longest leap, each time it was taken, or was too long
_DEPTH = 4  # differences of points that Anderson's leap combines
_PATIENCE = 2  # refusals in a row of Anderson's leaps
_SPELL = 2  # squared leaps that then take their place, at first
_FLAT = 1e-13  # of the largest eigenvalue of a scaled Gram matrix


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
        length, curvature = _length(r), _length(v)
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


class Anderson:
    """Anderson's leaps where they lead uphill, squared extrapolation where they do not.

    Walker & Ni (2011), SIAM J. Numer. Anal. 49, 1715-1735, algorithm AA in its form without constraints: with the steps
    f = M(x) - x of the last five points, to M(x) - sum_i c_i (difference i of the M(x)), where the c_i are the least
    squares solution of f = sum_i c_i (difference i of the f). One step of EM is enough between leaps, and several slow
    directions are solved for at once: twice as fast as squared extrapolation where the objective is nearly quadratic.
    Where it is not, on plateaus, most leaps lead downhill. So after two refusals in a row squared extrapolation takes
    over, for 2 leaps, then 4, and so on; each four leaps taken in a row halve the next spell.
    """

    def __init__(self):
        self.squarem = Squarem()
        self.points: list[np.ndarray] = []
        self.steps: list[np.ndarray] = []  # EM's, from the points
        self.wishes = [1.0]
        self.streak = 0  # leaps taken in a row; below 0, refused in a row
        self.spell, self.next_spell = 0, _SPELL  # leaps left to squared extrapolation

    @property
    def horizon(self):
        """Largest of the last leaps of either kind, in steps of EM."""
        return max(self.wishes)

    def leap(self, model, trail):
        """Extrapolate from the last point and what is remembered of those before it."""
        if self.spell:
            leap = self.squarem.leap(model, trail)
            if leap is not None:
                self._wish(self.squarem.wishes[-1])
            return leap
        try:
            point, image = (model.pack(params) for params in trail[-2:])
        except DegenerateError:
            return None
        self.points = [*self.points[-_DEPTH:], point]
        self.steps = [*self.steps[-_DEPTH:], image - point]
        step = _length(self.steps[-1])
        if len(self.points) < 2 or step == 0:
            return None
        turns = np.diff(self.steps, axis=0)
        size = np.sqrt(np.einsum("in,in->i", turns, turns))[:, None]
        size = np.where(size > 0, size, 1.0)
        turns /= size
        gram = np.einsum("in,jn->ij", turns, turns)
        shares = np.linalg.lstsq(gram, np.einsum("in,n->i", turns, self.steps[-1]), rcond=_FLAT)[0]
        beyond = np.einsum("i,in->n", shares, np.diff(np.add(self.points, self.steps), axis=0) / size)
        self._wish(_length(image - point - beyond) / step)
        try:
            return model.unpack(image - beyond)
        except DegenerateError:
            self.rejected()
            return None

    def _wish(self, length: float) -> None:
        self.wishes = [*self.wishes[1 - _REMEMBERED :], max(1.0, length)]

    def accepted(self):
        """Leaps of this kind go on."""
        if self.spell:
            self.squarem.accepted()
            self.spell -= 1
            return
        self.streak = max(self.streak, 0) + 1
        if self.streak % _DEPTH == 0:
            self.next_spell = max(_SPELL, self.next_spell // 2)

    def rejected(self):
        """What is remembered misleads; the second time in a row the other kind has its turn."""
        if self.spell:
            self.squarem.rejected()
            self.spell -= 1
            return
        self.wishes = self.wishes[:-1] or [1.0]
        self.streak = min(self.streak, 0) - 1
        self.points, self.steps = self.points[-1:], self.steps[-1:]
        if self.streak == -_PATIENCE:
            self.spell, self.next_spell = self.next_spell, 2 * self.next_spell
            self.points, self.steps, self.streak = [], [], 0


def _length(vector: np.ndarray) -> float:
    return math.sqrt(float(np.sum(vector * vector)))  # BLAS sums long vectors in as many parts as it has threads


ACCELERATIONS: dict[str | None, Callable[[], Accelerator]] = {None: Plain, "squarem": Squarem, "anderson": Anderson}
