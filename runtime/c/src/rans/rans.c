/* The entropy encoder: symbols in reverse, channel c of a pixel on lane c mod lanes. */
#include "static_rans.h"

typedef struct output {
    uint8_t *words;   /* the last one written; they grow downwards from the end of the room */
    uint8_t *escapes; /* where the next one goes; they grow upwards from its start */
} output;

/* bits 64 to 95 of a product; 32-bit machines that know the wide type (wasm32) call a function of the compiler for it */
static inline uint32_t high_product(uint32_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__) && UINTPTR_MAX > UINT32_MAX
    __extension__ typedef unsigned __int128 wide;
    return (uint32_t)((wide)a * b >> 64);
#else
    return (uint32_t)(((a * (b & 0xFFFFFFFF) >> 32) + a * (b >> 32)) >> 32);
#endif
}

/* `entries`: of the symbol's table; `escape`: what is coded for a symbol that it does not hold. */
static inline uint32_t put_symbol(const uint64_t *entries, const uint64_t *escape, uint32_t symbol, uint32_t state,
                                  uint32_t table_bits, output *out) {
    uint64_t entry = entries[symbol];
    if (entry == 0) {
        *out->escapes++ = (uint8_t)symbol;
        entry = *escape;
    }
    uint32_t others = (uint32_t)entry & 0x7FF, start = (uint32_t)entry >> 11 & 0x7FF;
    /* whether a word goes out cannot be predicted: all ones where it does, and no branch */
    int32_t full = (int32_t)(state + (others << (31 - table_bits))) >> 31;
    store16(out->words - 2, (uint16_t)state);
    out->words += 2 * (ptrdiff_t)full;
    state >>= full & 16;
    return state + start + others * high_product(state + 1, entry);
}

irs_status irs_rans_finish(const irs_model *m, const uint32_t *states, const uint8_t *words, const uint8_t *words_end,
                           const uint8_t *escapes, const uint8_t *escapes_end, uint8_t *target, size_t capacity,
                           size_t *size) {
    size_t head = 4 * (size_t)m->lanes, word_size = (size_t)(words_end - words);
    size_t escape_size = (size_t)(escapes_end - escapes);
    if (head + word_size + escape_size > capacity) {
        return IRS_ERR_BUFFER;
    }
    for (uint32_t lane = 0; lane < m->lanes; lane++) {
        store32(target + 4 * lane, states[lane]);
    }
    memcpy(target + head, words, word_size);
    memcpy(target + head + word_size, escapes, escape_size);
    *size = head + word_size + escape_size;
    return IRS_OK;
}

/* `table_bits` and `lanes` are those of the model, as constants where they are the usual ones. */
static inline output put_symbols(const irs_model *m, const uint8_t *symbols, irs_tables tables, size_t pixels, output out,
                                 uint32_t table_bits, uint32_t lanes, uint32_t *restrict states) {
    uint32_t channels = m->channels;
    const uint64_t *encoder = m->encoder, *escapes = irs_escapes(m);
    for (uint32_t lane = 0; lane < lanes; lane++) {
        states[lane] = IRS_LOW_STATE;
    }
    for (size_t pixel = pixels; pixel-- > 0;) {
        const uint8_t *s = symbols + pixel * channels, *t = tables.of + pixel * tables.stride;
        for (size_t c = channels; c-- > 0;) {
            const uint64_t *entries = encoder + ((size_t)t[c] << 8);
            uint32_t *state = states + (c & (lanes - 1));
            *state = put_symbol(entries, escapes + t[c], s[c], *state, table_bits, &out);
        }
    }
    return out;
}

irs_status irs_encode_portable(const irs_model *m, const uint8_t *symbols, irs_tables tables, size_t pixels,
                               uint8_t *room, uint8_t *target, size_t capacity, size_t *size) {
    uint32_t states[IRS_MAX_LANES];
    uint8_t *end = room + irs_rans_room(pixels * (uint64_t)m->channels);
    output out = {end, room};
#ifndef IRS_SMALL
    if (m->table_bits == 11 && m->lanes == 1) {
        uint32_t alone[1]; /* in a register: nobody else sees it */
        out = put_symbols(m, symbols, tables, pixels, out, 11, 1, alone);
        states[0] = alone[0];
    } else if (m->table_bits == 11) {
        out = put_symbols(m, symbols, tables, pixels, out, 11, m->lanes, states);
    } else
#endif
    {
        out = put_symbols(m, symbols, tables, pixels, out, m->table_bits, m->lanes, states);
    }
    return irs_rans_finish(m, states, out.words, end, room, out.escapes, target, capacity, size);
}
