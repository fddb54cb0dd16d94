"""Functions for numba kernels: exp and log from IEEE arithmetic only, and the tree of lanes."""

from __future__ import annotations

import numba
import numpy as np

from rlsync.kernels import order

LANES = order.LANES

_LOG2E = np.float32(1.4426950408889634)
_LN2_HI = np.float32(0.693359375)
_LN2_LO = np.float32(-2.12194440e-4)
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding and subtracting it rounds to the nearest integer
_EXP_MAX = np.float32(88.72283)
_EXP_MIN = np.float32(-87.33654)
_ONE, _HALF, _INF, _ZERO = np.float32(1), np.float32(0.5), np.float32(np.inf), np.float32(0)
# Minimax coefficients of exp on [-ln2/2, ln2/2] (Cephes, expf).
_C0, _C1, _C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_C3, _C4 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1)

_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476


@numba.njit(inline="always")
def exp32(x):
    """e^x in fp32 with an error below 1 ulp. Below -87.3 it is 0 (there are no subnormal results); NaN stays NaN."""
    clamped = x if x > _EXP_MIN else _EXP_MIN
    clamped = clamped if clamped < _EXP_MAX else _EXP_MAX
    n = (clamped * _LOG2E + _ROUND) - _ROUND
    r = (clamped - n * _LN2_HI) - n * _LN2_LO
    p = ((((_C0 * r + _C1) * r + _C2) * r + _C3) * r + _C4) * r + _HALF
    y = (p * (r * r) + r) + _ONE
    # 2^n is multiplied in two factors, because 2^128 is not a finite float.
    half = np.int32(n) >> np.int32(1)
    rest = np.int32(n) - half
    y = y * np.int32((half + np.int32(127)) << np.int32(23)).view(np.float32)
    y = y * np.int32((rest + np.int32(127)) << np.int32(23)).view(np.float32)
    y = _ZERO if x < _EXP_MIN else y
    y = _INF if x > _EXP_MAX else y
    return x if x != x else y


@numba.njit(inline="always")
def log64(x):
    """ln(x) in fp64 for finite normal x > 0: 2 atanh((m - 1) / (m + 1)) for the mantissa m in [sqrt(1/2), sqrt(2))."""
    bits = np.float64(x).view(np.int64)
    e = ((bits >> 52) & 0x7FF) - 1022
    m = np.int64((bits & 0xFFFFFFFFFFFFF) | 0x3FE0000000000000).view(np.float64)
    if m < _SQRT_HALF:
        m = m + m
        e = e - 1
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1.0 / 21.0
    for d in (19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0):
        p = p * z + 1.0 / d
    return e * _LN2 + 2.0 * (s + s * (z * p))


@numba.njit(inline="always")
def fold_lanes(lanes):
    """Sum the LANES partial sums in a balanced tree, neighbours first; overwrites `lanes`."""
    width = LANES
    while width > 1:
        width //= 2
        for i in range(width):
            lanes[i] = lanes[2 * i] + lanes[2 * i + 1]
    return lanes[0]
