/* SPDX-License-Identifier: Apache-2.0
 *
 * irs.h: frames of irsplit in C
 *
 * A network that is cut in two sends the tensors at its cut from a device to a server. One such
 * message is a *frame*. A *descriptor*, made when the network is compiled, says which tensors a
 * frame holds and how each of them is coded; opened, it is a *schema*. This library turns tensors
 * into a frame and a frame into tensors. The bytes of both are in FORMAT.md.
 *
 * The library is C99 and has no dependency beyond memcpy, memmove, memset and memcmp. It allocates
 * nothing, keeps no state between calls and does no input or output. The caller provides every
 * buffer, and can ask for every size first:
 *
 *     irs_schema_size      bytes that an opened descriptor takes
 *     irs_schema_open      checks a descriptor and opens it
 *     irs_frame_bound      bytes of the largest frame
 *     irs_workspace_size   bytes of scratch memory that one call needs
 *     irs_encode           tensors to a frame
 *     irs_frame_size       bytes of a frame, from its first IRS_HEADER_SIZE bytes
 *     irs_frame_dims       dims and sizes of a frame's tensors
 *     irs_decode           a frame to tensors
 *
 * Example
 * -------
 * `irsplit header BUNDLE --dim 1 -o boundary.h` writes the descriptor and all sizes as constants:
 *
 *     #include "boundary.h"
 *     #include "irs.h"
 *
 *     #define ALIGNED __attribute__((aligned(IRS_ALIGNMENT)))
 *     static unsigned char memory[IRS_BOUNDARY0_MEMORY_SIZE] ALIGNED;
 *     static unsigned char workspace[IRS_BOUNDARY0_WORKSPACE_SIZE + 1] ALIGNED;
 *     static unsigned char frame[IRS_BOUNDARY0_FRAME_BOUND];
 *
 *     irs_status send_tensor(void *data, void (*send)(const void *bytes, size_t size)) {
 *         irs_schema *schema;
 *         irs_status status =
 *             irs_schema_open(&schema, memory, sizeof memory, irs_boundary0_descriptor,
 *                             sizeof irs_boundary0_descriptor);
 *         irs_tensor tensor = {data, IRS_BOUNDARY0_TENSOR0_SIZE, IRS_BOUNDARY0_TENSOR0_DIMS};
 *         size_t size = 0;
 *         if (status == IRS_OK) {
 *             status = irs_encode(schema, NULL, &tensor, workspace, sizeof workspace,
 *                                 frame, sizeof frame, &size);
 *         }
 *         if (status == IRS_OK) {
 *             send(frame, size);
 *         }
 *         return status;
 *     }
 *
 * Rules that hold for every function
 * ----------------------------------
 * Failure. Functions that return irs_status return IRS_OK or say why they failed. After a failure,
 * the contents of all output buffers and output parameters are unspecified; inputs are unchanged,
 * and the same buffers can be used for the next call.
 *
 * Hostile input. Descriptors and frames may come from an attacker. Whatever their bytes are, a
 * function reads and writes only within the sizes it was given, takes time proportional to the
 * sizes of its inputs and outputs, and refuses what FORMAT.md says must be refused. Sizes and
 * pointers are the caller's own and are trusted; null pointers are refused where one is needed.
 *
 * Buffers. The memory of a schema and the workspace start at a multiple of IRS_ALIGNMENT; every
 * other buffer may start anywhere. No two buffers of one call overlap.
 *
 * Threads. A schema is only read once it is open, so that threads may share it. Each call has a
 * workspace of its own.
 *
 * Build switches
 * --------------
 * Define these for every file of the library alike. A descriptor that needs what was left out is
 * refused by irs_schema_open, not later.
 *
 *     IRS_ENCODE_ONLY      leaves out the decoder of static-rans: a device that only sends
 *     IRS_BYTES_ONLY       leaves out static-rans for floats and for integers wider than 8 bits
 *     IRS_NO_QUANTIZATION  leaves out quantization, for networks that are quantized themselves
 *     IRS_NO_REFERENCES    leaves out level 2 of static-rans
 *     IRS_PORTABLE         leaves out the vector code of static-rans (SSE4.1, AVX2, NEON)
 *     IRS_NO_AVX2          leaves out the vector code for AVX2 only
 *     IRS_SHARED           exports the functions below from a shared library (on Windows: imports
 *                          them, unless IRS_BUILDING is defined too)
 *     IRS_API              what stands before each function below, in place of the above; with
 *                          -DIRS_API=static, a program can include irs.c in one of its own files
 *
 * With IRS_ENCODE_ONLY, irs_decode answers IRS_ERR_CODEC for tensors that are coded by static-rans.
 */
#ifndef IRS_H
#define IRS_H

#include <stddef.h>
#include <stdint.h>

#ifndef IRS_API
#if defined(IRS_SHARED) && defined(_WIN32) && defined(IRS_BUILDING)
#define IRS_API __declspec(dllexport)
#elif defined(IRS_SHARED) && defined(_WIN32)
#define IRS_API __declspec(dllimport)
#elif defined(IRS_SHARED) && defined(__GNUC__)
#define IRS_API __attribute__((visibility("default")))
#else
#define IRS_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this header, and as one number that grows with every release. */
#define IRS_VERSION_MAJOR 0
#define IRS_VERSION_MINOR 2
#define IRS_VERSION_PATCH 0
#define IRS_VERSION (IRS_VERSION_MAJOR * 10000 + IRS_VERSION_MINOR * 100 + IRS_VERSION_PATCH)

#define IRS_FORMAT_VERSION 1 /* latest version of frames and descriptors that is understood */
#define IRS_HEADER_SIZE 24   /* bytes of a frame that irs_frame_size needs */
#define IRS_DIGEST_SIZE 16
#define IRS_ALIGNMENT 16 /* of the memory of a schema and of a workspace */
#define IRS_MAX_RANK 8
#define IRS_MAX_TENSORS 256

/* What a function says about its work. Codes are never renumbered; new ones are appended. */
typedef enum irs_status {
    IRS_OK = 0,
    IRS_ERR_ARGUMENT = -1,   /* a null pointer or a misaligned buffer: a mistake of the caller */
    IRS_ERR_TRUNCATED = -2,  /* the bytes end too early */
    IRS_ERR_MAGIC = -3,      /* neither a frame nor a descriptor */
    IRS_ERR_VERSION = -4,    /* made by a later format version, or with unknown flags */
    IRS_ERR_DESCRIPTOR = -5, /* the descriptor contradicts itself */
    IRS_ERR_BOUNDARY = -6,   /* the frame belongs to another descriptor */
    IRS_ERR_CHECKSUM = -7,   /* bytes changed on the way */
    IRS_ERR_SHAPE = -8,      /* dims differ from the descriptor's, or sizes from the dims */
    IRS_ERR_SIZE = -9,       /* a size does not fit the address space or contradicts another */
    IRS_ERR_BUFFER = -10,    /* a buffer of the caller is too small */
    IRS_ERR_CODEC = -11,     /* a codec that is neither built in nor provided by a hook */
    IRS_ERR_CORRUPT = -12,   /* the checksum is right, but the contents are impossible */
    IRS_ERR_VALUE = -13      /* an element has no valid value, such as 2 in a bool tensor */
} irs_status;

/* Element types, with the numbers that descriptors use; never renumbered. Elements lie in memory
 * as they do in C: little-endian, bfloat16 as the upper half of a float, bools as bytes 0 and 1. */
typedef enum irs_type {
    IRS_TYPE_NONE = 0, /* no type: what irs_tensor_type returns for an absent tensor */
    IRS_TYPE_F32 = 1,
    IRS_TYPE_F16 = 2,
    IRS_TYPE_F64 = 3,
    IRS_TYPE_BF16 = 4,
    IRS_TYPE_I8 = 5,
    IRS_TYPE_I16 = 6,
    IRS_TYPE_I32 = 7,
    IRS_TYPE_I64 = 8,
    IRS_TYPE_U8 = 9,
    IRS_TYPE_U16 = 10,
    IRS_TYPE_U32 = 11,
    IRS_TYPE_U64 = 12,
    IRS_TYPE_BOOL = 13,
    IRS_TYPE_C64 = 14,  /* two F32: real and imaginary part */
    IRS_TYPE_C128 = 15, /* two F64 */
    IRS_TYPE_F8E4M3FN = 20,
    IRS_TYPE_F8E4M3FNUZ = 21,
    IRS_TYPE_F8E5M2 = 22,
    IRS_TYPE_F8E5M2FNUZ = 23,
    IRS_TYPE_F8E8M0 = 24
} irs_type;

/* Codecs, with the numbers that descriptors use; never renumbered. Codecs from IRS_CODEC_FOREIGN
 * on belong to other people. Hooks provide them, and zstandard too. */
enum {
    IRS_CODEC_RAW = 0,
    IRS_CODEC_ZSTANDARD = 1,
    IRS_CODEC_STATIC_RANS = 2,
    IRS_CODEC_FOREIGN = 128
};

/* An opened descriptor. It lives in memory of the caller and points into the descriptor, so that
 * both must stay in place for as long as the schema is used. There is nothing to close. */
typedef struct irs_schema irs_schema;

/* One tensor: row-major, without gaps. */
typedef struct irs_tensor {
    void *data;                  /* irs_encode reads it, irs_decode writes it */
    uint64_t size;               /* bytes at `data` */
    uint32_t dims[IRS_MAX_RANK]; /* as many as irs_tensor_rank says; the rest is ignored */
} irs_tensor;

/* Codecs that the caller provides. A null function pointer means "not available".
 *
 * Both functions get `context` as it is, the index of the tensor in the schema, the codec's number
 * and the codec's parameters in the descriptor.
 *
 * compress    Writes at most `capacity` bytes to `target`, sets `*size` to their number and
 *             returns IRS_OK. Returns IRS_ERR_BUFFER if the result does not fit, in which case the
 *             frame carries the bytes as they are. Any other status ends irs_encode with it.
 * decompress  Writes exactly `size` bytes to `target` and returns IRS_OK, or returns
 *             IRS_ERR_CORRUPT. `source` may be hostile.
 */
typedef struct irs_hooks {
    void *context;
    irs_status (*compress)(void *context, uint32_t tensor, uint8_t codec, const void *parameters,
                           size_t parameters_size, const void *source, size_t source_size,
                           void *target, size_t capacity, size_t *size);
    irs_status (*decompress)(void *context, uint32_t tensor, uint8_t codec, const void *parameters,
                             size_t parameters_size, const void *source, size_t source_size,
                             void *target, size_t size);
} irs_hooks;

/* ---- opening a descriptor -------------------------------------------------------------------- */

/* Tells how many bytes of memory irs_schema_open needs.
 *
 * descriptor   `size` bytes, which may be hostile; they are checked completely
 * memory_size  receives the number of bytes
 *
 * Returns IRS_OK exactly if irs_schema_open will accept the descriptor, else what is wrong with it:
 * IRS_ERR_TRUNCATED, IRS_ERR_MAGIC, IRS_ERR_VERSION, IRS_ERR_SIZE, IRS_ERR_CHECKSUM,
 * IRS_ERR_DESCRIPTOR, or IRS_ERR_CODEC for what this build leaves out.
 */
IRS_API irs_status irs_schema_size(const void *descriptor, size_t size, size_t *memory_size);

/* Checks a descriptor and builds everything that encoding and decoding need, such as the tables of
 * static-rans.
 *
 * schema      receives the schema, which lies in `memory`
 * memory      `memory_size` bytes, aligned to IRS_ALIGNMENT
 * descriptor  `size` bytes, which may be hostile; they must stay in place, flash is fine
 *
 * Returns what irs_schema_size returns; also IRS_ERR_ARGUMENT for misaligned memory, and
 * IRS_ERR_BUFFER if `memory_size` is below what irs_schema_size says.
 */
IRS_API irs_status irs_schema_open(irs_schema **schema, void *memory, size_t memory_size,
                                   const void *descriptor, size_t size);

/* Number of tensors in a frame: 1 to IRS_MAX_TENSORS, 0 if `schema` is null. */
IRS_API uint32_t irs_tensor_count(const irs_schema *schema);

/* Rank, element type, bytes of an element, and codec of a tensor. All return 0 if `schema` is null
 * or has no such tensor. */
IRS_API uint32_t irs_tensor_rank(const irs_schema *schema, uint32_t tensor);
IRS_API irs_type irs_tensor_type(const irs_schema *schema, uint32_t tensor);
IRS_API uint8_t irs_tensor_element_size(const irs_schema *schema, uint32_t tensor);
IRS_API uint8_t irs_tensor_codec(const irs_schema *schema, uint32_t tensor);

/* ---- sizes for tensors of given dims --------------------------------------------------------- */

/* Tell the size of the largest frame, and the size of the workspace that irs_encode and irs_decode
 * need. The workspace may be 0 bytes.
 *
 * tensors  irs_tensor_count() entries in the order of the descriptor; only their dims are read
 * size     receives the number of bytes
 *
 * Return IRS_ERR_SHAPE if a dim differs from a static dim of the descriptor, IRS_ERR_SIZE if the
 * result does not fit a size_t.
 */
IRS_API irs_status irs_frame_bound(const irs_schema *schema, const irs_tensor *tensors,
                                   size_t *size);
IRS_API irs_status irs_workspace_size(const irs_schema *schema, const irs_tensor *tensors,
                                      size_t *size);

/* ---- encoding -------------------------------------------------------------------------------- */

/* Writes one frame.
 *
 * hooks       codecs of the caller; null if there are none
 * tensors     irs_tensor_count() entries in the order of the descriptor, with data, size and dims
 * workspace   `workspace_size` bytes, aligned to IRS_ALIGNMENT; null if the size may be 0
 * frame       receives the frame, at most `capacity` bytes
 * frame_size  receives the number of bytes written
 *
 * The same tensors give the same bytes on every machine and in every build. With a `capacity` of
 * irs_frame_bound, the frame always fits. With less, the result may be IRS_ERR_BUFFER even if the
 * finished frame would fit, because space is reserved before elements are coded.
 *
 * Returns IRS_ERR_SHAPE if dims or sizes are not what the descriptor says, IRS_ERR_VALUE for a bool
 * that is neither 0 nor 1, IRS_ERR_CODEC if a codec is missing, IRS_ERR_BUFFER if the frame or the
 * workspace is too small, or the status of a hook.
 */
IRS_API irs_status irs_encode(const irs_schema *schema, const irs_hooks *hooks,
                              const irs_tensor *tensors, void *workspace, size_t workspace_size,
                              void *frame, size_t capacity, size_t *frame_size);

/* ---- decoding -------------------------------------------------------------------------------- */

/* Tells the size of a frame from its beginning. A receiver reads IRS_HEADER_SIZE bytes of a stream,
 * calls this, compares the size with a limit of its own, and reads the rest.
 *
 * bytes       `size` bytes, of which the first IRS_HEADER_SIZE are read; may be hostile
 * frame_size  receives the size of the whole frame, header included
 *
 * The header has a checksum of its own, so that a damaged size is noticed here. Returns
 * IRS_ERR_TRUNCATED, IRS_ERR_MAGIC, IRS_ERR_CHECKSUM, IRS_ERR_VERSION or IRS_ERR_SIZE.
 */
IRS_API irs_status irs_frame_size(const void *bytes, size_t size, uint64_t *frame_size);

/* Checks the checksum of a frame and whose it is, and tells what buffers its tensors need.
 *
 * frame    exactly the `frame_size` bytes of a frame; may be hostile
 * tensors  irs_tensor_count() entries, whose dims and sizes are set; `data` is left alone
 *
 * Compare the sizes with a limit before you allocate: a frame of a few bytes may claim large
 * tensors. Returns what irs_frame_size returns; also IRS_ERR_BOUNDARY for a frame of another
 * descriptor, IRS_ERR_CHECKSUM, IRS_ERR_CORRUPT and IRS_ERR_SIZE.
 */
IRS_API irs_status irs_frame_dims(const irs_schema *schema, const void *frame, size_t frame_size,
                                  irs_tensor *tensors);

/* Reads a frame into the buffers of its tensors.
 *
 * hooks      codecs of the caller; null if there are none
 * frame      exactly the `frame_size` bytes of a frame; may be hostile
 * tensors    dims and sizes as irs_frame_dims set them, and `data` with room for `size` bytes
 * workspace  as for irs_encode
 *
 * All that irs_frame_dims checks is checked again. On failure, the tensors may be partly written.
 *
 * Returns what irs_frame_dims returns; also IRS_ERR_SHAPE if dims or sizes are not the frame's,
 * IRS_ERR_BUFFER if the workspace is too small, IRS_ERR_CODEC if a codec is missing, and
 * IRS_ERR_CORRUPT if the frame's contents are impossible although the checksum is right.
 */
IRS_API irs_status irs_decode(const irs_schema *schema, const irs_hooks *hooks, const void *frame,
                              size_t frame_size, const irs_tensor *tensors, void *workspace,
                              size_t workspace_size);

/* ---- the rest -------------------------------------------------------------------------------- */

/* The IRS_VERSION of the library that is linked, which may be later than that of this header. */
IRS_API uint32_t irs_version(void);

/* A short English text for a status; never null, and nothing to free. */
IRS_API const char *irs_status_string(irs_status status);

/* CRC-32C (Castagnoli) of `size` bytes. `crc` is 0, or the result for the bytes before these, so
 * that a message can be checked piece by piece. */
IRS_API uint32_t irs_crc32c(uint32_t crc, const void *bytes, size_t size);

#ifdef __cplusplus
}
#endif
#endif
