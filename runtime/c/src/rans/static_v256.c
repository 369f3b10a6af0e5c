/* SPDX-License-Identifier: Apache-2.0
 *
 * static-rans with vectors of 32 bytes.
 */
#include "static_rans.h"

#ifdef IRS_HAS_V256
#include "../simd/x86/avx2.h"

#include "static_vector.h"
#include "static_vector_encode.h"

VEC_TARGET void irs_find_contexts_v256(const irs_rans_model *m, const irs_geometry *g,
                                       const irs_scratch *s, irs_chunk chunk) {
    vec_find_contexts(m, g, s, chunk);
}

VEC_TARGET irs_status irs_rans_encode_v256(const irs_rans_model *m, const uint8_t *symbols,
                                           irs_tables tables, size_t pixels, uint8_t *buffer,
                                           uint8_t *target, size_t capacity, size_t *size) {
    return vec_encode_symbols(m, symbols, tables, pixels, buffer, target, capacity, size);
}

#ifndef IRS_ENCODE_ONLY
#include "static_vector_decode.h"

VEC_TARGET irs_status irs_rans_decode_v256(const irs_rans_model *m, const irs_geometry *g,
                                           const irs_scratch *s, irs_chunk chunk, irs_stream *in) {
    return vec_decode_symbols(m, g, s, chunk, in);
}
#endif

#include "../simd/names_end.h"
#endif
