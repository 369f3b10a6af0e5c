/* A walk over the pixels of a part: where the neighbours' symbols lie, and how large the residuals around are. */
#ifndef IRS_STATIC_WALK_H
#define IRS_STATIC_WALK_H

#include "static_rans.h"

/* Where the pixel stands: its neighbours' symbols, and the activity around it. Nothing here lies behind a pointer to a structure:
 * symbols that are written could be part of it, for all that the compiler knows. */
typedef struct walk {
    size_t channels;
    uint32_t width, x;
    size_t height, y;
    size_t pixel;          /* within the part */
    const uint8_t *here;   /* its symbols */
    const uint8_t *start;  /* stands for missing pixels */
    uint32_t *sums;        /* ring of the last pixels' */
    uint32_t slot, window; /* of the ring */
    uint32_t last;         /* sum of the pixel before: what follows need not wait for the ring */
    const uint8_t *map;
    size_t rows; /* bytes of the map for one level */
    uint32_t activity[7], levels;
} walk;

static inline void begin(walk *w, const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    size_t first = part.first / m->channels;
    w->channels = m->channels;
    w->width = g->width;
    w->height = g->height;
    w->x = (uint32_t)(first % g->width);
    w->y = first / g->width % g->height;
    w->pixel = 0;
    w->here = s->symbols;
    w->start = s->start;
    w->sums = s->sums;
    w->slot = 0;
    w->window = g->width + 1;
    w->last = 0;
    w->map = m->map;
    w->rows = (size_t)m->bins * m->channels;
    memcpy(w->activity, m->activity, sizeof w->activity);
    w->levels = m->levels;
    memset(s->start, m->initial, (size_t)m->channels + IRS_PADDING);
}

static inline uint32_t sum_back(const walk *w, uint32_t back) {
    return w->sums[w->slot >= back ? w->slot - back : w->slot + w->window - back];
}

/* Pixels before the part are missing. West missing: north; north missing: west; both: `initial`; corners: north.
 * Returns the map's rows of bins for the activity around the pixel. */
static inline const uint8_t *look_around(const walk *w, irs_pixels *near) {
    int has_north = w->y > 0 && w->pixel >= w->width, has_west = w->x > 0 && w->pixel > 0;
    near->west = near->north = near->north_west = near->north_east = w->start;
    uint32_t west = 0, north = 0, north_east = 0;
    if (has_west) {
        near->west = near->north = w->here - w->channels;
        west = north = w->last;
    }
    if (has_north) {
        near->north = w->here - w->channels * w->width;
        north = sum_back(w, w->width);
        near->west = has_west ? near->west : near->north;
        west = has_west ? west : north;
    }
    int has_corner = has_north && w->x > 0 && w->pixel > w->width, has_east = has_north && w->x + 1 < w->width;
    near->north_west = has_corner ? near->north - w->channels : near->north;
    near->north_east = has_east ? near->north + w->channels : near->north;
    north_east = has_east ? sum_back(w, w->width - 1) : north;
    uint32_t activity = west + north + north_east;
    uint32_t level = activity >= w->activity[0]; /* no branch: it could not be predicted */
    level += activity >= w->activity[1];
    for (uint32_t i = 2; i + 1 < w->levels; i++) {
        level += activity >= w->activity[i];
    }
    return w->map + level * w->rows;
}

static inline void step(walk *w, uint32_t sum) {
    w->sums[w->slot] = sum;
    w->last = sum;
    w->slot = w->slot + 1 == w->window ? 0 : w->slot + 1;
    w->pixel++;
    w->here += w->channels;
    if (++w->x == w->width) {
        w->x = 0;
        w->y = w->y + 1 == w->height ? 0 : w->y + 1;
    }
}

static inline uint8_t med_one(int32_t w, int32_t n, int32_t nw) {
    int32_t low = w < n ? w : n, high = w < n ? n : w, plane = w + n - nw;
    return (uint8_t)(plane < low ? low : plane > high ? high : plane);
}

/* (one + two + 32) >> 6 within a byte; every intermediate result fits 16 bits, as its type says: more channels a vector. */
static inline uint8_t weigh_one(int16_t one, int16_t two) {
    int16_t mean = (int16_t)((one & two) + ((one ^ two) >> 1)); /* half of their sum, rounded down */
    int16_t rounded = (int16_t)(mean + 16), value = (int16_t)(rounded >> 5);
    int16_t most = value > 255 ? 255 : value;
    return (uint8_t)(most < 0 ? 0 : most);
}

/* Predictions of channels [first, first + count) improved by residuals of earlier channels. */
static inline void refine(const irs_model *m, const uint8_t *base, const int16_t *residuals, uint32_t first,
                              uint32_t count, uint8_t *restrict refined) {
    const uint16_t *reference = m->reference + 2 * (size_t)first;
    const int16_t *weight = m->reference_weight + 2 * (size_t)first;
    for (uint32_t c = 0; c < count; c++) {
        int32_t total = weight[2 * c] * residuals[reference[2 * c]] + weight[2 * c + 1] * residuals[reference[2 * c + 1]];
        int32_t value = base[first + c] + ((total + 32) >> 6);
        refined[c] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

#endif
