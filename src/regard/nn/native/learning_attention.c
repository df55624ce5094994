/* Attention in bfloat16 and its gradients, where each row sees one run of columns: [begin, end).
 *
 *     mixed = P V,   P = softmax(scale Q K^T),   normaliser = log sum exp(scale Q K^T)
 *     dV = P^T dO,   dS = P * (dO V^T - sum_k dO * mixed) scale,   dQ = dS K,   dK = dS^T Q
 *
 * Products are of pairs of neighbouring numbers (AVX-512 BF16), six rows at a time; the backward pass makes the weights
 * again from the normalisers, as in FlashAttention (arXiv:2205.14135, section 3.1). A thread takes a head of keys and
 * values with all heads of queries that share it.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "panels.h"

enum { BLOCK = 16 * GROUP };
typedef struct { half *data; int64_t batch, head, row; } heads;  /* (B, H, T, K): where each begins, in numbers */

/* Tell whether this processor has what is below, and isn't one whose tile units make torch's own kernel faster. */
int usable(void) { return has_lanes() && !tiles_are_there(); }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

/* Lay out rows (S, K), `step` apart, as (S / 64, K / 2, 64) pairs along K; zeros up to a multiple of 64. */
static void pack_rows(const half *from, int64_t step, int64_t rows, int64_t size, pair *to) {
    for (int64_t s = 0; s < padded(rows); s += LANES)
        for (int64_t p = 0; p < size / 2; p += LANES) {
            __m512i some[LANES];
            for (int i = 0; i < LANES; i++)
                some[i] = s + i < rows ? _mm512_loadu_si512(from + (s + i) * step + 2 * p) : _mm512_setzero_si512();
            turn(some);
            pair *place = to + (s / PANEL * size / 2 + p) * PANEL + s % PANEL;
            for (int i = 0; i < LANES; i++) _mm512_storeu_si512(place + i * PANEL, some[i]);
        }
}

/* Lay out rows (S, K) as (K / 64, S / 2, 64) pairs along S; zeros up to `until` rows. */
static void pack_columns(const half *from, int64_t step, int64_t rows, int64_t until, int64_t size, pair *to) {
    for (int64_t k = 0; k < size; k += PANEL)
        for (int64_t s = 0; s < until; s += 2)
            for (int64_t c = k; c < k + PANEL; c += LANES, to += LANES) {
                __m512i even = _mm512_setzero_si512(), odd = even;
                if (s < rows) even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(from + s * step + c)));
                if (s + 1 < rows)
                    odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(from + (s + 1) * step + c)));
                _mm512_storeu_si512(to, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
            }
}

static inline void put(half *to, const float *from, int64_t size, float factor) {
    for (int64_t k = 0; k < size; k += LANES) {
        __m512 some = _mm512_mul_ps(_mm512_loadu_ps(from + k), _mm512_set1_ps(factor));
        _mm256_storeu_si256((void *)(to + k), (__m256i)_mm512_cvtneps_pbh(some));
    }
}

/* Six rows from `row` on: where they lie, the last one again behind the end. */
static inline void six(const half *from, int64_t step, int64_t row, int64_t rows, const pair **found) {
    for (int64_t i = 0; i < GROUP; i++) found[i] = (const pair *)(from + least(row + i, rows - 1) * step);
}

/* The columns that any of some rows sees, from the beginning of a panel to the end of sixteen. */
static inline void seen(const int64_t *runs, int64_t row, int64_t last, int64_t *begin, int64_t *end) {
    *begin = INT64_MAX, *end = 0;
    for (; row < last; row++)
        if (runs[2 * row] < runs[2 * row + 1])
            *begin = least(*begin, runs[2 * row]), *end = most(*end, runs[2 * row + 1]);
    *begin = least(*begin, *end) / PANEL * PANEL, *end = (*end + LANES - 1) / LANES * LANES;
}

/* Blank what a row doesn't see between `begin` and `end`. */
static inline void blank(float *scores, int64_t begin, int64_t end, const int64_t *run) {
    for (int64_t c = begin; c < least(run[0], end); c++) scores[c] = -INFINITY;
    for (int64_t c = most(run[1], begin); c < end; c++) scores[c] = -INFINITY;
}

/* mixed (B, H, T, K) and normaliser (B, H, T), infinite for a row that sees nothing. `runs` are (B, T, 2), or (T, 2)
 * for all texts where `own_runs` is 0. */
int attend(const heads *query, const heads *key, const heads *value, const heads *mixed, float *normaliser,
           const int64_t *runs, int own_runs, int64_t batch, int64_t count, int64_t shared, int64_t rows,
           int64_t columns, int64_t size, float scale) {
    int64_t wide = padded(columns), groups = count / shared;
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        pair *near = aligned_alloc(64, wide * size * sizeof *near), *far = near + wide * size / 2;
        float *scores = aligned_alloc(64, GROUP * most(wide, size) * sizeof *scores);
        half *weights = aligned_alloc(64, GROUP * wide * sizeof *weights);
        failed = !near || !scores || !weights;
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < batch * shared; unit++) {
            int64_t b = unit / shared, g = unit % shared;
            const int64_t *run = runs + own_runs * b * rows * 2;
            if (failed) continue;
            pack_rows(key->data + b * key->batch + g * key->head, key->row, columns, size, near);
            pack_columns(value->data + b * value->batch + g * value->head, value->row, columns, wide, size, far);
            for (int64_t h = g * groups; h < (g + 1) * groups; h++)
                for (int64_t r = 0; r < rows; r += GROUP) {
                    const pair *row[GROUP];
                    float total[GROUP], top[GROUP];
                    int64_t begin, end, last = least(r + GROUP, rows);
                    seen(run, r, last, &begin, &end);
                    six(query->data + b * query->batch + h * query->head, query->row, r, rows, row);
                    for (int64_t c = begin; c < end; c += PANEL)
                        tile(row, 1, near + c * size / 2, size / 2, scores + c, wide, 0);
                    for (int64_t i = 0; i < last - r; i++) {
                        float *own = scores + i * wide;
                        __m512 largest = _mm512_set1_ps(-FLT_MAX), sum = _mm512_setzero_ps();
                        blank(own, begin, end, run + 2 * (r + i));
                        for (int64_t c = begin; c < end; c += LANES)
                            largest = _mm512_max_ps(largest, _mm512_loadu_ps(own + c));
                        top[i] = _mm512_reduce_max_ps(largest);
                        __m512 most_of_all = _mm512_set1_ps(top[i]), factor = _mm512_set1_ps(scale * 1.44269504f);
                        for (int64_t c = begin; c < end; c += LANES) {
                            __m512 below = _mm512_sub_ps(_mm512_loadu_ps(own + c), most_of_all);
                            below = power(_mm512_mul_ps(below, factor));
                            sum = _mm512_add_ps(sum, below);
                            _mm256_storeu_si256((void *)(weights + i * wide + c), (__m256i)_mm512_cvtneps_pbh(below));
                        }
                        total[i] = _mm512_reduce_add_ps(sum);
                    }
                    for (int64_t i = 0; i < GROUP; i++)
                        row[i] = (const pair *)(weights + least(i, last - r - 1) * wide + begin);
                    for (int64_t k = 0; k < size; k += PANEL)
                        tile(row, 1, far + k * wide / 2 + begin / 2 * PANEL, (end - begin) / 2, scores + k, size, 0);
                    for (int64_t i = 0; i < last - r; i++) {
                        int64_t at = r + i;
                        int none = run[2 * at] >= run[2 * at + 1];
                        put(mixed->data + b * mixed->batch + h * mixed->head + at * mixed->row, scores + i * size, size,
                            none ? 0.0f : 1.0f / total[i]);
                        normaliser[(b * count + h) * rows + at] = none ? INFINITY : top[i] * scale + logf(total[i]);
                    }
                }
        }
        free(near), free(scores), free(weights);
    }
    return failed;
}

/* The gradients of query, key and value, (B, H, T, K) and twice (B, G, S, K), from that of what was mixed. */
int gradients(const heads *query, const heads *key, const heads *value, const heads *mixed, const heads *change,
              const float *normaliser, const heads *of_query, const heads *of_key, const heads *of_value,
              const int64_t *runs, int own_runs, int64_t batch, int64_t count, int64_t shared, int64_t rows,
              int64_t columns, int64_t size, float scale) {
    int64_t wide = padded(columns), room = wide + LANES, groups = count / shared;
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        pair *keys = aligned_alloc(64, wide * size / 2 * 3 * sizeof *keys);
        pair *values = keys + wide * size / 2, *turned = values + wide * size / 2;
        pair *first = aligned_alloc(64, BLOCK * (size + room) * sizeof *first), *second = first + BLOCK * size / 2;
        pair *weights = second + BLOCK * size / 2, *slopes = weights + BLOCK / 2 * room;
        float *sums = aligned_alloc(64, (wide + GROUP) * size * 2 * sizeof *sums), *others = sums + (wide + GROUP) * size;
        float *scores = aligned_alloc(64, GROUP * wide * 3 * sizeof *scores), *parts = scores + GROUP * wide;
        half *own_slopes = (half *)(parts + GROUP * wide);
        float *mean = aligned_alloc(64, GROUP * size * sizeof *mean);
        failed = !keys || !first || !sums || !scores || !mean;
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < batch * shared; unit++) {
            int64_t b = unit / shared, g = unit % shared;
            const int64_t *run = runs + own_runs * b * rows * 2;
            if (failed) continue;
            const half *near = key->data + b * key->batch + g * key->head;
            const half *far = value->data + b * value->batch + g * value->head;
            pack_rows(near, key->row, columns, size, keys);
            pack_rows(far, value->row, columns, size, values);
            pack_columns(near, key->row, columns, wide, size, turned);
            memset(sums, 0, (columns + GROUP) * size * sizeof *sums);
            memset(others, 0, (columns + GROUP) * size * sizeof *others);
            for (int64_t h = g * groups; h < (g + 1) * groups; h++)
                for (int64_t start = 0; start < rows; start += BLOCK) {
                    int64_t stop = least(start + BLOCK, rows), left, right;
                    int64_t high = (stop - start + GROUP - 1) / GROUP * GROUP;
                    const half *asked = query->data + b * query->batch + h * query->head;
                    const half *given = change->data + b * change->batch + h * change->head;
                    const half *result = mixed->data + b * mixed->batch + h * mixed->head;
                    seen(run, start, stop, &left, &right);
                    pack_columns(asked + start * query->row, query->row, stop - start, high, size, first);
                    pack_columns(given + start * change->row, change->row, stop - start, high, size, second);
                    for (int64_t r = start; r < stop; r += GROUP) {
                        const pair *row[GROUP];
                        int64_t begin, end, last = least(r + GROUP, rows);
                        seen(run, r, last, &begin, &end);
                        if (!end) begin = end = left;  /* these see nothing */
                        six(asked, query->row, r, rows, row);
                        for (int64_t c = begin; c < end; c += PANEL)
                            tile(row, 1, keys + c * size / 2, size / 2, scores + c, wide, 0);
                        six(given, change->row, r, rows, row);
                        for (int64_t c = begin; c < end; c += PANEL)
                            tile(row, 1, values + c * size / 2, size / 2, parts + c, wide, 0);
                        for (int64_t i = 0; i < GROUP; i += 2) {
                            pair *place = weights + (r - start + i) / 2 * room;
                            pair *slope = slopes + (r - start + i) / 2 * room;
                            __m512 less[2], total[2];
                            for (int64_t j = 0; j < 2; j++) {
                                int64_t at = least(r + i + j, rows - 1), empty[2] = {0, 0};
                                float *own = scores + (i + j) * wide;
                                __m512 sum = _mm512_setzero_ps();
                                blank(own, begin, end, r + i + j < rows ? run + 2 * at : empty);
                                for (int64_t k = 0; k < size; k += LANES) {
                                    const void *one = given + at * change->row + k, *two = result + at * mixed->row + k;
                                    __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(one));
                                    __m512i y = _mm512_cvtepu16_epi32(_mm256_loadu_si256(two));
                                    sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                                                          _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), sum);
                                }
                                total[j] = _mm512_set1_ps(_mm512_reduce_add_ps(sum));
                                less[j] = _mm512_set1_ps(normaliser[(b * count + h) * rows + at] * 1.44269504f);
                            }
                            __m512 factor = _mm512_set1_ps(scale * 1.44269504f), times = _mm512_set1_ps(scale);
                            memset(place + left, 0, (begin - left) * sizeof *place);
                            memset(slope + left, 0, (begin - left) * sizeof *slope);
                            memset(place + end, 0, (right + GROUP - end) * sizeof *place);
                            memset(slope + end, 0, (right + GROUP - end) * sizeof *slope);
                            for (int64_t c = begin; c < end; c += LANES) {
                                __m512i both[2], turns[2];
                                for (int64_t j = 0; j < 2; j++) {
                                    __m512 weight = _mm512_loadu_ps(scores + (i + j) * wide + c);
                                    __m512 part = _mm512_loadu_ps(parts + (i + j) * wide + c);
                                    weight = power(_mm512_fmsub_ps(weight, factor, less[j]));
                                    part = _mm512_mul_ps(_mm512_sub_ps(part, total[j]), _mm512_mul_ps(weight, times));
                                    __m256i narrow = (__m256i)_mm512_cvtneps_pbh(part);
                                    _mm256_storeu_si256((void *)(own_slopes + (i + j) * wide + c), narrow);
                                    both[j] = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(weight));
                                    turns[j] = _mm512_cvtepu16_epi32(narrow);
                                }
                                both[0] = _mm512_or_si512(both[0], _mm512_slli_epi32(both[1], 16));
                                turns[0] = _mm512_or_si512(turns[0], _mm512_slli_epi32(turns[1], 16));
                                _mm512_storeu_si512(place + c, both[0]);
                                _mm512_storeu_si512(slope + c, turns[0]);
                            }
                        }
                        for (int64_t i = 0; i < GROUP; i++) row[i] = (const pair *)(own_slopes + i * wide + begin);
                        for (int64_t k = 0; k < size; k += PANEL)
                            tile(row, 1, turned + k * wide / 2 + begin / 2 * PANEL, (end - begin) / 2, mean + k, size, 0);
                        for (int64_t i = 0; i < last - r; i++)
                            put(of_query->data + b * of_query->batch + h * of_query->head + (r + i) * of_query->row,
                                mean + i * size, size, 1.0f);
                    }
                    for (int64_t c = left; c < least(right, columns); c += GROUP)
                        for (int64_t k = 0; k < size; k += PANEL) {
                            const pair *row[GROUP];
                            for (int64_t i = 0; i < GROUP; i++) row[i] = weights + c + i;
                            tile(row, room, second + k * high / 2, high / 2, others + c * size + k, size, 1);
                            for (int64_t i = 0; i < GROUP; i++) row[i] = slopes + c + i;
                            tile(row, room, first + k * high / 2, high / 2, sums + c * size + k, size, 1);
                        }
                }
            for (int64_t s = 0; s < columns; s++) {
                put(of_key->data + b * of_key->batch + g * of_key->head + s * of_key->row, sums + s * size, size, 1.0f);
                put(of_value->data + b * of_value->batch + g * of_value->head + s * of_value->row, others + s * size,
                    size, 1.0f);
            }
        }
        free(keys), free(first), free(sums), free(scores), free(mean);
    }
    return failed;
}
