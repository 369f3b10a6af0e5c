/* SPDX-License-Identifier: Apache-2.0
 *
 * What encoding and decoding of frames share: one tensor's section of a frame, and checks of what
 * callers and frames claim.
 */
#ifndef IRS_FRAME_H
#define IRS_FRAME_H

#include "rans/static_rans.h"

/* What coding the chunks of one tensor needs to know. */
typedef struct irs_section {
    const irs_spec *spec;
    const irs_hooks *hooks;
    uint32_t index;        /* of the tensor */
    irs_geometry geometry; /* of static-rans tensors */
    uint8_t *scratch;
} irs_section;

/* ---- checks ---------------------------------------------------------------------------------- */

/* Counts the elements of a tensor whose dims come from a caller or a frame; static dims must be
 * those of the descriptor. */
static inline irs_status irs_check_dims(const irs_spec *spec, const uint32_t *dims,
                                        uint64_t *count) {
    for (uint32_t i = 0; i < spec->rank; i++) {
        if (spec->dims[i] == IRS_SYMBOLIC ? dims[i] == IRS_SYMBOLIC : dims[i] != spec->dims[i]) {
            return IRS_ERR_SHAPE;
        }
    }
    IRS_TRY(irs_count_elements(spec, dims, count));

    /* indices of outliers have 32 bits */
    return irs_has_outliers(spec) && *count > UINT32_MAX ? IRS_ERR_SIZE : IRS_OK;
}

static inline irs_status irs_check_tensor(const irs_spec *spec, const irs_tensor *tensor,
                                          uint64_t *count) {
    IRS_TRY(irs_check_dims(spec, tensor->dims, count));
    if (tensor->size != *count * spec->element_size) {
        return IRS_ERR_SHAPE;
    }
    if (tensor->size > SIZE_MAX) {
        return IRS_ERR_SIZE;
    }
    return tensor->data == NULL && *count != 0 ? IRS_ERR_ARGUMENT : IRS_OK;
}

/* Bools are bytes 0 and 1; other types have no invalid values. */
static inline irs_status irs_check_bools(const irs_spec *spec, const uint8_t *p, uint64_t count) {
    if (spec->dtype != IRS_TYPE_BOOL) {
        return IRS_OK;
    }

    uint8_t any = 0;
    for (uint64_t i = 0; i < count; i++) {
        any |= p[i];
    }
    return any > 1 ? IRS_ERR_VALUE : IRS_OK;
}

static inline irs_status irs_check_workspace(const irs_schema *schema, const irs_tensor *tensors,
                                             const void *workspace, size_t size) {
    size_t needed;
    IRS_TRY(irs_workspace_size(schema, tensors, &needed));
    if (size < needed) {
        return IRS_ERR_BUFFER;
    }

    int is_aligned = workspace != NULL && (uintptr_t)workspace % IRS_ALIGNMENT == 0;
    return needed == 0 || is_aligned ? IRS_OK : IRS_ERR_ARGUMENT;
}

/* ---- layout of a frame ----------------------------------------------------------------------- */

/* The raw elements of a tensor start at a multiple of this. */
static inline uint32_t irs_raw_alignment(const irs_spec *spec) {
    return spec->wire_size < 8 ? spec->wire_size : 8;
}

/* Where the dims of a frame end and its sections begin. */
static inline uint64_t irs_dims_end(const irs_schema *schema) {
    return IRS_HEADER_SIZE + 4 * (uint64_t)schema->symbol_count;
}

/* The check field of a header: CRC-32C of the header with this field zero, folded to 16 bits. */
static inline uint16_t irs_header_check(const uint8_t *header) {
    uint8_t copy[IRS_HEADER_SIZE];
    memcpy(copy, header, sizeof copy);
    irs_store16(copy + 6, 0);
    uint32_t crc = irs_crc32c(0, copy, sizeof copy);
    return (uint16_t)(crc ^ crc >> 16);
}

#ifndef IRS_SMALL_CODE
/* Size, without trailer, of a frame whose tensors are all raw; 0 if a section is not raw or a
 * tensor is not what the schema says.
 *
 * The size of such frames is known beforehand, so that elements can be copied and checksummed in
 * one go. */
static inline uint64_t irs_raw_frame_size(const irs_schema *schema, const irs_tensor *tensors) {
    uint64_t size = irs_dims_end(schema), count;
    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        const irs_spec *spec = &schema->specs[i];
        if (spec->codec != IRS_CODEC_RAW || irs_is_quantized(spec) ||
            irs_check_tensor(spec, &tensors[i], &count) != IRS_OK) {
            return 0;
        }

        size = irs_align_up(size, irs_raw_alignment(spec));
        if (!irs_add_size(&size, tensors[i].size)) {
            return 0;
        }
    }
    return size;
}
#endif

/* ---- sections -------------------------------------------------------------------------------- */

/* Bytes of workspace for the integers of a quantized tensor that is coded afterwards; the codec's
 * own scratch follows them. */
static inline uint64_t irs_quantized_size(const irs_spec *spec, uint64_t count) {
    int is_coded = irs_is_quantized(spec) && spec->codec != IRS_CODEC_RAW;
    return is_coded ? irs_align_up(count, IRS_ALIGNMENT) : 0;
}

static inline irs_section irs_section_init(const irs_schema *schema, uint32_t index,
                                           const irs_hooks *hooks, const uint32_t *dims,
                                           uint64_t count, uint8_t *workspace) {
    irs_section s;
    memset(&s, 0, sizeof s);
    s.spec = &schema->specs[index];
    s.hooks = hooks;
    s.index = index;
    if (s.spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_geometry_init(&s.geometry, s.spec->model, s.spec->rank, dims);
    }
    s.scratch = workspace == NULL ? NULL : workspace + irs_quantized_size(s.spec, count);
    return s;
}

/* The chunk that begins at element `first` of `count`; the last one of a tensor may be shorter. */
static inline irs_chunk irs_chunk_at(const irs_spec *spec, size_t first, uint64_t count) {
    uint64_t left = count - first;
    irs_chunk chunk = {first, left < spec->chunk_elements ? (size_t)left : spec->chunk_elements};
    return chunk;
}

#endif
