/* Affine 8-bit quantization of float tensors: q = clip(round_half_even(x / scale) + zero), x' = (q - zero) * scale, all in
 * binary32. NaN becomes the zero point, infinities the ends of the range, unless outliers travel exactly. */
#include "internal.h"

#include <float.h>

/* x87 keeps intermediate results in 80 bits; a store rounds them to what every other machine computes. */
#if FLT_EVAL_METHOD == 0
typedef float rounded;
#else
typedef volatile float rounded;
#endif

static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7FFF, bits;
    if (magnitude >= 0x7C00) { /* infinity, NaN */
        bits = sign | UINT32_C(0x7F800000) | (magnitude & 0x3FF) << 13;
    } else if (magnitude >= 0x0400) {
        bits = sign | ((magnitude << 13) + UINT32_C(0x38000000));
    } else { /* subnormal: exact as an integer times 2^-24 */
        float value = (float)magnitude * 5.9604644775390625e-8f;
        memcpy(&bits, &value, 4);
        bits |= sign;
    }
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static uint16_t float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & UINT32_C(0x7FFFFFFF);
    if (magnitude > UINT32_C(0x7F800000)) {
        return (uint16_t)(sign | 0x7E00);
    }
    if (magnitude >= UINT32_C(0x477FF000)) { /* rounds to 65520 or more */
        return (uint16_t)(sign | 0x7C00);
    }
    if (magnitude >= UINT32_C(0x38800000)) { /* normal: drop 13 bits, half to even */
        magnitude += 0xFFF + (magnitude >> 13 & 1);
        return (uint16_t)(sign | ((magnitude - UINT32_C(0x38000000)) >> 13));
    }
    uint32_t exponent = magnitude >> 23, shift = 126 - exponent;
    if (shift > 24) {
        return (uint16_t)sign;
    }
    uint32_t mantissa = (magnitude & 0x7FFFFF) | 0x800000, half = mantissa >> shift;
    uint32_t rest = mantissa & ((UINT32_C(1) << shift) - 1), middle = UINT32_C(1) << (shift - 1);
    half += rest > middle || (rest == middle && (half & 1));
    return (uint16_t)(sign | half);
}

static float bfloat_to_float(uint16_t bfloat) {
    uint32_t bits = (uint32_t)bfloat << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static uint16_t float_to_bfloat(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & UINT32_C(0x7FFFFFFF)) > UINT32_C(0x7F800000)) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static inline float load_element(uint8_t dtype, const uint8_t *p) {
    return dtype == IRS_F32 ? load_float(p) : dtype == IRS_F16 ? half_to_float(load16(p)) : bfloat_to_float(load16(p));
}

static inline void store_element(uint8_t dtype, uint8_t *p, float value) {
    if (dtype == IRS_F32) {
        store_float(p, value);
    } else {
        store16(p, dtype == IRS_F16 ? float_to_half(value) : float_to_bfloat(value));
    }
}

/* nearest integer, halves to even, for |value| < 2^22 */
static inline float round_half_even(float value) {
    rounded shifted = value + 12582912.0f;
    rounded result = shifted - 12582912.0f;
    return result;
}

typedef struct step {
    float scale, low, high; /* range of the integers relative to the zero point */
    int32_t zero;
} step;

static step read_step(const irs_quantization *q, uint32_t index) {
    const uint8_t *p = q->steps + 8 * (size_t)index;
    int32_t zero = (int32_t)load32(p + 4);
    step s = {load_float(p), (float)(q->low - zero), (float)(q->high - zero), zero};
    return s;
}

static inline float divide(float value, float scale) {
    rounded quotient = value / scale;
    return quotient;
}

static inline uint8_t quantize_one(float value, const step *s) {
    float v = divide(value, s->scale);
    v = v == v ? v : 0.0f;
    v = v < s->low ? s->low : v;
    v = v > s->high ? s->high : v;
    return (uint8_t)((int32_t)round_half_even(v) + s->zero);
}

static inline int is_outlier(float value, const step *s) {
    float v = divide(value, s->scale);
    v = v < s->low - 1.0f ? s->low - 1.0f : v;
    v = v > s->high + 1.0f ? s->high + 1.0f : v;
    if (v != v) {
        return 1;
    }
    v = round_half_even(v);
    return v < s->low || v > s->high;
}

static inline void quantize_run(uint8_t dtype, const step *s, const uint8_t *source, size_t count, uint8_t *target) {
    size_t size = dtype == IRS_F32 ? 4 : 2;
    for (size_t i = 0; i < count; i++) {
        target[i] = quantize_one(load_element(dtype, source + i * size), s);
    }
}

static inline void dequantize_run(uint8_t dtype, const step *s, int is_signed, const uint8_t *source, size_t count,
                                  uint8_t *target) {
    size_t size = dtype == IRS_F32 ? 4 : 2;
    for (size_t i = 0; i < count; i++) {
        int32_t q = is_signed ? (int8_t)source[i] : source[i];
        rounded value = (float)(q - s->zero) * s->scale;
        store_element(dtype, target + i * size, value);
    }
}

/* Loops specialised by a constant, where code may be large. */
static void quantize_typed(uint8_t dtype, const step *s, const uint8_t *source, size_t count, uint8_t *target) {
#ifndef IRS_SMALL
    if (dtype == IRS_F32) {
        quantize_run(IRS_F32, s, source, count, target);
        return;
    }
    if (dtype == IRS_F16) {
        quantize_run(IRS_F16, s, source, count, target);
        return;
    }
#endif
    quantize_run(dtype, s, source, count, target);
}

static void dequantize_typed(uint8_t dtype, const step *s, int is_signed, const uint8_t *source, size_t count,
                             uint8_t *target) {
#ifndef IRS_SMALL
    if (dtype == IRS_F32) {
        dequantize_run(IRS_F32, s, is_signed, source, count, target);
        return;
    }
    if (dtype == IRS_F16) {
        dequantize_run(IRS_F16, s, is_signed, source, count, target);
        return;
    }
#endif
    dequantize_run(dtype, s, is_signed, source, count, target);
}

/* elements that follow one another with the same scale */
static uint64_t run_length(const irs_spec *spec, const uint32_t *dims, uint64_t count) {
    if (spec->quantization.axis == IRS_MAX_RANK) {
        return count;
    }
    uint64_t length = 1;
    for (uint32_t i = spec->quantization.axis + 1u; i < spec->rank; i++) {
        length *= dims[i];
    }
    return length;
}

void irs_quantize(const irs_spec *spec, const uint32_t *dims, const uint8_t *source, uint64_t count, uint8_t *target,
                  uint8_t *outliers, uint32_t *outlier_count) {
    const irs_quantization *q = &spec->quantization;
    uint64_t run = run_length(spec, dims, count);
    size_t size = spec->element_size;
    for (uint64_t i = 0, k = 0; i < count; i += run, k++) {
        step s = read_step(q, (uint32_t)(k % q->count));
        quantize_typed(spec->dtype, &s, source + i * size, (size_t)run, target + i);
    }
    *outlier_count = 0;
    if (!q->outliers) {
        return;
    }
    for (uint64_t i = 0, k = 0; i < count; i += run, k++) {
        step s = read_step(q, (uint32_t)(k % q->count));
        for (uint64_t j = i; j < i + run; j++) {
            if (is_outlier(load_element(spec->dtype, source + j * size), &s)) {
                if (*outlier_count == irs_outlier_limit(count)) {
                    return;
                }
                store32(outliers, (uint32_t)j);
                memcpy(outliers + 4, source + j * size, size);
                outliers += 4 + size;
                (*outlier_count)++;
            }
        }
    }
}

void irs_dequantize(const irs_spec *spec, const uint32_t *dims, const uint8_t *source, uint64_t count, uint8_t *target) {
    const irs_quantization *q = &spec->quantization;
    uint64_t run = run_length(spec, dims, count);
    int is_signed = q->storage == IRS_I8;
    for (uint64_t i = 0, k = 0; i < count; i += run, k++) {
        step s = read_step(q, (uint32_t)(k % q->count));
        dequantize_typed(spec->dtype, &s, is_signed, source + i, (size_t)run, target + i * spec->element_size);
    }
}
