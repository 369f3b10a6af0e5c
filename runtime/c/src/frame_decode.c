/* Frames, the receiver's side: nothing a frame says is believed before it is checked. */
#include "frame.h"

static irs_status chunk_decode(const section *s, const uint8_t *payload, size_t size, irs_part part, uint8_t *elements) {
    const irs_spec *spec = s->spec;
#ifndef IRS_ENCODE_ONLY
    if (spec->codec == IRS_CODEC_STATIC_RANS) {
        return irs_static_decode(spec, &s->geometry, payload, size, part, s->scratch, elements);
    }
#endif
    if (s->hooks == NULL || s->hooks->decompress == NULL) {
        return IRS_ERR_CODEC;
    }
    return s->hooks->decompress(s->hooks->context, s->index, spec->codec, spec->parameters, spec->parameters_size, payload,
                                size, elements + part.first * spec->wire_size, part.count * spec->wire_size);
}

static void chunk_restore(const section *s, const uint8_t *payload, irs_part part, uint8_t *elements) {
    if (s->spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_scatter(s->spec, &s->geometry, payload, part, elements);
    } else {
        memcpy(elements + part.first * s->spec->wire_size, payload, part.count * s->spec->wire_size);
    }
}

typedef struct reader {
    const uint8_t *start, *p, *end;
} reader;

static const uint8_t *take(reader *r, uint64_t size) {
    if (size > (uint64_t)(r->end - r->p)) {
        return NULL;
    }
    const uint8_t *start = r->p;
    r->p += size;
    return start;
}

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
    if (load16(header + 6) != header_check(header)) {
        return IRS_ERR_CHECKSUM;
    }
    if (header[4] != IRS_FORMAT_VERSION || header[5] != 0) {
        return IRS_ERR_VERSION;
    }
    if (load64(header + 16) < IRS_HEADER_SIZE + IRS_TRAILER_SIZE) {
        return IRS_ERR_SIZE;
    }
    *frame_size = load64(header + 16);
    return IRS_OK;
}

/* All but the checksum. */
static irs_status check_head(const irs_boundary *b, const uint8_t *frame, size_t size) {
    uint64_t said;
    IRS_TRY(irs_frame_size(frame, size, &said));
    if (memcmp(frame + 8, b->digest, sizeof b->digest) != 0) {
        return IRS_ERR_BOUNDARY;
    }
    if (said != size) {
        return said > size ? IRS_ERR_TRUNCATED : IRS_ERR_SIZE;
    }
    return size < dims_end(b) + IRS_TRAILER_SIZE ? IRS_ERR_TRUNCATED : IRS_OK;
}

static irs_status check_sum(const uint8_t *frame, size_t size) {
    size_t covered = size - IRS_TRAILER_SIZE;
    return irs_crc32c(0, frame, covered) == load32(frame + covered) ? IRS_OK : IRS_ERR_CHECKSUM;
}

/* Dims of the frame; `tensors` may be what the caller expects (expected != NULL) or what we fill in (filled != NULL). */
static irs_status read_dims(const irs_boundary *b, const uint8_t *dims, irs_tensor *tensors) {
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        const irs_spec *spec = &b->specs[i];
        for (uint32_t axis = 0; axis < spec->rank; axis++) {
            tensors[i].dims[axis] = spec->dims[axis];
            if (spec->dims[axis] == IRS_SYMBOLIC) {
                tensors[i].dims[axis] = load32(dims);
                dims += 4;
            }
        }
        uint64_t count;
        irs_status status = check_dims(spec, tensors[i].dims, &count);
        if (status != IRS_OK) {
            return status == IRS_ERR_SHAPE ? IRS_ERR_CORRUPT : status;
        }
        tensors[i].size = count * spec->element_size;
    }
    return IRS_OK;
}

irs_status irs_frame_dims(const irs_boundary *b, const void *frame, size_t frame_size, irs_tensor *tensors) {
    if (b == NULL || frame == NULL || tensors == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    IRS_TRY(check_head(b, frame, frame_size));
    IRS_TRY(check_sum(frame, frame_size));
    return read_dims(b, (const uint8_t *)frame + IRS_HEADER_SIZE, tensors);
}

static irs_status read_chunk(const section *s, irs_part part, uint8_t *elements, reader *r) {
    size_t size = part.count * s->spec->wire_size;
    const uint8_t *head = take(r, 4);
    if (head == NULL) {
        return IRS_ERR_CORRUPT;
    }
    uint32_t stored = load32(head) & IRS_STORED, coded = load32(head) & ~IRS_STORED;
    const uint8_t *payload = take(r, coded);
    if (payload == NULL || (stored ? coded != size : coded >= size)) {
        return IRS_ERR_CORRUPT;
    }
    if (stored) {
        chunk_restore(s, payload, part, elements);
        return IRS_OK;
    }
    return chunk_decode(s, payload, coded, part, elements);
}

static irs_status find_outliers(const irs_spec *spec, uint64_t count, const uint8_t **entries, uint32_t *found,
                                reader *r) {
    const uint8_t *head = take(r, 4);
    if (head == NULL) {
        return IRS_ERR_CORRUPT;
    }
    *found = load32(head);
    if (*found > irs_outlier_limit(count)) {
        return IRS_ERR_CORRUPT;
    }
    *entries = take(r, *found * (4 + (uint64_t)spec->element_size));
    return *entries == NULL ? IRS_ERR_CORRUPT : IRS_OK;
}

static irs_status place_outliers(const irs_spec *spec, uint64_t count, const uint8_t *entries, uint32_t found,
                                 uint8_t *target) {
    uint64_t next = 0;
    for (uint32_t i = 0; i < found; i++, entries += 4 + spec->element_size) {
        uint32_t index = load32(entries);
        if (index < next || index >= count) {
            return IRS_ERR_CORRUPT;
        }
        memcpy(target + (size_t)index * spec->element_size, entries + 4, spec->element_size);
        next = (uint64_t)index + 1;
    }
    return IRS_OK;
}

static irs_status read_raw(const irs_spec *spec, uint8_t *target, uint64_t size, reader *r) {
    uint64_t offset = (uint64_t)(r->p - r->start), padding = align_up(offset, raw_alignment(spec)) - offset;
    const uint8_t *p = take(r, padding);
    for (uint64_t i = 0; p != NULL && i < padding; i++) {
        if (p[i] != 0) {
            return IRS_ERR_CORRUPT;
        }
    }
    const uint8_t *source = p == NULL ? NULL : take(r, size);
    if (source == NULL) {
        return IRS_ERR_CORRUPT;
    }
    if (size != 0) {
        memcpy(target, source, (size_t)size);
    }
    return IRS_OK;
}

static irs_status read_chunks(const section *s, uint64_t count, uint8_t *elements, reader *r) {
    for (size_t first = 0; first < count; first += s->spec->chunk) {
        irs_part part = {first, count - first < s->spec->chunk ? (size_t)count - first : s->spec->chunk};
        IRS_TRY(read_chunk(s, part, elements, r));
    }
    return IRS_OK;
}

static irs_status read_quantized(const section *s, const irs_tensor *tensor, uint64_t count, uint8_t *workspace,
                                 reader *r) {
    const irs_spec *spec = s->spec;
    const uint8_t *entries = NULL, *integers = workspace;
    uint32_t found = 0;
    if (irs_has_outliers(spec)) {
        IRS_TRY(find_outliers(spec, count, &entries, &found, r));
    }
    if (spec->codec == IRS_CODEC_RAW) {
        integers = take(r, count);
        if (integers == NULL) {
            return IRS_ERR_CORRUPT;
        }
    } else {
        IRS_TRY(read_chunks(s, count, workspace, r));
    }
    irs_dequantize(spec, tensor->dims, integers, count, tensor->data);
    return place_outliers(spec, count, entries, found, tensor->data);
}

static irs_status read_section(const irs_boundary *b, uint32_t index, const irs_hooks *hooks, const irs_tensor *tensor,
                               uint8_t *workspace, reader *r) {
    const irs_spec *spec = &b->specs[index];
    uint64_t count;
    IRS_TRY(check_tensor(spec, tensor, &count));
    section s = begin_section(b, index, hooks, tensor->dims, count, workspace);
    if (irs_is_quantized(spec)) {
        return read_quantized(&s, tensor, count, workspace, r);
    }
    if (spec->codec == IRS_CODEC_RAW) {
        IRS_TRY(read_raw(spec, tensor->data, tensor->size, r));
    } else {
        IRS_TRY(read_chunks(&s, count, tensor->data, r));
    }
    return check_bools(spec, tensor->data, count) == IRS_OK ? IRS_OK : IRS_ERR_CORRUPT;
}

/* Whether the frame's dims are those of the tensors. */
static int same_dims(const irs_boundary *b, const uint8_t *dims, const irs_tensor *tensors) {
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        for (uint32_t axis = 0; axis < b->specs[i].rank; axis++) {
            if (b->specs[i].dims[axis] == IRS_SYMBOLIC) {
                if (load32(dims) != tensors[i].dims[axis]) {
                    return 0;
                }
                dims += 4;
            }
        }
    }
    return 1;
}

#ifndef IRS_SMALL
/* A frame of raw tensors whose dims and size are right: copied while it is summed, judged afterwards. */
static irs_status decode_plain(const irs_boundary *b, const uint8_t *frame, const irs_tensor *tensors) {
    const uint8_t *p = frame + dims_end(b);
    uint32_t crc = irs_crc32c(0, frame, (size_t)(p - frame));
    uint8_t seen = 0;
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        uint64_t offset = (uint64_t)(p - frame);
        size_t padding = (size_t)(align_up(offset, raw_alignment(&b->specs[i])) - offset);
        for (size_t j = 0; j < padding; j++) {
            seen |= p[j];
        }
        crc = irs_crc32c(crc, p, padding);
        crc = irs_copy_crc32c(crc, tensors[i].data, p + padding, (size_t)tensors[i].size);
        p += padding + tensors[i].size;
    }
    if (crc != load32(p)) {
        return IRS_ERR_CHECKSUM;
    }
    for (uint32_t i = 0; i < b->tensor_count && seen == 0; i++) {
        seen = check_bools(&b->specs[i], tensors[i].data, tensors[i].size) != IRS_OK;
    }
    return seen == 0 ? IRS_OK : IRS_ERR_CORRUPT;
}
#endif

irs_status irs_decode(const irs_boundary *b, const irs_hooks *hooks, const void *frame, size_t frame_size,
                      const irs_tensor *tensors, void *workspace, size_t workspace_size) {
    if (b == NULL || frame == NULL || tensors == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    IRS_TRY(check_head(b, frame, frame_size));
    int same = same_dims(b, (const uint8_t *)frame + IRS_HEADER_SIZE, tensors);
#ifndef IRS_SMALL
    if (same && plain_size(b, tensors) == frame_size - IRS_TRAILER_SIZE) {
        return decode_plain(b, frame, tensors);
    }
#endif
    IRS_TRY(check_sum(frame, frame_size));
    if (!same) {
        return IRS_ERR_SHAPE;
    }
    IRS_TRY(check_workspace(b, tensors, workspace, workspace_size));
    reader r = {frame, (const uint8_t *)frame + dims_end(b), (const uint8_t *)frame + frame_size - IRS_TRAILER_SIZE};
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        IRS_TRY(read_section(b, i, hooks, &tensors[i], workspace, &r));
    }
    return r.p == r.end ? IRS_OK : IRS_ERR_CORRUPT;
}
