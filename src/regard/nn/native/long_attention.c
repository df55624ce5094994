/* Attention of one head over a long text in bfloat16, by blocks of rows and columns, with each row's log-sum-exp.
 *
 *     mixed = softmax(scale Q K^T) V,   normaliser = log sum exp(scale Q K^T)
 *
 * Both products are of pairs of neighbouring numbers (AVX-512 BF16), summed up in single precision; the softmax is
 * carried along the columns as in FlashAttention (arXiv:2205.14135, algorithm 1). `pack` lays a head's keys and values
 * out as such pairs once; `attend` then takes any range of its rows, so that threads share a head.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"

enum { GROUP = 6, ROWS = 128 * GROUP, COLUMNS = 512, TILE = 64 };
typedef uint32_t pair;  /* two of them, the first one in the lower bits */

/* Tell whether this processor has what is below, and isn't one whose tile units make torch's own kernel faster. */
int usable(void) { return has_lanes() && !tiles_are_there(); }

/* Give how many pairs `pack` writes for a head. */
int64_t packed_pairs(int64_t keys, int64_t size) { return (keys + COLUMNS - 1) / COLUMNS * COLUMNS * size; }

/* Lay keys (S, K) out as (S / 64, K / 2, 64) pairs of neighbours along K, and values (S, K) behind them as
 * (S / 2, K) pairs of neighbours along S; zeros up to a multiple of COLUMNS. */
void pack(const half *key, const half *value, pair *packed, int64_t keys, int64_t size) {
    int64_t padded = packed_pairs(keys, size) / size;
    pair *far = packed + padded * size / 2;
    for (int64_t tile = 0; tile < padded / TILE; tile++)
        for (int64_t p = 0; p < size / 2; p++)
            for (int64_t c = 0; c < TILE; c++) {
                int64_t column = tile * TILE + c;
                pair *place = packed + (tile * size / 2 + p) * TILE + c;
                if (column < keys) memcpy(place, key + column * size + 2 * p, sizeof *place); else *place = 0;
            }
    for (int64_t p = 0; p < padded / 2; p++)
        for (int64_t k = 0; k < size; k++) {
            pair first = 2 * p < keys ? value[2 * p * size + k] : 0;
            pair second = 2 * p + 1 < keys ? value[(2 * p + 1) * size + k] : 0;
            far[p * size + k] = first | second << 16;
        }
}

/* out[i][0..63] += sum over p of left[i][p] . right[p][0..63], for six rows i. */
static inline void product(const pair *left, int64_t left_step, const pair *right, int64_t right_step, int64_t pairs,
                           float *out, int64_t out_step, int fresh) {
    __m512 sum[GROUP][4];
    for (int i = 0; i < GROUP; i++)
        for (int j = 0; j < 4; j++)
            sum[i][j] = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(out + i * out_step + j * LANES);
    for (int64_t p = 0; p < pairs; p++) {
        __m512bh column[4];
        for (int j = 0; j < 4; j++)
            column[j] = (__m512bh)_mm512_loadu_si512(right + p * right_step + j * LANES);
        for (int i = 0; i < GROUP; i++) {
            __m512bh row = (__m512bh)_mm512_set1_epi32((int)left[i * left_step + p]);
            for (int j = 0; j < 4; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], row, column[j]);
        }
    }
    for (int i = 0; i < GROUP; i++)
        for (int j = 0; j < 4; j++) _mm512_storeu_ps(out + i * out_step + j * LANES, sum[i][j]);
}

/* Turn a row of products into powers of two, the largest one so far into 1; give what earlier ones must be multiplied
 * with. The largest is subtracted first, so that it gives 1 exactly, however large it is. */
static inline float soften(float *scores, pair *weights, int64_t columns, float factor, float *largest, float *total) {
    __m512 most = _mm512_loadu_ps(scores), sum = _mm512_setzero_ps(), times = _mm512_set1_ps(factor);
    for (int64_t c = LANES; c < columns; c += LANES) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + c));
    float before = *largest, now = fmaxf(before, _mm512_reduce_max_ps(most));
    __m512 top = _mm512_set1_ps(now);
    for (int64_t c = 0; c < columns; c += 2 * LANES) {
        __m512 first = power(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + c), top), times));
        __m512 second = power(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + c + LANES), top), times));
        sum = _mm512_add_ps(sum, _mm512_add_ps(first, second));
        _mm512_storeu_si512(weights + c / 2, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
    float moved = exp2f((before - now) * factor);
    *largest = now;
    *total = *total * moved + _mm512_reduce_add_ps(sum);
    return moved;
}

/* Attend from the rows [first, last) of one head; in a causal text row i sees the columns 0 to i. */
int attend(const half *query, const pair *packed, half *mixed, float *normaliser, int64_t keys, int64_t size,
           int64_t first, int64_t last, float scale, int causal) {
    int64_t padded = packed_pairs(keys, size) / size, half_size = size / 2;
    const pair *far = packed + padded * half_size;
    float scores[GROUP * COLUMNS], largest[ROWS], total[ROWS], *sums = malloc(ROWS * size * sizeof *sums);
    pair weights[GROUP * COLUMNS / 2], *near = malloc(ROWS * half_size * sizeof *near);
    float factor = scale * 1.44269504f;  /* times log2(e): the powers are of two */
    for (int64_t begin = first; sums && near && begin < last; begin += ROWS) {
        int64_t rows = last - begin < ROWS ? last - begin : ROWS;
        int64_t end = causal ? begin + rows : keys;  /* columns that any of these rows sees */
        memset(near, 0, ROWS * half_size * sizeof *near);
        memcpy(near, query + begin * size, rows * size * sizeof *query);
        memset(sums, 0, ROWS * size * sizeof *sums);
        for (int64_t i = 0; i < ROWS; i++) largest[i] = -FLT_MAX, total[i] = 0.0f;
        for (int64_t column = 0; column < end; column += COLUMNS)
            for (int64_t row = 0; row < rows; row += GROUP) {
                int64_t seen = causal ? begin + row + GROUP - column : keys - column;  /* by the last of the group */
                int64_t wide = ((seen < COLUMNS ? seen : COLUMNS) + TILE - 1) / TILE * TILE;
                for (int64_t c = 0; c < wide; c += TILE)
                    product(near + row * half_size, half_size, packed + (column + c) * half_size, TILE, half_size,
                            scores + c, COLUMNS, 1);
                for (int64_t i = 0; i < GROUP && wide > 0; i++) {
                    int64_t own = causal ? begin + row + i + 1 - column : keys - column;
                    for (int64_t c = own < 0 ? 0 : own; c < wide; c++) scores[i * COLUMNS + c] = -INFINITY;
                    float moved = soften(scores + i * COLUMNS, weights + i * COLUMNS / 2, wide, factor,
                                         largest + row + i, total + row + i);
                    for (int64_t k = 0; k < size && moved != 1.0f; k += LANES) {
                        float *place = sums + (row + i) * size + k;
                        _mm512_storeu_ps(place, _mm512_mul_ps(_mm512_loadu_ps(place), _mm512_set1_ps(moved)));
                    }
                }
                for (int64_t k = 0; k < size && wide > 0; k += TILE)
                    product(weights, COLUMNS / 2, far + column * half_size + k, size, wide / 2, sums + row * size + k,
                            size, 0);
            }
        for (int64_t i = 0; i < rows; i++) {
            normaliser[begin + i] = largest[i] * scale + log2f(total[i]) * 0.69314718f;
            for (int64_t k = 0; k < size; k += LANES) {
                __m512 row = _mm512_div_ps(_mm512_loadu_ps(sums + i * size + k), _mm512_set1_ps(total[i]));
                _mm256_storeu_si256((__m256i *)(mixed + (begin + i) * size + k), (__m256i)_mm512_cvtneps_pbh(row));
            }
        }
    }
    int failed = !sums || !near;
    free(sums);
    free(near);
    return failed;
}
