/* Products of pairs of bfloat16 numbers, six rows at a time by a panel of 64 columns: of many rows all is made of them. */
#pragma once

#include "lanes.h"

enum { GROUP = 6, PANEL = 64 };
typedef uint32_t pair;  /* two of them, the first one in the lower bits */

/* Transpose a block of 16 x 16: in four rounds, each of which swaps quarters of squares twice as large. */
static inline void turn(__m512i rows[LANES]) {
    __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int size = 1; size < LANES; size *= 2) {
        __mmask16 far = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(size));
        __m512i other = _mm512_xor_si512(lane, _mm512_set1_epi32(size));
        for (int i = 0; i < LANES; i++)
            if (!(i & size)) {
                __m512i upper = rows[i], lower = rows[i + size];
                rows[i] = _mm512_mask_permutexvar_epi32(upper, far, other, lower);
                rows[i + size] = _mm512_mask_permutexvar_epi32(lower, (__mmask16)~far, other, upper);
            }
    }
}

/* out (6, 64), its rows `out_step` apart, (+)= the sums over pairs of six rows times a panel. */
static inline void tile(const pair *const *row, int64_t step, const pair *panel, int64_t pairs, float *out,
                        int64_t out_step, int add) {
    __m512 sum[GROUP][4];
    for (int i = 0; i < GROUP; i++)
        for (int j = 0; j < 4; j++)
            sum[i][j] = add ? _mm512_loadu_ps(out + i * out_step + j * LANES) : _mm512_setzero_ps();
    const pair *a = row[0], *b = row[1], *c = row[2], *d = row[3], *e = row[4], *f = row[5];
    for (int64_t p = 0; p < pairs; p++) {
        __m512bh column[4];
        for (int j = 0; j < 4; j++) column[j] = (__m512bh)_mm512_loadu_si512(panel + p * PANEL + j * LANES);
        const int own[GROUP] = {a[p * step], b[p * step], c[p * step], d[p * step], e[p * step], f[p * step]};
        for (int i = 0; i < GROUP; i++) {
            __m512bh one = (__m512bh)_mm512_set1_epi32(own[i]);
            for (int j = 0; j < 4; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], one, column[j]);
        }
    }
    for (int i = 0; i < GROUP; i++)
        for (int j = 0; j < 4; j++) _mm512_storeu_ps(out + i * out_step + j * LANES, sum[i][j]);
}
