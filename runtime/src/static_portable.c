/* The path for any machine: plain loops over channels, which compilers turn into whatever vector code the target has, and one
 * written with their vectors of 16 bytes, as they do not see it by themselves. */
#include "static_walk.h"

#if defined(__GNUC__) && (defined(__SSE2__) || defined(__ARM_NEON) || defined(__wasm_simd128__))
#define VECTOR_SIZE 16
typedef uint8_t vector __attribute__((vector_size(VECTOR_SIZE)));
#endif

static inline void predict(const irs_model *m, const irs_pixels *near, uint32_t first, uint32_t count, uint8_t *restrict base) {
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
    const int16_t *restrict a = m->west_north + first, *restrict b = m->corners + first;
    for (uint32_t c = 0; c < count; c++) { /* every intermediate result fits 16 bits: eight or sixteen channels at a time */
        int16_t west = (int16_t)((int16_t)((uint16_t)a[c] << 8) >> 8), north_west = (int16_t)((int16_t)((uint16_t)b[c] << 8) >> 8);
        int16_t one = (int16_t)(west * w[c] + (a[c] >> 8) * n[c]), two = (int16_t)(north_west * nw[c] + (b[c] >> 8) * ne[c]);
        int16_t mean = (int16_t)((one & two) + ((one ^ two) >> 1)); /* half of their sum, rounded down */
        int16_t value = (int16_t)((mean + 16) >> 5);
        value = value < 0 ? 0 : value;
        base[c] = (uint8_t)(value > 255 ? 255 : value);
    }
}

/* Residuals against the plain prediction, where later channels want them; returns the sum of their magnitudes. */
static inline uint32_t residuals(const irs_model *m, const uint8_t *symbols, const uint8_t *base, uint32_t count,
                                 int16_t *restrict residuals) {
    uint32_t sum = 0;
    for (uint32_t c = 0; c < count; c++) {
        sum += symbols[c] > base[c] ? symbols[c] - base[c] : base[c] - symbols[c];
    }
    for (uint32_t c = 0; irs_has_references(m) && c < count; c++) {
        residuals[c] = (int16_t)(symbols[c] - base[c]);
    }
    return sum;
}

#ifdef VECTOR_SIZE
/* Reads and writes up to 15 bytes too far, as paddings allow. `map`: the rows of bins of one activity level. */
static inline void choose_tables(const irs_model *m, const uint8_t *map, const uint8_t *prediction, uint32_t count,
                                 uint8_t *tables) {
    for (uint32_t c = 0; c < count; c += VECTOR_SIZE) {
        const uint8_t *row = map + c;
        vector p, table, other;
        memcpy(&p, prediction + c, VECTOR_SIZE);
        memcpy(&table, row, VECTOR_SIZE);
        for (uint32_t i = 0; i + 1 < m->bins; i++) {
            row += m->channels;
            memcpy(&other, row, VECTOR_SIZE);
            table ^= (table ^ other) & (vector)(p >= m->thresholds[i]);
        }
        memcpy(tables + c, &table, VECTOR_SIZE);
    }
}
#else
static inline void choose_tables(const irs_model *m, const uint8_t *map, const uint8_t *prediction, uint32_t count,
                                 uint8_t *tables) {
    for (uint32_t c = 0; c < count; c++) {
        const uint8_t *row = map + c;
        for (uint32_t i = 0; i + 1 < m->bins && prediction[c] >= m->thresholds[i]; i++) {
            row += m->channels;
        }
        tables[c] = *row;
    }
}
#endif

static inline void subtract(const uint8_t *symbols, const uint8_t *prediction, uint32_t count, uint8_t *restrict coded) {
    for (uint32_t c = 0; c < count; c++) {
        coded[c] = (uint8_t)(symbols[c] - prediction[c]);
    }
}

static inline void add(const uint8_t *prediction, uint32_t count, uint8_t *restrict symbols) {
    for (uint32_t c = 0; c < count; c++) {
        symbols[c] = (uint8_t)(symbols[c] + prediction[c]);
    }
}

/* ---- a part -------------------------------------------------------------------------------------------------------- */

void irs_model_portable(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    walk w;
    begin(&w, m, g, s, part);
    size_t channels = m->channels, pixels = part.count / channels;
    for (size_t pixel = 0; pixel < pixels; pixel++) {
        irs_pixels near;
        const uint8_t *map = look_around(&w, &near);
        const uint8_t *here = s->symbols + pixel * channels, *prediction = s->base;
        predict(m, &near, 0, m->channels, s->base);
        uint32_t sum = residuals(m, here, s->base, m->channels, s->residuals);
        if (irs_has_references(m)) {
            refine(m, s->base, s->residuals, 0, m->channels, s->refined);
            prediction = s->refined;
        }
        choose_tables(m, map, prediction, m->channels, s->tables + pixel * channels);
        if (m->residual) {
            subtract(here, prediction, m->channels, s->coded + pixel * channels);
        }
        step(&w, sum);
    }
}

#ifndef IRS_ENCODE_ONLY
static irs_status decode_contexts(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                  irs_stream *in) {
    walk w;
    begin(&w, m, g, s, part);
    size_t channels = m->channels, pixels = part.count / channels;
    uint32_t lanes = m->lanes;
    for (size_t pixel = 0; pixel < pixels; pixel++) {
        irs_pixels near;
        const uint8_t *map = look_around(&w, &near);
        uint8_t *here = s->symbols + pixel * channels;
        predict(m, &near, 0, m->channels, s->base);
        uint32_t sum = 0;
        for (uint32_t c = 0; c < m->channels; c += lanes) {
            uint32_t count = m->channels - c < lanes ? m->channels - c : lanes;
            const uint8_t *prediction = s->base + c;
            if (irs_has_references(m)) {
                refine(m, s->base, s->residuals, c, count, s->refined);
                prediction = s->refined;
            }
            choose_tables(m, map + c, prediction, count, s->tables);
            if (!irs_decode_lanes(m, s->tables, count, in, here + c)) {
                return IRS_ERR_CORRUPT;
            }
            if (m->residual) {
                add(prediction, count, here + c);
            }
            sum += residuals(m, here + c, s->base + c, count, s->residuals + c);
        }
        step(&w, sum);
    }
    return IRS_OK;
}

static irs_status decode_plain(const irs_model *m, const irs_scratch *s, irs_part part, irs_stream *in) {
    for (size_t i = 0; i < part.count; i += m->channels) {
        for (uint32_t c = 0; c < m->channels; c += m->lanes) {
            uint32_t count = m->channels - c < m->lanes ? m->channels - c : m->lanes;
            if (!irs_decode_lanes(m, m->map + c, count, in, s->symbols + i + c)) {
                return IRS_ERR_CORRUPT;
            }
        }
    }
    return IRS_OK;
}

irs_status irs_decode_portable(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                               irs_stream *in) {
    return irs_is_plain(m) ? decode_plain(m, s, part, in) : decode_contexts(m, g, s, part, in);
}
#endif
