/* SPDX-License-Identifier: Apache-2.0
 *
 * static-rans: the lossless codec whose tables are trained when a network is compiled.
 *
 * Coding a chunk of a tensor takes three steps:
 *
 *  1. Elements to symbols (elements.c). Each element becomes a symbol of 8 bits, its most
 *     predictable part; what remains of wide elements is written as plain bits. Symbols are put in
 *     *pixel order*: all channels of a pixel, then the next pixel.
 *  2. Contexts (static_portable.c, static_narrow.c, static_vector.h). Symbols of pixels around a
 *     symbol predict it, and how well they predicted their own neighbours chooses one of the
 *     trained frequency tables. With residual models, the difference from the prediction is coded.
 *  3. Entropy coding (rans.c, static_vector_encode.h). rANS turns symbols and tables into 16-bit
 *     words. Up to 32 independent states, the *lanes*, take turns: channel c uses lane c mod lanes.
 *
 * Decoding runs the same way backwards, except that a symbol must be decoded before it can predict
 * the next one. Steps 2 and 3 exist for any machine, for few channels, and for vectors of 16 and 32
 * bytes. All of them give the same bytes.
 */
#ifndef IRS_STATIC_RANS_H
#define IRS_STATIC_RANS_H

#include "../internal.h"

#define IRS_MAX_LANES 32
#define IRS_PADDING 64 /* bytes behind a row of channels that vector code may touch */

#define IRS_RAW_SYMBOL 255 /* the whole element is among the remaining bits */
#define IRS_TOP_SYMBOL 254 /* the one value that the model calls `top` */

#define IRS_MAX_NARROW_CHANNELS 4 /* up to here, decoding goes one symbol at a time */
#define IRS_MAX_RUN_CHANNELS 8    /* up to here, contexts are found for runs of pixels */

enum { IRS_PREDICT_NONE, IRS_PREDICT_SHARED, IRS_PREDICT_LINEAR, IRS_PREDICT_MED };
enum { IRS_ELEMENTS_BYTES, IRS_ELEMENTS_FLOAT, IRS_ELEMENTS_INTEGER };

/* ---- the model ------------------------------------------------------------------------------- */

/* rANS. The state of a lane is a number x of 31 bits, at least IRS_LOW_STATE. Encoding a symbol
 * that owns f of the 2^k slots of a table, from slot s on, replaces x by
 *
 *     (x / f) 2^k + s + x mod f,
 *
 * after the low 16 bits of x have been written out if x >= f 2^(31-k). Decoding undoes this: the
 * low k bits of x are a slot of the symbol; x becomes f (x >> k) + slot - s, and a word is read if
 * x falls below IRS_LOW_STATE (*renormalising*).
 *
 * A symbol that a table does not hold is coded as an *escape*, and sent as a byte of its own. */
#define IRS_LOW_STATE UINT32_C(0x8000)
#define IRS_TABLE_ENTRIES 257 /* 256 symbols and the escape */

/* An encoder entry holds 2^k - f in bits 0 to 10 and s in bits 11 to 21. The bits above them are
 * chosen as the highest with which the whole entry e is at most (2^64 - 1) / f, so that the
 * division becomes a product: x / f = (x + 1) e >> 64 for every x below f 2^(31-k). This is exact:
 * e lacks more than 0 of 2^64 / f, so that no multiple of f is reached too early, and at most 2^22,
 * which costs less than the 1 that was added, as f < 2^k <= 2^11. An entry of 0 means that the
 * table does not hold the symbol.
 *
 * A decoder entry belongs to a slot: symbol in bits 0 to 7, f in bits 8 to 18, slot - s in bits 19
 * to 29, and bit 31 for the escape. */

struct irs_rans_model {
    uint8_t channel_axis, predictor, residual, has_references, table_bits, lanes;
    uint8_t bins, levels, tables;
    uint8_t elements, keep, tail, zero, initial, flip;
    uint32_t top, channels, classes;
    uint64_t base;
    uint32_t activity[7];   /* thresholds between levels; unused ones exceed any activity */
    uint8_t thresholds[16]; /* of the prediction, between bins */

    /* arrays over channels, in the memory of the schema */
    int16_t *west_north; /* weights of W (low byte) and N (high byte) */
    int16_t *corners;    /* weights of NW and NE */
    uint16_t *reference; /* two for each channel */
    int16_t *reference_weight;
    uint8_t *map; /* [levels][bins][channels]: the table to use */

    uint64_t *encoder; /* 256 entries for each table, then the escapes of all tables */
    uint32_t *decoder; /* 2^k entries for each table */
};

static inline uint64_t *irs_escape_entries(const irs_rans_model *m) {
    return m->encoder + (size_t)m->tables * 256;
}

static inline int irs_has_references(const irs_rans_model *m) {
#ifdef IRS_NO_REFERENCES
    (void)m;
    return 0;
#else
    return m->has_references;
#endif
}

/* Level 0: each channel has one table and no prediction, so that there are no contexts to find. */
static inline int irs_has_one_context(const irs_rans_model *m) {
    return m->bins == 1 && m->levels == 1 && !m->residual;
}

/* ---- one chunk ------------------------------------------------------------------------------- */

/* How the pixels of a tensor lie in memory. */
typedef struct irs_geometry {
    uint32_t width, channels;
    size_t height;
    size_t plane; /* height * width if channels come before them, 0 if channels come last */
} irs_geometry;

/* Elements [first, first + count) in pixel order, which are coded together: whole pixels. */
typedef struct irs_chunk {
    size_t first, count;
} irs_chunk;

IRS_INTERNAL void irs_geometry_init(irs_geometry *geometry, const irs_rans_model *model,
                                    uint32_t rank, const uint32_t *dims);

/* Bytes of scratch memory for a chunk of `count` elements. */
IRS_INTERNAL uint64_t irs_rans_scratch_size(const irs_rans_model *model,
                                            const irs_geometry *geometry, size_t count);

/* Encodes a chunk. `tensor` holds the elements of the whole tensor, after quantization.
 * IRS_ERR_BUFFER if the result does not fit `capacity`. */
IRS_INTERNAL irs_status irs_rans_encode_chunk(const irs_spec *spec, const irs_geometry *geometry,
                                              const uint8_t *tensor, irs_chunk chunk,
                                              uint8_t *scratch, uint8_t *target, size_t capacity,
                                              size_t *size);

#ifndef IRS_ENCODE_ONLY
/* Decodes a chunk into its place in `tensor`; IRS_ERR_CORRUPT if the payload is none. */
IRS_INTERNAL irs_status irs_rans_decode_chunk(const irs_spec *spec, const irs_geometry *geometry,
                                              const uint8_t *payload, size_t size, irs_chunk chunk,
                                              uint8_t *scratch, uint8_t *tensor);
#endif

/* ---- elements.c: elements and symbols -------------------------------------------------------- */

/* Splits elements into symbols, in pixel order, and remaining bits. */
IRS_INTERNAL irs_status irs_split_elements(const irs_spec *spec, const irs_geometry *geometry,
                                           const uint8_t *tensor, irs_chunk chunk, uint8_t *symbols,
                                           uint8_t *bits, size_t capacity, size_t *size);

#ifndef IRS_ENCODE_ONLY
/* Joins them again. May change `symbols`. */
IRS_INTERNAL irs_status irs_join_elements(const irs_spec *spec, const irs_geometry *geometry,
                                          uint8_t *symbols, const uint8_t *bits, size_t size,
                                          irs_chunk chunk, uint8_t *tensor);
#endif

/* Copies the elements of a chunk as they are between the tensor and pixel order. */
IRS_INTERNAL void irs_to_pixel_order(const irs_spec *spec, const irs_geometry *geometry,
                                     const uint8_t *tensor, irs_chunk chunk, uint8_t *target);
IRS_INTERNAL void irs_from_pixel_order(const irs_spec *spec, const irs_geometry *geometry,
                                       const uint8_t *source, irs_chunk chunk, uint8_t *tensor);

/* ---- memory of a chunk while it is coded ----------------------------------------------------- */

/* Symbols of the pixels around one, `channels` each. */
typedef struct irs_neighbours {
    const uint8_t *west, *north, *north_west, *north_east;
} irs_neighbours;

typedef struct irs_scratch {
    uint8_t *symbols;   /* of the chunk, in pixel order */
    uint8_t *coded;     /* what is coded, with residual models */
    uint8_t *tables;    /* of each symbol */
    uint8_t *buffer;    /* words and escapes of the encoder */
    uint8_t *start;     /* a row of `initial`: stands for missing pixels */
    uint8_t *base;      /* predictions of one pixel */
    uint8_t *refined;   /* the same, improved by references */
    int16_t *residuals; /* of one pixel, from `base` */
    uint32_t *sums;     /* sums of the residuals of the last width + 1 pixels */
} irs_scratch;

/* A payload while it is decoded: words are read from the front, escaped symbols from the back. */
typedef struct irs_stream {
    const uint8_t *front, *back, *end;
    uint32_t states[IRS_MAX_LANES];
    int underflow; /* the payload ended too early */
} irs_stream;

/* ---- steps 2 and 3, for several machines ----------------------------------------------------- */

/* Vector code that is built. Whether an x86 machine has it is found out at run time. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(IRS_PORTABLE)
#define IRS_HAS_V128 1
#ifndef IRS_NO_AVX2
#define IRS_HAS_V256 1
#endif
#elif defined(__aarch64__) && defined(__GNUC__) && !defined(IRS_PORTABLE)
#define IRS_HAS_V128 1
#endif

/* Finds contexts of known symbols: fills scratch->tables and, with residuals, scratch->coded. */
typedef void irs_find_contexts_fn(const irs_rans_model *model, const irs_geometry *geometry,
                                  const irs_scratch *scratch, irs_chunk chunk);

/* Decodes symbols, with their contexts, to scratch->symbols. */
typedef irs_status irs_rans_decode_fn(const irs_rans_model *model, const irs_geometry *geometry,
                                      const irs_scratch *scratch, irs_chunk chunk, irs_stream *in);

/* Tables of the symbols of a pixel; those of the next pixel follow after `stride` bytes, which is 0
 * if all pixels have the same. */
typedef struct irs_tables {
    const uint8_t *first;
    size_t stride;
} irs_tables;

/* Encodes symbols with their tables. `buffer` has irs_rans_buffer_size() bytes. */
typedef irs_status irs_rans_encode_fn(const irs_rans_model *model, const uint8_t *symbols,
                                      irs_tables tables, size_t pixels, uint8_t *buffer,
                                      uint8_t *target, size_t capacity, size_t *size);

IRS_INTERNAL irs_find_contexts_fn irs_find_contexts_portable;
IRS_INTERNAL irs_rans_encode_fn irs_rans_encode_portable;
#ifndef IRS_SMALL_CODE
IRS_INTERNAL irs_find_contexts_fn irs_find_contexts_narrow;
#endif
#ifdef IRS_HAS_V128
IRS_INTERNAL irs_find_contexts_fn irs_find_contexts_v128;
IRS_INTERNAL irs_rans_encode_fn irs_rans_encode_v128;
#endif
#ifdef IRS_HAS_V256
IRS_INTERNAL irs_find_contexts_fn irs_find_contexts_v256;
IRS_INTERNAL irs_rans_encode_fn irs_rans_encode_v256;
#endif

#ifndef IRS_ENCODE_ONLY
IRS_INTERNAL irs_rans_decode_fn irs_rans_decode_portable;
#ifndef IRS_SMALL_CODE
IRS_INTERNAL irs_rans_decode_fn irs_rans_decode_narrow;
#endif
#ifdef IRS_HAS_V128
IRS_INTERNAL irs_rans_decode_fn irs_rans_decode_v128;
#endif
#ifdef IRS_HAS_V256
IRS_INTERNAL irs_rans_decode_fn irs_rans_decode_v256;
#endif
#endif

/* Bytes for the words and escapes of `count` symbols, including what vector code may touch. */
static inline uint64_t irs_rans_buffer_size(uint64_t count) { return count / 8 * 19 + 256; }

/* Puts a payload together from states, words and escapes. */
IRS_INTERNAL irs_status irs_rans_finish(const irs_rans_model *model, const uint32_t *states,
                                        const uint8_t *words, const uint8_t *words_end,
                                        const uint8_t *escapes, const uint8_t *escapes_end,
                                        uint8_t *target, size_t capacity, size_t *size);

#ifndef IRS_ENCODE_ONLY
/* Decodes one symbol on a lane; returns 0 if the payload ends too early. */
static inline int irs_rans_decode_symbol(const irs_rans_model *m, uint32_t table, uint32_t lane,
                                         irs_stream *in, uint8_t *symbol) {
    uint32_t bits = m->table_bits, state = in->states[lane];
    uint32_t slot = state & ((UINT32_C(1) << bits) - 1);
    uint32_t entry = m->decoder[((size_t)table << bits) + slot];
    state = (entry >> 8 & 0x7FF) * (state >> bits) + (entry >> 19 & 0x7FF);

    /* renormalising cannot be predicted: there is no branch, except at the end of the payload */
    uint32_t renormalise = state < IRS_LOW_STATE;
    if ((size_t)(in->back - in->front) < 2) {
        if (renormalise) {
            return 0;
        }
    } else {
        uint32_t refilled = state << 16 | irs_load16(in->front);
        state = renormalise ? refilled : state;
        in->front += 2 * renormalise;
    }
    in->states[lane] = state;

    *symbol = (uint8_t)entry;
    if (entry >> 31) {
        if (in->back == in->front) {
            return 0;
        }
        *symbol = *--in->back;
    }
    return 1;
}

/* Decodes symbols of `count` channels, at most as many as lanes; returns 0 if the payload ends too
 * early. */
static inline int irs_rans_decode_lanes(const irs_rans_model *m, const uint8_t *restrict tables,
                                        uint32_t count, irs_stream *restrict in,
                                        uint8_t *restrict symbols) {
    for (uint32_t lane = 0; lane < count; lane++) {
        if (!irs_rans_decode_symbol(m, tables[lane], lane, in, symbols + lane)) {
            return 0;
        }
    }
    return 1;
}
#endif

#endif
