/* A row's norms in single precision. */
#pragma once

#include <math.h>

#include "lanes.h"

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
