/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target (libFuzzer): a descriptor and a frame, both hostile. Checksums, sizes and the frame's
 * digest are made right first, so that mutations reach the code behind them.
 *
 * Input: size of the descriptor (u16), descriptor, frame.
 */
#define _POSIX_C_SOURCE 200112L

#include "irs.h"

#include <stdlib.h>
#include <string.h>

#define MEMORY_LIMIT (4u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void store(uint8_t *p, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) {
        p[i] = (uint8_t)(value >> 8 * i);
    }
}

static void seal_descriptor(uint8_t *p, size_t size) {
    if (size >= 76) {
        store(p + 8, size, 4);
        store(p + size - 4, irs_crc32c(0, p, size - 4), 4);
    }
}

static void seal_frame(uint8_t *p, size_t size, const uint8_t *descriptor) {
    if (size >= IRS_HEADER_SIZE + 4) {
        memcpy(p + 8, descriptor + 16, 8);
        store(p + 16, size, 8);
        store(p + 6, 0, 2);
        uint32_t crc = irs_crc32c(0, p, IRS_HEADER_SIZE);
        store(p + 6, (crc ^ crc >> 16) & 0xFFFF, 2);
        store(p + size - 4, irs_crc32c(0, p, size - 4), 4);
    }
}

static void *block(size_t size) {
    void *memory = NULL;
    if (posix_memalign(&memory, 16, size == 0 ? 1 : size) != 0) {
        abort();
    }
    return memory;
}

static void decode(const irs_schema *schema, const uint8_t *frame, size_t size) {
    irs_tensor tensors[IRS_MAX_TENSORS];
    size_t scratch_size, total = 0;
    if (irs_frame_dims(schema, frame, size, tensors) != IRS_OK ||
        irs_workspace_size(schema, tensors, &scratch_size) != IRS_OK ||
        scratch_size > MEMORY_LIMIT) {
        return;
    }

    uint32_t count = irs_tensor_count(schema);
    for (uint32_t i = 0; i < count; i++) {
        if (tensors[i].size > MEMORY_LIMIT - total) {
            return;
        }

        total += (size_t)tensors[i].size;
    }

    for (uint32_t i = 0; i < count; i++) {
        tensors[i].data = block((size_t)tensors[i].size);
    }

    void *scratch = block(scratch_size);
    if (irs_decode(schema, NULL, frame, size, tensors, scratch, scratch_size) == IRS_OK) {
        size_t bound, again;
        if (irs_frame_bound(schema, tensors, &bound) != IRS_OK) {
            abort();
        }

        uint8_t *target = block(bound); /* what was decoded can be encoded */
        irs_status status =
            irs_encode(schema, NULL, tensors, scratch, scratch_size, target, bound, &again);
        if (status != IRS_ERR_CODEC &&
            (status != IRS_OK || again > bound)) { /* stored chunks need no hook to decode */
            abort();
        }

        free(target);
    }

    free(scratch);
    for (uint32_t i = 0; i < count; i++) {
        free(tensors[i].data);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t split = size < 2 ? 0 : (size_t)(data[0] | data[1] << 8);
    if (size < 2 || split < 76 || split > size - 2) {
        return 0;
    }

    uint8_t *descriptor = block(split), *frame = block(size - 2 - split);
    memcpy(descriptor, data + 2, split);
    memcpy(frame, data + 2 + split, size - 2 - split);
    seal_descriptor(descriptor, split);
    seal_frame(frame, size - 2 - split, descriptor);
    size_t needed;
    if (irs_schema_size(descriptor, split, &needed) == IRS_OK && needed <= MEMORY_LIMIT) {
        void *memory = block(needed);
        irs_schema *schema;
        if (irs_schema_open(&schema, memory, needed, descriptor, split) != IRS_OK) {
            abort(); /* irs_schema_size refuses what irs_schema_open refuses */
        }

        decode(schema, frame, size - 2 - split);
        free(memory);
    }

    free(frame);
    free(descriptor);
    return 0;
}
