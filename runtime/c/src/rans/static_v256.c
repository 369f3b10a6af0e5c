/* The path with vectors of 32 bytes. */
#include "static_rans.h"

#ifdef IRS_HAS_V256
#include "../simd/x86/avx2.h"

#include "static_vector.h"

VECTOR_TARGET void irs_model_v256(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    model_part(m, g, s, part);
}

VECTOR_TARGET irs_status irs_encode_v256(const irs_model *m, const uint8_t *symbols, irs_tables tables, size_t pixels,
                                         uint8_t *room, uint8_t *target, size_t capacity, size_t *size) {
    return encode_part(m, symbols, tables, pixels, room, target, capacity, size);
}

#ifndef IRS_ENCODE_ONLY
VECTOR_TARGET irs_status irs_decode_v256(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                         irs_stream *in) {
    return decode_part(m, g, s, part, in);
}
#endif
#endif
