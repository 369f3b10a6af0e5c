/* The path for any machine: plain loops over the channels of a pixel. Where compilers have vectors of 16 bytes, loops go on to a
 * multiple of 16 channels, so that vectors are all there is to them. Rows are then read and written up to 15 bytes too far;
 * IRS_PADDING covers that, and what is written there is overwritten by the next channels or pixel. */
#include "static_cursor.h"

#if defined(__GNUC__) && !defined(__OPTIMIZE_SIZE__) && (defined(__SSE2__) || defined(__ARM_NEON) || defined(__wasm_simd128__))
#define VECTOR_SIZE 16
typedef uint8_t vector __attribute__((vector_size(VECTOR_SIZE)));
static inline uint32_t whole_vectors(uint32_t count) { return (count + VECTOR_SIZE - 1) & ~(VECTOR_SIZE - 1u); }
#else
static inline uint32_t whole_vectors(uint32_t count) { return count; }
#endif

static inline void predict(const irs_model *m, const irs_pixels *near, uint8_t *restrict base) {
    const uint8_t *w = near->west, *n = near->north, *nw = near->north_west, *ne = near->north_east;
    uint32_t count = whole_vectors(m->channels);
    if (m->predictor == IRS_PREDICT_NONE) {
        memset(base, m->initial, count);
        return;
    }
    if (m->predictor == IRS_PREDICT_MED) {
        for (uint32_t c = 0; c < count; c++) {
            base[c] = med_one(w[c], n[c], nw[c]);
        }
        return;
    }
    const int16_t *a = m->west_north, *b = m->corners;
    for (uint32_t c = 0; c < count; c++) {
        int16_t west = (int16_t)((int16_t)((uint16_t)a[c] << 8) >> 8), north_west = (int16_t)((int16_t)((uint16_t)b[c] << 8) >> 8);
        base[c] = weigh_one((int16_t)(west * w[c] + (a[c] >> 8) * n[c]), (int16_t)(north_west * nw[c] + (b[c] >> 8) * ne[c]));
    }
}

/* Sum of the magnitudes of a pixel's residuals. */
static inline uint32_t sum_residuals(const irs_model *m, const uint8_t *symbols, uint8_t *base) {
    uint32_t sum = 0, count = whole_vectors(m->channels);
    memcpy(base + m->channels, symbols + m->channels, count - m->channels); /* nothing is wrong where no channel is */
    for (uint32_t c = 0; c < count; c++) {
        int32_t residual = symbols[c] - base[c];
        sum += (uint32_t)(residual < 0 ? -residual : residual);
    }
    return sum;
}

#ifdef VECTOR_SIZE
typedef struct limits {
    vector rows[15]; /* each threshold of the prediction, once a channel */
} limits;

static inline void spread_limits(const irs_model *m, limits *l) {
    for (uint32_t i = 0; i + 1 < m->bins; i++) {
        memset(&l->rows[i], m->thresholds[i], VECTOR_SIZE);
    }
}

/* `map`: the rows of bins of one activity level. */
static inline void choose_tables(const irs_model *m, const limits *l, const uint8_t *map, const uint8_t *prediction,
                                 uint32_t count, uint8_t *tables) {
    for (uint32_t c = 0; c < count; c += VECTOR_SIZE) {
        const uint8_t *row = map + c;
        vector p, table, other;
        memcpy(&p, prediction + c, VECTOR_SIZE);
        memcpy(&table, row, VECTOR_SIZE);
        for (uint32_t i = 0; i + 1 < m->bins; i++) {
            row += m->channels;
            memcpy(&other, row, VECTOR_SIZE);
            table ^= (table ^ other) & (vector)(p >= l->rows[i]);
        }
        memcpy(tables + c, &table, VECTOR_SIZE);
    }
}
#else
typedef const uint8_t *limits;

static inline void spread_limits(const irs_model *m, limits *l) { *l = m->thresholds; }

static inline void choose_tables(const irs_model *m, const limits *l, const uint8_t *map, const uint8_t *prediction,
                                 uint32_t count, uint8_t *tables) {
    for (uint32_t c = 0; c < count; c++) {
        const uint8_t *row = map + c;
        for (uint32_t i = 0; i + 1 < m->bins && prediction[c] >= (*l)[i]; i++) {
            row += m->channels;
        }
        tables[c] = *row;
    }
}
#endif

/* Residuals against the plain prediction, which later channels want. */
static inline void keep_residuals(const uint8_t *symbols, const uint8_t *base, uint32_t count, int16_t *restrict residuals) {
    for (uint32_t c = 0; c < count; c++) {
        residuals[c] = (int16_t)(symbols[c] - base[c]);
    }
}

static inline void subtract(const uint8_t *symbols, const uint8_t *prediction, uint32_t count, uint8_t *restrict coded) {
    for (uint32_t c = 0, whole = whole_vectors(count); c < whole; c++) {
        coded[c] = (uint8_t)(symbols[c] - prediction[c]);
    }
}

static inline void add(const uint8_t *prediction, uint32_t count, uint8_t *restrict symbols) {
    for (uint32_t c = 0, whole = whole_vectors(count); c < whole; c++) {
        symbols[c] = (uint8_t)(symbols[c] + prediction[c]);
    }
}

/* ---- a part -------------------------------------------------------------------------------------------------------- */

/* Tables of one pixel, and what is coded; returns the sum of the residuals' magnitudes. */
static inline uint32_t model_pixel(const irs_model *m, const limits *l, const irs_scratch *s, const irs_pixels *near,
                                   const uint8_t *map, size_t place) {
    const uint8_t *here = s->symbols + place, *prediction = s->base;
    predict(m, near, s->base);
    uint32_t sum = sum_residuals(m, here, s->base);
    if (irs_has_references(m)) {
        keep_residuals(here, s->base, m->channels, s->residuals);
        refine(m, s->base, s->residuals, 0, m->channels, s->refined);
        prediction = s->refined;
    }
    choose_tables(m, l, map, prediction, m->channels, s->tables + place);
    if (m->residual) {
        subtract(here, prediction, m->channels, s->coded + place);
    }
    return sum;
}

void irs_model_portable(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    walk w;
    limits l;
    begin(&w, m, g, s, part);
    spread_limits(m, &l);
    for (size_t place = 0; place < part.count; place += m->channels) {
        irs_pixels near;
        const uint8_t *map = look_around(&w, &near);
        step(&w, model_pixel(m, &l, s, &near, map, place));
    }
}

#ifndef IRS_ENCODE_ONLY
static irs_status decode_contexts(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                  irs_stream *in) {
    walk w;
    limits l;
    begin(&w, m, g, s, part);
    spread_limits(m, &l);
    size_t channels = m->channels, pixels = part.count / channels;
    uint32_t lanes = m->lanes;
    for (size_t pixel = 0; pixel < pixels; pixel++) {
        irs_pixels near;
        const uint8_t *map = look_around(&w, &near);
        uint8_t *here = s->symbols + pixel * channels;
        predict(m, &near, s->base);
        for (uint32_t c = 0; c < m->channels; c += lanes) {
            uint32_t count = m->channels - c < lanes ? m->channels - c : lanes;
            const uint8_t *prediction = s->base + c;
            if (irs_has_references(m)) {
                refine(m, s->base, s->residuals, c, count, s->refined);
                prediction = s->refined;
            }
            choose_tables(m, &l, map + c, prediction, count, s->tables);
            if (!irs_decode_lanes(m, s->tables, count, in, here + c)) {
                return IRS_ERR_CORRUPT;
            }
            if (m->residual) {
                add(prediction, count, here + c);
            }
            if (irs_has_references(m)) {
                keep_residuals(here + c, s->base + c, count, s->residuals + c);
            }
        }
        step(&w, sum_residuals(m, here, s->base));
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
