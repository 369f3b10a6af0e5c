/* SPDX-License-Identifier: Apache-2.0
 *
 * Vectors of 32 bytes on x86-64 with AVX2 and BMI2. simd/names.h says what the functions do.
 */
#ifndef IRS_VECTOR_AVX2_H
#define IRS_VECTOR_AVX2_H

#include "../../rans/static_rans.h"

#include <immintrin.h>

#define VEC_SIZE 32
#define VEC_LANES 8
#include "../names.h"

#define VEC_TARGET __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define VEC_INLINE VEC_TARGET __attribute__((always_inline, unused)) static inline

typedef __m256i vec;

/* For every set of lanes, byte j is the number of lanes below j in the set: the index of the word
 * that lane j takes. */
#define AVX2_BELOW(m, j)                                                                         \
    ((((m)&1) && (j) > 0) + (((m)&2) && (j) > 1) + (((m)&4) && (j) > 2) + (((m)&8) && (j) > 3) + \
     (((m)&16) && (j) > 4) + (((m)&32) && (j) > 5) + (((m)&64) && (j) > 6))
#define AVX2_ROW1(m)                                                                              \
    {                                                                                             \
        AVX2_BELOW(m, 0), AVX2_BELOW(m, 1), AVX2_BELOW(m, 2), AVX2_BELOW(m, 3), AVX2_BELOW(m, 4), \
            AVX2_BELOW(m, 5), AVX2_BELOW(m, 6), AVX2_BELOW(m, 7)                                  \
    }
#define AVX2_ROW4(m) AVX2_ROW1(m), AVX2_ROW1((m) + 1), AVX2_ROW1((m) + 2), AVX2_ROW1((m) + 3)
#define AVX2_ROW16(m) AVX2_ROW4(m), AVX2_ROW4((m) + 4), AVX2_ROW4((m) + 8), AVX2_ROW4((m) + 12)
#define AVX2_ROW64(m) \
    AVX2_ROW16(m), AVX2_ROW16((m) + 16), AVX2_ROW16((m) + 32), AVX2_ROW16((m) + 48)
static const uint8_t irs_lanes_below[256][8] = {AVX2_ROW64(0), AVX2_ROW64(64), AVX2_ROW64(128),
                                                AVX2_ROW64(192)};
#undef AVX2_BELOW
#undef AVX2_ROW1
#undef AVX2_ROW4
#undef AVX2_ROW16
#undef AVX2_ROW64

VEC_INLINE uint32_t vec_popcount(uint32_t set) { return (uint32_t)__builtin_popcount(set); }

VEC_INLINE vec vec_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
VEC_INLINE void vec_store(void *p, vec v) { _mm256_storeu_si256((__m256i *)p, v); }

VEC_INLINE vec vec_set_u8(uint8_t value) { return _mm256_set1_epi8((char)value); }
VEC_INLINE vec vec_set_u32(uint32_t value) { return _mm256_set1_epi32((int)value); }

VEC_INLINE vec vec_and(vec a, vec b) { return _mm256_and_si256(a, b); }
VEC_INLINE vec vec_or(vec a, vec b) { return _mm256_or_si256(a, b); }
VEC_INLINE vec vec_select(vec mask, vec a, vec b) { return _mm256_blendv_epi8(b, a, mask); }

VEC_INLINE vec vec_add_u8(vec a, vec b) { return _mm256_add_epi8(a, b); }
VEC_INLINE vec vec_sub_u8(vec a, vec b) { return _mm256_sub_epi8(a, b); }
VEC_INLINE vec vec_min_u8(vec a, vec b) { return _mm256_min_epu8(a, b); }
VEC_INLINE vec vec_max_u8(vec a, vec b) { return _mm256_max_epu8(a, b); }
VEC_INLINE vec vec_cmpeq_u8(vec a, vec b) { return _mm256_cmpeq_epi8(a, b); }

VEC_INLINE vec vec_add(vec a, vec b) { return _mm256_add_epi32(a, b); }
VEC_INLINE vec vec_sub(vec a, vec b) { return _mm256_sub_epi32(a, b); }
VEC_INLINE vec vec_mul(vec a, vec b) { return _mm256_mullo_epi32(a, b); }
VEC_INLINE vec vec_shl(vec v, uint32_t count) {
    return _mm256_sll_epi32(v, _mm_cvtsi32_si128((int)count));
}
VEC_INLINE vec vec_shr(vec v, uint32_t count) {
    return _mm256_srl_epi32(v, _mm_cvtsi32_si128((int)count));
}
VEC_INLINE vec vec_cmpgt(vec a, vec b) { return _mm256_cmpgt_epi32(a, b); }
VEC_INLINE uint32_t vec_movemask(vec v) {
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(v));
}
VEC_INLINE vec vec_cmpeq(vec a, vec b) { return _mm256_cmpeq_epi32(a, b); }
VEC_INLINE vec vec_andnot(vec a, vec b) { return _mm256_andnot_si256(b, a); }
VEC_INLINE vec vec_select_by_sign(vec signs, vec a, vec b) {
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(b), _mm256_castsi256_ps(a),
                                                _mm256_castsi256_ps(signs)));
}

VEC_INLINE vec vec_mulhi(vec a, vec b) {
    vec even = _mm256_mul_epu32(a, b),
        odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

VEC_INLINE vec vec_add_sums(vec sums, vec bytes) {
    return _mm256_add_epi64(sums, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
}

VEC_INLINE uint32_t vec_reduce_sums(vec sums) {
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return (uint32_t)_mm_cvtsi128_si32(two) + (uint32_t)_mm_extract_epi32(two, 2);
}

VEC_INLINE vec vec_load_u8_to_u32(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

VEC_INLINE void vec_widen(vec bytes, vec *lanes) {
    __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
    lanes[0] = _mm256_cvtepu8_epi32(low);
    lanes[1] = _mm256_cvtepu8_epi32(_mm_srli_si128(low, 8));
    lanes[2] = _mm256_cvtepu8_epi32(high);
    lanes[3] = _mm256_cvtepu8_epi32(_mm_srli_si128(high, 8));
}

VEC_INLINE vec vec_narrow(const vec *lanes) {
    vec byte = _mm256_set1_epi32(0xFF);
    vec low = _mm256_packus_epi32(vec_and(lanes[0], byte), vec_and(lanes[1], byte));
    vec high = _mm256_packus_epi32(vec_and(lanes[2], byte), vec_and(lanes[3], byte));
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Eight loads: the gather instruction is microcode on many machines. */
VEC_INLINE vec vec_gather(const uint32_t *table, vec index) {
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

VEC_INLINE void vec_store_interleaved(uint16_t *pairs, vec low, vec high) {
    vec first = _mm256_unpacklo_epi8(low, high), second = _mm256_unpackhi_epi8(low, high);
    vec_store(pairs, _mm256_permute2x128_si256(first, second, 0x20));
    vec_store(pairs + 16, _mm256_permute2x128_si256(first, second, 0x31));
}

VEC_INLINE __m128i vec_load_two_u64(const uint64_t *table, uint32_t first, uint32_t second) {
    __m128d low = _mm_load_sd((const double *)(const void *)(table + first));
    return _mm_castpd_si128(_mm_loadh_pd(low, (const double *)(const void *)(table + second)));
}

VEC_INLINE void vec_gather_u64(const uint64_t *table, const uint16_t *index, vec *low, vec *high) {
    __m128i first = vec_load_two_u64(table, index[0], index[1]),
            second = vec_load_two_u64(table, index[2], index[3]);
    __m128i third = vec_load_two_u64(table, index[4], index[5]),
            fourth = vec_load_two_u64(table, index[6], index[7]);
    __m256 vec_shl =
        _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(first), third, 1));
    __m256 vec_shr =
        _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(second), fourth, 1));
    *low = _mm256_castps_si256(_mm256_shuffle_ps(vec_shl, vec_shr, 0x88));
    *high = _mm256_castps_si256(_mm256_shuffle_ps(vec_shl, vec_shr, 0xDD));
}

VEC_INLINE void vec_emit_words(uint8_t *end, vec states, uint32_t emit) {
    uint64_t spread = _pdep_u64(emit, UINT64_C(0x0101010101010101)) * 0xFF;
    uint64_t order = _pext_u64(UINT64_C(0x0E0C0A0806040200), spread)
                     << ((64 - 8 * vec_popcount(emit)) & 63);
    __m128i bytes = _mm_cvtsi64_si128((long long)order);
    bytes = _mm_or_si128(_mm_unpacklo_epi8(bytes, bytes), _mm_set1_epi16(0x0100));
    vec words = _mm256_shuffle_epi8(
        states, _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 4,
                                 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1));
    __m128i all =
        _mm_unpacklo_epi64(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)(void *)(end - 16), _mm_shuffle_epi8(all, bytes));
}

VEC_INLINE vec vec_refill_words(const uint8_t *start, uint32_t refill) {
    vec words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)start));
    return _mm256_permutevar8x32_epi32(words, vec_load_u8_to_u32(irs_lanes_below[refill]));
}

VEC_INLINE vec vec_predict_linear(const int16_t *west_north, const int16_t *corners, vec w, vec n,
                                  vec nw, vec ne) {
    vec a0 = vec_load(west_north), a1 = vec_load(west_north + 16), b0 = vec_load(corners),
        b1 = vec_load(corners + 16);
    /* unpacking works within halves: give the weights the same order */
    vec a_low = _mm256_permute2x128_si256(a0, a1, 0x20),
        a_high = _mm256_permute2x128_si256(a0, a1, 0x31);
    vec b_low = _mm256_permute2x128_si256(b0, b1, 0x20),
        b_high = _mm256_permute2x128_si256(b0, b1, 0x31);
    vec half = _mm256_set1_epi16(32);
    /* saturation changes nothing: such sums are clamped to 0 or 255 afterwards */
    vec low = _mm256_adds_epi16(_mm256_maddubs_epi16(_mm256_unpacklo_epi8(w, n), a_low),
                                _mm256_maddubs_epi16(_mm256_unpacklo_epi8(nw, ne), b_low));
    vec high = _mm256_adds_epi16(_mm256_maddubs_epi16(_mm256_unpackhi_epi8(w, n), a_high),
                                 _mm256_maddubs_epi16(_mm256_unpackhi_epi8(nw, ne), b_high));
    return _mm256_packus_epi16(_mm256_srai_epi16(_mm256_adds_epi16(low, half), 6),
                               _mm256_srai_epi16(_mm256_adds_epi16(high, half), 6));
}

VEC_INLINE void vec_refine(const irs_rans_model *m, const uint8_t *base, const int16_t *residuals,
                           uint32_t first, uint32_t count, uint8_t *refined) {
    const uint16_t *reference = m->reference + 2 * (size_t)first;
    const int16_t *weight = m->reference_weight + 2 * (size_t)first;
    for (uint32_t c = 0; c < count; c += 8) {
        vec pairs = vec_load(reference + 2 * c), zero = _mm256_setzero_si256();
        /* gathers read two residuals; the padding of the row makes that safe */
        vec e0 = _mm256_i32gather_epi32((const int *)(const void *)residuals,
                                        vec_and(pairs, vec_set_u32(0xFFFF)), 2);
        vec e1 = _mm256_i32gather_epi32((const int *)(const void *)residuals,
                                        _mm256_srli_epi32(pairs, 16), 2);
        vec e = _mm256_blend_epi16(e0, _mm256_slli_epi32(e1, 16), 0xAA);
        vec total = _mm256_srai_epi32(
            vec_add(_mm256_madd_epi16(e, vec_load(weight + 2 * c)), vec_set_u32(32)), 6);
        vec bytes = _mm256_packus_epi16(
            _mm256_packs_epi32(vec_add(vec_load_u8_to_u32(base + first + c), total), zero), zero);
        irs_store32(refined + c, (uint32_t)_mm256_extract_epi32(bytes, 0));
        irs_store32(refined + c + 4, (uint32_t)_mm256_extract_epi32(bytes, 4));
    }
}

VEC_INLINE void vec_store_differences(int16_t *target, vec a, vec b) {
    vec_store(target, _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(a)),
                                       _mm256_cvtepu8_epi16(_mm256_castsi256_si128(b))));
    vec_store(target + 16, _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm256_extracti128_si256(a, 1)),
                                            _mm256_cvtepu8_epi16(_mm256_extracti128_si256(b, 1))));
}

#endif
