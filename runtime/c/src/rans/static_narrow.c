/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts and decoding for few channels, which leave vectors nearly empty.
 *
 * If all symbols are known, as in the encoder, contexts are found for a *run* of pixels at once:
 * pixels side by side for which the same neighbours are missing, so that the neighbours of the
 * whole run are four rows of memory at fixed distances. Every step below is a loop over a run.
 *
 * A decoder knows the symbols to the west last. It goes one symbol at a time and keeps what follows
 * from the west in registers.
 */
#include "static_cursor.h"

#ifndef IRS_SMALL_CODE

/* ---- runs of pixels -------------------------------------------------------------------------- */

#define MAX_RUN_SYMBOLS 512 /* a run stays in the nearest cache from step to step */
#define PREDICTION_BLOCK 64 /* symbols that are predicted together */

/* A chunk, row by row, and where in it we are. */
typedef struct row_cursor {
    const irs_rans_model *m;
    const irs_scratch *s;
    size_t width, height, x, y, pixel, pixels;
    uint16_t *sums_above, *sums; /* residual sums of the row before and of this row, by x */
    uint8_t row_of[256];         /* for each prediction, the row of its bin in a level's map */
    int16_t weights[4][PREDICTION_BLOCK]; /* of W, N, NW and NE, repeated for each pixel */
} row_cursor;

typedef struct pixel_run {
    size_t offset; /* of the first symbol in the chunk */
    uint32_t pixels;
    irs_neighbours neighbours;                 /* of the first pixel */
    const uint16_t *west, *north, *north_east; /* residual sums of its neighbours */
} pixel_run;

static void row_cursor_init(row_cursor *r, const irs_rans_model *m, const irs_geometry *g,
                            const irs_scratch *s, irs_chunk chunk) {
    size_t first = chunk.first / m->channels;
    r->m = m;
    r->s = s;
    r->width = g->width;
    r->height = g->height;
    r->x = first % g->width;
    r->y = first / g->width % g->height;
    r->pixel = 0;
    r->pixels = chunk.count / m->channels;
    memset(s->start, m->initial, (size_t)m->channels + IRS_PADDING);

    /* the memory for a ring of 32-bit sums has room for two rows of 16-bit ones */
    r->sums = (uint16_t *)(void *)s->sums;
    r->sums_above = r->sums + g->width;

    for (uint32_t prediction = 0, bin = 0; prediction < 256; prediction++) {
        while (bin + 1 < m->bins && prediction >= m->thresholds[bin]) {
            bin++;
        }
        r->row_of[prediction] = (uint8_t)(bin * m->channels);
    }
}

/* Pixels from here on for which the same neighbours are missing; at least one. */
static size_t run_length(const row_cursor *r, int has_west, int has_north, int has_north_west) {
    size_t channels = r->m->channels, width = r->width, x = r->x, pixel = r->pixel;
    if (!has_west || has_north != has_north_west || x + 1 >= width) {
        return 1;
    }

    /* up to the last pixel of the row, or to the first one whose north is in the chunk */
    size_t count = width - 1 - x;
    if (!has_north && pixel < width && width - pixel < count) {
        count = width - pixel;
    }
    count = count < MAX_RUN_SYMBOLS / channels ? count : MAX_RUN_SYMBOLS / channels;
    return count < r->pixels - pixel ? count : r->pixels - pixel;
}

/* The run that begins here. Missing pixels are replaced as in irs_cursor_context. One function for
 * both would make the encoder of a firmware larger than 4 KB. */
static pixel_run next_run(const row_cursor *r) {
    static const uint16_t none[1] = {0};
    size_t channels = r->m->channels, width = r->width, x = r->x, pixel = r->pixel;
    int has_west = x > 0 && pixel > 0, has_north = r->y > 0 && pixel >= width;
    int has_north_west = has_north && x > 0 && pixel > width;
    int has_north_east = has_north && x + 1 < width;

    const uint8_t *symbols = r->s->symbols + pixel * channels, *start = r->s->start;
    pixel_run run = {pixel * channels, 1, {start, start, start, start}, none, none, none};
    irs_neighbours *neighbours = &run.neighbours;
    if (has_west) {
        neighbours->west = neighbours->north = symbols - channels;
        run.west = run.north = r->sums + x - 1;
    }
    if (has_north) {
        neighbours->north = symbols - channels * width;
        run.north = r->sums_above + x;
        neighbours->west = has_west ? neighbours->west : neighbours->north;
        run.west = has_west ? run.west : run.north;
    }

    const uint8_t *above = neighbours->north;
    neighbours->north_west = has_north_west ? above - channels : above;
    neighbours->north_east = has_north_east ? above + channels : above;
    run.north_east = has_north_east ? run.north + 1 : run.north;
    run.pixels = (uint32_t)run_length(r, has_west, has_north, has_north_west);
    return run;
}

static void end_run(row_cursor *r, uint32_t pixels) {
    r->pixel += pixels;
    r->x += pixels;
    if (r->x == r->width) {
        uint16_t *above = r->sums_above;
        r->sums_above = r->sums;
        r->sums = above;
        r->x = 0;
        r->y = r->y + 1 == r->height ? 0 : r->y + 1;
    }
}

/* ---- contexts of known symbols --------------------------------------------------------------- */

/* Repeats the predictor's weights for a block of symbols. */
static void spread_weights(row_cursor *r) {
    const irs_rans_model *m = r->m;
    int linear = m->predictor == IRS_PREDICT_SHARED || m->predictor == IRS_PREDICT_LINEAR;
    for (uint32_t i = 0; linear && i < PREDICTION_BLOCK; i++) {
        const int8_t *a = (const int8_t *)(m->west_north + i % m->channels);
        const int8_t *b = (const int8_t *)(m->corners + i % m->channels);
        r->weights[0][i] = a[0];
        r->weights[1][i] = a[1];
        r->weights[2][i] = b[0];
        r->weights[3][i] = b[1];
    }
}

/* Predicts `size` symbols. Linear predictions are made in blocks of a fixed size, of which whole
 * pixels are kept; the next block overwrites what follows them. */
static void predict_run(const row_cursor *r, const irs_neighbours *neighbours, uint32_t size,
                        uint8_t *restrict base) {
    const uint8_t *w = neighbours->west, *n = neighbours->north;
    const uint8_t *nw = neighbours->north_west, *ne = neighbours->north_east;
    if (r->m->predictor == IRS_PREDICT_NONE) {
        memset(base, r->m->initial, size);
        return;
    }

    if (r->m->predictor == IRS_PREDICT_MED) {
        for (uint32_t i = 0; i < size; i++) {
            base[i] = irs_predict_med(w[i], n[i], nw[i]);
        }
        return;
    }

    uint32_t step = PREDICTION_BLOCK / r->m->channels * r->m->channels;
    const int16_t(*weights)[PREDICTION_BLOCK] = r->weights;
    for (uint32_t i = 0; i < size; i += step) {
        for (uint32_t k = 0; k < PREDICTION_BLOCK; k++) {
            base[k] = irs_predict_linear((int16_t)(weights[0][k] * w[k] + weights[1][k] * n[k]),
                                         (int16_t)(weights[2][k] * nw[k] + weights[3][k] * ne[k]));
        }
        w += step, n += step, nw += step, ne += step, base += step;
    }
}

/* Sums the residuals of each pixel. Its magnitudes, at most eight bytes, are loaded as one number,
 * added in pairs to four 16-bit fields, and these by a multiplication. */
static void sum_run(const uint8_t *magnitudes, uint32_t channels, uint32_t pixels,
                    uint16_t *restrict sums) {
    const uint64_t low_bytes = UINT64_C(0x00FF00FF00FF00FF);
    const uint64_t own_bytes = UINT64_MAX >> (64 - 8 * channels);
    for (uint32_t x = 0; x < pixels; x++, magnitudes += channels) {
        uint64_t eight = irs_load64(magnitudes) & own_bytes;
        uint64_t pairs = (eight & low_bytes) + (eight >> 8 & low_bytes);
        sums[x] = (uint16_t)(pairs * UINT64_C(0x0001000100010001) >> 48);
    }
}

/* Finds the level of each pixel by the sums of its neighbours, as an offset in the map. */
static void find_levels(const irs_rans_model *m, const uint16_t *w, const uint16_t *n,
                        const uint16_t *ne, uint32_t pixels, uint16_t *restrict offsets) {
    uint16_t activity[MAX_RUN_SYMBOLS], level_size = (uint16_t)(m->bins * m->channels);
    for (uint32_t x = 0; x < pixels; x++) {
        activity[x] = (uint16_t)(w[x] + n[x] + ne[x]);
        offsets[x] = 0;
    }

    for (uint32_t i = 0; i + 1 < m->levels; i++) {
        /* 65535 is more than any activity */
        uint32_t wide = m->activity[i];
        uint16_t threshold = wide < UINT16_MAX ? (uint16_t)wide : UINT16_MAX;
        for (uint32_t x = 0; x < pixels; x++) {
            offsets[x] = (uint16_t)(offsets[x] + (activity[x] >= threshold ? level_size : 0));
        }
    }
}

static void find_run_contexts(const row_cursor *r, const pixel_run *run) {
    uint32_t channels = r->m->channels, size = run->pixels * channels;
    const uint8_t *symbols = r->s->symbols + run->offset;
    uint8_t *base = r->s->coded + run->offset, *tables = r->s->tables + run->offset;
    uint8_t magnitudes[MAX_RUN_SYMBOLS + 8];
    uint16_t levels[MAX_RUN_SYMBOLS];

    predict_run(r, &run->neighbours, size, base);
    for (uint32_t i = 0; i < size; i++) {
        magnitudes[i] =
            (uint8_t)(symbols[i] > base[i] ? symbols[i] - base[i] : base[i] - symbols[i]);
    }
    sum_run(magnitudes, channels, run->pixels, r->sums + r->x);

    find_levels(r->m, run->west, run->north, run->north_east, run->pixels, levels);
    for (uint32_t x = 0, i = 0; x < run->pixels; x++) {
        const uint8_t *map = r->m->map + levels[x];
        for (uint32_t c = 0; c < channels; c++, i++) {
            tables[i] = map[r->row_of[base[i]] + c];
        }
    }

    for (uint32_t i = 0; i < size; i++) {
        base[i] = (uint8_t)(symbols[i] - base[i]);
    }
}

void irs_find_contexts_narrow(const irs_rans_model *m, const irs_geometry *g, const irs_scratch *s,
                              irs_chunk chunk) {
    row_cursor r;
    row_cursor_init(&r, m, g, s, chunk);
    spread_weights(&r);
    while (r.pixel < r.pixels) {
        pixel_run run = next_run(&r);
        find_run_contexts(&r, &run);
        end_run(&r, run.pixels);
    }
}

/* ---- decoding -------------------------------------------------------------------------------- */

#ifndef IRS_ENCODE_ONLY
/* Without a branch, which could not be predicted. */
static inline uint32_t absolute_difference(int32_t a, int32_t b) {
    int32_t sign = (a - b) >> 31;
    return (uint32_t)(((a - b) ^ sign) - sign);
}

/* The sum is split so that what the symbol to the west decides is added last: it is known last. */
static inline uint8_t predict_channel(const irs_rans_model *m, const irs_neighbours *neighbours,
                                      uint32_t c) {
    int32_t w = neighbours->west[c], n = neighbours->north[c];
    int32_t nw = neighbours->north_west[c], ne = neighbours->north_east[c];
    if (m->predictor == IRS_PREDICT_NONE) {
        return m->initial;
    }
    if (m->predictor == IRS_PREDICT_MED) {
        return irs_predict_med(w, n, nw);
    }

    const int8_t *a = (const int8_t *)(m->west_north + c), *b = (const int8_t *)(m->corners + c);
    int32_t value = (a[0] * w + (a[1] * n + b[0] * nw + b[1] * ne + 32)) >> 6;
    value = value < 0 ? 0 : value;
    return (uint8_t)(value > 255 ? 255 : value);
}

/* Decodes a run; returns 0 if the payload ends too early. `channels` are the model's; where they
 * are usual, callers pass a constant. */
static inline int decode_run(const row_cursor *r, const irs_rans_model *m, uint32_t channels,
                             const pixel_run *run, irs_stream *in) {
    uint32_t lanes = m->lanes, levels = m->levels, level_size = m->bins * channels;
    uint32_t residual = m->residual ? 0xFF : 0;
    uint32_t first = m->activity[0], second = m->activity[1];
    uint8_t *symbols = r->s->symbols + run->offset;
    uint16_t *sums = r->sums + r->x;

    /* symbols and sum to the west need not go through memory */
    uint32_t sum = run->west[0];
    uint8_t west[IRS_MAX_NARROW_CHANNELS];
    memcpy(west, run->neighbours.west, channels);
    irs_neighbours neighbours = run->neighbours;
    neighbours.west = west;

    for (uint32_t x = 0; x < run->pixels; x++, symbols += channels) {
        uint32_t activity = sum + run->north[x] + run->north_east[x];
        uint32_t level = (uint32_t)(activity >= first) + (uint32_t)(activity >= second);
        for (uint32_t i = 2; i + 1 < levels; i++) {
            level += activity >= m->activity[i];
        }

        const uint8_t *map = m->map + level * level_size;
        sum = 0;
        for (uint32_t c = 0; c < channels; c++) {
            uint8_t prediction = predict_channel(m, &neighbours, c), symbol;
            uint8_t table = map[r->row_of[prediction] + c];
            if (!irs_rans_decode_symbol(m, table, c & (lanes - 1), in, &symbol)) {
                return 0;
            }
            symbols[c] = west[c] = (uint8_t)(symbol + (prediction & residual));
            sum += absolute_difference(west[c], prediction);
        }

        sums[x] = (uint16_t)sum;
        neighbours.north += channels;
        neighbours.north_west += channels;
        neighbours.north_east += channels;
    }
    return 1;
}

irs_status irs_rans_decode_narrow(const irs_rans_model *model, const irs_geometry *g,
                                  const irs_scratch *s, irs_chunk chunk, irs_stream *in) {
    /* copies stay in registers: no symbol that is written could change them */
    const irs_rans_model copy = *model, *m = &copy;
    irs_stream stream = *in;
    row_cursor r;
    row_cursor_init(&r, m, g, s, chunk);

    while (r.pixel < r.pixels) {
        pixel_run run = next_run(&r);
        int ok = 0;
        switch (m->channels) {
        case 1: ok = decode_run(&r, m, 1, &run, &stream); break;
        case 3: ok = decode_run(&r, m, 3, &run, &stream); break;
        default: ok = decode_run(&r, m, m->channels, &run, &stream); break;
        }
        if (!ok) {
            return IRS_ERR_CORRUPT;
        }
        end_run(&r, run.pixels);
    }

    *in = stream;
    return IRS_OK;
}
#endif

#undef MAX_RUN_SYMBOLS
#undef PREDICTION_BLOCK
#endif
