/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening a descriptor. Every field is checked here, once, so that frames only have to be checked
 * against a schema that is known to be right.
 *
 * The descriptor is read twice by the same code. The first pass runs on an arena without memory: it
 * checks everything and counts the bytes that are needed. The second pass fills the memory.
 */
#include "rans/static_rans.h"

#define DESCRIPTOR_HEAD_SIZE 72
#define TENSOR_RECORD_SIZE 16
#define NAME_LIMIT 4096
#define PARAMETERS_LIMIT (1 << 20)
#define CHUNK_BYTES_LIMIT (UINT32_C(1) << 30)

/* Bytes of an element; 0 if frames cannot carry the type. */
static uint8_t size_of_type(uint8_t type) {
    static const uint8_t sizes[] = {0, 4, 2,  8, 2, 1, 2, 4, 8, 1, 2, 4, 8,
                                    1, 8, 16, 0, 0, 0, 0, 1, 1, 1, 1, 1};
    return type < sizeof sizes ? sizes[type] : 0;
}

/* Takes `size` bytes and the zeros that follow them up to a multiple of four. */
static const uint8_t *take_padded(irs_reader *r, uint64_t size) {
    const uint8_t *start = irs_take(r, irs_align_up(size, 4));
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

static irs_status check_descriptor_head(const uint8_t *p, size_t size) {
    if (p == NULL) {
        return IRS_ERR_ARGUMENT;
    }
    if (size < DESCRIPTOR_HEAD_SIZE + IRS_TRAILER_SIZE) {
        return IRS_ERR_TRUNCATED;
    }
    if (memcmp(p, "IRSD", 4) != 0) {
        return IRS_ERR_MAGIC;
    }
    if (p[4] != IRS_FORMAT_VERSION || p[5] != 0) {
        return IRS_ERR_VERSION;
    }
    if (irs_load32(p + 8) != size) {
        return irs_load32(p + 8) > size ? IRS_ERR_TRUNCATED : IRS_ERR_SIZE;
    }

    size_t covered = size - IRS_TRAILER_SIZE;
    if (irs_crc32c(0, p, covered) != irs_load32(p + covered)) {
        return IRS_ERR_CHECKSUM;
    }
    return irs_load16(p + 6) - 1u < IRS_MAX_TENSORS ? IRS_OK : IRS_ERR_DESCRIPTOR;
}

/* ---- a tensor record ------------------------------------------------------------------------- */

#ifndef IRS_NO_QUANTIZATION
static int is_quantizable(uint8_t dtype) {
    return dtype == IRS_TYPE_F32 || dtype == IRS_TYPE_F16 || dtype == IRS_TYPE_BF16 ||
           dtype == IRS_TYPE_I8 || dtype == IRS_TYPE_U8;
}

static irs_status read_quantization(irs_spec *spec, irs_reader *r) {
    irs_quantization *q = &spec->quantization;
    const uint8_t *p = irs_take(r, 8);
    if (p == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }

    uint8_t bits = p[1];
    q->storage = p[0];
    q->outliers = p[2] & 1;
    q->axis = p[3] == 0xFF ? IRS_MAX_RANK : p[3];
    q->count = irs_load32(p + 4);
    if (!is_quantizable(spec->dtype) || (q->storage != IRS_TYPE_I8 && q->storage != IRS_TYPE_U8) ||
        bits < 2 || bits > 8 || p[2] > 1) {
        return IRS_ERR_DESCRIPTOR;
    }

    /* one scale for the tensor, or one for each index of a static axis */
    if (q->axis != IRS_MAX_RANK && (q->axis >= spec->rank || spec->dims[q->axis] == IRS_SYMBOLIC)) {
        return IRS_ERR_DESCRIPTOR;
    }
    if (q->count != (q->axis == IRS_MAX_RANK ? 1 : spec->dims[q->axis])) {
        return IRS_ERR_DESCRIPTOR;
    }

    q->low = q->storage == IRS_TYPE_I8 ? -(1 << (bits - 1)) : 0;
    q->high = q->low + (1 << bits) - 1;
    q->steps = irs_take(r, (uint64_t)q->count * 8);
    if (q->steps == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }

    for (uint32_t i = 0; i < q->count; i++) {
        uint32_t scale = irs_load32(q->steps + 8 * (size_t)i);
        int32_t zero = (int32_t)irs_load32(q->steps + 8 * (size_t)i + 4);
        /* a positive, finite, normal float: the bits of such floats order like integers */
        if (scale < UINT32_C(0x00800000) || scale >= UINT32_C(0x7F800000) || zero < q->low ||
            zero > q->high) {
            return IRS_ERR_DESCRIPTOR;
        }
    }

    spec->wire_size = 1;
    return IRS_OK;
}
#endif

/* Reads the dims and counts the symbolic ones. */
static irs_status read_spec_dims(irs_spec *spec, uint32_t *symbols, irs_reader *r) {
    const uint8_t *dims = irs_take(r, 4 * (uint64_t)spec->rank);
    if (dims == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }

    uint64_t static_bytes = spec->element_size;
    for (uint32_t i = 0; i < spec->rank; i++) {
        spec->dims[i] = irs_load32(dims + 4 * i);
        *symbols += spec->dims[i] == IRS_SYMBOLIC;
        if (spec->dims[i] != IRS_SYMBOLIC && spec->dims[i] != 0 &&
            !irs_multiply_size(&static_bytes, spec->dims[i])) {
            return IRS_ERR_DESCRIPTOR;
        }
    }
    return IRS_OK;
}

static irs_status open_codec(irs_spec *spec, irs_arena *arena) {
    if (spec->codec == IRS_CODEC_RAW) {
        int is_bare = spec->chunk_elements == 0 && spec->parameters_size == 0;
        return is_bare ? IRS_OK : IRS_ERR_DESCRIPTOR;
    }
    if (spec->chunk_elements == 0 || spec->chunk_elements > CHUNK_BYTES_LIMIT / spec->wire_size) {
        return IRS_ERR_DESCRIPTOR;
    }

    if (spec->codec == IRS_CODEC_STATIC_RANS) {
        irs_rans_model counted, *model = irs_arena_alloc(arena, sizeof *model);
        spec->model = model;
        return irs_rans_open(spec, model == NULL ? &counted : model, arena);
    }

    int is_hooked = spec->codec == IRS_CODEC_ZSTANDARD || spec->codec >= IRS_CODEC_FOREIGN;
    return is_hooked ? IRS_OK : IRS_ERR_CODEC;
}

static irs_status read_spec(irs_spec *spec, irs_arena *arena, uint32_t *symbols, irs_reader *r) {
    const uint8_t *record = irs_take(r, TENSOR_RECORD_SIZE);
    if (record == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }

    memset(spec, 0, sizeof *spec);
    spec->dtype = record[0];
    spec->rank = record[1];
    spec->codec = record[3];
    spec->parameters_size = irs_load32(record + 8);
    spec->chunk_elements = irs_load32(record + 12);
    spec->element_size = spec->wire_size = size_of_type(spec->dtype);

    uint32_t name_size = irs_load16(record + 4);
    if (spec->element_size == 0 || spec->rank > IRS_MAX_RANK || record[2] > 1 ||
        irs_load16(record + 6) != 0) {
        return IRS_ERR_DESCRIPTOR;
    }
    if (name_size > NAME_LIMIT || spec->parameters_size > PARAMETERS_LIMIT) {
        return IRS_ERR_DESCRIPTOR;
    }

    IRS_TRY(read_spec_dims(spec, symbols, r));
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

/* ---- the whole descriptor -------------------------------------------------------------------- */

/* One pass over a descriptor whose head is right. Without memory in the arena, `*schema` becomes
 * null and the pass only checks and counts. */
static irs_status read_descriptor(const uint8_t *p, size_t size, irs_arena *arena,
                                  irs_schema **schema) {
    uint32_t count = irs_load16(p + 6), symbols = 0;
    irs_schema *made = irs_arena_alloc(arena, sizeof *made + (count - 1) * sizeof(irs_spec));
    irs_reader r = {p + DESCRIPTOR_HEAD_SIZE, p + size - IRS_TRAILER_SIZE};

    uint32_t name_size = irs_load16(p + 64);
    if (name_size > NAME_LIMIT || irs_load16(p + 66) != 0 || irs_load32(p + 68) != 0 ||
        take_padded(&r, name_size) == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }

    for (uint32_t i = 0; i < count; i++) {
        irs_spec counted;
        IRS_TRY(read_spec(made == NULL ? &counted : &made->specs[i], arena, &symbols, &r));
    }

    if (made != NULL) {
        memcpy(made->digest, p + 16, sizeof made->digest);
        made->tensor_count = count;
        made->symbol_count = symbols;
    }
    *schema = made;
    return r.p == r.end ? IRS_OK : IRS_ERR_DESCRIPTOR;
}

irs_status irs_schema_size(const void *descriptor, size_t size, size_t *memory_size) {
    if (memory_size == NULL) {
        return IRS_ERR_ARGUMENT;
    }

    IRS_TRY(check_descriptor_head(descriptor, size));
    irs_arena arena = {NULL, 0, 0};
    irs_schema *none;
    IRS_TRY(read_descriptor(descriptor, size, &arena, &none));
    if (arena.used > SIZE_MAX) {
        return IRS_ERR_SIZE;
    }

    *memory_size = (size_t)arena.used;
    return IRS_OK;
}

irs_status irs_schema_open(irs_schema **schema, void *memory, size_t memory_size,
                           const void *descriptor, size_t size) {
    size_t needed;
    IRS_TRY(irs_schema_size(descriptor, size, &needed));
    if (schema == NULL || memory == NULL || (uintptr_t)memory % IRS_ALIGNMENT != 0) {
        return IRS_ERR_ARGUMENT;
    }
    if (memory_size < needed) {
        return IRS_ERR_BUFFER;
    }

    irs_arena arena = {memory, 0, memory_size};
    return read_descriptor(descriptor, size, &arena, schema);
}

/* ---- what a schema holds --------------------------------------------------------------------- */

static const irs_spec *spec_of(const irs_schema *schema, uint32_t tensor) {
    static const irs_spec none;
    return schema == NULL || tensor >= schema->tensor_count ? &none : &schema->specs[tensor];
}

uint32_t irs_tensor_count(const irs_schema *schema) {
    return schema == NULL ? 0 : schema->tensor_count;
}

uint32_t irs_tensor_rank(const irs_schema *schema, uint32_t tensor) {
    return spec_of(schema, tensor)->rank;
}

irs_type irs_tensor_type(const irs_schema *schema, uint32_t tensor) {
    return (irs_type)spec_of(schema, tensor)->dtype;
}

uint8_t irs_tensor_element_size(const irs_schema *schema, uint32_t tensor) {
    return spec_of(schema, tensor)->element_size;
}

uint8_t irs_tensor_codec(const irs_schema *schema, uint32_t tensor) {
    return spec_of(schema, tensor)->codec;
}

irs_status irs_count_elements(const irs_spec *spec, const uint32_t *dims, uint64_t *count) {
    uint64_t bytes = spec->element_size;
    int empty = 0;
    for (uint32_t i = 0; i < spec->rank; i++) {
        if (dims[i] == 0) {
            empty = 1;
        } else if (!irs_multiply_size(&bytes, dims[i])) {
            return IRS_ERR_SIZE;
        }
    }

    *count = empty ? 0 : bytes / spec->element_size;
    return IRS_OK;
}

#undef DESCRIPTOR_HEAD_SIZE
#undef TENSOR_RECORD_SIZE
#undef NAME_LIMIT
#undef PARAMETERS_LIMIT
#undef CHUNK_BYTES_LIMIT
