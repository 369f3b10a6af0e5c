/* SPDX-License-Identifier: Apache-2.0
 *
 * static-rans for one chunk: which code the machine and the model take, and the steps in order.
 */
#include "static_rans.h"

/* Finds the pixels of a tensor. With channels before other axes, the last axis is the width and the
 * product of the others the height; with channels last or no channel axis, the two axes before are
 * height and width. Axes in front of them are images, which need no mention. */
void irs_geometry_init(irs_geometry *g, const irs_rans_model *m, uint32_t rank,
                       const uint32_t *dims) {
    uint32_t axis = m->channel_axis;
    g->channels = m->channels;
    g->plane = 0;
    g->width = 1;
    g->height = 1;

    if (axis != 0xFF && axis + 1 < rank) {
        size_t plane =
            1; /* may wrap for tensors too large for memory, of which only sizes are asked */
        for (uint32_t i = axis + 1; i < rank; i++) {
            plane *= dims[i];
        }
        g->width = dims[rank - 1];
        g->height = g->width == 0 ? 0 : plane / g->width;
        g->plane = plane;
        return;
    }

    uint32_t pixel_axes = axis == 0xFF ? rank : axis;
    g->width = pixel_axes >= 1 ? dims[pixel_axes - 1] : 1;
    g->height = pixel_axes >= 2 ? dims[pixel_axes - 2] : 1;
}

/* ---- choice of code -------------------------------------------------------------------------- */

static int is_narrow(const irs_rans_model *m) {
    return m->channels <= IRS_MAX_NARROW_CHANNELS && !irs_has_references(m);
}

/* Bytes of the widest vectors that are built, that the machine has, and that the model's lanes
 * fill; 0 if there are none. */
static uint32_t vector_size(const irs_rans_model *m) {
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

static void find_contexts(const irs_rans_model *m, const irs_geometry *g, const irs_scratch *s,
                          irs_chunk chunk) {
#ifndef IRS_SMALL_CODE
    if (m->channels <= IRS_MAX_RUN_CHANNELS && !irs_has_references(m)) {
        irs_find_contexts_narrow(m, g, s, chunk);
        return;
    }
#endif
    switch (vector_size(m)) {
#ifdef IRS_HAS_V256
    case 32: irs_find_contexts_v256(m, g, s, chunk); break;
#endif
#ifdef IRS_HAS_V128
    case 16: irs_find_contexts_v128(m, g, s, chunk); break;
#endif
    default: irs_find_contexts_portable(m, g, s, chunk); break;
    }
}

static irs_status encode_symbols(const irs_rans_model *m, const uint8_t *symbols, irs_tables tables,
                                 size_t pixels, uint8_t *buffer, uint8_t *target, size_t capacity,
                                 size_t *size) {
    switch (vector_size(m)) {
#ifdef IRS_HAS_V256
    case 32:
        return irs_rans_encode_v256(m, symbols, tables, pixels, buffer, target, capacity, size);
#endif
#ifdef IRS_HAS_V128
    case 16:
        return irs_rans_encode_v128(m, symbols, tables, pixels, buffer, target, capacity, size);
#endif
    default:
        return irs_rans_encode_portable(m, symbols, tables, pixels, buffer, target, capacity, size);
    }
}

#ifndef IRS_ENCODE_ONLY
static irs_status decode_symbols(const irs_rans_model *m, const irs_geometry *g,
                                 const irs_scratch *s, irs_chunk chunk, irs_stream *in) {
#ifndef IRS_SMALL_CODE
    if (is_narrow(m) && !irs_has_one_context(m)) {
        return irs_rans_decode_narrow(m, g, s, chunk, in);
    }
#endif
    switch (vector_size(m)) {
#ifdef IRS_HAS_V256
    case 32: return irs_rans_decode_v256(m, g, s, chunk, in);
#endif
#ifdef IRS_HAS_V128
    case 16: return irs_rans_decode_v128(m, g, s, chunk, in);
#endif
    default: return irs_rans_decode_portable(m, g, s, chunk, in);
    }
}
#endif

/* ---- scratch --------------------------------------------------------------------------------- */

/* Lays out the scratch of a chunk in `memory`, which may be null; returns its size. */
static uint64_t layout_scratch(irs_scratch *s, const irs_rans_model *m, const irs_geometry *g,
                               size_t count, uint8_t *memory) {
    irs_arena arena = {memory, 0, UINT64_MAX};
    uint64_t row = (uint64_t)m->channels + IRS_PADDING, all = (uint64_t)count + IRS_PADDING;
    s->symbols = irs_arena_alloc(&arena, all);
    s->coded = irs_arena_alloc(&arena, all);
    s->tables = irs_arena_alloc(&arena, all);
    s->buffer = irs_arena_alloc(&arena, irs_rans_buffer_size(count));
    s->start = irs_arena_alloc(&arena, row);
    s->base = irs_arena_alloc(&arena, row);
    s->refined = irs_arena_alloc(&arena, row);
    s->residuals = irs_arena_alloc(&arena, 2 * row);
    s->sums = irs_arena_alloc(&arena, 4 * ((uint64_t)g->width + 1));
    return irs_align_up(arena.used, IRS_ALIGNMENT);
}

uint64_t irs_rans_scratch_size(const irs_rans_model *m, const irs_geometry *g, size_t count) {
    irs_scratch counted;
    return count == 0 ? 0 : layout_scratch(&counted, m, g, count, NULL);
}

/* ---- encoding -------------------------------------------------------------------------------- */

irs_status irs_rans_encode_chunk(const irs_spec *spec, const irs_geometry *g, const uint8_t *tensor,
                                 irs_chunk chunk, uint8_t *memory, uint8_t *target, size_t capacity,
                                 size_t *size) {
    const irs_rans_model *m = spec->model;
    irs_scratch s;
    layout_scratch(&s, m, g, chunk.count, memory);

    /* wide elements: size of the remaining bits, then the bits */
    size_t head = 0, bits = 0, coded = 0;
    if (m->elements != IRS_ELEMENTS_BYTES) {
        head = 4;
        if (capacity < head) {
            return IRS_ERR_BUFFER;
        }
    }
    IRS_TRY(irs_split_elements(spec, g, tensor, chunk, s.symbols, target + head, capacity - head,
                               &bits));
    if (head != 0) {
        irs_store32(target, (uint32_t)bits);
    }
    head += bits;

    irs_tables tables = {m->map, 0};
    if (!irs_has_one_context(m)) {
        find_contexts(m, g, &s, chunk);
        tables.first = s.tables;
        tables.stride = m->channels;
    }

    const uint8_t *symbols = m->residual ? s.coded : s.symbols;
    size_t pixels = chunk.count / m->channels;
    IRS_TRY(encode_symbols(m, symbols, tables, pixels, s.buffer, target + head, capacity - head,
                           &coded));
    *size = head + coded;
    return IRS_OK;
}

/* ---- decoding -------------------------------------------------------------------------------- */

#ifndef IRS_ENCODE_ONLY
static irs_status open_stream(irs_stream *in, const irs_rans_model *m, const uint8_t *payload,
                              size_t size) {
    if (size < 4u * m->lanes) {
        return IRS_ERR_CORRUPT;
    }

    for (uint32_t lane = 0; lane < m->lanes; lane++) {
        in->states[lane] = irs_load32(payload + 4 * lane);
        if (in->states[lane] < IRS_LOW_STATE || in->states[lane] >> 31 != 0) {
            return IRS_ERR_CORRUPT;
        }
    }

    in->front = payload + 4u * m->lanes;
    in->back = in->end = payload + size;
    in->underflow = 0;
    return IRS_OK;
}

/* Whether a payload is used up: words and escapes meet, all states are where encoding began. */
static int is_spent(const irs_stream *in, const irs_rans_model *m) {
    uint32_t spent = 0;
    for (uint32_t lane = 0; lane < m->lanes; lane++) {
        spent += in->states[lane] == IRS_LOW_STATE;
    }
    return in->front == in->back && spent == m->lanes;
}

irs_status irs_rans_decode_chunk(const irs_spec *spec, const irs_geometry *g,
                                 const uint8_t *payload, size_t size, irs_chunk chunk,
                                 uint8_t *memory, uint8_t *tensor) {
    const irs_rans_model *m = spec->model;
    irs_scratch s;
    layout_scratch(&s, m, g, chunk.count, memory);

    size_t head = 0, bits = 0;
    if (m->elements != IRS_ELEMENTS_BYTES) {
        if (size < 4 || irs_load32(payload) > size - 4) {
            return IRS_ERR_CORRUPT;
        }
        head = 4;
        bits = irs_load32(payload);
    }

    irs_stream in;
    IRS_TRY(open_stream(&in, m, payload + head + bits, size - head - bits));
    IRS_TRY(decode_symbols(m, g, &s, chunk, &in));
    if (!is_spent(&in, m)) {
        return IRS_ERR_CORRUPT;
    }
    return irs_join_elements(spec, g, s.symbols, payload + head, bits, chunk, tensor);
}
#endif
