"""Building blocks of the intrinsics that emit explicit vectors."""

from llvmlite import ir
from numba.core import cgutils


def scalar_of(bits):
    """LLVM's type of a real number."""
    return ir.FloatType() if bits == 32 else ir.DoubleType()


def broadcast(builder, value, n):
    """A vector of n times the same value."""
    undefined = ir.Constant(ir.VectorType(value.type, n), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), n), None))


def vector_at(builder, pointer, offset, vector):
    """Pointer to the vector at an offset, counted in scalars."""
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def fused(module, vector, bits):
    """The intrinsic a * b + c on vectors."""
    kind = ir.FunctionType(vector, [vector] * 3)
    return cgutils.get_or_insert_function(module, kind, f"llvm.fmuladd.v{vector.count}f{bits}")


def new_function(module, name, arguments):
    """A function without a result, (function, True) if it is to be filled: once a module and never inlined."""
    function = cgutils.get_or_insert_function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    if not function.is_declaration:
        return function, False
    function.linkage = "linkonce_odr"
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    return function, True
