"""exp of non-positive and log of positive arguments, written so that LLVM turns a loop over them into vectors.

PyPI's llvmlite has no SVML: a call of libm in a loop would stop vectorisation and dominate small problems.
"""

import numpy as np
from numba.extending import overload

from fastem.kernels._jit import exact

_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.4286068203094172e-6  # the high part has 20 trailing zero bits
_MAGIC = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer held in the low bits
_SMALLEST = -700.0  # exp(-700) ~ 1e-304: below, the result is 0 and never a subnormal

_F32 = np.float32
_LN2_HIGH_32, _LN2_LOW_32, _LOG2E_32 = _F32(0.693359375), _F32(-2.12194440e-4), _F32(1.4426950408889634)
_MAGIC_32 = _F32(12582912.0)
# exp(-70) ~ 4e-31: with less, products with features would be subnormal, which processors compute 100 times slower.
_SMALLEST_32 = _F32(-70.0)
_ONE_32, _HALF_32, _ZERO_32 = _F32(1.0), _F32(0.5), _F32(0.0)
_C3, _C4, _C5, _C6 = (
    _F32(c) for c in (0.16666415333747864, 0.04166635125875473, 0.008375132456421852, 0.0013941116631031036)
)


@exact
def _exp_64(x):
    """exp(x), x <= 0: Cody-Waite reduction and a minimax polynomial of degree 11; largest error 0.81 ulp."""
    inside = max(x, -708.0)
    shifted = inside * 1.4426950408889634 + _MAGIC
    n = shifted - _MAGIC
    r = (inside - n * _LN2_HIGH) - n * _LN2_LOW
    p = 2.5110116307869522e-08
    p = p * r + 2.763264376556253e-07
    p = p * r + 2.755724032682943e-06
    p = p * r + 2.4801485466298758e-05
    p = p * r + 0.00019841269891342371
    p = p * r + 0.0013888888952336036
    p = p * r + 0.008333333333318356
    p = p * r + 0.041666666666487974
    p = p * r + 0.16666666666666685
    p = p * r + 0.5000000000000019
    p = p * r + 1.0
    p = p * r + 1.0
    bits = np.float64(p).view(np.int64) + (np.float64(shifted).view(np.int64) << np.int64(52))
    return np.int64(bits).view(np.float64) if x >= _SMALLEST else 0.0


@exact
def _exp_32(x):
    """exp(x), x <= 0, in float32: degree 6; largest error 0.94 ulp."""
    inside = max(x, _SMALLEST_32)
    shifted = inside * _LOG2E_32 + _MAGIC_32
    n = shifted - _MAGIC_32
    r = (inside - n * _LN2_HIGH_32) - n * _LN2_LOW_32
    p = _C6 * r + _C5
    p = p * r + _C4
    p = p * r + _C3
    p = p * r + _HALF_32
    p = p * r + _ONE_32
    p = p * r + _ONE_32
    bits = np.float32(p).view(np.int32) + (np.float32(shifted).view(np.int32) << np.int32(23))
    return np.int32(bits).view(np.float32) if x >= _SMALLEST_32 else _ZERO_32


def exp(x):
    """exp of a float32 or float64 scalar that is not positive; -inf gives 0."""
    return _exp_32(x) if isinstance(x, np.float32) else _exp_64(x)


@overload(exp)
def _exp_overload(x):
    function = _exp_32 if x.bitwidth == 32 else _exp_64

    def choose(x):
        return function(x)

    return choose


@exact
def log(x):
    """log of a positive normal float64: x = 2**n (1 + f), then the series of atanh as in Sun's fdlibm; below 1 ulp."""
    bits = np.float64(x).view(np.int64)
    n = (bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52)  # mantissas from sqrt(1/2) to sqrt(2)
    f = np.int64(bits - (n << np.int64(52))).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    p = 1.479819860511658591e-01
    p = p * z + 1.531383769920937332e-01
    p = p * z + 1.818357216161805012e-01
    p = p * z + 2.222219843214978396e-01
    p = p * z + 2.857142874366239149e-01
    p = p * z + 3.999999999940941908e-01
    p = p * z + 6.666666666666735130e-01
    half = 0.5 * f * f
    scale = np.float64(n)
    return scale * 6.93147180369123816490e-01 - ((half - (s * (half + z * p) + scale * 1.90821492927058770002e-10)) - f)


@exact
def log1p(x):
    """log(1 + x) of x >= 0, to some ulps however small x is: the logarithm of the rounded sum, and what that lost."""
    total = 1.0 + x
    return log(total) + (x - (total - 1.0)) / total
