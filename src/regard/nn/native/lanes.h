/* Sixteen numbers in single precision at once: what the kernels share. */
#pragma once

#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>

enum { LANES = 16 };
enum { NONE, RELU, GELU, GELU_TANH, SILU, RELU_SQUARED };  /* activations */
typedef uint16_t half;                                     /* a bfloat16 */

/* Tell whether the processor has units for tiles, with which torch multiplies many rows faster than these kernels. */
static inline int tiles_are_there(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1);
}

/* Tell whether the processor multiplies bfloat16 and bytes by registers of 512 bits. */
static inline int has_lanes(void) {
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return 0;
    if (!__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512vnni")) return 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

/* The first `count` lanes, all of them from sixteen on. */
static inline __mmask16 lanes(int64_t count) { return count >= LANES ? 0xFFFF : (__mmask16)((1u << count) - 1); }

static inline __m512 set(float x) { return _mm512_set1_ps(x); }

/* A bfloat16 is the upper half of a number in single precision. */
static inline __m512 widen(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

static inline __m512 load_half(const half *x, __mmask16 some) { return widen(_mm256_maskz_loadu_epi16(some, x)); }

/* 2^x for x at most 0, to about 2e-7, and 0 for x below -127; NaN stays NaN. The whole part of x is found by adding a
 * number so large that nothing behind the point is left, and goes into the exponent; for the rest there is a
 * polynomial, fitted to 2^x between -1/2 and 1/2. */
static inline __m512 power(__m512 x) {
    const float factors[] = {1.32764717e-3f, 9.67554154e-3f, 5.55071328e-2f, 2.40221197e-1f, 6.93146967e-1f, 1.0f};
    __m512 large = _mm512_set1_ps(12582912.0f);  /* 1.5 * 2^23 */
    x = _mm512_max_ps(_mm512_set1_ps(-127.0f), x);
    __m512 moved = _mm512_add_ps(x, large), part = _mm512_sub_ps(x, _mm512_sub_ps(moved, large));
    __m512 sum = _mm512_set1_ps(factors[0]);
    for (int k = 1; k < 6; k++) sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(factors[k]));
    __m512i whole = _mm512_slli_epi32(_mm512_castps_si512(moved), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sum), whole));
}

/* e^x to about 2e-7, also far from 0, where x times log2(e) in single precision is no longer exact: 2^n e^r with |r| at most ln(2) / 2, and e^r by its series. */
static inline __m512 exponential(__m512 x) {
    const float factors[] = {1.3888889e-3f, 8.3333333e-3f, 4.1666667e-2f, 1.6666667e-1f, 0.5f, 1.0f, 1.0f};
    x = _mm512_max_ps(set(-104.0f), _mm512_min_ps(set(88.7f), x));  /* in this order NaN stays NaN */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, set(0.693359375f), x);  /* ln 2 in two parts */
    r = _mm512_fnmadd_ps(n, set(-2.12194440e-4f), r);
    __m512 sum = set(1.9841270e-4f);
    for (int i = 0; i < 7; i++) sum = _mm512_fmadd_ps(sum, r, set(factors[i]));
    return _mm512_scalef_ps(sum, n);
}

static inline __m512 tangent(__m512 x) {  /* the hyperbolic one */
    __m512 size = _mm512_min_ps(_mm512_abs_ps(x), set(20.0f)), square = _mm512_mul_ps(x, x);
    __m512 far = _mm512_sub_ps(set(1.0f), _mm512_div_ps(set(2.0f), _mm512_add_ps(exponential(_mm512_add_ps(size, size)), set(1.0f))));
    __m512 near = _mm512_fmadd_ps(square, set(-17.0f / 315), set(2.0f / 15));  /* where 1 - 2 / (...) cancels */
    near = _mm512_fmadd_ps(square, near, set(-1.0f / 3));
    near = _mm512_fmadd_ps(_mm512_mul_ps(square, near), size, size);
    __m512 found = _mm512_mask_mov_ps(far, _mm512_cmp_ps_mask(size, set(0.12f), _CMP_LT_OQ), near);
    __m512 out = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
        _mm512_castps_si512(found), _mm512_castps_si512(x), _mm512_set1_epi32((int)0x80000000), 0xD8));
    return _mm512_mask_mov_ps(out, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

/* The error function to 1.5e-7: Abramowitz and Stegun, 7.1.26. */
static inline __m512 error_function(__m512 x) {
    const float factors[] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    __m512 size = _mm512_abs_ps(x), t = _mm512_div_ps(set(1.0f), _mm512_fmadd_ps(set(0.3275911f), size, set(1.0f)));
    __m512 sum = set(1.061405429f);
    for (int i = 0; i < 4; i++) sum = _mm512_fmadd_ps(sum, t, set(factors[i]));
    __m512 tail = _mm512_mul_ps(_mm512_mul_ps(sum, t), exponential(_mm512_fnmadd_ps(size, size, set(0.0f))));
    __m512 found = _mm512_sub_ps(set(1.0f), tail);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
        _mm512_castps_si512(found), _mm512_castps_si512(x), _mm512_set1_epi32((int)0x80000000), 0xD8));
}

static inline __m512 activate(__m512 x, int kind) {
    const __m512 one = set(1.0f), half_of_it = set(0.5f);
    switch (kind) {
    case RELU: return _mm512_max_ps(_mm512_setzero_ps(), x);
    case RELU_SQUARED: x = _mm512_max_ps(_mm512_setzero_ps(), x); return _mm512_mul_ps(x, x);
    case SILU: return _mm512_div_ps(x, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), x))));
    case GELU: {
        __m512 phi = _mm512_fmadd_ps(half_of_it, error_function(_mm512_mul_ps(x, set(0.70710678f))), half_of_it);
        return _mm512_mul_ps(x, phi);
    }
    case GELU_TANH: {  /* (1 + tanh u) / 2 is 1 / (1 + e^-2u) */
        __m512 twice = _mm512_mul_ps(x, _mm512_fmadd_ps(_mm512_mul_ps(x, x), set(-0.071354816f), set(-1.59576912f)));
        return _mm512_div_ps(x, _mm512_add_ps(one, exponential(twice)));
    }
    default: return x;
    }
}
