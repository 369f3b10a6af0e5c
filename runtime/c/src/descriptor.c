/* Opening a descriptor: every field is checked here once, so that frames are only checked against what is known good. */
#include "rans/static_rans.h"

#define HEAD_SIZE 72
#define RECORD_SIZE 16
#define NAME_LIMIT 4096
#define PARAMETERS_LIMIT (1 << 20)
#define CHUNK_BYTES_LIMIT (UINT32_C(1) << 30)

/* 0: a boundary cannot carry the type */
static uint8_t element_size(uint8_t dtype) {
    static const uint8_t sizes[] = {0, 4, 2, 8, 2, 1, 2, 4, 8, 1, 2, 4, 8, 1, 8, 16, 0, 0, 0, 0, 1, 1, 1, 1, 1};
    return dtype < sizeof sizes ? sizes[dtype] : 0;
}

typedef struct reader {
    const uint8_t *p, *end;
} reader;

static const uint8_t *take(reader *r, uint64_t size) {
    if (size > (uint64_t)(r->end - r->p)) {
        return NULL;
    }
    const uint8_t *start = r->p;
    r->p += size;
    return start;
}

/* bytes followed by zeros up to a multiple of four */
static const uint8_t *take_padded(reader *r, uint64_t size) {
    const uint8_t *start = take(r, align_up(size, 4));
    if (start == NULL) {
        return NULL;
    }
    for (const uint8_t *p = start + size; p < r->p; p++) {
        if (*p != 0) {
            return NULL;
        }
    }
    return start;
}

static irs_status check_head(const uint8_t *p, size_t size) {
    if (p == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    if (size < HEAD_SIZE + IRS_TRAILER_SIZE) {
        return IRS_ERR_TRUNCATED;
    }
    if (memcmp(p, "IRSD", 4) != 0) {
        return IRS_ERR_MAGIC;
    }
    if (p[4] != IRS_FORMAT_VERSION || p[5] != 0) {
        return IRS_ERR_VERSION;
    }
    if (load32(p + 8) != size) {
        return load32(p + 8) > size ? IRS_ERR_TRUNCATED : IRS_ERR_SIZE;
    }
    if (irs_crc32c(0, p, size - IRS_TRAILER_SIZE) != load32(p + size - IRS_TRAILER_SIZE)) {
        return IRS_ERR_CHECKSUM;
    }
    return load16(p + 6) - 1u < IRS_MAX_TENSORS ? IRS_OK : IRS_ERR_DESCRIPTOR;
}

#ifndef IRS_NO_QUANTIZATION
static int is_quantizable(uint8_t dtype) {
    return dtype == IRS_F32 || dtype == IRS_F16 || dtype == IRS_BF16 || dtype == IRS_I8 || dtype == IRS_U8;
}

static irs_status read_quantization(irs_spec *spec, reader *r) {
    irs_quantization *q = &spec->quantization;
    const uint8_t *p = take(r, 8);
    if (p == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    uint8_t bits = p[1];
    q->storage = p[0];
    q->outliers = p[2] & 1;
    q->axis = p[3] == 0xFF ? IRS_MAX_RANK : p[3];
    q->count = load32(p + 4);
    if (!is_quantizable(spec->dtype) || (q->storage != IRS_I8 && q->storage != IRS_U8) || bits < 2 || bits > 8 || p[2] > 1) {
        return IRS_ERR_DESCRIPTOR;
    }
    if (q->axis != IRS_MAX_RANK && (q->axis >= spec->rank || spec->dims[q->axis] == IRS_SYMBOLIC)) {
        return IRS_ERR_DESCRIPTOR;
    }
    if (q->count != (q->axis == IRS_MAX_RANK ? 1 : spec->dims[q->axis])) {
        return IRS_ERR_DESCRIPTOR;
    }
    q->low = q->storage == IRS_I8 ? -(1 << (bits - 1)) : 0;
    q->high = q->low + (1 << bits) - 1;
    q->steps = take(r, (uint64_t)q->count * 8);
    if (q->steps == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    for (uint32_t i = 0; i < q->count; i++) {
        uint32_t scale = load32(q->steps + 8 * (size_t)i);
        int32_t zero = (int32_t)load32(q->steps + 8 * (size_t)i + 4);
        /* a positive, finite, normal float: its bits order like integers */
        if (scale < UINT32_C(0x00800000) || scale >= UINT32_C(0x7F800000) || zero < q->low || zero > q->high) {
            return IRS_ERR_DESCRIPTOR;
        }
    }
    spec->wire_size = 1;
    return IRS_OK;
}
#endif

static irs_status open_codec(irs_spec *spec, irs_arena *arena) {
    if (spec->codec == IRS_CODEC_RAW) {
        return spec->chunk == 0 && spec->parameters_size == 0 ? IRS_OK : IRS_ERR_DESCRIPTOR;
    }
    if (spec->chunk == 0 || spec->chunk > CHUNK_BYTES_LIMIT / spec->wire_size) {
        return IRS_ERR_DESCRIPTOR;
    }
    if (spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_model counted, *model = irs_allot(arena, sizeof *model);
        spec->model = model;
        return irs_open_static(spec, model == NULL ? &counted : model, arena);
    }
    return spec->codec == IRS_CODEC_ZSTANDARD || spec->codec >= IRS_CODEC_FOREIGN ? IRS_OK : IRS_ERR_CODEC;
}

static irs_status read_spec(irs_spec *spec, irs_arena *arena, uint32_t *symbols, reader *r) {
    const uint8_t *record = take(r, RECORD_SIZE);
    if (record == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    memset(spec, 0, sizeof *spec);
    spec->dtype = record[0];
    spec->rank = record[1];
    spec->codec = record[3];
    uint32_t name_size = load16(record + 4);
    spec->parameters_size = load32(record + 8);
    spec->chunk = load32(record + 12);
    spec->element_size = spec->wire_size = element_size(spec->dtype);
    if (spec->element_size == 0 || spec->rank > IRS_MAX_RANK || record[2] > 1 || load16(record + 6) != 0) {
        return IRS_ERR_DESCRIPTOR;
    }
    if (name_size > NAME_LIMIT || spec->parameters_size > PARAMETERS_LIMIT) {
        return IRS_ERR_DESCRIPTOR;
    }
    const uint8_t *dims = take(r, 4 * (uint64_t)spec->rank);
    if (dims == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    uint64_t known_bytes = spec->element_size;
    for (uint32_t i = 0; i < spec->rank; i++) {
        spec->dims[i] = load32(dims + 4 * i);
        *symbols += spec->dims[i] == IRS_SYMBOLIC;
        if (spec->dims[i] != IRS_SYMBOLIC && spec->dims[i] != 0 && !multiply_size(&known_bytes, spec->dims[i])) {
            return IRS_ERR_DESCRIPTOR;
        }
    }
    if (record[2] == 1) {
#ifdef IRS_NO_QUANTIZATION
        return IRS_ERR_CODEC;
#else
        IRS_TRY(read_quantization(spec, r));
#endif
    }
    if (take_padded(r, name_size) == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    spec->parameters = take_padded(r, spec->parameters_size);
    if (spec->parameters == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    return open_codec(spec, arena);
}

/* One pass over all records: fills `boundary`, or only counts what it will need when the arena has no memory. */
static irs_status read_all(const uint8_t *p, size_t size, irs_arena *arena, irs_boundary **boundary) {
    uint32_t count = load16(p + 6), symbols = 0;
    irs_boundary *b = irs_allot(arena, sizeof *b + (count - 1) * sizeof(irs_spec));
    reader r = {p + HEAD_SIZE, p + size - IRS_TRAILER_SIZE};
    uint32_t name_size = load16(p + 64);
    if (name_size > NAME_LIMIT || load16(p + 66) != 0 || load32(p + 68) != 0 || take_padded(&r, name_size) == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    for (uint32_t i = 0; i < count; i++) {
        irs_spec counted;
        IRS_TRY(read_spec(b == NULL ? &counted : &b->specs[i], arena, &symbols, &r));
    }
    if (b != NULL) {
        memcpy(b->digest, p + 16, sizeof b->digest);
        b->tensor_count = count;
        b->symbol_count = symbols;
    }
    *boundary = b;
    return r.p == r.end ? IRS_OK : IRS_ERR_DESCRIPTOR;
}

irs_status irs_boundary_size(const void *descriptor, size_t size, size_t *memory_size) {
    if (memory_size == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    IRS_TRY(check_head(descriptor, size));
    irs_arena arena = {NULL, 0, 0};
    irs_boundary *none;
    IRS_TRY(read_all(descriptor, size, &arena, &none));
    if (arena.used > SIZE_MAX) {
        return IRS_ERR_SIZE;
    }
    *memory_size = (size_t)arena.used;
    return IRS_OK;
}

irs_status irs_boundary_open(irs_boundary **boundary, void *memory, size_t memory_size, const void *descriptor,
                             size_t size) {
    size_t needed;
    IRS_TRY(irs_boundary_size(descriptor, size, &needed));
    if (boundary == NULL || memory == NULL || (uintptr_t)memory % IRS_ALIGNMENT != 0) {
        return IRS_ERR_ARGUMENT;
    }
    if (memory_size < needed) {
        return IRS_ERR_BUFFER;
    }
    irs_arena arena = {memory, 0, memory_size};
    return read_all(descriptor, size, &arena, boundary);
}

uint32_t irs_tensor_count(const irs_boundary *boundary) { return boundary == NULL ? 0 : boundary->tensor_count; }

static const irs_spec *spec_of(const irs_boundary *boundary, uint32_t tensor) {
    static const irs_spec none;
    return boundary == NULL || tensor >= boundary->tensor_count ? &none : &boundary->specs[tensor];
}

uint32_t irs_tensor_rank(const irs_boundary *boundary, uint32_t tensor) { return spec_of(boundary, tensor)->rank; }

uint8_t irs_tensor_type(const irs_boundary *boundary, uint32_t tensor) { return spec_of(boundary, tensor)->dtype; }

uint8_t irs_tensor_element_size(const irs_boundary *boundary, uint32_t tensor) {
    return spec_of(boundary, tensor)->element_size;
}

uint8_t irs_tensor_codec(const irs_boundary *boundary, uint32_t tensor) { return spec_of(boundary, tensor)->codec; }

irs_status irs_count_elements(const irs_spec *spec, const uint32_t *dims, uint64_t *count) {
    uint64_t bytes = spec->element_size;
    int empty = 0;
    for (uint32_t i = 0; i < spec->rank; i++) {
        if (dims[i] == 0) {
            empty = 1;
        } else if (!multiply_size(&bytes, dims[i])) {
            return IRS_ERR_SIZE;
        }
    }
    *count = empty ? 0 : bytes / spec->element_size;
    return IRS_OK;
}
