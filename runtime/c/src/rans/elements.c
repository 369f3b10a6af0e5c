/* Wire elements to symbols in pixel order with remaining bits, and back. Bits are packed from the lowest one on. */
#include "static_rans.h"

/* ---- pixel order -------------------------------------------------------------------------------------------------- */

/* Byte offset of the first channel of a pixel, and from one channel to the next. */
static inline size_t pixel_offset(const irs_geometry *g, size_t pixel, size_t width) {
    if (g->plane == 0) {
        return pixel * g->channels * width;
    }
    return (pixel / g->plane * g->channels * g->plane + pixel % g->plane) * width;
}

static inline size_t channel_stride(const irs_geometry *g, size_t width) {
    return (g->plane == 0 ? 1 : g->plane) * width;
}

/* Rows of bytes become columns: target[j][i] = source[i][j]. */
static inline void transpose_plainly(const uint8_t *source, size_t source_stride, uint8_t *target, size_t target_stride,
                                     size_t rows, size_t columns) {
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            target[j * target_stride + i] = source[i * source_stride + j];
        }
    }
}

#ifndef IRS_SMALL
/* Exchanges the upper bits of each group of a with the lower ones of b. */
static inline void swap_bits(uint64_t *a, uint64_t *b, uint32_t shift, uint64_t mask) {
    uint64_t different = (*a >> shift ^ *b) & mask;
    *b ^= different;
    *a ^= different << shift;
}

static inline void transpose_eight(const uint8_t *source, size_t source_stride, uint8_t *target, size_t target_stride) {
    uint64_t rows[8];
    for (size_t i = 0; i < 8; i++) {
        rows[i] = load64(source + i * source_stride);
    }
    for (size_t i = 0; i < 4; i++) {
        swap_bits(&rows[i], &rows[i + 4], 32, UINT64_C(0x00000000FFFFFFFF));
    }
    for (size_t i = 0; i < 4; i++) {
        size_t k = i + (i & 2);
        swap_bits(&rows[k], &rows[k + 2], 16, UINT64_C(0x0000FFFF0000FFFF));
    }
    for (size_t i = 0; i < 8; i += 2) {
        swap_bits(&rows[i], &rows[i + 1], 8, UINT64_C(0x00FF00FF00FF00FF));
    }
    for (size_t i = 0; i < 8; i++) {
        store64(target + i * target_stride, rows[i]);
    }
}

static void transpose(const uint8_t *source, size_t source_stride, uint8_t *target, size_t target_stride, size_t rows,
                      size_t columns) {
    size_t i = 0;
    for (; i + 8 <= rows; i += 8) {
        const uint8_t *from = source + i * source_stride;
        size_t j = 0;
        for (; j + 8 <= columns; j += 8) {
            transpose_eight(from + j, source_stride, target + j * target_stride + i, target_stride);
        }
        transpose_plainly(from + j, source_stride, target + j * target_stride + i, target_stride, 8, columns - j);
    }
    transpose_plainly(source + i * source_stride, source_stride, target + i, target_stride, rows - i, columns);
}
#else
#define transpose transpose_plainly
#endif

#define BLOCK 64

/* Copies a part with channels before pixels, `size` bytes an element, in blocks of pixels that stay in the cache. */
static inline void copy_planar(const irs_geometry *g, uint8_t *tensor, uint8_t *pixels, irs_part part, size_t size,
                               int to_pixels) {
    size_t first = part.first / g->channels, count = part.count / g->channels;
    for (size_t done = 0; done < count;) {
        size_t within = (first + done) % g->plane, block = g->plane - within;
        block = block < count - done ? block : count - done;
        block = block < BLOCK ? block : BLOCK;
        uint8_t *plane = tensor + ((first + done) / g->plane * g->channels * g->plane + within) * size;
        uint8_t *row = pixels + done * g->channels * size;
        if (size == 1 && to_pixels) {
            transpose(plane, g->plane, row, g->channels, g->channels, block);
        } else if (size == 1) {
            transpose(row, g->channels, plane, g->plane, block, g->channels);
        }
        for (uint32_t c = 0; size > 1 && c < g->channels; c++, plane += g->plane * size, row += size) {
            for (size_t i = 0; i < block; i++) {
                uint8_t *a = plane + i * size, *b = row + i * g->channels * size;
                memcpy(to_pixels ? b : a, to_pixels ? a : b, size);
            }
        }
        done += block;
    }
}

static void copy_part(const irs_spec *spec, const irs_geometry *g, uint8_t *tensor, uint8_t *pixels, irs_part part,
                      int to_pixels) {
    size_t size = spec->wire_size;
    if (g->plane == 0) {
        uint8_t *place = tensor + part.first * size;
        memcpy(to_pixels ? pixels : place, to_pixels ? place : pixels, part.count * size);
        return;
    }
    switch (size) { /* constants make the inner copies single moves */
    case 1: copy_planar(g, tensor, pixels, part, 1, to_pixels); break;
    case 2: copy_planar(g, tensor, pixels, part, 2, to_pixels); break;
    case 4: copy_planar(g, tensor, pixels, part, 4, to_pixels); break;
    default: copy_planar(g, tensor, pixels, part, 8, to_pixels); break;
    }
}

void irs_gather(const irs_spec *spec, const irs_geometry *g, const uint8_t *tensor, irs_part part, uint8_t *target) {
    copy_part(spec, g, (uint8_t *)(uintptr_t)tensor, target, part, 1);
}

void irs_scatter(const irs_spec *spec, const irs_geometry *g, const uint8_t *source, irs_part part, uint8_t *tensor) {
    copy_part(spec, g, tensor, (uint8_t *)(uintptr_t)source, part, 0);
}

#ifndef IRS_BYTES_ONLY
/* ---- bits --------------------------------------------------------------------------------------------------------- */

typedef struct bit_writer {
    uint8_t *p, *end;
    uint64_t pending;
    uint32_t count; /* below 8 between calls */
} bit_writer;

static inline int put_bits(bit_writer *w, uint64_t value, uint32_t size) { /* size at most 32 */
    w->pending |= value << w->count;
    w->count += size;
    if ((size_t)(w->end - w->p) >= 8) {
        store64(w->p, w->pending);
        w->p += w->count >> 3;
    } else {
        for (uint32_t i = 0; i < w->count >> 3; i++) {
            if (w->p == w->end) {
                return 0;
            }
            *w->p++ = (uint8_t)(w->pending >> 8 * i);
        }
    }
    w->pending >>= w->count & ~7u;
    w->count &= 7;
    return 1;
}

typedef struct bit_reader {
    const uint8_t *p, *end;
    uint64_t pending;
    uint32_t count;
} bit_reader;

static inline int get_bits(bit_reader *r, uint32_t size, uint64_t *value) { /* size at most 32 */
    if (r->count < size) {
        if ((size_t)(r->end - r->p) >= 8) {
            r->pending |= load64(r->p) << r->count;
            r->p += (63 - r->count) >> 3;
            r->count |= 56;
        } else {
            while (r->count < size) {
                if (r->p == r->end) {
                    return 0;
                }
                r->pending |= (uint64_t)*r->p++ << r->count;
                r->count += 8;
            }
        }
    }
    *value = r->pending & ((UINT64_C(1) << size) - 1);
    r->pending >>= size;
    r->count -= size;
    return 1;
}

/* ---- float and integer elements ----------------------------------------------------------------------------------- */

static inline uint64_t load_bits(const uint8_t *p, size_t size) {
    return size == 2 ? load16(p) : size == 4 ? load32(p) : load64(p);
}

static inline void store_bits(uint8_t *p, size_t size, uint64_t bits) {
    if (size == 2) {
        store16(p, (uint16_t)bits);
    } else if (size == 4) {
        store32(p, (uint32_t)bits);
    } else {
        store64(p, bits);
    }
}

/* What the loops need to know, by value so that it stays in registers. */
typedef struct splitter {
    uint32_t width, mantissa, keep, tail, zero, most, top, is_signed;
    uint64_t base;
} splitter;

static splitter splitter_of(const irs_spec *spec) {
    const irs_model *m = spec->model;
    splitter s = {8u * spec->wire_size, 0, m->keep, m->tail, m->zero, 0, m->top, 0, m->base};
    s.mantissa = spec->dtype == IRS_F32 ? 23 : spec->dtype == IRS_F16 ? 10 : 7;
    s.most = m->top != 0 ? IRS_TOP_SYMBOL - 1 : IRS_TOP_SYMBOL;
    s.is_signed = spec->dtype >= IRS_I16 && spec->dtype <= IRS_I64;
    return s;
}

static inline uint32_t split_float(const splitter *s, uint64_t bits, uint64_t *rest, uint32_t *size) {
    *size = 0;
    *rest = 0;
    if (bits == 0) {
        return s->zero;
    }
    if (bits == s->top) {
        return IRS_TOP_SYMBOL;
    }
    uint32_t sign = (uint32_t)(bits >> (s->width - 1)), magnitude = (uint32_t)bits & ((UINT32_C(1) << (s->width - 1)) - 1);
    int32_t step = (int32_t)(magnitude >> (s->mantissa - s->keep)) - (int32_t)s->base;
    int32_t symbol = sign ? (int32_t)s->zero - 1 - step : (int32_t)s->zero + 1 + step;
    if (step < 0 || symbol < 0 || symbol > (int32_t)s->most || (magnitude & ((UINT32_C(1) << s->tail) - 1)) != 0) {
        return IRS_RAW_SYMBOL;
    }
    *size = s->mantissa - s->keep - s->tail;
    *rest = (magnitude >> s->tail) & ((UINT32_C(1) << *size) - 1);
    return (uint32_t)symbol;
}

static inline uint32_t split_integer(const splitter *s, uint64_t bits, uint64_t *rest, uint32_t *size) {
    uint64_t wide = s->is_signed && s->width < 64 && bits >> (s->width - 1) ? bits | ~UINT64_C(0) << s->width : bits;
    uint64_t distance = wide - s->base, symbol = distance >> s->keep;
    if (symbol >= IRS_RAW_SYMBOL) {
        return IRS_RAW_SYMBOL;
    }
    *size = s->keep;
    *rest = distance & ((UINT64_C(1) << s->keep) - 1);
    return (uint32_t)symbol;
}

/* Writes a whole element; in two halves when it has 64 bits. */
static inline int put_raw(bit_writer *w, uint64_t bits, size_t width) {
    if (width < 8) {
        return put_bits(w, bits, 8 * (uint32_t)width);
    }
    return put_bits(w, bits & UINT32_MAX, 32) && put_bits(w, bits >> 32, 32);
}

static inline irs_status split_all(const splitter s, int is_float, const irs_geometry *g, const uint8_t *tensor,
                                   irs_part part, size_t width, uint8_t *symbols, bit_writer *w) {
    size_t first = part.first / g->channels, pixels = part.count / g->channels, stride = channel_stride(g, width);
    for (size_t pixel = first; pixel < first + pixels; pixel++) {
        const uint8_t *p = tensor + pixel_offset(g, pixel, width);
        for (uint32_t c = 0; c < g->channels; c++, p += stride) {
            uint64_t rest = 0, bits = load_bits(p, width);
            uint32_t size = 0;
            uint32_t symbol = is_float ? split_float(&s, bits, &rest, &size) : split_integer(&s, bits, &rest, &size);
            *symbols++ = (uint8_t)symbol;
            if (!(symbol == IRS_RAW_SYMBOL ? put_raw(w, bits, width) : put_bits(w, rest, size))) {
                return IRS_ERR_BUFFER;
            }
        }
    }
    if (w->count > 0) {
        if (w->p == w->end) {
            return IRS_ERR_BUFFER;
        }
        *w->p++ = (uint8_t)w->pending;
    }
    return IRS_OK;
}

#endif

static void flip_bytes(uint8_t *p, size_t count, uint8_t flip) {
    for (size_t i = 0; flip != 0 && i < count; i++) {
        p[i] ^= flip;
    }
}

irs_status irs_split(const irs_spec *spec, const irs_geometry *g, const uint8_t *tensor, irs_part part, uint8_t *symbols,
                     uint8_t *bits, size_t capacity, size_t *size) {
    *size = 0;
    if (spec->model->elements == IRS_ELEMENTS_BYTES) {
        irs_gather(spec, g, tensor, part, symbols);
        flip_bytes(symbols, part.count, spec->model->flip);
        return IRS_OK;
    }
#ifdef IRS_BYTES_ONLY
    (void)bits, (void)capacity;
    return IRS_ERR_CODEC;
#else
    splitter s = splitter_of(spec);
    bit_writer w = {bits, bits + capacity, 0, 0};
    int is_float = spec->model->elements == IRS_ELEMENTS_FLOAT;
    if (is_float && spec->wire_size == 4) {
        IRS_TRY(split_all(s, 1, g, tensor, part, 4, symbols, &w));
    } else if (is_float) {
        IRS_TRY(split_all(s, 1, g, tensor, part, 2, symbols, &w));
    } else {
        IRS_TRY(split_all(s, 0, g, tensor, part, spec->wire_size, symbols, &w));
    }
    *size = (size_t)(w.p - bits);
    return IRS_OK;
#endif
}

#ifndef IRS_ENCODE_ONLY
#ifndef IRS_BYTES_ONLY
static inline int join_float(const splitter *s, uint32_t symbol, bit_reader *r, uint64_t *bits) {
    if (symbol == s->zero) {
        *bits = 0;
        return 1;
    }
    if (symbol == IRS_TOP_SYMBOL && s->top != 0) {
        *bits = s->top;
        return 1;
    }
    uint64_t rest;
    if (!get_bits(r, s->mantissa - s->keep - s->tail, &rest)) {
        return 0;
    }
    uint32_t sign = symbol < s->zero, distance = sign ? s->zero - 1 - symbol : symbol - s->zero - 1;
    uint32_t step = distance + (uint32_t)s->base;
    *bits = (uint64_t)step << (s->mantissa - s->keep) | rest << s->tail | (uint64_t)sign << (s->width - 1);
    return 1;
}

static inline int join_integer(const splitter *s, uint32_t symbol, bit_reader *r, uint64_t *bits) {
    uint64_t rest;
    if (!get_bits(r, s->keep, &rest)) {
        return 0;
    }
    *bits = ((uint64_t)symbol << s->keep) + rest + s->base;
    return 1;
}

static inline int join_raw(uint32_t width, bit_reader *r, uint64_t *bits) {
    uint64_t high = 0;
    if (!get_bits(r, width < 32 ? width : 32, bits) || (width == 64 && !get_bits(r, 32, &high))) {
        return 0;
    }
    *bits |= high << 32;
    return 1;
}

static inline irs_status join_all(const splitter s, int is_float, const irs_geometry *g, const uint8_t *symbols,
                                  irs_part part, size_t width, bit_reader *r, uint8_t *tensor) {
    size_t first = part.first / g->channels, pixels = part.count / g->channels, stride = channel_stride(g, width);
    for (size_t pixel = first; pixel < first + pixels; pixel++) {
        uint8_t *p = tensor + pixel_offset(g, pixel, width);
        for (uint32_t c = 0; c < g->channels; c++, p += stride) {
            uint64_t bits;
            uint32_t symbol = *symbols++;
            int ok = symbol == IRS_RAW_SYMBOL ? join_raw(s.width, r, &bits)
                     : is_float               ? join_float(&s, symbol, r, &bits)
                                              : join_integer(&s, symbol, r, &bits);
            if (!ok) {
                return IRS_ERR_CORRUPT;
            }
            store_bits(p, width, bits);
        }
    }
    /* spare bits are zero, and no byte is left */
    return r->p == r->end && r->count < 8 && r->pending == 0 ? IRS_OK : IRS_ERR_CORRUPT;
}

#endif

irs_status irs_join(const irs_spec *spec, const irs_geometry *g, const uint8_t *symbols, const uint8_t *bits, size_t size,
                    irs_part part, uint8_t *tensor) {
    if (spec->model->elements == IRS_ELEMENTS_BYTES) {
        flip_bytes((uint8_t *)(uintptr_t)symbols, part.count, spec->model->flip);
        irs_scatter(spec, g, symbols, part, tensor);
        return IRS_OK;
    }
#ifdef IRS_BYTES_ONLY
    (void)bits, (void)size;
    return IRS_ERR_CODEC;
#else
    splitter s = splitter_of(spec);
    bit_reader r = {bits, bits + size, 0, 0};
    int is_float = spec->model->elements == IRS_ELEMENTS_FLOAT;
    if (is_float && spec->wire_size == 4) {
        return join_all(s, 1, g, symbols, part, 4, &r, tensor);
    }
    return join_all(s, is_float, g, symbols, part, spec->wire_size, &r, tensor);
#endif
}
#endif
