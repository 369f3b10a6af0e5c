/* static-rans, the whole of it for one part of a tensor: pixel by pixel, channels inside; contexts from earlier pixels. */
#include "static_rans.h"

#include "static_kernels.h"

void irs_geometry_of(irs_geometry *g, const irs_model *m, uint32_t rank, const uint32_t *dims) {
    uint32_t axis = m->channel_axis;
    g->channels = m->channels;
    g->plane = 0;
    g->width = 1;
    g->height = 1;
    if (axis != 0xFF && axis + 1 < rank) { /* channels before height and width */
        uint64_t plane = 1;
        for (uint32_t i = axis + 1; i < rank; i++) {
            plane *= dims[i];
        }
        g->width = dims[rank - 1];
        g->height = g->width == 0 ? 0 : plane / g->width;
        g->plane = plane;
        return;
    }
    uint32_t pixels = axis == 0xFF ? rank : axis; /* axes of pixels */
    g->width = pixels >= 1 ? dims[pixels - 1] : 1;
    g->height = pixels >= 2 ? dims[pixels - 2] : 1;
}

/* ---- scratch ------------------------------------------------------------------------------------------------------ */

typedef struct scratch {
    uint8_t *symbols; /* of the part, in pixel order */
    uint8_t *coded;   /* what the entropy coder codes */
    uint8_t *tables;
    uint8_t *room;    /* of the entropy coder */
    uint8_t *start;   /* a row of `initial`: stands for missing pixels */
    uint8_t *base;    /* predictions of one pixel */
    uint8_t *refined;
    int16_t *residuals; /* of one pixel */
    uint32_t *sums;     /* of the last width + 1 pixels */
} scratch;

static uint64_t lay_out(scratch *s, const irs_model *m, const irs_geometry *g, uint64_t count, uint8_t *memory) {
    uint64_t place = 0, row = align_up((uint64_t)m->channels + IRS_PADDING, 16);
    uint64_t plane = align_up(count + IRS_PADDING, 16), window = (uint64_t)g->width + 1;
    uint64_t sizes[] = {plane, plane, plane, irs_rans_room(count), row, row, row, 2 * row, 4 * window};
    uint64_t places[sizeof sizes / sizeof *sizes];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        places[i] = place;
        place += align_up(sizes[i], 16);
    }
    if (s != NULL) {
        s->symbols = memory + places[0];
        s->coded = memory + places[1];
        s->tables = memory + places[2];
        s->room = memory + places[3];
        s->start = memory + places[4];
        s->base = memory + places[5];
        s->refined = memory + places[6];
        s->residuals = (int16_t *)(void *)(memory + places[7]);
        s->sums = (uint32_t *)(void *)(memory + places[8]);
    }
    return place;
}

uint64_t irs_static_scratch(const irs_model *m, const irs_geometry *g, uint64_t count) {
    return count == 0 ? 0 : lay_out(NULL, m, g, count, NULL);
}

/* ---- a walk over the pixels of a part ----------------------------------------------------------------------------- */

/* Where the pixel stands: its neighbours' symbols, and the activity around it. */
typedef struct walk {
    const irs_model *m;
    uint32_t width, x;
    uint64_t height, y;
    uint64_t pixel;          /* within the part */
    uint32_t slot, window;   /* of the ring of sums */
    const scratch *s;
} walk;

static void begin(walk *w, const irs_model *m, const irs_geometry *g, const scratch *s, irs_part part) {
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

static inline void step(walk *w, uint32_t sum) {
    w->s->sums[w->slot] = sum;
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

/* ---- encoding ----------------------------------------------------------------------------------------------------- */

/* Symbols of the part to what is coded, and with which table. */
static inline void model_part(const irs_model *m, const irs_geometry *g, const scratch *s, irs_part part) {
    walk w;
    begin(&w, m, g, s, part);
    size_t channels = m->channels, pixels = part.count / channels;
    for (size_t pixel = 0; pixel < pixels; pixel++) {
        irs_pixels near;
        uint32_t activity = look_around(&w, &near);
        const uint8_t *here = s->symbols + pixel * channels, *prediction = s->base;
        irs_predict(m, &near, 0, m->channels, s->base);
        uint32_t sum = irs_residuals(here, s->base, m->channels, s->residuals);
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

static void model_plain(const irs_model *m, const scratch *s, irs_part part) {
    for (size_t i = 0; i < part.count; i += m->channels) {
        memcpy(s->tables + i, m->map, m->channels);
    }
}

irs_status irs_static_encode(const irs_spec *spec, const irs_geometry *g, const uint8_t *tensor, irs_part part,
                             uint8_t *memory, uint8_t *target, size_t capacity, size_t *size) {
    const irs_model *m = spec->model;
    scratch s;
    lay_out(&s, m, g, part.count, memory);
    size_t head = 0, bits = 0, coded = 0;
    if (m->elements != IRS_ELEMENTS_BYTES) {
        head = 4;
        if (capacity < head) {
            return IRS_ERR_BUFFER;
        }
    }
    IRS_TRY(irs_split(spec, g, tensor, part, s.symbols, target + head, capacity - head, &bits));
    if (head != 0) {
        store32(target, (uint32_t)bits);
    }
    if (is_plain(m)) {
        model_plain(m, &s, part);
    } else {
        model_part(m, g, &s, part);
    }
    const uint8_t *symbols = m->residual ? s.coded : s.symbols;
    head += bits;
    IRS_TRY(irs_rans_encode(m, symbols, s.tables, part.count / m->channels, s.room, target + head, capacity - head, &coded));
    *size = head + coded;
    return IRS_OK;
}

/* ---- decoding ----------------------------------------------------------------------------------------------------- */

#ifndef IRS_ENCODE_ONLY
/* Words from the front, escaped symbols from the back. */
typedef struct stream {
    const uint8_t *front, *back;
    uint32_t states[IRS_MAX_LANES];
} stream;

static irs_status open_stream(stream *in, const irs_model *m, const uint8_t *payload, size_t size) {
    if (size < 4u * m->lanes) {
        return IRS_ERR_CORRUPT;
    }
    for (uint32_t lane = 0; lane < m->lanes; lane++) {
        in->states[lane] = load32(payload + 4 * lane);
        if (in->states[lane] < IRS_LOW_STATE || in->states[lane] >> 31 != 0) {
            return IRS_ERR_CORRUPT;
        }
    }
    in->front = payload + 4u * m->lanes;
    in->back = payload + size;
    return IRS_OK;
}

static int is_spent(const stream *in, const irs_model *m) {
    uint32_t same = 0;
    for (uint32_t lane = 0; lane < m->lanes; lane++) {
        same += in->states[lane] == IRS_LOW_STATE;
    }
    return in->front == in->back && same == m->lanes;
}

/* Symbols of `count` channels at most as many as lanes; 0 when the payload ends too early. */
static inline int decode_lanes(const irs_model *m, const uint8_t *tables, uint32_t count, stream *in, uint8_t *symbols) {
    uint32_t bits = m->table_bits, mask = (UINT32_C(1) << bits) - 1;
    for (uint32_t lane = 0; lane < count; lane++) {
        uint32_t state = in->states[lane];
        uint32_t entry = m->decoder[((size_t)tables[lane] << bits) + (state & mask)];
        state = (entry >> 8 & 0x7FF) * (state >> bits) + (entry >> 19 & 0x7FF);
        if (state < IRS_LOW_STATE) {
            if ((size_t)(in->back - in->front) < 2) {
                return 0;
            }
            state = state << 16 | load16(in->front);
            in->front += 2;
        }
        in->states[lane] = state;
        symbols[lane] = (uint8_t)entry;
        if (entry >> 31) {
            if (in->back == in->front) {
                return 0;
            }
            symbols[lane] = *--in->back;
        }
    }
    return 1;
}

static inline irs_status decode_part(const irs_model *m, const irs_geometry *g, const scratch *s, irs_part part,
                                     stream *in) {
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
            sum += irs_residuals(here + c, s->base + c, count, s->residuals + c);
        }
        step(&w, sum);
    }
    return IRS_OK;
}

static irs_status decode_plain(const irs_model *m, const scratch *s, irs_part part, stream *in) {
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

irs_status irs_static_decode(const irs_spec *spec, const irs_geometry *g, const uint8_t *payload, size_t size,
                             irs_part part, uint8_t *memory, uint8_t *tensor) {
    const irs_model *m = spec->model;
    scratch s;
    lay_out(&s, m, g, part.count, memory);
    size_t head = 0, bits = 0;
    if (m->elements != IRS_ELEMENTS_BYTES) {
        if (size < 4 || load32(payload) > size - 4) {
            return IRS_ERR_CORRUPT;
        }
        head = 4;
        bits = load32(payload);
    }
    stream in;
    IRS_TRY(open_stream(&in, m, payload + head + bits, size - head - bits));
    if (is_plain(m)) {
        IRS_TRY(decode_plain(m, &s, part, &in));
    } else {
        IRS_TRY(decode_part(m, g, &s, part, &in));
    }
    if (!is_spent(&in, m)) {
        return IRS_ERR_CORRUPT;
    }
    return irs_join(spec, g, s.symbols, payload + head, bits, part, tensor);
}
#endif
