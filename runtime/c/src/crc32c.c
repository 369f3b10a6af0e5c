/* CRC-32C, alone or together with a copy: one table for any machine, the processor's own instructions where it has them. */
#include "internal.h"

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

/* ---- the instructions ---------------------------------------------------------------------------------------------- */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define HARDWARE __attribute__((target("sse4.2,pclmul")))
#define WIDE __attribute__((target("sse4.2,pclmul,avx2,vpclmulqdq")))

static int has_hardware(void) { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"); }
static int has_wide(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("vpclmulqdq"); }

HARDWARE static inline uint64_t crc_word(uint64_t crc, uint64_t word) { return _mm_crc32_u64(crc, word); }
HARDWARE static inline uint64_t crc_byte(uint64_t crc, uint8_t byte) { return _mm_crc32_u8((uint32_t)crc, byte); }

HARDWARE static inline uint64_t multiply(uint64_t a, uint32_t b) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)a), _mm_cvtsi64_si128((long long)b), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}
#elif defined(__aarch64__) && defined(__GNUC__) && (defined(__linux__) || defined(__APPLE__))
#ifdef __clang__
#include <arm_neon.h>
#define CRC_WORD __builtin_arm_crc32cd
#define CRC_BYTE __builtin_arm_crc32cb
#define HARDWARE __attribute__((target("crc,aes")))
#else /* gcc declares the intrinsics only where the target has them */
#pragma GCC push_options
#pragma GCC target("+crc+crypto")
#include <arm_acle.h>
#include <arm_neon.h>
#pragma GCC pop_options
#define CRC_WORD __crc32cd
#define CRC_BYTE __crc32cb
#define HARDWARE __attribute__((target("+crc+crypto")))
#endif

#ifdef __linux__
#include <sys/auxv.h>
#define HAS_PMULL (1 << 4)
#define HAS_CRC32 (1 << 7)
static int has_hardware(void) { return (~getauxval(AT_HWCAP) & (HAS_PMULL | HAS_CRC32)) == 0; }
#else
static int has_hardware(void) { return 1; }
#endif

HARDWARE static inline uint64_t crc_word(uint64_t crc, uint64_t word) { return CRC_WORD((uint32_t)crc, word); }
HARDWARE static inline uint64_t crc_byte(uint64_t crc, uint8_t byte) { return CRC_BYTE((uint32_t)crc, byte); }

HARDWARE static inline uint64_t multiply(uint64_t a, uint32_t b) {
    return vgetq_lane_u64(vreinterpretq_u64_p128(vmull_p64((poly64_t)a, (poly64_t)b)), 0);
}
#endif

#ifdef HARDWARE
#define STRIPE 1024

/* The register after n further zero bytes: a product without carries, reduced by the CRC instruction itself. The factor is
 * x^(8n - 33) modulo the polynomial, bits reversed. */
#define AFTER_1024 0x170076FA
#define AFTER_2048 0xA51B6135
#define AFTER_3072 0x359674F7
#define AFTER_7168 0xA9232E2B

HARDWARE static inline uint64_t move_on(uint64_t crc, uint32_t factor) { return crc_word(0, multiply(crc, factor)); }

/* Eight bytes into a stripe's register and, unless `target` is null, to their place. */
HARDWARE static inline uint64_t take_word(uint64_t crc, uint8_t *target, const uint8_t *source, size_t at) {
    uint64_t word = load64(source + at);
    if (target != NULL) {
        store64(target + at, word);
    }
    return crc_word(crc, word);
}

/* The instruction takes three cycles and can start every cycle: three stripes at a time. */
HARDWARE static inline uint32_t crc_stripes(uint32_t crc, uint8_t *target, const uint8_t *p, size_t size) {
    uint64_t wide = crc;
    size_t at = 0;
    for (; size - at >= 3 * STRIPE; at += 3 * STRIPE) {
        uint64_t second = 0, third = 0;
        for (size_t i = at; i < at + STRIPE; i += 8) {
            wide = take_word(wide, target, p, i);
            second = take_word(second, target, p, i + STRIPE);
            third = take_word(third, target, p, i + 2 * STRIPE);
        }
        wide = move_on(wide, AFTER_2048) ^ move_on(second, AFTER_1024) ^ third;
    }
    for (; size - at >= 8; at += 8) {
        wide = take_word(wide, target, p, at);
    }
    for (; at < size; at++) {
        wide = crc_byte(wide, p[at]);
        if (target != NULL) {
            target[at] = p[at];
        }
    }
    return (uint32_t)wide;
}

HARDWARE static uint32_t crc_hardware(uint32_t crc, const uint8_t *p, size_t size) { return crc_stripes(crc, NULL, p, size); }

HARDWARE static uint32_t copy_hardware(uint32_t crc, uint8_t *target, const uint8_t *p, size_t size) {
    return crc_stripes(crc, target, p, size);
}
#endif

#ifdef WIDE
#define FOLDED 4096 /* bytes of a block that go through products, beside 3 stripes that go through the CRC instruction */
#define BLOCK (FOLDED + 3 * STRIPE)

/* Factors that move 64 bits on by 1024, 256 and 128 bits: x^(n + 63) for the first half of 128 bits, x^(n - 1) for the second. */
#define FIRST_1024 INT64_C(0x6577B24500000000)
#define SECOND_1024 INT64_C(0x7417153F00000000)
#define FIRST_256 ((long long)UINT64_C(0x33CCBBBC00000000))
#define SECOND_256 ((long long)UINT64_C(0xA2158B3400000000))
#define FIRST_128 INT64_C(0x3743F7BD00000000)
#define SECOND_128 INT64_C(0x3171D43000000000)

WIDE static inline __m256i fold(__m256i bits, __m256i factors, __m256i next) {
    __m256i first = _mm256_clmulepi64_epi128(bits, factors, 0x00), second = _mm256_clmulepi64_epi128(bits, factors, 0x11);
    return _mm256_xor_si256(_mm256_xor_si256(first, second), next);
}

WIDE static inline __m256i take_row(uint8_t *target, const uint8_t *source, size_t at) {
    __m256i row = _mm256_loadu_si256((const __m256i *)(const void *)(source + at));
    if (target != NULL) {
        _mm256_storeu_si256((__m256i *)(void *)(target + at), row);
    }
    return row;
}

/* The register after 128 bytes in four rows, from zero. */
WIDE static inline uint64_t reduce(const __m256i *rows) {
    __m256i factors = _mm256_setr_epi64x(FIRST_256, SECOND_256, FIRST_256, SECOND_256);
    __m256i last = fold(fold(fold(rows[0], factors, rows[1]), factors, rows[2]), factors, rows[3]);
    __m256i half = fold(last, _mm256_setr_epi64x(FIRST_128, SECOND_128, 0, 0), _mm256_permute2x128_si256(last, last, 0x01));
    __m128i bits = _mm256_castsi256_si128(half);
    return crc_word(crc_word(0, (uint64_t)_mm_cvtsi128_si64(bits)), (uint64_t)_mm_extract_epi64(bits, 1));
}

/* Products and the CRC instruction run on different ports: each gets its part of a block. */
WIDE static inline uint32_t crc_blocks(uint32_t crc, uint8_t *target, const uint8_t *p, size_t size) {
    uint64_t wide = crc;
    __m256i factors = _mm256_setr_epi64x(FIRST_1024, SECOND_1024, FIRST_1024, SECOND_1024);
    size_t at = 0;
    for (; size - at >= BLOCK; at += BLOCK) {
        __m256i rows[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        uint64_t stripes[3] = {0, 0, 0};
        for (size_t i = 0; i < FOLDED / 128; i++) {
            for (size_t row = 0; row < 4; row++) {
                rows[row] = fold(rows[row], factors, take_row(target, p, at + 128 * i + 32 * row));
            }
            for (size_t word = 0; word < 4; word++) {
                for (size_t k = 0; k < 3; k++) {
                    stripes[k] = take_word(stripes[k], target, p, at + FOLDED + STRIPE * k + 32 * i + 8 * word);
                }
            }
        }
        wide = move_on(wide, AFTER_7168) ^ move_on(reduce(rows), AFTER_3072) ^ move_on(stripes[0], AFTER_2048) ^
               move_on(stripes[1], AFTER_1024) ^ stripes[2];
    }
    return crc_stripes((uint32_t)wide, target == NULL ? NULL : target + at, p + at, size - at);
}

WIDE static uint32_t crc_wide(uint32_t crc, const uint8_t *p, size_t size) { return crc_blocks(crc, NULL, p, size); }

WIDE static uint32_t copy_wide(uint32_t crc, uint8_t *target, const uint8_t *p, size_t size) {
    return crc_blocks(crc, target, p, size);
}
#endif

/* ---- choice at run time -------------------------------------------------------------------------------------------- */

uint32_t irs_crc32c(uint32_t crc, const void *bytes, size_t size) {
#ifdef WIDE
    if (size >= BLOCK && has_wide()) {
        return ~crc_wide(~crc, bytes, size);
    }
#endif
#ifdef HARDWARE
    if (has_hardware()) {
        return ~crc_hardware(~crc, bytes, size);
    }
#endif
    return ~crc_portable(~crc, bytes, size);
}

uint32_t irs_copy_crc32c(uint32_t crc, void *target, const void *source, size_t size) {
#ifdef WIDE
    if (size >= BLOCK && has_wide()) {
        return ~copy_wide(~crc, target, source, size);
    }
#endif
#ifdef HARDWARE
    if (has_hardware()) {
        return ~copy_hardware(~crc, target, source, size);
    }
#endif
    if (size != 0) {
        memcpy(target, source, size);
    }
    return ~crc_portable(~crc, source, size);
}
