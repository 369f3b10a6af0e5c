/* The vector paths, written once over what vector_*.h give: a row of VECTOR_SIZE channels at a time for prediction and contexts,
 * a quarter of it for states, which are 32 bits wide; models that come here have lanes for a quarter at least. Rows are read and
 * written up to VECTOR_SIZE - 1 bytes too far; IRS_PADDING covers that, and what is written there is overwritten by the next
 * group or pixel. */
#ifndef IRS_STATIC_VECTOR_H
#define IRS_STATIC_VECTOR_H

#include "static_cursor.h"

#define QUARTER (VECTOR_SIZE / 4)

static const uint8_t edge[2 * VECTOR_SIZE] = {
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
#if VECTOR_SIZE == 32
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
#endif
};

/* all ones in the first `count` bytes; count at most VECTOR_SIZE */
VECTOR vector first_bytes(uint32_t count) { return load(edge + VECTOR_SIZE - count); }

VECTOR uint32_t at_most(uint32_t count, uint32_t most) { return count < most ? count : most; }

/* ---- contexts ------------------------------------------------------------------------------------------------------ */

VECTOR vector med_row(vector w, vector n, vector nw) {
    vector low = min_bytes(w, n), high = max_bytes(w, n), plane = sub_bytes(add_bytes(w, n), nw);
    vector over = same_bytes(max_bytes(nw, high), nw), under = same_bytes(min_bytes(nw, low), nw);
    return pick(over, low, pick(under, high, plane));
}

/* Predictions of the channels from c on. */
VECTOR vector predict_row(const irs_model *m, const irs_pixels *near, uint32_t c) {
    if (m->predictor == IRS_PREDICT_NONE) {
        return all_bytes(m->initial);
    }
    vector w = load(near->west + c), n = load(near->north + c), nw = load(near->north_west + c);
    if (m->predictor == IRS_PREDICT_MED) {
        return med_row(w, n, nw);
    }
    return weigh(m->west_north + c, m->corners + c, w, n, nw, load(near->north_east + c));
}

/* Residuals of a row, as far as `here` says; magnitudes are added to `sums`. */
VECTOR void residual_row(const irs_model *m, vector symbols, vector base, vector here, int16_t *residuals, vector *sums) {
    vector s = both(symbols, here), b = both(base, here);
    *sums = add_up(*sums, sub_bytes(max_bytes(s, b), min_bytes(s, b)));
    if (irs_has_references(m)) {
        put_differences(residuals, s, b);
    }
}

/* `map`: the rows of bins of one activity level, from the first channel of the row on. */
VECTOR vector choose_row(const irs_model *m, const uint8_t *map, vector prediction) {
    vector table = load(map);
    for (uint32_t i = 0; i + 1 < m->bins; i++) {
        map += m->channels;
        vector reached = same_bytes(max_bytes(prediction, all_bytes(m->thresholds[i])), prediction);
        table = pick(reached, load(map), table);
    }
    return table;
}

/* Tables of one pixel, and what is coded; returns the sum of the residuals' magnitudes. */
VECTOR uint32_t model_pixel(const irs_model *m, const irs_scratch *s, const irs_pixels *near, const uint8_t *map, size_t place) {
    const uint8_t *here = s->symbols + place;
    vector sums = all_bytes(0);
    for (uint32_t c = 0; c < m->channels; c += VECTOR_SIZE) {
        vector symbols = load(here + c), base = predict_row(m, near, c);
        residual_row(m, symbols, base, first_bytes(at_most(m->channels - c, VECTOR_SIZE)), s->residuals + c, &sums);
        if (irs_has_references(m)) {
            store(s->base + c, base);
            continue;
        }
        store(s->tables + place + c, choose_row(m, map + c, base));
        if (m->residual) {
            store(s->coded + place + c, sub_bytes(symbols, base));
        }
    }
    if (irs_has_references(m)) {
        refine_row(m, s->base, s->residuals, 0, m->channels, s->refined);
        for (uint32_t c = 0; c < m->channels; c += VECTOR_SIZE) {
            vector prediction = load(s->refined + c);
            store(s->tables + place + c, choose_row(m, map + c, prediction));
            if (m->residual) {
                store(s->coded + place + c, sub_bytes(load(here + c), prediction));
            }
        }
    }
    return sum_of(sums);
}

VECTOR void model_part(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part) {
    walk w;
    begin(&w, m, g, s, part);
    for (size_t place = 0; place < part.count; place += m->channels) {
        irs_pixels near;
        const uint8_t *map = look_around(&w, &near);
        step(&w, model_pixel(m, s, &near, map, place));
    }
}

/* ---- states of the encoder ----------------------------------------------------------------------------------------- */

typedef struct output {
    uint8_t *words, *escapes;
} output;

/* Escapes go out in the order opposite to decoding; their lanes code the escape instead. Returns where the next one goes. */
VECTOR_TARGET __attribute__((noinline)) static uint8_t *put_escapes(uint32_t tables, uint32_t absent, uint16_t *indices,
                                                                    uint8_t *target) {
    for (uint32_t lane = QUARTER; lane-- > 0;) {
        if (absent >> lane & 1) {
            *target++ = (uint8_t)indices[lane];
            indices[lane] = (uint16_t)(tables * 256 + (indices[lane] >> 8));
        }
    }
    return target;
}

/* `lanes` have a symbol, whose entries `indices` name; returns their next states. */
VECTOR vector encode_quarter(const irs_model *m, uint16_t *indices, uint32_t lanes, vector old, output *out) {
    vector low, high, eleven = all_lanes(0x7FF);
    look_up_pairs(m->encoder, indices, &low, &high);
    uint32_t absent = top_bits(same_lanes(high, all_lanes(0))) & lanes;
    if (absent != 0) {
        out->escapes = put_escapes(m->tables, absent, indices, out->escapes);
        look_up_pairs(m->encoder, indices, &low, &high);
    }
    vector others = both(low, eleven), start = both(right(low, 11), eleven);
    vector full = add(old, left(others, 31u - m->table_bits)); /* top bit: a word goes out */
    uint32_t givers = top_bits(full) & lanes;
    put_words(out->words, old, givers);
    out->words -= 2 * count_of(givers);
    vector state = pick_by_top(full, right(old, 16), old);
    /* the quotient is right or one too low: `high` lacks at most 1.01 of 2^32 / f, and the state is below 2^31 */
    vector quotient = high_product(state, high), frequency = sub(all_lanes(UINT32_C(1) << m->table_bits), others);
    vector rest = sub(state, multiply(quotient, frequency));
    vector next = add(add(left(quotient, m->table_bits), start), rest);
    return add(next, without(others, above(frequency, rest)));
}

/* As many as there are of a quarter that begins with the symbol `from` of `count`. */
VECTOR void encode_some(const irs_model *m, uint16_t *indices, uint32_t count, uint32_t from, vector *state, output *out) {
    if (count >= from + QUARTER) {
        *state = encode_quarter(m, indices + from, (1u << QUARTER) - 1, *state, out);
    } else if (count > from) {
        vector next = encode_quarter(m, indices + from, (1u << (count - from)) - 1, *state, out);
        *state = pick(first_bytes(4 * (count - from)), next, *state);
    }
}

/* `count` symbols, at most a row, of the channels from `first` on, the last ones first; the model's lanes fill `vectors`. */
VECTOR void encode_row(const irs_model *m, vector symbols, vector tables, uint32_t first, uint32_t count, uint32_t vectors,
                       vector *states, output *out) {
    uint16_t indices[VECTOR_SIZE];
    vector here = first_bytes(count); /* what lies behind a row may be no table at all */
    put_pairs(indices, both(symbols, here), both(tables, here));
    __asm__ volatile("" : "+m"(indices)); /* really through memory: taking words out of a vector costs more */
    /* constant where a row has all lanes */
    uint32_t at = VECTOR_SIZE == IRS_MAX_LANES ? 0 : first / QUARTER, last = vectors - 1;
    encode_some(m, indices, count, 3 * QUARTER, &states[(at + 3) & last], out);
    encode_some(m, indices, count, 2 * QUARTER, &states[(at + 2) & last], out);
    encode_some(m, indices, count, QUARTER, &states[(at + 1) & last], out);
    encode_some(m, indices, count, 0, &states[at & last], out);
}

VECTOR irs_status encode_lanes(const irs_model *model, const uint8_t *symbols, irs_tables tables, size_t pixels, uint8_t *room,
                               uint8_t *target, size_t capacity, size_t *size, uint32_t vectors) {
    const irs_model copy = *model, *m = &copy; /* in registers: nothing that is written could change it */
    uint32_t channels = m->channels;
    uint8_t *end = room + irs_rans_room(pixels * (uint64_t)channels);
    output out = {end, room};
    vector states[IRS_MAX_LANES / QUARTER];
    for (uint32_t k = 0; k < IRS_MAX_LANES / QUARTER; k++) {
        states[k] = all_lanes(IRS_LOW_STATE);
    }
    for (size_t pixel = pixels; pixel-- > 0;) {
        const uint8_t *s = symbols + pixel * channels, *t = tables.of + pixel * tables.stride;
        for (uint32_t c = channels; c > 0;) {
            uint32_t count = (c - 1) % VECTOR_SIZE + 1;
            c -= count;
            encode_row(m, load(s + c), load(t + c), c, count, vectors, states, &out);
        }
    }
    uint32_t finals[IRS_MAX_LANES];
    for (uint32_t k = 0; k < IRS_MAX_LANES / QUARTER; k++) {
        store(finals + QUARTER * k, states[k]);
    }
    return irs_rans_finish(m, finals, out.words, end, room, out.escapes, target, capacity, size);
}

VECTOR irs_status encode_part(const irs_model *m, const uint8_t *symbols, irs_tables tables, size_t pixels, uint8_t *room,
                              uint8_t *target, size_t capacity, size_t *size) {
#if VECTOR_SIZE == IRS_MAX_LANES
    switch (m->lanes) { /* constants keep the states in registers; narrower vectors are too many for that */
    case 32: return encode_lanes(m, symbols, tables, pixels, room, target, capacity, size, 32 / QUARTER);
    case 16: return encode_lanes(m, symbols, tables, pixels, room, target, capacity, size, 16 / QUARTER);
    default: return encode_lanes(m, symbols, tables, pixels, room, target, capacity, size, 1);
    }
#else
    return encode_lanes(m, symbols, tables, pixels, room, target, capacity, size, m->lanes / (uint32_t)QUARTER);
#endif
}

/* ---- states of the decoder ----------------------------------------------------------------------------------------- */

#ifndef IRS_ENCODE_ONLY
/* The stream, in registers where vectors are wide. What is not inlined works on a copy of it. */
typedef struct reading {
    const uint8_t *front, *back, *end;
    vector states[IRS_MAX_LANES / QUARTER];
    int starved;
} reading;

VECTOR void put_back(const reading *r, irs_stream *in) {
    in->front = r->front;
    in->back = r->back;
    in->end = r->end;
    in->starved = r->starved;
    for (uint32_t k = 0; k < IRS_MAX_LANES / QUARTER; k++) {
        store(in->states + QUARTER * k, r->states[k]);
    }
}

VECTOR void pick_up(reading *r, const irs_stream *in) {
    r->front = in->front;
    r->back = in->back;
    r->end = in->end;
    r->starved = in->starved;
    for (uint32_t k = 0; k < IRS_MAX_LANES / QUARTER; k++) {
        r->states[k] = load(in->states + QUARTER * k);
    }
}

/* Symbols of escapes, in the order of lanes, into their entries; symbols that the payload no longer has become 0. */
VECTOR_TARGET static vector take_escapes(vector entries, uint32_t escapes, const uint8_t *front, const uint8_t **back) {
    uint32_t found[QUARTER];
    store(found, entries);
    for (; escapes != 0; escapes &= escapes - 1) {
        int some = *back > front;
        *back -= some;
        found[__builtin_ctz(escapes)] = some ? **back : 0;
    }
    return load(found);
}

/* Near the end of the payload: one symbol at a time. */
VECTOR_TARGET static vector decode_slowly(const irs_model *m, vector tables, uint32_t first, uint32_t count, irs_stream *in) {
    uint8_t numbers[VECTOR_SIZE], symbols[VECTOR_SIZE] = {0};
    store(numbers, tables);
    for (uint32_t i = 0; i < count && !in->starved; i++) {
        in->starved |= !irs_decode_symbol(m, numbers[i], (first + i) & (m->lanes - 1u), in, symbols + i);
    }
    return load(symbols);
}

/* A quarter of a row; without `all`, `active` are the lanes that have a symbol. The caller has checked that there are words to read.
 * Returns decoder entries, the symbols in their lowest bytes. */
VECTOR vector decode_quarter(const irs_model *m, vector tables, int all, vector active, vector *states, reading *r) {
    vector old = *states, mask = all_lanes((UINT32_C(1) << m->table_bits) - 1), eleven = all_lanes(0x7FF);
    vector index = add(left(tables, m->table_bits), both(old, mask));
    index = all ? index : both(index, active);
    vector entry = look_up(m->decoder, index);
    vector frequency = both(right(entry, 8), eleven), offset = both(right(entry, 19), eleven);
    vector state = add(multiply(frequency, right(old, m->table_bits)), offset);
    vector hungry = above(all_lanes(IRS_LOW_STATE), state);
    hungry = all ? hungry : both(hungry, active);
    uint32_t takers = top_bits(hungry), escapes = top_bits(all ? entry : both(entry, active));
    state = pick(hungry, either(left(state, 16), take_words(r->front, takers)), state);
    *states = all ? state : pick(active, state, old);
    r->front += 2 * count_of(takers);
    if (escapes != 0) {
        const uint8_t *back = r->back;
        entry = take_escapes(entry, escapes, r->front, &back);
        r->starved |= r->back - back != (ptrdiff_t)count_of(escapes);
        r->back = back;
    }
    return entry;
}

/* As many as there are of a quarter that begins with the symbol `from` of `count`. */
VECTOR vector decode_some(const irs_model *m, vector tables, uint32_t count, uint32_t from, vector *states, reading *r) {
    if (count >= from + QUARTER) {
        return decode_quarter(m, tables, 1, tables, states, r);
    }
    return count > from ? decode_quarter(m, tables, 0, first_bytes(4 * (count - from)), states, r) : all_bytes(0);
}

/* `count` symbols, at most a row, of the channels from `first` on; the model's lanes fill `vectors`. */
VECTOR vector decode_row(const irs_model *m, vector tables, uint32_t first, uint32_t count, uint32_t vectors, reading *r) {
    if (r->end - r->front < 80) {
        irs_stream in;
        put_back(r, &in);
        vector symbols = decode_slowly(m, tables, first, count, &in);
        pick_up(r, &in);
        return symbols;
    }
    /* constant where a row has all lanes */
    uint32_t at = VECTOR_SIZE == IRS_MAX_LANES ? 0 : first / QUARTER, last = vectors - 1;
    vector lanes[4], entries[4];
    widen(tables, lanes);
    entries[0] = decode_some(m, lanes[0], count, 0, &r->states[at & last], r);
    entries[1] = decode_some(m, lanes[1], count, QUARTER, &r->states[(at + 1) & last], r);
    entries[2] = decode_some(m, lanes[2], count, 2 * QUARTER, &r->states[(at + 2) & last], r);
    entries[3] = decode_some(m, lanes[3], count, 3 * QUARTER, &r->states[(at + 3) & last], r);
    r->starved |= r->front > r->back;
    return narrow(entries);
}

/* Symbols of one pixel; returns the sum of their residuals' magnitudes. */
VECTOR uint32_t decode_pixel(const irs_model *m, const irs_scratch *s, const irs_pixels *near, const uint8_t *map, uint8_t *here,
                             uint32_t vectors, reading *r) {
    uint32_t most = irs_has_references(m) ? at_most(m->lanes, VECTOR_SIZE) : VECTOR_SIZE;
    vector sums = all_bytes(0);
    for (uint32_t c = 0; c < m->channels; c += most) {
        uint32_t count = at_most(m->channels - c, most);
        vector base = predict_row(m, near, c), prediction = base;
        if (irs_has_references(m)) {
            store(s->base + c, base);
            refine_row(m, s->base, s->residuals, c, count, s->refined);
            prediction = load(s->refined);
        }
        vector symbols = decode_row(m, choose_row(m, map + c, prediction), c, count, vectors, r);
        symbols = m->residual ? add_bytes(symbols, prediction) : symbols;
        store(here + c, symbols);
        residual_row(m, symbols, base, first_bytes(count), s->residuals + c, &sums);
    }
    return sum_of(sums);
}

VECTOR irs_status decode_contexts(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part,
                                  uint32_t vectors, irs_stream *in) {
    walk w;
    reading r;
    begin(&w, m, g, s, part);
    pick_up(&r, in);
    size_t channels = m->channels;
    for (size_t place = 0; place < part.count && !r.starved; place += channels) {
        irs_pixels near;
        const uint8_t *map = look_around(&w, &near);
        step(&w, decode_pixel(m, s, &near, map, s->symbols + place, vectors, &r));
    }
    put_back(&r, in);
    return r.starved ? IRS_ERR_CORRUPT : IRS_OK;
}

VECTOR irs_status decode_plain(const irs_model *m, const irs_scratch *s, irs_part part, uint32_t vectors, irs_stream *in) {
    reading r;
    pick_up(&r, in);
    for (size_t i = 0; i < part.count && !r.starved; i += m->channels) {
        for (uint32_t c = 0; c < m->channels; c += VECTOR_SIZE) {
            uint32_t count = at_most(m->channels - c, VECTOR_SIZE);
            store(s->symbols + i + c, decode_row(m, load(m->map + c), c, count, vectors, &r));
        }
    }
    put_back(&r, in);
    return r.starved ? IRS_ERR_CORRUPT : IRS_OK;
}

VECTOR irs_status decode_lanes(const irs_model *model, const irs_geometry *g, const irs_scratch *s, irs_part part, uint32_t vectors,
                               irs_stream *in) {
    const irs_model copy = *model, *m = &copy; /* in registers: nothing that is written could change it */
    return irs_is_plain(m) ? decode_plain(m, s, part, vectors, in) : decode_contexts(m, g, s, part, vectors, in);
}

VECTOR irs_status decode_part(const irs_model *m, const irs_geometry *g, const irs_scratch *s, irs_part part, irs_stream *in) {
#if VECTOR_SIZE == IRS_MAX_LANES
    switch (m->lanes) { /* constants keep the states in registers; narrower vectors are too many for that */
    case 32: return decode_lanes(m, g, s, part, 32 / QUARTER, in);
    case 16: return decode_lanes(m, g, s, part, 16 / QUARTER, in);
    default: return decode_lanes(m, g, s, part, 1, in);
    }
#else
    return decode_lanes(m, g, s, part, m->lanes / (uint32_t)QUARTER, in);
#endif
}
#endif

#endif
