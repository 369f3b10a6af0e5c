/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts with vectors. This file is compiled once for each size of vectors: static_v128.c and
 * static_v256.c include it after the vector functions of a machine (simd/), whose names begin with
 * `vec` (simd/names.h).
 *
 * Predictions and contexts take a row of VEC_SIZE channels at a time. Rows are read and written up
 * to VEC_SIZE - 1 bytes too far. IRS_PADDING provides for that, and the next row or the next pixel
 * overwrites what was written.
 */
#include "static_cursor.h"

/* A window of VEC_SIZE bytes over this table begins with any number of ones. */
static const uint8_t vec_mask_edge[2 * VEC_SIZE] = {
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
#if VEC_SIZE == 32
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
#endif
};

/* All ones in the first `count` bytes; `count` is at most VEC_SIZE. */
VEC_INLINE vec vec_first_bytes(uint32_t count) {
    return vec_load(vec_mask_edge + VEC_SIZE - count);
}

VEC_INLINE uint32_t vec_at_most(uint32_t count, uint32_t most) {
    return count < most ? count : most;
}

/* ---- predictions ----------------------------------------------------------------------------- */

/* W + N - NW wraps around; it is replaced wherever NW lies outside of W and N. */
VEC_INLINE vec vec_predict_med(vec w, vec n, vec nw) {
    vec low = vec_min_u8(w, n), high = vec_max_u8(w, n);
    vec plane = vec_sub_u8(vec_add_u8(w, n), nw);
    vec is_above = vec_cmpeq_u8(vec_max_u8(nw, high), nw);
    vec is_below = vec_cmpeq_u8(vec_min_u8(nw, low), nw);
    return vec_select(is_above, low, vec_select(is_below, high, plane));
}

/* Predicts the row of channels from c on. */
VEC_INLINE vec vec_predict(const irs_rans_model *m, const irs_neighbours *neighbours, uint32_t c) {
    if (m->predictor == IRS_PREDICT_NONE) {
        return vec_set_u8(m->initial);
    }

    vec w = vec_load(neighbours->west + c), n = vec_load(neighbours->north + c);
    vec nw = vec_load(neighbours->north_west + c);
    if (m->predictor == IRS_PREDICT_MED) {
        return vec_predict_med(w, n, nw);
    }
    vec ne = vec_load(neighbours->north_east + c);
    return vec_predict_linear(m->west_north + c, m->corners + c, w, n, nw, ne);
}

/* Adds the magnitudes of a row's residuals to `sums`, as far as `valid` says, and keeps the
 * residuals if later channels refer to them. */
VEC_INLINE void vec_residuals(const irs_rans_model *m, vec symbols, vec base, vec valid,
                              int16_t *residuals, vec *sums) {
    vec s = vec_and(symbols, valid), b = vec_and(base, valid);
    *sums = vec_add_sums(*sums, vec_sub_u8(vec_max_u8(s, b), vec_min_u8(s, b)));
    if (irs_has_references(m)) {
        vec_store_differences(residuals, s, b);
    }
}

/* ---- contexts -------------------------------------------------------------------------------- */

/* Finds the tables of a row: those of the last bin whose threshold the prediction reaches. `map`
 * has a row of tables for each bin and begins with the first channel of the row. */
VEC_INLINE vec vec_choose_tables(const irs_rans_model *m, const uint8_t *map, vec prediction) {
    vec table = vec_load(map);
    for (uint32_t i = 0; i + 1 < m->bins; i++) {
        map += m->channels;
        vec threshold = vec_set_u8(m->thresholds[i]);
        vec is_reached = vec_cmpeq_u8(vec_max_u8(prediction, threshold), prediction);
        table = vec_select(is_reached, vec_load(map), table);
    }
    return table;
}

/* Finds the tables of one pixel, and what is coded; returns its residual sum. `offset` is that of
 * the pixel's symbols in the chunk. */
VEC_INLINE uint32_t vec_pixel_contexts(const irs_rans_model *m, const irs_scratch *s,
                                       const irs_neighbours *neighbours, const uint8_t *map,
                                       size_t offset) {
    const uint8_t *pixel = s->symbols + offset;
    vec sums = vec_set_u8(0);
    for (uint32_t c = 0; c < m->channels; c += VEC_SIZE) {
        vec symbols = vec_load(pixel + c), base = vec_predict(m, neighbours, c);
        vec valid = vec_first_bytes(vec_at_most(m->channels - c, VEC_SIZE));
        vec_residuals(m, symbols, base, valid, s->residuals + c, &sums);
        if (irs_has_references(m)) {
            vec_store(s->base + c, base);
            continue;
        }

        vec_store(s->tables + offset + c, vec_choose_tables(m, map + c, base));
        if (m->residual) {
            vec_store(s->coded + offset + c, vec_sub_u8(symbols, base));
        }
    }

    if (irs_has_references(m)) {
        vec_refine(m, s->base, s->residuals, 0, m->channels, s->refined);
        for (uint32_t c = 0; c < m->channels; c += VEC_SIZE) {
            vec prediction = vec_load(s->refined + c);
            vec_store(s->tables + offset + c, vec_choose_tables(m, map + c, prediction));
            if (m->residual) {
                vec_store(s->coded + offset + c, vec_sub_u8(vec_load(pixel + c), prediction));
            }
        }
    }
    return vec_reduce_sums(sums);
}

VEC_INLINE void vec_find_contexts(const irs_rans_model *m, const irs_geometry *g,
                                  const irs_scratch *s, irs_chunk chunk) {
    irs_cursor cursor;
    irs_cursor_init(&cursor, m, g, s, chunk);
    for (size_t offset = 0; offset < chunk.count; offset += m->channels) {
        irs_neighbours neighbours;
        const uint8_t *map = irs_cursor_context(&cursor, &neighbours);
        irs_cursor_advance(&cursor, vec_pixel_contexts(m, s, &neighbours, map, offset));
    }
}
