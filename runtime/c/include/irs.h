/* irsplit runtime: tensors of a boundary to a frame and back.
 *
 * C99, no heap, no globals, no IO. The caller owns every byte and learns every size before it is needed:
 *
 *     irs_boundary_size   how much memory the opened descriptor takes
 *     irs_boundary_open   checks a descriptor once, fills that memory; the result is read-only and thread-safe
 *     irs_frame_bound     largest frame for given dims            irs_workspace_size   scratch for one call
 *     irs_encode          tensors -> frame
 *     irs_frame_size      first 24 bytes of a stream -> size of the whole frame
 *     irs_frame_dims      frame -> dims and byte sizes of its tensors, so that the caller can provide them
 *     irs_decode          frame -> tensors
 *
 * Boundary memory and workspace are 16-byte aligned; all other buffers may lie at any address. Buffers of a call do not overlap.
 *
 * Descriptor and frame may be hostile: every function here reads within the sizes it was given, whatever the bytes say,
 * and answers with a status. On failure the contents of output buffers are unspecified. FORMAT.md has the bytes.
 */
#ifndef IRS_H
#define IRS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IRS_FORMAT_VERSION 1
#define IRS_HEADER_SIZE 24 /* enough bytes of a stream for irs_frame_size */
#define IRS_DIGEST_SIZE 16
#define IRS_MAX_RANK 8
#define IRS_MAX_TENSORS 256

/* Status codes are never renumbered; new ones are appended. */
typedef enum irs_status {
    IRS_OK = 0,
    IRS_ERR_ARGUMENT = -1,   /* a null pointer, a misaligned buffer, a wrong count: the caller's mistake */
    IRS_ERR_TRUNCATED = -2,  /* the bytes end too early */
    IRS_ERR_MAGIC = -3,      /* not a frame, or not a descriptor */
    IRS_ERR_VERSION = -4,    /* made by a later format version, or with flags this version does not know */
    IRS_ERR_DESCRIPTOR = -5, /* the descriptor contradicts itself */
    IRS_ERR_BOUNDARY = -6,   /* the frame belongs to another boundary or another bundle */
    IRS_ERR_CHECKSUM = -7,   /* bytes changed on the way */
    IRS_ERR_SHAPE = -8,      /* dims differ from the descriptor's, or tensor bytes from the dims */
    IRS_ERR_SIZE = -9,       /* a size does not fit the address space or contradicts another one */
    IRS_ERR_BUFFER = -10,    /* the caller's buffer is too small */
    IRS_ERR_CODEC = -11,     /* the descriptor names a codec that is not built in and no hook provides */
    IRS_ERR_CORRUPT = -12,   /* checksum right, contents impossible */
    IRS_ERR_VALUE = -13      /* a tensor holds a value that its element type does not have (bool 2) */
} irs_status;

/* Codec ids of descriptors; never renumbered. Ids from IRS_CODEC_FOREIGN on are other people's, through hooks only. */
enum { IRS_CODEC_RAW = 0, IRS_CODEC_ZSTANDARD = 1, IRS_CODEC_STATIC_RANS = 2, IRS_CODEC_FOREIGN = 128 };

/* An opened boundary; lives in the caller's memory and points into the caller's descriptor, which must stay. */
typedef struct irs_boundary irs_boundary;

/* One tensor of a boundary, row-major and little-endian. The rank is the descriptor's. */
typedef struct irs_tensor {
    void *data;                  /* read by irs_encode, written by irs_decode */
    uint64_t size;               /* bytes at data */
    uint32_t dims[IRS_MAX_RANK]; /* all of them, symbolic or not; beyond the rank: ignored */
} irs_tensor;

/* Codecs that are not ours come from the caller; a null function pointer means "not available".
 * `tensor` is the index within the boundary; `parameters` the codec's bytes in the descriptor.
 * compress: returns IRS_OK and sets *size <= capacity, or IRS_ERR_BUFFER when the result would not fit (the core then
 * stores the bytes as they are). decompress: fills exactly `size` bytes, anything else is IRS_ERR_CORRUPT. */
typedef struct irs_hooks {
    void *context;
    irs_status (*compress)(void *context, uint32_t tensor, uint8_t codec, const void *parameters, size_t parameters_size,
                           const void *source, size_t source_size, void *target, size_t capacity, size_t *size);
    irs_status (*decompress)(void *context, uint32_t tensor, uint8_t codec, const void *parameters,
                             size_t parameters_size, const void *source, size_t source_size, void *target, size_t size);
} irs_hooks;

/* Bytes of memory that irs_boundary_open needs for this descriptor; refuses what irs_boundary_open refuses. */
irs_status irs_boundary_size(const void *descriptor, size_t size, size_t *memory_size);

/* Checks the whole descriptor and builds everything that frames need. `memory` must be 16-byte aligned. */
irs_status irs_boundary_open(irs_boundary **boundary, void *memory, size_t memory_size, const void *descriptor,
                             size_t size);

uint32_t irs_tensor_count(const irs_boundary *boundary);
uint32_t irs_tensor_rank(const irs_boundary *boundary, uint32_t tensor);

/* Element type as FORMAT.md numbers it, bytes of an element, codec id; 0 for a tensor that the boundary does not have. */
uint8_t irs_tensor_type(const irs_boundary *boundary, uint32_t tensor);
uint8_t irs_tensor_element_size(const irs_boundary *boundary, uint32_t tensor);
uint8_t irs_tensor_codec(const irs_boundary *boundary, uint32_t tensor);

/* Largest frame and largest scratch for tensors of these dims; `data` and `size` of the tensors are not looked at.
 * The scratch serves irs_encode and irs_decode alike and must be 16-byte aligned; zero is possible. */
irs_status irs_frame_bound(const irs_boundary *boundary, const irs_tensor *tensors, size_t *size);
irs_status irs_workspace_size(const irs_boundary *boundary, const irs_tensor *tensors, size_t *size);

/* Writes one frame. `tensors` holds irs_tensor_count() entries in descriptor order. `hooks` may be null. With a
 * `capacity` below irs_frame_bound it may answer IRS_ERR_BUFFER even where the frame would have fit. */
irs_status irs_encode(const irs_boundary *boundary, const irs_hooks *hooks, const irs_tensor *tensors, void *workspace,
                      size_t workspace_size, void *frame, size_t capacity, size_t *frame_size);

/* Size of the whole frame from its first IRS_HEADER_SIZE bytes; the header has a check of its own. */
irs_status irs_frame_size(const void *bytes, size_t size, uint64_t *frame_size);

/* Checks the frame's checksum and owner and sets `dims` and `size` of every tensor; `data` is left alone. */
irs_status irs_frame_dims(const irs_boundary *boundary, const void *frame, size_t frame_size, irs_tensor *tensors);

/* Checks all that irs_frame_dims does, and reads the frame into the tensors' buffers; dims and sizes must be those that it gave. */
irs_status irs_decode(const irs_boundary *boundary, const irs_hooks *hooks, const void *frame, size_t frame_size,
                      const irs_tensor *tensors, void *workspace, size_t workspace_size);

/* A short English text; never null. */
const char *irs_status_string(irs_status status);

/* CRC-32C (Castagnoli) of `size` bytes; `crc` is 0 or the result for the bytes before these. */
uint32_t irs_crc32c(uint32_t crc, const void *bytes, size_t size);

#ifdef __cplusplus
}
#endif
#endif
