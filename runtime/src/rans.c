/* The entropy encoder: symbols in reverse, channel c of a pixel on lane c mod lanes. */
#include "static_rans.h"

typedef struct output {
    uint8_t *words;   /* the last one written; they grow downwards from the end of the room */
    uint8_t *escapes; /* where the next one goes; they grow upwards from its start */
} output;

static inline uint32_t put_symbol(const uint64_t *table, uint32_t symbol, uint32_t state, uint32_t table_bits, output *out) {
    uint64_t entry = table[symbol];
    if (entry == 0) {
        *out->escapes++ = (uint8_t)symbol;
        entry = table[256];
    }
    uint32_t others = (uint32_t)entry & 0x7FF, start = (uint32_t)entry >> 11 & 0x7FF;
    /* whether a word goes out cannot be predicted: no branch */
    uint32_t full = (state + (others << (31 - table_bits))) >> 31;
    store16(out->words - 2, (uint16_t)state);
    out->words -= 2 * full;
    state = full ? state >> 16 : state;
    uint32_t quotient = (uint32_t)((state + UINT64_C(1)) * (entry >> IRS_RECIPROCAL) >> (31 + table_bits));
    return state + start + quotient * others;
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
                                 uint32_t table_bits, uint32_t lanes, uint32_t *states) {
    uint32_t channels = m->channels;
    const uint64_t *encoder = m->encoder;
    for (uint32_t lane = 0; lane < lanes; lane++) {
        states[lane] = IRS_LOW_STATE;
    }
    for (size_t pixel = pixels; pixel-- > 0;) {
        const uint8_t *s = symbols + pixel * channels, *t = tables.of + pixel * tables.stride;
        for (uint32_t c = channels; c-- > 0;) {
            uint32_t *state = states + (c & (lanes - 1));
            *state = put_symbol(encoder + t[c] * IRS_TABLE_ENTRIES, s[c], *state, table_bits, &out);
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
