/* The path for any machine: plain loops over channels, which compilers turn into whatever vector code the target has. */
#include "static_rans.h"

#define IRS_TARGET

static inline uint8_t irs_clamp(int32_t value) { return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value); }

static inline void irs_predict(const irs_model *m, const irs_pixels *near, uint32_t first, uint32_t count, uint8_t *restrict base) {
    const uint8_t *w = near->west + first, *n = near->north + first;
    const uint8_t *nw = near->north_west + first, *ne = near->north_east + first;
    if (m->predictor == IRS_PREDICT_NONE) {
        memset(base, m->initial, count);
        return;
    }
    if (m->predictor == IRS_PREDICT_MED) {
        for (uint32_t c = 0; c < count; c++) {
            int32_t low = w[c] < n[c] ? w[c] : n[c], high = w[c] < n[c] ? n[c] : w[c], plane = w[c] + n[c] - nw[c];
            base[c] = (uint8_t)(plane < low ? low : plane > high ? high : plane);
        }
        return;
    }
    const int8_t *a = m->west_north + 2 * (size_t)first, *b = m->corners + 2 * (size_t)first;
    for (uint32_t c = 0; c < count; c++) {
        int32_t total = a[2 * c] * w[c] + a[2 * c + 1] * n[c] + b[2 * c] * nw[c] + b[2 * c + 1] * ne[c];
        base[c] = irs_clamp((total + 32) >> 6);
    }
}

/* Predictions of channels [first, first + count) improved by residuals of earlier channels. */
static inline void irs_refine(const irs_model *m, const uint8_t *base, const int16_t *residuals, uint32_t first,
                              uint32_t count, uint8_t *restrict refined) {
    const uint16_t *reference = m->reference + 2 * (size_t)first;
    const int16_t *weight = m->reference_weight + 2 * (size_t)first;
    for (uint32_t c = 0; c < count; c++) {
        int32_t total = weight[2 * c] * residuals[reference[2 * c]] + weight[2 * c + 1] * residuals[reference[2 * c + 1]];
        refined[c] = irs_clamp(base[first + c] + ((total + 32) >> 6));
    }
}

/* Residuals against the plain prediction; returns the sum of their magnitudes. */
static inline uint32_t irs_residuals(const irs_model *m, const uint8_t *symbols, const uint8_t *base, uint32_t count, int16_t *restrict residuals) {
    (void)m;
    uint32_t sum = 0;
    for (uint32_t c = 0; c < count; c++) {
        int32_t residual = symbols[c] - base[c];
        residuals[c] = (int16_t)residual;
        sum += (uint32_t)(residual < 0 ? -residual : residual);
    }
    return sum;
}

/* `map` are the rows of bins of one activity level; `prediction` belongs to channel `first`. */
static inline void irs_choose_tables(const irs_model *m, const uint8_t *map, const uint8_t *prediction, uint32_t first,
                                     uint32_t count, uint8_t *restrict tables) {
    const uint8_t *restrict row = map + first, *restrict p = prediction;
    memcpy(tables, row, count);
    for (uint32_t i = 0; i + 1 < m->bins; i++) {
        uint8_t threshold = m->thresholds[i];
        row += m->channels;
        for (uint32_t c = 0; c < count; c++) {
            uint8_t reached = p[c] >= threshold ? 0xFF : 0; /* masks, so that compilers need no branch */
            tables[c] = (uint8_t)((row[c] & reached) | (tables[c] & ~reached));
        }
    }
}

static inline void irs_subtract(const uint8_t *symbols, const uint8_t *prediction, uint32_t count, uint8_t *restrict coded) {
    for (uint32_t c = 0; c < count; c++) {
        coded[c] = (uint8_t)(symbols[c] - prediction[c]);
    }
}

static inline void irs_add(const uint8_t *prediction, uint32_t count, uint8_t *restrict symbols) {
    for (uint32_t c = 0; c < count; c++) {
        symbols[c] = (uint8_t)(symbols[c] + prediction[c]);
    }
}


#ifndef IRS_ENCODE_ONLY
static inline int decode_lanes(const irs_model *m, const uint8_t *tables, uint32_t count, irs_stream *in, uint8_t *symbols) {
    return irs_decode_lanes(m, tables, count, in, symbols);
}
#endif

#include "static_body.h"

static void model_portable(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    model_path(m, g, s, part);
}

#ifndef IRS_ENCODE_ONLY
static irs_status decode_portable(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                  irs_stream *in) {
    return decode_path(m, g, s, part, in);
}
#endif

const irs_path irs_portable_path = {
    model_portable,
    irs_rans_encode,
#ifndef IRS_ENCODE_ONLY
    decode_portable,
#else
    NULL,
#endif
};
