/* What the files of the core share: the opened boundary and the two things a section is made of, transform and codec. */
#ifndef IRS_INTERNAL_H
#define IRS_INTERNAL_H

#include "bytes.h"

#define IRS_TRAILER_SIZE 4
#define IRS_SYMBOLIC UINT32_C(0xFFFFFFFF)
#define IRS_STORED UINT32_C(0x80000000) /* top bit of a chunk head: the chunk's bytes are not coded */
#define IRS_ALIGNMENT 16

/* Element type codes, as in irsplit/base/dtypes.py; only those the core treats specially. */
enum {
    IRS_F32 = 1, IRS_F16 = 2, IRS_BF16 = 4, IRS_I8 = 5, IRS_I16 = 6, IRS_I64 = 8, IRS_U8 = 9, IRS_U16 = 10,
    IRS_U64 = 12, IRS_BOOL = 13
};

/* Memory of an opened boundary, handed out piece by piece. Without a base it only counts. */
typedef struct irs_arena {
    uint8_t *base;
    uint64_t used, size;
} irs_arena;

/* Aligned piece; null while counting. The second pass over a descriptor asks for what the first one counted. */
static inline void *irs_allot(irs_arena *arena, uint64_t size) {
    uint64_t place = align_up(arena->used, IRS_ALIGNMENT);
    arena->used = place + size;
    return arena->base == NULL || arena->used > arena->size ? NULL : arena->base + place;
}

typedef struct irs_model irs_model; /* static_rans.h */

/* Affine quantization of a float tensor to 8-bit integers before the codec. */
typedef struct irs_quantization {
    uint8_t storage;      /* IRS_I8 or IRS_U8; 0: the tensor is not quantized */
    uint8_t outliers;     /* values beyond the range travel exactly, beside the integers */
    uint8_t axis;         /* of the scales, IRS_MAX_RANK when there is one for the whole tensor */
    int32_t low, high;    /* range of the integers */
    uint32_t count;       /* of scales */
    const uint8_t *steps; /* count times: scale f32, zero point i32 */
} irs_quantization;

typedef struct irs_spec {
    uint32_t dims[IRS_MAX_RANK];
    uint8_t rank, dtype, codec;
    uint8_t element_size; /* of the tensor */
    uint8_t wire_size;    /* of an element after the transform: what the codec sees */
    uint32_t chunk;       /* elements in a chunk; 0 for raw sections, which have none */
    const uint8_t *parameters;
    uint32_t parameters_size;
    irs_quantization quantization;
    irs_model *model; /* of static-rans */
} irs_spec;

struct irs_boundary {
    uint8_t digest[8];
    uint32_t tensor_count, symbol_count;
    irs_spec specs[1]; /* tensor_count of them */
};

/* Copies, and returns what irs_crc32c returns for these bytes; the two do not overlap. */
uint32_t irs_copy_crc32c(uint32_t crc, void *target, const void *source, size_t size);

/* What a build leaves out is refused when a descriptor asks for it, and costs nothing elsewhere. */
static inline int irs_is_quantized(const irs_spec *spec) {
#ifdef IRS_NO_QUANTIZATION
    (void)spec;
    return 0;
#else
    return spec->quantization.storage != 0;
#endif
}

static inline int irs_has_outliers(const irs_spec *spec) { return irs_is_quantized(spec) && spec->quantization.outliers; }

irs_status irs_open_static(const irs_spec *spec, irs_model *model, irs_arena *arena);

/* Number of elements; IRS_ERR_SIZE when the tensor's bytes do not fit 62 bits. */
irs_status irs_count_elements(const irs_spec *spec, const uint32_t *dims, uint64_t *count);

/* Most outliers a tensor of `count` elements may carry; beyond them values are clipped. */
static inline uint64_t irs_outlier_limit(uint64_t count) { return count / 16 + 16; }

/* source: count elements of spec->dtype at the innermost stride; target: count integers.
 * Outliers are written as (index u32, element) to `outliers`, which has room for irs_outlier_limit(count) of them. */
void irs_quantize(const irs_spec *spec, const uint32_t *dims, const uint8_t *source, uint64_t count, uint8_t *target,
                  uint8_t *outliers, uint32_t *outlier_count);
void irs_dequantize(const irs_spec *spec, const uint32_t *dims, const uint8_t *source, uint64_t count, uint8_t *target);

#endif
