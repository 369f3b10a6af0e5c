/* The path with vectors of 16 bytes. */
#include "static_rans.h"

#ifdef IRS_HAS_V128
#ifdef __x86_64__
#include "../simd/x86/sse41.h"
#else
#include "../simd/arm/neon.h"
#endif

#include "static_vector.h"

VECTOR_TARGET void irs_model_v128(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    model_part(m, g, s, part);
}

VECTOR_TARGET irs_status irs_encode_v128(const irs_model *m, const uint8_t *symbols, irs_tables tables, size_t pixels,
                                         uint8_t *room, uint8_t *target, size_t capacity, size_t *size) {
    return encode_part(m, symbols, tables, pixels, room, target, capacity, size);
}

#ifndef IRS_ENCODE_ONLY
VECTOR_TARGET irs_status irs_decode_v128(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                         irs_stream *in) {
    return decode_part(m, g, s, part, in);
}
#endif
#endif
