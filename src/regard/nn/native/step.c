/* One pass of a few rows through a stack of blocks, as a list of instructions that all threads go through together.
 *
 * Numbers between the instructions are in single precision, a row of them a token, text after text. An instruction with `sync` needs what those before it gave. What changes from step to step (where keys lie, how many there are) stands in places that instructions
 * point to.
 */
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "products.h"

enum { ROUND, PRODUCT, LAYER_NORM, RMS_NORM, ADD, ATTEND };
enum { MOST = 256, KEYS = 64, PATIENCE = 4096 };  /* numbers of a head; keys at a time; looks before others may run */

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

int usable(void) { return has_lanes(); }

/* Tell whether the processor has units for tiles, with which torch multiplies many rows faster than we do. */
int has_tiles(void) { return tiles_are_there(); }

static float length_of(const float *x, int64_t width, float eps) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < width; k += LANES) {
        __m512 part = _mm512_maskz_loadu_ps(lanes(width - k), x + k);
        sum = _mm512_fmadd_ps(part, part, sum);
    }
    return 1.0f / sqrtf(_mm512_reduce_add_ps(sum) / (float)width + eps);
}

static void rms_norm(const float *x, float *out, int64_t width, const float *gain, float offset, float eps) {
    __m512 times = set(length_of(x, width, eps));
    for (int64_t k = 0; k < width; k += LANES) {
        __mmask16 some = lanes(width - k);
        __m512 gains = _mm512_add_ps(_mm512_maskz_loadu_ps(some, gain + k), set(offset));
        _mm512_mask_storeu_ps(out + k, some, _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(some, x + k), times), gains));
    }
}

static void layer_norm(const float *x, float *out, int64_t width, const float *gain, const float *bias, float eps) {
    __m512 sum = _mm512_setzero_ps(), squares = sum;
    for (int64_t k = 0; k < width; k += LANES) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes(width - k), x + k));
    __m512 mean = set(_mm512_reduce_add_ps(sum) / (float)width);
    for (int64_t k = 0; k < width; k += LANES) {
        __mmask16 some = lanes(width - k);
        __m512 off = _mm512_maskz_sub_ps(some, _mm512_maskz_loadu_ps(some, x + k), mean);
        squares = _mm512_fmadd_ps(off, off, squares);
    }
    __m512 times = set(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)width + eps));
    for (int64_t k = 0; k < width; k += LANES) {
        __mmask16 some = lanes(width - k);
        __m512 y = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + k), mean), times);
        if (gain) y = _mm512_mul_ps(y, _mm512_maskz_loadu_ps(some, gain + k));
        if (bias) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(some, bias + k));
        _mm512_mask_storeu_ps(out + k, some, y);
    }
}

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

/* Mix the values of the slots [low, high) for one query; `parts` registers hold a head. */
static inline __attribute__((always_inline)) void mix(const Instruction *i, const float *query, const char *keys,
    const char *values, const uint8_t *allowed, const float *bias, int64_t low, int64_t high, int parts, int is_half, float *out) {
    const Cache *c = i->cache;
    int64_t size = i->size, step = c->slot_step * (is_half ? 2 : 4);
    __mmask16 rest = lanes(size - (parts - 1) * LANES);
    __m512 sum[MOST / LANES], q[MOST / LANES];
    for (int n = 0; n < parts; n++) {
        sum[n] = _mm512_setzero_ps();
        q[n] = _mm512_mul_ps(_mm512_maskz_loadu_ps(n + 1 < parts ? 0xFFFF : rest, query + n * LANES), set(i->scale));
    }
    float most = -INFINITY, total = 0;
    for (int64_t s = low; s < high; s += KEYS) {
        float scores[KEYS] __attribute__((aligned(64)));
        int count = high - s < KEYS ? (int)(high - s) : KEYS;
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
    for (int64_t head = group * (i->heads / i->groups); head < (group + 1) * (i->heads / i->groups); head++)
        for (int64_t t = 0; t < fresh; t++) {
            int64_t row = ((begin + t) * i->heads + head) * size;
            ready(i->in + row, turned, size, i->query_gain, i->gain_offset, i->eps, cosines ? cosines + t * size : 0,
                  sines ? sines + t * size : 0);
            int64_t own = pass->start + t, low = 0, high = view->causal ? own + 1 : i->key ? fresh : view->keys;
            if (view->window) {
                if (own - view->window + 1 > low) low = own - view->window + 1;
                if (own + view->window < high) high = own + view->window;
            }
            const float *bias = !view->bias ? 0 : view->bias + text * view->bias_step + (head * view->bias_rows + t) * view->bias_columns;
            float *out = i->product.out + row;
            #define TRY(parts) case parts: \
                if (c->is_half) mix(i, turned, keys, values, allowed, bias, low, high, parts, 1, out); \
                else mix(i, turned, keys, values, allowed, bias, low, high, parts, 0, out); \
                break;
            switch ((size + LANES - 1) / LANES) {
                TRY(1) TRY(2) TRY(3) TRY(4) TRY(5) TRY(6) TRY(8) TRY(16)
                default: mix(i, turned, keys, values, allowed, bias, low, high, (int)((size + LANES - 1) / LANES), c->is_half, out);
            }
            #undef TRY
        }
}

/* Work is shared in parts that whoever is free takes. Nobody waits for a thread, only for parts: where the machine lets
 * one of us sleep, the others go on without it. */
typedef struct {
    int64_t taken, done;
    char apart[48]; /* a cache line of its own */
} Progress;

enum { SHARES = 8 }; /* parts for each thread, so that they end at nearly the same time */

static int64_t rows_of(const Pass *pass) { return pass->starts ? pass->starts[pass->batch] : pass->batch * pass->fresh; }

/* What an instruction's parts are made of: strips of weights, heads of texts, or rows. */
static int64_t units(const Instruction *i, const Pass *pass) {
    if (i->kind == PRODUCT) return (i->product.width + LANES - 1) / LANES;
    return i->kind == ATTEND ? pass->batch * i->groups : rows_of(pass);
}

static int64_t parts(const Instruction *i, const Pass *pass) {
    int64_t all = units(i, pass), most = pass->threads == 1 ? 1 : SHARES * pass->threads;
    return all < most ? all : most;
}

static void execute(const Instruction *i, const Pass *pass, int64_t part, int64_t of) {
    const Product *p = &i->product;
    int64_t rows = rows_of(pass), all = units(i, pass), begin = all * part / of, end = all * (part + 1) / of;
    if (i->kind == PRODUCT)
        multiply_some(p, rounded(p->bits, i->in, pass->room, rows, p->columns), rows, begin, end);
    else if (i->kind == ATTEND)
        for (int64_t n = begin; n < end; n++) attend(i, pass, n / i->groups, n % i->groups);
    else
        for (int64_t row = begin; row < end; row++) {
            const float *x = i->in + row * p->columns;
            float *out = p->out + row * p->columns;
            if (i->kind == ROUND) round_row(p->bits, x, rounded(p->bits, i->in, pass->room, rows, p->columns), row, p->columns);
            else if (i->kind == LAYER_NORM) layer_norm(x, out, p->columns, p->weights, p->bias, i->eps);
            else if (i->kind == RMS_NORM) rms_norm(x, out, p->columns, p->weights, i->gain_offset, i->eps);
            else for (int64_t k = 0; k < p->columns; k++) out[k] += x[k];
        }
}

static void work(const Instruction *program, int64_t count, const Pass *pass, Progress *progress) {
    int64_t behind = 0; /* the first instruction that isn't known to be done */
    for (int64_t n = 0; n < count; n++) {
        for (; program[n].sync && behind < n; behind++) {
            int64_t all = parts(program + behind, pass);
            for (int spins = 1; __atomic_load_n(&progress[behind].done, __ATOMIC_ACQUIRE) < all; spins++)
                if (spins % PATIENCE) _mm_pause(); else sched_yield();
        }
        int64_t all = parts(program + n, pass), part;
        while ((part = __atomic_fetch_add(&progress[n].taken, 1, __ATOMIC_RELAXED)) < all) {
            execute(program + n, pass, part, all);
            __atomic_fetch_add(&progress[n].done, 1, __ATOMIC_RELEASE);
        }
    }
}

/* Go through the instructions; gives 0, or 1 without memory. */
int run(const Instruction *program, int64_t count, const Pass *pass) {
    Progress *progress = calloc(count, sizeof *progress);
    if (!progress) return 1;
    #pragma omp parallel num_threads(pass->threads) if (pass->threads > 1)
    work(program, count, pass, progress);
    free(progress);
    return 0;
}

/* The logarithm of the sum of the exponentials of each row of x. */
void log_sum_exp(const float *x, float *out, int64_t rows, int64_t width, int64_t threads) {
    #pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * width;
        __m512 best = set(-INFINITY), sum = _mm512_setzero_ps();
        for (int64_t k = 0; k < width; k += LANES)
            best = _mm512_max_ps(best, _mm512_mask_loadu_ps(set(-INFINITY), lanes(width - k), from + k));
        float most = _mm512_reduce_max_ps(best);
        __m512 top = set(isinf(most) ? 0.0f : most); /* infinity minus itself is no number */
        for (int64_t k = 0; k < width; k += LANES) {
            __mmask16 some = lanes(width - k);
            __m512 part = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, from + k), top));
            sum = _mm512_mask_add_ps(sum, some, sum, part);
        }
        float total = _mm512_reduce_add_ps(sum);
        out[row] = isinf(most) && total == total ? most : most + logf(total);
    }
}

/* Give the bytes of room that so many rows need. */
int64_t room_bytes(int64_t bits, int64_t rows, int64_t columns) { return rows * rounded_bytes((int)bits, columns); }

/* Multiply rows of x by a layer's weights, by itself. Gives 0, or 1 without memory. */
int multiply(const Product *p, const float *x, int64_t rows, int64_t threads) {
    char *room = malloc(rows * rounded_bytes(p->bits, p->columns) + 1);
    if (!room) return 1;
    Pass pass = {rows, 1, 0, threads, 0, room};
    Instruction program[] = {{.kind = ROUND, .product = *p, .in = x}, {.kind = PRODUCT, .sync = 1, .product = *p, .in = x}};
    int failed = run(program, 2, &pass);
    free(room);
    return failed;
}
