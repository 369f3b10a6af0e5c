/* Vectors of 16 bytes on aarch64. */
#ifndef IRS_VECTOR_NEON_H
#define IRS_VECTOR_NEON_H

#include "../vector_16.h"

#include <arm_neon.h>

#define VECTOR_SIZE 16
#define VECTOR_TARGET
#define VECTOR __attribute__((always_inline)) static inline

typedef uint32x4_t vector;

#define BYTES(v) vreinterpretq_u8_u32(v)
#define LANES(v) vreinterpretq_u32_u8(v)

VECTOR vector load(const void *p) { return LANES(vld1q_u8((const uint8_t *)p)); }
VECTOR void store(void *p, vector v) { vst1q_u8((uint8_t *)p, BYTES(v)); }

VECTOR vector all_bytes(uint8_t value) { return LANES(vdupq_n_u8(value)); }
VECTOR vector all_lanes(uint32_t value) { return vdupq_n_u32(value); }

VECTOR vector both(vector a, vector b) { return vandq_u32(a, b); }
VECTOR vector either(vector a, vector b) { return vorrq_u32(a, b); }
VECTOR vector pick(vector mask, vector a, vector b) { return vbslq_u32(mask, a, b); }

VECTOR vector add_bytes(vector a, vector b) { return LANES(vaddq_u8(BYTES(a), BYTES(b))); }
VECTOR vector sub_bytes(vector a, vector b) { return LANES(vsubq_u8(BYTES(a), BYTES(b))); }
VECTOR vector min_bytes(vector a, vector b) { return LANES(vminq_u8(BYTES(a), BYTES(b))); }
VECTOR vector max_bytes(vector a, vector b) { return LANES(vmaxq_u8(BYTES(a), BYTES(b))); }
VECTOR vector same_bytes(vector a, vector b) { return LANES(vceqq_u8(BYTES(a), BYTES(b))); }

VECTOR vector add(vector a, vector b) { return vaddq_u32(a, b); }
VECTOR vector sub(vector a, vector b) { return vsubq_u32(a, b); }
VECTOR vector multiply(vector a, vector b) { return vmulq_u32(a, b); }
VECTOR vector left(vector v, uint32_t count) { return vshlq_u32(v, vdupq_n_s32((int32_t)count)); }
VECTOR vector right(vector v, uint32_t count) { return vshlq_u32(v, vdupq_n_s32(-(int32_t)count)); }
VECTOR vector above(vector a, vector b) { return vcgtq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b)); }

VECTOR uint32_t top_bits(vector v) {
    static const int32_t places[4] = {0, 1, 2, 3};
    return vaddvq_u32(vshlq_u32(vshrq_n_u32(v, 31), vld1q_s32(places)));
}

VECTOR vector same_lanes(vector a, vector b) { return vceqq_u32(a, b); }
VECTOR vector without(vector a, vector b) { return vbicq_u32(a, b); }
VECTOR vector pick_by_top(vector tops, vector a, vector b) {
    return vbslq_u32(vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(tops), 31)), a, b);
}

VECTOR vector high_product(vector a, vector b) {
    return vcombine_u32(vshrn_n_u64(vmull_u32(vget_low_u32(a), vget_low_u32(b)), 32),
                        vshrn_n_u64(vmull_u32(vget_high_u32(a), vget_high_u32(b)), 32));
}

VECTOR vector add_up(vector sums, vector bytes) { return vpadalq_u16(sums, vpaddlq_u8(BYTES(bytes))); }
VECTOR uint32_t sum_of(vector sums) { return vaddvq_u32(sums); }

VECTOR void widen(vector bytes, vector *lanes) {
    uint16x8_t low = vmovl_u8(vget_low_u8(BYTES(bytes))), high = vmovl_u8(vget_high_u8(BYTES(bytes)));
    lanes[0] = vmovl_u16(vget_low_u16(low));
    lanes[1] = vmovl_u16(vget_high_u16(low));
    lanes[2] = vmovl_u16(vget_low_u16(high));
    lanes[3] = vmovl_u16(vget_high_u16(high));
}

VECTOR vector narrow(const vector *lanes) {
    uint16x8_t low = vcombine_u16(vmovn_u32(lanes[0]), vmovn_u32(lanes[1]));
    uint16x8_t high = vcombine_u16(vmovn_u32(lanes[2]), vmovn_u32(lanes[3]));
    return LANES(vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
}

VECTOR vector look_up(const uint32_t *table, vector index) {
    vector found = vdupq_n_u32(table[vgetq_lane_u32(index, 0)]);
    found = vsetq_lane_u32(table[vgetq_lane_u32(index, 1)], found, 1);
    found = vsetq_lane_u32(table[vgetq_lane_u32(index, 2)], found, 2);
    return vsetq_lane_u32(table[vgetq_lane_u32(index, 3)], found, 3);
}

/* Words of eight bits and eight bits. */
VECTOR void put_pairs(uint16_t *pairs, vector low, vector high) {
    uint8x16x2_t two = {{BYTES(low), BYTES(high)}};
    vst2q_u8((uint8_t *)pairs, two);
}

/* Halves of four entries. */
VECTOR void look_up_pairs(const uint64_t *table, const uint16_t *index, vector *low, vector *high) {
    uint64x2_t first = vcombine_u64(vld1_u64(table + index[0]), vld1_u64(table + index[1]));
    uint64x2_t second = vcombine_u64(vld1_u64(table + index[2]), vld1_u64(table + index[3]));
    *low = vuzp1q_u32(vreinterpretq_u32_u64(first), vreinterpretq_u32_u64(second));
    *high = vuzp2q_u32(vreinterpretq_u32_u64(first), vreinterpretq_u32_u64(second));
}

VECTOR void put_words(uint8_t *end, vector states, uint32_t givers) {
    vst1_u8(end - 8, vqtbl1_u8(BYTES(states), vld1_u8(irs_words_of[givers])));
}

VECTOR vector take_words(const uint8_t *start, uint32_t takers) {
    uint8x8_t words = vld1_u8(start);
    return LANES(vqtbl1q_u8(vcombine_u8(words, words), vld1q_u8(irs_words_for[takers])));
}

/* Half of a row: eight pixels by eight pairs of weights. */
VECTOR int16x8_t weigh_two(const int16_t *weights, uint8x8_t a, uint8x8_t b) {
    int8x8x2_t pair = vld2_s8((const int8_t *)weights);
    int16x8_t product = vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(a)), vmovl_s8(pair.val[0]));
    return vmlaq_s16(product, vreinterpretq_s16_u16(vmovl_u8(b)), vmovl_s8(pair.val[1]));
}

VECTOR vector weigh(const int16_t *west_north, const int16_t *corners, vector w, vector n, vector nw, vector ne) {
    /* saturation changes nothing: such sums are clamped to 0 or 255 anyway */
    int16x8_t low = vqaddq_s16(weigh_two(west_north, vget_low_u8(BYTES(w)), vget_low_u8(BYTES(n))),
                               weigh_two(corners, vget_low_u8(BYTES(nw)), vget_low_u8(BYTES(ne))));
    int16x8_t high = vqaddq_s16(weigh_two(west_north + 8, vget_high_u8(BYTES(w)), vget_high_u8(BYTES(n))),
                                weigh_two(corners + 8, vget_high_u8(BYTES(nw)), vget_high_u8(BYTES(ne))));
    int16x8_t half = vdupq_n_s16(32);
    return LANES(vcombine_u8(vqshrun_n_s16(vqaddq_s16(low, half), 6), vqshrun_n_s16(vqaddq_s16(high, half), 6)));
}

VECTOR void put_differences(int16_t *target, vector a, vector b) {
    vst1q_s16(target, vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(BYTES(a)), vget_low_u8(BYTES(b)))));
    vst1q_s16(target + 8, vreinterpretq_s16_u16(vsubl_u8(vget_high_u8(BYTES(a)), vget_high_u8(BYTES(b)))));
}

#endif
