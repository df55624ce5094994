/* One pass of a few rows through a stack of blocks, as a list of instructions that all threads go through together.
 *
 * Numbers between the instructions are in single precision, a row of them a token, text after text. An instruction with
 * `sync` needs what those before it gave. What changes from step to step (where keys lie, how many there are) stands in
 * places that instructions point to.
 */
#include <sched.h>
#include <stdlib.h>

#include "attending.h"

int usable(void) { return has_lanes(); }

/* Tell whether the processor has units for tiles, with which torch multiplies many rows faster than we do. */
int has_tiles(void) { return tiles_are_there(); }

/* Work is shared in parts that whoever is free takes. Nobody waits for a thread, only for parts: where the machine lets
 * one of us sleep, the others go on without it. */
typedef struct {
    int64_t taken, done;
    char apart[48]; /* a cache line of its own */
} Progress;

enum { SHARES = 8 }; /* parts for each thread, so that they end at nearly the same time */

static int64_t rows_of(const Pass *pass) { return pass->starts ? pass->starts[pass->batch] : pass->batch * pass->fresh; }

/* Rows that a product by panels takes at a time: fewer than all where there are more threads than panels. */
static int64_t share_of(const Product *p, const Pass *pass) {
    int64_t panels = (p->width + PANEL - 1) / PANEL, wanted = 3 * pass->threads / panels + 1;
    return (rows_of(pass) / wanted / SHARE + 1) * SHARE;
}

/* What an instruction's parts are made of: strips of weights, or panels of them with some rows; heads of texts; rows. */
static int64_t units(const Instruction *i, const Pass *pass) {
    const Product *p = &i->product;
    if (i->kind == PRODUCT && by_panels(p, rows_of(pass))) {
        int64_t share = share_of(p, pass);
        return (p->width + PANEL - 1) / PANEL * ((rows_of(pass) + share - 1) / share);
    }
    if (i->kind == PRODUCT) return (p->width + LANES - 1) / LANES;
    return i->kind == ATTEND ? pass->batch * i->groups : rows_of(pass);
}

static int64_t parts(const Instruction *i, const Pass *pass) {
    int64_t all = units(i, pass), most = pass->threads == 1 ? 1 : SHARES * pass->threads;
    return all < most ? all : most;
}

static void execute(const Instruction *i, const Pass *pass, int64_t part, int64_t of) {
    const Product *p = &i->product;
    int64_t rows = rows_of(pass), all = units(i, pass), begin = all * part / of, end = all * (part + 1) / of;
    Rows x = rounded(p->bits, i->in, pass->room, rows, p->columns);
    if (i->kind == PRODUCT && by_panels(p, rows))
        for (int64_t n = begin, share = share_of(p, pass), shares = (rows + share - 1) / share; n < end; n++) {
            int64_t from = n % shares * share, strip = n / shares * STRIPS, strips = (p->width + LANES - 1) / LANES;
            multiply_some(p, x, rows, from, rows - from < share ? rows : from + share, strip,
                          strips - strip < STRIPS ? strips : strip + STRIPS);
        }
    else if (i->kind == PRODUCT)
        multiply_some(p, x, rows, 0, rows, begin, end);
    else if (i->kind == ATTEND)
        for (int64_t n = begin; n < end; n++) attend(i, pass, n / i->groups, n % i->groups);
    else
        for (int64_t row = begin; row < end; row++) {
            const float *from = i->in + row * p->columns;
            float *out = p->out + row * p->columns;
            if (i->kind == ROUND) round_row(p->bits, from, x, row, p->columns);
            else if (i->kind == LAYER_NORM) layer_norm(from, out, p->columns, p->weights, p->bias, i->eps);
            else if (i->kind == RMS_NORM) rms_norm(from, out, p->columns, p->weights, i->gain_offset, i->eps);
            else for (int64_t k = 0; k < p->columns; k++) out[k] += from[k];
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
