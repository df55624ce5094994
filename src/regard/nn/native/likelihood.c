/* The cross-entropy of rows of logits in bfloat16, each of which becomes its own gradient, in place.
 *
 *     loss = -sum_v q_v log p_v,   gradient = p - q,   p = softmax(logits),   q = (1 - s) onehot(label) + s / V
 *
 * A row is read three times while it stays in the second cache: for its largest logit, for the sum of the powers, and
 * to be replaced.
 */
#include <float.h>
#include <math.h>

#include "lanes.h"


/* Tell whether this processor has what is below. */
int usable(void) { return has_lanes(); }

static inline float number(half some) {
    union { uint32_t bits; float value; } both = {(uint32_t)some << 16};
    return both.value;
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
            __mmask16 there = lanes(words - c);
            top = _mm512_mask_max_ps(top, there, top, load_half(row + c, there));
        }
        float largest = _mm512_reduce_max_ps(top);
        top = _mm512_set1_ps(largest);
        for (int64_t c = 0; c < words; c += LANES) {
            __mmask16 there = lanes(words - c);
            __m512 below = _mm512_sub_ps(load_half(row + c, there), top);
            total = _mm512_mask_add_ps(total, there, total, power(_mm512_mul_ps(below, log2e)));
            all = _mm512_mask_add_ps(all, there, all, below);
        }
        float normaliser = logf(_mm512_reduce_add_ps(total)), own = number(row[labels[r]]) - largest - normaliser;
        double every = (double)_mm512_reduce_add_ps(all) - (double)words * normaliser;
        likelihood[r] = -own;
        loss[r] = -(1.0 - smoothing) * own - (smoothing ? smoothing / words * every : 0.0);
        __m512 less = _mm512_set1_ps(normaliser);
        for (int64_t c = 0; c < step; c += LANES) {
            __mmask16 there = c < words ? lanes(words - c) : 0, written = lanes(step - c);
            __m512 below = _mm512_sub_ps(_mm512_sub_ps(load_half(row + c, there), top), less);
            __m512 wanted = _mm512_maskz_sub_ps(there, power(_mm512_mul_ps(below, log2e)), uniform);
            _mm256_mask_storeu_epi16(row + c, written, (__m256i)_mm512_cvtneps_pbh(wanted));
        }
        float share = expf(own) - smoothing / words - (1 - smoothing);
        row[labels[r]] = ((__v16hi)(__m256i)_mm512_cvtneps_pbh(_mm512_set1_ps(share)))[0];
    }
}
