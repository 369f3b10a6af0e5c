/* SPDX-License-Identifier: Apache-2.0
 *
 * What both machines with vectors of 16 bytes share: for every set of four lanes, the bytes that a
 * shuffle picks. 255 gives zero.
 */
#ifndef IRS_VECTOR_16_H
#define IRS_VECTOR_16_H

#include "../rans/static_cursor.h"

#define VEC_SIZE 16
#define VEC_LANES 4
#include "names.h"

/* Gathers the low words of the lanes in the set, in their order, at the end of eight bytes. */
static const uint8_t irs_emit_shuffles[16][8] = {
    {255, 255, 255, 255, 255, 255, 255, 255}, {255, 255, 255, 255, 255, 255, 0, 1},
    {255, 255, 255, 255, 255, 255, 4, 5},     {255, 255, 255, 255, 0, 1, 4, 5},
    {255, 255, 255, 255, 255, 255, 8, 9},     {255, 255, 255, 255, 0, 1, 8, 9},
    {255, 255, 255, 255, 4, 5, 8, 9},         {255, 255, 0, 1, 4, 5, 8, 9},
    {255, 255, 255, 255, 255, 255, 12, 13},   {255, 255, 255, 255, 0, 1, 12, 13},
    {255, 255, 255, 255, 4, 5, 12, 13},       {255, 255, 0, 1, 4, 5, 12, 13},
    {255, 255, 255, 255, 8, 9, 12, 13},       {255, 255, 0, 1, 8, 9, 12, 13},
    {255, 255, 4, 5, 8, 9, 12, 13},           {0, 1, 4, 5, 8, 9, 12, 13},
};

/* Gives each lane in the set one word, in their order. */
static const uint8_t irs_refill_shuffles[16][16] = {
    {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
    {0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
    {255, 255, 255, 255, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
    {0, 1, 255, 255, 2, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
    {255, 255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 255, 255, 255, 255},
    {0, 1, 255, 255, 255, 255, 255, 255, 2, 3, 255, 255, 255, 255, 255, 255},
    {255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 255, 255, 255, 255, 255, 255},
    {0, 1, 255, 255, 2, 3, 255, 255, 4, 5, 255, 255, 255, 255, 255, 255},
    {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255},
    {0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2, 3, 255, 255},
    {255, 255, 255, 255, 0, 1, 255, 255, 255, 255, 255, 255, 2, 3, 255, 255},
    {0, 1, 255, 255, 2, 3, 255, 255, 255, 255, 255, 255, 4, 5, 255, 255},
    {255, 255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 255, 255},
    {0, 1, 255, 255, 255, 255, 255, 255, 2, 3, 255, 255, 4, 5, 255, 255},
    {255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 255, 255, 4, 5, 255, 255},
    {0, 1, 255, 255, 2, 3, 255, 255, 4, 5, 255, 255, 6, 7, 255, 255},
};

/* A nibble of the constant for each set. */
static inline uint32_t vec_popcount(uint32_t set) {
    return (uint32_t)(UINT64_C(0x4332322132212110) >> 4 * set) & 15;
}

/* There are no gathers of 16-bit residuals to speak of. */
static inline void vec_refine(const irs_rans_model *m, const uint8_t *base,
                              const int16_t *residuals, uint32_t first, uint32_t count,
                              uint8_t *refined) {
    irs_refine_predictions(m, base, residuals, first, count, refined);
}

#endif
