"""exp(score - best) of a block's row of scores, stored in its place and added to a total: most of what a softmax is.

With AVX-512 by a table in registers: x = (n + f) ln 2 / 16 with n an integer and |f| <= 1/2, so that exp(x) is
2^(n >> 4) times entry n & 15 of the table times a short polynomial in f (Tang 1989, ACM TOMS 15, 144-157). Elsewhere
the loop over `exp_log.exp`, whose polynomial is twice as long.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._jit import PLAIN, VECTOR_BYTES, helper, kernel
from fastem.kernels._vectors import first_lanes, fused, masked_load, masked_store, scalar_of, vector_at
from fastem.kernels.exp_log import exp

_SIXTEENTHS = 23.083120654223414  # 16 / ln 2
_UNROLLED = 2  # vectors at once: the polynomial is a chain


class _Kind:
    """What one width of numbers takes."""

    def __init__(self, dtype, integer, fraction_bits, magic, smallest, coefficients):
        self.shift = (
            fraction_bits - 4
        )  # n << shift has n >> 4 at the exponent, and n & 15 below, which entries subtract
        entries = np.exp2(np.arange(16) / 16).astype(dtype).view(integer)
        self.table = [int(entry) - (j << self.shift) for j, entry in enumerate(entries)]
        self.magic, self.smallest = magic, smallest  # as in `exp_log`
        self.coefficients = [float(dtype(c)) for c in coefficients]  # minimax of 2^(f / 16), the highest first


# Relative errors of the polynomials are 7e-18 and 1.2e-9; what 16 / ln 2 and f are rounded by adds |x| eps / 2, which
# is nothing in a sum that holds exp(0).
_DOUBLE = _Kind(
    np.float64,
    np.int64,
    52,
    6755399441055744.0,
    -700.0,
    (
        9.181354192172116e-12,
        1.2716120543851127e-09,
        1.4676100321236697e-07,
        1.3550807776390032e-05,
        0.0009383847928089877,
        0.04332169878499668,
        1.0,
    ),
)
_SINGLE = _Kind(
    np.float32,
    np.int32,
    23,
    12582912.0,
    -70.0,
    (1.3551125679403628e-05, 0.000938421483561896, 0.043321698775062194, 1.0),
)


@intrinsic
def _add_vectors(typingctx, scores, k, best, total):
    """The same by vectors, of which the last is masked."""
    if not scores.layout == best.layout == total.layout == "C":
        raise TypingError(f"exponentials need C-ordered arrays, got {scores}, {best}, {total}")
    signature = types.void(scores, k, best, total)

    def codegen(context, builder, signature, args):
        arrays = [make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2, 3)]
        index = ir.IntType(64)
        width = cgutils.unpack_tuple(builder, arrays[1].shape)[0]
        columns = cgutils.unpack_tuple(builder, arrays[0].shape)[1]
        pointers = [builder.gep(arrays[0].data, [builder.mul(args[1], columns)]), arrays[1].data, arrays[2].data]
        bits = scores.dtype.bitwidth
        step, vector = index(_UNROLLED * 512 // bits), index(512 // bits)
        end = builder.mul(builder.sdiv(width, step), step)
        with cgutils.for_range_slice(builder, index(0), end, step, intp=index) as (start, _):
            _add_at(builder, pointers, start, bits)
        with cgutils.for_range_slice(builder, end, width, vector, intp=index) as (start, _):
            _add_at(builder, pointers, start, bits, builder.sub(width, start))
        return context.get_dummy_value()

    return signature, codegen


def _add_at(builder, pointers, start, bits, n_left=None):
    """Emit one step of the loop over columns; of one vector, if only so many columns are left."""
    kind = _DOUBLE if bits == 64 else _SINGLE
    vector = ir.VectorType(scalar_of(bits), 512 // bits)
    whole = ir.VectorType(ir.IntType(bits), 512 // bits)
    fma, choose = fused(builder.module, vector), _chooser(builder, kind, vector, whole)

    def every(value, of=vector):
        return ir.Constant(of, [ir.Constant(of.element, value)] * of.count)

    def load(pointer, place):
        if n_left is None:
            return builder.load(vector_at(builder, pointer, place, vector), align=bits // 8)
        return masked_load(builder, vector_at(builder, pointer, place, vector), mask)

    def store(number, pointer, place):
        if n_left is None:
            builder.store(number, vector_at(builder, pointer, place, vector), align=bits // 8)
        else:
            masked_store(builder, number, vector_at(builder, pointer, place, vector), mask)

    mask = None if n_left is None else first_lanes(builder, n_left, vector.count)
    n_vectors = _UNROLLED if n_left is None else 1
    places = [builder.add(start, ir.IntType(64)(i * vector.count)) for i in range(n_vectors)]
    differences = [builder.fsub(load(pointers[0], place), load(pointers[1], place)) for place in places]
    for place, x in zip(places, differences):
        is_inside = builder.fcmp_ordered(">=", x, every(kind.smallest))
        x = builder.select(is_inside, x, every(kind.smallest))
        factor = every(float(np.float32(_SIXTEENTHS)) if bits == 32 else _SIXTEENTHS)
        shifted = builder.call(fma, [x, factor, every(kind.magic)])
        f = builder.call(fma, [x, factor, builder.fsub(every(kind.magic), shifted)])
        p = every(kind.coefficients[0])
        for coefficient in kind.coefficients[1:]:
            p = builder.call(fma, [p, f, every(coefficient)])
        n = builder.bitcast(shifted, whole)
        power = builder.add(choose(n), builder.shl(n, every(kind.shift, whole)))
        value = builder.fmul(builder.bitcast(power, vector), p)
        value = builder.select(is_inside, value, every(0.0))
        store(value, pointers[0], place)
        store(builder.fadd(load(pointers[2], place), value), pointers[2], place)


def _chooser(builder, kind, vector, whole):
    """n -> entries n & 15 of the table, as integers: one instruction, from one register or from two."""
    registers = [
        builder.bitcast(ir.Constant(whole, [ir.Constant(whole.element, entry) for entry in part]), vector)
        for part in (kind.table[: whole.count], kind.table[whole.count :])
        if part
    ]
    if len(registers) == 1:
        name, arguments = "llvm.x86.avx512.permvar.sf.512", [vector, whole]
    else:
        name, arguments = "llvm.x86.avx512.vpermi2var.pd.512", [vector, whole, vector]
    instruction = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, arguments), name)

    def choose(n):
        return builder.bitcast(builder.call(instruction, [registers[0], n, *registers[1:]]), whole)

    return choose


def _add_loop(scores, k, best, total):
    for b in range(best.shape[0]):
        e = exp(scores[k, b] - best[b])
        scores[k, b] = e
        total[b] += e


_add = helper(_add_loop) if PLAIN or VECTOR_BYTES < 64 else _add_vectors


@kernel
def add_exponentials(scores, k, best, total):
    """scores[k] -> exp(scores[k] - best), added to total (B,); best is the `row_maximum` of all states."""
    _add(scores, k, best, total)
