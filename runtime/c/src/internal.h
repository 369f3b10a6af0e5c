/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the library share: the opened descriptor, the memory it lies in, and the
 * interface between frames and their parts (checksum, quantization).
 */
#ifndef IRS_INTERNAL_H
#define IRS_INTERNAL_H

#include "bytes.h"

#define IRS_TRAILER_SIZE 4
#define IRS_SYMBOLIC UINT32_C(0xFFFFFFFF)
#define IRS_STORED UINT32_C(0x80000000) /* flag in a chunk's head: the elements are not coded */

/* ---- memory ---------------------------------------------------------------------------------- */

/* Hands out a block of memory piece by piece. Without a base it only counts, so that the same code
 * first finds out how much memory is needed and then fills it. */
typedef struct irs_arena {
    uint8_t *base;
    uint64_t used, size;
} irs_arena;

/* The next aligned piece; null while counting. */
static inline void *irs_arena_alloc(irs_arena *arena, uint64_t size) {
    uint64_t start = irs_align_up(arena->used, IRS_ALIGNMENT);
    arena->used = start + size;
    return arena->base == NULL || arena->used > arena->size ? NULL : arena->base + start;
}

/* ---- the opened descriptor ------------------------------------------------------------------- */

typedef struct irs_rans_model irs_rans_model; /* rans/static_rans.h */

/* Affine quantization of a tensor to integers of at most 8 bits, before the codec. */
typedef struct irs_quantization {
    uint8_t storage;      /* IRS_TYPE_I8 or IRS_TYPE_U8; 0 if the tensor is not quantized */
    uint8_t outliers;     /* whether values outside of the range are sent exactly */
    uint8_t axis;         /* of the scales; IRS_MAX_RANK if one scale serves the whole tensor */
    int32_t low, high;    /* range of the integers */
    uint32_t count;       /* number of scales */
    const uint8_t *steps; /* for each scale: the scale (f32) and the zero point (i32) */
} irs_quantization;

/* One tensor of a schema. */
typedef struct irs_spec {
    uint32_t dims[IRS_MAX_RANK];
    uint8_t rank, dtype, codec;
    uint8_t element_size;    /* bytes of an element in the tensor */
    uint8_t wire_size;       /* bytes of an element after quantization: what the codec sees */
    uint32_t chunk_elements; /* elements of a chunk; 0 for raw sections, which have no chunks */
    const uint8_t *parameters;
    uint32_t parameters_size;
    irs_quantization quantization;
    irs_rans_model *model; /* of static-rans */
} irs_spec;

struct irs_schema {
    uint8_t digest[8];
    uint32_t tensor_count, symbol_count;
    irs_spec specs[1]; /* really `tensor_count` of them */
};

/* A build without quantization refuses descriptors with it, so that this is never asked in vain. */
static inline int irs_is_quantized(const irs_spec *spec) {
#ifdef IRS_NO_QUANTIZATION
    (void)spec;
    return 0;
#else
    return spec->quantization.storage != 0;
#endif
}

static inline int irs_has_outliers(const irs_spec *spec) {
    return irs_is_quantized(spec) && spec->quantization.outliers;
}

/* Checks the parameters of a static-rans tensor and builds its model. */
IRS_INTERNAL irs_status irs_rans_open(const irs_spec *spec, irs_rans_model *model,
                                      irs_arena *arena);

/* Counts the elements of a tensor; IRS_ERR_SIZE if its bytes exceed IRS_SIZE_LIMIT. */
IRS_INTERNAL irs_status irs_count_elements(const irs_spec *spec, const uint32_t *dims,
                                           uint64_t *count);

/* ---- checksum -------------------------------------------------------------------------------- */

/* Copies `size` bytes and returns what irs_crc32c returns for them. */
IRS_INTERNAL uint32_t irs_copy_crc32c(uint32_t crc, void *target, const void *source, size_t size);

/* ---- quantization ---------------------------------------------------------------------------- */

/* Most outliers that a tensor of `count` elements may have; values beyond them are clipped. */
static inline uint64_t irs_outlier_limit(uint64_t count) { return count / 16 + 16; }

/* Quantizes `count` elements at `source` to as many integers at `target`. Outliers are written to
 * `outliers` as pairs of index (u32) and element; there is room for irs_outlier_limit(count). */
IRS_INTERNAL void irs_quantize(const irs_spec *spec, const uint32_t *dims, const uint8_t *source,
                               uint64_t count, uint8_t *target, uint8_t *outliers,
                               uint32_t *outlier_count);

/* The way back; outliers are put in place by the caller. */
IRS_INTERNAL void irs_dequantize(const irs_spec *spec, const uint32_t *dims, const uint8_t *source,
                                 uint64_t count, uint8_t *target);

#endif
