/* Kernels of the AVX2 path: 32 channels at a time for prediction and contexts. Rows of channels are read and written up to 31
 * bytes too far; IRS_PADDING covers that, and what is written there is overwritten by the next group or pixel. */
#ifndef IRS_STATIC_AVX2_H
#define IRS_STATIC_AVX2_H

#include "static_rans.h"

#include <immintrin.h>

#define IRS_TARGET __attribute__((target("avx2,bmi,bmi2,popcnt"), always_inline))
#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))

static const uint8_t irs_edge[64] = {
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
};

IRS_TARGET static inline __m256i load_row(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
IRS_TARGET static inline void store_row(uint8_t *p, __m256i row) { _mm256_storeu_si256((__m256i *)(void *)p, row); }

/* all ones in the first `count` bytes; count at most 32 */
IRS_TARGET static inline __m256i first_bytes(uint32_t count) { return load_row(irs_edge + 32 - count); }

/* all ones in the first `count` of eight lanes */
IRS_TARGET static inline __m256i first_lanes(uint32_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

IRS_TARGET static inline uint32_t mask_of(__m256i lanes) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(lanes)); }

IRS_TARGET static inline __m256i load_eight(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

IRS_TARGET static inline __m256i look_up(const uint32_t *table, uint32_t stride, __m256i index) {
    __m128i low = _mm256_castsi256_si128(index), high = _mm256_extracti128_si256(index, 1);
    uint64_t a = (uint64_t)_mm_cvtsi128_si64(low), b = (uint64_t)_mm_extract_epi64(low, 1);
    uint64_t c = (uint64_t)_mm_cvtsi128_si64(high), d = (uint64_t)_mm_extract_epi64(high, 1);
    __m128i first = _mm_cvtsi32_si128((int)table[stride * (a & 0xFFFFFFFF)]);
    __m128i second = _mm_cvtsi32_si128((int)table[stride * (c & 0xFFFFFFFF)]);
    __m128i f2 = _mm_cvtsi32_si128((int)table[stride * (b & 0xFFFFFFFF)]);
    __m128i s2 = _mm_cvtsi32_si128((int)table[stride * (d & 0xFFFFFFFF)]);
    first = _mm_insert_epi32(first, (int)table[stride * (a >> 32)], 1);
    second = _mm_insert_epi32(second, (int)table[stride * (c >> 32)], 1);
    f2 = _mm_insert_epi32(f2, (int)table[stride * (b >> 32)], 1);
    s2 = _mm_insert_epi32(s2, (int)table[stride * (d >> 32)], 1);
    first = _mm_unpacklo_epi64(first, f2);
    second = _mm_unpacklo_epi64(second, s2);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
}

/* ---- prediction ---------------------------------------------------------------------------------------------------- */

IRS_TARGET static inline __m256i linear_row(const int16_t *west_north, const int16_t *corners, __m256i w, __m256i n,
                                            __m256i nw, __m256i ne) {
    __m256i a0 = load_row((const uint8_t *)west_north), a1 = load_row((const uint8_t *)(west_north + 16));
    __m256i b0 = load_row((const uint8_t *)corners), b1 = load_row((const uint8_t *)(corners + 16));
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

IRS_TARGET static inline __m256i med_row(__m256i w, __m256i n, __m256i nw) {
    __m256i low = _mm256_min_epu8(w, n), high = _mm256_max_epu8(w, n);
    __m256i plane = _mm256_sub_epi8(_mm256_add_epi8(w, n), nw);
    __m256i above = _mm256_cmpeq_epi8(_mm256_max_epu8(nw, high), nw), below = _mm256_cmpeq_epi8(_mm256_min_epu8(nw, low), nw);
    return _mm256_blendv_epi8(_mm256_blendv_epi8(plane, high, below), low, above);
}

/* Predictions of channels c to c + 31. */
IRS_TARGET static inline __m256i predict_row(const irs_model *m, const irs_pixels *near, uint32_t c) {
    if (m->predictor == IRS_PREDICT_NONE) {
        return _mm256_set1_epi8((char)m->initial);
    }
    __m256i w = load_row(near->west + c), n = load_row(near->north + c), nw = load_row(near->north_west + c);
    if (m->predictor == IRS_PREDICT_MED) {
        return med_row(w, n, nw);
    }
    return linear_row(m->west_north + c, m->corners + c, w, n, nw, load_row(near->north_east + c));
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
        __m256i words = _mm256_packs_epi32(_mm256_add_epi32(load_eight(base + first + c), total), _mm256_setzero_si256());
        __m256i bytes = _mm256_packus_epi16(words, _mm256_setzero_si256());
        store32(refined + c, (uint32_t)_mm256_extract_epi32(bytes, 0));
        store32(refined + c + 4, (uint32_t)_mm256_extract_epi32(bytes, 4));
    }
}

/* ---- contexts ------------------------------------------------------------------------------------------------------ */

/* Residuals of a row, as far as `here` says; magnitudes are added to `sums`. */
IRS_TARGET static inline void residual_row(const irs_model *m, __m256i symbols, __m256i base, __m256i here,
                                           int16_t *residuals, __m256i *sums) {
    __m256i s = _mm256_and_si256(symbols, here), b = _mm256_and_si256(base, here);
    __m256i size = _mm256_or_si256(_mm256_subs_epu8(s, b), _mm256_subs_epu8(b, s));
    *sums = _mm256_add_epi64(*sums, _mm256_sad_epu8(size, _mm256_setzero_si256()));
    if (irs_has_references(m)) {
        __m256i low = _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(s)),
                                       _mm256_cvtepu8_epi16(_mm256_castsi256_si128(b)));
        __m256i high = _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm256_extracti128_si256(s, 1)),
                                        _mm256_cvtepu8_epi16(_mm256_extracti128_si256(b, 1)));
        store_row((uint8_t *)residuals, low);
        store_row((uint8_t *)(residuals + 16), high);
    }
}

IRS_TARGET static inline uint32_t sum_of(__m256i sums) {
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return (uint32_t)_mm_cvtsi128_si32(two) + (uint32_t)_mm_extract_epi32(two, 2);
}

/* `map`: the rows of bins of one activity level, from the first channel of the row on. */
IRS_TARGET static inline __m256i choose_row(const irs_model *m, const uint8_t *map, __m256i prediction) {
    __m256i table = load_row(map);
    for (uint32_t i = 0; i + 1 < m->bins; i++) {
        map += m->channels;
        __m256i threshold = _mm256_set1_epi8((char)m->thresholds[i]);
        __m256i reached = _mm256_cmpeq_epi8(_mm256_max_epu8(prediction, threshold), prediction);
        table = _mm256_blendv_epi8(table, load_row(map), reached);
    }
    return table;
}

#endif
