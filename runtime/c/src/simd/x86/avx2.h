/* Vectors of 32 bytes on x86 with AVX2 and BMI2. */
#ifndef IRS_VECTOR_AVX2_H
#define IRS_VECTOR_AVX2_H

#include "../../rans/static_rans.h"

#include <immintrin.h>

#define VECTOR_SIZE 32
#define VECTOR_TARGET __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define VECTOR VECTOR_TARGET __attribute__((always_inline)) static inline

typedef __m256i vector;

/* For every set of lanes: bytes j = how many of the lanes below j are in the set. */
#define BELOW(m, j) ((((m)&1) && (j) > 0) + (((m)&2) && (j) > 1) + (((m)&4) && (j) > 2) + (((m)&8) && (j) > 3) + \
                     (((m)&16) && (j) > 4) + (((m)&32) && (j) > 5) + (((m)&64) && (j) > 6))
#define ROW1(m) {BELOW(m, 0), BELOW(m, 1), BELOW(m, 2), BELOW(m, 3), BELOW(m, 4), BELOW(m, 5), BELOW(m, 6), BELOW(m, 7)}
#define ROW4(m) ROW1(m), ROW1((m) + 1), ROW1((m) + 2), ROW1((m) + 3)
#define ROW16(m) ROW4(m), ROW4((m) + 4), ROW4((m) + 8), ROW4((m) + 12)
#define ROW64(m) ROW16(m), ROW16((m) + 16), ROW16((m) + 32), ROW16((m) + 48)
static const uint8_t irs_lanes_below[256][8] = {ROW64(0), ROW64(64), ROW64(128), ROW64(192)};

VECTOR uint32_t count_of(uint32_t set) { return (uint32_t)__builtin_popcount(set); }

VECTOR vector load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
VECTOR void store(void *p, vector v) { _mm256_storeu_si256((__m256i *)p, v); }

VECTOR vector all_bytes(uint8_t value) { return _mm256_set1_epi8((char)value); }
VECTOR vector all_lanes(uint32_t value) { return _mm256_set1_epi32((int)value); }

VECTOR vector both(vector a, vector b) { return _mm256_and_si256(a, b); }
VECTOR vector either(vector a, vector b) { return _mm256_or_si256(a, b); }
VECTOR vector pick(vector mask, vector a, vector b) { return _mm256_blendv_epi8(b, a, mask); }

VECTOR vector add_bytes(vector a, vector b) { return _mm256_add_epi8(a, b); }
VECTOR vector sub_bytes(vector a, vector b) { return _mm256_sub_epi8(a, b); }
VECTOR vector min_bytes(vector a, vector b) { return _mm256_min_epu8(a, b); }
VECTOR vector max_bytes(vector a, vector b) { return _mm256_max_epu8(a, b); }
VECTOR vector same_bytes(vector a, vector b) { return _mm256_cmpeq_epi8(a, b); }

VECTOR vector add(vector a, vector b) { return _mm256_add_epi32(a, b); }
VECTOR vector sub(vector a, vector b) { return _mm256_sub_epi32(a, b); }
VECTOR vector multiply(vector a, vector b) { return _mm256_mullo_epi32(a, b); }
VECTOR vector left(vector v, uint32_t count) { return _mm256_sll_epi32(v, _mm_cvtsi32_si128((int)count)); }
VECTOR vector right(vector v, uint32_t count) { return _mm256_srl_epi32(v, _mm_cvtsi32_si128((int)count)); }
VECTOR vector above(vector a, vector b) { return _mm256_cmpgt_epi32(a, b); }
VECTOR uint32_t top_bits(vector v) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(v)); }
VECTOR vector same_lanes(vector a, vector b) { return _mm256_cmpeq_epi32(a, b); }
VECTOR vector without(vector a, vector b) { return _mm256_andnot_si256(b, a); }
VECTOR vector pick_by_top(vector tops, vector a, vector b) {
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(b), _mm256_castsi256_ps(a), _mm256_castsi256_ps(tops)));
}

VECTOR vector high_product(vector a, vector b) {
    vector even = _mm256_mul_epu32(a, b), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

VECTOR vector add_up(vector sums, vector bytes) {
    return _mm256_add_epi64(sums, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
}

VECTOR uint32_t sum_of(vector sums) {
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return (uint32_t)_mm_cvtsi128_si32(two) + (uint32_t)_mm_extract_epi32(two, 2);
}

VECTOR vector load_lanes(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

VECTOR void widen(vector bytes, vector *lanes) {
    __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
    lanes[0] = _mm256_cvtepu8_epi32(low);
    lanes[1] = _mm256_cvtepu8_epi32(_mm_srli_si128(low, 8));
    lanes[2] = _mm256_cvtepu8_epi32(high);
    lanes[3] = _mm256_cvtepu8_epi32(_mm_srli_si128(high, 8));
}

VECTOR vector narrow(const vector *lanes) {
    vector byte = _mm256_set1_epi32(0xFF);
    vector low = _mm256_packus_epi32(both(lanes[0], byte), both(lanes[1], byte));
    vector high = _mm256_packus_epi32(both(lanes[2], byte), both(lanes[3], byte));
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Eight loads: a gather is microcode on many machines. */
VECTOR vector look_up(const uint32_t *table, vector index) {
    __m128i low = _mm256_castsi256_si128(index), high = _mm256_extracti128_si256(index, 1);
    uint64_t a = (uint64_t)_mm_cvtsi128_si64(low), b = (uint64_t)_mm_extract_epi64(low, 1);
    uint64_t c = (uint64_t)_mm_cvtsi128_si64(high), d = (uint64_t)_mm_extract_epi64(high, 1);
    __m128i first = _mm_cvtsi32_si128((int)table[a & 0xFFFFFFFF]);
    __m128i second = _mm_cvtsi32_si128((int)table[c & 0xFFFFFFFF]);
    __m128i f2 = _mm_cvtsi32_si128((int)table[b & 0xFFFFFFFF]);
    __m128i s2 = _mm_cvtsi32_si128((int)table[d & 0xFFFFFFFF]);
    first = _mm_insert_epi32(first, (int)table[a >> 32], 1);
    second = _mm_insert_epi32(second, (int)table[c >> 32], 1);
    f2 = _mm_insert_epi32(f2, (int)table[b >> 32], 1);
    s2 = _mm_insert_epi32(s2, (int)table[d >> 32], 1);
    first = _mm_unpacklo_epi64(first, f2);
    second = _mm_unpacklo_epi64(second, s2);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
}

/* Words of eight bits and eight bits. */
VECTOR void put_pairs(uint16_t *pairs, vector low, vector high) {
    vector first = _mm256_unpacklo_epi8(low, high), second = _mm256_unpackhi_epi8(low, high);
    store(pairs, _mm256_permute2x128_si256(first, second, 0x20));
    store(pairs + 16, _mm256_permute2x128_si256(first, second, 0x31));
}

VECTOR __m128i load_two(const uint64_t *table, uint32_t first, uint32_t second) {
    __m128d low = _mm_load_sd((const double *)(const void *)(table + first));
    return _mm_castpd_si128(_mm_loadh_pd(low, (const double *)(const void *)(table + second)));
}

/* Halves of eight entries. */
VECTOR void look_up_pairs(const uint64_t *table, const uint16_t *index, vector *low, vector *high) {
    __m128i first = load_two(table, index[0], index[1]), second = load_two(table, index[2], index[3]);
    __m128i third = load_two(table, index[4], index[5]), fourth = load_two(table, index[6], index[7]);
    __m256 left = _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(first), third, 1));
    __m256 right = _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(second), fourth, 1));
    *low = _mm256_castps_si256(_mm256_shuffle_ps(left, right, 0x88));
    *high = _mm256_castps_si256(_mm256_shuffle_ps(left, right, 0xDD));
}

VECTOR void put_words(uint8_t *end, vector states, uint32_t givers) {
    uint64_t spread = _pdep_u64(givers, UINT64_C(0x0101010101010101)) * 0xFF;
    uint64_t order = _pext_u64(UINT64_C(0x0E0C0A0806040200), spread) << ((64 - 8 * count_of(givers)) & 63);
    __m128i bytes = _mm_cvtsi64_si128((long long)order);
    bytes = _mm_or_si128(_mm_unpacklo_epi8(bytes, bytes), _mm_set1_epi16(0x0100));
    vector words = _mm256_shuffle_epi8(states, _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1,
                                                                0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1));
    __m128i all = _mm_unpacklo_epi64(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)(void *)(end - 16), _mm_shuffle_epi8(all, bytes));
}

VECTOR vector take_words(const uint8_t *start, uint32_t takers) {
    vector words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)start));
    return _mm256_permutevar8x32_epi32(words, load_lanes(irs_lanes_below[takers]));
}

VECTOR vector weigh(const int16_t *west_north, const int16_t *corners, vector w, vector n, vector nw, vector ne) {
    vector a0 = load(west_north), a1 = load(west_north + 16), b0 = load(corners), b1 = load(corners + 16);
    /* unpacking works within halves: bring the weights into the same order */
    vector a_low = _mm256_permute2x128_si256(a0, a1, 0x20), a_high = _mm256_permute2x128_si256(a0, a1, 0x31);
    vector b_low = _mm256_permute2x128_si256(b0, b1, 0x20), b_high = _mm256_permute2x128_si256(b0, b1, 0x31);
    vector half = _mm256_set1_epi16(32);
    /* saturation changes nothing: such sums are clamped to 0 or 255 anyway */
    vector low = _mm256_adds_epi16(_mm256_maddubs_epi16(_mm256_unpacklo_epi8(w, n), a_low),
                                   _mm256_maddubs_epi16(_mm256_unpacklo_epi8(nw, ne), b_low));
    vector high = _mm256_adds_epi16(_mm256_maddubs_epi16(_mm256_unpackhi_epi8(w, n), a_high),
                                    _mm256_maddubs_epi16(_mm256_unpackhi_epi8(nw, ne), b_high));
    return _mm256_packus_epi16(_mm256_srai_epi16(_mm256_adds_epi16(low, half), 6),
                               _mm256_srai_epi16(_mm256_adds_epi16(high, half), 6));
}

VECTOR void refine_row(const irs_model *m, const uint8_t *base, const int16_t *residuals, uint32_t first, uint32_t count,
                       uint8_t *refined) {
    const uint16_t *reference = m->reference + 2 * (size_t)first;
    const int16_t *weight = m->reference_weight + 2 * (size_t)first;
    for (uint32_t c = 0; c < count; c += 8) {
        vector pairs = load(reference + 2 * c), zero = _mm256_setzero_si256();
        /* gathers read two residuals; the padding of the row makes that safe */
        vector e0 = _mm256_i32gather_epi32((const int *)(const void *)residuals, both(pairs, all_lanes(0xFFFF)), 2);
        vector e1 = _mm256_i32gather_epi32((const int *)(const void *)residuals, _mm256_srli_epi32(pairs, 16), 2);
        vector e = _mm256_blend_epi16(e0, _mm256_slli_epi32(e1, 16), 0xAA);
        vector total = _mm256_srai_epi32(add(_mm256_madd_epi16(e, load(weight + 2 * c)), all_lanes(32)), 6);
        vector bytes = _mm256_packus_epi16(_mm256_packs_epi32(add(load_lanes(base + first + c), total), zero), zero);
        store32(refined + c, (uint32_t)_mm256_extract_epi32(bytes, 0));
        store32(refined + c + 4, (uint32_t)_mm256_extract_epi32(bytes, 4));
    }
}

VECTOR void put_differences(int16_t *target, vector a, vector b) {
    store(target, _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(a)),
                                   _mm256_cvtepu8_epi16(_mm256_castsi256_si128(b))));
    store(target + 16, _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm256_extracti128_si256(a, 1)),
                                        _mm256_cvtepu8_epi16(_mm256_extracti128_si256(b, 1))));
}

#endif
