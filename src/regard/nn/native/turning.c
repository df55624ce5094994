/* A matrix in single precision, transposed and rounded to bfloat16 on the way: weights that were stored the other way round. */
#include "panels.h"

enum { HIGH = 2 * LANES };  /* rows at a time: each row of what comes out then gets a whole line of the cache */

int usable(void) { return has_lanes(); }

/* out (N, K) = x (K, N) transposed. */
void turned(const float *x, half *out, int64_t rows, int64_t columns, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t c = 0; c < columns; c += LANES)
        for (int64_t r = 0; r < rows; r += HIGH) {
            __m512i some[HIGH];
            for (int i = 0; i < HIGH; i++)
                some[i] = r + i < rows ? _mm512_castps_si512(_mm512_maskz_loadu_ps(lanes(columns - c), x + (r + i) * columns + c))
                                       : _mm512_setzero_si512();
            turn(some);
            turn(some + LANES);
            for (int64_t i = 0; i < LANES && c + i < columns; i++)
                for (int64_t part = 0; part < HIGH && r + part < rows; part += LANES) {
                    __m256i narrow = (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(some[part + i]));
                    _mm256_mask_storeu_epi16(out + (c + i) * rows + r + part, lanes(rows - r - part), narrow);
                }
        }
}
