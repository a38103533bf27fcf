"""The log-likelihood of a block out of what its softmax leaves: best scores, and totals of exp(score - best)."""

import functools

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastem.kernels._jit import PLAIN, helper, kernel, piece, widest_vectors
from fastem.kernels._vectors import added_across, carried, filled, fused, vector_at
from fastem.kernels.exp_log import log

_LANES = 8  # of 384 rows at most 48 share a product, which then is a number for up to 2**21 states
_AT_ONCE = 3  # vectors of rows that have sums and products of their own, as each addition waits for the one before
# Places in what is noted of a block; the products come after these.
_SCORE, _LOST, _OTHERS, _N_NOTES = range(4)


@intrinsic
def _note_vectors(typingctx, mass, best, total, notes):
    """Note the sum of mass * best, whether rows are lost, or have a mass other than 0 and 1, and products of totals.

    Each product is of every 8th row; rows are a multiple of 24. Rows of mass 0 do not count; a row is lost if its
    total, else 1 at least, is 0 or NaN.
    """
    if any(array.layout != "C" for array in (mass, best, total, notes)) or {mass.dtype, notes.dtype} != {types.float64}:
        raise TypingError(f"a block is noted of C-ordered arrays, got {mass}, {best}, {total}, {notes}")
    signature = types.void(mass, best, total, notes)

    def codegen(context, builder, signature, args):
        arrays = [make_array(of)(context, builder, arg) for of, arg in zip(signature.args, args, strict=True)]
        mass, best, total, notes = (array.data for array in arrays)
        index, vector = ir.IntType(64), ir.VectorType(ir.DoubleType(), _LANES)
        zero, one = filled(vector, 0.0), filled(vector, 1.0)
        nowhere = ir.Constant(ir.VectorType(ir.IntType(1), _LANES), None)
        fma = fused(builder.module, vector)

        def load(pointer, step):
            of = ir.VectorType(pointer.type.pointee, _LANES)
            place = vector_at(builder, pointer, builder.mul(step, index(_LANES)), of)
            value = builder.load(place, align=8 if of == vector else 4)
            return value if of == vector else builder.fpext(value, vector)

        def add_rows(turn, values):
            scores, products, others = values[:_AT_ONCE], values[_AT_ONCE:-1], values[-1]
            for i in range(_AT_ONCE):
                step = builder.add(builder.mul(turn, index(_AT_ONCE)), index(i))
                m = load(mass, step)
                counts = builder.fcmp_ordered(">", m, zero)
                scores[i] = builder.select(counts, builder.call(fma, [m, load(best, step), scores[i]]), scores[i])
                products[i] = builder.select(counts, builder.fmul(load(total, step), products[i]), products[i])
                others = builder.or_(others, builder.and_(counts, builder.fcmp_ordered("!=", m, one)))
            return [*scores, *products, others]

        n_turns = builder.udiv(builder.extract_value(arrays[0].shape, 0), index(_AT_ONCE * _LANES))
        start = [zero] * _AT_ONCE + [one] * _AT_ONCE + [nowhere]
        *values, others = carried(builder, n_turns, start, add_rows)
        score = functools.reduce(builder.fadd, values[:_AT_ONCE])
        product = functools.reduce(builder.fmul, values[_AT_ONCE:])
        (score,) = added_across(builder, [score])
        builder.store(score, vector_at(builder, notes, index(_SCORE), score.type), align=8)
        builder.store(product, vector_at(builder, notes, index(_N_NOTES), vector), align=8)
        lost = builder.not_(builder.fcmp_ordered(">", product, zero))
        for place, rows in ((_LOST, lost), (_OTHERS, others)):
            bits = builder.bitcast(rows, ir.IntType(_LANES))
            found = builder.uitofp(builder.icmp_unsigned("!=", bits, bits.type(0)), vector.element)
            builder.store(found, builder.gep(notes, [index(place)]))
        return context.get_dummy_value()

    return signature, codegen


def _note_plain(mass, best, total, notes):
    """The same in loops."""
    notes[:_N_NOTES], notes[_N_NOTES : _N_NOTES + _LANES] = 0.0, 1.0
    for b in range(mass.shape[0]):
        if mass[b] > 0.0:
            if total[b] > 0.0:
                notes[_SCORE] += mass[b] * best[b]
                notes[_N_NOTES + b % _LANES] *= total[b]
            else:
                notes[_LOST] = 1.0
            if mass[b] != 1.0:
                notes[_OTHERS] = 1.0


_note = helper(_note_plain) if PLAIN else _note_vectors


@piece
def sum_logs(mass, best, total, row_log):
    """Log-likelihood of a block: the sum of mass * (best + log(total)); -inf if no state can have produced a row.

    Where all masses are 0 or 1 eight logarithms of products do for all rows. row_log (B,) is scratch; B is a multiple
    of 48, up to 384.
    """
    _note(mass, best, total, row_log)
    log_likelihood, is_lost = row_log[_SCORE], row_log[_LOST] > 0.0
    if row_log[_OTHERS] > 0.0:
        for b in range(mass.shape[0]):
            row_log[b] = log(np.float64(total[b]) if mass[b] > 0.0 else 1.0)
        for b in range(mass.shape[0]):
            log_likelihood += mass[b] * row_log[b]
    else:
        n_products = min(_LANES, mass.shape[0])  # a constant would have this done without vectors
        for i in range(n_products):
            row_log[i] = log(row_log[_N_NOTES + i])
        for i in range(n_products):
            log_likelihood += row_log[i]
    return -np.inf if is_lost else log_likelihood


@kernel
def count_rows(mass, best, total, row_log, totals):
    """Add the log-likelihood of a block to totals, and how many of its rows no state can have produced."""
    widest_vectors()
    log_likelihood = sum_logs(mass, best, total, row_log)
    totals[0] += log_likelihood
    if log_likelihood == -np.inf:
        for b in range(best.shape[0]):
            totals[1] += 1.0 if mass[b] > 0.0 and not total[b] > 0.0 else 0.0
