/* SPDX-License-Identifier: Apache-2.0
 *
 * Vectors of 16 bytes on aarch64. simd/names.h says what the functions do.
 */
#ifndef IRS_VECTOR_NEON_H
#define IRS_VECTOR_NEON_H

#include "../vector_16.h"

#include <arm_neon.h>

#define VEC_TARGET
#define VEC_INLINE __attribute__((always_inline, unused)) static inline

typedef uint32x4_t vec;

#define NEON_U8(v) vreinterpretq_u8_u32(v)
#define NEON_U32(v) vreinterpretq_u32_u8(v)

VEC_INLINE vec vec_load(const void *p) { return NEON_U32(vld1q_u8((const uint8_t *)p)); }
VEC_INLINE void vec_store(void *p, vec v) { vst1q_u8((uint8_t *)p, NEON_U8(v)); }

VEC_INLINE vec vec_set_u8(uint8_t value) { return NEON_U32(vdupq_n_u8(value)); }
VEC_INLINE vec vec_set_u32(uint32_t value) { return vdupq_n_u32(value); }

VEC_INLINE vec vec_and(vec a, vec b) { return vandq_u32(a, b); }
VEC_INLINE vec vec_or(vec a, vec b) { return vorrq_u32(a, b); }
VEC_INLINE vec vec_select(vec mask, vec a, vec b) { return vbslq_u32(mask, a, b); }

VEC_INLINE vec vec_add_u8(vec a, vec b) { return NEON_U32(vaddq_u8(NEON_U8(a), NEON_U8(b))); }
VEC_INLINE vec vec_sub_u8(vec a, vec b) { return NEON_U32(vsubq_u8(NEON_U8(a), NEON_U8(b))); }
VEC_INLINE vec vec_min_u8(vec a, vec b) { return NEON_U32(vminq_u8(NEON_U8(a), NEON_U8(b))); }
VEC_INLINE vec vec_max_u8(vec a, vec b) { return NEON_U32(vmaxq_u8(NEON_U8(a), NEON_U8(b))); }
VEC_INLINE vec vec_cmpeq_u8(vec a, vec b) { return NEON_U32(vceqq_u8(NEON_U8(a), NEON_U8(b))); }

VEC_INLINE vec vec_add(vec a, vec b) { return vaddq_u32(a, b); }
VEC_INLINE vec vec_sub(vec a, vec b) { return vsubq_u32(a, b); }
VEC_INLINE vec vec_mul(vec a, vec b) { return vmulq_u32(a, b); }
VEC_INLINE vec vec_shl(vec v, uint32_t count) { return vshlq_u32(v, vdupq_n_s32((int32_t)count)); }
VEC_INLINE vec vec_shr(vec v, uint32_t count) { return vshlq_u32(v, vdupq_n_s32(-(int32_t)count)); }
VEC_INLINE vec vec_cmpgt(vec a, vec b) {
    return vcgtq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b));
}

VEC_INLINE uint32_t vec_movemask(vec v) {
    static const int32_t places[4] = {0, 1, 2, 3};
    return vaddvq_u32(vshlq_u32(vshrq_n_u32(v, 31), vld1q_s32(places)));
}

VEC_INLINE vec vec_cmpeq(vec a, vec b) { return vceqq_u32(a, b); }
VEC_INLINE vec vec_andnot(vec a, vec b) { return vbicq_u32(a, b); }
VEC_INLINE vec vec_select_by_sign(vec signs, vec a, vec b) {
    return vbslq_u32(vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(signs), 31)), a, b);
}

VEC_INLINE vec vec_mulhi(vec a, vec b) {
    return vcombine_u32(vshrn_n_u64(vmull_u32(vget_low_u32(a), vget_low_u32(b)), 32),
                        vshrn_n_u64(vmull_u32(vget_high_u32(a), vget_high_u32(b)), 32));
}

VEC_INLINE vec vec_add_sums(vec sums, vec bytes) {
    return vpadalq_u16(sums, vpaddlq_u8(NEON_U8(bytes)));
}
VEC_INLINE uint32_t vec_reduce_sums(vec sums) { return vaddvq_u32(sums); }

VEC_INLINE void vec_widen(vec bytes, vec *lanes) {
    uint16x8_t low = vmovl_u8(vget_low_u8(NEON_U8(bytes))),
               high = vmovl_u8(vget_high_u8(NEON_U8(bytes)));
    lanes[0] = vmovl_u16(vget_low_u16(low));
    lanes[1] = vmovl_u16(vget_high_u16(low));
    lanes[2] = vmovl_u16(vget_low_u16(high));
    lanes[3] = vmovl_u16(vget_high_u16(high));
}

VEC_INLINE vec vec_narrow(const vec *lanes) {
    uint16x8_t low = vcombine_u16(vmovn_u32(lanes[0]), vmovn_u32(lanes[1]));
    uint16x8_t high = vcombine_u16(vmovn_u32(lanes[2]), vmovn_u32(lanes[3]));
    return NEON_U32(vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
}

VEC_INLINE vec vec_gather(const uint32_t *table, vec index) {
    vec entries = vdupq_n_u32(table[vgetq_lane_u32(index, 0)]);
    entries = vsetq_lane_u32(table[vgetq_lane_u32(index, 1)], entries, 1);
    entries = vsetq_lane_u32(table[vgetq_lane_u32(index, 2)], entries, 2);
    return vsetq_lane_u32(table[vgetq_lane_u32(index, 3)], entries, 3);
}

VEC_INLINE void vec_store_interleaved(uint16_t *pairs, vec low, vec high) {
    uint8x16x2_t two = {{NEON_U8(low), NEON_U8(high)}};
    vst2q_u8((uint8_t *)pairs, two);
}

VEC_INLINE void vec_gather_u64(const uint64_t *table, const uint16_t *index, vec *low, vec *high) {
    uint64x2_t first = vcombine_u64(vld1_u64(table + index[0]), vld1_u64(table + index[1]));
    uint64x2_t second = vcombine_u64(vld1_u64(table + index[2]), vld1_u64(table + index[3]));
    *low = vuzp1q_u32(vreinterpretq_u32_u64(first), vreinterpretq_u32_u64(second));
    *high = vuzp2q_u32(vreinterpretq_u32_u64(first), vreinterpretq_u32_u64(second));
}

VEC_INLINE void vec_emit_words(uint8_t *end, vec states, uint32_t emit) {
    vst1_u8(end - 8, vqtbl1_u8(NEON_U8(states), vld1_u8(irs_emit_shuffles[emit])));
}

VEC_INLINE vec vec_refill_words(const uint8_t *start, uint32_t refill) {
    uint8x8_t words = vld1_u8(start);
    return NEON_U32(vqtbl1q_u8(vcombine_u8(words, words), vld1q_u8(irs_refill_shuffles[refill])));
}

/* Products of eight channels with two weights each, added up. */
VEC_INLINE int16x8_t vec_weigh_half(const int16_t *weights, uint8x8_t a, uint8x8_t b) {
    int8x8x2_t pair = vld2_s8((const int8_t *)weights);
    int16x8_t product = vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(a)), vmovl_s8(pair.val[0]));
    return vmlaq_s16(product, vreinterpretq_s16_u16(vmovl_u8(b)), vmovl_s8(pair.val[1]));
}

VEC_INLINE vec vec_predict_linear(const int16_t *west_north, const int16_t *corners, vec w, vec n,
                                  vec nw, vec ne) {
    /* saturation changes nothing: such sums are clamped to 0 or 255 afterwards */
    int16x8_t low =
        vqaddq_s16(vec_weigh_half(west_north, vget_low_u8(NEON_U8(w)), vget_low_u8(NEON_U8(n))),
                   vec_weigh_half(corners, vget_low_u8(NEON_U8(nw)), vget_low_u8(NEON_U8(ne))));
    int16x8_t high = vqaddq_s16(
        vec_weigh_half(west_north + 8, vget_high_u8(NEON_U8(w)), vget_high_u8(NEON_U8(n))),
        vec_weigh_half(corners + 8, vget_high_u8(NEON_U8(nw)), vget_high_u8(NEON_U8(ne))));
    int16x8_t half = vdupq_n_s16(32);
    return NEON_U32(vcombine_u8(vqshrun_n_s16(vqaddq_s16(low, half), 6),
                                vqshrun_n_s16(vqaddq_s16(high, half), 6)));
}

VEC_INLINE void vec_store_differences(int16_t *target, vec a, vec b) {
    vst1q_s16(target,
              vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(NEON_U8(a)), vget_low_u8(NEON_U8(b)))));
    vst1q_s16(target + 8,
              vreinterpretq_s16_u16(vsubl_u8(vget_high_u8(NEON_U8(a)), vget_high_u8(NEON_U8(b)))));
}

#endif
