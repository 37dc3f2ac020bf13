/* OPC UA without security: a server with nodes whose values are others at each Read, and Reads whose answers are known.
 * Little-endian throughout.
 *
 * The server answers what the gate asks before it reads, and while it lives: hello, channel, session, its namespaces.
 * Each Read that it answers has a number, from which all values and time stamps in the answer follow; so an answer of
 * another Read, or one that was kept, shows. All else is answered with Bad_ServiceUnsupported.
 */
#include "load.h"

enum {
    HEAD = 8,
    TO_BODY = 24, /* a chunk's headers: size, channel, token, sequence, request */
    FRAME_LIMIT = 8192,
    CHUNK = 16384,
    NODES = 100,
    LINE = 2, /* the server's namespace of the nodes */
    FAULT = 397,
    OPEN_CHANNEL = 446,
    CREATE = 461,
    ACTIVATE = 467,
    CLOSE_SESSION = 473,
    READ = 631,
    ANSWERED = 3, /* an answer's encoding id is that of its question and this */
    NAMESPACES = 2255,
    VALUE = 13,
    DOUBLE = 11,
    STAMPED = 13, /* a DataValue with a value and both time stamps */
    VALUED = 2 + 3 * 8,
    HEADER = 4 + 8 + 4 + 4 + 1 + 4 + 3, /* an answer's encoding id and header */
    TOKEN_MAX = 64,
    BAD_NODE = 0x8034,
    BAD_ATTRIBUTE = 0x8035,
    BAD_SERVICE = 0x800B,
    BAD_DECODING = 0x8007,
};

static const char *const uris[] = {"http://opcfoundation.org/UA/", "urn:bench:server", "urn:bench"};
static const char none[] = "http://opcfoundation.org/UA/SecurityPolicy#None";
static const uint64_t EPOCH = 116444736000000000; /* 1970, in 100 ns since 1601 */

/* ---------------------------------------------------------------------------------------------- fields */

typedef struct {
    const uint8_t *at, *end;
    bool bad;
} In;

typedef struct {
    uint8_t *at;
} Out;

static const uint8_t *take(In *in, size_t count) {
    static const uint8_t nothing[8];
    if (in->bad || count > (size_t)(in->end - in->at)) {
        in->bad = true;
        return nothing;
    }
    in->at += count;
    return in->at - count;
}

static uint64_t of(const uint8_t *at, unsigned bytes) {
    uint64_t value = 0;
    memcpy(&value, at, bytes);
    return value;
}

static uint32_t take32(In *in) { return (uint32_t)of(take(in, 4), 4); }

/* A String or ByteString; null is empty. */
static const uint8_t *take_text(In *in, size_t *length) {
    uint32_t told = take32(in);
    *length = told == UINT32_MAX ? 0 : told;
    const uint8_t *text = take(in, *length);
    if (in->bad) *length = 0;
    return text;
}

static void skip_text(In *in) {
    size_t length;
    take_text(in, &length);
}

typedef struct {
    unsigned ns;
    uint32_t number;
    const uint8_t *text; /* NULL: it is a number */
    size_t length;
} Node;

static Node take_node(In *in) {
    Node node = {0};
    unsigned form = *take(in, 1);
    switch (form) {
    case 0: node.number = *take(in, 1); break;
    case 1:
        node.ns = *take(in, 1);
        node.number = (uint32_t)of(take(in, 2), 2);
        break;
    case 2:
        node.ns = (unsigned)of(take(in, 2), 2);
        node.number = take32(in);
        break;
    case 3: case 5:
        node.ns = (unsigned)of(take(in, 2), 2);
        node.text = take_text(in, &node.length);
        break;
    default: in->bad = true;
    }
    return node;
}

static void skip_extension(In *in) {
    take_node(in);
    if (*take(in, 1)) skip_text(in);
}

static void put(Out *out, uint64_t value, unsigned bytes) {
    memcpy(out->at, &value, bytes);
    out->at += bytes;
}

static void put_raw(Out *out, const void *data, size_t length) {
    memcpy(out->at, data, length);
    out->at += length;
}

static void put_text(Out *out, const char *text) {
    size_t length = strlen(text);
    put(out, length, 4);
    put_raw(out, text, length);
}

static void put_nulls(Out *out, unsigned count) {
    while (count--) put(out, UINT32_MAX, 4);
}

/* The encoding id of a message. */
static void put_kind(Out *out, unsigned kind) { put(out, 1 | (uint64_t)kind << 16, 4); }

static uint64_t ticks(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return EPOCH + (uint64_t)now.tv_sec * 10000000u + (uint64_t)now.tv_nsec / 100;
}

/* A frame's first words, whose length is told by `finish`. */
static Out begin(uint8_t *frame, const char *kind) {
    memcpy(frame, kind, 4);
    return (Out){frame + HEAD};
}

static size_t finish(uint8_t *frame, const Out *out) {
    size_t length = (size_t)(out->at - frame);
    Out size = {frame + 4};
    put(&size, length, 4);
    return length;
}

/* What a node holds at Read number `turn`, which also is its time. Exact: a Double has 53 bits. */
static void put_value(Out *out, unsigned node, uint64_t turn) {
    double value = (double)(turn * 128 + node);
    put(out, STAMPED | DOUBLE << 8, 2);
    put_raw(out, &value, 8);
    put(out, EPOCH + turn, 8);
    put(out, EPOCH + turn, 8);
}

/* ---------------------------------------------------------------------------------------------- server */

static size_t size(const uint8_t *frame) {
    static const char *const kinds[] = {"HELF", "ACKF", "ERRF", "OPNF", "MSGF", "CLOF"};
    size_t length = of(frame + 4, 4);
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!memcmp(frame, kinds[i], 4)) return length >= HEAD && length <= FRAME_LIMIT ? length : 0;
    return 0;
}

static void prepare(void) {}

/* A request's header. Its handle. */
static uint32_t take_header(In *in) {
    take_node(in);
    take(in, 8);
    uint32_t handle = take32(in);
    take32(in);
    skip_text(in);
    take32(in);
    skip_extension(in);
    return handle;
}

static void put_header(Out *out, unsigned kind, uint64_t time, uint32_t handle, unsigned status) {
    put_kind(out, kind);
    put(out, time, 8);
    put(out, handle, 4);
    put(out, (uint64_t)status << 16, 4);
    put(out, 0, 1 + 4 + 3); /* no diagnostics, no strings, nothing else */
}

static void put_status(Out *out, unsigned status) {
    put(out, 2, 1);
    put(out, (uint64_t)status << 16, 4);
}

/* The value of "Line1.N" and a number. */
static void read_one(In *in, uint64_t turn, Out *out) {
    static const char line[] = "Line1.N";
    Node node = take_node(in);
    uint32_t attribute = take32(in);
    unsigned number = 0;
    size_t at = sizeof line - 1;
    skip_text(in);
    take(in, 2);
    skip_text(in);
    if (in->bad) return;
    if (attribute != VALUE) put_status(out, BAD_ATTRIBUTE);
    else if (!node.ns && !node.text && node.number == NAMESPACES) {
        put(out, 1, 1);
        put(out, 0x80 | 12, 1);
        put(out, sizeof uris / sizeof *uris, 4);
        for (unsigned i = 0; i < sizeof uris / sizeof *uris; i++) put_text(out, uris[i]);
    } else if (node.ns == LINE && node.text && node.length > at && node.length <= at + 2 && !memcmp(node.text, line, at)) {
        for (; at < node.length; at++) number = number * 10 + node.text[at] - '0';
        put_value(out, number % 128, turn);
    } else put_status(out, BAD_NODE);
}

static void read_all(In *in, Out *out) {
    static uint64_t turns;
    take(in, 8 + 4); /* how old a value may be, and which time stamps are wanted: both are given */
    uint32_t count = take32(in);
    if (count > NODES) in->bad = true;
    put(out, count, 4);
    turns++;
    for (uint32_t i = 0; i < count && !in->bad; i++) read_one(in, turns, out);
    put(out, 0, 4);
}

static void put_session(Out *out, uint32_t number) {
    put(out, 2 | 1 << 8, 3); /* the session, and its token: numbers in a namespace of ours */
    put(out, number, 4);
    put(out, 2 | 1 << 8, 3);
    put(out, ~number, 4);
    double life = 3600000;
    put_raw(out, &life, 8);
    put(out, 32, 4);
    for (unsigned i = 0; i < 32; i++) put(out, number + i, 1);
    put_nulls(out, 1); /* no certificate */
    put(out, 1, 4);
    put_text(out, "opc.tcp://bench");
    put_text(out, uris[1]);
    put_nulls(out, 1);
    put(out, 0, 1); /* no name */
    put(out, 0, 4);
    put_nulls(out, 3);
    put_nulls(out, 1);
    put(out, 1, 4);
    put_text(out, none);
    put(out, 1, 4);
    put_text(out, "anonymous");
    put(out, 0, 4);
    put_nulls(out, 3);
    put_text(out, "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary");
    put(out, 0, 1);
    put(out, 0, 4);
    put_nulls(out, 2); /* unsigned */
    put(out, 0, 4);
}

/* The body of an answer. */
static void serve(uint32_t number, In *in, Out *out) {
    Node kind = take_node(in);
    uint32_t handle = take_header(in);
    uint8_t *begun = out->at;
    put_header(out, kind.number + ANSWERED, ticks(), handle, 0);
    switch (kind.number) {
    case OPEN_CHANNEL:
        put(out, 0, 4);
        put(out, number, 4);
        put(out, 1, 4);
        put(out, ticks(), 8);
        put(out, 3600000, 4);
        put_nulls(out, 1);
        break;
    case CREATE: put_session(out, number); break;
    case ACTIVATE:
        put(out, 32, 4);
        for (unsigned i = 0; i < 32; i++) put(out, number + i, 1);
        put(out, 0, 8);
        break;
    case CLOSE_SESSION: break;
    case READ: read_all(in, out); break;
    default:
        out->at = begun;
        put_header(out, FAULT, ticks(), handle, BAD_SERVICE);
    }
    if (in->bad) {
        out->at = begun;
        put_header(out, FAULT, ticks(), handle, BAD_DECODING);
    }
}

static size_t answer(uint32_t *kept, const uint8_t *frame, size_t length, uint8_t *out) {
    static uint32_t channels;
    In in = {frame + HEAD, frame + length, false};
    Out made;
    if (!memcmp(frame, "HEL", 3)) {
        made = begin(out, "ACKF");
        put(&made, 0, 4);
        put(&made, CHUNK, 4);
        put(&made, CHUNK, 4);
        put(&made, 0, 8);
        return finish(out, &made);
    }
    if (!memcmp(frame, "CLO", 3)) return 0;
    bool opens = !memcmp(frame, "OPN", 3);
    if (!opens && memcmp(frame, "MSG", 3)) return 0;
    if (opens && !kept[0]) kept[0] = ++channels;
    made = begin(out, opens ? "OPNF" : "MSGF");
    put(&made, kept[0], 4);
    take(&in, 4);
    if (opens) {
        for (unsigned i = 0; i < 3; i++) skip_text(&in);
        put_text(&made, none);
        put_nulls(&made, 2);
    } else put(&made, of(take(&in, 4), 4), 4);
    put(&made, ++kept[1], 4);
    take(&in, 4);
    put(&made, take32(&in), 4);
    serve(kept[0], &in, &made);
    return finish(out, &made);
}

/* ------------------------------------------------------------------------------------------- generator */

typedef struct {
    uint32_t channel, token, sent, taken; /* sequence numbers of the last messages */
    unsigned line; /* the namespace of the nodes */
    uint64_t turn; /* of the last answer */
    size_t session_length;
    uint8_t session[TOKEN_MAX];
} State;

_Static_assert(sizeof(State) <= sizeof((Client *)0)->kept, "what is kept of a client has no room");

static Out put_chunk(Client *c, uint8_t *frame, uint32_t request) {
    State *state = (State *)c->kept;
    Out out = begin(frame, "MSGF");
    put(&out, state->channel, 4);
    put(&out, state->token, 4);
    put(&out, ++state->sent, 4);
    put(&out, request, 4);
    return out;
}

static void put_request(Out *out, const Client *c, unsigned kind, uint32_t handle) {
    const State *state = (const State *)c->kept;
    put_kind(out, kind);
    if (state->session_length) put_raw(out, state->session, state->session_length);
    else put(out, 0, 2);
    put(out, ticks(), 8);
    put(out, handle, 4);
    put(out, 0, 4);
    put_nulls(out, 1);
    put(out, 10000, 4);
    put(out, 0, 3);
}

static void put_read(Out *out, unsigned count) {
    put(out, 0, 8);
    put(out, 2, 4); /* both time stamps */
    put(out, count, 4);
}

static void put_asked(Out *out) {
    put(out, VALUE, 4);
    put_nulls(out, 1);
    put(out, 0, 2);
    put_nulls(out, 1);
}

enum { HELLO, OPENING, CREATING, ACTIVATING, LEARNING, READY };

static size_t hello(Client *c, const Asked *asked, uint8_t *frame) {
    State *state = (State *)c->kept;
    uint32_t request = 0x10000 + c->greetings; /* none of `request` */
    Out out;
    (void)asked;
    switch (c->greetings) {
    case HELLO:
        out = begin(frame, "HELF");
        put(&out, 0, 4);
        put(&out, 65536, 4);
        put(&out, 65536, 4);
        put(&out, 0, 8);
        put_text(&out, "opc.tcp://bench");
        return finish(frame, &out);
    case OPENING:
        out = begin(frame, "OPNF");
        put(&out, 0, 4);
        put_text(&out, none);
        put_nulls(&out, 2);
        put(&out, ++state->sent, 4);
        put(&out, request, 4);
        put_request(&out, c, OPEN_CHANNEL, request);
        put(&out, 0, 8); /* version 0, a new channel */
        put(&out, 1, 4);
        put_nulls(&out, 1);
        put(&out, 3600000, 4);
        return finish(frame, &out);
    case CREATING: {
        double life = 3600000;
        out = put_chunk(c, frame, request);
        put_request(&out, c, CREATE, request);
        put_text(&out, "urn:bench:client");
        put_nulls(&out, 1);
        put(&out, 0, 1); /* no name */
        put(&out, 1, 4);
        put_nulls(&out, 2);
        put(&out, 0, 4);
        put_nulls(&out, 1);
        put_text(&out, "opc.tcp://bench");
        put_text(&out, "bench");
        put_nulls(&out, 2);
        put_raw(&out, &life, 8);
        put(&out, 0, 4);
        return finish(frame, &out);
    }
    case ACTIVATING:
        out = put_chunk(c, frame, request);
        put_request(&out, c, ACTIVATE, request);
        put_nulls(&out, 2);
        put(&out, 0, 8);
        put(&out, 1 | (uint64_t)321 << 16, 4); /* AnonymousIdentityToken */
        put(&out, 1, 1);
        put(&out, 4 + 9, 4);
        put_text(&out, "anonymous");
        put_nulls(&out, 2);
        return finish(frame, &out);
    case LEARNING:
        out = put_chunk(c, frame, request);
        put_request(&out, c, READ, request);
        put_read(&out, 1);
        put(&out, 1 | (uint64_t)NAMESPACES << 16, 4);
        put_asked(&out);
        return finish(frame, &out);
    default: return 0;
    }
}

static unsigned line_of(In *in) {
    unsigned found = 0;
    take(in, 4 + 2); /* one result: a value, an array of strings */
    uint32_t count = take32(in);
    for (unsigned i = 0; i < count && !in->bad; i++) {
        size_t length;
        const uint8_t *uri = take_text(in, &length);
        if (length == strlen(uris[LINE]) && !memcmp(uri, uris[LINE], length)) found = i;
    }
    return found;
}

static void greeted(Client *c, const uint8_t *frame) {
    static const char *const wanted[] = {"ACKF", "OPNF", "MSGF", "MSGF", "MSGF"};
    static const unsigned kinds[] = {0, OPEN_CHANNEL, CREATE, ACTIVATE, READ};
    State *state = (State *)c->kept;
    In in = {frame + HEAD, frame + size(frame), false};
    if (memcmp(frame, wanted[c->greetings], 4))
        fail("connection %u, step %u: answered with %.4s, status %08X", c->number + 1, c->greetings, (const char *)frame,
             (unsigned)of(frame + HEAD, 4));
    if (c->greetings == HELLO) return;
    take(&in, 4);
    if (c->greetings == OPENING)
        for (unsigned i = 0; i < 3; i++) skip_text(&in);
    else take(&in, 4);
    state->taken = take32(&in);
    take(&in, 4);
    unsigned kind = take_node(&in).number;
    take(&in, 8 + 4);
    uint32_t result = take32(&in);
    take(&in, 1 + 4 + 3);
    if (in.bad || result || kind != kinds[c->greetings] + ANSWERED)
        fail("connection %u, step %u: a message %u with status %08X", c->number + 1, c->greetings, kind, result);
    if (c->greetings == OPENING) {
        take(&in, 4);
        state->channel = take32(&in);
        state->token = take32(&in);
    } else if (c->greetings == CREATING) {
        take_node(&in);
        const uint8_t *token = in.at;
        take_node(&in);
        state->session_length = (size_t)(in.at - token);
        if (state->session_length > TOKEN_MAX) fail("connection %u: a token of %zu bytes", c->number + 1, state->session_length);
        memcpy(state->session, token, state->session_length);
    } else if (c->greetings == LEARNING && !(state->line = line_of(&in)))
        fail("connection %u: the server has no namespace %s", c->number + 1, uris[LINE]);
    if (in.bad) fail("connection %u, step %u: the answer ends too early", c->number + 1, c->greetings);
}

/* A client polls one list of nodes, as clients do; each has another. */
static size_t request(Client *c, const Asked *asked, Pending *p, uint8_t *frame) {
    const State *state = (const State *)c->kept;
    Out out = put_chunk(c, frame, p->transaction), told = {p->expected + TO_BODY};
    put_request(&out, c, READ, p->transaction);
    put_read(&out, asked->tags);
    put_header(&told, READ + ANSWERED, 0, p->transaction, 0);
    put(&told, asked->tags, 4);
    for (unsigned i = 0; i < asked->tags; i++) {
        char name[16];
        snprintf(name, sizeof name, "Line1.N%u", (c->number * 3 + i) % NODES);
        put(&out, 3 | (uint64_t)state->line << 8, 3);
        put_text(&out, name);
        put_asked(&out);
    }
    p->length = TO_BODY + HEADER + 4 + asked->tags * VALUED + 4;
    return finish(frame, &out);
}

static unsigned transaction(const uint8_t *frame) { return (unsigned)of(frame + 20, 4); }

/* All bytes but the answer's own time are known once it is known which Read it answers; that is a later one each time. */
static bool right(Client *c, Pending *p, const uint8_t *frame, size_t length, const Asked *asked) {
    State *state = (State *)c->kept;
    double first;
    if (length != p->length) return false;
    memcpy(&first, frame + TO_BODY + HEADER + 4 + 2, 8);
    if (!(first >= 0 && first < 9e15)) return false;
    uint64_t turn = (uint64_t)first / 128, time = of(frame + TO_BODY + 4, 8), now = ticks();
    if (turn <= state->turn || time > now || now - time > 60 * 10000000ull) return false;
    state->turn = turn;
    Out told = begin(p->expected, "MSGF");
    put(&told, state->channel, 4);
    put(&told, state->token, 4);
    put(&told, ++state->taken, 4);
    put(&told, p->transaction, 4);
    told.at += 4;
    put(&told, time, 8);
    told.at = p->expected + TO_BODY + HEADER + 4;
    for (unsigned i = 0; i < asked->tags; i++) put_value(&told, (c->number * 3 + i) % NODES, turn);
    put(&told, 0, 4);
    return finish(p->expected, &told) == length && !memcmp(frame, p->expected, length);
}

static int refusal(const Pending *p, const uint8_t *frame, size_t length) {
    (void)p;
    if (length < TO_BODY + HEADER) return -1;
    unsigned status = (unsigned)of(frame + TO_BODY + 18, 2);
    if (status) return (int)status;
    const uint8_t *first = frame + TO_BODY + HEADER + 4;
    return length >= TO_BODY + HEADER + 9 && *first == 2 ? (int)of(first + 3, 2) : -1;
}

const Protocol opcua = {HEAD, size, prepare, answer, hello, greeted, request, transaction, right, refusal};
