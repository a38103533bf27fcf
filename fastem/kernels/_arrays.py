"""Arrays that kernels make, and arrays without owners, of which nobody counts the references."""

import numpy as np
from numba.core import cgutils, config, types
from numba.core.errors import TypingError
from numba.core.imputils import impl_ret_new_ref
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array


def _empty_vector(is_counted):
    def codegen(context, builder, signature, args):
        kind = signature.return_type
        itemsize = context.get_constant(types.intp, kind.dtype.bitwidth // 8)
        stride = builder.mul(args[1], itemsize)
        size = builder.mul(args[0], stride)
        memory = context.nrt.meminfo_alloc_aligned_unchecked(builder, size, align=64)
        with cgutils.if_unlikely(builder, cgutils.is_null(builder, memory)):
            context.call_conv.return_user_exc(builder, MemoryError, ("a block does not fit in memory",))
        array = make_array(kind)(context, builder)
        data = builder.bitcast(context.nrt.meminfo_data(builder, memory), array.data.type)
        owners = (memory, None) if is_counted else (None, memory)
        populate_array(array, data, args[:2], (stride, itemsize), itemsize, *owners)
        value = array._getvalue()
        return impl_ret_new_ref(context, builder, kind, value) if is_counted else value

    return codegen


@intrinsic
def _aligned_empty_vector(typingctx, n_rows, n_columns, like):
    """Uninitialised (n_rows, n_columns) array of the dtype of `like` that starts on a cache line."""
    return types.Array(like.dtype, 2, "C")(n_rows, n_columns, like), _empty_vector(True)


@intrinsic
def _uncounted_empty_vector(typingctx, n_rows, n_columns, like):
    """The same, but nobody counts who holds it: somebody has to `free` it.

    Where the memory runs out, what a kernel has made before is lost, as are the arrays that numba counts.
    """
    return types.Array(like.dtype, 2, "C")(n_rows, n_columns, like), _empty_vector(False)


def _aligned_empty_plain(n_rows, n_columns, like):
    return np.empty((n_rows, n_columns), like.dtype)


aligned_empty = _aligned_empty_plain if config.DISABLE_JIT else _aligned_empty_vector
uncounted_empty = _aligned_empty_plain if config.DISABLE_JIT else _uncounted_empty_vector


def stripped(context, builder, kind, value):
    """Arrays without owners, alone or in tuples."""
    if isinstance(kind, types.BaseTuple):
        parts = zip(kind, cgutils.unpack_tuple(builder, value, len(kind)), strict=True)
        return context.make_tuple(builder, kind, [stripped(context, builder, *part) for part in parts])
    if not isinstance(kind, types.Array):
        return value
    array = make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()


@intrinsic
def _borrowed_compiled(typingctx, values):
    """The same arrays, alone or in tuples, without owners, so that nobody counts.

    The caller keeps what its arguments point to. What a kernel makes itself numba would free after the last use that it
    counts: `uncounted_empty` and `free` are for that.
    """

    def codegen(context, builder, signature, args):
        return stripped(context, builder, signature.args[0], args[0])

    return values(values), codegen


def _borrowed_plain(values):
    return values


# References are counted in memory that all threads write: a tenth of a pass over blocks of 8 columns.
borrowed = _borrowed_plain if config.DISABLE_JIT else _borrowed_compiled


@intrinsic
def _matrix_at_compiled(typingctx, array, offset, n_rows, n_columns):
    """The numbers of a C-ordered array from a flat offset on as a matrix, which the array has to outlive."""
    if array.layout != "C":
        raise TypingError(f"a matrix is taken from C-ordered arrays, not {array}")
    kind = types.Array(array.dtype, 2, "C")

    def codegen(context, builder, signature, args):
        data = builder.gep(make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        itemsize = context.get_constant(types.intp, array.dtype.bitwidth // 8)
        view = make_array(kind)(context, builder)
        populate_array(view, data, args[2:], (builder.mul(args[3], itemsize), itemsize), itemsize, None)
        return view._getvalue()

    return kind(array, offset, n_rows, n_columns), codegen


def _matrix_at_plain(array, offset, n_rows, n_columns):
    return array.reshape(-1)[offset : offset + n_rows * n_columns].reshape(n_rows, n_columns)


matrix_at = _matrix_at_plain if config.DISABLE_JIT else _matrix_at_compiled


@intrinsic
def _free_compiled(typingctx, values):
    """Give back the memory of arrays of `uncounted_empty`, or of one view of each, alone or in tuples.

    Arrays that numba counts and made itself are left alone; those of Python must not be given.
    """

    def release(context, builder, kind, value):
        if isinstance(kind, types.BaseTuple):
            for part in zip(kind, cgutils.unpack_tuple(builder, value, len(kind)), strict=True):
                release(context, builder, *part)
            return
        array = make_array(kind)(context, builder, value)
        array.meminfo = array.parent
        context.nrt.decref(builder, kind, array._getvalue())

    def codegen(context, builder, signature, args):
        release(context, builder, signature.args[0], args[0])
        return context.get_dummy_value()

    return types.void(values), codegen


def _free_plain(values):
    """Nothing: Python counts."""


free = _free_plain if config.DISABLE_JIT else _free_compiled
