/* The AVX2 path: 32 channels at a time for prediction and contexts, 8 lanes at a time for states. Rows of channels are read and
 * written up to 31 bytes too far; IRS_PADDING covers that, and what is written there is overwritten by the next pixel. */
#include "static_rans.h"

#ifdef IRS_HAS_AVX2
#include <immintrin.h>

#define IRS_TARGET __attribute__((target("avx2,bmi,bmi2,popcnt"), always_inline))
#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))

static const uint8_t edge[64] = {
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
};

/* all ones in the first `count` bytes; count at most 32 */
IRS_TARGET static inline __m256i first_bytes(uint32_t count) {
    return _mm256_loadu_si256((const __m256i *)(const void *)(edge + 32 - count));
}

IRS_TARGET static inline __m256i load_row(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
IRS_TARGET static inline void store_row(uint8_t *p, __m256i row) { _mm256_storeu_si256((__m256i *)(void *)p, row); }

/* ---- prediction and contexts --------------------------------------------------------------------------------------- */

IRS_TARGET static inline __m256i linear(const int8_t *west_north, const int8_t *corners, __m256i w, __m256i n, __m256i nw,
                                        __m256i ne) {
    __m256i a0 = load_row((const uint8_t *)west_north), a1 = load_row((const uint8_t *)west_north + 32);
    __m256i b0 = load_row((const uint8_t *)corners), b1 = load_row((const uint8_t *)corners + 32);
    /* unpacking works within halves: bring the weights into the same order */
    __m256i a_low = _mm256_permute2x128_si256(a0, a1, 0x20), a_high = _mm256_permute2x128_si256(a0, a1, 0x31);
    __m256i b_low = _mm256_permute2x128_si256(b0, b1, 0x20), b_high = _mm256_permute2x128_si256(b0, b1, 0x31);
    __m256i half = _mm256_set1_epi16(32);
    /* saturation changes nothing: such sums are clamped to 0 or 255 anyway */
    __m256i low = _mm256_adds_epi16(_mm256_maddubs_epi16(_mm256_unpacklo_epi8(w, n), a_low),
                                    _mm256_maddubs_epi16(_mm256_unpacklo_epi8(nw, ne), b_low));
    __m256i high = _mm256_adds_epi16(_mm256_maddubs_epi16(_mm256_unpackhi_epi8(w, n), a_high),
                                     _mm256_maddubs_epi16(_mm256_unpackhi_epi8(nw, ne), b_high));
    return _mm256_packus_epi16(_mm256_srai_epi16(_mm256_adds_epi16(low, half), 6),
                               _mm256_srai_epi16(_mm256_adds_epi16(high, half), 6));
}

IRS_TARGET static inline __m256i med(__m256i w, __m256i n, __m256i nw) {
    __m256i low = _mm256_min_epu8(w, n), high = _mm256_max_epu8(w, n);
    __m256i plane = _mm256_sub_epi8(_mm256_add_epi8(w, n), nw);
    __m256i above = _mm256_cmpeq_epi8(_mm256_max_epu8(nw, high), nw), below = _mm256_cmpeq_epi8(_mm256_min_epu8(nw, low), nw);
    return _mm256_blendv_epi8(_mm256_blendv_epi8(plane, high, below), low, above);
}

IRS_TARGET static inline void irs_predict(const irs_model *m, const irs_pixels *near, uint32_t first, uint32_t count,
                                          uint8_t *base) {
    if (m->predictor == IRS_PREDICT_NONE) {
        memset(base, m->initial, count);
        return;
    }
    for (uint32_t c = 0; c < count; c += 32) {
        __m256i w = load_row(near->west + first + c), n = load_row(near->north + first + c);
        __m256i nw = load_row(near->north_west + first + c);
        if (m->predictor == IRS_PREDICT_MED) {
            store_row(base + c, med(w, n, nw));
            continue;
        }
        __m256i ne = load_row(near->north_east + first + c);
        size_t place = 2 * ((size_t)first + c);
        store_row(base + c, linear(m->west_north + place, m->corners + place, w, n, nw, ne));
    }
}

IRS_TARGET static inline void irs_refine(const irs_model *m, const uint8_t *base, const int16_t *residuals, uint32_t first,
                                         uint32_t count, uint8_t *refined) {
    const uint16_t *reference = m->reference + 2 * (size_t)first;
    const int16_t *weight = m->reference_weight + 2 * (size_t)first;
    for (uint32_t c = 0; c < count; c += 8) {
        __m256i pairs = load_row((const uint8_t *)(reference + 2 * c)), w = load_row((const uint8_t *)(weight + 2 * c));
        __m256i r0 = _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF)), r1 = _mm256_srli_epi32(pairs, 16);
        /* gathers read two residuals; the padding of the row makes that safe */
        __m256i e0 = _mm256_i32gather_epi32((const int *)(const void *)residuals, r0, 2);
        __m256i e1 = _mm256_i32gather_epi32((const int *)(const void *)residuals, r1, 2);
        __m256i e = _mm256_blend_epi16(e0, _mm256_slli_epi32(e1, 16), 0xAA);
        __m256i total = _mm256_srai_epi32(_mm256_add_epi32(_mm256_madd_epi16(e, w), _mm256_set1_epi32(32)), 6);
        __m256i start = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(base + first + c)));
        __m256i words = _mm256_packs_epi32(_mm256_add_epi32(start, total), _mm256_setzero_si256());
        __m256i bytes = _mm256_packus_epi16(words, _mm256_setzero_si256());
        uint32_t low = (uint32_t)_mm256_extract_epi32(bytes, 0), high = (uint32_t)_mm256_extract_epi32(bytes, 4);
        store32(refined + c, low);
        store32(refined + c + 4, high);
    }
}

IRS_TARGET static inline uint32_t irs_residuals(const irs_model *m, const uint8_t *symbols, const uint8_t *base,
                                                uint32_t count, int16_t *residuals) {
    __m256i sum = _mm256_setzero_si256();
    for (uint32_t c = 0; c < count; c += 32) {
        __m256i here = count - c < 32 ? first_bytes(count - c) : _mm256_set1_epi8(-1);
        __m256i s = _mm256_and_si256(load_row(symbols + c), here), b = _mm256_and_si256(load_row(base + c), here);
        __m256i size = _mm256_or_si256(_mm256_subs_epu8(s, b), _mm256_subs_epu8(b, s));
        sum = _mm256_add_epi64(sum, _mm256_sad_epu8(size, _mm256_setzero_si256()));
        if (m->has_references) {
            __m256i low = _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(s)),
                                           _mm256_cvtepu8_epi16(_mm256_castsi256_si128(b)));
            __m256i high = _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm256_extracti128_si256(s, 1)),
                                            _mm256_cvtepu8_epi16(_mm256_extracti128_si256(b, 1)));
            store_row((uint8_t *)(residuals + c), low);
            store_row((uint8_t *)(residuals + c + 16), high);
        }
    }
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    return (uint32_t)_mm_cvtsi128_si32(two) + (uint32_t)_mm_extract_epi32(two, 2);
}

IRS_TARGET static inline void irs_choose_tables(const irs_model *m, const uint8_t *map, const uint8_t *prediction,
                                                uint32_t first, uint32_t count, uint8_t *tables) {
    for (uint32_t c = 0; c < count; c += 32) {
        const uint8_t *row = map + first + c;
        __m256i p = load_row(prediction + c), table = load_row(row);
        for (uint32_t i = 0; i + 1 < m->bins; i++) {
            row += m->channels;
            __m256i reached = _mm256_cmpeq_epi8(_mm256_max_epu8(p, _mm256_set1_epi8((char)m->thresholds[i])), p);
            table = _mm256_blendv_epi8(table, load_row(row), reached);
        }
        store_row(tables + c, table);
    }
}

IRS_TARGET static inline void irs_subtract(const uint8_t *symbols, const uint8_t *prediction, uint32_t count,
                                           uint8_t *coded) {
    for (uint32_t c = 0; c < count; c += 32) {
        store_row(coded + c, _mm256_sub_epi8(load_row(symbols + c), load_row(prediction + c)));
    }
}

IRS_TARGET static inline void irs_add(const uint8_t *prediction, uint32_t count, uint8_t *symbols) {
    for (uint32_t c = 0; c < count; c++) {
        symbols[c] = (uint8_t)(symbols[c] + prediction[c]);
    }
}

/* ---- states -------------------------------------------------------------------------------------------------------- */

/* For every set of lanes: bytes j = how many of the lanes below j are in the set. */
#define BELOW(m, j) ((((m)&1) && (j) > 0) + (((m)&2) && (j) > 1) + (((m)&4) && (j) > 2) + (((m)&8) && (j) > 3) + \
                     (((m)&16) && (j) > 4) + (((m)&32) && (j) > 5) + (((m)&64) && (j) > 6))
#define ROW1(m) {BELOW(m, 0), BELOW(m, 1), BELOW(m, 2), BELOW(m, 3), BELOW(m, 4), BELOW(m, 5), BELOW(m, 6), BELOW(m, 7)}
#define ROW4(m) ROW1(m), ROW1((m) + 1), ROW1((m) + 2), ROW1((m) + 3)
#define ROW16(m) ROW4(m), ROW4((m) + 4), ROW4((m) + 8), ROW4((m) + 12)
#define ROW64(m) ROW16(m), ROW16((m) + 16), ROW16((m) + 32), ROW16((m) + 48)
static const uint8_t below[256][8] = {ROW64(0), ROW64(64), ROW64(128), ROW64(192)};

IRS_TARGET static inline __m256i load_eight(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

IRS_TARGET static inline __m256i lanes_below(uint32_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

IRS_TARGET static inline uint32_t mask_of(__m256i lanes) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(lanes)); }

/* symbols of escapes, in the order of lanes; 0 when the payload has none left */
IRS_TARGET static inline int take_escapes(uint32_t escapes, irs_stream *in, uint8_t *symbols) {
    for (; escapes != 0; escapes &= escapes - 1) {
        if (in->back <= in->front) {
            return 0;
        }
        symbols[__builtin_ctz(escapes)] = *--in->back;
    }
    return 1;
}

/* Up to eight lanes; `active` are those that have a symbol. The caller has checked that 16 bytes can be read. */
IRS_TARGET static inline int decode_eight(const irs_model *m, const uint8_t *tables, __m256i active, uint32_t *states,
                                          irs_stream *in, uint8_t *symbols) {
    int bits = m->table_bits;
    __m256i old = load_row((const uint8_t *)states);
    __m256i slot = _mm256_and_si256(old, _mm256_set1_epi32((1 << bits) - 1));
    __m256i index = _mm256_add_epi32(_mm256_slli_epi32(load_eight(tables), bits), slot);
    __m256i entry = _mm256_i32gather_epi32((const int *)(const void *)m->decoder, _mm256_and_si256(index, active), 4);
    __m256i eleven = _mm256_set1_epi32(0x7FF);
    __m256i frequency = _mm256_and_si256(_mm256_srli_epi32(entry, 8), eleven);
    __m256i offset = _mm256_and_si256(_mm256_srli_epi32(entry, 19), eleven);
    __m256i state = _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(old, bits)), offset);
    __m256i hungry = _mm256_and_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)IRS_LOW_STATE), state), active);
    uint32_t takers = mask_of(hungry);
    __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)in->front));
    words = _mm256_permutevar8x32_epi32(words, load_eight(below[takers]));
    __m256i fed = _mm256_or_si256(_mm256_slli_epi32(state, 16), words);
    state = _mm256_blendv_epi8(state, fed, hungry);
    store_row((uint8_t *)states, _mm256_blendv_epi8(old, state, active));
    in->front += 2 * (uint32_t)__builtin_popcount(takers);
    __m256i narrow = _mm256_shuffle_epi8(entry, _mm256_set1_epi32(0x0C080400));
    store32(symbols, (uint32_t)_mm256_extract_epi32(narrow, 0));
    store32(symbols + 4, (uint32_t)_mm256_extract_epi32(narrow, 4));
    uint32_t escapes = mask_of(_mm256_and_si256(entry, active));
    return escapes == 0 || take_escapes(escapes, in, symbols);
}

/* Near the end of the payload, and for fewer than eight lanes: one at a time. */
AVX2 static int decode_slowly(const irs_model *m, const uint8_t *tables, uint32_t count, irs_stream *in, uint8_t *symbols) {
    return irs_decode_lanes(m, tables, count, in, symbols);
}

/* Writes whole eights of symbols; those too far are overwritten by the next group or pixel, or lie in the padding. */
IRS_TARGET static inline int decode_lanes(const irs_model *m, const uint8_t *tables, uint32_t count, irs_stream *in,
                                          uint8_t *symbols) {
    if (m->lanes < 8 || (size_t)(in->end - in->front) < 80) {
        return decode_slowly(m, tables, count, in, symbols);
    }
    for (uint32_t lane = 0; lane < count; lane += 8) {
        __m256i active = count - lane < 8 ? lanes_below(count - lane) : _mm256_set1_epi32(-1);
        if (!decode_eight(m, tables + lane, active, in->states + lane, in, symbols + lane)) {
            return 0;
        }
    }
    return in->front <= in->back;
}

#include "static_body.h"

/* Division by frequency: high half of state times reciprocal, for all eight. */
IRS_TARGET static inline __m256i multiply_high(__m256i a, __m256i b) {
    __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(a, b), 32);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    return _mm256_blend_epi32(even, odd, 0xAA);
}

typedef struct output {
    uint8_t *words, *escapes;
} output;

IRS_TARGET static inline __m256i gather_packed(const irs_model *m, __m256i index) {
    return _mm256_i32gather_epi32((const int *)(const void *)m->encoder + 1, index, 8);
}

/* Escapes go out in the order opposite to decoding; their lanes code the escape instead. */
AVX2 static __m256i put_escapes(uint32_t absent, const uint8_t *symbols, const uint8_t *tables, __m256i index, output *out) {
    uint32_t indices[8];
    store_row((uint8_t *)indices, index);
    for (uint32_t lane = 8; lane-- > 0;) {
        if (absent >> lane & 1) {
            *out->escapes++ = symbols[lane];
            indices[lane] = tables[lane] * (uint32_t)IRS_TABLE_ENTRIES + 256;
        }
    }
    return load_row((const uint8_t *)indices);
}

/* Low words of the lanes in `givers`, in their order, before those already there. Writes 16 bytes; the room has them. */
IRS_TARGET static inline void put_words(uint32_t givers, __m256i states, output *out) {
    uint64_t spread = _pdep_u64(givers, UINT64_C(0x0101010101010101)) * 0xFF;
    uint64_t order = _pext_u64(UINT64_C(0x0706050403020100), spread);
    uint32_t count = (uint32_t)__builtin_popcount(givers);
    order = count == 0 ? 0 : order << (64 - 8 * count); /* to the end of the sixteen bytes */
    __m256i places = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)order));
    __m256i words = _mm256_and_si256(_mm256_permutevar8x32_epi32(states, places), _mm256_set1_epi32(0xFFFF));
    words = _mm256_packus_epi32(words, _mm256_setzero_si256());
    __m128i eight = _mm256_castsi256_si128(_mm256_permute4x64_epi64(words, 0x08));
    _mm_storeu_si128((__m128i *)(void *)(out->words - 16), eight);
    out->words -= 2 * count;
}

IRS_TARGET static inline void encode_eight(const irs_model *m, const uint8_t *symbols, const uint8_t *tables, __m256i active,
                                           uint32_t *states, output *out) {
    int bits = m->table_bits;
    __m256i old = load_row((const uint8_t *)states);
    __m256i index = _mm256_mullo_epi32(load_eight(tables), _mm256_set1_epi32(IRS_TABLE_ENTRIES));
    index = _mm256_and_si256(_mm256_add_epi32(index, load_eight(symbols)), active);
    __m256i packed = gather_packed(m, index);
    uint32_t absent = mask_of(_mm256_and_si256(_mm256_cmpeq_epi32(packed, _mm256_setzero_si256()), active));
    if (absent != 0) {
        index = put_escapes(absent, symbols, tables, index, out);
        packed = gather_packed(m, index);
    }
    __m256i reciprocal = _mm256_i32gather_epi32((const int *)(const void *)m->encoder, index, 8);
    __m256i frequency = _mm256_and_si256(packed, _mm256_set1_epi32(0x7FF)), bias = _mm256_srli_epi32(packed, 16);
    __m256i shift = _mm256_and_si256(_mm256_srli_epi32(packed, 12), _mm256_set1_epi32(15));
    /* limits are at most 2^31 - 2^20: signed comparison is right */
    __m256i full = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_slli_epi32(frequency, 31 - bits), old), active);
    put_words(mask_of(full), old, out);
    __m256i state = _mm256_blendv_epi8(old, _mm256_srli_epi32(old, 16), full);
    __m256i quotient = _mm256_srlv_epi32(multiply_high(state, reciprocal), shift);
    __m256i rest = _mm256_sub_epi32(_mm256_set1_epi32(1 << bits), frequency);
    __m256i next = _mm256_add_epi32(_mm256_add_epi32(state, bias), _mm256_mullo_epi32(quotient, rest));
    store_row((uint8_t *)states, _mm256_blendv_epi8(old, next, active));
}

AVX2 static irs_status encode_avx2(const irs_model *m, const uint8_t *symbols, const uint8_t *tables, size_t pixels,
                                   uint8_t *room, uint8_t *target, size_t capacity, size_t *size) {
    if (m->lanes < 8) {
        return irs_rans_encode(m, symbols, tables, pixels, room, target, capacity, size);
    }
    uint32_t states[IRS_MAX_LANES], lanes = m->lanes, channels = m->channels, last = (channels - 1) / lanes * lanes;
    size_t head = 4 * (size_t)lanes;
    uint8_t *end = room + irs_rans_room(pixels * (uint64_t)channels);
    output out = {end, room};
    for (uint32_t lane = 0; lane < lanes; lane++) {
        states[lane] = IRS_LOW_STATE;
    }
    for (size_t pixel = pixels; pixel-- > 0;) {
        const uint8_t *s = symbols + pixel * channels, *t = tables + pixel * channels;
        for (uint32_t channel = channels, group = last; channel > 0; channel = group, group -= lanes) {
            for (uint32_t lane = (channel - group + 7) & ~7u; lane > 0;) {
                lane -= 8;
                uint32_t count = channel - group - lane;
                __m256i active = count < 8 ? lanes_below(count) : _mm256_set1_epi32(-1);
                encode_eight(m, s + group + lane, t + group + lane, active, states + lane, &out);
            }
        }
        if ((size_t)(end - out.words) + (size_t)(out.escapes - room) + head > capacity) {
            return IRS_ERR_BUFFER;
        }
    }
    return irs_rans_finish(m, states, out.words, end, room, out.escapes, target, capacity, size);
}

AVX2 static void model_avx2(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    model_path(m, g, s, part);
}

#ifndef IRS_ENCODE_ONLY
AVX2 static irs_status decode_avx2(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                   irs_stream *in) {
    return decode_path(m, g, s, part, in);
}
#endif

const irs_path irs_avx2_path = {
    model_avx2,
    encode_avx2,
#ifndef IRS_ENCODE_ONLY
    decode_avx2,
#else
    NULL,
#endif
};
#endif
