/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes and sizes: little-endian loads and stores at any address, a bounded reader, and arithmetic
 * on sizes that cannot overflow.
 */
#ifndef IRS_BYTES_H
#define IRS_BYTES_H

#include "irs.h"

#if !defined(__STDC_HOSTED__) || __STDC_HOSTED__
#include <string.h>
#else /* the four functions that compilers need from a freestanding program anyway */
void *memcpy(void *target, const void *source, size_t size);
void *memmove(void *target, const void *source, size_t size);
void *memset(void *target, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "irsplit needs a little-endian target: frames are, and tensors are copied as they are"
#endif

/* Machines with small addresses get small code in place of fast code. */
#if UINTPTR_MAX <= UINT32_MAX
#define IRS_SMALL_CODE 1
#endif

/* Functions that several files of the library share and nobody else calls. Where all files are one
 * (irs.c), they are static, so that compilers make smaller code; not every build uses all. */
#if defined(IRS_ONE_FILE) && defined(__GNUC__)
#define IRS_INTERNAL static __attribute__((unused))
#elif defined(IRS_ONE_FILE)
#define IRS_INTERNAL static
#elif defined(__GNUC__)
#define IRS_INTERNAL __attribute__((visibility("hidden")))
#else
#define IRS_INTERNAL
#endif

#define IRS_TRY(call)                 \
    do {                              \
        irs_status irs_try_ = (call); \
        if (irs_try_ != IRS_OK) {     \
            return irs_try_;          \
        }                             \
    } while (0)

/* ---- loads and stores ------------------------------------------------------------------------ */

static inline uint16_t irs_load16(const uint8_t *p) {
    uint16_t value;
    memcpy(&value, p, 2);
    return value;
}

static inline uint32_t irs_load32(const uint8_t *p) {
    uint32_t value;
    memcpy(&value, p, 4);
    return value;
}

static inline uint64_t irs_load64(const uint8_t *p) {
    uint64_t value;
    memcpy(&value, p, 8);
    return value;
}

static inline float irs_load_float(const uint8_t *p) {
    float value;
    memcpy(&value, p, 4);
    return value;
}

static inline void irs_store16(uint8_t *p, uint16_t value) { memcpy(p, &value, 2); }
static inline void irs_store32(uint8_t *p, uint32_t value) { memcpy(p, &value, 4); }
static inline void irs_store64(uint8_t *p, uint64_t value) { memcpy(p, &value, 8); }
static inline void irs_store_float(uint8_t *p, float value) { memcpy(p, &value, 4); }

/* ---- reading within bounds ------------------------------------------------------------------- */

/* What is left of a buffer. */
typedef struct irs_reader {
    const uint8_t *p, *end;
} irs_reader;

/* Takes the next `size` bytes; null if fewer are left. */
static inline const uint8_t *irs_take(irs_reader *r, uint64_t size) {
    if (size > (uint64_t)(r->end - r->p)) {
        return NULL;
    }

    const uint8_t *start = r->p;
    r->p += size;
    return start;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

/* Sizes stay below 2^62, so that a few of them can be added without another check. */
#define IRS_SIZE_LIMIT (UINT64_C(1) << 62)

/* Multiplies in place; returns 0 and changes nothing if the product exceeds the limit. */
static inline int irs_multiply_size(uint64_t *size, uint64_t factor) {
    if (factor != 0 && *size > IRS_SIZE_LIMIT / factor) {
        return 0;
    }

    *size *= factor;
    return 1;
}

/* Adds in place; returns 0 and changes nothing if the sum exceeds the limit. */
static inline int irs_add_size(uint64_t *size, uint64_t more) {
    if (more > IRS_SIZE_LIMIT || *size > IRS_SIZE_LIMIT - more) {
        return 0;
    }

    *size += more;
    return 1;
}

/* Rounds up to a multiple of `alignment`, a power of two. */
static inline uint64_t irs_align_up(uint64_t value, uint32_t alignment) {
    return (value + alignment - 1) & ~(uint64_t)(alignment - 1);
}

#endif
