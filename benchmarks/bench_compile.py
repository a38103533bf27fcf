"""What a user waits for before the first number: import, compilation, loading of the compiled kernels.

Each is measured in an interpreter of its own, from inside it: the start of Python does not count.
"""

import tempfile

from . import common

timeout = 900

_IMPORT = """
import time
begin = time.perf_counter()
import fastem
{then}
print(time.perf_counter() - begin)
"""


class Import:
    unit = "seconds"

    def track_import(self):
        return common.median_in_new_process(_IMPORT.format(then=""))

    def track_import_estimator(self):
        return common.median_in_new_process(_IMPORT.format(then="fastem.GaussianMixture"))


class _FirstFit:
    """The first fit of a process; few samples take the serial kernels, many the parallel ones."""

    params = ([common.FEW_SAMPLES, common.MANY_SAMPLES],)
    param_names = ("n_samples",)
    unit = "seconds"


class ColdCache(_FirstFit):
    """Nothing is compiled yet, as after an installation."""

    def track_first_fit(self, n_samples):
        with tempfile.TemporaryDirectory() as cache:
            return common.seconds_in_new_process(common.FIRST_FIT, n_samples, cache=cache)


class WarmCache(_FirstFit):
    """The kernels are compiled and are read from numba's cache."""

    setup_cache = staticmethod(common.setup_cache)

    def track_first_fit(self, n_samples):
        return common.median_in_new_process(common.FIRST_FIT, n_samples)
