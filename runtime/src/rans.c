/* The entropy encoder: symbols in reverse, channel c of a pixel on lane c mod lanes. */
#include "static_rans.h"

typedef struct output {
    uint8_t *words;   /* the last one written; they grow downwards from the end of the room */
    uint8_t *escapes; /* where the next one goes; they grow upwards from its start */
} output;

static inline uint32_t put_symbol(const irs_encoder_entry *table, uint32_t symbol, uint32_t state, uint32_t table_bits,
                                  output *out) {
    irs_encoder_entry entry = table[symbol];
    if (entry.packed == 0) {
        *out->escapes++ = (uint8_t)symbol;
        entry = table[256];
    }
    uint32_t frequency = entry.packed & 0x7FF, bias = entry.packed >> 16, shift = entry.packed >> 12 & 15;
    /* whether a word goes out cannot be predicted: no branch */
    uint32_t full = state >= frequency << (31 - table_bits);
    store16(out->words - 2, (uint16_t)state);
    out->words -= 2 * full;
    state = full ? state >> 16 : state;
    uint32_t quotient = (uint32_t)((uint64_t)state * entry.reciprocal >> 32) >> shift;
    return state + bias + quotient * ((UINT32_C(1) << table_bits) - frequency);
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

irs_status irs_encode_portable(const irs_model *m, const uint8_t *symbols, const uint8_t *tables, size_t pixels,
                               uint8_t *room, uint8_t *target, size_t capacity, size_t *size) {
    uint32_t states[IRS_MAX_LANES];
    const irs_encoder_entry *encoder = m->encoder;
    uint32_t table_bits = m->table_bits, lanes = m->lanes, channels = m->channels, last = (channels - 1) / lanes * lanes;
    size_t head = 4 * (size_t)lanes;
    uint8_t *end = room + irs_rans_room(pixels * (uint64_t)channels);
    output out = {end, room};
    for (uint32_t lane = 0; lane < lanes; lane++) {
        states[lane] = IRS_LOW_STATE;
    }
    for (size_t pixel = pixels; pixel-- > 0;) {
        const uint8_t *s = symbols + pixel * channels, *t = tables + pixel * channels;
        for (uint32_t channel = channels, group = last; channel > 0; channel = group, group -= lanes) {
            for (uint32_t c = channel; c-- > group;) {
                uint32_t state = states[c - group];
                states[c - group] = put_symbol(encoder + t[c] * IRS_TABLE_ENTRIES, s[c], state, table_bits, &out);
            }
        }
        /* what is written only grows: beyond the capacity it will not fit */
        if ((size_t)(end - out.words) + (size_t)(out.escapes - room) + head > capacity) {
            return IRS_ERR_BUFFER;
        }
    }
    return irs_rans_finish(m, states, out.words, end, room, out.escapes, target, capacity, size);
}
