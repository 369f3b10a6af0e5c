/* SPDX-License-Identifier: Apache-2.0
 *
 * The entropy encoder for any machine, and what all encoders do at the end of a chunk.
 *
 * rANS is a stack: what is encoded last is decoded first. Symbols are therefore encoded from the
 * last one to the first, and words are written downwards from the end of the buffer, so that the
 * decoder reads both in rising order. Escaped symbols are written upwards from the buffer's start,
 * and the decoder reads them from the end of the payload downwards.
 */
#include "static_rans.h"

typedef struct rans_output {
    uint8_t *words;   /* the word that was written last */
    uint8_t *escapes; /* where the next escaped symbol goes */
} rans_output;

/* Bits 64 to 95 of a product. On 32-bit machines that have the wide type (wasm32), the compiler
 * would call a function for it. */
static inline uint32_t high_word_of_product(uint32_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__) && UINTPTR_MAX > UINT32_MAX
    __extension__ typedef unsigned __int128 wide;
    return (uint32_t)((wide)a * b >> 64);
#else
    return (uint32_t)(((a * (b & 0xFFFFFFFF) >> 32) + a * (b >> 32)) >> 32);
#endif
}

/* Encodes one symbol and returns the lane's next state. `entries` are those of the symbol's table,
 * `escape` is the entry of its escape. */
static inline uint32_t encode_symbol(const uint64_t *entries, const uint64_t *escape,
                                     uint32_t symbol, uint32_t state, uint32_t table_bits,
                                     rans_output *out) {
    uint64_t entry = entries[symbol];
    if (entry == 0) {
        *out->escapes++ = (uint8_t)symbol;
        entry = *escape;
    }

    /* Writing a word cannot be predicted: it is always stored, and kept by moving the pointer. The
     * sum has its top bit set if the state is at least f 2^(31-k); `emit` is all ones then. */
    uint32_t complement = (uint32_t)entry & 0x7FF, start = (uint32_t)entry >> 11 & 0x7FF;
    int32_t emit = (int32_t)(state + (complement << (31 - table_bits))) >> 31;
    irs_store16(out->words - 2, (uint16_t)state);
    out->words += 2 * (ptrdiff_t)emit;
    state >>= emit & 16;

    /* x / f * 2^k + s + x mod f, as x + s + x / f * (2^k - f) */
    return state + start + complement * high_word_of_product(state + 1, entry);
}

/* Encodes all symbols of a chunk. `table_bits` and `lanes` are those of the model; where they are
 * the usual ones, callers pass constants. */
static inline rans_output encode_pixels(const irs_rans_model *m, const uint8_t *symbols,
                                        irs_tables tables, size_t pixels, rans_output out,
                                        uint32_t table_bits, uint32_t lanes,
                                        uint32_t *restrict states) {
    uint32_t channels = m->channels;
    const uint64_t *encoder = m->encoder, *escapes = irs_escape_entries(m);
    for (uint32_t lane = 0; lane < lanes; lane++) {
        states[lane] = IRS_LOW_STATE;
    }

    for (size_t pixel = pixels; pixel-- > 0;) {
        const uint8_t *s = symbols + pixel * channels, *t = tables.first + pixel * tables.stride;
        for (size_t c = channels; c-- > 0;) {
            const uint64_t *entries = encoder + ((size_t)t[c] << 8);
            uint32_t *state = states + (c & (lanes - 1));
            *state = encode_symbol(entries, escapes + t[c], s[c], *state, table_bits, &out);
        }
    }
    return out;
}

irs_status irs_rans_encode_portable(const irs_rans_model *m, const uint8_t *symbols,
                                    irs_tables tables, size_t pixels, uint8_t *buffer,
                                    uint8_t *target, size_t capacity, size_t *size) {
    uint32_t states[IRS_MAX_LANES];
    uint8_t *end = buffer + irs_rans_buffer_size(pixels * (uint64_t)m->channels);
    rans_output out = {end, buffer};
#ifndef IRS_SMALL_CODE
    if (m->table_bits == 11 && m->lanes == 1) {
        uint32_t single[1]; /* stays in a register, as nothing else refers to it */
        out = encode_pixels(m, symbols, tables, pixels, out, 11, 1, single);
        states[0] = single[0];
    } else if (m->table_bits == 11) {
        out = encode_pixels(m, symbols, tables, pixels, out, 11, m->lanes, states);
    } else
#endif
    {
        out = encode_pixels(m, symbols, tables, pixels, out, m->table_bits, m->lanes, states);
    }
    return irs_rans_finish(m, states, out.words, end, buffer, out.escapes, target, capacity, size);
}

irs_status irs_rans_finish(const irs_rans_model *m, const uint32_t *states, const uint8_t *words,
                           const uint8_t *words_end, const uint8_t *escapes,
                           const uint8_t *escapes_end, uint8_t *target, size_t capacity,
                           size_t *size) {
    size_t head = 4 * (size_t)m->lanes;
    size_t word_size = (size_t)(words_end - words);
    size_t escape_size = (size_t)(escapes_end - escapes);
    if (head + word_size + escape_size > capacity) {
        return IRS_ERR_BUFFER;
    }

    for (uint32_t lane = 0; lane < m->lanes; lane++) {
        irs_store32(target + 4 * lane, states[lane]);
    }
    memcpy(target + head, words, word_size);
    memcpy(target + head + word_size, escapes, escape_size);
    *size = head + word_size + escape_size;
    return IRS_OK;
}
