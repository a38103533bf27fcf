"""The jit options of every kernel, the width of a vector, and the control of threads.

No other file calls numba's decorators: `test_layers.py` holds this.
"""

import contextlib
import functools
import gc
import hashlib
import os
import threading

import llvmlite.binding as llvm
import numba
import threadpoolctl
from numba.core import config, types
from numba.core.caching import IndexDataCacheFile
from numba.core.event import Listener, register
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic, register_jitable

_HERE = __name__.rpartition(".")[0] + "."

# Never fastmath=True: -inf and NaN must keep their meaning in log-sum-exp.
_FAST = {"contract", "nsz", "arcp", "reassoc"}
# In exp and in compensated sums a reordering would fold the very terms that carry the accuracy.
_EXACT = {"contract"}
_NONE = False

# With the plain loops the interpreter (NUMBA_DISABLE_JIT) and numba's bounds checks see every index.
PLAIN = bool(config.DISABLE_JIT or config.BOUNDSCHECK)
# A cache entry does not know whether it was compiled with bounds checks, so those builds are never cached.
# Nobody calls a kernel from C, for which numba would compile it an entry.
_OPTIONS = {"cache": not PLAIN, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


class _Inner(CPUDispatcher):
    """A kernel that other kernels call, compiled without an entry from Python, which is half the cost of a small one.

    Called from Python after all, as tests do, it gets one by the way, which no cache holds.
    """

    def __call__(self, *arguments):
        return _entry_to(self)(*arguments)


class _CacheFile(IndexDataCacheFile):
    """Files of a kernel in the cache, of which those with code are named by the types that it takes.

    numba numbers them: of two processes that save at once both take the same number, and from then on the index may
    lead from the types of one to the code of the other. Here one of them may have to compile once more, at worst.
    """

    def save(self, key, data):
        """Save code, then say in the index where it is."""
        name = self._load_index().get(key) or self._data_name(key)
        self._save_data(name, data)
        self._save_index(self._load_index() | {key: name})

    def _data_name(self, key):
        number = int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8])
        return super()._data_name(number)


@functools.cache
def _entry_to(kernel):
    return numba.njit(lambda *arguments: kernel(*arguments))


def _cached(compiled):
    if _OPTIONS["cache"]:
        compiled._cache._cache_file.__class__ = _CacheFile
    return compiled


def _inner(function, fastmath):
    if config.DISABLE_JIT:
        return function
    compiled = _cached(numba.njit(fastmath=fastmath, no_cpython_wrapper=True, **_OPTIONS)(function))
    compiled.__class__ = _Inner
    return compiled


def kernel(function):
    """Compile a serial kernel whose sums may be reordered by the compiler."""
    return _inner(function, _FAST)


def exact(function):
    """Compile a serial kernel whose operations keep their written order; a*b+c may be fused."""
    return _inner(function, _EXACT)


def compensated(function):
    """Compile a serial kernel of error-free transformations: no reordering and no fusing."""
    return _inner(function, _NONE)


def from_python(kernel):
    """Give a kernel an entry from Python."""
    if not config.DISABLE_JIT:
        kernel.targetoptions["no_cpython_wrapper"] = False
        kernel.__class__ = CPUDispatcher
    return kernel


_made: dict = {}  # by their factory and number


def for_each_number(factory):
    """Let a factory of functions of a number give kernels: one for each number in use, which is compiled once."""

    @functools.wraps(factory)
    def kernel_for(number):
        if (factory, number) not in _made:
            function = factory(number)
            function.__name__ += f"_{number}"  # what a cache and the linker tell it from the others by
            function.__qualname__ = function.__name__
            _made.setdefault((factory, number), kernel(function))
        return _made[factory, number]

    return kernel_for


def rule(function):
    """Let Python and kernels share a function of a few numbers, which Python runs as it stands."""
    return register_jitable(error_model="numpy")(function)


def piece(function):
    """Compile a part of kernels into each that calls it: LLVM then sees it once, not again with every caller."""
    return numba.njit(fastmath=_FAST, inline="always", **{**_OPTIONS, "cache": False})(function)


def helper(function):
    """Compile a part of kernels on its own; it may be a closure and is cached only as part of its caller."""
    return numba.njit(fastmath=_FAST, **{**_OPTIONS, "cache": False})(function)


def parallel(function):
    """Compile a kernel with `prange`."""
    return _cached(numba.njit(fastmath=_FAST, parallel=True, **_OPTIONS)(function))


class _NoCollection(Listener):
    """Keep the garbage collector away while kernels are compiled: it walks millions of objects, a sixth of the time.

    numba tells of everybody's compilations, one at a time; those of others are left alone.
    """

    outermost = None

    def on_start(self, event):
        """Stop the collector, if this is no part of another compilation."""
        module = getattr(event.data["dispatcher"].py_func, "__module__", None) or ""  # code from `exec` has none
        if self.outermost is None and gc.isenabled() and f"{module}.".startswith(_HERE):
            self.outermost = event.data
            gc.disable()

    def on_end(self, event):
        """Let it go on."""
        if event.data is self.outermost:
            self.stop()

    def stop(self):
        """Let the collector go on, where it was stopped here.

        All that lives by now, whoever made it, goes to the oldest generation, which is walked last: walked as young
        objects, the millions would take half as long again. Of garbage among them the next full collection frees it.
        """
        if self.outermost is None:
            return
        self.outermost = None
        try:
            if gc.get_freeze_count() == 0:
                try:
                    gc.freeze()
                finally:
                    gc.unfreeze()
        finally:
            gc.enable()


_no_collection = _NoCollection()
register("numba:compile", _no_collection)


def _vector_bytes() -> int:
    """Bytes of the widest vector register of the processor that numba compiles for."""
    if config.CPU_NAME == "generic":
        return 16
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


VECTOR_BYTES = _vector_bytes()


@intrinsic
def _widest_vectors_compiled(typingctx):
    """Let the compiler turn the loops of a kernel into the widest vectors: for Intel it prefers half of them."""

    def codegen(context, builder, signature, args):
        set.add(builder.function.attributes, f'"prefer-vector-width"="{8 * VECTOR_BYTES}"')  # llvmlite knows it not
        return context.get_dummy_value()

    return types.void(), codegen


def _widest_vectors_plain():
    """Nothing: the interpreter has no vectors."""


widest_vectors = _widest_vectors_plain if config.DISABLE_JIT else _widest_vectors_compiled

# numba's workqueue layer aborts the process when two threads enter it at once, and GNU OpenMP when a forked
# child does after its parent did. So regions are entered one at a time, except on the layers that are known
# to allow more, and a child forked after threads were started runs the serial kernels (the same bits).
_one_at_a_time = threading.RLock()
_CONCURRENT_LAYERS = ("tbb", "omp")
_forked = False

# OpenBLAS and MKL stay on one thread below some 2**18 multiply-adds.
_BLAS_SERIAL_WORK = 2**16


def _after_fork() -> None:
    global _forked, _one_at_a_time, _blas_limit
    _no_collection.stop()  # the thread that compiles stayed with the parent
    _forked = _forked or _layer() is not None
    _one_at_a_time = threading.RLock()
    _blas_limit = _BlasLimit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def max_threads() -> int:
    """Number of threads a parallel kernel may use here and now."""
    return 1 if _forked else numba.config.NUMBA_NUM_THREADS


def use_threads(n_threads: int | None) -> int:
    """Resolve a user's `n_threads` (None or -1: all) to a number between 1 and `max_threads()`."""
    available = max_threads()
    if available == 1:  # also in a forked child, where numba's threads must not be touched
        return 1
    if n_threads is None or n_threads == -1:
        return min(available, numba.get_num_threads())
    return max(1, min(int(n_threads), available))


@contextlib.contextmanager
def parallel_region(n_threads: int):
    """Enter a parallel kernel on `n_threads` threads; the calling thread's setting is put back afterwards."""
    before = numba.get_num_threads()
    lock = contextlib.nullcontext() if _layer() in _CONCURRENT_LAYERS else _one_at_a_time
    with lock:
        numba.set_num_threads(n_threads)
        try:
            yield
        finally:
            numba.set_num_threads(before)


class _BlasLimit:
    """One thread of BLAS while anybody is inside; the setting is the process's, so the last one out puts it back."""

    def __init__(self):
        self.lock = threading.Lock()
        self.users = 0
        self.limit = None

    def __enter__(self):
        with self.lock:
            if self.users == 0:
                self.limit = _blas().limit(limits=1, user_api="blas")
            self.users += 1

    def __exit__(self, *_):
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.limit.restore_original_limits()


@functools.cache
def _blas():
    return threadpoolctl.ThreadpoolController()


_blas_limit = _BlasLimit()


def one_blas_thread(work: int):
    """Keep BLAS to one thread where a product of `work` multiply-adds could take more: the bits depend on how many."""
    return _blas_limit if work > _BLAS_SERIAL_WORK else contextlib.nullcontext()


def _layer() -> str | None:
    """The threading layer in use, or None before the first parallel kernel has started one."""
    try:
        return numba.threading_layer()
    except ValueError:
        return None
