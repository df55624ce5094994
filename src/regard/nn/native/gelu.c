/* GELU by its tanh, and its gradient, of numbers in bfloat16.
 *
 *     y = x s,   s = (1 + tanh u) / 2 = 1 / (1 + e^(-2u)),   u = sqrt(2 / pi) (x + 0.044715 x^3)
 *     dy/dx = s + 2 x s (1 - s) du/dx
 *
 * Source: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
 */

#include "lanes.h"

enum { AT_ONCE = 1 << 14 };

/* Tell whether this processor has what is below. */
int usable(void) { return has_lanes(); }

/* x, or where it is so large that s is 0 or 1 a number whose third power is finite; NaN stays NaN. */
static inline __m512 bounded(__m512 x) {
    return _mm512_min_ps(_mm512_set1_ps(64.0f), _mm512_max_ps(_mm512_set1_ps(-64.0f), x));
}

/* s of x. */
static inline __m512 share(__m512 x, __m512 square) {
    __m512 one = _mm512_set1_ps(1.0f), inner = _mm512_fmadd_ps(square, _mm512_set1_ps(0.044715f), one);
    __m512 exponent = _mm512_mul_ps(_mm512_mul_ps(x, inner), _mm512_set1_ps(-2.0f * 0.797884561f * 1.44269504f));
    return _mm512_div_ps(one, _mm512_add_ps(one, power(_mm512_min_ps(set(126.0f), _mm512_max_ps(set(-126.0f), exponent)))));
}

void forward(const half *x, half *out, int64_t count) {
#pragma omp parallel for
    for (int64_t begin = 0; begin < count; begin += AT_ONCE)
        for (int64_t i = begin; i < begin + AT_ONCE && i < count; i += LANES) {
            __mmask16 there = lanes(count - i);
            __m512 some = load_half(x + i, there), near = bounded(some);
            some = _mm512_mul_ps(some, share(near, _mm512_mul_ps(near, near)));
            _mm256_mask_storeu_epi16(out + i, there, (__m256i)_mm512_cvtneps_pbh(some));
        }
}

void backward(const half *x, const half *change, half *out, int64_t count) {
    __m512 one = _mm512_set1_ps(1.0f);
#pragma omp parallel for
    for (int64_t begin = 0; begin < count; begin += AT_ONCE)
        for (int64_t i = begin; i < begin + AT_ONCE && i < count; i += LANES) {
            __mmask16 there = lanes(count - i);
            __m512 some = bounded(load_half(x + i, there)), square = _mm512_mul_ps(some, some), s = share(some, square);
            __m512 slope = _mm512_fmadd_ps(square, _mm512_set1_ps(3.0f * 0.044715f), one);
            slope = _mm512_mul_ps(_mm512_mul_ps(slope, some), _mm512_set1_ps(2.0f * 0.797884561f));
            slope = _mm512_fmadd_ps(slope, _mm512_mul_ps(s, _mm512_sub_ps(one, s)), s);
            slope = _mm512_mul_ps(slope, load_half(change + i, there));
            _mm256_mask_storeu_epi16(out + i, there, (__m256i)_mm512_cvtneps_pbh(slope));
        }
}
