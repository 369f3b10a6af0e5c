/* SPDX-License-Identifier: Apache-2.0
 *
 * The four functions that compilers need from a freestanding program, and memory for the test.
 */
#include <stddef.h>
#include <stdint.h>

extern unsigned char __heap_base;

void *memcpy(void *target, const void *source, size_t size) {
    unsigned char *t = target;
    const unsigned char *s = source;
    while (size-- > 0) {
        *t++ = *s++;
    }
    return target;
}

void *memmove(void *target, const void *source, size_t size) {
    unsigned char *t = target;
    const unsigned char *s = source;
    if (t < s) {
        return memcpy(target, source, size);
    }
    while (size-- > 0) {
        t[size] = s[size];
    }
    return target;
}

void *memset(void *target, int value, size_t size) {
    unsigned char *t = target;
    while (size-- > 0) {
        *t++ = (unsigned char)value;
    }
    return target;
}

int memcmp(const void *a, const void *b, size_t size) {
    const unsigned char *x = a, *y = b;
    for (; size > 0; size--, x++, y++) {
        if (*x != *y) {
            return *x - *y;
        }
    }
    return 0;
}

uintptr_t heap_start(void);
uintptr_t heap_start(void) { return (uintptr_t)&__heap_base; }
