/* Modbus TCP: a device with registers in memory, and requests whose answers are known. */
#include "load.h"

enum {
    REGISTERS = 65536,
    MBAP = 7,
    ADU_MAX = 260,
    READ_COUNT = WRITTEN, /* registers in one read */
    READ_SPAN = 900,      /* reads start at 0 to READ_SPAN - 1; nobody writes there */
    WRITE_BASE = 1000,    /* connection N writes to WRITE_BASE + N * READ_COUNT and the next READ_COUNT - 1 */
};

/* What a register holds before anyone writes it. Neighbours differ in both bytes, so a shifted answer shows. */
static inline uint16_t initial(unsigned address) { return (uint16_t)((address * 2654435761u) >> 13); }

static uint16_t registers[REGISTERS];
static uint8_t coils[REGISTERS];

/* Answers one request PDU of `length` bytes; returns the length of the response PDU. V1.1b3, section 6. */
static size_t answer_pdu(const uint8_t *pdu, size_t length, uint8_t *out) {
    unsigned function = pdu[0], exception = 3;
    if (length < 5) goto refuse;
    unsigned address = get16(pdu + 1), count = get16(pdu + 3);
    out[0] = (uint8_t)function;
    switch (function) {
    case 1:
    case 2:
        if (length != 5 || count < 1 || count > 2000) goto refuse;
        if (address + count > REGISTERS) goto bad_address;
        out[1] = (uint8_t)((count + 7) / 8);
        memset(out + 2, 0, out[1]);
        for (unsigned i = 0; i < count; i++) out[2 + i / 8] |= (uint8_t)(coils[address + i] << (i % 8));
        return 2u + out[1];
    case 3:
    case 4:
        if (length != 5 || count < 1 || count > 125) goto refuse;
        if (address + count > REGISTERS) goto bad_address;
        out[1] = (uint8_t)(2 * count);
        for (unsigned i = 0; i < count; i++) put16(out + 2 + 2 * i, registers[address + i]);
        return 2u + out[1];
    case 5:
        if (length != 5 || (count != 0 && count != 0xFF00)) goto refuse;
        coils[address] = count != 0;
        memcpy(out, pdu, 5);
        return 5;
    case 6:
        if (length != 5) goto refuse;
        registers[address] = (uint16_t)count;
        memcpy(out, pdu, 5);
        return 5;
    case 15:
        if (length < 6 || count < 1 || count > 1968 || pdu[5] != (count + 7) / 8 || length != 6u + pdu[5]) goto refuse;
        if (address + count > REGISTERS) goto bad_address;
        for (unsigned i = 0; i < count; i++) coils[address + i] = pdu[6 + i / 8] >> (i % 8) & 1;
        memcpy(out, pdu, 5);
        return 5;
    case 16:
        if (length < 6 || count < 1 || count > 123 || pdu[5] != 2 * count || length != 6u + pdu[5]) goto refuse;
        if (address + count > REGISTERS) goto bad_address;
        for (unsigned i = 0; i < count; i++) registers[address + i] = (uint16_t)get16(pdu + 6 + 2 * i);
        memcpy(out, pdu, 5);
        return 5;
    default:
        exception = 1;
        goto refuse;
    }
bad_address:
    exception = 2;
refuse:
    out[0] = (uint8_t)(function | 0x80);
    out[1] = (uint8_t)exception;
    return 2;
}

static void prepare(void) {
    for (unsigned i = 0; i < REGISTERS; i++) {
        registers[i] = initial(i);
        coils[i] = registers[i] & 1;
    }
}

static size_t size(const uint8_t *adu) {
    unsigned length = get16(adu + 4);
    return get16(adu + 2) == 0 && length >= 2 && length <= 254 ? 6 + length : 0;
}

static size_t answer(uint32_t *kept, const uint8_t *adu, size_t length, uint8_t *out) {
    (void)kept;
    size_t pdu = answer_pdu(adu + MBAP, length - MBAP, out + MBAP);
    memcpy(out, adu, 4);
    put16(out + 4, (unsigned)pdu + 1);
    out[6] = adu[6];
    return MBAP + pdu;
}

/* The device keeps what an earlier run wrote: with read-back, begin by setting what we claim to know. */
static size_t hello(Client *c, const Asked *asked, uint8_t *out) {
    if (c->greetings) return 0;
    for (unsigned i = 0; i < READ_COUNT; i++) c->written[i] = initial(WRITE_BASE + c->number * READ_COUNT + i);
    if (!asked->write_percent || asked->depth != 1) return 0;
    memset(out, 0, 4);
    put16(out + 4, 7 + 2 * READ_COUNT);
    out[6] = (uint8_t)asked->unit;
    out[7] = 16;
    put16(out + 8, WRITE_BASE + c->number * READ_COUNT);
    put16(out + 10, READ_COUNT);
    out[12] = 2 * READ_COUNT;
    for (unsigned i = 0; i < READ_COUNT; i++) put16(out + 13 + 2 * i, c->written[i]);
    return 13 + 2 * READ_COUNT;
}

static void greeted(Client *c, const uint8_t *adu) {
    if (adu[MBAP] != 16) fail("connection %u: the first write was refused, code %u", c->number + 1, adu[MBAP + 1]);
}

static size_t request(Client *c, const Asked *asked, Pending *p, uint8_t *out) {
    uint32_t dice = next_random(c);
    unsigned own = WRITE_BASE + c->number * READ_COUNT;
    size_t length;
    put16(out, p->transaction);
    put16(out + 2, 0);
    out[6] = (uint8_t)asked->unit;
    uint8_t *pdu = out + MBAP, *expected = p->expected + MBAP;
    if (dice % 100 < asked->write_percent) {
        bool single = dice >> 8 & 1;
        unsigned count = single ? 1 : READ_COUNT;
        for (unsigned i = 0; i < count; i++) c->written[i] = (uint16_t)(next_random(c) >> 7);
        pdu[0] = single ? 6 : 16;
        put16(pdu + 1, own);
        if (single) {
            put16(pdu + 3, c->written[0]);
            length = 5;
        } else {
            put16(pdu + 3, count);
            pdu[5] = (uint8_t)(2 * count);
            for (unsigned i = 0; i < count; i++) put16(pdu + 6 + 2 * i, c->written[i]);
            length = 6 + 2 * count;
        }
        memcpy(expected, pdu, 5);
        p->length = MBAP + 5;
    } else {
        /* With one request at a time the order is certain, so own writes are read back and must be there. */
        bool back = asked->write_percent && asked->depth == 1 && (dice >> 8 & 1);
        unsigned address = back ? own : (dice >> 9) % READ_SPAN;
        pdu[0] = 3;
        put16(pdu + 1, address);
        put16(pdu + 3, READ_COUNT);
        length = 5;
        expected[0] = 3;
        expected[1] = 2 * READ_COUNT;
        for (unsigned i = 0; i < READ_COUNT; i++)
            put16(expected + 2 + 2 * i, back ? c->written[i] : initial(address + i));
        p->length = MBAP + 2 + 2 * READ_COUNT;
    }
    put16(out + 4, (unsigned)length + 1);
    memcpy(p->expected, out, 4);
    put16(p->expected + 4, (unsigned)p->length - 6);
    p->expected[6] = (uint8_t)asked->unit;
    return MBAP + length;
}

static unsigned transaction(const uint8_t *adu) { return get16(adu); }

static int refusal(const Pending *p, const uint8_t *adu, size_t length) {
    return length == MBAP + 2 && adu[MBAP] == (p->expected[MBAP] | 0x80) ? adu[MBAP + 1] : -1;
}

const Protocol modbus = {MBAP, size, prepare, answer, hello, greeted, request, transaction, NULL, refusal};
