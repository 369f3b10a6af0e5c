/* Few channels leave vectors nearly empty. Contexts of known symbols are found for a run of pixels at once; decoding, where the
 * symbol to the west comes last, goes one symbol at a time. */
#include "static_cursor.h"

#ifndef IRS_SMALL
static inline uint8_t predict_one(const irs_model *m, const irs_pixels *near, uint32_t c) {
    int32_t w = near->west[c], n = near->north[c], nw = near->north_west[c], ne = near->north_east[c];
    if (m->predictor == IRS_PREDICT_NONE) {
        return m->initial;
    }
    if (m->predictor == IRS_PREDICT_MED) {
        return med_one(w, n, nw);
    }
    const int8_t *a = (const int8_t *)(m->west_north + c), *b = (const int8_t *)(m->corners + c);
    int32_t value = (a[0] * w + (a[1] * n + b[0] * nw + b[1] * ne + 32)) >> 6; /* the symbol to the west comes last */
    value = value < 0 ? 0 : value;
    return (uint8_t)(value > 255 ? 255 : value);
}

/* ---- runs of pixels -------------------------------------------------------------------------------------------------- */

#define PIECE 512 /* symbols of a run at most: they stay in the nearest cache from step to step */
#define BLOCK 64  /* symbols predicted together: whole pixels, and what follows up to here, which is overwritten later */

/* A part, row by row, and where in it we are. */
typedef struct rows {
    const irs_model *m;
    const irs_scratch *s;
    size_t width, height, x, y, pixel, pixels;
    uint16_t *above, *sums;    /* sums of the residuals of the row before and of this one, by x */
    uint8_t row_of[256];       /* for each prediction the place of its bin in the rows of a level */
    int16_t weights[4][BLOCK]; /* of W, N, NW and NE, those of a pixel over and over */
} rows;

/* Pixels side by side for which the same neighbours are missing. */
typedef struct run {
    size_t place;
    uint32_t pixels;
    irs_pixels near;                           /* of the first of them */
    const uint16_t *west, *north, *north_east; /* sums of their neighbours */
} run;

static void begin_rows(rows *r, const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    size_t first = part.first / m->channels;
    r->m = m;
    r->s = s;
    r->width = g->width;
    r->height = g->height;
    r->x = first % g->width;
    r->y = first / g->width % g->height;
    r->pixel = 0;
    r->pixels = part.count / m->channels;
    r->sums = (uint16_t *)(void *)s->sums; /* the ring of a walk has room for two rows of half its words */
    r->above = r->sums + g->width;
    memset(s->start, m->initial, (size_t)m->channels + IRS_PADDING);
    for (uint32_t prediction = 0, bin = 0; prediction < 256; prediction++) {
        while (bin + 1 < m->bins && prediction >= m->thresholds[bin]) {
            bin++;
        }
        r->row_of[prediction] = (uint8_t)(bin * m->channels);
    }
}

/* The run that begins where we are. What is missing is replaced as look_around (static_cursor.h) does it; one function for both
 * would take the encoder of firmwares beyond 4 KB. */
static run next_run(const rows *r) {
    static const uint16_t none[1] = {0};
    size_t channels = r->m->channels, width = r->width, x = r->x, pixel = r->pixel, count = 1;
    int has_west = x > 0 && pixel > 0, has_north = r->y > 0 && pixel >= width;
    int has_corner = has_north && x > 0 && pixel > width, has_east = has_north && x + 1 < width;
    const uint8_t *here = r->s->symbols + pixel * channels, *start = r->s->start;
    run next = {pixel * channels, 1, {start, start, start, start}, none, none, none};
    if (has_west) {
        next.near.west = next.near.north = here - channels;
        next.west = next.north = r->sums + x - 1;
    }
    if (has_north) {
        next.near.north = here - channels * width;
        next.north = r->above + x;
        next.near.west = has_west ? next.near.west : next.near.north;
        next.west = has_west ? next.west : next.north;
    }
    next.near.north_west = has_corner ? next.near.north - channels : next.near.north;
    next.near.north_east = has_east ? next.near.north + channels : next.near.north;
    next.north_east = has_east ? next.north + 1 : next.north;
    if (has_west && has_north == has_corner && x + 1 < width) { /* the same holds up to the last pixel of the row */
        count = has_north || pixel >= width || width - 1 - x < width - pixel ? width - 1 - x : width - pixel;
        count = count < PIECE / channels ? count : PIECE / channels;
        count = count < r->pixels - pixel ? count : r->pixels - pixel;
    }
    next.pixels = (uint32_t)count;
    return next;
}

static void end_run(rows *r, uint32_t pixels) {
    r->pixel += pixels;
    r->x += pixels;
    if (r->x == r->width) {
        uint16_t *other = r->above;
        r->above = r->sums;
        r->sums = other;
        r->x = 0;
        r->y = r->y + 1 == r->height ? 0 : r->y + 1;
    }
}

/* ---- contexts of known symbols -------------------------------------------------------------------------------------- */

/* The predictor's weights for a block of symbols. */
static void spread_weights(rows *r) {
    const irs_model *m = r->m;
    int linear = m->predictor == IRS_PREDICT_SHARED || m->predictor == IRS_PREDICT_LINEAR;
    for (uint32_t i = 0; linear && i < BLOCK; i++) {
        const int8_t *a = (const int8_t *)(m->west_north + i % m->channels), *b = (const int8_t *)(m->corners + i % m->channels);
        r->weights[0][i] = a[0];
        r->weights[1][i] = a[1];
        r->weights[2][i] = b[0];
        r->weights[3][i] = b[1];
    }
}

static void predict_run(const rows *r, const irs_pixels *near, uint32_t size, uint8_t *restrict base) {
    const uint8_t *w = near->west, *n = near->north, *nw = near->north_west, *ne = near->north_east;
    if (r->m->predictor == IRS_PREDICT_NONE) {
        memset(base, r->m->initial, size);
    } else if (r->m->predictor == IRS_PREDICT_MED) {
        for (uint32_t i = 0; i < size; i++) {
            base[i] = med_one(w[i], n[i], nw[i]);
        }
    } else {
        uint32_t block = BLOCK / r->m->channels * r->m->channels;
        const int16_t(*of)[BLOCK] = r->weights;
        for (uint32_t i = 0; i < size; i += block, w += block, n += block, nw += block, ne += block, base += block) {
            for (uint32_t k = 0; k < BLOCK; k++) {
                base[k] = weigh_one((int16_t)(of[0][k] * w[k] + of[1][k] * n[k]), (int16_t)(of[2][k] * nw[k] + of[3][k] * ne[k]));
            }
        }
    }
}

/* Sum of each pixel's magnitudes, of which there are eight a pixel at most. */
static void sum_run(const uint8_t *magnitudes, uint32_t channels, uint32_t pixels, uint16_t *restrict sums) {
    const uint64_t low = UINT64_C(0x00FF00FF00FF00FF), own = UINT64_MAX >> (64 - 8 * channels);
    for (uint32_t x = 0; x < pixels; x++, magnitudes += channels) {
        uint64_t eight = load64(magnitudes) & own, pairs = (eight & low) + (eight >> 8 & low);
        sums[x] = (uint16_t)(pairs * UINT64_C(0x0001000100010001) >> 48);
    }
}

/* For each pixel the place of its level in the map, by the sums of its neighbours. */
static void find_levels(const irs_model *m, const uint16_t *w, const uint16_t *n, const uint16_t *ne, uint32_t pixels,
                        uint16_t *restrict places) {
    uint16_t activity[PIECE], size = (uint16_t)(m->bins * m->channels);
    for (uint32_t x = 0; x < pixels; x++) {
        activity[x] = (uint16_t)(w[x] + n[x] + ne[x]);
        places[x] = 0;
    }
    for (uint32_t i = 0; i + 1 < m->levels; i++) {
        uint16_t from = m->activity[i] < UINT16_MAX ? (uint16_t)m->activity[i] : UINT16_MAX; /* more than any activity */
        for (uint32_t x = 0; x < pixels; x++) {
            places[x] = (uint16_t)(places[x] + (activity[x] >= from ? size : 0));
        }
    }
}

static void model_run(const rows *r, const run *now) {
    uint32_t channels = r->m->channels, size = now->pixels * channels;
    const uint8_t *here = r->s->symbols + now->place;
    uint8_t *base = r->s->coded + now->place, *tables = r->s->tables + now->place, magnitudes[PIECE + 8];
    uint16_t places[PIECE];
    predict_run(r, &now->near, size, base);
    for (uint32_t i = 0; i < size; i++) {
        magnitudes[i] = (uint8_t)(here[i] > base[i] ? here[i] - base[i] : base[i] - here[i]);
    }
    sum_run(magnitudes, channels, now->pixels, r->sums + r->x);
    find_levels(r->m, now->west, now->north, now->north_east, now->pixels, places);
    for (uint32_t x = 0, i = 0; x < now->pixels; x++) {
        const uint8_t *map = r->m->map + places[x];
        for (uint32_t c = 0; c < channels; c++, i++) {
            tables[i] = map[r->row_of[base[i]] + c];
        }
    }
    for (uint32_t i = 0; i < size; i++) {
        base[i] = (uint8_t)(here[i] - base[i]);
    }
}

void irs_model_narrow(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    rows r;
    begin_rows(&r, m, g, s, part);
    spread_weights(&r);
    while (r.pixel < r.pixels) {
        run now = next_run(&r);
        model_run(&r, &now);
        end_run(&r, now.pixels);
    }
}

/* ---- decoding ------------------------------------------------------------------------------------------------------- */

#ifndef IRS_ENCODE_ONLY
/* without a branch, which could not be predicted */
static inline uint32_t distance(int32_t a, int32_t b) {
    int32_t sign = (a - b) >> 31;
    return (uint32_t)(((a - b) ^ sign) - sign);
}

/* `channels` are the model's, as a constant where they are usual. */
static inline int decode_run(const rows *r, const irs_model *m, uint32_t channels, const run *now, irs_stream *in) {
    uint32_t lanes = m->lanes, residual = m->residual ? 0xFF : 0, levels = m->levels, size = m->bins * channels;
    uint32_t first = m->activity[0], second = m->activity[1];
    uint8_t *here = r->s->symbols + now->place;
    uint16_t *sums = r->sums + r->x;
    uint32_t sum = now->west[0]; /* this and the symbols to the west need not go through memory */
    uint8_t west[IRS_NARROW];
    irs_pixels near = {west, now->near.north, now->near.north_west, now->near.north_east};
    memcpy(west, now->near.west, channels);
    for (uint32_t x = 0; x < now->pixels; x++, here += channels) {
        uint32_t activity = sum + now->north[x] + now->north_east[x];
        sum = 0;
        uint32_t level = (uint32_t)(activity >= first) + (uint32_t)(activity >= second); /* no branch: it could not be predicted */
        for (uint32_t i = 2; i + 1 < levels; i++) {
            level += activity >= m->activity[i];
        }
        const uint8_t *map = m->map + level * size;
        for (uint32_t c = 0; c < channels; c++) {
            uint8_t prediction = predict_one(m, &near, c), symbol;
            if (!irs_decode_symbol(m, map[r->row_of[prediction] + c], c & (lanes - 1), in, &symbol)) {
                return 0;
            }
            here[c] = west[c] = (uint8_t)(symbol + (prediction & residual));
            sum += distance(west[c], prediction);
        }
        sums[x] = (uint16_t)sum;
        near.north += channels;
        near.north_west += channels;
        near.north_east += channels;
    }
    return 1;
}

irs_status irs_decode_narrow(const irs_model *model, const irs_geometry *g, const irs_scratch *s, irs_part part, irs_stream *in) {
    const irs_model copy = *model, *m = &copy; /* in registers: no symbol that is written could change it */
    irs_stream stream = *in;
    rows r;
    begin_rows(&r, m, g, s, part);
    while (r.pixel < r.pixels) {
        run now = next_run(&r);
        if (!(m->channels == 1   ? decode_run(&r, m, 1, &now, &stream)
              : m->channels == 3 ? decode_run(&r, m, 3, &now, &stream)
                                 : decode_run(&r, m, m->channels, &now, &stream))) {
            return IRS_ERR_CORRUPT;
        }
        end_run(&r, now.pixels);
    }
    *in = stream;
    return IRS_OK;
}
#endif
#endif
