"""Several steps of EM at once: for a few hundred rows, Python takes ten times as long as the work of a step.

For a hundred thousand it still takes a tenth: a pass leaves nothing of Python's in the caches.
"""

from typing import Any

import numpy as np

from fastem.data import Data
from fastem.families.gaussian_records import GaussianParams
from fastem.kernels._jit import use_threads
from fastem.kernels.features import FULL, n_statistics
from fastem.kernels.steps import steps_full
from fastem.kernels.sweep import weight_unit
from fastem.models.mixture_records import MixtureParams, log_of
from fastem.models.skipping import skipping_of
from fastem.protocol import Ascent

_WORK = 2**30  # in multiply-adds, of all steps together: some 50 ms, in which nobody can interrupt them
_OF_PAIR, _OF_ROW = 25, 40  # what a pair of a row and a component, and a row, cost beside products; measured
_FEWEST = 2  # steps that are worth a call
_PAUSE = 16  # single steps after one that was not plain, or that skipped pairs


class Steps:
    """What `Mixture` does in `protocol.Brisk`."""

    family: Any
    bound: Any
    frozen: Any
    n_threads: Any
    weight_concentration: float
    weight_cost: float
    n_components: int

    def several_steps(self, params: MixtureParams, data: Data, n_steps: int) -> Ascent | None:
        """Up to n_steps steps in one kernel, with the bits of single ones; None where there is no such kernel.

        There is none for other families, where passes are long, and for weights that float32 cannot hold as they are.
        """
        from fastem.models.mixture import Mixture  # which has these methods

        is_plain = type(self) is Mixture and self.frozen is None and self.weight_cost == 0.0
        if not is_plain or type(data) is not Data or len(data.blocks) != 1 or data.is_labelled:
            return None
        rules = self.family.rules(self.n_components, self.bound, self.weight_concentration - 1.0)
        (block,), frame, n_stats = data.blocks, self.bound, int(n_statistics(FULL, data.n_features))
        most = _WORK // (len(block.X) * (self.n_components * (n_stats + _OF_PAIR) + _OF_ROW))
        if rules is None or most < _FEWEST or weight_unit(block.weight, frame) != 1.0:
            return None
        skipping = skipping_of(block, self.family, self.n_components, n_stats)
        wanted, pause = min(n_steps, most), 0
        if skipping is not None:
            n_dense = skipping.look(self.family, params.components, log_of(params.weights), block.X)
            if n_dense < wanted:  # then rows are put in order, skipped, or looked at again
                wanted, pause = n_dense, _PAUSE if len(skipping.order) else 0
        if wanted == 0:
            return Ascent(block.total_weight, np.empty(0), np.empty(0), lambda _: params, pause)
        places = frame.rows, frame.center, frame.scale, frame.reach, frame.deviation
        start = block.X, block.weight, frame.dtype, places, rules, params.weights, params.components
        steps = steps_full(*start, wanted, use_threads(self.n_threads))
        n_done = len(steps.objectives)

        def point(i: int) -> MixtureParams:
            return MixtureParams(steps.weights[i].copy(), GaussianParams(*(np.array(part[i]) for part in steps[3:])))

        if skipping is not None and n_done > 0:
            last = point(n_done - 1)
            skipping.passed(n_done, last.components, log_of(last.weights))
        pause = pause if n_done == wanted else _PAUSE
        return Ascent(block.total_weight, steps.log_likelihoods, steps.objectives, point, pause)
