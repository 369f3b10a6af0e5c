/* The path for few channels: one symbol at a time, the bin of its prediction from a table. */
#include "static_walk.h"

#ifndef IRS_SMALL
/* For each prediction the place of its bin in the rows of a level. */
static void find_rows(const irs_model *m, uint8_t *row_of) {
    uint32_t bin = 0;
    for (uint32_t prediction = 0; prediction < 256; prediction++) {
        while (bin + 1 < m->bins && prediction >= m->thresholds[bin]) {
            bin++;
        }
        row_of[prediction] = (uint8_t)(bin * m->channels);
    }
}

static inline uint8_t predict_one(const irs_model *m, const irs_pixels *near, uint32_t c) {
    int32_t w = near->west[c], n = near->north[c], nw = near->north_west[c], ne = near->north_east[c];
    if (m->predictor == IRS_PREDICT_NONE) {
        return m->initial;
    }
    if (m->predictor == IRS_PREDICT_MED) {
        int32_t low = w < n ? w : n, high = w < n ? n : w, plane = w + n - nw;
        return (uint8_t)(plane < low ? low : plane > high ? high : plane);
    }
    const int8_t *a = (const int8_t *)(m->west_north + c), *b = (const int8_t *)(m->corners + c);
    int32_t value = (a[0] * w + (a[1] * n + b[0] * nw + b[1] * ne + 32)) >> 6; /* the symbol to the west comes last */
    value = value < 0 ? 0 : value;
    return (uint8_t)(value > 255 ? 255 : value);
}

/* without a branch, which could not be predicted */
static inline uint32_t distance(int32_t a, int32_t b) {
    int32_t sign = (a - b) >> 31;
    return (uint32_t)(((a - b) ^ sign) - sign);
}

void irs_model_narrow(const irs_model *model, const irs_geometry *g, const irs_scratch *scratch, irs_part part) {
    walk w;
    uint8_t row_of[256];
    begin(&w, model, g, scratch, part);
    find_rows(model, row_of);
    const irs_model copy = *model, *m = &copy; /* in registers: no symbol that is written could change it */
    const irs_scratch memory = *scratch, *s = &memory;
    uint32_t channels = m->channels;
    for (size_t place = 0; place < part.count; place += channels) {
        irs_pixels near;
        const uint8_t *map = look_around(&w, &near), *here = s->symbols + place;
        uint32_t sum = 0;
        for (uint32_t c = 0; c < channels; c++) {
            uint8_t prediction = predict_one(m, &near, c);
            s->tables[place + c] = map[row_of[prediction] + c];
            s->coded[place + c] = (uint8_t)(here[c] - prediction);
            sum += distance(here[c], prediction);
        }
        step(&w, sum);
    }
}

#ifndef IRS_ENCODE_ONLY
irs_status irs_decode_narrow(const irs_model *model, const irs_geometry *g, const irs_scratch *s, irs_part part, irs_stream *in) {
    walk w;
    uint8_t row_of[256];
    begin(&w, model, g, s, part);
    find_rows(model, row_of);
    const irs_model copy = *model, *m = &copy; /* in registers: no symbol that is written could change it */
    irs_stream stream = *in;
    uint32_t channels = m->channels, lanes = m->lanes, residual = m->residual ? 0xFF : 0;
    for (size_t place = 0; place < part.count; place += channels) {
        irs_pixels near;
        const uint8_t *map = look_around(&w, &near);
        uint8_t *here = s->symbols + place;
        uint32_t sum = 0;
        for (uint32_t c = 0; c < channels; c++) {
            uint8_t prediction = predict_one(m, &near, c), symbol;
            if (!irs_decode_symbol(m, map[row_of[prediction] + c], c & (lanes - 1), &stream, &symbol)) {
                return IRS_ERR_CORRUPT;
            }
            here[c] = (uint8_t)(symbol + (prediction & residual));
            sum += distance(here[c], prediction);
        }
        step(&w, sum);
    }
    *in = stream;
    return IRS_OK;
}
#endif
#endif
