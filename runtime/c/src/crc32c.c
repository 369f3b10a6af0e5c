/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C (Castagnoli), alone or together with a copy.
 *
 * A CRC treats a message as a polynomial M(x) whose coefficients are its bits, and computes the
 * remainder of M(x) x^32 divided by G(x), a fixed polynomial of degree 32. Arithmetic is modulo 2:
 * addition and subtraction are XOR, products have no carries. By convention, bits are reversed (the
 * lowest bit of a byte is the highest coefficient), and the 32-bit register starts as all ones and
 * is inverted at the end.
 *
 * Three ways of computing it follow; all give the same result.
 *
 * Portable. To append a bit, the register is multiplied by x (a shift, as bits are reversed to the
 * right) and G is subtracted if a bit fell out. A table of 16 entries holds the effect of four such
 * steps, so that a byte takes two lookups. 64 bytes of table are worth more on a small device than
 * the speed of a larger table.
 *
 * CRC instruction. x86-64 (SSE4.2) and ARMv8 append eight bytes with one instruction, which takes
 * three cycles but can start in every cycle. Three stripes of a block are therefore computed side
 * by side, the second and third of them from a register of zero. As a CRC is linear, the register
 * after the whole block is
 *
 *     (register of stripe 1, moved on by 2 stripes)
 *   ^ (register of stripe 2, moved on by 1 stripe) ^ (register of stripe 3).
 *
 * Moving a register on by n bytes means appending n zero bytes, that is multiplying it by x^(8n)
 * modulo G. The factor is a constant; the product has 64 bits, and the CRC instruction, applied to
 * these 64 bits from a register of zero, reduces them and thereby multiplies by x^32. Reversed
 * products are one bit short of 64, which costs another x. The constants are therefore
 * x^(8n - 33) modulo G.
 *
 * Wide products. With VPCLMULQDQ, products of 64 bits are computed two at a time. The first part of
 * a block is read in four rows of 32 bytes; each row is folded onto the one 128 bytes later: its
 * two 64-bit halves are multiplied by x^(1024 + 63) and x^(1024 - 1) modulo G, which moves them on
 * by 1024 bits, and are XORed into the new row. At the end the rows are folded into one, then into
 * 16 bytes, which the CRC instruction reduces. Products and the CRC instruction run on different
 * ports of the processor, so that the second part of a block goes through the three stripes above
 * in the same loop.
 */
#include "internal.h"

#define CRC_POLYNOMIAL UINT32_C(0x82F63B78) /* G without x^32, bits reversed */

#define CRC_SHIFT_1(c) (((c) >> 1) ^ (((c)&1) ? CRC_POLYNOMIAL : 0))
#define CRC_SHIFT_4(c) CRC_SHIFT_1(CRC_SHIFT_1(CRC_SHIFT_1(CRC_SHIFT_1((uint32_t)(c)))))
#define CRC_FOUR_ENTRIES(c) \
    CRC_SHIFT_4(c), CRC_SHIFT_4((c) + 1), CRC_SHIFT_4((c) + 2), CRC_SHIFT_4((c) + 3)

static const uint32_t crc_nibble_table[16] = {CRC_FOUR_ENTRIES(0), CRC_FOUR_ENTRIES(4),
                                              CRC_FOUR_ENTRIES(8), CRC_FOUR_ENTRIES(12)};

static uint32_t crc_portable(uint32_t crc, const uint8_t *p, size_t size) {
    for (size_t i = 0; i < size; i++) {
        crc ^= p[i];
        crc = (crc >> 4) ^ crc_nibble_table[crc & 15];
        crc = (crc >> 4) ^ crc_nibble_table[crc & 15];
    }
    return crc;
}

/* ---- instructions of the processor ----------------------------------------------------------- */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define CRC_TARGET __attribute__((target("sse4.2,pclmul")))
#define CRC_WIDE_TARGET __attribute__((target("sse4.2,pclmul,avx2,vpclmulqdq")))

static int crc_has_instructions(void) {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

static int crc_has_wide_products(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("vpclmulqdq");
}

CRC_TARGET static inline uint64_t crc_word(uint64_t crc, uint64_t word) {
    return _mm_crc32_u64(crc, word);
}

CRC_TARGET static inline uint64_t crc_byte(uint64_t crc, uint8_t byte) {
    return _mm_crc32_u8((uint32_t)crc, byte);
}

CRC_TARGET static inline uint64_t crc_multiply(uint64_t a, uint32_t b) {
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)a), _mm_cvtsi64_si128((long long)b), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}
#elif defined(__aarch64__) && defined(__GNUC__) && (defined(__linux__) || defined(__APPLE__))
#ifdef __clang__
#include <arm_neon.h>
#define CRC_INSTRUCTION_WORD __builtin_arm_crc32cd
#define CRC_INSTRUCTION_BYTE __builtin_arm_crc32cb
#define CRC_TARGET __attribute__((target("crc,aes")))
#else /* gcc declares the intrinsics only where the target has them */
#pragma GCC push_options
#pragma GCC target("+crc+crypto")
#include <arm_acle.h>
#include <arm_neon.h>
#pragma GCC pop_options
#define CRC_INSTRUCTION_WORD __crc32cd
#define CRC_INSTRUCTION_BYTE __crc32cb
#define CRC_TARGET __attribute__((target("+crc+crypto")))
#endif

#ifdef __linux__
#include <sys/auxv.h>
#define CRC_HWCAP_PMULL (1 << 4)
#define CRC_HWCAP_CRC32 (1 << 7)
static int crc_has_instructions(void) {
    return (~getauxval(AT_HWCAP) & (CRC_HWCAP_PMULL | CRC_HWCAP_CRC32)) == 0;
}
#else
static int crc_has_instructions(void) { return 1; }
#endif

CRC_TARGET static inline uint64_t crc_word(uint64_t crc, uint64_t word) {
    return CRC_INSTRUCTION_WORD((uint32_t)crc, word);
}

CRC_TARGET static inline uint64_t crc_byte(uint64_t crc, uint8_t byte) {
    return CRC_INSTRUCTION_BYTE((uint32_t)crc, byte);
}

CRC_TARGET static inline uint64_t crc_multiply(uint64_t a, uint32_t b) {
    return vgetq_lane_u64(vreinterpretq_u64_p128(vmull_p64((poly64_t)a, (poly64_t)b)), 0);
}
#endif

/* ---- three stripes --------------------------------------------------------------------------- */

#ifdef CRC_TARGET
#define CRC_STRIPE 1024

/* x^(8n - 33) modulo G for n bytes, bits reversed */
#define CRC_AFTER_1024 0x170076FA
#define CRC_AFTER_2048 0xA51B6135
#define CRC_AFTER_3072 0x359674F7
#define CRC_AFTER_7168 0xA9232E2B

/* The register after as many zero bytes as `factor` stands for. */
CRC_TARGET static inline uint64_t crc_skip(uint64_t crc, uint32_t factor) {
    return crc_word(0, crc_multiply(crc, factor));
}

/* Appends eight bytes and, unless `target` is null, copies them. */
CRC_TARGET static inline uint64_t crc_take_word(uint64_t crc, uint8_t *target,
                                                const uint8_t *source, size_t at) {
    uint64_t word = irs_load64(source + at);
    if (target != NULL) {
        irs_store64(target + at, word);
    }
    return crc_word(crc, word);
}

CRC_TARGET static inline uint32_t crc_stripes(uint32_t crc, uint8_t *target, const uint8_t *p,
                                              size_t size) {
    uint64_t first = crc;
    size_t at = 0;
    for (; size - at >= 3 * CRC_STRIPE; at += 3 * CRC_STRIPE) {
        uint64_t second = 0, third = 0;
        for (size_t i = at; i < at + CRC_STRIPE; i += 8) {
            first = crc_take_word(first, target, p, i);
            second = crc_take_word(second, target, p, i + CRC_STRIPE);
            third = crc_take_word(third, target, p, i + 2 * CRC_STRIPE);
        }
        first = crc_skip(first, CRC_AFTER_2048) ^ crc_skip(second, CRC_AFTER_1024) ^ third;
    }

    for (; size - at >= 8; at += 8) {
        first = crc_take_word(first, target, p, at);
    }
    for (; at < size; at++) {
        first = crc_byte(first, p[at]);
        if (target != NULL) {
            target[at] = p[at];
        }
    }
    return (uint32_t)first;
}

/* Each way exists twice, so that the compiler drops the copy from the one that has none. */
CRC_TARGET static uint32_t crc_hardware(uint32_t crc, const uint8_t *p, size_t size) {
    return crc_stripes(crc, NULL, p, size);
}

CRC_TARGET static uint32_t crc_copy_hardware(uint32_t crc, uint8_t *target, const uint8_t *p,
                                             size_t size) {
    return crc_stripes(crc, target, p, size);
}
#endif

/* ---- wide products --------------------------------------------------------------------------- */

#ifdef CRC_WIDE_TARGET
#define CRC_FOLDED 4096 /* bytes of a block that are folded; three stripes follow them */
#define CRC_BLOCK (CRC_FOLDED + 3 * CRC_STRIPE)

/* Factors that move 128 bits on by n bits: x^(n + 63) and x^(n - 1) for the two halves */
#define CRC_FIRST_1024 INT64_C(0x6577B24500000000)
#define CRC_SECOND_1024 INT64_C(0x7417153F00000000)
#define CRC_FIRST_256 ((long long)UINT64_C(0x33CCBBBC00000000))
#define CRC_SECOND_256 ((long long)UINT64_C(0xA2158B3400000000))
#define CRC_FIRST_128 INT64_C(0x3743F7BD00000000)
#define CRC_SECOND_128 INT64_C(0x3171D43000000000)

/* Moves `bits` on and adds them to `next`. */
CRC_WIDE_TARGET static inline __m256i crc_fold(__m256i bits, __m256i factors, __m256i next) {
    __m256i first = _mm256_clmulepi64_epi128(bits, factors, 0x00);
    __m256i second = _mm256_clmulepi64_epi128(bits, factors, 0x11);
    return _mm256_xor_si256(_mm256_xor_si256(first, second), next);
}

/* Loads 32 bytes and, unless `target` is null, copies them. */
CRC_WIDE_TARGET static inline __m256i crc_take_row(uint8_t *target, const uint8_t *source,
                                                   size_t at) {
    __m256i row = _mm256_loadu_si256((const __m256i *)(const void *)(source + at));
    if (target != NULL) {
        _mm256_storeu_si256((__m256i *)(void *)(target + at), row);
    }
    return row;
}

/* The register after the 128 bytes of four rows, from zero. */
CRC_WIDE_TARGET static inline uint64_t crc_reduce(const __m256i *rows) {
    __m256i by_256 =
        _mm256_setr_epi64x(CRC_FIRST_256, CRC_SECOND_256, CRC_FIRST_256, CRC_SECOND_256);
    __m256i row = crc_fold(rows[0], by_256, rows[1]);
    row = crc_fold(row, by_256, rows[2]);
    row = crc_fold(row, by_256, rows[3]);

    __m256i by_128 = _mm256_setr_epi64x(CRC_FIRST_128, CRC_SECOND_128, 0, 0);
    __m256i half = crc_fold(row, by_128, _mm256_permute2x128_si256(row, row, 0x01));
    __m128i bits = _mm256_castsi256_si128(half);
    uint64_t crc = crc_word(0, (uint64_t)_mm_cvtsi128_si64(bits));
    return crc_word(crc, (uint64_t)_mm_extract_epi64(bits, 1));
}

CRC_WIDE_TARGET static inline uint32_t crc_blocks(uint32_t crc, uint8_t *target, const uint8_t *p,
                                                  size_t size) {
    uint64_t wide = crc;
    __m256i by_1024 =
        _mm256_setr_epi64x(CRC_FIRST_1024, CRC_SECOND_1024, CRC_FIRST_1024, CRC_SECOND_1024);
    size_t at = 0;
    for (; size - at >= CRC_BLOCK; at += CRC_BLOCK) {
        __m256i rows[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                           _mm256_setzero_si256()};
        uint64_t stripes[3] = {0, 0, 0};

        for (size_t i = 0; i < CRC_FOLDED / 128; i++) {
            for (size_t row = 0; row < 4; row++) {
                __m256i next = crc_take_row(target, p, at + 128 * i + 32 * row);
                rows[row] = crc_fold(rows[row], by_1024, next);
            }
            for (size_t word = 0; word < 4; word++) {
                for (size_t k = 0; k < 3; k++) {
                    size_t stripe = at + CRC_FOLDED + CRC_STRIPE * k;
                    stripes[k] = crc_take_word(stripes[k], target, p, stripe + 32 * i + 8 * word);
                }
            }
        }

        wide = crc_skip(wide, CRC_AFTER_7168) ^ crc_skip(crc_reduce(rows), CRC_AFTER_3072) ^
               crc_skip(stripes[0], CRC_AFTER_2048) ^ crc_skip(stripes[1], CRC_AFTER_1024) ^
               stripes[2];
    }
    return crc_stripes((uint32_t)wide, target == NULL ? NULL : target + at, p + at, size - at);
}

CRC_WIDE_TARGET static uint32_t crc_wide(uint32_t crc, const uint8_t *p, size_t size) {
    return crc_blocks(crc, NULL, p, size);
}

CRC_WIDE_TARGET static uint32_t crc_copy_wide(uint32_t crc, uint8_t *target, const uint8_t *p,
                                              size_t size) {
    return crc_blocks(crc, target, p, size);
}
#endif

/* ---- choice at run time ---------------------------------------------------------------------- */

uint32_t irs_crc32c(uint32_t crc, const void *bytes, size_t size) {
#ifdef CRC_WIDE_TARGET
    if (size >= CRC_BLOCK && crc_has_wide_products()) {
        return ~crc_wide(~crc, bytes, size);
    }
#endif
#ifdef CRC_TARGET
    if (crc_has_instructions()) {
        return ~crc_hardware(~crc, bytes, size);
    }
#endif
    return ~crc_portable(~crc, bytes, size);
}

uint32_t irs_copy_crc32c(uint32_t crc, void *target, const void *source, size_t size) {
#ifdef CRC_WIDE_TARGET
    if (size >= CRC_BLOCK && crc_has_wide_products()) {
        return ~crc_copy_wide(~crc, target, source, size);
    }
#endif
#ifdef CRC_TARGET
    if (crc_has_instructions()) {
        return ~crc_copy_hardware(~crc, target, source, size);
    }
#endif
    if (size != 0) {
        memcpy(target, source, size);
    }
    return ~crc_portable(~crc, source, size);
}

#undef CRC_POLYNOMIAL
#undef CRC_SHIFT_1
#undef CRC_SHIFT_4
#undef CRC_FOUR_ENTRIES
#undef CRC_TARGET
#undef CRC_WIDE_TARGET
#undef CRC_INSTRUCTION_WORD
#undef CRC_INSTRUCTION_BYTE
#undef CRC_HWCAP_PMULL
#undef CRC_HWCAP_CRC32
#undef CRC_STRIPE
#undef CRC_AFTER_1024
#undef CRC_AFTER_2048
#undef CRC_AFTER_3072
#undef CRC_AFTER_7168
#undef CRC_FOLDED
#undef CRC_BLOCK
#undef CRC_FIRST_1024
#undef CRC_SECOND_1024
#undef CRC_FIRST_256
#undef CRC_SECOND_256
#undef CRC_FIRST_128
#undef CRC_SECOND_128
