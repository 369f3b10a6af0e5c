/* A boundary's tensor to a frame and back, in buffers whose sizes boundary.h knows: no heap.
 *
 *     frame encode < tensor > frame          frame decode < frame > tensor
 *
 * For a boundary of one tensor whose codec is in the core (raw, static-rans). A device calls irs_encode where main does,
 * and hands the bytes to its radio.
 */
#include "boundary.h"
#include "irs.h"

#include <stdio.h>
#include <string.h>

/* irs.h asks for 16-byte alignment of memory and workspace. */
#define ALIGNED __attribute__((aligned(16)))

static unsigned char memory[IRS_BOUNDARY0_MEMORY_SIZE] ALIGNED;
static unsigned char workspace[IRS_BOUNDARY0_WORKSPACE_SIZE + 1] ALIGNED; /* the size may be 0 */
static unsigned char pixels[IRS_BOUNDARY0_TENSOR0_SIZE] ALIGNED;
static unsigned char frame[IRS_BOUNDARY0_FRAME_BOUND];

static irs_status encode(const irs_boundary *boundary) {
    irs_tensor tensor = {pixels, sizeof pixels, IRS_BOUNDARY0_TENSOR0_DIMS};
    if (fread(pixels, 1, sizeof pixels, stdin) != sizeof pixels) return IRS_ERR_TRUNCATED;
    size_t size;
    irs_status status = irs_encode(boundary, NULL, &tensor, workspace, sizeof workspace, frame, sizeof frame, &size);
    if (status != IRS_OK) return status;
    return fwrite(frame, 1, size, stdout) == size ? IRS_OK : IRS_ERR_BUFFER;
}

static irs_status decode(const irs_boundary *boundary) {
    irs_tensor tensor = {pixels, sizeof pixels, {0}};
    size_t size = fread(frame, 1, sizeof frame, stdin);
    irs_status status = irs_frame_dims(boundary, frame, size, &tensor); /* refuses damaged and foreign frames */
    if (status != IRS_OK) return status;
    status = irs_decode(boundary, NULL, frame, size, &tensor, workspace, sizeof workspace);
    if (status != IRS_OK) return status;
    return fwrite(pixels, 1, sizeof pixels, stdout) == sizeof pixels ? IRS_OK : IRS_ERR_BUFFER;
}

int main(int count, char **words) {
    const char *task = count == 2 ? words[1] : "";
    if (strcmp(task, "encode") != 0 && strcmp(task, "decode") != 0) {
        fprintf(stderr, "usage: frame encode < tensor > frame, or frame decode < frame > tensor\n");
        return 2;
    }
    irs_boundary *boundary;
    irs_status status = irs_boundary_open(&boundary, memory, sizeof memory, irs_boundary0_descriptor,
                                          sizeof irs_boundary0_descriptor);
    if (status == IRS_OK) status = task[0] == 'd' ? decode(boundary) : encode(boundary);
    if (status != IRS_OK) fprintf(stderr, "%s\n", irs_status_string(status));
    return status == IRS_OK ? 0 : 1;
}
