/* SPDX-License-Identifier: Apache-2.0
 *
 * The entropy encoder with vectors; compiled once for each size of vectors, like static_vector.h.
 *
 * States have 32 bits, so that a vector holds the states of VEC_LANES lanes and serves a quarter of
 * a row of symbols. Models that come here have at least VEC_LANES lanes.
 */
typedef struct vec_output {
    uint8_t *words, *escapes; /* as in rans.c */
} vec_output;

/* Writes the symbols of `absent` lanes as escapes, in the order opposite to decoding, and makes
 * their lanes code the escape instead. Returns where the next escape goes. */
VEC_TARGET __attribute__((noinline)) static uint8_t *
vec_put_escapes(uint32_t tables, uint32_t absent, uint16_t *indices, uint8_t *target) {
    for (uint32_t lane = VEC_LANES; lane-- > 0;) {
        if (absent >> lane & 1) {
            *target++ = (uint8_t)indices[lane];
            indices[lane] = (uint16_t)(tables * 256 + (indices[lane] >> 8));
        }
    }
    return target;
}

/* Encodes a quarter of a row and returns the next states. `indices` are those of the encoder
 * entries; `lanes` is the set of lanes that have a symbol. */
VEC_INLINE vec vec_encode_quarter(const irs_rans_model *m, uint16_t *indices, uint32_t lanes,
                                  vec old, vec_output *out) {
    vec low, high, eleven_bits = vec_set_u32(0x7FF);
    vec_gather_u64(m->encoder, indices, &low, &high);
    uint32_t absent = vec_movemask(vec_cmpeq(high, vec_set_u32(0))) & lanes;
    if (absent != 0) {
        out->escapes = vec_put_escapes(m->tables, absent, indices, out->escapes);
        vec_gather_u64(m->encoder, indices, &low, &high);
    }

    /* the top bit of the sum is set in lanes that write a word */
    vec complement = vec_and(low, eleven_bits), start = vec_and(vec_shr(low, 11), eleven_bits);
    vec is_full = vec_add(old, vec_shl(complement, 31u - m->table_bits));
    uint32_t emit = vec_movemask(is_full) & lanes;
    vec_emit_words(out->words, old, emit);
    out->words -= 2 * vec_popcount(emit);
    vec state = vec_select_by_sign(is_full, vec_shr(old, 16), old);

    /* Only the upper half of the entry is multiplied. The quotient is right or one too low, as the
     * upper half lacks at most 1.01 of 2^32 / f and the state is below 2^31; a remainder of f or
     * more tells which. */
    vec quotient = vec_mulhi(state, high);
    vec frequency = vec_sub(vec_set_u32(UINT32_C(1) << m->table_bits), complement);
    vec rest = vec_sub(state, vec_mul(quotient, frequency));
    vec next = vec_add(vec_add(vec_shl(quotient, m->table_bits), start), rest);
    return vec_add(next, vec_andnot(complement, vec_cmpgt(frequency, rest)));
}

/* Encodes as much of a quarter as there is: it begins with the symbol `from` of `count`. */
VEC_INLINE void vec_encode_partial(const irs_rans_model *m, uint16_t *indices, uint32_t count,
                                   uint32_t from, vec *state, vec_output *out) {
    if (count >= from + VEC_LANES) {
        *state = vec_encode_quarter(m, indices + from, (1u << VEC_LANES) - 1, *state, out);
    } else if (count > from) {
        uint32_t lanes = (1u << (count - from)) - 1;
        vec next = vec_encode_quarter(m, indices + from, lanes, *state, out);
        *state = vec_select(vec_first_bytes(4 * (count - from)), next, *state);
    }
}

/* Encodes `count` symbols, at most a row, of the channels from `first` on; the last ones come
 * first. The model's lanes fill `state_count` vectors. */
VEC_INLINE void vec_encode_row(const irs_rans_model *m, vec symbols, vec tables, uint32_t first,
                               uint32_t count, uint32_t state_count, vec *states, vec_output *out) {
    uint16_t indices[VEC_SIZE];
    vec valid = vec_first_bytes(count); /* what lies behind a row may be no table at all */
    vec_store_interleaved(indices, vec_and(symbols, valid), vec_and(tables, valid));
    /* keeps the compiler from taking indices out of vectors, which costs more than memory does */
    __asm__ volatile("" : "+m"(indices));

    /* a constant where a row has all lanes */
    uint32_t at = VEC_SIZE == IRS_MAX_LANES ? 0 : first / VEC_LANES, last = state_count - 1;
    vec_encode_partial(m, indices, count, 3 * VEC_LANES, &states[(at + 3) & last], out);
    vec_encode_partial(m, indices, count, 2 * VEC_LANES, &states[(at + 2) & last], out);
    vec_encode_partial(m, indices, count, VEC_LANES, &states[(at + 1) & last], out);
    vec_encode_partial(m, indices, count, 0, &states[at & last], out);
}

VEC_INLINE irs_status vec_encode_lanes(const irs_rans_model *model, const uint8_t *symbols,
                                       irs_tables tables, size_t pixels, uint8_t *buffer,
                                       uint8_t *target, size_t capacity, size_t *size,
                                       uint32_t state_count) {
    /* a copy stays in registers: nothing that is written could change it */
    const irs_rans_model copy = *model, *m = &copy;
    uint32_t channels = m->channels;
    uint8_t *end = buffer + irs_rans_buffer_size(pixels * (uint64_t)channels);
    vec_output out = {end, buffer};
    vec states[IRS_MAX_LANES / VEC_LANES];
    for (uint32_t k = 0; k < IRS_MAX_LANES / VEC_LANES; k++) {
        states[k] = vec_set_u32(IRS_LOW_STATE);
    }

    for (size_t pixel = pixels; pixel-- > 0;) {
        const uint8_t *s = symbols + pixel * channels, *t = tables.first + pixel * tables.stride;
        for (uint32_t c = channels; c > 0;) {
            uint32_t count = (c - 1) % VEC_SIZE + 1;
            c -= count;
            vec_encode_row(m, vec_load(s + c), vec_load(t + c), c, count, state_count, states,
                           &out);
        }
    }

    uint32_t final_states[IRS_MAX_LANES];
    for (uint32_t k = 0; k < IRS_MAX_LANES / VEC_LANES; k++) {
        vec_store(final_states + VEC_LANES * k, states[k]);
    }
    return irs_rans_finish(m, final_states, out.words, end, buffer, out.escapes, target, capacity,
                           size);
}

VEC_INLINE irs_status vec_encode_symbols(const irs_rans_model *m, const uint8_t *symbols,
                                         irs_tables tables, size_t pixels, uint8_t *buffer,
                                         uint8_t *target, size_t capacity, size_t *size) {
    uint32_t state_count = m->lanes / (uint32_t)VEC_LANES;
#if VEC_SIZE == IRS_MAX_LANES
    /* Constants keep the states in registers. Narrower vectors are too many for that. */
    switch (state_count) {
    case 4: return vec_encode_lanes(m, symbols, tables, pixels, buffer, target, capacity, size, 4);
    case 2: return vec_encode_lanes(m, symbols, tables, pixels, buffer, target, capacity, size, 2);
    default: return vec_encode_lanes(m, symbols, tables, pixels, buffer, target, capacity, size, 1);
    }
#else
    return vec_encode_lanes(m, symbols, tables, pixels, buffer, target, capacity, size,
                            state_count);
#endif
}
