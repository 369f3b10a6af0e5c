/* SPDX-License-Identifier: Apache-2.0
 *
 * A cursor over the pixels of a chunk, and predictions of one channel: what the code for any
 * machine, for few channels and for vectors shares.
 *
 * Neighbours of a pixel are those to the west (W), north (N), north-west (NW) and north-east (NE).
 * Pixels before the chunk are missing. A missing W stands for N, a missing N for W, and if both are
 * missing, for a pixel of `initial` symbols; a missing NW or NE stands for N.
 *
 * The *activity* around a pixel is the sum of the magnitudes of the residuals of W, N and NE. It
 * says how well predictions work here and chooses a *level* of the model, whose rows of the map
 * give the frequency tables.
 */
#ifndef IRS_STATIC_CURSOR_H
#define IRS_STATIC_CURSOR_H

#include "static_rans.h"

/* Where in a chunk we are. All that the loops need is copied here: a structure behind a pointer
 * could be changed by any symbol that is written, for all that the compiler knows. */
typedef struct irs_cursor {
    size_t channels;
    uint32_t width, x;
    size_t height, y;
    size_t pixel;           /* within the chunk */
    const uint8_t *symbols; /* of this pixel */
    const uint8_t *start;   /* stands for missing pixels */

    uint32_t *sums;        /* ring of the residual sums of the last pixels */
    uint32_t slot, window; /* position in the ring, and its length */
    uint32_t last; /* sum of the pixel before, which is needed sooner than the ring has it */

    const uint8_t *map;
    size_t rows; /* bytes of the map for one level */
    uint32_t activity[7], levels;
} irs_cursor;

static inline void irs_cursor_init(irs_cursor *cursor, const irs_rans_model *m,
                                   const irs_geometry *g, const irs_scratch *s, irs_chunk chunk) {
    size_t first = chunk.first / m->channels;
    cursor->channels = m->channels;
    cursor->width = g->width;
    cursor->height = g->height;
    cursor->x = (uint32_t)(first % g->width);
    cursor->y = first / g->width % g->height;
    cursor->pixel = 0;
    cursor->symbols = s->symbols;
    cursor->start = s->start;
    memset(s->start, m->initial, (size_t)m->channels + IRS_PADDING);

    cursor->sums = s->sums;
    cursor->slot = 0;
    cursor->window = g->width + 1;
    cursor->last = 0;

    cursor->map = m->map;
    cursor->rows = (size_t)m->bins * m->channels;
    memcpy(cursor->activity, m->activity, sizeof cursor->activity);
    cursor->levels = m->levels;
}

/* The residual sum of the pixel `back` pixels ago. */
static inline uint32_t irs_cursor_sum(const irs_cursor *cursor, uint32_t back) {
    uint32_t slot = cursor->slot;
    return cursor->sums[slot >= back ? slot - back : slot + cursor->window - back];
}

/* Finds the neighbours of the pixel, and returns the rows of the map for the activity around it. */
static inline const uint8_t *irs_cursor_context(const irs_cursor *cursor,
                                                irs_neighbours *neighbours) {
    uint32_t width = cursor->width, x = cursor->x;
    size_t pixel = cursor->pixel, channels = cursor->channels;
    int has_north = cursor->y > 0 && pixel >= width, has_west = x > 0 && pixel > 0;
    uint32_t west = 0, north = 0, north_east = 0;

    neighbours->west = neighbours->north = cursor->start;
    if (has_west) {
        neighbours->west = neighbours->north = cursor->symbols - channels;
        west = north = cursor->last;
    }
    if (has_north) {
        neighbours->north = cursor->symbols - channels * width;
        north = irs_cursor_sum(cursor, width);
        neighbours->west = has_west ? neighbours->west : neighbours->north;
        west = has_west ? west : north;
    }

    int has_north_west = has_north && x > 0 && pixel > width;
    int has_north_east = has_north && x + 1 < width;
    const uint8_t *above = neighbours->north;
    neighbours->north_west = has_north_west ? above - channels : above;
    neighbours->north_east = has_north_east ? above + channels : above;
    north_east = has_north_east ? irs_cursor_sum(cursor, width - 1) : north;

    /* comparisons in place of branches, which could not be predicted */
    uint32_t activity = west + north + north_east;
    uint32_t level = activity >= cursor->activity[0];
    level += activity >= cursor->activity[1];
    for (uint32_t i = 2; i + 1 < cursor->levels; i++) {
        level += activity >= cursor->activity[i];
    }
    return cursor->map + level * cursor->rows;
}

/* Goes on to the next pixel; `sum` is the residual sum of this one. */
static inline void irs_cursor_advance(irs_cursor *cursor, uint32_t sum) {
    cursor->sums[cursor->slot] = sum;
    cursor->last = sum;
    cursor->slot = cursor->slot + 1 == cursor->window ? 0 : cursor->slot + 1;

    cursor->pixel++;
    cursor->symbols += cursor->channels;
    if (++cursor->x == cursor->width) {
        cursor->x = 0;
        cursor->y = cursor->y + 1 == cursor->height ? 0 : cursor->y + 1;
    }
}

/* ---- predictions ----------------------------------------------------------------------------- */

/* MED: W + N - NW, clamped to between W and N. It follows edges. */
static inline uint8_t irs_predict_med(int32_t w, int32_t n, int32_t nw) {
    int32_t low = w < n ? w : n, high = w < n ? n : w, plane = w + n - nw;
    return (uint8_t)(plane < low ? low : plane > high ? high : plane);
}

/* (one + two + 32) >> 6, clamped to a byte. Every intermediate result fits 16 bits, so that
 * compilers put more channels into a vector. */
static inline uint8_t irs_predict_linear(int16_t one, int16_t two) {
    int16_t mean = (int16_t)((one & two) + ((one ^ two) >> 1)); /* (one + two) >> 1 */
    int16_t rounded = (int16_t)(mean + 16), value = (int16_t)(rounded >> 5);
    int16_t most = value > 255 ? 255 : value;
    return (uint8_t)(most < 0 ? 0 : most);
}

/* Improves the predictions of channels [first, first + count) by the residuals of two earlier
 * channels each. */
static inline void irs_refine_predictions(const irs_rans_model *m, const uint8_t *base,
                                          const int16_t *residuals, uint32_t first, uint32_t count,
                                          uint8_t *restrict refined) {
    const uint16_t *reference = m->reference + 2 * (size_t)first;
    const int16_t *weight = m->reference_weight + 2 * (size_t)first;
    for (uint32_t c = 0; c < count; c++) {
        int32_t total = weight[2 * c] * residuals[reference[2 * c]] +
                        weight[2 * c + 1] * residuals[reference[2 * c + 1]];
        int32_t value = base[first + c] + ((total + 32) >> 6);
        refined[c] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

#endif
