/* SPDX-License-Identifier: Apache-2.0
 *
 * Encoding frames: header, dims, one section for each tensor, checksum.
 *
 * A raw section is the tensor's bytes as they are. Other sections are chunks, each coded by itself
 * and preceded by its size; a chunk that no codec makes smaller is stored as it is. The section of
 * a quantized tensor starts with its outliers, if it may have any.
 */
#include "frame.h"

/* ---- sizes ----------------------------------------------------------------------------------- */

/* Most bytes of the outliers of a tensor, with their count. */
static uint64_t outlier_bound(const irs_spec *spec, uint64_t count) {
    if (!irs_has_outliers(spec)) {
        return 0;
    }
    return 4 + irs_outlier_limit(count) * (4u + spec->element_size);
}

irs_status irs_frame_bound(const irs_schema *schema, const irs_tensor *tensors, size_t *size) {
    if (schema == NULL || tensors == NULL || size == NULL) {
        return IRS_ERR_ARGUMENT;
    }

    uint64_t bound = irs_dims_end(schema) + IRS_TRAILER_SIZE;
    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        const irs_spec *spec = &schema->specs[i];
        uint64_t count, heads = 0;
        IRS_TRY(irs_check_dims(spec, tensors[i].dims, &count));
        if (spec->chunk_elements != 0) {
            heads = (count / spec->chunk_elements + 1) * 4;
        }

        uint64_t padding = 8;
        if (!irs_add_size(&bound, count * spec->wire_size) ||
            !irs_add_size(&bound, outlier_bound(spec, count)) ||
            !irs_add_size(&bound, heads + padding)) {
            return IRS_ERR_SIZE;
        }
    }
    if (bound > SIZE_MAX) {
        return IRS_ERR_SIZE;
    }

    *size = (size_t)bound;
    return IRS_OK;
}

static uint64_t workspace_of(const irs_spec *spec, const uint32_t *dims, uint64_t count) {
    uint64_t size = irs_quantized_size(spec, count);
    if (spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_geometry geometry;
        irs_geometry_init(&geometry, spec->model, spec->rank, dims);
        irs_chunk largest = irs_chunk_at(spec, 0, count);
        size += irs_rans_scratch_size(spec->model, &geometry, largest.count);
    }
    return size;
}

irs_status irs_workspace_size(const irs_schema *schema, const irs_tensor *tensors, size_t *size) {
    if (schema == NULL || tensors == NULL || size == NULL) {
        return IRS_ERR_ARGUMENT;
    }

    /* tensors are coded one after the other: the largest need counts */
    uint64_t needed = 0;
    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        uint64_t count;
        IRS_TRY(irs_check_dims(&schema->specs[i], tensors[i].dims, &count));
        uint64_t own = workspace_of(&schema->specs[i], tensors[i].dims, count);
        needed = own > needed ? own : needed;
    }
    if (needed > SIZE_MAX) {
        return IRS_ERR_SIZE;
    }

    *size = (size_t)needed;
    return IRS_OK;
}

/* ---- chunks ---------------------------------------------------------------------------------- */

typedef struct frame_writer {
    uint8_t *start, *p, *end;
} frame_writer;

/* Takes the next `size` bytes of the frame; null if fewer are left. */
static uint8_t *reserve(frame_writer *w, uint64_t size) {
    if (size > (uint64_t)(w->end - w->p)) {
        return NULL;
    }

    uint8_t *start = w->p;
    w->p += size;
    return start;
}

static irs_status encode_chunk(const irs_section *s, const uint8_t *elements, irs_chunk chunk,
                               uint8_t *target, size_t capacity, size_t *size) {
    const irs_spec *spec = s->spec;
    if (spec->codec == IRS_CODEC_STATIC_RANS) {
        return irs_rans_encode_chunk(spec, &s->geometry, elements, chunk, s->scratch, target,
                                     capacity, size);
    }
    if (s->hooks == NULL || s->hooks->compress == NULL) {
        return IRS_ERR_CODEC;
    }

    irs_status status =
        s->hooks->compress(s->hooks->context, s->index, spec->codec, spec->parameters,
                           spec->parameters_size, elements + chunk.first * spec->wire_size,
                           chunk.count * spec->wire_size, target, capacity, size);
    return status == IRS_OK && *size > capacity ? IRS_ERR_BUFFER : status;
}

/* Elements as they are: in pixel order for static-rans, else in the order of memory. */
static void store_chunk(const irs_section *s, const uint8_t *elements, irs_chunk chunk,
                        uint8_t *target) {
    size_t width = s->spec->wire_size;
    if (s->spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_to_pixel_order(s->spec, &s->geometry, elements, chunk, target);
    } else {
        memcpy(target, elements + chunk.first * width, chunk.count * width);
    }
}

static irs_status write_chunk(const irs_section *s, const uint8_t *elements, irs_chunk chunk,
                              frame_writer *w) {
    size_t size = chunk.count * s->spec->wire_size;
    uint8_t *head = reserve(w, 4);
    if (head == NULL || size > (size_t)(w->end - w->p)) {
        return IRS_ERR_BUFFER;
    }

    size_t coded = 0;
    irs_status status = encode_chunk(s, elements, chunk, w->p, size - 1, &coded);
    if (status == IRS_OK) {
        irs_store32(head, (uint32_t)coded);
        w->p += coded;
        return IRS_OK;
    }
    if (status != IRS_ERR_BUFFER) {
        return status;
    }

    irs_store32(head, (uint32_t)size | IRS_STORED);
    store_chunk(s, elements, chunk, w->p);
    w->p += size;
    return IRS_OK;
}

/* ---- sections -------------------------------------------------------------------------------- */

/* Quantizes a tensor and writes its outliers, for which the most space is reserved first and given
 * back afterwards. */
static irs_status write_outliers(const irs_spec *spec, const irs_tensor *tensor, uint64_t count,
                                 uint8_t *quantized, frame_writer *w) {
    uint64_t entry_size = 4 + (uint64_t)spec->element_size;
    uint8_t *head = NULL, *entries = NULL;
    if (irs_has_outliers(spec)) {
        head = reserve(w, 4);
        entries = head == NULL ? NULL : reserve(w, irs_outlier_limit(count) * entry_size);
        if (entries == NULL) {
            return IRS_ERR_BUFFER;
        }
    }

    uint32_t outliers = 0;
    irs_quantize(spec, tensor->dims, tensor->data, count, quantized, entries, &outliers);
    if (head != NULL) {
        irs_store32(head, outliers);
        w->p = entries + outliers * entry_size;
    }
    return IRS_OK;
}

/* The integers follow the outliers, whose number is not known yet: quantize behind the space of the
 * most outliers, then close the gap. */
static irs_status write_raw_quantized(const irs_spec *spec, const irs_tensor *tensor,
                                      uint64_t count, frame_writer *w) {
    uint64_t left = (uint64_t)(w->end - w->p), most = outlier_bound(spec, count);
    if (most > left || count > left - most) {
        return IRS_ERR_BUFFER;
    }

    uint8_t *quantized = w->p + most;
    IRS_TRY(write_outliers(spec, tensor, count, quantized, w));
    memmove(w->p, quantized, (size_t)count);
    w->p += count;
    return IRS_OK;
}

static irs_status write_raw(const irs_spec *spec, const irs_tensor *tensor, frame_writer *w) {
    uint64_t offset = (uint64_t)(w->p - w->start);
    uint8_t *padding = reserve(w, irs_align_up(offset, irs_raw_alignment(spec)) - offset);
    if (padding == NULL) {
        return IRS_ERR_BUFFER;
    }
    memset(padding, 0, (size_t)(w->p - padding));

    uint8_t *elements = reserve(w, tensor->size);
    if (elements == NULL) {
        return IRS_ERR_BUFFER;
    }
    if (tensor->size != 0) {
        memcpy(elements, tensor->data, (size_t)tensor->size);
    }
    return IRS_OK;
}

static irs_status write_section(const irs_schema *schema, uint32_t index, const irs_hooks *hooks,
                                const irs_tensor *tensor, uint8_t *workspace, frame_writer *w) {
    const irs_spec *spec = &schema->specs[index];
    uint64_t count;
    IRS_TRY(irs_check_tensor(spec, tensor, &count));
    IRS_TRY(irs_check_bools(spec, tensor->data, count));
    if (spec->codec == IRS_CODEC_RAW) {
        return irs_is_quantized(spec) ? write_raw_quantized(spec, tensor, count, w)
                                      : write_raw(spec, tensor, w);
    }

    const uint8_t *elements = tensor->data;
    if (irs_is_quantized(spec)) {
        IRS_TRY(write_outliers(spec, tensor, count, workspace, w));
        elements = workspace;
    }

    irs_section s = irs_section_init(schema, index, hooks, tensor->dims, count, workspace);
    for (size_t first = 0; first < count; first += spec->chunk_elements) {
        IRS_TRY(write_chunk(&s, elements, irs_chunk_at(spec, first, count), w));
    }
    return IRS_OK;
}

/* ---- whole frames ---------------------------------------------------------------------------- */

/* Writes header and dims of a frame of `size` bytes. */
static void write_head(const irs_schema *schema, const irs_tensor *tensors, uint8_t *header,
                       uint64_t size) {
    memcpy(header, "IRSF", 4);
    header[4] = IRS_FORMAT_VERSION;
    header[5] = 0;
    memcpy(header + 8, schema->digest, sizeof schema->digest);
    irs_store64(header + 16, size);
    irs_store16(header + 6, irs_header_check(header));

    uint8_t *dims = header + IRS_HEADER_SIZE;
    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        for (uint32_t axis = 0; axis < schema->specs[i].rank; axis++) {
            if (schema->specs[i].dims[axis] == IRS_SYMBOLIC) {
                irs_store32(dims, tensors[i].dims[axis]);
                dims += 4;
            }
        }
    }
}

#ifndef IRS_SMALL_CODE
/* Encodes a frame whose tensors are all raw; `size` is what irs_raw_frame_size says. */
static irs_status encode_raw_frame(const irs_schema *schema, const irs_tensor *tensors,
                                   uint8_t *frame, uint64_t size) {
    write_head(schema, tensors, frame, size + IRS_TRAILER_SIZE);
    uint8_t *p = frame + irs_dims_end(schema);
    uint32_t crc = irs_crc32c(0, frame, (size_t)(p - frame));

    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        const irs_tensor *tensor = &tensors[i];
        uint64_t offset = (uint64_t)(p - frame);
        uint32_t alignment = irs_raw_alignment(&schema->specs[i]);
        size_t padding = (size_t)(irs_align_up(offset, alignment) - offset);
        IRS_TRY(irs_check_bools(&schema->specs[i], tensor->data, tensor->size));

        memset(p, 0, padding);
        crc = irs_crc32c(crc, p, padding);
        crc = irs_copy_crc32c(crc, p + padding, tensor->data, (size_t)tensor->size);
        p += padding + tensor->size;
    }

    irs_store32(p, crc);
    return IRS_OK;
}
#endif

irs_status irs_encode(const irs_schema *schema, const irs_hooks *hooks, const irs_tensor *tensors,
                      void *workspace, size_t workspace_size, void *frame, size_t capacity,
                      size_t *frame_size) {
    if (schema == NULL || tensors == NULL || frame == NULL || frame_size == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    IRS_TRY(irs_check_workspace(schema, tensors, workspace, workspace_size));

#ifndef IRS_SMALL_CODE
    uint64_t raw = irs_raw_frame_size(schema, tensors);
    if (raw != 0 && capacity >= IRS_TRAILER_SIZE && raw <= capacity - IRS_TRAILER_SIZE) {
        *frame_size = (size_t)raw + IRS_TRAILER_SIZE;
        return encode_raw_frame(schema, tensors, frame, raw);
    }
#endif

    /* the header comes last: it holds the size of the frame */
    frame_writer w = {frame, frame, (uint8_t *)frame + capacity};
    uint8_t *header = reserve(&w, irs_dims_end(schema));
    if (header == NULL) {
        return IRS_ERR_BUFFER;
    }
    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        IRS_TRY(write_section(schema, i, hooks, &tensors[i], workspace, &w));
    }

    uint8_t *trailer = reserve(&w, IRS_TRAILER_SIZE);
    if (trailer == NULL) {
        return IRS_ERR_BUFFER;
    }
    *frame_size = (size_t)(w.p - w.start);
    write_head(schema, tensors, header, *frame_size);
    irs_store32(trailer, irs_crc32c(0, header, (size_t)(trailer - header)));
    return IRS_OK;
}
