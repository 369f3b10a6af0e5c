/* SPDX-License-Identifier: Apache-2.0
 *
 * Encodes a tensor to a frame and decodes it again, without a heap: boundary.h has the size of
 * every buffer.
 *
 *     frame encode < tensor > frame
 *     frame decode < frame > tensor
 *
 * It works for boundaries of one tensor whose codec is built in (raw, static-rans). A device calls
 * irs_encode in the same way and gives the bytes to its radio.
 */
#include "boundary.h"
#include "irs.h"

#include <stdio.h>
#include <string.h>

/* irs.h asks for this alignment of memory and workspace. */
#define ALIGNED __attribute__((aligned(IRS_ALIGNMENT)))

static unsigned char memory[IRS_BOUNDARY0_MEMORY_SIZE] ALIGNED;
static unsigned char workspace[IRS_BOUNDARY0_WORKSPACE_SIZE + 1] ALIGNED; /* the size may be 0 */
static unsigned char pixels[IRS_BOUNDARY0_TENSOR0_SIZE] ALIGNED;
static unsigned char frame[IRS_BOUNDARY0_FRAME_BOUND];

static irs_status encode(const irs_schema *schema) {
    irs_tensor tensor = {pixels, sizeof pixels, IRS_BOUNDARY0_TENSOR0_DIMS};
    if (fread(pixels, 1, sizeof pixels, stdin) != sizeof pixels) {
        return IRS_ERR_TRUNCATED;
    }

    size_t size;
    irs_status status =
        irs_encode(schema, NULL, &tensor, workspace, sizeof workspace, frame, sizeof frame, &size);
    if (status != IRS_OK) {
        return status;
    }
    return fwrite(frame, 1, size, stdout) == size ? IRS_OK : IRS_ERR_BUFFER;
}

static irs_status decode(const irs_schema *schema) {
    irs_tensor tensor = {pixels, sizeof pixels, {0}};
    size_t size = fread(frame, 1, sizeof frame, stdin);

    /* refuses damaged frames and those of other boundaries */
    irs_status status = irs_frame_dims(schema, frame, size, &tensor);
    if (status != IRS_OK) {
        return status;
    }

    status = irs_decode(schema, NULL, frame, size, &tensor, workspace, sizeof workspace);
    if (status != IRS_OK) {
        return status;
    }
    return fwrite(pixels, 1, sizeof pixels, stdout) == sizeof pixels ? IRS_OK : IRS_ERR_BUFFER;
}

int main(int count, char **words) {
    const char *task = count == 2 ? words[1] : "";
    if (strcmp(task, "encode") != 0 && strcmp(task, "decode") != 0) {
        fprintf(stderr, "usage: frame encode < tensor > frame, or frame decode < frame > tensor\n");
        return 2;
    }

    irs_schema *schema;
    irs_status status = irs_schema_open(&schema, memory, sizeof memory, irs_boundary0_descriptor,
                                        sizeof irs_boundary0_descriptor);
    if (status == IRS_OK) {
        status = task[0] == 'd' ? decode(schema) : encode(schema);
    }
    if (status != IRS_OK) {
        fprintf(stderr, "%s\n", irs_status_string(status));
    }
    return status == IRS_OK ? 0 : 1;
}
