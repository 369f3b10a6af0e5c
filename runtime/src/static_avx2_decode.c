/* The AVX2 path's decoder: 8 lanes at a time for states; what a pixel's successor waits for stays in registers. */
#include "static_rans.h"

#if defined(IRS_HAS_AVX2) && !defined(IRS_ENCODE_ONLY)
#include "static_avx2.h"
#include "static_walk.h"

/* For every set of lanes: bytes j = how many of the lanes below j are in the set. */
#define BELOW(m, j) ((((m)&1) && (j) > 0) + (((m)&2) && (j) > 1) + (((m)&4) && (j) > 2) + (((m)&8) && (j) > 3) + \
                     (((m)&16) && (j) > 4) + (((m)&32) && (j) > 5) + (((m)&64) && (j) > 6))
#define ROW1(m) {BELOW(m, 0), BELOW(m, 1), BELOW(m, 2), BELOW(m, 3), BELOW(m, 4), BELOW(m, 5), BELOW(m, 6), BELOW(m, 7)}
#define ROW4(m) ROW1(m), ROW1((m) + 1), ROW1((m) + 2), ROW1((m) + 3)
#define ROW16(m) ROW4(m), ROW4((m) + 4), ROW4((m) + 8), ROW4((m) + 12)
#define ROW64(m) ROW16(m), ROW16((m) + 16), ROW16((m) + 32), ROW16((m) + 48)
static const uint8_t below[256][8] = {ROW64(0), ROW64(64), ROW64(128), ROW64(192)};

/* The stream in registers. What is not inlined works on a copy of it. */
typedef struct reading {
    const uint8_t *front, *back, *end;
    __m256i states[4];
    int starved;
} reading;

IRS_TARGET static inline void put_back(const reading *r, irs_stream *in) {
    in->front = r->front;
    in->back = r->back;
    in->end = r->end;
    in->starved = r->starved;
    for (uint32_t k = 0; k < 4; k++) {
        store_row((uint8_t *)(in->states + 8 * k), r->states[k]);
    }
}

IRS_TARGET static inline void pick_up(reading *r, const irs_stream *in) {
    r->front = in->front;
    r->back = in->back;
    r->end = in->end;
    r->starved = in->starved;
    for (uint32_t k = 0; k < 4; k++) {
        r->states[k] = load_row((const uint8_t *)(in->states + 8 * k));
    }
}

/* Symbols of escapes, in the order of lanes, into their entries; symbols that the payload no longer has become 0. */
AVX2 static __m256i take_escapes(__m256i entries, uint32_t escapes, const uint8_t *front, const uint8_t **back) {
    uint32_t found[8];
    store_row((uint8_t *)found, entries);
    for (; escapes != 0; escapes &= escapes - 1) {
        int left = *back > front;
        *back -= left;
        found[__builtin_ctz(escapes)] = left ? **back : 0;
    }
    return load_row((const uint8_t *)found);
}

/* Near the end of the payload, and for fewer than eight lanes that go round: one symbol at a time. */
AVX2 static __m256i decode_slowly(const irs_model *m, __m256i tables, uint32_t count, irs_stream *in) {
    uint8_t numbers[32], symbols[32] = {0};
    store_row(numbers, tables);
    for (uint32_t first = 0; first < count && !in->starved; first += m->lanes) {
        uint32_t some = count - first < m->lanes ? count - first : m->lanes;
        in->starved |= !irs_decode_lanes(m, numbers + first, some, in, symbols + first);
    }
    return load_row(symbols);
}

/* Up to eight lanes; without `all`, `active` are those that have a symbol. The caller has checked that 16 bytes can be read.
 * Returns decoder entries, the symbols in their lowest bytes. */
IRS_TARGET static inline __m256i decode_eight(const irs_model *m, __m256i tables, int all, __m256i active, __m256i *states,
                                              reading *r) {
    __m128i bits = _mm_cvtsi32_si128(m->table_bits);
    __m256i old = *states, mask = _mm256_set1_epi32((1 << m->table_bits) - 1);
    __m256i index = _mm256_add_epi32(_mm256_sll_epi32(tables, bits), _mm256_and_si256(old, mask));
    index = all ? index : _mm256_and_si256(index, active);
    __m256i entry = look_up(m->decoder, 1, index);
    __m256i eleven = _mm256_set1_epi32(0x7FF);
    __m256i frequency = _mm256_and_si256(_mm256_srli_epi32(entry, 8), eleven);
    __m256i offset = _mm256_and_si256(_mm256_srli_epi32(entry, 19), eleven);
    __m256i state = _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srl_epi32(old, bits)), offset);
    __m256i hungry = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)IRS_LOW_STATE), state);
    hungry = all ? hungry : _mm256_and_si256(hungry, active);
    uint32_t takers = mask_of(hungry), escapes = mask_of(all ? entry : _mm256_and_si256(entry, active));
    __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)r->front));
    words = _mm256_permutevar8x32_epi32(words, load_eight(below[takers]));
    state = _mm256_blendv_epi8(state, _mm256_or_si256(_mm256_slli_epi32(state, 16), words), hungry);
    *states = all ? state : _mm256_blendv_epi8(old, state, active);
    r->front += 2 * (uint32_t)__builtin_popcount(takers);
    if (escapes != 0) {
        const uint8_t *back = r->back;
        entry = take_escapes(entry, escapes, r->front, &back);
        r->starved |= r->back - back != __builtin_popcount(escapes);
        r->back = back;
    }
    return entry;
}

/* As many as there are of eight symbols, of which `left` follow from here on. */
IRS_TARGET static inline __m256i decode_some(const irs_model *m, __m256i tables, uint32_t count, uint32_t first,
                                             __m256i *states, reading *r) {
    if (count >= first + 8) {
        return decode_eight(m, tables, 1, tables, states, r);
    }
    return count > first ? decode_eight(m, tables, 0, first_lanes(count - first), states, r) : _mm256_setzero_si256();
}

/* `count` symbols, at most 32, of channels from a multiple of the lanes on; the lanes fill `eights` vectors. */
IRS_TARGET static inline __m256i decode_row(const irs_model *m, __m256i tables, uint32_t count, uint32_t eights, reading *r) {
    if ((size_t)(r->end - r->front) < 80 || (eights == 1 && m->lanes < 8 && count > m->lanes)) {
        irs_stream in;
        put_back(r, &in);
        __m256i symbols = decode_slowly(m, tables, count, &in);
        pick_up(r, &in);
        return symbols;
    }
    __m128i low = _mm256_castsi256_si128(tables), high = _mm256_extracti128_si256(tables, 1);
    __m256i byte = _mm256_set1_epi32(0xFF), t[4] = {_mm256_cvtepu8_epi32(low), _mm256_cvtepu8_epi32(_mm_srli_si128(low, 8)),
                                                    _mm256_cvtepu8_epi32(high), _mm256_cvtepu8_epi32(_mm_srli_si128(high, 8))};
    __m256i a = decode_some(m, t[0], count, 0, &r->states[0], r);
    __m256i b = decode_some(m, t[1], count, 8, &r->states[1 & (eights - 1)], r);
    __m256i c = decode_some(m, t[2], count, 16, &r->states[2 & (eights - 1)], r);
    __m256i d = decode_some(m, t[3], count, 24, &r->states[3 & (eights - 1)], r);
    r->starved |= r->front > r->back;
    a = _mm256_packus_epi32(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
    c = _mm256_packus_epi32(_mm256_and_si256(c, byte), _mm256_and_si256(d, byte));
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, c), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Symbols of one pixel; returns the sum of their residuals' magnitudes. */
IRS_TARGET static inline uint32_t decode_pixel(const irs_model *m, const irs_scratch *s, const irs_pixels *near,
                                               const uint8_t *map, uint8_t *here, uint32_t eights, reading *r) {
    uint32_t step = irs_has_references(m) ? m->lanes : 32;
    __m256i sums = _mm256_setzero_si256();
    for (uint32_t c = 0; c < m->channels; c += step) {
        uint32_t count = m->channels - c < step ? m->channels - c : step;
        __m256i base = predict_row(m, near, c), prediction = base;
        if (irs_has_references(m)) {
            store_row(s->base + c, base);
            irs_refine(m, s->base, s->residuals, c, count, s->refined);
            prediction = load_row(s->refined);
        }
        __m256i symbols = decode_row(m, choose_row(m, map + c, prediction), count, eights, r);
        symbols = m->residual ? _mm256_add_epi8(symbols, prediction) : symbols;
        store_row(here + c, symbols);
        residual_row(m, symbols, base, first_bytes(count), s->residuals + c, &sums);
    }
    return sum_of(sums);
}

IRS_TARGET static inline irs_status decode_lanes(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                                 uint32_t eights, irs_stream *in) {
    walk w;
    reading r;
    begin(&w, m, g, s, part);
    pick_up(&r, in);
    size_t channels = m->channels;
    for (size_t place = 0; place < part.count && !r.starved; place += channels) {
        irs_pixels near;
        const uint8_t *map = m->map + (size_t)level_of(m, look_around(&w, &near)) * m->bins * channels;
        step(&w, decode_pixel(m, s, &near, map, s->symbols + place, eights, &r));
    }
    put_back(&r, in);
    return r.starved ? IRS_ERR_CORRUPT : IRS_OK;
}

IRS_TARGET static inline irs_status decode_plain(const irs_model *m, const irs_scratch *s, irs_part part, uint32_t eights,
                                                 irs_stream *in) {
    reading r;
    pick_up(&r, in);
    for (size_t i = 0; i < part.count && !r.starved; i += m->channels) {
        for (uint32_t c = 0; c < m->channels; c += 32) {
            uint32_t count = m->channels - c < 32 ? m->channels - c : 32;
            store_row(s->symbols + i + c, decode_row(m, load_row(m->map + c), count, eights, &r));
        }
    }
    put_back(&r, in);
    return r.starved ? IRS_ERR_CORRUPT : IRS_OK;
}

AVX2 irs_status irs_decode_avx2(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                irs_stream *in) {
    switch (m->lanes) { /* constants keep the states in registers */
    case 32: return irs_is_plain(m) ? decode_plain(m, s, part, 4, in) : decode_lanes(m, g, s, part, 4, in);
    case 16: return irs_is_plain(m) ? decode_plain(m, s, part, 2, in) : decode_lanes(m, g, s, part, 2, in);
    default: return irs_is_plain(m) ? decode_plain(m, s, part, 1, in) : decode_lanes(m, g, s, part, 1, in);
    }
}
#endif
