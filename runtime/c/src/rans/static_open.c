/* Opening a static-rans model: checks its parameters once and lays out what coding reads, in memory the caller gave. */
#include "static_rans.h"

#define HEAD_SIZE 16
#define ELEMENTS_SIZE 16
#define MAX_CHANNELS 65536

static const uint8_t *take(const uint8_t **p, const uint8_t *end, uint64_t size) {
    if (size > (uint64_t)(end - *p)) {
        return NULL;
    }
    const uint8_t *start = *p;
    *p += size;
    return start;
}

#ifdef IRS_BYTES_ONLY
static int elements_fit(const irs_model *m, const irs_spec *spec) {
    return m->elements == IRS_ELEMENTS_BYTES && spec->wire_size == 1 && (m->keep | m->tail | m->zero | m->top | m->base) == 0;
}
#else
static int mantissa_bits(const irs_spec *spec) {
    switch (spec->dtype) {
    case IRS_F32: return 23;
    case IRS_F16: return 10;
    case IRS_BF16: return 7;
    }
    return 0;
}

static int is_wide_integer(const irs_spec *spec) {
    return (spec->dtype >= IRS_I16 && spec->dtype <= IRS_I64) || (spec->dtype >= IRS_U16 && spec->dtype <= IRS_U64);
}

static int elements_fit(const irs_model *m, const irs_spec *spec) {
    int quantized = irs_is_quantized(spec);
    switch (m->elements) {
    case IRS_ELEMENTS_BYTES:
        return spec->wire_size == 1 && (m->keep | m->tail | m->zero | m->top | m->base) == 0;
    case IRS_ELEMENTS_FLOAT:
        return !quantized && mantissa_bits(spec) != 0 && m->keep + m->tail <= mantissa_bits(spec) && m->keep <= 7 &&
               m->zero <= IRS_TOP_SYMBOL && m->base < 65536 && (spec->element_size == 4 || m->top < 65536);
    case IRS_ELEMENTS_INTEGER:
        return !quantized && is_wide_integer(spec) && m->keep <= 32 && (m->tail | m->zero | m->top) == 0;
    }
    return 0;
}
#endif

static irs_status read_head(irs_model *m, const irs_spec *spec, const uint8_t *p) {
    m->channel_axis = p[0];
    m->residual = p[1] & 1;
    m->predictor = p[1] >> 1 & 3;
    m->has_references = p[1] >> 3 & 1;
    m->table_bits = p[2];
    m->bins = p[4];
    m->levels = p[5];
    m->tables = p[6];
    m->elements = p[7];
    m->classes = load16(p + 8);
    m->initial = p[10];
    m->channels = load32(p + 12);
    m->keep = p[16];
    m->tail = p[17];
    m->zero = p[18];
    m->top = load32(p + 20);
    m->base = load64(p + 24);
    if (p[1] > 15 || p[11] != 0 || p[19] != 0 || m->table_bits < 8 || m->table_bits > 11 || p[3] > 5) {
        return IRS_ERR_DESCRIPTOR;
    }
    m->lanes = (uint8_t)(1 << p[3]);
    if (m->bins - 1u > 15 || m->levels - 1u > 7 || m->tables - 1u > 63 || m->channels - 1 > MAX_CHANNELS - 1) {
        return IRS_ERR_DESCRIPTOR;
    }
    if (m->classes == 0 || m->classes > m->channels || m->classes > 256 || !elements_fit(m, spec)) {
        return IRS_ERR_DESCRIPTOR;
    }
    uint8_t type = irs_is_quantized(spec) ? spec->quantization.storage : spec->dtype;
    m->flip = type == IRS_I8 ? 0x80 : 0;
    /* every pixel has all channels, and parts consist of whole pixels */
    if (m->channel_axis == 0xFF ? m->channels != 1
                                : m->channel_axis >= spec->rank || spec->dims[m->channel_axis] != m->channels) {
        return IRS_ERR_DESCRIPTOR;
    }
    return spec->chunk % m->channels == 0 ? IRS_OK : IRS_ERR_DESCRIPTOR;
}

static irs_status read_thresholds(irs_model *m, const uint8_t **p, const uint8_t *end) {
    const uint8_t *activity = take(p, end, 4 * (m->levels - 1u));
    const uint8_t *bins = activity == NULL ? NULL : take(p, end, m->bins - 1u);
    if (bins == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    memset(m->activity, 0xFF, sizeof m->activity); /* beyond any activity */
    for (uint32_t i = 0; i + 1 < m->levels; i++) {
        m->activity[i] = load32(activity + 4 * i);
        if (i > 0 && m->activity[i] <= m->activity[i - 1]) {
            return IRS_ERR_DESCRIPTOR;
        }
    }
    for (uint32_t i = 0; i + 1 < m->bins; i++) {
        m->thresholds[i] = bins[i];
        if (i > 0 && bins[i] <= bins[i - 1]) {
            return IRS_ERR_DESCRIPTOR;
        }
    }
    return IRS_OK;
}

static uint32_t magnitude(int8_t weight) { return (uint32_t)(weight < 0 ? -weight : weight); }

static irs_status read_weights(irs_model *m, irs_arena *arena, const uint8_t **p, const uint8_t *end) {
    if (m->predictor == IRS_PREDICT_NONE || m->predictor == IRS_PREDICT_MED) {
        return IRS_OK;
    }
    uint32_t rows = m->predictor == IRS_PREDICT_SHARED ? 1 : m->channels;
    const uint8_t *weights = take(p, end, 4 * (uint64_t)rows);
    m->west_north = irs_allot(arena, 2 * (size_t)m->channels + IRS_PADDING);
    m->corners = irs_allot(arena, 2 * (size_t)m->channels + IRS_PADDING);
    if (weights == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    for (uint32_t c = 0; c < m->channels; c++) {
        int8_t row[4];
        memcpy(row, weights + (rows == 1 ? 0 : 4 * (size_t)c), 4);
        /* keeps every sum of two products within 16 bits */
        if (magnitude(row[0]) + magnitude(row[1]) > 128 || magnitude(row[2]) + magnitude(row[3]) > 128) {
            return IRS_ERR_DESCRIPTOR;
        }
        if (m->west_north != NULL) {
            memcpy(m->west_north + c, row, 2);
            memcpy(m->corners + c, row + 2, 2);
        }
    }
    return IRS_OK;
}

static irs_status read_references(irs_model *m, irs_arena *arena, const uint8_t **p, const uint8_t *end) {
    if (!m->has_references) {
        return IRS_OK;
    }
#ifdef IRS_NO_REFERENCES
    (void)arena, (void)p, (void)end;
    return IRS_ERR_CODEC;
#else
    if (m->channels <= m->lanes) {
        return IRS_ERR_DESCRIPTOR;
    }
    uint32_t later = m->channels - m->lanes;
    const uint8_t *channels = take(p, end, 4 * (uint64_t)later);
    const uint8_t *weights = channels == NULL ? NULL : take(p, end, 2 * (uint64_t)later);
    m->reference = irs_allot(arena, 4 * (size_t)m->channels + IRS_PADDING);
    m->reference_weight = irs_allot(arena, 4 * (size_t)m->channels + IRS_PADDING);
    if (weights == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    if (m->reference != NULL) { /* the first group has none, and vectors read beyond the last channel */
        memset(m->reference, 0, 4 * (size_t)m->channels + IRS_PADDING);
        memset(m->reference_weight, 0, 4 * (size_t)m->channels + IRS_PADDING);
    }
    for (uint32_t i = 0; i < 2 * later; i++) {
        uint32_t channel = m->lanes + i / 2, other = load16(channels + 2 * (size_t)i);
        if (other >= channel / m->lanes * m->lanes) {
            return IRS_ERR_DESCRIPTOR;
        }
        if (m->reference != NULL) {
            m->reference[2 * m->lanes + i] = (uint16_t)other;
            m->reference_weight[2 * m->lanes + i] = (int8_t)weights[i];
        }
    }
    return IRS_OK;
#endif
}

static irs_status read_map(irs_model *m, irs_arena *arena, const uint8_t **p, const uint8_t *end) {
    uint32_t rows = (uint32_t)m->levels * m->bins;
    const uint8_t *classes = take(p, end, m->classes > 1 ? m->channels : 0);
    const uint8_t *contexts = classes == NULL ? NULL : take(p, end, m->tables > 1 ? m->classes * (uint64_t)rows : 0);
    m->map = irs_allot(arena, (size_t)rows * m->channels + IRS_PADDING);
    if (contexts == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    for (uint32_t c = 0; m->classes > 1 && c < m->channels; c++) {
        if (classes[c] >= m->classes) {
            return IRS_ERR_DESCRIPTOR;
        }
    }
    for (uint32_t i = 0; m->tables > 1 && i < m->classes * rows; i++) {
        if (contexts[i] >= m->tables) {
            return IRS_ERR_DESCRIPTOR;
        }
    }
    for (uint32_t row = 0; m->map != NULL && row < rows; row++) {
        for (uint32_t c = 0; c < m->channels; c++) {
            uint32_t class = m->classes > 1 ? classes[c] : 0;
            m->map[(size_t)row * m->channels + c] = m->tables > 1 ? contexts[class * rows + row] : 0;
        }
    }
    return IRS_OK;
}

/* ---- frequency tables -------------------------------------------------------------------------------------------- */

typedef struct bit_reader {
    const uint8_t *p, *end;
    uint32_t used; /* bits of *p */
} bit_reader;

static int read_bit(bit_reader *r) {
    if (r->p == r->end) {
        return -1;
    }
    int bit = *r->p >> (7 - r->used) & 1;
    if (++r->used == 8) {
        r->used = 0;
        r->p++;
    }
    return bit;
}

/* exponential Golomb; -1 past the end or above 16 bits */
static int32_t read_golomb(bit_reader *r, int order) {
    int zeros = 0, bit;
    while ((bit = read_bit(r)) == 0) {
        zeros++;
    }
    int length = zeros + 1 + order;
    if (bit < 0 || length > 16) {
        return -1;
    }
    int32_t value = 1;
    for (int i = 1; i < length; i++) {
        bit = read_bit(r);
        if (bit < 0) {
            return -1;
        }
        value = value << 1 | bit;
    }
    return value - (1 << order);
}

/* Frequencies of one table: runs of absent symbols and frequencies take turns; the escape gets the rest. */
static irs_status read_table(bit_reader *r, uint32_t table_bits, uint16_t *frequencies) {
    uint32_t total = 0, position = 0, present = 0, size = UINT32_C(1) << table_bits;
    memset(frequencies, 0, IRS_TABLE_ENTRIES * sizeof *frequencies);
    while (position < 256) {
        int32_t run = read_golomb(r, 0);
        if (run < 0 || (uint32_t)run > 256 - position) {
            return IRS_ERR_DESCRIPTOR;
        }
        position += (uint32_t)run;
        int32_t frequency = 1;
        while (position < 256 && frequency != 0) {
            frequency = read_golomb(r, 3);
            if (frequency < 0 || (uint32_t)frequency >= size || total + (uint32_t)frequency > size) {
                return IRS_ERR_DESCRIPTOR;
            }
            frequencies[position++] = (uint16_t)frequency;
            total += (uint32_t)frequency;
            present += frequency != 0;
        }
    }
    if (total == 0 || (total == size && present < 256)) {
        return IRS_ERR_DESCRIPTOR;
    }
    frequencies[256] = (uint16_t)(size - total);
    return IRS_OK;
}

static uint64_t encoder_entry(uint32_t frequency, uint32_t start, uint32_t table_bits) {
    if (frequency == 0) {
        return 0;
    }
    uint32_t low = start << 11 | ((UINT32_C(1) << table_bits) - frequency);
    return ((UINT64_MAX / frequency - low) & ~UINT64_C(0x3FFFFF)) + low;
}

static void build_tables(irs_model *m, uint32_t table, const uint16_t *frequencies) {
    uint64_t *entries = m->encoder + (size_t)table * 256;
    uint32_t start = 0;
    for (uint32_t symbol = 0; symbol < IRS_TABLE_ENTRIES; symbol++) {
        uint32_t frequency = frequencies[symbol];
        *(symbol < 256 ? entries + symbol : irs_escapes(m) + table) = encoder_entry(frequency, start, m->table_bits);
#ifndef IRS_ENCODE_ONLY
        uint32_t entry = (symbol & 0xFF) | frequency << 8 | (symbol == 256 ? UINT32_C(1) << 31 : 0);
        uint32_t *slots = m->decoder + ((size_t)table << m->table_bits) + start;
        for (uint32_t i = 0; i < frequency; i++) {
            slots[i] = entry | i << 19;
        }
#endif
        start += frequency;
    }
}

static irs_status read_tables(irs_model *m, irs_arena *arena, const uint8_t *p, const uint8_t *end) {
    bit_reader r = {p, end, 0};
    m->encoder = irs_allot(arena, (size_t)m->tables * IRS_TABLE_ENTRIES * sizeof *m->encoder);
#ifndef IRS_ENCODE_ONLY
    m->decoder = irs_allot(arena, ((size_t)m->tables << m->table_bits) * sizeof *m->decoder);
#endif
    for (uint32_t table = 0; table < m->tables; table++) {
        uint16_t frequencies[IRS_TABLE_ENTRIES];
        IRS_TRY(read_table(&r, m->table_bits, frequencies));
        if (m->encoder != NULL) {
            build_tables(m, table, frequencies);
        }
    }
    while (r.used != 0) { /* spare bits of the last byte */
        if (read_bit(&r) != 0) {
            return IRS_ERR_DESCRIPTOR;
        }
    }
    return r.p == r.end ? IRS_OK : IRS_ERR_DESCRIPTOR;
}

irs_status irs_open_static(const irs_spec *spec, irs_model *m, irs_arena *arena) {
    const uint8_t *p = spec->parameters, *end = p + spec->parameters_size;
    memset(m, 0, sizeof *m);
    const uint8_t *head = take(&p, end, HEAD_SIZE + ELEMENTS_SIZE);
    if (head == NULL) {
        return IRS_ERR_DESCRIPTOR;
    }
    IRS_TRY(read_head(m, spec, head));
    IRS_TRY(read_thresholds(m, &p, end));
    IRS_TRY(read_weights(m, arena, &p, end));
    IRS_TRY(read_references(m, arena, &p, end));
    IRS_TRY(read_map(m, arena, &p, end));
    return read_tables(m, arena, p, end);
}
