"""Several steps of EM at once: for a few hundred rows, Python takes ten times as long as the work of a step."""

from typing import Any

import numpy as np

from fastem.data import Data
from fastem.families.gaussian_records import GaussianParams
from fastem.kernels.steps import steps_full
from fastem.models.mixture_records import MixtureParams
from fastem.protocol import Ascent


class Steps:
    """What `Mixture` does in `protocol.Brisk`."""

    family: Any
    bound: Any
    frozen: Any
    weight_concentration: float
    weight_cost: float
    n_components: int

    def several_steps(self, params: MixtureParams, data: Data, n_steps: int) -> Ascent | None:
        """Up to n_steps steps in one kernel, with the bits of single ones; None where there is no such kernel."""
        from fastem.models.mixture import Mixture  # which has these methods

        is_plain = type(self) is Mixture and self.frozen is None and self.weight_cost == 0.0
        if not is_plain or type(data) is not Data or len(data.blocks) != 1 or data.is_labelled:
            return None
        rules = self.family.rules(self.n_components, self.bound, self.weight_concentration - 1.0)
        if rules is None:
            return None
        (block,), frame = data.blocks, self.bound
        places = frame.rows, frame.center, frame.scale, frame.reach, frame.deviation
        steps = steps_full(block.X, block.weight, places, rules, params.weights, params.components, n_steps)
        if steps is None:
            return None

        def point(i: int) -> MixtureParams:
            return MixtureParams(steps.weights[i].copy(), GaussianParams(*(np.array(part[i]) for part in steps[3:])))

        return Ascent(block.total_weight, steps.log_likelihoods, steps.objectives, point)
