/* SPDX-License-Identifier: Apache-2.0
 *
 * Vectors of 16 bytes on x86-64 with SSE4.1. simd/names.h says what the functions do.
 */
#ifndef IRS_VECTOR_SSE41_H
#define IRS_VECTOR_SSE41_H

#include "../vector_16.h"

#include <smmintrin.h>

#define VEC_TARGET __attribute__((target("sse4.1")))
#define VEC_INLINE VEC_TARGET __attribute__((always_inline, unused)) static inline

typedef __m128i vec;

VEC_INLINE vec vec_load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
VEC_INLINE void vec_store(void *p, vec v) { _mm_storeu_si128((__m128i *)p, v); }

VEC_INLINE vec vec_set_u8(uint8_t value) { return _mm_set1_epi8((char)value); }
VEC_INLINE vec vec_set_u32(uint32_t value) { return _mm_set1_epi32((int)value); }

VEC_INLINE vec vec_and(vec a, vec b) { return _mm_and_si128(a, b); }
VEC_INLINE vec vec_or(vec a, vec b) { return _mm_or_si128(a, b); }
VEC_INLINE vec vec_select(vec mask, vec a, vec b) { return _mm_blendv_epi8(b, a, mask); }

VEC_INLINE vec vec_add_u8(vec a, vec b) { return _mm_add_epi8(a, b); }
VEC_INLINE vec vec_sub_u8(vec a, vec b) { return _mm_sub_epi8(a, b); }
VEC_INLINE vec vec_min_u8(vec a, vec b) { return _mm_min_epu8(a, b); }
VEC_INLINE vec vec_max_u8(vec a, vec b) { return _mm_max_epu8(a, b); }
VEC_INLINE vec vec_cmpeq_u8(vec a, vec b) { return _mm_cmpeq_epi8(a, b); }

VEC_INLINE vec vec_add(vec a, vec b) { return _mm_add_epi32(a, b); }
VEC_INLINE vec vec_sub(vec a, vec b) { return _mm_sub_epi32(a, b); }
VEC_INLINE vec vec_mul(vec a, vec b) { return _mm_mullo_epi32(a, b); }
VEC_INLINE vec vec_shl(vec v, uint32_t count) {
    return _mm_sll_epi32(v, _mm_cvtsi32_si128((int)count));
}
VEC_INLINE vec vec_shr(vec v, uint32_t count) {
    return _mm_srl_epi32(v, _mm_cvtsi32_si128((int)count));
}
VEC_INLINE vec vec_cmpgt(vec a, vec b) { return _mm_cmpgt_epi32(a, b); }
VEC_INLINE uint32_t vec_movemask(vec v) { return (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(v)); }
VEC_INLINE vec vec_cmpeq(vec a, vec b) { return _mm_cmpeq_epi32(a, b); }
VEC_INLINE vec vec_andnot(vec a, vec b) { return _mm_andnot_si128(b, a); }
VEC_INLINE vec vec_select_by_sign(vec signs, vec a, vec b) {
    return _mm_castps_si128(
        _mm_blendv_ps(_mm_castsi128_ps(b), _mm_castsi128_ps(a), _mm_castsi128_ps(signs)));
}

VEC_INLINE vec vec_mulhi(vec a, vec b) {
    vec even = _mm_mul_epu32(a, b),
        odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), _mm_srli_epi64(b, 32));
    return _mm_blend_epi16(_mm_srli_epi64(even, 32), odd, 0xCC);
}

VEC_INLINE vec vec_add_sums(vec sums, vec bytes) {
    return _mm_add_epi64(sums, _mm_sad_epu8(bytes, _mm_setzero_si128()));
}
VEC_INLINE uint32_t vec_reduce_sums(vec sums) {
    return (uint32_t)_mm_cvtsi128_si32(sums) + (uint32_t)_mm_extract_epi32(sums, 2);
}

VEC_INLINE void vec_widen(vec bytes, vec *lanes) {
    lanes[0] = _mm_cvtepu8_epi32(bytes);
    lanes[1] = _mm_cvtepu8_epi32(_mm_srli_si128(bytes, 4));
    lanes[2] = _mm_cvtepu8_epi32(_mm_srli_si128(bytes, 8));
    lanes[3] = _mm_cvtepu8_epi32(_mm_srli_si128(bytes, 12));
}

VEC_INLINE vec vec_narrow(const vec *lanes) {
    vec byte = _mm_set1_epi32(0xFF);
    return _mm_packus_epi16(_mm_packus_epi32(vec_and(lanes[0], byte), vec_and(lanes[1], byte)),
                            _mm_packus_epi32(vec_and(lanes[2], byte), vec_and(lanes[3], byte)));
}

VEC_INLINE vec vec_gather(const uint32_t *table, vec index) {
    uint64_t a = (uint64_t)_mm_cvtsi128_si64(index), b = (uint64_t)_mm_extract_epi64(index, 1);
    vec low = _mm_cvtsi32_si128((int)table[a & 0xFFFFFFFF]);
    vec high = _mm_cvtsi32_si128((int)table[b & 0xFFFFFFFF]);
    low = _mm_insert_epi32(low, (int)table[a >> 32], 1);
    high = _mm_insert_epi32(high, (int)table[b >> 32], 1);
    return _mm_unpacklo_epi64(low, high);
}

VEC_INLINE void vec_store_interleaved(uint16_t *pairs, vec low, vec high) {
    vec_store(pairs, _mm_unpacklo_epi8(low, high));
    vec_store(pairs + 8, _mm_unpackhi_epi8(low, high));
}

VEC_INLINE __m128 vec_load_two_u64(const uint64_t *table, uint32_t first, uint32_t second) {
    __m128d low = _mm_load_sd((const double *)(const void *)(table + first));
    return _mm_castpd_ps(_mm_loadh_pd(low, (const double *)(const void *)(table + second)));
}

VEC_INLINE void vec_gather_u64(const uint64_t *table, const uint16_t *index, vec *low, vec *high) {
    __m128 first = vec_load_two_u64(table, index[0], index[1]),
           second = vec_load_two_u64(table, index[2], index[3]);
    *low = _mm_castps_si128(_mm_shuffle_ps(first, second, 0x88));
    *high = _mm_castps_si128(_mm_shuffle_ps(first, second, 0xDD));
}

VEC_INLINE void vec_emit_words(uint8_t *end, vec states, uint32_t emit) {
    vec order = _mm_loadl_epi64((const __m128i *)(const void *)irs_emit_shuffles[emit]);
    _mm_storel_epi64((__m128i *)(void *)(end - 8), _mm_shuffle_epi8(states, order));
}

VEC_INLINE vec vec_refill_words(const uint8_t *start, uint32_t refill) {
    return _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)(const void *)start),
                            vec_load(irs_refill_shuffles[refill]));
}

VEC_INLINE vec vec_predict_linear(const int16_t *west_north, const int16_t *corners, vec w, vec n,
                                  vec nw, vec ne) {
    vec half = _mm_set1_epi16(32);
    /* saturation changes nothing: such sums are clamped to 0 or 255 afterwards */
    vec low = _mm_adds_epi16(_mm_maddubs_epi16(_mm_unpacklo_epi8(w, n), vec_load(west_north)),
                             _mm_maddubs_epi16(_mm_unpacklo_epi8(nw, ne), vec_load(corners)));
    vec high = _mm_adds_epi16(_mm_maddubs_epi16(_mm_unpackhi_epi8(w, n), vec_load(west_north + 8)),
                              _mm_maddubs_epi16(_mm_unpackhi_epi8(nw, ne), vec_load(corners + 8)));
    return _mm_packus_epi16(_mm_srai_epi16(_mm_adds_epi16(low, half), 6),
                            _mm_srai_epi16(_mm_adds_epi16(high, half), 6));
}

VEC_INLINE void vec_store_differences(int16_t *target, vec a, vec b) {
    vec zero = _mm_setzero_si128();
    vec_store(target, _mm_sub_epi16(_mm_unpacklo_epi8(a, zero), _mm_unpacklo_epi8(b, zero)));
    vec_store(target + 8, _mm_sub_epi16(_mm_unpackhi_epi8(a, zero), _mm_unpackhi_epi8(b, zero)));
}

#endif
