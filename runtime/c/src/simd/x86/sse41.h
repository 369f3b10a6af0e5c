/* Vectors of 16 bytes on x86 with SSE4.1. */
#ifndef IRS_VECTOR_SSE41_H
#define IRS_VECTOR_SSE41_H

#include "../vector_16.h"

#include <smmintrin.h>

#define VECTOR_SIZE 16
#define VECTOR_TARGET __attribute__((target("sse4.1")))
#define VECTOR VECTOR_TARGET __attribute__((always_inline)) static inline

typedef __m128i vector;

VECTOR vector load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
VECTOR void store(void *p, vector v) { _mm_storeu_si128((__m128i *)p, v); }

VECTOR vector all_bytes(uint8_t value) { return _mm_set1_epi8((char)value); }
VECTOR vector all_lanes(uint32_t value) { return _mm_set1_epi32((int)value); }

VECTOR vector both(vector a, vector b) { return _mm_and_si128(a, b); }
VECTOR vector either(vector a, vector b) { return _mm_or_si128(a, b); }
VECTOR vector pick(vector mask, vector a, vector b) { return _mm_blendv_epi8(b, a, mask); }

VECTOR vector add_bytes(vector a, vector b) { return _mm_add_epi8(a, b); }
VECTOR vector sub_bytes(vector a, vector b) { return _mm_sub_epi8(a, b); }
VECTOR vector min_bytes(vector a, vector b) { return _mm_min_epu8(a, b); }
VECTOR vector max_bytes(vector a, vector b) { return _mm_max_epu8(a, b); }
VECTOR vector same_bytes(vector a, vector b) { return _mm_cmpeq_epi8(a, b); }

VECTOR vector add(vector a, vector b) { return _mm_add_epi32(a, b); }
VECTOR vector sub(vector a, vector b) { return _mm_sub_epi32(a, b); }
VECTOR vector multiply(vector a, vector b) { return _mm_mullo_epi32(a, b); }
VECTOR vector left(vector v, uint32_t count) { return _mm_sll_epi32(v, _mm_cvtsi32_si128((int)count)); }
VECTOR vector right(vector v, uint32_t count) { return _mm_srl_epi32(v, _mm_cvtsi32_si128((int)count)); }
VECTOR vector above(vector a, vector b) { return _mm_cmpgt_epi32(a, b); }
VECTOR uint32_t top_bits(vector v) { return (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(v)); }
VECTOR vector same_lanes(vector a, vector b) { return _mm_cmpeq_epi32(a, b); }
VECTOR vector without(vector a, vector b) { return _mm_andnot_si128(b, a); }
VECTOR vector pick_by_top(vector tops, vector a, vector b) {
    return _mm_castps_si128(_mm_blendv_ps(_mm_castsi128_ps(b), _mm_castsi128_ps(a), _mm_castsi128_ps(tops)));
}

VECTOR vector high_product(vector a, vector b) {
    vector even = _mm_mul_epu32(a, b), odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), _mm_srli_epi64(b, 32));
    return _mm_blend_epi16(_mm_srli_epi64(even, 32), odd, 0xCC);
}

VECTOR vector add_up(vector sums, vector bytes) { return _mm_add_epi64(sums, _mm_sad_epu8(bytes, _mm_setzero_si128())); }
VECTOR uint32_t sum_of(vector sums) { return (uint32_t)_mm_cvtsi128_si32(sums) + (uint32_t)_mm_extract_epi32(sums, 2); }

VECTOR void widen(vector bytes, vector *lanes) {
    lanes[0] = _mm_cvtepu8_epi32(bytes);
    lanes[1] = _mm_cvtepu8_epi32(_mm_srli_si128(bytes, 4));
    lanes[2] = _mm_cvtepu8_epi32(_mm_srli_si128(bytes, 8));
    lanes[3] = _mm_cvtepu8_epi32(_mm_srli_si128(bytes, 12));
}

VECTOR vector narrow(const vector *lanes) {
    vector byte = _mm_set1_epi32(0xFF);
    return _mm_packus_epi16(_mm_packus_epi32(both(lanes[0], byte), both(lanes[1], byte)),
                            _mm_packus_epi32(both(lanes[2], byte), both(lanes[3], byte)));
}

VECTOR vector look_up(const uint32_t *table, vector index) {
    uint64_t a = (uint64_t)_mm_cvtsi128_si64(index), b = (uint64_t)_mm_extract_epi64(index, 1);
    vector low = _mm_cvtsi32_si128((int)table[a & 0xFFFFFFFF]);
    vector high = _mm_cvtsi32_si128((int)table[b & 0xFFFFFFFF]);
    low = _mm_insert_epi32(low, (int)table[a >> 32], 1);
    high = _mm_insert_epi32(high, (int)table[b >> 32], 1);
    return _mm_unpacklo_epi64(low, high);
}

/* Words of eight bits and eight bits. */
VECTOR void put_pairs(uint16_t *pairs, vector low, vector high) {
    store(pairs, _mm_unpacklo_epi8(low, high));
    store(pairs + 8, _mm_unpackhi_epi8(low, high));
}

VECTOR __m128 load_two(const uint64_t *table, uint32_t first, uint32_t second) {
    __m128d low = _mm_load_sd((const double *)(const void *)(table + first));
    return _mm_castpd_ps(_mm_loadh_pd(low, (const double *)(const void *)(table + second)));
}

/* Halves of four entries. */
VECTOR void look_up_pairs(const uint64_t *table, const uint16_t *index, vector *low, vector *high) {
    __m128 first = load_two(table, index[0], index[1]), second = load_two(table, index[2], index[3]);
    *low = _mm_castps_si128(_mm_shuffle_ps(first, second, 0x88));
    *high = _mm_castps_si128(_mm_shuffle_ps(first, second, 0xDD));
}

VECTOR void put_words(uint8_t *end, vector states, uint32_t givers) {
    vector order = _mm_loadl_epi64((const __m128i *)(const void *)irs_words_of[givers]);
    _mm_storel_epi64((__m128i *)(void *)(end - 8), _mm_shuffle_epi8(states, order));
}

VECTOR vector take_words(const uint8_t *start, uint32_t takers) {
    return _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)(const void *)start), load(irs_words_for[takers]));
}

VECTOR vector weigh(const int16_t *west_north, const int16_t *corners, vector w, vector n, vector nw, vector ne) {
    vector half = _mm_set1_epi16(32);
    /* saturation changes nothing: such sums are clamped to 0 or 255 anyway */
    vector low = _mm_adds_epi16(_mm_maddubs_epi16(_mm_unpacklo_epi8(w, n), load(west_north)),
                                _mm_maddubs_epi16(_mm_unpacklo_epi8(nw, ne), load(corners)));
    vector high = _mm_adds_epi16(_mm_maddubs_epi16(_mm_unpackhi_epi8(w, n), load(west_north + 8)),
                                 _mm_maddubs_epi16(_mm_unpackhi_epi8(nw, ne), load(corners + 8)));
    return _mm_packus_epi16(_mm_srai_epi16(_mm_adds_epi16(low, half), 6), _mm_srai_epi16(_mm_adds_epi16(high, half), 6));
}

VECTOR void put_differences(int16_t *target, vector a, vector b) {
    vector zero = _mm_setzero_si128();
    store(target, _mm_sub_epi16(_mm_unpacklo_epi8(a, zero), _mm_unpacklo_epi8(b, zero)));
    store(target + 8, _mm_sub_epi16(_mm_unpackhi_epi8(a, zero), _mm_unpackhi_epi8(b, zero)));
}

#endif
