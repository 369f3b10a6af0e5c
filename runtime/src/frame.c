/* The container: header, dims, one section a tensor, CRC. A section is the tensor's bytes as they are, or chunks of coded
 * ones; a quantized tensor's section starts with its outliers when it has any to give. */
#include "static_rans.h"

/* A section on its way: what encoding and decoding of its chunks need to know. */
typedef struct section {
    const irs_spec *spec;
    const irs_hooks *hooks;
    uint32_t index;
    irs_geometry geometry; /* of static-rans tensors */
    uint8_t *scratch;
} section;

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

/* Elements that no codec made smaller: in memory order, in pixel order for static-rans. */
static void chunk_store(const section *s, const uint8_t *elements, irs_part part, uint8_t *target) {
    if (s->spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_gather(s->spec, &s->geometry, elements, part, target);
    } else {
        memcpy(target, elements + part.first * s->spec->wire_size, part.count * s->spec->wire_size);
    }
}

static void chunk_restore(const section *s, const uint8_t *payload, irs_part part, uint8_t *elements) {
    if (s->spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_scatter(s->spec, &s->geometry, payload, part, elements);
    } else {
        memcpy(elements + part.first * s->spec->wire_size, payload, part.count * s->spec->wire_size);
    }
}

static uint32_t raw_alignment(const irs_spec *spec) { return spec->wire_size < 8 ? spec->wire_size : 8; }

static uint64_t dims_end(const irs_boundary *b) { return IRS_HEADER_SIZE + 4 * (uint64_t)b->symbol_count; }

/* Elements of a tensor whose dims come from a caller; static ones must agree. */
static irs_status check_dims(const irs_spec *spec, const uint32_t *dims, uint64_t *count) {
    for (uint32_t i = 0; i < spec->rank; i++) {
        if (spec->dims[i] == IRS_SYMBOLIC ? dims[i] == IRS_SYMBOLIC : dims[i] != spec->dims[i]) {
            return IRS_ERR_SHAPE;
        }
    }
    IRS_TRY(irs_count_elements(spec, dims, count));
    /* indices of outliers are 32 bits wide */
    return spec->quantization.outliers && *count > UINT32_MAX ? IRS_ERR_SIZE : IRS_OK;
}

static irs_status check_tensor(const irs_spec *spec, const irs_tensor *tensor, uint64_t *count) {
    IRS_TRY(check_dims(spec, tensor->dims, count));
    if (tensor->size != *count * spec->element_size) {
        return IRS_ERR_SHAPE;
    }
    if (tensor->size > SIZE_MAX) {
        return IRS_ERR_SIZE;
    }
    return tensor->data == NULL && *count != 0 ? IRS_ERR_ARGUMENT : IRS_OK;
}

static irs_status check_bools(const irs_spec *spec, const uint8_t *p, uint64_t count) {
    if (spec->dtype != IRS_BOOL) {
        return IRS_OK;
    }
    uint8_t seen = 0;
    for (uint64_t i = 0; i < count; i++) {
        seen |= p[i];
    }
    return seen > 1 ? IRS_ERR_VALUE : IRS_OK;
}

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
        if (spec->quantization.outliers) {
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

/* Quantized elements of a tensor that is coded afterwards, before the codec's own scratch. */
static uint64_t quantized_size(const irs_spec *spec, uint64_t count) {
    return spec->quantization.storage != 0 && spec->codec != IRS_CODEC_RAW ? align_up(count, IRS_ALIGNMENT) : 0;
}

static uint64_t workspace_of(const irs_spec *spec, const uint32_t *dims, uint64_t count) {
    uint64_t size = quantized_size(spec, count);
    if (spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_geometry geometry;
        irs_geometry_of(&geometry, spec->model, spec->rank, dims);
        size += irs_static_scratch(spec->model, &geometry, count < spec->chunk ? count : spec->chunk);
    }
    return size;
}

static section begin_section(const irs_boundary *b, uint32_t index, const irs_hooks *hooks, const uint32_t *dims,
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
    if (spec->quantization.outliers) {
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
    if (spec->quantization.storage != 0) {
        /* outliers come first and their number is not known yet: quantize behind the room for all, then close up */
        uint64_t most = spec->quantization.outliers ? 4 + irs_outlier_limit(count) * (4u + spec->element_size) : 0;
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
    if (spec->quantization.storage != 0) {
        IRS_TRY(write_outliers(spec, tensor, count, workspace, w));
        elements = workspace;
    }
    section s = begin_section(b, index, hooks, tensor->dims, count, workspace);
    for (uint64_t first = 0; first < count; first += spec->chunk) {
        irs_part part = {first, (size_t)(count - first < spec->chunk ? count - first : spec->chunk)};
        IRS_TRY(write_chunk(&s, elements, part, w));
    }
    return IRS_OK;
}

static uint16_t header_check(const uint8_t *header) {
    uint8_t copy[IRS_HEADER_SIZE];
    memcpy(copy, header, sizeof copy);
    store16(copy + 6, 0);
    uint32_t crc = irs_crc32c(0, copy, sizeof copy);
    return (uint16_t)(crc ^ crc >> 16);
}

static irs_status check_workspace(const irs_boundary *b, const irs_tensor *tensors, const void *workspace, size_t size) {
    size_t needed;
    IRS_TRY(irs_workspace_size(b, tensors, &needed));
    if (size < needed) {
        return IRS_ERR_BUFFER;
    }
    return needed != 0 && (workspace == NULL || (uintptr_t)workspace % IRS_ALIGNMENT != 0) ? IRS_ERR_ARGUMENT : IRS_OK;
}

irs_status irs_encode(const irs_boundary *b, const irs_hooks *hooks, const irs_tensor *tensors, void *workspace,
                      size_t workspace_size, void *frame, size_t capacity, size_t *frame_size) {
    if (b == NULL || tensors == NULL || frame == NULL || frame_size == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    IRS_TRY(check_workspace(b, tensors, workspace, workspace_size));
    writer w = {frame, frame, (uint8_t *)frame + capacity};
    uint8_t *header = claim(&w, dims_end(b));
    if (header == NULL) {
        return IRS_ERR_BUFFER;
    }
    uint8_t *dims = header + IRS_HEADER_SIZE;
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        for (uint32_t axis = 0; axis < b->specs[i].rank; axis++) {
            if (b->specs[i].dims[axis] == IRS_SYMBOLIC) {
                store32(dims, tensors[i].dims[axis]);
                dims += 4;
            }
        }
    }
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        IRS_TRY(write_section(b, i, hooks, &tensors[i], workspace, &w));
    }
    uint8_t *trailer = claim(&w, IRS_TRAILER_SIZE);
    if (trailer == NULL) {
        return IRS_ERR_BUFFER;
    }
    memcpy(header, "IRSF", 4);
    header[4] = IRS_FORMAT_VERSION;
    header[5] = 0;
    memcpy(header + 8, b->digest, sizeof b->digest);
    store64(header + 16, (uint64_t)(w.p - w.start));
    store16(header + 6, header_check(header));
    store32(trailer, irs_crc32c(0, header, (size_t)(trailer - header)));
    *frame_size = (size_t)(w.p - w.start);
    return IRS_OK;
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

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

static irs_status check_frame(const irs_boundary *b, const uint8_t *frame, size_t size) {
    uint64_t said;
    IRS_TRY(irs_frame_size(frame, size, &said));
    if (memcmp(frame + 8, b->digest, sizeof b->digest) != 0) {
        return IRS_ERR_BOUNDARY;
    }
    if (said != size) {
        return said > size ? IRS_ERR_TRUNCATED : IRS_ERR_SIZE;
    }
    if (size < dims_end(b) + IRS_TRAILER_SIZE) {
        return IRS_ERR_TRUNCATED;
    }
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
    IRS_TRY(check_frame(b, frame, frame_size));
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
    for (uint64_t first = 0; first < count; first += s->spec->chunk) {
        irs_part part = {first, (size_t)(count - first < s->spec->chunk ? count - first : s->spec->chunk)};
        IRS_TRY(read_chunk(s, part, elements, r));
    }
    return IRS_OK;
}

static irs_status read_quantized(const section *s, const irs_tensor *tensor, uint64_t count, uint8_t *workspace,
                                 reader *r) {
    const irs_spec *spec = s->spec;
    const uint8_t *entries = NULL, *integers = workspace;
    uint32_t found = 0;
    if (spec->quantization.outliers) {
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
    if (spec->quantization.storage != 0) {
        return read_quantized(&s, tensor, count, workspace, r);
    }
    if (spec->codec == IRS_CODEC_RAW) {
        IRS_TRY(read_raw(spec, tensor->data, tensor->size, r));
    } else {
        IRS_TRY(read_chunks(&s, count, tensor->data, r));
    }
    return check_bools(spec, tensor->data, count) == IRS_OK ? IRS_OK : IRS_ERR_CORRUPT;
}

irs_status irs_decode(const irs_boundary *b, const irs_hooks *hooks, const void *frame, size_t frame_size,
                      const irs_tensor *tensors, void *workspace, size_t workspace_size) {
    if (b == NULL || frame == NULL || tensors == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    IRS_TRY(check_frame(b, frame, frame_size));
    reader r = {frame, frame, (const uint8_t *)frame + frame_size - IRS_TRAILER_SIZE};
    const uint8_t *dims = take(&r, dims_end(b)) + IRS_HEADER_SIZE;
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        for (uint32_t axis = 0; axis < b->specs[i].rank; axis++) {
            if (b->specs[i].dims[axis] == IRS_SYMBOLIC) {
                if (load32(dims) != tensors[i].dims[axis]) {
                    return IRS_ERR_SHAPE;
                }
                dims += 4;
            }
        }
    }
    IRS_TRY(check_workspace(b, tensors, workspace, workspace_size));
    for (uint32_t i = 0; i < b->tensor_count; i++) {
        IRS_TRY(read_section(b, i, hooks, &tensors[i], workspace, &r));
    }
    return r.p == r.end ? IRS_OK : IRS_ERR_CORRUPT;
}
