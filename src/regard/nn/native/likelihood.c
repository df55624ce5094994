/* The cross-entropy of rows of logits in bfloat16, each of which becomes its own gradient, in place.
 *
 *     loss = -sum_v q_v log p_v,   gradient = p - q,   p = softmax(logits),   q = (1 - s) onehot(label) + s / V
 *
 * A row is read three times while it stays in the second cache: for its largest logit, for the sum of the powers, and
 * to be replaced.
 */
#include <cpuid.h>
#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

enum { LANES = 16 };
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

static inline float number(half some) {
    union { uint32_t bits; float value; } both = {(uint32_t)some << 16};
    return both.value;
}

/* 2^x for x at most 0, to about 2e-7, and 0 for x below -127; NaN stays NaN. See long_attention.c. */
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

/* Score rows of `words` logits that lie `step` apart (what is between becomes 0), all labels from 0 to words - 1: give
 * each row's loss and its negative log-likelihood. */
void score(half *logits, int64_t step, const int64_t *labels, int64_t rows, int64_t words, float smoothing,
           double *loss, double *likelihood) {
    __m512 log2e = _mm512_set1_ps(1.44269504f), uniform = _mm512_set1_ps(smoothing / words);
#pragma omp parallel for
    for (int64_t r = 0; r < rows; r++) {
        half *row = logits + r * step;
        __m512 top = _mm512_set1_ps(-FLT_MAX), total = _mm512_setzero_ps(), all = _mm512_setzero_ps();
        for (int64_t c = 0; c < words; c += LANES) {
            __mmask16 there = first(words - c);
            top = _mm512_mask_max_ps(top, there, top, widened(there, row + c));
        }
        float largest = _mm512_reduce_max_ps(top);
        top = _mm512_set1_ps(largest);
        for (int64_t c = 0; c < words; c += LANES) {
            __mmask16 there = first(words - c);
            __m512 below = _mm512_sub_ps(widened(there, row + c), top);
            total = _mm512_mask_add_ps(total, there, total, power(_mm512_mul_ps(below, log2e)));
            all = _mm512_mask_add_ps(all, there, all, below);
        }
        float normaliser = logf(_mm512_reduce_add_ps(total)), own = number(row[labels[r]]) - largest - normaliser;
        double every = (double)_mm512_reduce_add_ps(all) - (double)words * normaliser;
        likelihood[r] = -own;
        loss[r] = -(1.0 - smoothing) * own - (smoothing ? smoothing / words * every : 0.0);
        __m512 less = _mm512_set1_ps(normaliser);
        for (int64_t c = 0; c < step; c += LANES) {
            __mmask16 there = c < words ? first(words - c) : 0, written = first(step - c);
            __m512 below = _mm512_sub_ps(_mm512_sub_ps(widened(there, row + c), top), less);
            __m512 wanted = _mm512_maskz_sub_ps(there, power(_mm512_mul_ps(below, log2e)), uniform);
            _mm256_mask_storeu_epi16(row + c, written, (__m256i)_mm512_cvtneps_pbh(wanted));
        }
        float share = expf(own) - smoothing / words - (1 - smoothing);
        row[labels[r]] = ((__v16hi)(__m256i)_mm512_cvtneps_pbh(_mm512_set1_ps(share)))[0];
    }
}
