/* static-rans: the trained model of one tensor as it lies in memory once the descriptor is open, and the steps of coding. */
#ifndef IRS_STATIC_RANS_H
#define IRS_STATIC_RANS_H

#include "../internal.h"

#define IRS_MAX_LANES 32
#define IRS_PADDING 64 /* bytes that vector loads may touch behind a row of channels */
#define IRS_RAW_SYMBOL 255
#define IRS_TOP_SYMBOL 254
#define IRS_LOW_STATE UINT32_C(0x8000)
#define IRS_NARROW 4 /* channels that leave vectors nearly empty: decoded one symbol at a time */
#define IRS_FEW 8    /* channels whose contexts are found for runs of pixels, where all symbols are known */

enum { IRS_PREDICT_NONE, IRS_PREDICT_SHARED, IRS_PREDICT_LINEAR, IRS_PREDICT_MED };
enum { IRS_ELEMENTS_BYTES, IRS_ELEMENTS_FLOAT, IRS_ELEMENTS_INTEGER };

/* An encoder entry of a symbol with frequency f in a table of k bits: 2^k - f in bits 0 to 10, its first slot in 11 to 21; above
 * them the highest bits with which the whole entry e is at most (2^64 - 1) / f. A state x below f 2^(31-k) then has
 * x / f = (x + 1) e >> 64: what e lacks of 2^64 / f is more than 0, so no multiple of f is reached too early, and at most 2^22,
 * which makes up for less than the 1, as f < 2^k <= 2^11. Zero: the table does not hold the symbol. */
#define IRS_TABLE_ENTRIES 257 /* symbols and the escape */

/* A decoder entry per slot: symbol in bits 0 to 7, frequency in 8 to 18, slot - start in 19 to 29, escape in 31. */

struct irs_model {
    uint8_t channel_axis, predictor, residual, has_references, table_bits, lanes, bins, levels, tables;
    uint8_t elements, keep, tail, zero, initial, flip;
    uint32_t top, channels, classes;
    uint64_t base;
    uint32_t activity[7]; /* thresholds, those that are not there beyond any activity */
    uint8_t thresholds[16];
    /* arrays over channels, in the boundary's memory */
    int16_t *west_north; /* weights of W (low byte) and N (high byte) */
    int16_t *corners;    /* weights of NW and NE */
    uint16_t *reference; /* two a channel */
    int16_t *reference_weight;
    uint8_t *map; /* [levels][bins][channels]: table */
    uint64_t *encoder; /* 256 entries a table, then the escapes' */
    uint32_t *decoder;
};

static inline uint64_t *irs_escapes(const irs_model *m) { return m->encoder + (size_t)m->tables * 256; }

static inline int irs_has_references(const irs_model *m) {
#ifdef IRS_NO_REFERENCES
    (void)m;
    return 0;
#else
    return m->has_references;
#endif
}

typedef struct irs_geometry {
    uint32_t width, channels;
    size_t height;
    size_t plane; /* height * width when the channels come before them, 0 when they come last */
} irs_geometry;

/* Part of a tensor that is coded at a time: elements [first, first + count) in pixel order. */
typedef struct irs_part {
    size_t first, count;
} irs_part;

void irs_geometry_of(irs_geometry *geometry, const irs_model *model, uint32_t rank, const uint32_t *dims);

/* Scratch for one part of `count` elements. */
uint64_t irs_static_scratch(const irs_model *model, const irs_geometry *geometry, size_t count);

/* Codes a part; `tensor` are the wire elements of the whole tensor. IRS_ERR_BUFFER when it does not fit `capacity`. */
irs_status irs_static_encode(const irs_spec *spec, const irs_geometry *geometry, const uint8_t *tensor, irs_part part,
                             uint8_t *scratch, uint8_t *target, size_t capacity, size_t *size);
irs_status irs_static_decode(const irs_spec *spec, const irs_geometry *geometry, const uint8_t *payload, size_t size,
                             irs_part part, uint8_t *scratch, uint8_t *tensor);

/* elements.c: between wire elements, and symbols (in pixel order) with remaining bits */
irs_status irs_split(const irs_spec *spec, const irs_geometry *geometry, const uint8_t *tensor, irs_part part,
                     uint8_t *symbols, uint8_t *bits, size_t capacity, size_t *size);
irs_status irs_join(const irs_spec *spec, const irs_geometry *geometry, const uint8_t *symbols, const uint8_t *bits,
                    size_t size, irs_part part, uint8_t *tensor);
/* wire elements of a part as they are, in pixel order */
void irs_gather(const irs_spec *spec, const irs_geometry *geometry, const uint8_t *tensor, irs_part part, uint8_t *target);
void irs_scatter(const irs_spec *spec, const irs_geometry *geometry, const uint8_t *source, irs_part part, uint8_t *tensor);

/* Symbols of the pixels around one, `channels` each. */
typedef struct irs_pixels {
    const uint8_t *west, *north, *north_west, *north_east;
} irs_pixels;

/* Memory of one part while it is coded. */
typedef struct irs_scratch {
    uint8_t *symbols; /* of the part, in pixel order */
    uint8_t *coded;   /* what the entropy coder codes */
    uint8_t *tables;
    uint8_t *room;    /* of the entropy coder */
    uint8_t *start;   /* a row of `initial`: stands for missing pixels */
    uint8_t *base;    /* predictions of one pixel */
    uint8_t *refined;
    int16_t *residuals; /* of one pixel */
    uint32_t *sums;     /* of the last width + 1 pixels */
} irs_scratch;

/* Words from the front, escaped symbols from the back. */
typedef struct irs_stream {
    const uint8_t *front, *back, *end; /* the payload ends at `end` */
    uint32_t states[IRS_MAX_LANES];
    int starved; /* the payload ended too early */
} irs_stream;

/* One table a channel and no prediction: level L0 needs no walk. */
static inline int irs_is_plain(const irs_model *m) { return m->bins == 1 && m->levels == 1 && !m->residual; }

/* Which vector paths are built; whether the machine has SSE4.1 and AVX2 is asked at run time. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(IRS_PORTABLE)
#define IRS_HAS_V128 1
#ifndef IRS_NO_AVX2
#define IRS_HAS_V256 1
#endif
#elif defined(__aarch64__) && defined(__GNUC__) && !defined(IRS_PORTABLE)
#define IRS_HAS_V128 1
#endif

/* The steps of coding, each for any machine, for few channels, and for vectors of 16 and 32 bytes; all give the same bytes. */

/* for models that are not plain: fills scratch->tables, and scratch->coded for residual models */
typedef void irs_model_part(const irs_model *model, const irs_geometry *geometry, const irs_scratch *scratch, irs_part part);
irs_model_part irs_model_portable, irs_model_narrow, irs_model_v128, irs_model_v256;

/* fills scratch->symbols */
typedef irs_status irs_decode_part(const irs_model *model, const irs_geometry *geometry, const irs_scratch *scratch,
                                   irs_part part, irs_stream *in);
irs_decode_part irs_decode_portable, irs_decode_narrow, irs_decode_v128, irs_decode_v256;

/* Tables of the channels of a pixel, and how far it is to those of the next pixel: 0 where all have the same. */
typedef struct irs_tables {
    const uint8_t *of;
    size_t stride;
} irs_tables;

/* symbols with their tables to states, words and escapes; `room` has irs_rans_room(count) bytes */
typedef irs_status irs_encode_part(const irs_model *model, const uint8_t *symbols, irs_tables tables, size_t pixels,
                                   uint8_t *room, uint8_t *target, size_t capacity, size_t *size);
irs_encode_part irs_encode_portable, irs_encode_v128, irs_encode_v256;

static inline uint64_t irs_rans_room(uint64_t count) { return count / 8 * 19 + 256; }

/* Puts a payload together: states, words, escapes. */
irs_status irs_rans_finish(const irs_model *model, const uint32_t *states, const uint8_t *words, const uint8_t *words_end,
                           const uint8_t *escapes, const uint8_t *escapes_end, uint8_t *target, size_t capacity,
                           size_t *size);

/* One symbol on a lane; 0 when the payload ends too early. */
static inline int irs_decode_symbol(const irs_model *m, uint32_t table, uint32_t lane, irs_stream *in, uint8_t *symbol) {
    uint32_t bits = m->table_bits, state = in->states[lane];
    uint32_t entry = m->decoder[((size_t)table << bits) + (state & ((UINT32_C(1) << bits) - 1))];
    state = (entry >> 8 & 0x7FF) * (state >> bits) + (entry >> 19 & 0x7FF);
    /* whether a word is taken cannot be predicted: no branch, but at the end of the payload */
    uint32_t hungry = state < IRS_LOW_STATE;
    if ((size_t)(in->back - in->front) < 2) {
        if (hungry) {
            return 0;
        }
    } else {
        uint32_t fed = state << 16 | load16(in->front);
        state = hungry ? fed : state;
        in->front += 2 * hungry;
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

/* Symbols of `count` channels, at most as many as lanes; 0 when the payload ends too early. */
static inline int irs_decode_lanes(const irs_model *m, const uint8_t *restrict tables, uint32_t count, irs_stream *restrict in,
                                   uint8_t *restrict symbols) {
    for (uint32_t lane = 0; lane < count; lane++) {
        if (!irs_decode_symbol(m, tables[lane], lane, in, symbols + lane)) {
            return 0;
        }
    }
    return 1;
}

#endif
