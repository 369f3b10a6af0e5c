/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding frames. Nothing that a frame says is believed before it is checked.
 */
#include "frame.h"

/* ---- head and checksum ----------------------------------------------------------------------- */

irs_status irs_frame_size(const void *bytes, size_t size, uint64_t *frame_size) {
    if (bytes == NULL || frame_size == NULL) {
        return IRS_ERR_ARGUMENT;
    }

    const uint8_t *header = bytes;
    if (size < IRS_HEADER_SIZE) {
        return IRS_ERR_TRUNCATED;
    }
    if (memcmp(header, "IRSF", 4) != 0) {
        return IRS_ERR_MAGIC;
    }
    if (irs_load16(header + 6) != irs_header_check(header)) {
        return IRS_ERR_CHECKSUM;
    }
    if (header[4] != IRS_FORMAT_VERSION || header[5] != 0) {
        return IRS_ERR_VERSION;
    }
    if (irs_load64(header + 16) < IRS_HEADER_SIZE + IRS_TRAILER_SIZE) {
        return IRS_ERR_SIZE;
    }

    *frame_size = irs_load64(header + 16);
    return IRS_OK;
}

/* Checks everything about a frame's head but its dims. */
static irs_status check_frame_head(const irs_schema *schema, const uint8_t *frame, size_t size) {
    uint64_t claimed;
    IRS_TRY(irs_frame_size(frame, size, &claimed));
    if (memcmp(frame + 8, schema->digest, sizeof schema->digest) != 0) {
        return IRS_ERR_BOUNDARY;
    }
    if (claimed != size) {
        return claimed > size ? IRS_ERR_TRUNCATED : IRS_ERR_SIZE;
    }
    return size < irs_dims_end(schema) + IRS_TRAILER_SIZE ? IRS_ERR_TRUNCATED : IRS_OK;
}

static irs_status check_frame_crc(const uint8_t *frame, size_t size) {
    size_t covered = size - IRS_TRAILER_SIZE;
    uint32_t crc = irs_crc32c(0, frame, covered);
    return crc == irs_load32(frame + covered) ? IRS_OK : IRS_ERR_CHECKSUM;
}

/* Sets dims and size of every tensor from the dims of a frame. */
static irs_status read_dims(const irs_schema *schema, const uint8_t *dims, irs_tensor *tensors) {
    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        const irs_spec *spec = &schema->specs[i];
        for (uint32_t axis = 0; axis < spec->rank; axis++) {
            tensors[i].dims[axis] = spec->dims[axis];
            if (spec->dims[axis] == IRS_SYMBOLIC) {
                tensors[i].dims[axis] = irs_load32(dims);
                dims += 4;
            }
        }

        uint64_t count;
        irs_status status = irs_check_dims(spec, tensors[i].dims, &count);
        if (status != IRS_OK) {
            return status == IRS_ERR_SHAPE ? IRS_ERR_CORRUPT : status;
        }
        tensors[i].size = count * spec->element_size;
    }
    return IRS_OK;
}

irs_status irs_frame_dims(const irs_schema *schema, const void *frame, size_t frame_size,
                          irs_tensor *tensors) {
    if (schema == NULL || frame == NULL || tensors == NULL) {
        return IRS_ERR_ARGUMENT;
    }

    IRS_TRY(check_frame_head(schema, frame, frame_size));
    IRS_TRY(check_frame_crc(frame, frame_size));
    return read_dims(schema, (const uint8_t *)frame + IRS_HEADER_SIZE, tensors);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static irs_status decode_chunk(const irs_section *s, const uint8_t *payload, size_t size,
                               irs_chunk chunk, uint8_t *elements) {
    const irs_spec *spec = s->spec;
#ifndef IRS_ENCODE_ONLY
    if (spec->codec == IRS_CODEC_STATIC_RANS) {
        return irs_rans_decode_chunk(spec, &s->geometry, payload, size, chunk, s->scratch,
                                     elements);
    }
#endif
    if (s->hooks == NULL || s->hooks->decompress == NULL) {
        return IRS_ERR_CODEC;
    }
    return s->hooks->decompress(
        s->hooks->context, s->index, spec->codec, spec->parameters, spec->parameters_size, payload,
        size, elements + chunk.first * spec->wire_size, chunk.count * spec->wire_size);
}

static void restore_chunk(const irs_section *s, const uint8_t *payload, irs_chunk chunk,
                          uint8_t *elements) {
    size_t width = s->spec->wire_size;
    if (s->spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_from_pixel_order(s->spec, &s->geometry, payload, chunk, elements);
    } else {
        memcpy(elements + chunk.first * width, payload, chunk.count * width);
    }
}

static irs_status read_chunk(const irs_section *s, irs_chunk chunk, uint8_t *elements,
                             irs_reader *r) {
    const uint8_t *head = irs_take(r, 4);
    if (head == NULL) {
        return IRS_ERR_CORRUPT;
    }

    size_t size = chunk.count * s->spec->wire_size;
    uint32_t stored = irs_load32(head) & IRS_STORED, coded = irs_load32(head) & ~IRS_STORED;
    const uint8_t *payload = irs_take(r, coded);
    if (payload == NULL || (stored ? coded != size : coded >= size)) {
        return IRS_ERR_CORRUPT;
    }

    if (stored) {
        restore_chunk(s, payload, chunk, elements);
        return IRS_OK;
    }
    return decode_chunk(s, payload, coded, chunk, elements);
}

static irs_status read_chunks(const irs_section *s, uint64_t count, uint8_t *elements,
                              irs_reader *r) {
    for (size_t first = 0; first < count; first += s->spec->chunk_elements) {
        IRS_TRY(read_chunk(s, irs_chunk_at(s->spec, first, count), elements, r));
    }
    return IRS_OK;
}

/* ---- sections -------------------------------------------------------------------------------- */

static irs_status read_outliers(const irs_spec *spec, uint64_t count, const uint8_t **entries,
                                uint32_t *outliers, irs_reader *r) {
    const uint8_t *head = irs_take(r, 4);
    if (head == NULL) {
        return IRS_ERR_CORRUPT;
    }
    *outliers = irs_load32(head);
    if (*outliers > irs_outlier_limit(count)) {
        return IRS_ERR_CORRUPT;
    }

    *entries = irs_take(r, *outliers * (4 + (uint64_t)spec->element_size));
    return *entries == NULL ? IRS_ERR_CORRUPT : IRS_OK;
}

/* Puts outliers in their places; their indices must rise. */
static irs_status restore_outliers(const irs_spec *spec, uint64_t count, const uint8_t *entries,
                                   uint32_t outliers, uint8_t *target) {
    uint64_t next = 0;
    for (uint32_t i = 0; i < outliers; i++, entries += 4 + spec->element_size) {
        uint32_t index = irs_load32(entries);
        if (index < next || index >= count) {
            return IRS_ERR_CORRUPT;
        }

        memcpy(target + (size_t)index * spec->element_size, entries + 4, spec->element_size);
        next = (uint64_t)index + 1;
    }
    return IRS_OK;
}

static irs_status read_quantized(const irs_section *s, const irs_tensor *tensor, uint64_t count,
                                 uint8_t *workspace, irs_reader *r) {
    const irs_spec *spec = s->spec;
    const uint8_t *entries = NULL, *integers = workspace;
    uint32_t outliers = 0;
    if (irs_has_outliers(spec)) {
        IRS_TRY(read_outliers(spec, count, &entries, &outliers, r));
    }

    if (spec->codec == IRS_CODEC_RAW) {
        integers = irs_take(r, count);
        if (integers == NULL) {
            return IRS_ERR_CORRUPT;
        }
    } else {
        IRS_TRY(read_chunks(s, count, workspace, r));
    }

    irs_dequantize(spec, tensor->dims, integers, count, tensor->data);
    return restore_outliers(spec, count, entries, outliers, tensor->data);
}

/* Reads padding, counted from `start`, and elements. */
static irs_status read_raw(const irs_spec *spec, const uint8_t *start, uint8_t *target,
                           uint64_t size, irs_reader *r) {
    uint64_t offset = (uint64_t)(r->p - start);
    uint64_t padding = irs_align_up(offset, irs_raw_alignment(spec)) - offset;
    const uint8_t *p = irs_take(r, padding);
    for (uint64_t i = 0; p != NULL && i < padding; i++) {
        if (p[i] != 0) {
            return IRS_ERR_CORRUPT;
        }
    }

    const uint8_t *source = p == NULL ? NULL : irs_take(r, size);
    if (source == NULL) {
        return IRS_ERR_CORRUPT;
    }
    if (size != 0) {
        memcpy(target, source, (size_t)size);
    }
    return IRS_OK;
}

static irs_status read_section(const irs_schema *schema, uint32_t index, const irs_hooks *hooks,
                               const irs_tensor *tensor, uint8_t *workspace, const uint8_t *start,
                               irs_reader *r) {
    const irs_spec *spec = &schema->specs[index];
    uint64_t count;
    IRS_TRY(irs_check_tensor(spec, tensor, &count));
    irs_section s = irs_section_init(schema, index, hooks, tensor->dims, count, workspace);
    if (irs_is_quantized(spec)) {
        return read_quantized(&s, tensor, count, workspace, r);
    }

    if (spec->codec == IRS_CODEC_RAW) {
        IRS_TRY(read_raw(spec, start, tensor->data, tensor->size, r));
    } else {
        IRS_TRY(read_chunks(&s, count, tensor->data, r));
    }
    return irs_check_bools(spec, tensor->data, count) == IRS_OK ? IRS_OK : IRS_ERR_CORRUPT;
}

/* ---- whole frames ---------------------------------------------------------------------------- */

/* Whether the dims of a frame are those of the tensors. */
static int has_dims_of(const irs_schema *schema, const uint8_t *dims, const irs_tensor *tensors) {
    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        for (uint32_t axis = 0; axis < schema->specs[i].rank; axis++) {
            if (schema->specs[i].dims[axis] == IRS_SYMBOLIC) {
                if (irs_load32(dims) != tensors[i].dims[axis]) {
                    return 0;
                }
                dims += 4;
            }
        }
    }
    return 1;
}

#ifndef IRS_SMALL_CODE
/* Decodes a frame whose tensors are all raw and whose dims and size are right: the elements are
 * copied and checksummed in one go, and judged afterwards. */
static irs_status decode_raw_frame(const irs_schema *schema, const uint8_t *frame,
                                   const irs_tensor *tensors) {
    const uint8_t *p = frame + irs_dims_end(schema);
    uint32_t crc = irs_crc32c(0, frame, (size_t)(p - frame));
    uint8_t any = 0; /* padding bytes that are not zero */

    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        uint64_t offset = (uint64_t)(p - frame);
        uint32_t alignment = irs_raw_alignment(&schema->specs[i]);
        size_t padding = (size_t)(irs_align_up(offset, alignment) - offset);
        for (size_t j = 0; j < padding; j++) {
            any |= p[j];
        }

        crc = irs_crc32c(crc, p, padding);
        crc = irs_copy_crc32c(crc, tensors[i].data, p + padding, (size_t)tensors[i].size);
        p += padding + tensors[i].size;
    }
    if (crc != irs_load32(p)) {
        return IRS_ERR_CHECKSUM;
    }

    for (uint32_t i = 0; i < schema->tensor_count && any == 0; i++) {
        any = irs_check_bools(&schema->specs[i], tensors[i].data, tensors[i].size) != IRS_OK;
    }
    return any == 0 ? IRS_OK : IRS_ERR_CORRUPT;
}
#endif

irs_status irs_decode(const irs_schema *schema, const irs_hooks *hooks, const void *frame,
                      size_t frame_size, const irs_tensor *tensors, void *workspace,
                      size_t workspace_size) {
    if (schema == NULL || frame == NULL || tensors == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    IRS_TRY(check_frame_head(schema, frame, frame_size));

    const uint8_t *start = frame;
    int has_dims = has_dims_of(schema, start + IRS_HEADER_SIZE, tensors);
#ifndef IRS_SMALL_CODE
    if (has_dims && irs_raw_frame_size(schema, tensors) == frame_size - IRS_TRAILER_SIZE) {
        return decode_raw_frame(schema, frame, tensors);
    }
#endif

    IRS_TRY(check_frame_crc(frame, frame_size));
    if (!has_dims) {
        return IRS_ERR_SHAPE;
    }
    IRS_TRY(irs_check_workspace(schema, tensors, workspace, workspace_size));

    irs_reader r = {start + irs_dims_end(schema), start + frame_size - IRS_TRAILER_SIZE};
    for (uint32_t i = 0; i < schema->tensor_count; i++) {
        IRS_TRY(read_section(schema, i, hooks, &tensors[i], workspace, start, &r));
    }
    return r.p == r.end ? IRS_OK : IRS_ERR_CORRUPT;
}
