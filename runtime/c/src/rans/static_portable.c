/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts and decoding for any machine: plain loops over the channels of a pixel.
 *
 * Where compilers have vectors of 16 bytes, loops go on to a multiple of 16 channels, so that they
 * become vector code without a remainder. Rows are then read and written up to 15 bytes too far.
 * IRS_PADDING provides for that, and the next channels or the next pixel overwrite what was
 * written.
 */
#include "static_cursor.h"

#if defined(__GNUC__) && !defined(__OPTIMIZE_SIZE__) && \
    (defined(__SSE2__) || defined(__ARM_NEON) || defined(__wasm_simd128__))
#define PORTABLE_VECTOR 16
typedef uint8_t portable_vector __attribute__((vector_size(PORTABLE_VECTOR)));

static inline uint32_t round_up_to_vector(uint32_t count) {
    return (count + PORTABLE_VECTOR - 1) & ~(PORTABLE_VECTOR - 1u);
}
#else
static inline uint32_t round_up_to_vector(uint32_t count) { return count; }
#endif

/* ---- predictions and residuals --------------------------------------------------------------- */

/* Weights are pairs of signed bytes; this is the lower one, (int16_t)weights >> 8 the upper one. */
static inline int16_t low_weight(int16_t weights) {
    return (int16_t)((int16_t)((uint16_t)weights << 8) >> 8);
}

/* Predicts all channels of a pixel. */
static inline void predict_pixel(const irs_rans_model *m, const irs_neighbours *neighbours,
                                 uint8_t *restrict base) {
    const uint8_t *w = neighbours->west, *n = neighbours->north;
    const uint8_t *nw = neighbours->north_west, *ne = neighbours->north_east;
    uint32_t count = round_up_to_vector(m->channels);
    if (m->predictor == IRS_PREDICT_NONE) {
        memset(base, m->initial, count);
        return;
    }

    if (m->predictor == IRS_PREDICT_MED) {
        for (uint32_t c = 0; c < count; c++) {
            base[c] = irs_predict_med(w[c], n[c], nw[c]);
        }
        return;
    }

    const int16_t *a = m->west_north, *b = m->corners;
    for (uint32_t c = 0; c < count; c++) {
        int16_t west = low_weight(a[c]), north_west = low_weight(b[c]);
        base[c] = irs_predict_linear((int16_t)(west * w[c] + (a[c] >> 8) * n[c]),
                                     (int16_t)(north_west * nw[c] + (b[c] >> 8) * ne[c]));
    }
}

/* Sums the magnitudes of a pixel's residuals. */
static inline uint32_t sum_residuals(const irs_rans_model *m, const uint8_t *symbols,
                                     uint8_t *base) {
    uint32_t sum = 0, count = round_up_to_vector(m->channels);
    /* behind the last channel, make the residuals 0 */
    memcpy(base + m->channels, symbols + m->channels, count - m->channels);
    for (uint32_t c = 0; c < count; c++) {
        int32_t residual = symbols[c] - base[c];
        sum += (uint32_t)(residual < 0 ? -residual : residual);
    }
    return sum;
}

/* Keeps residuals from the plain prediction, to which later channels refer. */
static inline void store_residuals(const uint8_t *symbols, const uint8_t *base, uint32_t count,
                                   int16_t *restrict residuals) {
    for (uint32_t c = 0; c < count; c++) {
        residuals[c] = (int16_t)(symbols[c] - base[c]);
    }
}

static inline void subtract_predictions(const uint8_t *symbols, const uint8_t *prediction,
                                        uint32_t count, uint8_t *restrict coded) {
    for (uint32_t c = 0, whole = round_up_to_vector(count); c < whole; c++) {
        coded[c] = (uint8_t)(symbols[c] - prediction[c]);
    }
}

/* ---- tables ---------------------------------------------------------------------------------- */

/* choose_tables finds the table of each channel: the number of thresholds that its prediction
 * reaches is its bin, and `map` has one row of tables for each bin. */
#ifdef PORTABLE_VECTOR
typedef struct bin_thresholds {
    portable_vector rows[15]; /* each threshold, as often as a vector has bytes */
} bin_thresholds;

static inline void spread_thresholds(const irs_rans_model *m, bin_thresholds *thresholds) {
    for (uint32_t i = 0; i + 1 < m->bins; i++) {
        memset(&thresholds->rows[i], m->thresholds[i], PORTABLE_VECTOR);
    }
}

static inline void choose_tables(const irs_rans_model *m, const bin_thresholds *thresholds,
                                 const uint8_t *map, const uint8_t *prediction, uint32_t count,
                                 uint8_t *tables) {
    for (uint32_t c = 0; c < count; c += PORTABLE_VECTOR) {
        const uint8_t *row = map + c;
        portable_vector p, table, next;
        memcpy(&p, prediction + c, PORTABLE_VECTOR);
        memcpy(&table, row, PORTABLE_VECTOR);

        for (uint32_t i = 0; i + 1 < m->bins; i++) {
            row += m->channels;
            memcpy(&next, row, PORTABLE_VECTOR);
            table ^= (table ^ next) & (portable_vector)(p >= thresholds->rows[i]);
        }
        memcpy(tables + c, &table, PORTABLE_VECTOR);
    }
}
#else
typedef const uint8_t *bin_thresholds;

static inline void spread_thresholds(const irs_rans_model *m, bin_thresholds *thresholds) {
    *thresholds = m->thresholds;
}

static inline void choose_tables(const irs_rans_model *m, const bin_thresholds *thresholds,
                                 const uint8_t *map, const uint8_t *prediction, uint32_t count,
                                 uint8_t *tables) {
    for (uint32_t c = 0; c < count; c++) {
        const uint8_t *row = map + c;
        for (uint32_t i = 0; i + 1 < m->bins && prediction[c] >= (*thresholds)[i]; i++) {
            row += m->channels;
        }
        tables[c] = *row;
    }
}
#endif

/* ---- contexts of known symbols --------------------------------------------------------------- */

/* Finds the tables of one pixel, and what is coded; returns its residual sum. `offset` is that of
 * the pixel's symbols in the chunk. */
static inline uint32_t find_pixel_contexts(const irs_rans_model *m,
                                           const bin_thresholds *thresholds, const irs_scratch *s,
                                           const irs_neighbours *neighbours, const uint8_t *map,
                                           size_t offset) {
    const uint8_t *symbols = s->symbols + offset, *prediction = s->base;
    predict_pixel(m, neighbours, s->base);
    uint32_t sum = sum_residuals(m, symbols, s->base);

    if (irs_has_references(m)) {
        store_residuals(symbols, s->base, m->channels, s->residuals);
        irs_refine_predictions(m, s->base, s->residuals, 0, m->channels, s->refined);
        prediction = s->refined;
    }

    choose_tables(m, thresholds, map, prediction, m->channels, s->tables + offset);
    if (m->residual) {
        subtract_predictions(symbols, prediction, m->channels, s->coded + offset);
    }
    return sum;
}

void irs_find_contexts_portable(const irs_rans_model *m, const irs_geometry *g,
                                const irs_scratch *s, irs_chunk chunk) {
    irs_cursor cursor;
    bin_thresholds thresholds;
    irs_cursor_init(&cursor, m, g, s, chunk);
    spread_thresholds(m, &thresholds);

    for (size_t offset = 0; offset < chunk.count; offset += m->channels) {
        irs_neighbours neighbours;
        const uint8_t *map = irs_cursor_context(&cursor, &neighbours);
        irs_cursor_advance(&cursor,
                           find_pixel_contexts(m, &thresholds, s, &neighbours, map, offset));
    }
}

/* ---- decoding -------------------------------------------------------------------------------- */

#ifndef IRS_ENCODE_ONLY
static inline void add_predictions(const uint8_t *prediction, uint32_t count,
                                   uint8_t *restrict symbols) {
    for (uint32_t c = 0, whole = round_up_to_vector(count); c < whole; c++) {
        symbols[c] = (uint8_t)(symbols[c] + prediction[c]);
    }
}

/* Decodes one pixel: a group of as many channels as there are lanes at a time, as references are to
 * channels of earlier groups. Returns 0 if the payload ends too early. */
static inline int decode_pixel(const irs_rans_model *m, const bin_thresholds *thresholds,
                               const irs_scratch *s, const uint8_t *map, uint8_t *symbols,
                               irs_stream *in) {
    uint32_t lanes = m->lanes;
    for (uint32_t c = 0; c < m->channels; c += lanes) {
        uint32_t count = m->channels - c < lanes ? m->channels - c : lanes;
        const uint8_t *prediction = s->base + c;
        if (irs_has_references(m)) {
            irs_refine_predictions(m, s->base, s->residuals, c, count, s->refined);
            prediction = s->refined;
        }

        choose_tables(m, thresholds, map + c, prediction, count, s->tables);
        if (!irs_rans_decode_lanes(m, s->tables, count, in, symbols + c)) {
            return 0;
        }

        if (m->residual) {
            add_predictions(prediction, count, symbols + c);
        }
        if (irs_has_references(m)) {
            store_residuals(symbols + c, s->base + c, count, s->residuals + c);
        }
    }
    return 1;
}

static irs_status decode_contexts(const irs_rans_model *m, const irs_geometry *g,
                                  const irs_scratch *s, irs_chunk chunk, irs_stream *in) {
    irs_cursor cursor;
    bin_thresholds thresholds;
    irs_cursor_init(&cursor, m, g, s, chunk);
    spread_thresholds(m, &thresholds);

    size_t channels = m->channels, pixels = chunk.count / channels;
    for (size_t pixel = 0; pixel < pixels; pixel++) {
        irs_neighbours neighbours;
        const uint8_t *map = irs_cursor_context(&cursor, &neighbours);
        uint8_t *symbols = s->symbols + pixel * channels;
        predict_pixel(m, &neighbours, s->base);
        if (!decode_pixel(m, &thresholds, s, map, symbols, in)) {
            return IRS_ERR_CORRUPT;
        }
        irs_cursor_advance(&cursor, sum_residuals(m, symbols, s->base));
    }
    return IRS_OK;
}

static irs_status decode_one_context(const irs_rans_model *m, const irs_scratch *s, irs_chunk chunk,
                                     irs_stream *in) {
    for (size_t i = 0; i < chunk.count; i += m->channels) {
        for (uint32_t c = 0; c < m->channels; c += m->lanes) {
            uint32_t count = m->channels - c < m->lanes ? m->channels - c : m->lanes;
            if (!irs_rans_decode_lanes(m, m->map + c, count, in, s->symbols + i + c)) {
                return IRS_ERR_CORRUPT;
            }
        }
    }
    return IRS_OK;
}

irs_status irs_rans_decode_portable(const irs_rans_model *m, const irs_geometry *g,
                                    const irs_scratch *s, irs_chunk chunk, irs_stream *in) {
    return irs_has_one_context(m) ? decode_one_context(m, s, chunk, in)
                                  : decode_contexts(m, g, s, chunk, in);
}
#endif

#undef PORTABLE_VECTOR
