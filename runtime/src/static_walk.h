/* A walk over the pixels of a part: where the neighbours' symbols lie, and how large the residuals around are. */
#ifndef IRS_STATIC_WALK_H
#define IRS_STATIC_WALK_H

#include "static_rans.h"

/* Where the pixel stands: its neighbours' symbols, and the activity around it. */
typedef struct walk {
    const irs_model *m;
    uint32_t width, x;
    size_t height, y;
    size_t pixel;          /* within the part */
    uint32_t slot, window;   /* of the ring of sums */
    uint32_t last;           /* sum of the pixel before: what follows need not wait for the ring */
    const irs_scratch *s;
} walk;

static inline void begin(walk *w, const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    size_t first = part.first / m->channels;
    w->m = m;
    w->width = g->width;
    w->height = g->height;
    w->x = (uint32_t)(first % g->width);
    w->y = first / g->width % g->height;
    w->pixel = 0;
    w->slot = 0;
    w->last = 0;
    w->window = g->width + 1;
    w->s = s;
    memset(s->start, m->initial, (size_t)m->channels + IRS_PADDING);
}

static inline uint32_t sum_back(const walk *w, uint32_t back) {
    return w->s->sums[w->slot >= back ? w->slot - back : w->slot + w->window - back];
}

/* Pixels before the part are missing. West missing: north; north missing: west; both: `initial`; corners: north. */
static inline uint32_t look_around(const walk *w, irs_pixels *near) {
    size_t channels = w->m->channels;
    const uint8_t *here = w->s->symbols + w->pixel * channels;
    int has_north = w->y > 0 && w->pixel >= w->width, has_west = w->x > 0 && w->pixel > 0;
    near->west = near->north = near->north_west = near->north_east = w->s->start;
    uint32_t west = 0, north = 0, north_east = 0;
    if (has_west) {
        near->west = near->north = here - channels;
        west = north = w->last;
    }
    if (has_north) {
        near->north = here - channels * w->width;
        north = sum_back(w, w->width);
        near->west = has_west ? near->west : near->north;
        west = has_west ? west : north;
    }
    int has_corner = has_north && w->x > 0 && w->pixel > w->width, has_east = has_north && w->x + 1 < w->width;
    near->north_west = has_corner ? near->north - channels : near->north;
    near->north_east = has_east ? near->north + channels : near->north;
    north_east = has_east ? sum_back(w, w->width - 1) : north;
    return west + north + north_east;
}

static inline void step(walk *w, uint32_t sum) {
    w->s->sums[w->slot] = sum;
    w->last = sum;
    w->slot = w->slot + 1 == w->window ? 0 : w->slot + 1;
    w->pixel++;
    if (++w->x == w->width) {
        w->x = 0;
        w->y = w->y + 1 == w->height ? 0 : w->y + 1;
    }
}

static inline uint32_t level_of(const irs_model *m, uint32_t activity) {
    uint32_t level = 0;
    for (uint32_t i = 0; i + 1 < m->levels; i++) {
        level += activity >= m->activity[i];
    }
    return level;
}

#endif
