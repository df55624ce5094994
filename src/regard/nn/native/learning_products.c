/* The three products of a linear layer that learns, in bfloat16 with sums in single precision.
 *
 *     forward            out = x W^T + b           x (M, K), W (N, K), b (N,)
 *     input_gradient     dx = g W                  g (M, N)
 *     weight_gradient    dW = g^T x, db = sum g
 *
 * All are products of pairs of neighbouring numbers along what is summed over (AVX-512 BF16). One factor is read as it
 * lies, six rows at a time; of the other, 64 columns at a time are laid out as pairs, by the thread that needs them and
 * into its second cache. Weights may be in single precision and are rounded on that way, so there is no copy of them.
 */
#include <omp.h>
#include <stdlib.h>

#include "panels.h"

enum { STRIP = 48, DEEPEST = 4096 };
typedef __m512i block[LANES];

/* A matrix: `wide` says that it is in single precision; rows lie `step` numbers apart. */
typedef struct { const void *data; int64_t step; int wide; } matrix;

/* Where a product goes: `turned` writes it transposed, `add` adds to what is there. A bias is added to bfloat16 only. */
typedef struct { void *data; int64_t step; int wide, turned, add; const float *bias; float *sums; } target;

/* Tell whether this processor has what is below, and isn't one whose tile units make torch's own products faster. */
int usable(void) { return has_lanes() && !tiles_are_there(); }

/* Sixteen numbers of a row from a column on as bfloat16, each in the lower half of its place; zeros behind `left`. */
static inline __m512i numbers(matrix m, int64_t row, int64_t column, int64_t left) {
    __mmask16 there = lanes(left);
    if (!m.wide)
        return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, (const half *)m.data + row * m.step + column));
    __m512 some = _mm512_maskz_loadu_ps(there, (const float *)m.data + row * m.step + column);
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(some));
}

/* Sixteen pairs of neighbours of a row. */
static inline __m512i neighbours(matrix m, int64_t row, int64_t column, int64_t left) {
    if (!m.wide)
        return _mm512_maskz_loadu_epi32(lanes(left / 2), (const half *)m.data + row * m.step + column);
    const float *place = (const float *)m.data + row * m.step + column;
    __m512 low = _mm512_maskz_loadu_ps(lanes(left), place);
    __m512 high = _mm512_maskz_loadu_ps(lanes(left - LANES), place + LANES);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Lay out 64 rows of W from `row` on, (pairs, 64): what is summed over lies along them. */
static void pack_rows(matrix m, int64_t row, int64_t rows, int64_t column, int64_t columns, pair *to) {
    for (int64_t p = 0; p < (columns + 1) / 2; p += LANES)
        for (int64_t c = 0; c < PANEL; c += LANES) {
            block some;
            for (int i = 0; i < LANES; i++)
                some[i] = row + c + i < rows ? neighbours(m, row + c + i, column + 2 * p, columns - 2 * p)
                                             : _mm512_setzero_si512();
            turn(some);
            for (int i = 0; i < LANES && p + i < (columns + 1) / 2; i++)
                _mm512_storeu_si512(to + (p + i) * PANEL + c, some[i]);
        }
}

/* Lay out some columns from `column` on, (pairs, width): what is summed over are the rows. */
static void pack_columns(matrix m, int64_t row, int64_t rows, int64_t column, int64_t columns, int width, pair *to) {
    for (int64_t p = 0; p < (rows + 1) / 2; p++)
        for (int64_t c = 0; c < width; c += LANES) {
            int64_t left = columns - column - c;
            __m512i even = numbers(m, row + 2 * p, column + c, left), odd = _mm512_setzero_si512();
            if (2 * p + 1 < rows) odd = numbers(m, row + 2 * p + 1, column + c, left);
            _mm512_storeu_si512(to + p * width + c, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
        }
}

/* Bring (6, 64) sums to their place, the rows and columns that are there. */
static void put(const float *from, target t, int64_t row, int64_t rows, int64_t column, int64_t columns, int add) {
    for (int64_t i = 0; i < GROUP && row + i < rows; i++)
        for (int64_t c = 0; c < PANEL && column + c < columns; c += LANES) {
            __mmask16 there = lanes(columns - column - c);
            __m512 sum = _mm512_loadu_ps(from + i * PANEL + c);
            if (t.turned) continue;
            if (t.wide) {
                float *place = (float *)t.data + (row + i) * t.step + column + c;
                if (add) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(there, place));
                _mm512_mask_storeu_ps(place, there, sum);
                continue;
            }
            if (t.bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(there, t.bias + column + c));
            half *place = (half *)t.data + (row + i) * t.step + column + c;
            _mm256_mask_storeu_epi16(place, there, (__m256i)_mm512_cvtneps_pbh(sum));
        }
    for (int64_t c = 0; t.turned && c < PANEL && column + c < columns; c++) {
        float *place = (float *)t.data + (column + c) * t.step + row;
        for (int64_t i = 0; i < GROUP && row + i < rows; i++)
            place[i] = from[i * PANEL + c] + (add ? place[i] : 0.0f);
    }
}

/* sums[0..63] (+)= what stands in a panel's columns. */
static void add_up(const pair *panel, int64_t pairs, float *sums, int64_t columns, int add) {
    __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    for (int64_t c = 0; c < columns; c += LANES) {
        __m512 sum = add ? _mm512_maskz_loadu_ps(lanes(columns - c), sums + c) : _mm512_setzero_ps();
        for (int64_t p = 0; p < pairs; p++)
            sum = _mm512_dpbf16_ps(sum, ones, (__m512bh)_mm512_loadu_si512(panel + p * PANEL + c));
        _mm512_mask_storeu_ps(sums + c, lanes(columns - c), sum);
    }
}

/* target = left right. `strips`: the left factor is laid out as (rows / 48, pairs, 48), else it lies as (rows, depth).
 * `along`: what is summed over lies along the rows of the right factor, else down its columns. */
static int multiply(const pair *left, int64_t left_step, int strips, matrix right, int along, target t, int64_t rows,
                    int64_t columns, int64_t depth) {
    int64_t spans = (depth + DEEPEST - 1) / DEEPEST, span = (depth + spans - 1) / spans;
    span += span & 1;
    int64_t panels = (columns + PANEL - 1) / PANEL, wanted = 3 * omp_get_max_threads() / panels + 1;
    int64_t share = (rows / wanted / STRIP + 1) * STRIP, shares = (rows + share - 1) / share;
    int failed = 0;
    if (!t.wide && spans > 1) return 1;
#pragma omp parallel reduction(| : failed)
    {
        pair *panel = aligned_alloc(64, (span / 2 + LANES) * PANEL * sizeof *panel);
        failed = !panel;
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < panels * shares; unit++) {
            int64_t column = unit / shares * PANEL, begin = unit % shares * share;
            int64_t end = begin + share < rows ? begin + share : rows;
            for (int64_t k = 0; panel && k < depth; k += span) {
                int64_t deep = depth - k < span ? depth - k : span, pairs = (deep + 1) / 2;
                int add = t.add || k > 0;
                if (along) pack_rows(right, column, columns, k, deep, panel);
                else pack_columns(right, k, deep, column, columns, PANEL, panel);
                if (t.sums && begin == 0)
                    add_up(panel, pairs, t.sums + column, columns - column < PANEL ? columns - column : PANEL, k > 0);
                for (int64_t r = begin; r < end; r += GROUP) {
                    const pair *row[GROUP];
                    float sums[GROUP * PANEL];
                    for (int64_t i = 0; i < GROUP; i++) {
                        int64_t at = r + i < rows ? r + i : rows - 1;
                        row[i] = strips ? left + (at / STRIP * left_step + k / 2) * STRIP + at % STRIP
                                        : left + at * left_step + k / 2;
                    }
                    if (strips) tile(row, STRIP, panel, pairs, sums, PANEL, 0); else tile(row, 1, panel, pairs, sums, PANEL, 0);
                    put(sums, t, r, end, column, columns, add);
                }
            }
        }
        free(panel);
    }
    return failed;
}

/* out (M, N) in bfloat16, its rows `out_step` apart, = x (M, K) in bfloat16 times W^T (N, K), plus a bias if not null. */
int forward(const half *x, const void *weight, int wide, const float *bias, half *out, int64_t out_step, int64_t rows,
            int64_t columns, int64_t depth) {
    matrix right = {weight, depth, wide};
    target to = {out, out_step, 0, 0, 0, bias, 0};
    return multiply((const pair *)x, depth / 2, 0, right, 1, to, rows, columns, depth);
}

/* out (M, K), in single precision if `out_wide`, = g (M, N) in bfloat16, its rows `step` apart, times W (N, K). */
int input_gradient(const half *gradient, int64_t step, const void *weight, int wide, void *out, int out_wide,
                   int64_t rows, int64_t columns, int64_t depth) {
    matrix right = {weight, columns, wide};
    target to = {out, columns, out_wide, 0, 0, 0, 0};
    return multiply((const pair *)gradient, step / 2, 0, right, 0, to, rows, columns, depth);
}

/* out (N, K) in single precision (+)= g^T x, both in bfloat16; `sums` (N,), if not null, = g's columns summed up. */
int weight_gradient(const half *gradient, int64_t step, const half *x, float *out, int add, float *sums, int64_t rows,
                    int64_t columns, int64_t depth) {
    int64_t strips = (columns + STRIP - 1) / STRIP, pairs = (depth + 1) / 2;
    pair *left = aligned_alloc(64, strips * pairs * STRIP * sizeof *left);
    if (!left) return 1;
    matrix from = {x, columns, 0}, right = {gradient, step, 0};
#pragma omp parallel for
    for (int64_t s = 0; s < strips; s++)
        pack_columns(from, 0, depth, s * STRIP, columns, STRIP, left + s * pairs * STRIP);
    target to = {out, columns, 1, 1, add, 0, sums};
    int failed = multiply(left, pairs, 1, right, 0, to, columns, rows, depth);
    free(left);
    return failed;
}
