"""Building blocks of the intrinsics that emit explicit vectors."""

from llvmlite import ir
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.np.arrayobj import make_array


def scalar_of(bits):
    """LLVM's type of a real number."""
    return ir.FloatType() if bits == 32 else ir.DoubleType()


def broadcast(builder, value, n):
    """A vector of n times the same value."""
    undefined = ir.Constant(ir.VectorType(value.type, n), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), n), None))


def shuffled(builder, low, high, lanes):
    """The vector of these lanes of two vectors, of which the first lane of `high` follows the last of `low`."""
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def vector_at(builder, pointer, offset, vector):
    """Pointer to the vector at an offset, counted in scalars."""
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def first_lanes(builder, n_first, n):
    """A mask of n lanes, of which so many first ones are set."""
    index = ir.IntType(64)
    lanes = ir.Constant(ir.VectorType(index, n), list(range(n)))
    return builder.icmp_signed("<", lanes, broadcast(builder, n_first, n))


def masked_load(builder, pointer, mask):
    """The vector of real numbers at a pointer, 0 outside of the mask, where no memory is read."""
    vector = pointer.type.pointee
    kind = ir.FunctionType(vector, [pointer.type, ir.IntType(32), mask.type, vector])
    load = cgutils.get_or_insert_function(builder.module, kind, _masked("load", vector))
    return builder.call(load, [pointer, ir.IntType(32)(_bytes(vector.element)), mask, ir.Constant(vector, None)])


def masked_store(builder, value, pointer, mask):
    """Store a vector of real numbers where the mask is set."""
    vector = value.type
    kind = ir.FunctionType(ir.VoidType(), [vector, pointer.type, ir.IntType(32), mask.type])
    store = cgutils.get_or_insert_function(builder.module, kind, _masked("store", vector))
    builder.call(store, [value, pointer, ir.IntType(32)(_bytes(vector.element)), mask])


def _masked(name, vector):
    kind = f"v{vector.count}{vector.element.intrinsic_name}"
    return f"llvm.masked.{name}.{kind}.p0{kind}"


def _bytes(scalar):
    return 4 if isinstance(scalar, ir.FloatType) else 8


def fused(module, vector):
    """The intrinsic a * b + c on vectors."""
    kind = ir.FunctionType(vector, [vector] * 3)
    return cgutils.get_or_insert_function(module, kind, f"llvm.fmuladd.v{vector.count}{vector.element.intrinsic_name}")


def accumulated(builder, shape, depth, vector, rows, columns):
    """Vectors [i][j] = sum over step < depth of rows(step, i) columns(step)[j], in registers; depth is at least 1.

    shape is how many of either there are.
    """
    n_rows, n_columns = shape
    before, index = builder.block, ir.IntType(64)
    loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(index)
    sums = [[builder.phi(vector) for _ in range(n_columns)] for _ in range(n_rows)]
    vectors, fma, totals = columns(step), fused(builder.module, vector), []
    for i in range(n_rows):
        row = rows(step, i)
        totals.append([builder.call(fma, [row, vectors[j], sums[i][j]]) for j in range(n_columns)])
    following = builder.add(step, index(1))
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    step.add_incoming(index(0), before)
    step.add_incoming(following, loop)
    for old_row, new_row in zip(sums, totals):
        for old, new in zip(old_row, new_row):
            old.add_incoming(ir.Constant(vector, None), before)
            old.add_incoming(new, loop)
    builder.position_at_end(after)
    return totals


def broadcasts(builder, matrix, leading, n):
    """(step, i) -> a vector of n times matrix[i, step], as `accumulated` takes it."""

    def load(step, i):
        place = builder.add(step, builder.mul(leading, ir.IntType(64)(i)))
        return broadcast(builder, builder.load(builder.gep(matrix, [place])), n)

    return load


def places_in(context, builder, types, args):
    """Pointers into three C-ordered arrays that are given with an offset and the length of a row each."""
    if any(types[i].layout != "C" for i in (0, 3, 6)):
        raise TypingError(f"tiles need C-ordered arrays, got {types[0]}, {types[3]}, {types[6]}")
    arrays = [make_array(types[i])(context, builder, args[i]) for i in (0, 3, 6)]
    return [builder.gep(array.data, [args[i + 1]]) for array, i in zip(arrays, (0, 3, 6), strict=True)]


def new_function(module, name, arguments):
    """A function without a result, (function, True) if it is to be filled: once a module and never inlined."""
    function = cgutils.get_or_insert_function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    if not function.is_declaration:
        return function, False
    function.linkage = "linkonce_odr"
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    return function, True
