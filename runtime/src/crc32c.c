/* CRC-32C: one table for any machine, the processor's own instruction where it has one. */
#include "bytes.h"

#define POLYNOMIAL UINT32_C(0x82F63B78)

#define N1(c) (((c) >> 1) ^ (((c) & 1) ? POLYNOMIAL : 0))
#define N4(c) N1(N1(N1(N1((uint32_t)(c)))))
#define ROW(c) N4(c), N4((c) + 1), N4((c) + 2), N4((c) + 3)

/* four bits a step: 64 bytes of table are worth more on a small device than the speed of a larger one */
static const uint32_t nibble_table[16] = {ROW(0), ROW(4), ROW(8), ROW(12)};

static uint32_t crc_portable(uint32_t crc, const uint8_t *p, size_t size) {
    for (size_t i = 0; i < size; i++) {
        crc ^= p[i];
        crc = (crc >> 4) ^ nibble_table[crc & 15];
        crc = (crc >> 4) ^ nibble_table[crc & 15];
    }
    return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define HARDWARE __attribute__((target("sse4.2,pclmul")))
#define STRIPE 1024

/* The register after a further 1024 or 2048 zero bytes: a product without carries, reduced by the CRC instruction itself. */
#define AFTER_1024 0x170076FA
#define AFTER_2048 0xA51B6135

HARDWARE static inline uint64_t move_on(uint64_t crc, uint32_t factor) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)factor), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

HARDWARE static uint32_t crc_hardware(uint32_t crc, const uint8_t *p, size_t size) {
    uint64_t wide = crc;
    /* the instruction takes three cycles and can start every cycle: three stripes at a time */
    for (; size >= 3 * STRIPE; p += 3 * STRIPE, size -= 3 * STRIPE) {
        uint64_t second = 0, third = 0;
        for (size_t i = 0; i < STRIPE; i += 8) {
            wide = _mm_crc32_u64(wide, load64(p + i));
            second = _mm_crc32_u64(second, load64(p + STRIPE + i));
            third = _mm_crc32_u64(third, load64(p + 2 * STRIPE + i));
        }
        wide = move_on(wide, AFTER_2048) ^ move_on(second, AFTER_1024) ^ third;
    }
    for (; size >= 8; p += 8, size -= 8) {
        wide = _mm_crc32_u64(wide, load64(p));
    }
    for (; size > 0; p++, size--) {
        wide = _mm_crc32_u8((uint32_t)wide, *p);
    }
    return (uint32_t)wide;
}

static int has_hardware(void) { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"); }
#else
#define crc_hardware crc_portable
static int has_hardware(void) { return 0; }
#endif

uint32_t irs_crc32c(uint32_t crc, const void *bytes, size_t size) {
    return ~(has_hardware() ? crc_hardware : crc_portable)(~crc, bytes, size);
}
