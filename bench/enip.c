/* EtherNet/IP: a controller with two tags that are read, and reads whose answers are known. Little-endian throughout.
 *
 * As in a plant, values move: with each request that the controller answers all of them are greater by one. What is
 * answered to a client has moved by the same for each value, and further than in the answer before.
 *
 * The controller answers what the gate, pylogix and pycomm3 ask before they read: sessions, its identity, its tag list,
 * class-3 connections, Unconnected Send along any route. Who writes is answered with 08 (service not supported).
 */
#include "load.h"

enum {
    HEAD = 24,
    FRAME_LIMIT = 8192,
    COUNTS = 50,
    REGISTER = 0x65,
    LIST_IDENTITY = 0x63,
    SEND_RR = 0x6F,
    SEND_UNIT = 0x70,
    READ = 0x4C,
    READ_PIECE = 0x52,
    PACKET = 0x0A,
    GET_ALL = 0x01,
    LIST = 0x55,
    OPEN = 0x54,
    LARGE_OPEN = 0x5B,
    CLOSE = 0x4E,
    UNCONNECTED_SEND = 0x52,
    ROUTER = 0x02,
    MANAGER = 0x06,
    PROGRAM = 0x64,
    SYMBOL = 0x6B,
    DINT = 0xC4,
    BAD_PATH = 0x04,
    UNKNOWN = 0x05,
    UNSERVED = 0x08,
    TOO_SHORT = 0x13,
    ITEMS = 16, /* interface, time-out, and two items up to the data of the second one, outside a connection */
};

static const struct {
    const char *name;
    unsigned count, dimensions;
} tags[] = {{"Pump", 1, 0}, {"Counts", COUNTS, 1}};
enum { TAGS = sizeof tags / sizeof *tags };

typedef struct {
    unsigned cls, instance;
    const uint8_t *name; /* the symbol's */
    unsigned name_length, element;
} Place;

static void le16(uint8_t *at, unsigned value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void le32(uint8_t *at, uint32_t value) {
    le16(at, value & 0xFFFF);
    le16(at + 2, value >> 16);
}

static unsigned of16(const uint8_t *at) { return at[0] | (unsigned)at[1] << 8; }

static uint32_t of32(const uint8_t *at) { return of16(at) | (uint32_t)of16(at + 2) << 16; }

static uint32_t answered; /* by the device */

/* What an element holds at first. Neighbours differ in all bytes, so a shifted answer shows. */
static uint32_t held(unsigned tag, unsigned element) { return (tag * 1000 + element + 1) * 2654435761u; }

static bool parse_path(const uint8_t *path, size_t length, Place *found) {
    *found = (Place){0};
    for (size_t at = 0; at + 2 <= length;) {
        unsigned kind = path[at], size = kind == 0x91 ? 2 + (path[at + 1] + 1u) / 2 * 2 : kind & 1 ? 4 : 2;
        if (at + size > length) return false;
        unsigned value = size == 2 ? path[at + 1] : of16(path + at + 2);
        switch (kind) {
        case 0x20: case 0x21: found->cls = value; break;
        case 0x24: case 0x25: found->instance = value; break;
        case 0x28: case 0x29: found->element = value; break;
        case 0x91:
            found->name = path + at + 2;
            found->name_length = path[at + 1];
            break;
        default: return false;
        }
        at += size;
    }
    return true;
}

static size_t status_of(uint8_t *out, unsigned status) {
    out[2] = (uint8_t)status;
    return 4;
}

static size_t read_tag(const Place *place, const uint8_t *body, size_t length, uint8_t *out) {
    unsigned tag = place->cls == SYMBOL ? place->instance - 1 : TAGS;
    for (unsigned i = 0; i < TAGS && place->name; i++)
        if (strlen(tags[i].name) == place->name_length && !strncasecmp(tags[i].name, (const char *)place->name, place->name_length))
            tag = i;
    if (tag >= TAGS) return status_of(out, UNKNOWN);
    if (length < 2) return status_of(out, TOO_SHORT);
    unsigned count = of16(body);
    if (!count || place->element + count > tags[tag].count) return status_of(out, UNKNOWN);
    le16(out + 4, DINT);
    for (unsigned i = 0; i < count; i++) le32(out + 6 + 4 * i, held(tag, place->element + i) + answered);
    return 6 + 4 * count;
}

static size_t list_tags(unsigned from, const uint8_t *body, size_t length, uint8_t *out) {
    uint8_t *at = out + 4;
    if (length < 2 || length != 2 + 2 * of16(body)) return status_of(out, TOO_SHORT);
    for (unsigned tag = from > 1 ? from - 1 : 0; tag < TAGS; tag++) {
        le32(at, tag + 1);
        at += 4;
        for (unsigned i = 0; i < of16(body); i++) {
            size_t size = strlen(tags[tag].name);
            switch (of16(body + 2 + 2 * i)) {
            case 1:
                le16(at, (unsigned)size);
                memcpy(at + 2, tags[tag].name, size);
                at += 2 + size;
                break;
            case 2:
                le16(at, DINT | tags[tag].dimensions << 13);
                at += 2;
                break;
            case 3: case 5: case 6:
                le32(at, 0);
                at += 4;
                break;
            case 8:
                memset(at, 0, 12);
                le32(at, tags[tag].dimensions ? tags[tag].count : 0);
                at += 12;
                break;
            case 10: *at++ = 0; break;
            default: return status_of(out, UNSERVED);
            }
        }
    }
    return (size_t)(at - out);
}

static size_t identity(uint8_t *out) {
    static const char name[] = "controller";
    static const uint8_t fixed[14] = {1, 0, 14, 0, 55, 0, 32, 11, 0x60, 0x30, 0xEE, 0xFF, 0xC0, 0};
    memcpy(out, fixed, sizeof fixed);
    out[sizeof fixed] = sizeof name - 1;
    memcpy(out + sizeof fixed + 1, name, sizeof name - 1);
    return sizeof fixed + sizeof name;
}

/* Forward Open and Close: connections are of class 3, and the session has one at a time. */
static size_t connection(unsigned service, uint32_t *kept, const uint8_t *body, size_t length, uint8_t *out) {
    if (length < (service == CLOSE ? 12u : 36u)) return status_of(out, TOO_SHORT);
    memset(out + 4, 0, 26);
    if (service == CLOSE) {
        memcpy(out + 4, body + 2, 8);
        return 14;
    }
    kept[1] = of32(body + 6);
    le32(out + 4, kept[0]);
    memcpy(out + 8, body + 6, 12); /* their id, serial number, vendor, originator */
    memcpy(out + 20, body + 22, 4);
    memcpy(out + 24, body + 22 + (service == OPEN ? 6 : 8), 4);
    return 30;
}

static size_t answer_cip(uint32_t *kept, const uint8_t *cip, size_t length, uint8_t *out, size_t room) {
    Place place;
    out[0] = cip[0] | 0x80;
    out[1] = out[2] = out[3] = 0;
    size_t head = 2 + 2u * cip[1];
    if (length < 2 || length < head) return status_of(out, TOO_SHORT);
    if (!parse_path(cip + 2, head - 2, &place)) return status_of(out, BAD_PATH);
    const uint8_t *body = cip + head;
    unsigned service = cip[0];
    length -= head;
    if (place.cls == MANAGER && service == UNCONNECTED_SEND) {
        if (length < 6 || of16(body + 2) + 4u > length) return status_of(out, TOO_SHORT);
        return answer_cip(kept, body + 4, of16(body + 2), out, room);
    }
    if (place.cls == MANAGER && (service == OPEN || service == LARGE_OPEN || service == CLOSE))
        return connection(service, kept, body, length, out);
    if (place.cls == ROUTER && service == PACKET) {
        unsigned count = length < 2 ? 0 : of16(body);
        size_t at = 6 + 2 * count;
        if (!count || length < 2 + 2 * count || at + 4 * count > room) return status_of(out, TOO_SHORT);
        le16(out + 4, count);
        for (unsigned i = 0; i < count; i++) {
            unsigned from = of16(body + 2 + 2 * i), to = i + 1 < count ? of16(body + 4 + 2 * i) : (unsigned)length;
            if (from + 2 > to || to > length || at + 6 + 4 * COUNTS > room) return status_of(out, TOO_SHORT);
            le16(out + 6 + 2 * i, (unsigned)at - 4);
            at += answer_cip(kept, body + from, to - from, out + at, room - at);
            if (out[4 + of16(out + 6 + 2 * i) + 2]) out[2] = 0x1E;
        }
        return at;
    }
    if ((place.name || place.cls == SYMBOL) && (service == READ || service == READ_PIECE))
        return read_tag(&place, body, length, out);
    if (place.cls == SYMBOL && service == LIST) return list_tags(place.instance, body, length, out);
    if (place.cls == 1 && service == GET_ALL) return 4 + identity(out + 4);
    if (place.cls == PROGRAM && service == GET_ALL) {
        memcpy(out + 4, "\5\0bench", 7);
        return 11;
    }
    return status_of(out, place.cls || place.name ? UNSERVED : BAD_PATH);
}

/* The frame's head, with its length. */
static size_t framed(uint8_t *out, unsigned command, uint32_t session, size_t length) {
    le16(out, command);
    le16(out + 2, (unsigned)length);
    le32(out + 4, session);
    le32(out + 8, 0);
    le32(out + 20, 0);
    return HEAD + length;
}

static size_t size(const uint8_t *frame) {
    unsigned length = of16(frame + 2);
    return length <= FRAME_LIMIT - HEAD ? HEAD + length : 0;
}

static void prepare(void) {}

static size_t answer(uint32_t *kept, const uint8_t *frame, size_t length, uint8_t *out) {
    static uint32_t sessions = 0x10000;
    unsigned command = of16(frame), connected = command == SEND_UNIT ? 6 : 0; /* bytes more before the request */
    uint8_t *body = out + HEAD;
    memcpy(out, frame, HEAD);
    switch (command) {
    case REGISTER:
        kept[0] = ++sessions;
        le32(body, 1);
        return framed(out, command, kept[0], 4);
    case LIST_IDENTITY: {
        memset(body, 0, 24);
        le16(body, 1);
        le16(body + 2, 0x0C);
        le16(body + 6, 1);
        body[9] = 2; /* of the address the family alone */
        size_t found = identity(body + 24);
        body[24 + found] = 3;
        le16(body + 4, (unsigned)(19 + found));
        return framed(out, command, of32(frame + 4), 25 + found);
    }
    case SEND_RR:
    case SEND_UNIT: {
        const uint8_t *data = frame + HEAD;
        if (length < HEAD + ITEMS + connected + 2) break;
        answered++;
        memcpy(body, data, ITEMS + connected);
        if (connected) le32(body + 12, kept[1]);
        size_t found = answer_cip(
            kept, data + ITEMS + connected, length - HEAD - ITEMS - connected, body + ITEMS + connected,
            ANSWER_MAX - HEAD - ITEMS - connected);
        le16(body + ITEMS - 2 + (connected ? 4 : 0), (unsigned)found + (connected ? 2 : 0));
        return framed(out, command, of32(frame + 4), ITEMS + connected + found);
    }
    default:
        break;
    }
    framed(out, command, of32(frame + 4), 0);
    le32(out + 8, command == SEND_RR || command == SEND_UNIT ? 3 : 1);
    return HEAD;
}

/* ------------------------------------------------------------------------------------------- generator */

static size_t hello(Client *c, const Asked *asked, uint8_t *out) {
    (void)asked;
    if (c->greetings) return 0;
    memset(out, 0, HEAD);
    le32(out + HEAD, 1);
    return framed(out, REGISTER, 0, 4);
}

static void greeted(Client *c, const uint8_t *frame) {
    c->session = of32(frame + 4);
    if (of16(frame) != REGISTER || of32(frame + 8) || !c->session) fail("connection %u: no session", c->number + 1);
}

static size_t wrap(uint8_t *out, const Client *c, unsigned transaction, size_t length) {
    memset(out + 12, 0, 8 + 4 + ITEMS); /* context, options, items */
    le16(out + 12, transaction);
    memcpy(out + 14, "bench", 5);
    out[HEAD + 6] = 2;
    out[HEAD + 12] = 0xB2;
    le16(out + HEAD + 14, (unsigned)length);
    return framed(out, SEND_RR, c->session, ITEMS + length);
}

/* One element of Counts, any; or a Multiple Service Packet of such reads, by each client the same again and again. */
static size_t request(Client *c, const Asked *asked, Pending *p, uint8_t *out) {
    static const uint8_t router[] = {PACKET, 2, 0x20, ROUTER, 0x24, 1};
    uint8_t *asks = out + HEAD + ITEMS, *told = p->expected + HEAD + ITEMS;
    size_t question = 0, reply = 0, from = 2 + 2 * asked->tags;
    if (asked->tags > 1) {
        memcpy(asks, router, sizeof router);
        memset(told, 0, 4);
        told[0] = PACKET | 0x80;
        le16(asks + 6, asked->tags);
        le16(told + 4, asked->tags);
        question = 6 + from;
        reply = 4 + from;
    }
    for (unsigned i = 0; i < asked->tags; i++) {
        unsigned element = (asked->tags > 1 ? 7 * c->number + 13 * i : next_random(c) >> 9) % COUNTS;
        if (asked->tags > 1) {
            le16(asks + 8 + 2 * i, (unsigned)question - 6);
            le16(told + 6 + 2 * i, (unsigned)reply - 4);
        }
        memcpy(asks + question, "\x4c\5\x91\6Counts\x28\0\1\0", 14);
        asks[question + 11] = (uint8_t)element;
        memcpy(told + reply, "\xcc\0\0\0\xc4\0", 6);
        le32(told + reply + 6, held(1, element));
        question += 14;
        reply += 10;
    }
    p->length = wrap(p->expected, c, p->transaction, reply);
    return wrap(out, c, p->transaction, question);
}

static unsigned transaction(const uint8_t *frame) { return of16(frame + 12); }

static bool right(Client *c, Pending *p, const uint8_t *frame, size_t length, const Asked *asked) {
    size_t at = HEAD + ITEMS + 6 + (asked->tags > 1 ? 6 + 2 * asked->tags : 0);
    if (length != p->length) return false;
    uint32_t moved = of32(frame + at) - of32(p->expected + at);
    if (asked->depth == 1 && (int32_t)(moved - (uint32_t)c->kept[0]) <= 0) return false;
    c->kept[0] = moved;
    for (unsigned i = 0; i < asked->tags; i++, at += 10) le32(p->expected + at, of32(p->expected + at) + moved);
    return !memcmp(frame, p->expected, length);
}

static int refusal(const Pending *p, const uint8_t *frame, size_t length) {
    (void)p;
    if (of32(frame + 8)) return (int)of32(frame + 8);
    return length >= HEAD + ITEMS + 4 && frame[HEAD + ITEMS + 2] ? frame[HEAD + ITEMS + 2] : -1;
}

const Protocol enip = {HEAD, size, prepare, answer, hello, greeted, request, transaction, right, refusal};
