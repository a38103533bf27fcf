"""Calls of kernels that stand at an address, by kernels and by threads.

LLVM sees a kernel that is called so once, not again with each that calls it.
"""

import hashlib

import numba
import numpy as np
from llvmlite import ir
from numba._dispatcher import compute_fingerprint  # of types, in 0.2 us
from numba.core import cgutils, config, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._arrays import stripped
from fastem.kernels._jit import from_python, kernel, parallel


@intrinsic
def _call_compiled(typingctx, pointer, arguments):
    """Call the compiled kernel at an address, as numba itself would."""
    signature = types.void(pointer, arguments)

    def codegen(context, builder, signature, values):
        argument_types = tuple(signature.args[1])
        unpacked = cgutils.unpack_tuple(builder, values[1], len(argument_types))
        _call_at_address(context, builder, values[0], argument_types, unpacked)
        return context.get_dummy_value()

    return signature, codegen


def _call_plain(kernel, arguments):
    kernel(*arguments)


# Call `address(kernel, arguments)` inside a kernel: LLVM then compiles a lane once, not again for each entry to it.
call_at = _call_plain if config.DISABLE_JIT else _call_compiled
_addresses: dict = {}


def address(kernel, arguments, dtypes=None):
    """Return what `call_at` takes to call a kernel with such arguments; `dtypes`, if given, decides their types."""
    if config.DISABLE_JIT:
        return kernel
    key = kernel, compute_fingerprint(arguments) if dtypes is None else dtypes
    if key not in _addresses:
        signature = tuple(map(numba.typeof, arguments))
        kernel.compile(signature)
        compiled = kernel.overloads[signature]
        _addresses[key] = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return _addresses[key]


def address_array(addresses):
    """Addresses in one array: numba passes an array as seven arguments, a tuple as one for each of its elements."""
    return np.array(addresses, object if config.DISABLE_JIT else np.int64)


@intrinsic
def _take_number_compiled(typingctx, counters, i):
    """Return entry i of counters (threads, n), by flat index, and add 1 to it, in one atomic step.

    What a thread wrote before, whoever takes a later number sees.
    """
    signature = types.intp(counters, i)

    def codegen(context, builder, signature, values):
        data = make_array(signature.args[0])(context, builder, values[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [values[1]]), context.get_constant(types.intp, 1), "acq_rel")

    return signature, codegen


def _take_number_plain(counters, i):
    counters[0, i] += 1
    return counters[0, i] - 1


# Threads take lanes as they come to it, not by equal shares: one that is disturbed leaves the rest to the others.
take_number = _take_number_plain if config.DISABLE_JIT else _take_number_compiled


_ROOM = 512  # words of 8 bytes for what a kernel takes
_RUN, _KERNEL, _FAILED, _ARGUMENTS = range(4)  # places there


@intrinsic
def _keep_compiled(typingctx, room, pointer, arguments):
    """Note in room, an array of words, the call of the kernel at an address with arguments, without their owners."""
    signature = types.void(room, pointer, arguments)

    def codegen(context, builder, signature, values):
        words = make_array(signature.args[0])(context, builder, values[0])
        kind = signature.args[2]
        struct = context.get_value_type(kind)
        needed = context.get_constant(types.intp, _ARGUMENTS + -(-context.get_abi_sizeof(struct) // 8))
        with cgutils.if_unlikely(builder, builder.icmp_signed("<", words.nitems, needed)):
            context.call_conv.return_user_exc(builder, ValueError, ("no room for what a kernel takes",))
        runs = _run_function(context, builder.module, tuple(kind), struct)
        builder.store(builder.ptrtoint(runs, words.data.type.pointee), words.data)
        builder.store(values[1], builder.gep(words.data, [context.get_constant(types.intp, _KERNEL)]))
        place = builder.gep(words.data, [context.get_constant(types.intp, _ARGUMENTS)])
        owned_by_nobody = stripped(context, builder, kind, values[2])
        builder.store(owned_by_nobody, builder.bitcast(place, struct.as_pointer()), align=8)
        return context.get_dummy_value()

    return signature, codegen


def _run_function(context, module, argument_types, struct):
    """The function that calls what `keep` noted in the room whose address it takes, as numba itself would."""
    kind = context.call_conv.get_function_type(types.none, (types.intp,))
    name = "fastem_run_" + hashlib.sha256(repr(argument_types).encode()).hexdigest()[:24]
    function = cgutils.get_or_insert_function(module, kind, name)
    if not function.is_declaration:
        return function
    function.linkage = "linkonce_odr"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    words = builder.inttoptr(function.args[-1], ir.IntType(64).as_pointer())
    kernel = builder.load(builder.gep(words, [context.get_constant(types.intp, _KERNEL)]))
    place = builder.gep(words, [context.get_constant(types.intp, _ARGUMENTS)])
    arguments = builder.load(builder.bitcast(place, struct.as_pointer()), align=8)
    _call_at_address(context, builder, kernel, argument_types, cgutils.unpack_tuple(builder, arguments))
    context.call_conv.return_native_none(builder)
    return function


def _status_of(context, builder, address, argument_types, arguments):
    """How a call of the kernel at an address ends."""
    kind = context.call_conv.get_function_type(types.none, argument_types)
    function = builder.inttoptr(address, kind.as_pointer())
    return context.call_conv.call_function(builder, function, types.none, argument_types, arguments)[0]


def _call_at_address(context, builder, address, argument_types, arguments):
    status = _status_of(context, builder, address, argument_types, arguments)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


@intrinsic
def _run_kept_compiled(typingctx, room):
    """Make the call that `keep` noted in room."""
    signature = types.void(room)

    def codegen(context, builder, signature, values):
        data = make_array(signature.args[0])(context, builder, values[0]).data
        place = builder.ptrtoint(data, context.get_value_type(types.intp))
        _call_at_address(context, builder, builder.load(data), (types.intp,), [place])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _try_kept_compiled(typingctx, room):
    """The same in a parallel loop, where numba forgets what is raised: an error leaves a mark in room."""
    signature = types.void(room)

    def codegen(context, builder, signature, values):
        data = make_array(signature.args[0])(context, builder, values[0]).data
        place = builder.ptrtoint(data, context.get_value_type(types.intp))
        status = _status_of(context, builder, builder.load(data), (types.intp,), [place])
        with cgutils.if_unlikely(builder, status.is_error):
            mark = builder.gep(data, [context.get_constant(types.intp, _FAILED)])
            builder.store(context.get_constant(types.intp, 1), mark)
        return context.get_dummy_value()

    return signature, codegen


def _keep_plain(room, kernel, arguments):
    room[_KERNEL], room[_ARGUMENTS] = kernel, arguments


def _run_kept_plain(room):
    room[_KERNEL](*room[_ARGUMENTS])


_keep = _keep_plain if config.DISABLE_JIT else _keep_compiled
_run_kept = _run_kept_plain if config.DISABLE_JIT else _run_kept_compiled
_try_kept = _run_kept_plain if config.DISABLE_JIT else _try_kept_compiled


@from_python
@kernel
def _note(room, pointer, arguments):
    room[_FAILED] = 0
    _keep(room, pointer, arguments)


def kept(kernel, arguments):
    """Room with the call of a kernel, compiled for such arguments; the caller keeps their arrays alive."""
    room = np.empty(_ROOM, object if config.DISABLE_JIT else np.int64)
    _note(room, address(kernel, arguments), arguments)
    return room


@from_python
@kernel
def run_alone(turns, room):
    """Make a call that is `kept`."""
    _run_kept(room)


# All that a lane raises, unless indices are checked.
_FAILURE = "a lane failed; on one thread it says why" if config.BOUNDSCHECK else "no memory for a block of rows"


@parallel
def run_together(turns, room):
    """Make a call that is `kept` on a thread for each row of turns."""
    for _ in numba.prange(turns.shape[0]):
        _try_kept(room)
    if room[_FAILED] != 0:
        raise MemoryError(_FAILURE)
