/* What encoding and decoding of frames share: a section on its way, and checks of what callers and frames claim. */
#ifndef IRS_FRAME_H
#define IRS_FRAME_H

#include "rans/static_rans.h"

/* A section on its way: what encoding and decoding of its chunks need to know. */
typedef struct section {
    const irs_spec *spec;
    const irs_hooks *hooks;
    uint32_t index;
    irs_geometry geometry; /* of static-rans tensors */
    uint8_t *scratch;
} section;

static inline uint32_t raw_alignment(const irs_spec *spec) { return spec->wire_size < 8 ? spec->wire_size : 8; }

static inline uint64_t dims_end(const irs_boundary *b) { return IRS_HEADER_SIZE + 4 * (uint64_t)b->symbol_count; }

/* Elements of a tensor whose dims come from a caller; static ones must agree. */
static inline irs_status check_dims(const irs_spec *spec, const uint32_t *dims, uint64_t *count) {
    for (uint32_t i = 0; i < spec->rank; i++) {
        if (spec->dims[i] == IRS_SYMBOLIC ? dims[i] == IRS_SYMBOLIC : dims[i] != spec->dims[i]) {
            return IRS_ERR_SHAPE;
        }
    }
    IRS_TRY(irs_count_elements(spec, dims, count));
    /* indices of outliers are 32 bits wide */
    return irs_has_outliers(spec) && *count > UINT32_MAX ? IRS_ERR_SIZE : IRS_OK;
}

static inline irs_status check_tensor(const irs_spec *spec, const irs_tensor *tensor, uint64_t *count) {
    IRS_TRY(check_dims(spec, tensor->dims, count));
    if (tensor->size != *count * spec->element_size) {
        return IRS_ERR_SHAPE;
    }
    if (tensor->size > SIZE_MAX) {
        return IRS_ERR_SIZE;
    }
    return tensor->data == NULL && *count != 0 ? IRS_ERR_ARGUMENT : IRS_OK;
}

static inline irs_status check_bools(const irs_spec *spec, const uint8_t *p, uint64_t count) {
    if (spec->dtype != IRS_BOOL) {
        return IRS_OK;
    }
    uint8_t seen = 0;
    for (uint64_t i = 0; i < count; i++) {
        seen |= p[i];
    }
    return seen > 1 ? IRS_ERR_VALUE : IRS_OK;
}

/* Quantized elements of a tensor that is coded afterwards, before the codec's own scratch. */
static inline uint64_t quantized_size(const irs_spec *spec, uint64_t count) {
    return irs_is_quantized(spec) && spec->codec != IRS_CODEC_RAW ? align_up(count, IRS_ALIGNMENT) : 0;
}

static inline section begin_section(const irs_boundary *b, uint32_t index, const irs_hooks *hooks, const uint32_t *dims,
                             uint64_t count, uint8_t *workspace) {
    section s;
    memset(&s, 0, sizeof s);
    s.spec = &b->specs[index];
    s.hooks = hooks;
    s.index = index;
    if (s.spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_geometry_of(&s.geometry, s.spec->model, s.spec->rank, dims);
    }
    s.scratch = workspace == NULL ? NULL : workspace + quantized_size(s.spec, count);
    return s;
}

#ifndef IRS_SMALL
/* Frames of raw tensors alone have a size that is known beforehand, so that elements can be copied and summed in one go.
 * Size of a frame without trailer; 0 when a section is not raw, or a tensor is not what the boundary says. */
static inline uint64_t plain_size(const irs_boundary *b, const irs_tensor *tensors) {
    uint64_t size = dims_end(b), count;
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        const irs_spec *spec = &b->specs[i];
        if (spec->codec != IRS_CODEC_RAW || irs_is_quantized(spec) ||
            check_tensor(spec, &tensors[i], &count) != IRS_OK) {
            return 0;
        }
        size = align_up(size, raw_alignment(spec));
        if (!add_size(&size, tensors[i].size)) {
            return 0;
        }
    }
    return size;
}
#endif

static inline uint16_t header_check(const uint8_t *header) {
    uint8_t copy[IRS_HEADER_SIZE];
    memcpy(copy, header, sizeof copy);
    store16(copy + 6, 0);
    uint32_t crc = irs_crc32c(0, copy, sizeof copy);
    return (uint16_t)(crc ^ crc >> 16);
}

static inline irs_status check_workspace(const irs_boundary *b, const irs_tensor *tensors, const void *workspace, size_t size) {
    size_t needed;
    IRS_TRY(irs_workspace_size(b, tensors, &needed));
    if (size < needed) {
        return IRS_ERR_BUFFER;
    }
    return needed != 0 && (workspace == NULL || (uintptr_t)workspace % IRS_ALIGNMENT != 0) ? IRS_ERR_ARGUMENT : IRS_OK;
}

#endif
