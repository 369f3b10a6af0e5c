/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs the library on vectors that pytest wrote (descriptor, tensors, frame). Frames must come out
 * byte for byte, decode to the same tensors, and be refused if they are cut short, have a bit
 * flipped, or are patched with checksums made right. Buffers are heap blocks of exactly the right
 * size, so that sanitizers notice every access beyond them. Prints a digest of all frames.
 */
#include "irs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                     \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: vector %u: %s\n", __FILE__, __LINE__, vector, #condition); \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

static unsigned vector;

static void *exact(size_t size) {
    void *memory = malloc(size == 0 ? 1 : size);
    REQUIRE(memory != NULL);
    return memory;
}

static void *aligned(size_t size, void **block) {
    *block = exact(size + 15);
    return (void *)(((uintptr_t)*block + 15) & ~(uintptr_t)15);
}

typedef struct bytes {
    uint8_t *data;
    size_t size;
} bytes;

static uint32_t read_u32(FILE *file) {
    uint8_t b[4];
    REQUIRE(fread(b, 1, 4, file) == 4);
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static bytes read_bytes(FILE *file) {
    bytes b;
    b.size = read_u32(file);
    b.data = exact(b.size);
    REQUIRE(fread(b.data, 1, b.size, file) == b.size);
    return b;
}

static void store_u32(uint8_t *p, uint32_t value) {
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(value >> 8 * i);
    }
}

static void fix_checksums(uint8_t *frame, size_t size) {
    frame[6] = frame[7] = 0;
    uint32_t crc = irs_crc32c(0, frame, IRS_HEADER_SIZE);
    crc ^= crc >> 16;
    frame[6] = (uint8_t)crc;
    frame[7] = (uint8_t)(crc >> 8);
    store_u32(frame + size - 4, irs_crc32c(0, frame, size - 4));
}

/* Decodes into buffers of exactly the sizes that the frame claims, up to 1 MiB. */
static irs_status try_decode(const irs_schema *schema, const uint8_t *frame, size_t size,
                             irs_tensor *tensors) {
    uint8_t *copy = exact(size);
    memcpy(copy, frame, size);
    irs_status status = irs_frame_dims(schema, copy, size, tensors);
    size_t scratch_size = 0;
    if (status == IRS_OK) {
        status = irs_workspace_size(schema, tensors, &scratch_size);
    }

    uint32_t count = irs_tensor_count(schema), held = 0;
    for (; status == IRS_OK && held < count; held++) {
        if (tensors[held].size > 1 << 20 || scratch_size > 1 << 24) {
            status = IRS_ERR_SIZE;
            break;
        }

        tensors[held].data = exact((size_t)tensors[held].size);
    }
    if (status == IRS_OK) {
        void *block, *scratch = aligned(scratch_size, &block);
        status = irs_decode(schema, NULL, copy, size, tensors, scratch, scratch_size);
        free(block);
    }
    if (status != IRS_OK) {
        while (held > 0) {
            free(tensors[--held].data);
        }
    }

    free(copy);
    return status;
}

static void free_tensors(const irs_schema *schema, irs_tensor *tensors) {
    for (uint32_t i = 0; i < irs_tensor_count(schema); i++) {
        free(tensors[i].data);
    }
}

static void check_encode(const irs_schema *schema, const irs_tensor *tensors, bytes frame) {
    size_t bound, scratch_size, size;
    REQUIRE(irs_frame_bound(schema, tensors, &bound) == IRS_OK);
    REQUIRE(irs_workspace_size(schema, tensors, &scratch_size) == IRS_OK);
    void *block, *scratch = aligned(scratch_size, &block);
    uint8_t *target = exact(bound);
    REQUIRE(irs_encode(schema, NULL, tensors, scratch, scratch_size, target, bound, &size) ==
            IRS_OK);
    REQUIRE(size == frame.size && memcmp(target, frame.data, size) == 0);
    free(target);
    for (size_t capacity = 0; capacity < frame.size;
         capacity += 1 + frame.size / 37) { /* a buffer that is too small */
        target = exact(capacity);
        REQUIRE(irs_encode(schema, NULL, tensors, scratch, scratch_size, target, capacity, &size) ==
                IRS_ERR_BUFFER);
        free(target);
    }

    free(block);
}

static void check_damage(const irs_schema *schema, bytes frame) {
    irs_tensor tensors[IRS_MAX_TENSORS];
    for (size_t size = 0; size < frame.size; size += 1 + frame.size / 500) {
        REQUIRE(try_decode(schema, frame.data, size, tensors) == IRS_ERR_TRUNCATED);
    }

    uint8_t *copy = exact(frame.size);
    memcpy(copy, frame.data, frame.size);
    for (size_t bit = 0;
         bit<8 * frame.size; bit += frame.size> 150 ? 8 * frame.size / 1200 | 1 : 1) {
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        REQUIRE(try_decode(schema, copy, frame.size, tensors) != IRS_OK);
        if (bit / 8 >=
            IRS_HEADER_SIZE) { /* as an attacker would: any result, but no memory error */
            fix_checksums(copy, frame.size);
            if (try_decode(schema, copy, frame.size, tensors) == IRS_OK) {
                free_tensors(schema, tensors);
            }

            memcpy(copy, frame.data, frame.size);
        } else {
            copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }

    free(copy);
}

static irs_schema *open_exact(bytes descriptor, void **block, irs_status *status) {
    size_t size = 0;
    irs_schema *schema = NULL;
    *block = NULL;
    *status = irs_schema_size(descriptor.data, descriptor.size, &size);
    if (*status == IRS_OK) {
        void *memory = aligned(size, block);
        *status = irs_schema_open(&schema, memory, size, descriptor.data, descriptor.size);
    }
    return schema;
}

/* Descriptors with changed bytes are refused, or opened within the memory that was asked for. */
static void check_hostile_descriptor(bytes descriptor) {
    bytes copy = {exact(descriptor.size), descriptor.size};
    memcpy(copy.data, descriptor.data, copy.size);
    for (size_t i = 0; i < copy.size - 4; i += 1 + copy.size / 700) {
        static const uint8_t patches[] = {0x01, 0x80, 0xFF, 0x7E};
        for (size_t j = 0; j < sizeof patches; j++) {
            copy.data[i] = (uint8_t)(descriptor.data[i] ^ patches[j]);
            store_u32(copy.data + copy.size - 4, irs_crc32c(0, copy.data, copy.size - 4));
            void *block;
            irs_status status;
            open_exact(copy, &block, &status);
            free(block);
        }

        copy.data[i] = descriptor.data[i];
    }

    free(copy.data);
}

static uint32_t check_vector(FILE *file, int brief, uint32_t digest) {
    bytes descriptor = read_bytes(file);
    void *block;
    irs_status status;
    irs_schema *schema = open_exact(descriptor, &block, &status);
    REQUIRE(status == IRS_OK);
    irs_tensor tensors[IRS_MAX_TENSORS], decoded[IRS_MAX_TENSORS];
    uint32_t count = read_u32(file);
    REQUIRE(count == irs_tensor_count(schema));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t rank = read_u32(file);
        REQUIRE(rank == irs_tensor_rank(schema, i));
        for (uint32_t axis = 0; axis < rank; axis++) {
            tensors[i].dims[axis] = read_u32(file);
        }

        bytes data = read_bytes(file);
        tensors[i].data = data.data;
        tensors[i].size = data.size;
    }

    bytes frame = read_bytes(file);
    check_encode(schema, tensors, frame);
    REQUIRE(try_decode(schema, frame.data, frame.size, decoded) == IRS_OK);
    bytes expected = read_bytes(file); /* decoded tensors: quantized ones differ from the input */
    size_t offset = 0;
    for (uint32_t i = 0; i < count; i++) {
        REQUIRE(memcmp(decoded[i].data, expected.data + offset, (size_t)decoded[i].size) == 0);
        offset += (size_t)decoded[i].size;
    }

    REQUIRE(offset == expected.size);
    free_tensors(schema, decoded);
    free_tensors(schema, tensors);
    if (!brief) {
        check_damage(schema, frame);
        check_hostile_descriptor(descriptor);
    }

    digest = irs_crc32c(digest, frame.data, frame.size);
    free(expected.data);
    free(frame.data);
    free(block);
    free(descriptor.data);
    return digest;
}

int main(int argc, char **argv) {
    FILE *file = argc >= 2 ? fopen(argv[1], "rb") : NULL;
    int brief = argc == 3; /* without damage, which is for sanitizers */
    if (file == NULL) {
        fprintf(stderr, "usage: check_vectors FILE [brief]\n");
        return 2;
    }

    uint32_t count = read_u32(file), digest = 0;
    for (vector = 0; vector < count; vector++) {
        digest = check_vector(file, brief, digest);
    }

    fclose(file);
    printf("%u vectors, digest %08x\n", (unsigned)count, (unsigned)digest);
    return 0;
}
