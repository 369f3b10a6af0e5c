/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding with vectors, contexts included; compiled once for each size of vectors, like
 * static_vector.h.
 *
 * A vector holds the states of VEC_LANES lanes. Lanes that renormalise take their words from the
 * front of the payload in rising order, so that one load and one shuffle refill all of them.
 */

/* A payload while it is decoded, with the states in registers where vectors are wide. Functions
 * that are not inlined work on a copy in memory (irs_stream). */
typedef struct vec_stream {
    const uint8_t *front, *back, *end;
    vec states[IRS_MAX_LANES / VEC_LANES];
    int underflow;
} vec_stream;

VEC_INLINE void vec_stream_save(const vec_stream *r, irs_stream *in) {
    in->front = r->front;
    in->back = r->back;
    in->end = r->end;
    in->underflow = r->underflow;
    for (uint32_t k = 0; k < IRS_MAX_LANES / VEC_LANES; k++) {
        vec_store(in->states + VEC_LANES * k, r->states[k]);
    }
}

VEC_INLINE void vec_stream_load(vec_stream *r, const irs_stream *in) {
    r->front = in->front;
    r->back = in->back;
    r->end = in->end;
    r->underflow = in->underflow;
    for (uint32_t k = 0; k < IRS_MAX_LANES / VEC_LANES; k++) {
        r->states[k] = vec_load(in->states + VEC_LANES * k);
    }
}

/* ---- a row of symbols ------------------------------------------------------------------------ */

/* Replaces the entries of escapes, in the order of lanes, by the escaped symbols; symbols that the
 * payload no longer has become 0. */
VEC_TARGET static vec vec_take_escapes(vec entries, uint32_t escapes, const uint8_t *front,
                                       const uint8_t **back) {
    uint32_t symbols[VEC_LANES];
    vec_store(symbols, entries);
    for (; escapes != 0; escapes &= escapes - 1) {
        int is_left = *back > front;
        *back -= is_left;
        symbols[__builtin_ctz(escapes)] = is_left ? **back : 0;
    }
    return vec_load(symbols);
}

/* Decodes one symbol at a time: near the end of the payload, where a load of words could go beyond
 * it. */
VEC_TARGET static vec vec_decode_slowly(const irs_rans_model *m, vec tables, uint32_t first,
                                        uint32_t count, irs_stream *in) {
    uint8_t numbers[VEC_SIZE], symbols[VEC_SIZE] = {0};
    vec_store(numbers, tables);
    for (uint32_t i = 0; i < count && !in->underflow; i++) {
        uint32_t lane = (first + i) & (m->lanes - 1u);
        in->underflow |= !irs_rans_decode_symbol(m, numbers[i], lane, in, symbols + i);
    }
    return vec_load(symbols);
}

/* Decodes a quarter of a row. Unless `all` is set, only the lanes in `active` have a symbol. The
 * caller has checked that there are words to read. Returns decoder entries, whose lowest bytes are
 * the symbols. */
VEC_INLINE vec vec_decode_quarter(const irs_rans_model *m, vec tables, int all, vec active,
                                  vec *states, vec_stream *r) {
    vec old = *states, eleven_bits = vec_set_u32(0x7FF);
    vec slot = vec_and(old, vec_set_u32((UINT32_C(1) << m->table_bits) - 1));
    vec index = vec_add(vec_shl(tables, m->table_bits), slot);
    index = all ? index : vec_and(index, active);
    vec entry = vec_gather(m->decoder, index);

    vec frequency = vec_and(vec_shr(entry, 8), eleven_bits);
    vec offset = vec_and(vec_shr(entry, 19), eleven_bits);
    vec state = vec_add(vec_mul(frequency, vec_shr(old, m->table_bits)), offset);

    vec renormalise = vec_cmpgt(vec_set_u32(IRS_LOW_STATE), state);
    renormalise = all ? renormalise : vec_and(renormalise, active);
    uint32_t refill = vec_movemask(renormalise);
    vec refilled = vec_or(vec_shl(state, 16), vec_refill_words(r->front, refill));
    state = vec_select(renormalise, refilled, state);
    *states = all ? state : vec_select(active, state, old);
    r->front += 2 * vec_popcount(refill);

    uint32_t escapes = vec_movemask(all ? entry : vec_and(entry, active));
    if (escapes != 0) {
        const uint8_t *back = r->back;
        entry = vec_take_escapes(entry, escapes, r->front, &back);
        r->underflow |= r->back - back != (ptrdiff_t)vec_popcount(escapes);
        r->back = back;
    }
    return entry;
}

/* Decodes as much of a quarter as there is: it begins with the symbol `from` of `count`. */
VEC_INLINE vec vec_decode_partial(const irs_rans_model *m, vec tables, uint32_t count,
                                  uint32_t from, vec *states, vec_stream *r) {
    if (count >= from + VEC_LANES) {
        return vec_decode_quarter(m, tables, 1, tables, states, r);
    }
    if (count > from) {
        vec active = vec_first_bytes(4 * (count - from));
        return vec_decode_quarter(m, tables, 0, active, states, r);
    }
    return vec_set_u8(0);
}

/* Decodes `count` symbols, at most a row, of the channels from `first` on. The model's lanes fill
 * `state_count` vectors. */
VEC_INLINE vec vec_decode_row(const irs_rans_model *m, vec tables, uint32_t first, uint32_t count,
                              uint32_t state_count, vec_stream *r) {
    if (r->end - r->front < 80) {
        irs_stream in;
        vec_stream_save(r, &in);
        vec symbols = vec_decode_slowly(m, tables, first, count, &in);
        vec_stream_load(r, &in);
        return symbols;
    }

    /* a constant where a row has all lanes */
    uint32_t at = VEC_SIZE == IRS_MAX_LANES ? 0 : first / VEC_LANES, last = state_count - 1;
    vec lanes[4], entries[4];
    vec_widen(tables, lanes);
    entries[0] = vec_decode_partial(m, lanes[0], count, 0, &r->states[at & last], r);
    entries[1] = vec_decode_partial(m, lanes[1], count, VEC_LANES, &r->states[(at + 1) & last], r);
    entries[2] =
        vec_decode_partial(m, lanes[2], count, 2 * VEC_LANES, &r->states[(at + 2) & last], r);
    entries[3] =
        vec_decode_partial(m, lanes[3], count, 3 * VEC_LANES, &r->states[(at + 3) & last], r);
    r->underflow |= r->front > r->back;
    return vec_narrow(entries);
}

/* ---- a chunk --------------------------------------------------------------------------------- */

/* Decodes one pixel and returns its residual sum. */
VEC_INLINE uint32_t vec_decode_pixel(const irs_rans_model *m, const irs_scratch *s,
                                     const irs_neighbours *neighbours, const uint8_t *map,
                                     uint8_t *pixel, uint32_t state_count, vec_stream *r) {
    /* references are to channels of earlier groups of lanes */
    uint32_t most = irs_has_references(m) ? vec_at_most(m->lanes, VEC_SIZE) : VEC_SIZE;
    vec sums = vec_set_u8(0);
    for (uint32_t c = 0; c < m->channels; c += most) {
        uint32_t count = vec_at_most(m->channels - c, most);
        vec base = vec_predict(m, neighbours, c), prediction = base;
        if (irs_has_references(m)) {
            vec_store(s->base + c, base);
            vec_refine(m, s->base, s->residuals, c, count, s->refined);
            prediction = vec_load(s->refined);
        }

        vec tables = vec_choose_tables(m, map + c, prediction);
        vec symbols = vec_decode_row(m, tables, c, count, state_count, r);
        symbols = m->residual ? vec_add_u8(symbols, prediction) : symbols;
        vec_store(pixel + c, symbols);
        vec_residuals(m, symbols, base, vec_first_bytes(count), s->residuals + c, &sums);
    }
    return vec_reduce_sums(sums);
}

VEC_INLINE irs_status vec_decode_contexts(const irs_rans_model *m, const irs_geometry *g,
                                          const irs_scratch *s, irs_chunk chunk,
                                          uint32_t state_count, irs_stream *in) {
    irs_cursor cursor;
    vec_stream r;
    irs_cursor_init(&cursor, m, g, s, chunk);
    vec_stream_load(&r, in);

    size_t channels = m->channels;
    for (size_t offset = 0; offset < chunk.count && !r.underflow; offset += channels) {
        irs_neighbours neighbours;
        const uint8_t *map = irs_cursor_context(&cursor, &neighbours);
        irs_cursor_advance(&cursor, vec_decode_pixel(m, s, &neighbours, map, s->symbols + offset,
                                                     state_count, &r));
    }

    vec_stream_save(&r, in);
    return r.underflow ? IRS_ERR_CORRUPT : IRS_OK;
}

VEC_INLINE irs_status vec_decode_one_context(const irs_rans_model *m, const irs_scratch *s,
                                             irs_chunk chunk, uint32_t state_count,
                                             irs_stream *in) {
    vec_stream r;
    vec_stream_load(&r, in);
    for (size_t i = 0; i < chunk.count && !r.underflow; i += m->channels) {
        for (uint32_t c = 0; c < m->channels; c += VEC_SIZE) {
            uint32_t count = vec_at_most(m->channels - c, VEC_SIZE);
            vec symbols = vec_decode_row(m, vec_load(m->map + c), c, count, state_count, &r);
            vec_store(s->symbols + i + c, symbols);
        }
    }

    vec_stream_save(&r, in);
    return r.underflow ? IRS_ERR_CORRUPT : IRS_OK;
}

VEC_INLINE irs_status vec_decode_lanes(const irs_rans_model *model, const irs_geometry *g,
                                       const irs_scratch *s, irs_chunk chunk, uint32_t state_count,
                                       irs_stream *in) {
    /* a copy stays in registers: nothing that is written could change it */
    const irs_rans_model copy = *model, *m = &copy;
    return irs_has_one_context(m) ? vec_decode_one_context(m, s, chunk, state_count, in)
                                  : vec_decode_contexts(m, g, s, chunk, state_count, in);
}

VEC_INLINE irs_status vec_decode_symbols(const irs_rans_model *m, const irs_geometry *g,
                                         const irs_scratch *s, irs_chunk chunk, irs_stream *in) {
    uint32_t state_count = m->lanes / (uint32_t)VEC_LANES;
#if VEC_SIZE == IRS_MAX_LANES
    /* Constants keep the states in registers. Narrower vectors are too many for that. */
    switch (state_count) {
    case 4: return vec_decode_lanes(m, g, s, chunk, 4, in);
    case 2: return vec_decode_lanes(m, g, s, chunk, 2, in);
    default: return vec_decode_lanes(m, g, s, chunk, 1, in);
    }
#else
    return vec_decode_lanes(m, g, s, chunk, state_count, in);
#endif
}
