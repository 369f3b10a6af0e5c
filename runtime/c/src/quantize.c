/* Affine 8-bit quantization of floats and of 8-bit integers in coarser steps: q = clip(round_half_even(x / scale) + zero),
 * x' = (q - zero) * scale, all in binary32. NaN becomes the zero point, infinities the ends of the range, unless outliers
 * travel exactly. */
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

/* nearest integer, halves to even, for |value| < 2^22 */
static inline float round_half_even(float value) {
    rounded shifted = value + 12582912.0f;
    rounded result = shifted - 12582912.0f;
    return result;
}

static inline float clamp(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

static inline float load_element(uint8_t dtype, const uint8_t *p) {
    switch (dtype) {
    case IRS_F32: return load_float(p);
    case IRS_F16: return half_to_float(load16(p));
    case IRS_BF16: return bfloat_to_float(load16(p));
    default: return (float)(dtype == IRS_I8 ? (int8_t)*p : *p); /* or IRS_U8 */
    }
}

static inline void store_element(uint8_t dtype, uint8_t *p, float value) {
    switch (dtype) {
    case IRS_F32: store_float(p, value); break;
    case IRS_F16: store16(p, float_to_half(value)); break;
    case IRS_BF16: store16(p, float_to_bfloat(value)); break;
    default: { /* IRS_I8, IRS_U8 */
        float low = dtype == IRS_I8 ? -128.0f : 0.0f;
        *p = (uint8_t)(int32_t)round_half_even(clamp(value, low, low + 255.0f));
    }
    }
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
    v = clamp(v == v ? v : 0.0f, s->low, s->high);
    return (uint8_t)((int32_t)round_half_even(v) + s->zero);
}

static inline int is_outlier(float value, const step *s) {
    float v = round_half_even(clamp(divide(value, s->scale), s->low - 1.0f, s->high + 1.0f));
    return !(v >= s->low && v <= s->high); /* NaN too */
}

static inline void quantize_run(uint8_t dtype, size_t size, const step *s, const uint8_t *source, size_t count,
                                uint8_t *target) {
    for (size_t i = 0; i < count; i++) {
        target[i] = quantize_one(load_element(dtype, source + i * size), s);
    }
}

static inline void dequantize_run(uint8_t dtype, size_t size, const step *s, int is_signed, const uint8_t *source,
                                  size_t count, uint8_t *target) {
    for (size_t i = 0; i < count; i++) {
        int32_t q = is_signed ? (int8_t)source[i] : source[i];
        rounded value = (float)(q - s->zero) * s->scale;
        store_element(dtype, target + i * size, value);
    }
}

/* Loops specialised by a constant, where code may be large. */
static void quantize_typed(const irs_spec *spec, const step *s, const uint8_t *source, size_t count, uint8_t *target) {
#ifndef IRS_SMALL
    switch (spec->dtype) {
    case IRS_F32: quantize_run(IRS_F32, 4, s, source, count, target); return;
    case IRS_F16: quantize_run(IRS_F16, 2, s, source, count, target); return;
    case IRS_I8: quantize_run(IRS_I8, 1, s, source, count, target); return;
    case IRS_U8: quantize_run(IRS_U8, 1, s, source, count, target); return;
    default: break;
    }
#endif
    quantize_run(spec->dtype, spec->element_size, s, source, count, target);
}

static void dequantize_typed(const irs_spec *spec, const step *s, const uint8_t *source, size_t count, uint8_t *target) {
    int is_signed = spec->quantization.storage == IRS_I8;
#ifndef IRS_SMALL
    switch (spec->dtype) {
    case IRS_F32: dequantize_run(IRS_F32, 4, s, is_signed, source, count, target); return;
    case IRS_F16: dequantize_run(IRS_F16, 2, s, is_signed, source, count, target); return;
    case IRS_I8: dequantize_run(IRS_I8, 1, s, is_signed, source, count, target); return;
    case IRS_U8: dequantize_run(IRS_U8, 1, s, is_signed, source, count, target); return;
    default: break;
    }
#endif
    dequantize_run(spec->dtype, spec->element_size, s, is_signed, source, count, target);
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

/* Outliers among elements `first` to `end`, to where `*target` points, and beyond them; at most `room`. How many. */
static uint32_t keep_outliers(const irs_spec *spec, const step *s, const uint8_t *tensor, size_t first, size_t end,
                              uint32_t room, uint8_t **target) {
    size_t size = spec->element_size;
    uint32_t found = 0;
    for (size_t i = first; i < end && found < room; i++) {
        const uint8_t *element = tensor + i * size;
        if (is_outlier(load_element(spec->dtype, element), s)) {
            store32(*target, (uint32_t)i);
            memcpy(*target + 4, element, size);
            *target += 4 + size;
            found++;
        }
    }
    return found;
}

void irs_quantize(const irs_spec *spec, const uint32_t *dims, const uint8_t *source, uint64_t count, uint8_t *target,
                  uint8_t *outliers, uint32_t *outlier_count) {
    const irs_quantization *q = &spec->quantization;
    uint64_t run = run_length(spec, dims, count);
    uint32_t limit = q->outliers ? (uint32_t)irs_outlier_limit(count) : 0;
    *outlier_count = 0;
    for (uint64_t i = 0, k = 0; i < count; i += run, k++) {
        step s = read_step(q, (uint32_t)(k % q->count));
        quantize_typed(spec, &s, source + i * spec->element_size, (size_t)run, target + i);
        *outlier_count += keep_outliers(spec, &s, source, (size_t)i, (size_t)(i + run), limit - *outlier_count, &outliers);
    }
}

void irs_dequantize(const irs_spec *spec, const uint32_t *dims, const uint8_t *source, uint64_t count, uint8_t *target) {
    const irs_quantization *q = &spec->quantization;
    uint64_t run = run_length(spec, dims, count);
    for (uint64_t i = 0, k = 0; i < count; i += run, k++) {
        step s = read_step(q, (uint32_t)(k % q->count));
        dequantize_typed(spec, &s, source + i, (size_t)run, target + i * spec->element_size);
    }
}
