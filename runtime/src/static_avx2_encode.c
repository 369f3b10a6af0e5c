/* The AVX2 path's encoder: contexts of a part, then 8 lanes at a time for states. */
#include "static_rans.h"

#ifdef IRS_HAS_AVX2
#include "static_avx2.h"
#include "static_walk.h"

/* ---- contexts ------------------------------------------------------------------------------------------------------ */

/* Tables of one pixel, and what is coded; returns the sum of the residuals' magnitudes. */
IRS_TARGET static inline uint32_t model_pixel(const irs_model *m, const irs_scratch *s, const irs_pixels *near,
                                              const uint8_t *map, size_t place) {
    const uint8_t *here = s->symbols + place;
    __m256i sums = _mm256_setzero_si256();
    for (uint32_t c = 0; c < m->channels; c += 32) {
        __m256i symbols = load_row(here + c), base = predict_row(m, near, c);
        __m256i some = first_bytes(m->channels - c < 32 ? m->channels - c : 32);
        residual_row(m, symbols, base, some, s->residuals + c, &sums);
        if (irs_has_references(m)) {
            store_row(s->base + c, base);
            continue;
        }
        store_row(s->tables + place + c, choose_row(m, map + c, base));
        if (m->residual) {
            store_row(s->coded + place + c, _mm256_sub_epi8(symbols, base));
        }
    }
    if (irs_has_references(m)) {
        irs_refine(m, s->base, s->residuals, 0, m->channels, s->refined);
        for (uint32_t c = 0; c < m->channels; c += 32) {
            __m256i prediction = load_row(s->refined + c);
            store_row(s->tables + place + c, choose_row(m, map + c, prediction));
            if (m->residual) {
                store_row(s->coded + place + c, _mm256_sub_epi8(load_row(here + c), prediction));
            }
        }
    }
    return sum_of(sums);
}

AVX2 static void model_contexts(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    walk w;
    begin(&w, m, g, s, part);
    size_t channels = m->channels;
    for (size_t place = 0; place < part.count; place += channels) {
        irs_pixels near;
        const uint8_t *map = m->map + (size_t)level_of(m, look_around(&w, &near)) * m->bins * channels;
        step(&w, model_pixel(m, s, &near, map, place));
    }
}

AVX2 void irs_model_avx2(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    if (irs_is_plain(m)) {
        irs_model_portable(m, g, s, part);
    } else {
        model_contexts(m, g, s, part);
    }
}

/* ---- states -------------------------------------------------------------------------------------------------------- */

typedef struct output {
    uint8_t *words, *escapes;
} output;

IRS_TARGET static inline __m256i gather_packed(const irs_model *m, __m256i index) {
    return look_up((const uint32_t *)(const void *)m->encoder + 1, 2, index);
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

/* Quotients of states by frequencies, states below 2^20 times their frequency. A float quotient is off by one at most, in any
 * rounding mode; the remainder says which way. */
IRS_TARGET static inline __m256i divide(__m256i state, __m256i frequency, __m256i *remainder) {
    __m256 ratio = _mm256_div_ps(_mm256_cvtepi32_ps(state), _mm256_cvtepi32_ps(frequency));
    __m256i quotient = _mm256_cvttps_epi32(ratio);
    __m256i rest = _mm256_sub_epi32(state, _mm256_mullo_epi32(quotient, frequency));
    __m256i below = _mm256_srai_epi32(rest, 31), above = _mm256_cmpgt_epi32(frequency, rest); /* all ones unless too large */
    above = _mm256_xor_si256(above, _mm256_set1_epi32(-1));
    *remainder = _mm256_add_epi32(rest, _mm256_sub_epi32(_mm256_and_si256(frequency, below), _mm256_and_si256(frequency, above)));
    return _mm256_add_epi32(quotient, _mm256_sub_epi32(below, above));
}

/* Up to eight lanes; without `all`, `active` are those that have a symbol. */
IRS_TARGET static inline void encode_eight(const irs_model *m, const uint8_t *symbols, const uint8_t *tables, int all,
                                           __m256i active, uint32_t *states, output *out) {
    __m128i bits = _mm_cvtsi32_si128(m->table_bits), most = _mm_cvtsi32_si128(31 - m->table_bits);
    __m256i one = _mm256_set1_epi32(1), old = load_row((const uint8_t *)states);
    __m256i index = _mm256_mullo_epi32(load_eight(tables), _mm256_set1_epi32(IRS_TABLE_ENTRIES));
    index = _mm256_add_epi32(index, load_eight(symbols));
    index = all ? index : _mm256_and_si256(index, active);
    __m256i packed = gather_packed(m, index);
    uint32_t absent = mask_of(_mm256_cmpeq_epi32(packed, _mm256_setzero_si256()));
    absent &= all ? 0xFF : mask_of(active);
    if (absent != 0) {
        packed = gather_packed(m, put_escapes(absent, symbols, tables, index, out));
    }
    __m256i frequency = _mm256_and_si256(packed, _mm256_set1_epi32(0x7FF));
    /* where frequencies are 1, the bias makes up for the scalar path's quotient */
    __m256i extra = _mm256_and_si256(_mm256_cmpeq_epi32(frequency, one), _mm256_set1_epi32((1 << m->table_bits) - 1));
    __m256i start = _mm256_sub_epi32(_mm256_srli_epi32(packed, 16), extra);
    frequency = all ? frequency : _mm256_max_epi32(frequency, one); /* idle lanes must not divide by 0 */
    /* limits are at most 2^31 - 2^20: signed comparison is right */
    __m256i fits = _mm256_cmpgt_epi32(_mm256_sll_epi32(frequency, most), old);
    uint32_t givers = ~mask_of(fits) & (all ? 0xFF : mask_of(active));
    put_words(givers, old, out);
    __m256i remainder, quotient = divide(_mm256_blendv_epi8(_mm256_srli_epi32(old, 16), old, fits), frequency, &remainder);
    __m256i next = _mm256_add_epi32(_mm256_sll_epi32(quotient, bits), _mm256_add_epi32(remainder, start));
    store_row((uint8_t *)states, all ? next : _mm256_blendv_epi8(old, next, active));
}

AVX2 irs_status irs_encode_avx2(const irs_model *m, const uint8_t *symbols, const uint8_t *tables, size_t pixels,
                                uint8_t *room, uint8_t *target, size_t capacity, size_t *size) {
    if (m->lanes < 8) {
        return irs_encode_portable(m, symbols, tables, pixels, room, target, capacity, size);
    }
    uint32_t states[IRS_MAX_LANES], around = m->lanes - 8u, channels = m->channels;
    size_t head = 4 * (size_t)m->lanes;
    uint8_t *end = room + irs_rans_room(pixels * (uint64_t)channels);
    output out = {end, room};
    for (uint32_t lane = 0; lane < m->lanes; lane++) {
        states[lane] = IRS_LOW_STATE;
    }
    uint32_t whole = channels & ~7u, left = channels & 7;
    __m256i active = first_lanes(left);
    for (size_t pixel = pixels; pixel-- > 0;) {
        const uint8_t *s = symbols + pixel * channels, *t = tables + pixel * channels;
        if (left != 0) {
            encode_eight(m, s + whole, t + whole, 0, active, states + (whole & around), &out);
        }
        for (uint32_t c = whole; c > 0;) {
            c -= 8;
            encode_eight(m, s + c, t + c, 1, active, states + (c & around), &out);
        }
        if ((size_t)(end - out.words) + (size_t)(out.escapes - room) + head > capacity) {
            return IRS_ERR_BUFFER;
        }
    }
    return irs_rans_finish(m, states, out.words, end, room, out.escapes, target, capacity, size);
}
#endif
