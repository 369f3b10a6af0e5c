/* Coding of a part, written once and included by every path: the path's own kernels (irs_predict and so on) and IRS_TARGET,
 * the attribute that lets the compiler use its instructions, must be defined before. */
/* ---- a walk over the pixels of a part ----------------------------------------------------------------------------- */

/* Where the pixel stands: its neighbours' symbols, and the activity around it. */
typedef struct walk {
    const irs_model *m;
    uint32_t width, x;
    uint64_t height, y;
    uint64_t pixel;          /* within the part */
    uint32_t slot, window;   /* of the ring of sums */
    const irs_scratch *s;
} walk;

IRS_TARGET static inline void begin(walk *w, const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    uint64_t first = part.first / m->channels;
    w->m = m;
    w->width = g->width;
    w->height = g->height;
    w->x = (uint32_t)(first % g->width);
    w->y = first / g->width % g->height;
    w->pixel = 0;
    w->slot = 0;
    w->window = g->width + 1;
    w->s = s;
    memset(s->start, m->initial, (size_t)m->channels + IRS_PADDING);
}

IRS_TARGET static inline uint32_t sum_back(const walk *w, uint32_t back) {
    return w->s->sums[w->slot >= back ? w->slot - back : w->slot + w->window - back];
}

/* Pixels before the part are missing. West missing: north; north missing: west; both: `initial`; corners: north. */
IRS_TARGET static inline uint32_t look_around(const walk *w, irs_pixels *near) {
    size_t channels = w->m->channels;
    const uint8_t *here = w->s->symbols + w->pixel * channels;
    int has_north = w->y > 0 && w->pixel >= w->width, has_west = w->x > 0 && w->pixel > 0;
    near->west = near->north = near->north_west = near->north_east = w->s->start;
    uint32_t west = 0, north = 0, north_east = 0;
    if (has_west) {
        near->west = near->north = here - channels;
        west = north = sum_back(w, 1);
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

IRS_TARGET static inline void step(walk *w, uint32_t sum) {
    w->s->sums[w->slot] = sum;
    w->slot = w->slot + 1 == w->window ? 0 : w->slot + 1;
    w->pixel++;
    if (++w->x == w->width) {
        w->x = 0;
        w->y = w->y + 1 == w->height ? 0 : w->y + 1;
    }
}

IRS_TARGET static inline uint32_t level_of(const irs_model *m, uint32_t activity) {
    uint32_t level = 0;
    for (uint32_t i = 0; i + 1 < m->levels; i++) {
        level += activity >= m->activity[i];
    }
    return level;
}

/* ---- encoding ----------------------------------------------------------------------------------------------------- */

/* Symbols of the part to what is coded, and with which table. */
IRS_TARGET static inline void model_part(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    walk w;
    begin(&w, m, g, s, part);
    size_t channels = m->channels, pixels = part.count / channels;
    for (size_t pixel = 0; pixel < pixels; pixel++) {
        irs_pixels near;
        uint32_t activity = look_around(&w, &near);
        const uint8_t *here = s->symbols + pixel * channels, *prediction = s->base;
        irs_predict(m, &near, 0, m->channels, s->base);
        uint32_t sum = irs_residuals(m, here, s->base, m->channels, s->residuals);
        if (m->has_references) {
            irs_refine(m, s->base, s->residuals, 0, m->channels, s->refined);
            prediction = s->refined;
        }
        const uint8_t *map = m->map + (size_t)level_of(m, activity) * m->bins * channels;
        irs_choose_tables(m, map, prediction, 0, m->channels, s->tables + pixel * channels);
        if (m->residual) {
            irs_subtract(here, prediction, m->channels, s->coded + pixel * channels);
        }
        step(&w, sum);
    }
}

/* One table a channel and no prediction: level L0 needs no walk. */
static int is_plain(const irs_model *m) { return m->bins == 1 && m->levels == 1 && !m->residual; }

IRS_TARGET static inline void model_path(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    if (!is_plain(m)) {
        model_part(m, g, s, part);
        return;
    }
    for (size_t i = 0; i < part.count; i += m->channels) {
        memcpy(s->tables + i, m->map, m->channels);
    }
}

/* ---- decoding ----------------------------------------------------------------------------------------------------- */

#ifndef IRS_ENCODE_ONLY
IRS_TARGET static inline irs_status decode_part(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                     irs_stream *in) {
    walk w;
    begin(&w, m, g, s, part);
    size_t channels = m->channels, pixels = part.count / channels;
    uint32_t lanes = m->lanes;
    for (size_t pixel = 0; pixel < pixels; pixel++) {
        irs_pixels near;
        const uint8_t *map = m->map + (size_t)level_of(m, look_around(&w, &near)) * m->bins * channels;
        uint8_t *here = s->symbols + pixel * channels;
        irs_predict(m, &near, 0, m->channels, s->base);
        uint32_t sum = 0;
        for (uint32_t c = 0; c < m->channels; c += lanes) {
            uint32_t count = m->channels - c < lanes ? m->channels - c : lanes;
            const uint8_t *prediction = s->base + c;
            if (m->has_references) {
                irs_refine(m, s->base, s->residuals, c, count, s->refined);
                prediction = s->refined;
            }
            irs_choose_tables(m, map, prediction, c, count, s->tables);
            if (!decode_lanes(m, s->tables, count, in, here + c)) {
                return IRS_ERR_CORRUPT;
            }
            if (m->residual) {
                irs_add(prediction, count, here + c);
            }
            sum += irs_residuals(m, here + c, s->base + c, count, s->residuals + c);
        }
        step(&w, sum);
    }
    return IRS_OK;
}

IRS_TARGET static inline irs_status decode_plain(const irs_model *m, const irs_scratch *s, irs_part part, irs_stream *in) {
    for (size_t i = 0; i < part.count; i += m->channels) {
        for (uint32_t c = 0; c < m->channels; c += m->lanes) {
            uint32_t count = m->channels - c < m->lanes ? m->channels - c : m->lanes;
            if (!decode_lanes(m, m->map + c, count, in, s->symbols + i + c)) {
                return IRS_ERR_CORRUPT;
            }
        }
    }
    return IRS_OK;
}

IRS_TARGET static inline irs_status decode_path(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                         irs_stream *in) {
    return is_plain(m) ? decode_plain(m, s, part, in) : decode_part(m, g, s, part, in);
}
#endif
