/* Frames, the sender's side: header, dims, one section a tensor, CRC. A section is the tensor's bytes as they are, or chunks of
 * coded ones; a quantized tensor's section starts with its outliers when it has any to give. */
#include "frame.h"

/* ---- sizes ------------------------------------------------------------------------------------------------------ */

irs_status irs_frame_bound(const irs_boundary *b, const irs_tensor *tensors, size_t *size) {
    if (b == NULL || tensors == NULL || size == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    uint64_t bound = dims_end(b) + IRS_TRAILER_SIZE;
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        const irs_spec *spec = &b->specs[i];
        uint64_t count, outliers = 0, heads = 0;
        IRS_TRY(check_dims(spec, tensors[i].dims, &count));
        if (irs_has_outliers(spec)) {
            outliers = 4 + irs_outlier_limit(count) * (4u + spec->element_size);
        }
        if (spec->chunk != 0) {
            heads = (count / spec->chunk + 1) * 4;
        }
        if (!add_size(&bound, count * spec->wire_size) || !add_size(&bound, outliers) || !add_size(&bound, heads + 8)) {
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
    uint64_t size = quantized_size(spec, count);
    if (spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_geometry geometry;
        irs_geometry_of(&geometry, spec->model, spec->rank, dims);
        size += irs_static_scratch(spec->model, &geometry, count < spec->chunk ? (size_t)count : spec->chunk);
    }
    return size;
}

irs_status irs_workspace_size(const irs_boundary *b, const irs_tensor *tensors, size_t *size) {
    if (b == NULL || tensors == NULL || size == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    uint64_t needed = 0;
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        uint64_t count;
        IRS_TRY(check_dims(&b->specs[i], tensors[i].dims, &count));
        uint64_t own = workspace_of(&b->specs[i], tensors[i].dims, count);
        needed = own > needed ? own : needed;
    }
    if (needed > SIZE_MAX) {
        return IRS_ERR_SIZE;
    }
    *size = (size_t)needed;
    return IRS_OK;
}

/* ---- encoding --------------------------------------------------------------------------------------------------- */

static irs_status chunk_encode(const section *s, const uint8_t *elements, irs_part part, uint8_t *target, size_t capacity,
                               size_t *size) {
    const irs_spec *spec = s->spec;
    if (spec->codec == IRS_CODEC_STATIC_RANS) {
        return irs_static_encode(spec, &s->geometry, elements, part, s->scratch, target, capacity, size);
    }
    if (s->hooks == NULL || s->hooks->compress == NULL) {
        return IRS_ERR_CODEC;
    }
    irs_status status =
        s->hooks->compress(s->hooks->context, s->index, spec->codec, spec->parameters, spec->parameters_size,
                           elements + part.first * spec->wire_size, part.count * spec->wire_size, target, capacity, size);
    return status == IRS_OK && *size > capacity ? IRS_ERR_BUFFER : status;
}

/* Elements that no codec made smaller: in memory order, in pixel order for static-rans. */
static void chunk_store(const section *s, const uint8_t *elements, irs_part part, uint8_t *target) {
    if (s->spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_gather(s->spec, &s->geometry, elements, part, target);
    } else {
        memcpy(target, elements + part.first * s->spec->wire_size, part.count * s->spec->wire_size);
    }
}

typedef struct writer {
    uint8_t *start, *p, *end;
} writer;

static uint8_t *claim(writer *w, uint64_t size) {
    if (size > (uint64_t)(w->end - w->p)) {
        return NULL;
    }
    uint8_t *place = w->p;
    w->p += size;
    return place;
}

static irs_status write_chunk(const section *s, const uint8_t *elements, irs_part part, writer *w) {
    size_t size = part.count * s->spec->wire_size;
    uint8_t *head = claim(w, 4);
    if (head == NULL || size > (size_t)(w->end - w->p)) {
        return IRS_ERR_BUFFER;
    }
    size_t coded = 0;
    irs_status status = chunk_encode(s, elements, part, w->p, size - 1, &coded);
    if (status == IRS_OK) {
        store32(head, (uint32_t)coded);
        w->p += coded;
        return IRS_OK;
    }
    if (status != IRS_ERR_BUFFER) {
        return status;
    }
    store32(head, (uint32_t)size | IRS_STORED);
    chunk_store(s, elements, part, w->p);
    w->p += size;
    return IRS_OK;
}

static irs_status write_outliers(const irs_spec *spec, const irs_tensor *tensor, uint64_t count, uint8_t *quantized,
                                 writer *w) {
    uint64_t entry = 4 + (uint64_t)spec->element_size;
    uint8_t *head = NULL, *entries = NULL;
    if (irs_has_outliers(spec)) {
        head = claim(w, 4);
        entries = head == NULL ? NULL : claim(w, irs_outlier_limit(count) * entry);
        if (entries == NULL) {
            return IRS_ERR_BUFFER;
        }
    }
    uint32_t found = 0;
    irs_quantize(spec, tensor->dims, tensor->data, count, quantized, entries, &found);
    if (head != NULL) {
        store32(head, found);
        w->p = entries + found * entry;
    }
    return IRS_OK;
}

static irs_status write_raw(const irs_spec *spec, const irs_tensor *tensor, uint64_t count, writer *w) {
    if (irs_is_quantized(spec)) {
        /* outliers come first and their number is not known yet: quantize behind the room for all, then close up */
        uint64_t most = irs_has_outliers(spec) ? 4 + irs_outlier_limit(count) * (4u + spec->element_size) : 0;
        if (most > (uint64_t)(w->end - w->p) || count > (uint64_t)(w->end - w->p) - most) {
            return IRS_ERR_BUFFER;
        }
        uint8_t *quantized = w->p + most;
        IRS_TRY(write_outliers(spec, tensor, count, quantized, w));
        memmove(w->p, quantized, (size_t)count);
        w->p += count;
        return IRS_OK;
    }
    uint64_t offset = (uint64_t)(w->p - w->start);
    uint8_t *padding = claim(w, align_up(offset, raw_alignment(spec)) - offset);
    if (padding == NULL) {
        return IRS_ERR_BUFFER;
    }
    memset(padding, 0, (size_t)(w->p - padding));
    uint8_t *place = claim(w, tensor->size);
    if (place == NULL) {
        return IRS_ERR_BUFFER;
    }
    if (tensor->size != 0) {
        memcpy(place, tensor->data, (size_t)tensor->size);
    }
    return IRS_OK;
}

static irs_status write_section(const irs_boundary *b, uint32_t index, const irs_hooks *hooks, const irs_tensor *tensor,
                                uint8_t *workspace, writer *w) {
    const irs_spec *spec = &b->specs[index];
    uint64_t count;
    IRS_TRY(check_tensor(spec, tensor, &count));
    IRS_TRY(check_bools(spec, tensor->data, count));
    if (spec->codec == IRS_CODEC_RAW) {
        return write_raw(spec, tensor, count, w);
    }
    const uint8_t *elements = tensor->data;
    if (irs_is_quantized(spec)) {
        IRS_TRY(write_outliers(spec, tensor, count, workspace, w));
        elements = workspace;
    }
    section s = begin_section(b, index, hooks, tensor->dims, count, workspace);
    for (size_t first = 0; first < count; first += spec->chunk) {
        irs_part part = {first, count - first < spec->chunk ? (size_t)count - first : spec->chunk};
        IRS_TRY(write_chunk(&s, elements, part, w));
    }
    return IRS_OK;
}

/* Header and dims of a frame of `size` bytes. */
static void write_head(const irs_boundary *b, const irs_tensor *tensors, uint8_t *header, uint64_t size) {
    memcpy(header, "IRSF", 4);
    header[4] = IRS_FORMAT_VERSION;
    header[5] = 0;
    memcpy(header + 8, b->digest, sizeof b->digest);
    store64(header + 16, size);
    store16(header + 6, header_check(header));
    uint8_t *dims = header + IRS_HEADER_SIZE;
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        for (uint32_t axis = 0; axis < b->specs[i].rank; axis++) {
            if (b->specs[i].dims[axis] == IRS_SYMBOLIC) {
                store32(dims, tensors[i].dims[axis]);
                dims += 4;
            }
        }
    }
}

#ifndef IRS_SMALL
/* A frame of raw tensors: `size` is what plain_size says. */
static irs_status encode_plain(const irs_boundary *b, const irs_tensor *tensors, uint8_t *frame, uint64_t size) {
    write_head(b, tensors, frame, size + IRS_TRAILER_SIZE);
    uint8_t *p = frame + dims_end(b);
    uint32_t crc = irs_crc32c(0, frame, (size_t)(p - frame));
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        const irs_tensor *tensor = &tensors[i];
        uint64_t offset = (uint64_t)(p - frame);
        size_t padding = (size_t)(align_up(offset, raw_alignment(&b->specs[i])) - offset);
        IRS_TRY(check_bools(&b->specs[i], tensor->data, tensor->size));
        memset(p, 0, padding);
        crc = irs_crc32c(crc, p, padding);
        crc = irs_copy_crc32c(crc, p + padding, tensor->data, (size_t)tensor->size);
        p += padding + tensor->size;
    }
    store32(p, crc);
    return IRS_OK;
}
#endif

irs_status irs_encode(const irs_boundary *b, const irs_hooks *hooks, const irs_tensor *tensors, void *workspace,
                      size_t workspace_size, void *frame, size_t capacity, size_t *frame_size) {
    if (b == NULL || tensors == NULL || frame == NULL || frame_size == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    IRS_TRY(check_workspace(b, tensors, workspace, workspace_size));
#ifndef IRS_SMALL
    uint64_t plain = plain_size(b, tensors);
    if (plain != 0 && capacity >= IRS_TRAILER_SIZE && plain <= capacity - IRS_TRAILER_SIZE) {
        *frame_size = (size_t)plain + IRS_TRAILER_SIZE;
        return encode_plain(b, tensors, frame, plain);
    }
#endif
    writer w = {frame, frame, (uint8_t *)frame + capacity};
    uint8_t *header = claim(&w, dims_end(b));
    if (header == NULL) {
        return IRS_ERR_BUFFER;
    }
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        IRS_TRY(write_section(b, i, hooks, &tensors[i], workspace, &w));
    }
    uint8_t *trailer = claim(&w, IRS_TRAILER_SIZE);
    if (trailer == NULL) {
        return IRS_ERR_BUFFER;
    }
    *frame_size = (size_t)(w.p - w.start);
    write_head(b, tensors, header, *frame_size);
    store32(trailer, irs_crc32c(0, header, (size_t)(trailer - header)));
    return IRS_OK;
}
