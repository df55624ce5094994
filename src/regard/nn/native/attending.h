/* Attention of a pass: what its instructions say, one query at a time or, where a text has many new tokens, 192 of them
 * by 128 keys, with the softmax carried along the keys as in FlashAttention (arXiv:2205.14135, algorithm 1). Where keys
 * and values are kept in bfloat16, such queries and weights are rounded to it too; else all is in single precision.
 */
#include <math.h>
#include <string.h>

#include "norms.h"
#include "products.h"

enum { ROUND, PRODUCT, LAYER_NORM, RMS_NORM, ADD, ATTEND };
enum { MOST = 256, KEYS = 64, PATIENCE = 4096 };  /* numbers of a head; keys at a time; looks before others may run */
enum { ROWS = 32 * GROUP, SLOTS = 128 };           /* of attention with many queries: queries and keys at a time */

/* Where a layer's keys and values lie: numbers from a text, a head and a slot to the next. Slot `first` is the first one
 * that is there. */
typedef struct {
    void *keys, *values;
    int64_t text_step, head_step, slot_step, first, is_half;
} Cache;

/* What attention knows of a pass; one for all layers that see alike. */
typedef struct {
    const uint8_t *allowed;       /* (B, S) which keys are real; may be null */
    const float *cosines, *sines; /* (B or 1, T, K); may be null */
    const float *bias;            /* (B or 1, H, T, S); may be null */
    int64_t allowed_step, turn_step, bias_step, bias_rows, bias_columns;
    int64_t keys, window, causal; /* slots in all, unless a text sees its own; how far a query sees, 0: all; whether only back */
} View;

typedef struct {
    int32_t kind, sync;
    Product product;
    const float *in;
    const float *key, *value, *query_gain, *key_gain; /* of attention; key is null where nothing is new */
    Cache *cache;
    const View *view;
    int64_t heads, groups, size;
    float eps, gain_offset, scale, softcap, key_eps, key_gain_offset;
} Instruction;

/* Texts with `fresh` new tokens each from slot `start` on; or packed, text b being the rows starts[b] to starts[b + 1]. */
typedef struct {
    int64_t batch, fresh, start, threads;
    const int64_t *starts;
    char *room; /* of rounded rows */
} Pass;

/* Copy a head's numbers, with its norm and its turn by the position's angles. */
static void ready(const float *x, float *out, int64_t size, const float *gain, float offset, float eps, const float *cosines,
                  const float *sines) {
    float plain[MOST];
    if (gain) rms_norm(x, plain, size, gain, offset, eps); else memcpy(plain, x, size * sizeof *x);
    if (!cosines) { memcpy(out, plain, size * sizeof *x); return; }
    for (int64_t k = 0; k < size / 2; k++) {
        int64_t far = k + size / 2;
        out[k] = plain[k] * cosines[k] - plain[far] * sines[k];
        out[far] = plain[far] * cosines[far] + plain[k] * sines[far];
    }
}

static void keep(const float *x, char *to, int64_t size, int is_half) {
    if (!is_half) { memcpy(to, x, size * sizeof *x); return; }
    for (int64_t k = 0; k < size; k += LANES) {
        __mmask16 some = lanes(size - k);
        _mm256_mask_storeu_epi16((half *)to + k, some, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, x + k)));
    }
}

static inline __m512 take(const char *x, int64_t at, __mmask16 some, int is_half) {
    return is_half ? load_half((const half *)x + at, some) : _mm512_maskz_loadu_ps(some, (const float *)x + at);
}

/* What one query of a text sees: the slots [low, high). */
typedef struct { int64_t low, high; } Run;

static inline Run run_of(const Instruction *i, const Pass *pass, int64_t fresh, int64_t t) {
    const View *view = i->view;
    int64_t own = pass->start + t;
    Run run = {0, view->causal ? own + 1 : i->key ? fresh : view->keys};
    if (view->window && own - view->window + 1 > run.low) run.low = own - view->window + 1;
    if (view->window && own + view->window < run.high) run.high = own + view->window;
    return run;
}

/* Mix the values of a run of slots for one query; `parts` registers hold a head. */
static inline __attribute__((always_inline)) void mix(const Instruction *i, const float *query, const char *keys,
    const char *values, const uint8_t *allowed, const float *bias, Run run, int parts, int is_half, float *out) {
    const Cache *c = i->cache;
    int64_t size = i->size, step = c->slot_step * (is_half ? 2 : 4);
    __mmask16 rest = lanes(size - (parts - 1) * LANES);
    __m512 sum[MOST / LANES], q[MOST / LANES];
    for (int n = 0; n < parts; n++) {
        sum[n] = _mm512_setzero_ps();
        q[n] = _mm512_maskz_loadu_ps(n + 1 < parts ? 0xFFFF : rest, query + n * LANES);
    }
    float most = -INFINITY, total = 0;
    for (int64_t s = run.low; s < run.high; s += KEYS) {
        float scores[KEYS] __attribute__((aligned(64)));
        int count = run.high - s < KEYS ? (int)(run.high - s) : KEYS;
        for (int j = 0; j < count; j += 4) {
            __m512 dot[4];
            for (int m = 0; m < 4; m++) {
                int64_t slot = s + (j + m < count ? j + m : count - 1) - c->first;
                dot[m] = _mm512_setzero_ps();
                for (int n = 0; n < parts; n++)
                    dot[m] = _mm512_fmadd_ps(take(keys + slot * step, n * LANES, n + 1 < parts ? 0xFFFF : rest, is_half), q[n], dot[m]);
            }
            _mm_store_ps(scores + j, sums_of_four(dot[0], dot[1], dot[2], dot[3]));
        }
        __m512 best = set(-INFINITY);
        for (int j = 0; j < count; j += LANES) {
            __mmask16 some = lanes(count - j);
            __m512 x = _mm512_load_ps(scores + j);
            if (i->softcap > 0) x = _mm512_mul_ps(set(i->softcap), tangent(_mm512_div_ps(x, set(i->softcap))));
            if (bias) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(some, bias + s + j));
            if (allowed) some &= _mm_test_epi8_mask(_mm_maskz_loadu_epi8(some, allowed + s + j), _mm_set1_epi8(-1));
            x = _mm512_mask_mov_ps(set(-INFINITY), some, x);
            _mm512_store_ps(scores + j, x);
            best = _mm512_max_ps(best, x);
        }
        float higher = _mm512_reduce_max_ps(best);
        if (higher == -INFINITY) continue;
        if (higher > most) {
            float shrink = most == -INFINITY ? 0.0f : expf(most - higher);
            for (int n = 0; n < parts; n++) sum[n] = _mm512_mul_ps(sum[n], set(shrink));
            total *= shrink;
            most = higher;
        }
        __m512 part = _mm512_setzero_ps();
        for (int j = 0; j < count; j += LANES) {
            __m512 x = _mm512_load_ps(scores + j);
            __mmask16 some = _mm512_cmp_ps_mask(x, set(-INFINITY), _CMP_NEQ_UQ);
            x = _mm512_maskz_mov_ps(some, exponential(_mm512_sub_ps(x, set(most))));
            _mm512_store_ps(scores + j, x);
            part = _mm512_add_ps(part, x);
        }
        total += _mm512_reduce_add_ps(part);
        for (int j = 0; j < count; j++) {
            if (scores[j] == 0) continue;
            __m512 weight = set(scores[j]);
            const char *row = values + (s + j - c->first) * step;
            for (int n = 0; n < parts; n++)
                sum[n] = _mm512_fmadd_ps(take(row, n * LANES, n + 1 < parts ? 0xFFFF : rest, is_half), weight, sum[n]);
        }
    }
    __m512 over = set(total == 0 ? 0.0f : 1.0f / total);
    for (int n = 0; n < parts; n++)
        _mm512_mask_storeu_ps(out + n * LANES, n + 1 < parts ? 0xFFFF : rest, _mm512_mul_ps(sum[n], over));
}

/* ---- many queries of one head at once ---- */

/* out (6, 16 n), its rows `out_step` apart, += six rows times a panel (depth, step). */
static inline __attribute__((always_inline)) void mix_tile(const float *const *row, const float *panel, int64_t step,
                                                           int64_t depth, int n, float *out, int64_t out_step) {
    __m512 sum[GROUP][4];
    const float *a = row[0], *b = row[1], *c = row[2], *d = row[3], *e = row[4], *f = row[5];
    for (int r = 0; r < GROUP; r++) for (int j = 0; j < n; j++) sum[r][j] = _mm512_loadu_ps(out + r * out_step + j * LANES);
    for (int64_t k = 0; k < depth; k++, panel += step) {
        __m512 column[4];
        for (int j = 0; j < n; j++) column[j] = _mm512_loadu_ps(panel + j * LANES);
        const float own[GROUP] = {a[k], b[k], c[k], d[k], e[k], f[k]};
        for (int r = 0; r < GROUP; r++) for (int j = 0; j < n; j++) sum[r][j] = _mm512_fmadd_ps(set(own[r]), column[j], sum[r][j]);
    }
    for (int r = 0; r < GROUP; r++) for (int j = 0; j < n; j++) _mm512_storeu_ps(out + r * out_step + j * LANES, sum[r][j]);
}

/* The same for any number of columns, a multiple of 16. */
static void mix_rows(const float *const *row, const float *panel, int64_t step, int64_t depth, int64_t columns, float *out,
                     int64_t out_step) {
    int64_t c = 0;
    for (; c + 64 <= columns; c += 64) mix_tile(row, panel + c, step, depth, 4, out + c, out_step);
    switch ((columns - c) / LANES) {
        case 1: mix_tile(row, panel + c, step, depth, 1, out + c, out_step); break;
        case 2: mix_tile(row, panel + c, step, depth, 2, out + c, out_step); break;
        case 3: mix_tile(row, panel + c, step, depth, 3, out + c, out_step); break;
    }
}

/* Scores of one query become weights, blank outside [low, high); the largest and the total of what came before are kept,
 * and the sums of values with them. `scores` are of the slots from s on; weights take their place, or go to `weights`. */
static void soften(const Instruction *i, float *scores, int64_t s, int64_t wide, int64_t low, int64_t high,
                   const uint8_t *allowed, const float *bias, float *most, float *total, float *sums, int64_t width, half *weights) {
    __m512 best = set(-INFINITY), part = _mm512_setzero_ps();
    for (int64_t j = 0; j < wide; j += LANES) {
        __mmask16 some = lanes(high - s - j < 0 ? 0 : high - s - j) & ~lanes(low - s - j < 0 ? 0 : low - s - j);
        __m512 x = _mm512_loadu_ps(scores + j);
        if (i->softcap > 0) x = _mm512_mul_ps(set(i->softcap), tangent(_mm512_div_ps(x, set(i->softcap))));
        if (bias) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(some, bias + s + j));
        if (allowed) some &= _mm_test_epi8_mask(_mm_maskz_loadu_epi8(some, allowed + s + j), _mm_set1_epi8(-1));
        x = _mm512_mask_mov_ps(set(-INFINITY), some, x);
        _mm512_storeu_ps(scores + j, x);
        best = _mm512_max_ps(best, x);
    }
    float higher = _mm512_reduce_max_ps(best);
    if (higher > *most) {
        float shrink = *most == -INFINITY ? 0.0f : expf(*most - higher);
        for (int64_t k = 0; k < width && *total > 0; k += LANES)
            _mm512_storeu_ps(sums + k, _mm512_mul_ps(_mm512_loadu_ps(sums + k), set(shrink)));
        *total *= shrink;
        *most = higher;
    }
    for (int64_t j = 0; j < wide; j += LANES) {
        __m512 x = _mm512_loadu_ps(scores + j);
        __mmask16 some = _mm512_cmp_ps_mask(x, set(-INFINITY), _CMP_NEQ_UQ);
        x = _mm512_maskz_mov_ps(some, exponential(_mm512_sub_ps(x, set(*most))));
        if (weights) _mm256_storeu_si256((__m256i *)(weights + j), (__m256i)_mm512_cvtneps_pbh(x));
        else _mm512_storeu_ps(scores + j, x);
        part = _mm512_add_ps(part, x);
    }
    *total += _mm512_reduce_add_ps(part);
}

/* Lay out the slots [s, s + count): keys as (size, SLOTS), values as (SLOTS, width), zeros where nothing may be seen. */
static void lay_slots_out(const Instruction *i, const char *keys, const char *values, const uint8_t *allowed, int64_t s,
                          int64_t count, int64_t width, float *near, float *far) {
    const Cache *c = i->cache;
    for (int64_t j = 0; j < count; j += LANES)
        for (int64_t k = 0; k < width; k += LANES) {
            __m512i some[LANES];
            __mmask16 there = lanes(i->size - k);
            for (int64_t n = 0; n < LANES; n++) {
                int is_there = j + n < count && (!allowed || allowed[s + j + n]);
                int64_t at = (s + j + n - c->first) * c->slot_step + k;
                some[n] = is_there ? _mm512_castps_si512(take(keys, at, there, (int)c->is_half)) : _mm512_setzero_si512();
                __m512 value = is_there ? take(values, at, there, (int)c->is_half) : _mm512_setzero_ps();
                _mm512_storeu_ps(far + (j + n) * width + k, value);
            }
            turn(some);
            for (int64_t n = 0; n < LANES; n++) _mm512_storeu_si512(near + (k + n) * SLOTS + j, some[n]);
        }
}

/* The same as pairs of bfloat16, keys along the size, (SLOTS / 64, size / 2, 64), and values along the slots, (size / 64,
 * SLOTS / 2, 64). */
static void lay_pairs_out(const Instruction *i, const half *keys, const half *values, const uint8_t *allowed, int64_t s,
                          int64_t count, pair *near, pair *far) {
    const Cache *c = i->cache;
    const half *place[LANES];
    for (int64_t j = 0; j < count; j += LANES) {
        for (int64_t n = 0; n < LANES; n++)
            place[n] = j + n < count && (!allowed || allowed[s + j + n]) ? keys + (s + j + n - c->first) * c->slot_step : 0;
        for (int64_t k = 0; k < i->size / 2; k += LANES) {
            __m512i some[LANES];
            for (int n = 0; n < LANES; n++) some[n] = place[n] ? _mm512_loadu_si512(place[n] + 2 * k) : _mm512_setzero_si512();
            turn(some);
            pair *to = near + (j / PANEL * i->size / 2 + k) * PANEL + j % PANEL;
            for (int n = 0; n < LANES; n++) _mm512_storeu_si512(to + n * PANEL, some[n]);
        }
        for (int n = 0; n < LANES; n += 2)
            for (int64_t k = 0; k < i->size; k += LANES) {
                __m512i both[2];
                for (int m = 0; m < 2; m++)
                    both[m] = !place[n + m] ? _mm512_setzero_si512()
                        : _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(values + (place[n + m] - keys) + k)));
                pair *to = far + (k / PANEL * SLOTS / 2 + (j + n) / 2) * PANEL + k % PANEL;
                _mm512_storeu_si512(to, _mm512_or_si512(both[0], _mm512_slli_epi32(both[1], 16)));
            }
    }
}

/* Mix values for up to ROWS queries (rows, width) of a head that are `ready`, from the text's t-th on; `out` are theirs. */
static void mix_many(const Instruction *i, const Pass *pass, const float *queries, int64_t fresh, int64_t t, int64_t rows,
                     const char *keys, const char *values, const uint8_t *allowed, const float *bias, float *out) {
    int64_t width = (i->size + LANES - 1) / LANES * LANES, low = run_of(i, pass, fresh, t).low;
    int64_t high = run_of(i, pass, fresh, t + rows - 1).high;
    int in_pairs = i->cache->is_half && i->size % PANEL == 0;
    float near[width * SLOTS], far[SLOTS * width], sums[ROWS * width], scores[GROUP * SLOTS], most[ROWS], total[ROWS];
    half weights[GROUP * SLOTS], rounded_queries[in_pairs ? ROWS * width : 1];
    for (int64_t k = 0; in_pairs && k < rows * width; k += LANES)
        _mm256_storeu_si256((__m256i *)(rounded_queries + k), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(queries + k)));
    memset(sums, 0, sizeof sums);
    for (int64_t r = 0; r < ROWS; r++) most[r] = -INFINITY, total[r] = 0;
    for (int64_t s = low; s < high; s += SLOTS) {
        int64_t count = high - s < SLOTS ? high - s : SLOTS;
        if (in_pairs) lay_pairs_out(i, (const half *)keys, (const half *)values, allowed, s, count, (pair *)near, (pair *)far);
        else lay_slots_out(i, keys, values, allowed, s, count, width, near, far);
        for (int64_t r = 0; r < rows; r += GROUP) {
            int64_t last = r + GROUP < rows ? r + GROUP : rows, end = run_of(i, pass, fresh, t + last - 1).high - s;
            const float *row[GROUP];
            const pair *pairs[GROUP];
            if (end <= 0 || run_of(i, pass, fresh, t + r).low >= s + count) continue;
            end = ((end < count ? end : count) + LANES - 1) / LANES * LANES;
            for (int64_t n = 0; n < GROUP; n++) {
                int64_t at = (r + n < rows ? r + n : rows - 1) * width;
                row[n] = queries + at, pairs[n] = (const pair *)(rounded_queries + (in_pairs ? at : 0));
            }
            if (!in_pairs) {
                memset(scores, 0, sizeof scores);
                mix_rows(row, near, SLOTS, i->size, end, scores, SLOTS);
            }
            for (int64_t c = 0; in_pairs && c < end; c += PANEL)
                tile(pairs, 1, (pair *)near + c * i->size / 2, i->size / 2, scores + c, SLOTS, 0);
            for (int64_t n = r; n < last; n++) {
                Run run = run_of(i, pass, fresh, t + n);
                soften(i, scores + (n - r) * SLOTS, s, end, run.low, run.high, allowed,
                       bias ? bias + n * i->view->bias_columns : 0, most + n, total + n, sums + n * width, width,
                       in_pairs ? weights + (n - r) * SLOTS : 0);
            }
            for (int64_t n = 0; n < GROUP; n++) { /* behind the last row there are no weights: its own again */
                int64_t at = (r + n < last ? n : last - r - 1) * SLOTS;
                row[n] = scores + at, pairs[n] = (const pair *)(weights + at);
            }
            if (!in_pairs) mix_rows(row, far, width, end, width, sums + r * width, width);
            for (int64_t k = 0; in_pairs && k < width; k += PANEL)
                tile(pairs, 1, (pair *)far + k * SLOTS / 2, end / 2, sums + r * width + k, width, 1);
        }
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < width; k += LANES) {
            __m512 over = set(total[r] == 0 ? 0.0f : 1.0f / total[r]);
            _mm512_mask_storeu_ps(out + r * i->heads * i->size + k, lanes(i->size - k),
                                  _mm512_mul_ps(_mm512_loadu_ps(sums + r * width + k), over));
        }
}

/* All queries of one text that share a head of keys; its new keys and values are kept first. */
static void attend(const Instruction *i, const Pass *pass, int64_t text, int64_t group) {
    const View *view = i->view;
    const Cache *c = i->cache;
    int64_t size = i->size, width = c->is_half ? 2 : 4;
    int64_t begin = pass->starts ? pass->starts[text] : text * pass->fresh;
    int64_t fresh = pass->starts ? pass->starts[text + 1] - begin : pass->fresh;
    int64_t at = ((pass->starts ? begin * c->slot_step : text * c->text_step) + group * c->head_step) * width;
    char *keys = (char *)c->keys + at, *values = (char *)c->values + at;
    const float *cosines = view->cosines ? view->cosines + text * view->turn_step : 0;
    const float *sines = view->sines ? view->sines + text * view->turn_step : 0;
    float turned[MOST];
    for (int64_t t = 0; i->key && t < fresh; t++) {
        int64_t row = ((begin + t) * i->groups + group) * size, slot = (pass->start + t - c->first) * c->slot_step * width;
        ready(i->key + row, turned, size, i->key_gain, i->key_gain_offset, i->key_eps, cosines ? cosines + t * size : 0,
              sines ? sines + t * size : 0);
        keep(turned, keys + slot, size, c->is_half);
        if (i->value) keep(i->value + row, values + slot, size, c->is_half);
    }
    const uint8_t *allowed = view->allowed ? view->allowed + text * view->allowed_step : 0;
    int64_t at_once = fresh < GROUP ? 1 : ROWS, padded = (size + LANES - 1) / LANES * LANES;
    float queries[at_once * padded];
    for (int64_t head = group * (i->heads / i->groups); head < (group + 1) * (i->heads / i->groups); head++)
        for (int64_t first = 0; first < fresh; first += at_once) {
            int64_t rows = fresh - first < at_once ? fresh - first : at_once;
            float *out = i->product.out + ((begin + first) * i->heads + head) * size;
            const float *bias = view->bias ? view->bias + text * view->bias_step + (head * view->bias_rows + first) * view->bias_columns : 0;
            for (int64_t r = 0; r < rows; r++) {
                int64_t t = first + r;
                ready(i->in + ((begin + t) * i->heads + head) * size, queries + r * padded, size, i->query_gain, i->gain_offset,
                      i->eps, cosines ? cosines + t * size : 0, sines ? sines + t * size : 0);
                for (int64_t k = 0; k < size; k++) queries[r * padded + k] *= i->scale;
            }
            if (at_once > 1) {
                mix_many(i, pass, queries, fresh, first, rows, keys, values, allowed, bias, out);
                continue;
            }
            Run run = run_of(i, pass, fresh, first);
            #define TRY(parts) case parts: \
                if (c->is_half) mix(i, queries, keys, values, allowed, bias, run, parts, 1, out); \
                else mix(i, queries, keys, values, allowed, bias, run, parts, 0, out); \
                break;
            switch ((size + LANES - 1) / LANES) {
                TRY(1) TRY(2) TRY(3) TRY(4) TRY(5) TRY(6) TRY(8) TRY(16)
                default: mix(i, queries, keys, values, allowed, bias, run, (int)(padded / LANES), c->is_half, out);
            }
            #undef TRY
        }
}
