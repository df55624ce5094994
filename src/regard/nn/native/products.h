/* Products of rows of numbers by the weights of a linear layer, which are kept in 32, 16, 8 or 4 bits.
 *
 *     y = x W^T + b,  then perhaps an activation, perhaps times another row of numbers, perhaps plus a third
 *
 * Weights of 32 and 16 bits (bfloat16) are as torch keeps them, (N, K). Those of 8 and 4 bits lie in strips: sixteen
 * rows side by side, so that each lane sums up one of them, (N / 16, K / c, 16) of
 *
 *     8 bits  fours of neighbouring columns, 128 added; one scale a row
 *     4 bits  two such fours in one, columns k and k + 16 of each 32, 8 added; a bfloat16 scale a row and 32 columns
 *
 * and x is rounded to 8 bits too, with a scale for each 32 columns, or 128 where weights of 8 bits have so many: K is a
 * multiple of 32. With 16 bits x is rounded to bfloat16. Sums are in single precision.
 */
#include <math.h>

#include "panels.h"

enum { SPAN = 32, WIDE = 128, TILE = 4, AT_ONCE = 8, BLOCK = 48, FEW = 16, NEAR = 384 << 10 };
enum { STRIPS = PANEL / LANES, DEEPEST = 4096, SHARE = 32 * GROUP };  /* of many rows: columns and rows at a time */

typedef struct {
    const void *weights, *scales;
    const float *bias, *times, *plus;
    float *out;
    int64_t width, columns, out_step;  /* numbers from a row of out, times and plus to the next */
    int bits, activation;
} Product;

/* x as the weights want it: (R, K) in 32 or 16 bits, or in 8 with the scale and the sum of each span. */
typedef struct {
    const void *numbers;
    const float *scales;
    const int32_t *sums;
} Rows;

/* Give the columns that share a scale of x. */
static inline int64_t span_of(int bits, int64_t columns) { return bits == 8 && columns % WIDE == 0 ? WIDE : SPAN; }

/* Give the bytes that `round_row` needs for each row of so many columns. */
static inline int64_t rounded_bytes(int bits, int64_t columns) {
    return bits == 32 ? 0 : bits == 16 ? columns * 2 : columns + columns / SPAN * 8;
}

static inline Rows rounded(int bits, const float *x, char *room, int64_t rows, int64_t columns) {
    int64_t spans = columns / SPAN;
    if (bits == 32) return (Rows){x, 0, 0};
    return (Rows){room, (float *)(room + rows * columns), (int32_t *)(room + rows * (columns + spans * 4))};
}

/* Round one row of x to what the weights are multiplied with. */
static inline void round_row(int bits, const float *x, Rows to, int64_t row, int64_t columns) {
    if (bits == 16) {
        half *place = (half *)to.numbers + row * columns;
        for (int64_t k = 0; k < columns; k += LANES) {
            __mmask16 some = lanes(columns - k);
            _mm256_mask_storeu_epi16(place + k, some, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, x + k)));
        }
    } else if (bits < 16) {
        int8_t *place = (int8_t *)to.numbers + row * columns;
        int64_t span = span_of(bits, columns), spans = columns / span;
        for (int64_t s = 0; s < spans; s++, x += span, place += span) {
            __m512 largest = _mm512_setzero_ps();
            __mmask16 none = 0;
            for (int64_t k = 0; k < span; k += LANES) {
                __m512 part = _mm512_loadu_ps(x + k);
                none |= _mm512_cmp_ps_mask(part, part, _CMP_UNORD_Q);
                largest = _mm512_max_ps(largest, _mm512_abs_ps(part));
            }
            float most = _mm512_reduce_max_ps(largest);
            __m512 times = set(most > 0 ? 127.0f / most : 0.0f);
            __m512i sum = _mm512_setzero_si512();
            for (int64_t k = 0; k < span; k += LANES) {
                __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + k), times));
                _mm_storeu_si128((__m128i *)(place + k), _mm512_cvtepi32_epi8(whole));
                sum = _mm512_add_epi32(sum, whole);
            }
            ((float *)to.scales)[row * spans + s] = none ? NAN : most / 127.0f;
            ((int32_t *)to.sums)[row * spans + s] = _mm512_reduce_add_epi32(sum);
        }
    }
}

/* Leave sixteen sums of a row at out[row][first ..], with what comes after them. */
static inline void leave(const Product *p, int64_t row, int64_t first, __m512 sum) {
    __mmask16 some = lanes(p->width - first);
    int64_t at = row * p->out_step + first;
    if (p->bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(some, p->bias + first));
    if (p->activation) sum = activate(sum, p->activation);
    if (p->times) sum = _mm512_mul_ps(sum, _mm512_maskz_loadu_ps(some, p->times + at));
    if (p->plus) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(some, p->plus + at));
    _mm512_mask_storeu_ps(p->out + at, some, sum);
}

/* Sum up the lanes of four registers: one number of each. */
static inline __m128 sums_of_four(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    __m256 halves = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

/* ---- 32 and 16 bits: four rows of W by one to four rows of x ----
 *
 * Weights that come from memory are read row after row: one stream is fetched ahead twice as fast as four. Once they
 * are near, the four rows are taken side by side, so that each number of x is loaded once for all. Both add in one order:
 * a row gives the same numbers alone and among others.
 */

#define TILE_OF(NAME, TYPE, STEP, REGISTER, LOAD, REST, ADD)                                                           \
    static inline __attribute__((always_inline)) void NAME(const TYPE *x, const TYPE *w, int64_t columns, int rows,     \
                                                           int64_t near, int streams, float (*out)[LANES]) {           \
        __m512 sum[TILE][TILE];                                                                                        \
        int64_t k = 0, whole = columns / STEP * STEP;                                                                  \
        if (streams == 1)                                                                                              \
            for (int n = 0; n < TILE; n++) {                                                                           \
                for (int r = 0; r < rows; r++) sum[r][n] = _mm512_setzero_ps();                                        \
                for (k = 0; k < whole; k += STEP) {                                                                    \
                    REGISTER column = LOAD(w + n * near + k);                                                          \
                    for (int r = 0; r < rows; r++) sum[r][n] = ADD(sum[r][n], LOAD(x + r * columns + k), column);      \
                }                                                                                                      \
            }                                                                                                          \
        else {                                                                                                         \
            for (int r = 0; r < rows; r++) for (int n = 0; n < TILE; n++) sum[r][n] = _mm512_setzero_ps();             \
            for (k = 0; k < whole; k += STEP) {                                                                        \
                REGISTER column[TILE];                                                                                 \
                for (int n = 0; n < TILE; n++) column[n] = LOAD(w + n * near + k);                                     \
                for (int r = 0; r < rows; r++) {                                                                       \
                    REGISTER row = LOAD(x + r * columns + k);                                                          \
                    for (int n = 0; n < TILE; n++) sum[r][n] = ADD(sum[r][n], row, column[n]);                         \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        if (whole < columns)                                                                                           \
            for (int r = 0; r < rows; r++)                                                                             \
                for (int n = 0; n < TILE; n++)                                                                         \
                    sum[r][n] = ADD(sum[r][n], REST(x + r * columns + whole, columns - whole),                         \
                                    REST(w + n * near + whole, columns - whole));                                      \
        for (int r = 0; r < rows; r++)                                                                                 \
            _mm_storeu_ps(out[r], sums_of_four(sum[r][0], sum[r][1], sum[r][2], sum[r][3]));                           \
    }

#define REST32(x, count) _mm512_maskz_loadu_ps(lanes(count), x)
#define ADD32(sum, x, w) _mm512_fmadd_ps(x, w, sum)
#define LOAD16(x) ((__m512bh)_mm512_loadu_si512(x))
#define REST16(x, count) ((__m512bh)_mm512_maskz_loadu_epi16((__mmask32)((1ull << (count)) - 1), x))
TILE_OF(tile32, float, 16, __m512, _mm512_loadu_ps, REST32, ADD32)
TILE_OF(tile16, half, 32, __m512bh, LOAD16, REST16, _mm512_dpbf16_ps)

/* Sixteen outputs from `first` on, of up to BLOCK rows from `begin` on. Beyond the last row of W the last four that
 * are whole (or, with fewer than four, the same one again) are taken in their stead, and not kept. */
static inline void sixteen(const Product *p, Rows x, int64_t begin, int64_t rows, int64_t first, int from_memory) {
    float sums[BLOCK][LANES];
    for (int n = 0; n < LANES && first + n < p->width; n += TILE) {
        int64_t from = first + n, near = p->columns;
        float spare[TILE][LANES];
        int whole = from + TILE <= p->width;
        for (int64_t r = 0; r < rows; r += TILE) {
            int some = rows - r < TILE ? (int)(rows - r) : TILE;
            for (int m = 0; m < (whole ? 1 : (int)(p->width - from)); m++) {
                float (*out)[LANES] = whole ? (float (*)[LANES])&sums[r][n] : spare;
                int64_t w = (from + m) * near, step = whole ? near : 0;
                int streams = r == 0 && from_memory ? 1 : TILE;
                #define TAKE(tile, type, count, streams) \
                    tile((const type *)x.numbers + (begin + r) * near, (const type *)p->weights + w, near, count, step, streams, out)
                #define TRY(count) \
                    case count: if (p->bits == 32) TAKE(tile32, float, count, TILE); else TAKE(tile16, half, count, TILE); break; \
                    case -count: if (p->bits == 32) TAKE(tile32, float, count, 1); else TAKE(tile16, half, count, 1); break;
                switch (streams == 1 ? -some : some) { TRY(1) TRY(2) TRY(3) TRY(4) }
                #undef TRY
                #undef TAKE
                if (!whole) for (int i = 0; i < some; i++) sums[r + i][n + m] = spare[i][0];
            }
        }
    }
    for (int64_t r = 0; r < rows; r++) leave(p, begin + r, first, _mm512_loadu_ps(sums[r]));
}

/* sum += weights . numbers, four products of bytes a lane: written out, as compilers move sums about between registers
 * otherwise. */
static inline __m512i add_four(__m512i sum, __m512i weights, __m512i numbers) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(numbers));
    return sum;
}

/* The same with four numbers in memory, the same ones for each lane. */
static inline __m512i add_fours(__m512i sum, __m512i weights, const int32_t *numbers) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*numbers));
    return sum;
}

/* ---- 8 and 4 bits: sixteen rows of W by one to eight rows of x ---- */

static inline __attribute__((always_inline)) void strip8(const Product *p, Rows x, int64_t begin, int rows, int64_t strip) {
    int64_t span = span_of(8, p->columns), spans = p->columns / span, fours = p->columns / 4;
    const uint8_t *from = (const uint8_t *)p->weights + strip * p->columns * LANES;
    const int32_t *numbers = (const int32_t *)x.numbers + begin * fours, *sums = x.sums + begin * spans;
    const float *scales = x.scales + begin * spans;
    __m512 sum[AT_ONCE];
    for (int r = 0; r < rows; r++) sum[r] = _mm512_setzero_ps();
    for (int64_t s = 0; s < spans; s++, from += span * LANES) {
        __m512i part[AT_ONCE];
        for (int r = 0; r < rows; r++) part[r] = _mm512_set1_epi32(-128 * sums[r * spans + s]);
        for (int64_t q = 0; q < span / 4; q++) {
            __m512i weights = _mm512_loadu_si512(from + q * 4 * LANES);
            for (int r = 0; r < rows; r++)
                part[r] = add_fours(part[r], weights, numbers + r * fours + s * (span / 4) + q);
        }
        for (int r = 0; r < rows; r++)
            sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[r]), set(scales[r * spans + s]), sum[r]);
    }
    __m512 factor = _mm512_loadu_ps((const float *)p->scales + strip * LANES);
    for (int r = 0; r < rows; r++) leave(p, begin + r, strip * LANES, _mm512_mul_ps(sum[r], factor));
}

static inline __attribute__((always_inline)) void strip4(const Product *p, Rows x, int64_t begin, int rows, int64_t strip) {
    int64_t spans = p->columns / SPAN, fours = p->columns / 4;
    const uint8_t *from = (const uint8_t *)p->weights + strip * p->columns / 2 * LANES;
    const half *factor = (const half *)p->scales + strip * spans * LANES;
    const int32_t *numbers = (const int32_t *)x.numbers + begin * fours, *sums = x.sums + begin * spans;
    const float *scales = x.scales + begin * spans;
    const __m512i low = _mm512_set1_epi8(15);
    __m512 sum[AT_ONCE];
    for (int r = 0; r < rows; r++) sum[r] = _mm512_setzero_ps();
    for (int64_t s = 0; s < spans; s++, from += SPAN / 2 * LANES, factor += LANES) {
        __m512i part[AT_ONCE];
        for (int r = 0; r < rows; r++) part[r] = _mm512_set1_epi32(-8 * sums[r * spans + s]);
        for (int q = 0; q < SPAN / 8; q++) {
            __m512i both = _mm512_loadu_si512(from + q * 4 * LANES);
            __m512i near = _mm512_and_si512(both, low), far = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
            for (int r = 0; r < rows; r++) {
                const int32_t *row = numbers + r * fours + s * (SPAN / 4) + q;
                part[r] = add_fours(add_fours(part[r], near, row), far, row + SPAN / 8);
            }
        }
        __m512 each = load_half(factor, 0xFFFF);
        for (int r = 0; r < rows; r++)
            sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[r]), _mm512_mul_ps(each, set(scales[r * spans + s])), sum[r]);
    }
    for (int r = 0; r < rows; r++) leave(p, begin + r, strip * LANES, sum[r]);
}

/* ---- many rows: 64 rows of W by six rows of x ---- */

/* Lay out 64 rows of W in 16 bits as pairs, (columns / 2, 64); zeros for rows beyond the last. */
static void lay_out(const Product *p, int64_t first, int64_t column, int64_t columns, pair *to) {
    for (int64_t k = 0; k < columns / 2; k += LANES)
        for (int64_t c = 0; c < PANEL; c += LANES) {
            __m512i some[LANES];
            for (int i = 0; i < LANES; i++) {
                int64_t row = first + c + i;
                const half *place = (const half *)p->weights + row * p->columns + column + 2 * k;
                some[i] = row < p->width ? _mm512_maskz_loadu_epi32(lanes(columns / 2 - k), place) : _mm512_setzero_si512();
            }
            turn(some);
            for (int i = 0; i < LANES && k + i < columns / 2; i++) _mm512_storeu_si512(to + (k + i) * PANEL + c, some[i]);
        }
}

/* 64 outputs from `first` on of the rows [begin, end), in 16 bits; columns come in pairs. */
static void panel16(const Product *p, Rows x, int64_t begin, int64_t end, int64_t first) {
    pair panel[DEEPEST / 2 * PANEL] __attribute__((aligned(64)));
    float sums[SHARE][PANEL] __attribute__((aligned(64)));
    const half *numbers = x.numbers;
    int64_t spans = (p->columns + DEEPEST - 1) / DEEPEST, span = (p->columns / 2 + spans - 1) / spans * 2;
    for (int64_t from = begin; from < end; from += SHARE) {
        int64_t rows = end - from < SHARE ? end - from : SHARE;
        for (int64_t k = 0; k < p->columns; k += span) {
            int64_t deep = p->columns - k < span ? p->columns - k : span;
            if (spans > 1 || from == begin) lay_out(p, first, k, deep, panel);
            for (int64_t r = 0; r < rows; r += GROUP) {
                const pair *row[GROUP];
                int64_t last = r + GROUP < rows ? r + GROUP : rows;
                for (int64_t i = 0; i < GROUP; i++)
                    row[i] = (const pair *)(numbers + (from + (r + i < rows ? r + i : rows - 1)) * p->columns + k);
                tile(row, 1, panel, deep / 2, sums[r], PANEL, k > 0);
                for (int64_t i = r; i < last && k + deep == p->columns; i++)
                    for (int64_t c = 0; c < PANEL && first + c < p->width; c += LANES)
                        leave(p, from + i, first + c, _mm512_load_ps(sums[i] + c));
            }
        }
    }
}

/* Four strips of weights in 8 bits by some rows of x. */
static inline __attribute__((always_inline)) void panel8(const Product *p, Rows x, int64_t begin, int rows, int64_t strip) {
    int64_t span = span_of(8, p->columns), spans = p->columns / span, fours = p->columns / 4, apart = p->columns * LANES;
    const uint8_t *from = (const uint8_t *)p->weights + strip * apart;
    const int32_t *numbers = (const int32_t *)x.numbers + begin * fours, *sums = x.sums + begin * spans;
    const float *scales = x.scales + begin * spans;
    __m512 sum[GROUP][STRIPS];
    for (int r = 0; r < rows; r++) for (int j = 0; j < STRIPS; j++) sum[r][j] = _mm512_setzero_ps();
    for (int64_t s = 0; s < spans; s++) {
        __m512i part[GROUP][STRIPS];
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < STRIPS; j++) part[r][j] = _mm512_set1_epi32(-128 * sums[r * spans + s]);
        for (int64_t q = s * (span / 4); q < (s + 1) * (span / 4); q++) {
            __m512i weights[STRIPS];
            for (int j = 0; j < STRIPS; j++) weights[j] = _mm512_loadu_si512(from + j * apart + q * 4 * LANES);
            for (int r = 0; r < rows; r++) {
                __m512i four = _mm512_set1_epi32(numbers[r * fours + q]);
                for (int j = 0; j < STRIPS; j++) part[r][j] = add_four(part[r][j], weights[j], four);
            }
        }
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < STRIPS; j++)
                sum[r][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[r][j]), set(scales[r * spans + s]), sum[r][j]);
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < STRIPS; j++) {
            __m512 factor = _mm512_loadu_ps((const float *)p->scales + (strip + j) * LANES);
            leave(p, begin + r, (strip + j) * LANES, _mm512_mul_ps(sum[r][j], factor));
        }
}

/* Tell whether so many rows are multiplied by panels. */
static inline int by_panels(const Product *p, int64_t rows) {
    return rows > FEW && (p->bits == 8 || (p->bits == 16 && p->columns % 2 == 0));
}

/* Multiply the rows [begin, end) of the `rows` of x by the weights' rows 16 first .. 16 last: as many of these at a time
 * as stay near while all rows of x come by. */
static void multiply_some(const Product *p, Rows x, int64_t rows, int64_t begin, int64_t end, int64_t first, int64_t last) {
    int64_t panel = NEAR / (LANES * p->columns * p->bits / 8) + 1, step;
    if (by_panels(p, rows) && p->bits == 16) {
        for (int64_t strip = first; strip < last; strip += STRIPS) panel16(p, x, begin, end, strip * LANES);
        return;
    }
    for (int64_t from = first; from < last; from += panel) {
        int64_t to = last - from < panel ? last : from + panel;
        for (int64_t block = begin; block < end; block += BLOCK) {
            int64_t stop = end - block < BLOCK ? end : block + BLOCK;
            for (int64_t strip = from; strip < to; strip += step) {
                step = 1;
                if (p->bits >= 16) {
                    sixteen(p, x, block, stop - block, strip * LANES, rows <= FEW);
                    continue;
                }
                #define TRY(count) case count: PART(count); break;
                if (by_panels(p, rows) && to - strip >= STRIPS) {
                    step = STRIPS;
                    #define PART(count) panel8(p, x, r, count, strip)
                    for (int64_t r = block; r < stop; r += GROUP)
                        switch (stop - r < GROUP ? (int)(stop - r) : GROUP) { TRY(1) TRY(2) TRY(3) TRY(4) TRY(5) TRY(6) }
                    #undef PART
                    continue;
                }
                #define PART(count) if (p->bits == 8) strip8(p, x, r, count, strip); else strip4(p, x, r, count, strip)
                for (int64_t r = block; r < stop; r += AT_ONCE)
                    switch (stop - r < AT_ONCE ? (int)(stop - r) : AT_ONCE) {
                        TRY(1) TRY(2) TRY(3) TRY(4) TRY(5) TRY(6) TRY(7) TRY(8)
                    }
                #undef PART
                #undef TRY
            }
        }
    }
}
