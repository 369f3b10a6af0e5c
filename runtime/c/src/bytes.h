/* Little-endian loads and stores at any address, and sizes that cannot overflow. */
#ifndef IRS_BYTES_H
#define IRS_BYTES_H

#include "irs.h"

#if !defined(__STDC_HOSTED__) || __STDC_HOSTED__
#include <string.h>
#else /* the four functions that compilers ask of a freestanding program anyway */
void *memcpy(void *target, const void *source, size_t size);
void *memmove(void *target, const void *source, size_t size);
void *memset(void *target, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "irsplit frames are little-endian and tensors are copied as they are: big-endian targets are not supported"
#endif

#if UINTPTR_MAX <= UINT32_MAX /* smaller code rather than faster */
#define IRS_SMALL 1
#endif

#define IRS_TRY(call)                       \
    do {                                    \
        irs_status irs_try_ = (call);       \
        if (irs_try_ != IRS_OK) {           \
            return irs_try_;                \
        }                                   \
    } while (0)

static inline uint16_t load16(const uint8_t *p) {
    uint16_t value;
    memcpy(&value, p, 2);
    return value;
}

static inline uint32_t load32(const uint8_t *p) {
    uint32_t value;
    memcpy(&value, p, 4);
    return value;
}

static inline uint64_t load64(const uint8_t *p) {
    uint64_t value;
    memcpy(&value, p, 8);
    return value;
}

static inline float load_float(const uint8_t *p) {
    float value;
    memcpy(&value, p, 4);
    return value;
}

static inline void store16(uint8_t *p, uint16_t value) { memcpy(p, &value, 2); }
static inline void store32(uint8_t *p, uint32_t value) { memcpy(p, &value, 4); }
static inline void store64(uint8_t *p, uint64_t value) { memcpy(p, &value, 8); }
static inline void store_float(uint8_t *p, float value) { memcpy(p, &value, 4); }

/* false when the product or sum does not fit 62 bits: room for later sums of a few such sizes */
#define IRS_SIZE_LIMIT (UINT64_C(1) << 62)

static inline int multiply_size(uint64_t *size, uint64_t factor) {
    if (factor != 0 && *size > IRS_SIZE_LIMIT / factor) {
        return 0;
    }
    *size *= factor;
    return 1;
}

static inline int add_size(uint64_t *size, uint64_t more) {
    if (more > IRS_SIZE_LIMIT || *size > IRS_SIZE_LIMIT - more) {
        return 0;
    }
    *size += more;
    return 1;
}

/* alignment: a power of two */
static inline uint64_t align_up(uint64_t value, uint32_t alignment) { return (value + alignment - 1) & ~(uint64_t)(alignment - 1); }

#endif
