/* static-rans, the whole of it for one part of a tensor: pixel by pixel, channels inside; contexts from earlier pixels. */
#include "static_rans.h"

void irs_geometry_of(irs_geometry *g, const irs_model *m, uint32_t rank, const uint32_t *dims) {
    uint32_t axis = m->channel_axis;
    g->channels = m->channels;
    g->plane = 0;
    g->width = 1;
    g->height = 1;
    if (axis != 0xFF && axis + 1 < rank) { /* channels before height and width */
        size_t plane = 1; /* of a tensor in memory; of one that is too large nothing but sizes is asked */
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

static int is_narrow(const irs_model *m) { return m->channels <= IRS_NARROW && !irs_has_references(m); }

/* Bytes of the widest vectors that were built, that the machine has and that the model's states fill; 0: none. */
static uint32_t vector_size(const irs_model *m) {
    if (is_narrow(m)) {
        return 0;
    }
#ifdef IRS_HAS_V256
    if (m->lanes >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) {
        return 32;
    }
#endif
#if defined(IRS_HAS_V128) && defined(__x86_64__)
    return m->lanes >= 4 && __builtin_cpu_supports("sse4.1") ? 16 : 0;
#elif defined(IRS_HAS_V128)
    return m->lanes >= 4 ? 16 : 0;
#else
    return 0;
#endif
}

/* What is not built is never called. */
#ifndef IRS_HAS_V256
#define irs_model_v256 irs_model_portable
#define irs_encode_v256 irs_encode_portable
#define irs_decode_v256 irs_decode_portable
#endif
#ifndef IRS_HAS_V128
#define irs_model_v128 irs_model_portable
#define irs_encode_v128 irs_encode_portable
#define irs_decode_v128 irs_decode_portable
#endif
#ifdef IRS_SMALL
#define irs_model_narrow irs_model_portable
#define irs_decode_narrow irs_decode_portable
#endif

static void model_part(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    if (m->channels <= IRS_FEW && !irs_has_references(m)) {
        irs_model_narrow(m, g, s, part);
        return;
    }
    switch (vector_size(m)) {
    case 32: irs_model_v256(m, g, s, part); break;
    case 16: irs_model_v128(m, g, s, part); break;
    default: irs_model_portable(m, g, s, part); break;
    }
}

static irs_status encode_part(const irs_model *m, const uint8_t *symbols, irs_tables tables, size_t pixels, uint8_t *room,
                              uint8_t *target, size_t capacity, size_t *size) {
    switch (vector_size(m)) {
    case 32: return irs_encode_v256(m, symbols, tables, pixels, room, target, capacity, size);
    case 16: return irs_encode_v128(m, symbols, tables, pixels, room, target, capacity, size);
    default: return irs_encode_portable(m, symbols, tables, pixels, room, target, capacity, size);
    }
}

#ifndef IRS_ENCODE_ONLY
static irs_status decode_part(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part, irs_stream *in) {
    if (is_narrow(m) && !irs_is_plain(m)) {
        return irs_decode_narrow(m, g, s, part, in);
    }
    switch (vector_size(m)) {
    case 32: return irs_decode_v256(m, g, s, part, in);
    case 16: return irs_decode_v128(m, g, s, part, in);
    default: return irs_decode_portable(m, g, s, part, in);
    }
}
#endif

/* ---- scratch ------------------------------------------------------------------------------------------------------ */

static uint64_t lay_out(irs_scratch *s, const irs_model *m, const irs_geometry *g, size_t count, uint8_t *memory) {
    irs_arena arena = {memory, 0, UINT64_MAX};
    uint64_t row = (uint64_t)m->channels + IRS_PADDING, plane = (uint64_t)count + IRS_PADDING;
    s->symbols = irs_allot(&arena, plane);
    s->coded = irs_allot(&arena, plane);
    s->tables = irs_allot(&arena, plane);
    s->room = irs_allot(&arena, irs_rans_room(count));
    s->start = irs_allot(&arena, row);
    s->base = irs_allot(&arena, row);
    s->refined = irs_allot(&arena, row);
    s->residuals = irs_allot(&arena, 2 * row);
    s->sums = irs_allot(&arena, 4 * ((uint64_t)g->width + 1));
    return align_up(arena.used, IRS_ALIGNMENT);
}

uint64_t irs_static_scratch(const irs_model *m, const irs_geometry *g, size_t count) {
    irs_scratch counted;
    return count == 0 ? 0 : lay_out(&counted, m, g, count, NULL);
}

/* ---- encoding and decoding ----------------------------------------------------------------------------------------- */

irs_status irs_static_encode(const irs_spec *spec, const irs_geometry *g, const uint8_t *tensor, irs_part part,
                             uint8_t *memory, uint8_t *target, size_t capacity, size_t *size) {
    const irs_model *m = spec->model;
    irs_scratch s;
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
    irs_tables tables = {m->map, 0};
    if (!irs_is_plain(m)) {
        model_part(m, g, &s, part);
        tables.of = s.tables;
        tables.stride = m->channels;
    }
    const uint8_t *symbols = m->residual ? s.coded : s.symbols;
    head += bits;
    size_t pixels = part.count / m->channels;
    IRS_TRY(encode_part(m, symbols, tables, pixels, s.room, target + head, capacity - head, &coded));
    *size = head + coded;
    return IRS_OK;
}

#ifndef IRS_ENCODE_ONLY
static irs_status open_stream(irs_stream *in, const irs_model *m, const uint8_t *payload, size_t size) {
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
    in->back = in->end = payload + size;
    in->starved = 0;
    return IRS_OK;
}

static int is_spent(const irs_stream *in, const irs_model *m) {
    uint32_t same = 0;
    for (uint32_t lane = 0; lane < m->lanes; lane++) {
        same += in->states[lane] == IRS_LOW_STATE;
    }
    return in->front == in->back && same == m->lanes;
}

irs_status irs_static_decode(const irs_spec *spec, const irs_geometry *g, const uint8_t *payload, size_t size,
                             irs_part part, uint8_t *memory, uint8_t *tensor) {
    const irs_model *m = spec->model;
    irs_scratch s;
    lay_out(&s, m, g, part.count, memory);
    size_t head = 0, bits = 0;
    if (m->elements != IRS_ELEMENTS_BYTES) {
        if (size < 4 || load32(payload) > size - 4) {
            return IRS_ERR_CORRUPT;
        }
        head = 4;
        bits = load32(payload);
    }
    irs_stream in;
    IRS_TRY(open_stream(&in, m, payload + head + bits, size - head - bits));
    IRS_TRY(decode_part(m, g, &s, part, &in));
    if (!is_spent(&in, m)) {
        return IRS_ERR_CORRUPT;
    }
    return irs_join(spec, g, s.symbols, payload + head, bits, part, tensor);
}
#endif
