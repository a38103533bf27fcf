"""Building blocks of the intrinsics that emit explicit vectors."""

from llvmlite import ir
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.np.arrayobj import make_array

_CHAINS = 8  # sums that two multiply-adds a cycle keep waiting for none, at a latency of four cycles
_STRIDE = 4


def scalar_of(bits):
    """LLVM's type of a real number."""
    return ir.FloatType() if bits == 32 else ir.DoubleType()


def broadcast(builder, value, n):
    """A vector of n times the same value."""
    undefined = ir.Constant(ir.VectorType(value.type, n), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), n), None))


def filled(vector, value):
    """A constant vector whose lanes have all the same value."""
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * vector.count)


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

    shape is how many of either there are. Where sums are so few that each multiply-add would wait for the one before,
    every second or fourth step has sums of its own.
    """
    n_rows, n_columns = shape
    index, fma = ir.IntType(64), fused(builder.module, vector)

    def add(step, sums):
        vectors, totals = columns(step), []
        for i in range(n_rows):
            row = rows(step, i)
            totals += [builder.call(fma, [row, vectors[j], sums[n_columns * i + j]]) for j in range(n_columns)]
        return totals

    n_sums, stride = n_rows * n_columns, 1
    while stride < _STRIDE and 2 * stride * n_sums <= _CHAINS:
        stride *= 2
    zeros = [ir.Constant(vector, None)] * n_sums
    if stride == 1:
        totals = carried(builder, depth, zeros, add)
    else:
        n_turns = builder.udiv(depth, index(stride))
        n_done = builder.mul(n_turns, index(stride))

        def add_all(turn, sums):
            first = builder.mul(turn, index(stride))
            parts = [sums[n_sums * s : n_sums * (s + 1)] for s in range(stride)]
            return [total for s, part in enumerate(parts) for total in add(builder.add(first, index(s)), part)]

        totals = carried(builder, n_turns, zeros * stride, add_all)
        while len(totals) > n_sums:
            half = len(totals) // 2
            totals = [builder.fadd(*pair) for pair in zip(totals[:half], totals[half:], strict=True)]
        n_left = builder.sub(depth, n_done)
        totals = carried(builder, n_left, totals, lambda step, sums: add(builder.add(n_done, step), sums))
    return [totals[n_columns * i : n_columns * (i + 1)] for i in range(n_rows)]


def carried(builder, n_steps, values, body):
    """What values, vectors in registers, become by body(step, values) for each step below n_steps."""
    before, index = builder.block, ir.IntType(64)
    head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    step = builder.phi(index)
    carriers = [builder.phi(value.type) for value in values]
    builder.cbranch(builder.icmp_signed("<", step, n_steps), inside, after)
    builder.position_at_end(inside)
    new_values = body(step, carriers)
    following = builder.add(step, index(1))
    for carrier, old, new in zip([step, *carriers], [index(0), *values], [following, *new_values], strict=True):
        carrier.add_incoming(old, before)
        carrier.add_incoming(new, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return carriers


def added_across(builder, vectors):
    """The sums over the lanes of a power of two of vectors, in order, in vectors that are as long at most.

    Of two vectors one takes every second group of lanes of either, in place, and the other what these are added to.
    """
    n_lanes = vectors[0].type.count
    size = 1  # of a group
    while size < n_lanes and len(vectors) > 1:
        mine = [lane + n_lanes * (lane // size % 2) for lane in range(n_lanes)]
        other = [lane + size if lane // size % 2 == 0 else lane - size + n_lanes for lane in range(n_lanes)]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [builder.fadd(shuffled(builder, *pair, mine), shuffled(builder, *pair, other)) for pair in pairs]
        size *= 2
    while size < n_lanes:  # one vector is left
        n_lanes //= 2
        halves = range(n_lanes), range(n_lanes, 2 * n_lanes)
        vectors = [builder.fadd(*(shuffled(builder, *vectors, *vectors, half) for half in halves))]
    return vectors


def broadcasts(builder, matrix, leading, n_rows, n):
    """(step, i) -> a vector of n times matrix[i, step], of so many rows, as `accumulated` takes it."""
    places = [builder.gep(matrix, [builder.mul(leading, ir.IntType(64)(i))]) for i in range(n_rows)]
    rows = [opaque(builder, place) for place in places]

    def load(step, i):
        return broadcast(builder, builder.load(builder.gep(rows[i], [step])), n)

    return load


def opaque(builder, pointer):
    """The same pointer, of which the compiler does not know what it was computed from.

    It would compute it again in each turn of a loop, to save registers, and loops of products wait for issue.
    """
    return builder.asm(ir.FunctionType(pointer.type, [pointer.type]), "", "=r,0", [pointer], False)


def places_in(context, builder, types, args):
    """Pointers into three C-ordered arrays that are given with an offset and the length of a row each."""
    if any(types[i].layout != "C" for i in (0, 3, 6)):
        raise TypingError(f"tiles need C-ordered arrays, got {types[0]}, {types[3]}, {types[6]}")
    arrays = [make_array(types[i])(context, builder, args[i]) for i in (0, 3, 6)]
    return [builder.gep(array.data, [args[i + 1]]) for array, i in zip(arrays, (0, 3, 6), strict=True)]


def new_function(module, name, arguments, result=None):
    """A function, by default without a result, (function, True) if it is to be filled: once a module, never inlined."""
    function = cgutils.get_or_insert_function(module, ir.FunctionType(result or ir.VoidType(), arguments), name)
    if not function.is_declaration:
        return function, False
    function.linkage = "linkonce_odr"
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    return function, True


def folded(builder, combine, values):
    """Combine the entries of some vectors by halves, and return the single number that is left."""
    while len(values) > 1:
        values = [combine(*values[:2]), *values[2:]]
    (value,) = values
    n = value.type.count
    while n > 1:
        n //= 2
        value = combine(*(shuffled(builder, value, value, half) for half in (range(n), range(n, 2 * n))))
    return builder.extract_element(value, ir.IntType(32)(0))
