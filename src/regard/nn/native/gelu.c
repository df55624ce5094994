/* GELU by its tanh, and its gradient, of numbers in bfloat16.
 *
 *     y = x s,   s = (1 + tanh u) / 2 = 1 / (1 + e^(-2u)),   u = sqrt(2 / pi) (x + 0.044715 x^3)
 *     dy/dx = s + 2 x s (1 - s) du/dx
 *
 * Source: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
 */
#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>

enum { LANES = 16, AT_ONCE = 1 << 14 };
typedef uint16_t half;  /* a bfloat16 */

/* Tell whether this processor has what is below. */
int usable(void) {
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return 0;
    if (!__builtin_cpu_supports("avx512vl")) return 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

static inline __mmask16 first(int64_t count) { return count >= LANES ? 0xffff : (1u << count) - 1; }

static inline __m512 widened(__mmask16 there, const half *place) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, place)), 16));
}

/* 2^x for x between -126 and 126, to about 2e-7; NaN stays NaN. See long_attention.c. */
static inline __m512 power(__m512 x) {
    const float factors[] = {1.32764717e-3f, 9.67554154e-3f, 5.55071328e-2f, 2.40221197e-1f, 6.93146967e-1f, 1.0f};
    __m512 large = _mm512_set1_ps(12582912.0f);  /* 1.5 * 2^23 */
    x = _mm512_min_ps(_mm512_set1_ps(126.0f), _mm512_max_ps(_mm512_set1_ps(-126.0f), x));
    __m512 moved = _mm512_add_ps(x, large), part = _mm512_sub_ps(x, _mm512_sub_ps(moved, large));
    __m512 sum = _mm512_set1_ps(factors[0]);
    for (int k = 1; k < 6; k++) sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(factors[k]));
    __m512i whole = _mm512_slli_epi32(_mm512_castps_si512(moved), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sum), whole));
}

/* x, or where it is so large that s is 0 or 1 a number whose third power is finite; NaN stays NaN. */
static inline __m512 bounded(__m512 x) {
    return _mm512_min_ps(_mm512_set1_ps(64.0f), _mm512_max_ps(_mm512_set1_ps(-64.0f), x));
}

/* s of x. */
static inline __m512 share(__m512 x, __m512 square) {
    __m512 one = _mm512_set1_ps(1.0f), inner = _mm512_fmadd_ps(square, _mm512_set1_ps(0.044715f), one);
    __m512 exponent = _mm512_mul_ps(_mm512_mul_ps(x, inner), _mm512_set1_ps(-2.0f * 0.797884561f * 1.44269504f));
    return _mm512_div_ps(one, _mm512_add_ps(one, power(exponent)));
}

void forward(const half *x, half *out, int64_t count) {
#pragma omp parallel for
    for (int64_t begin = 0; begin < count; begin += AT_ONCE)
        for (int64_t i = begin; i < begin + AT_ONCE && i < count; i += LANES) {
            __mmask16 there = first(count - i);
            __m512 some = widened(there, x + i), near = bounded(some);
            some = _mm512_mul_ps(some, share(near, _mm512_mul_ps(near, near)));
            _mm256_mask_storeu_epi16(out + i, there, (__m256i)_mm512_cvtneps_pbh(some));
        }
}

void backward(const half *x, const half *change, half *out, int64_t count) {
    __m512 one = _mm512_set1_ps(1.0f);
#pragma omp parallel for
    for (int64_t begin = 0; begin < count; begin += AT_ONCE)
        for (int64_t i = begin; i < begin + AT_ONCE && i < count; i += LANES) {
            __mmask16 there = first(count - i);
            __m512 some = bounded(widened(there, x + i)), square = _mm512_mul_ps(some, some), s = share(some, square);
            __m512 slope = _mm512_fmadd_ps(square, _mm512_set1_ps(3.0f * 0.044715f), one);
            slope = _mm512_mul_ps(_mm512_mul_ps(slope, some), _mm512_set1_ps(2.0f * 0.797884561f));
            slope = _mm512_fmadd_ps(slope, _mm512_mul_ps(s, _mm512_sub_ps(one, s)), s);
            slope = _mm512_mul_ps(slope, widened(there, change + i));
            _mm256_mask_storeu_epi16(out + i, there, (__m256i)_mm512_cvtneps_pbh(slope));
        }
}
