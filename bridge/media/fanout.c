/* One encoded frame -> the datagrams of every listener of a stage: the loop of fanout.py in C.
 *
 * Plain C11 and POSIX, called by ctypes: no Python header is needed to build it, and no OpenSSL header, as the few
 * functions of libcrypto it calls are found at run time. Owned by one thread. It allocates nothing while it runs.
 *
 *   eyvan_frame      what a stream of the stage says in this tick
 *   eyvan_fan_out    for each listener that is due: RTP header, AEAD_AES_128_GCM (RFC 7714), one sendmmsg(2) a batch
 *
 * The rules (what is joined, what of silence is sent) are those of fanout.py, and one test suite holds both to them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    VERSION = 3,         /* of the layout below; fanout_native.py refuses another */
    TICKS = 3,           /* the longest packet we send: 60 ms */
    KEPT = 2 * TICKS,    /* what one packet holds, and what the copy in it does */
    SAMPLES = 960,       /* of one tick at 48 kHz */
    MAX_CSRC = 15,       /* RFC 3550 5.1: four bits */
    MAX_FRAME = 1276,    /* TOC and 1275 bytes, RFC 6716 3.4 [R2] */
    MAX_JOINED = 1088,   /* so that header, extension and tag stay below 1200 bytes, as DTLS does */
    MAX_HEAD = 12 + 4 * MAX_CSRC + 4 + 20,
    MAX_COPY = 1023,     /* RFC 2198 3: ten bits */
    RED_HEAD = 5,        /* of a copy and of the primary block; without a copy 1 */
    TAG = 16,
    SALT = 12,
    STREAM = 8,          /* size of an address that is a TCP connection's number */
    MAX_DATAGRAM = MAX_HEAD + RED_HEAD + MAX_FRAME + TAG,
    BATCH = 64,          /* more do not save anything that can be measured: a datagram takes the kernel 5 us */
    GET_TAG = 0x10,      /* EVP_CTRL_AEAD_GET_TAG */
};

/* fanout.py has the same fields in the same order (Sender._fields_) */
struct sender {
    void *cipher;        /* EVP_CIPHER_CTX with the session key; none: not ours to send */
    uint64_t index;      /* RFC 3711 3.3.1: rollover counter and sequence number */
    int64_t done;        /* frames up to this tick were sent or passed over */
    int64_t last_tick;   /* of the last packet */
    uint64_t packets, octets, wire_bytes;
    uint32_t ssrc, timestamp_base;
    uint16_t stream;
    uint8_t payload_type, level_id, csrc_level_id, red_type, period, phase, keep_alive, quiet, address_size;
    uint8_t salt[SALT];
    uint8_t address[28]; /* sockaddr_in, sockaddr_in6, or the number of a TCP connection as uint64_t */
};

struct frame {
    int64_t tick;
    uint16_t size;
    uint8_t sounding, level, csrcs;
    uint8_t csrc[4 * MAX_CSRC], levels[MAX_CSRC];
    uint8_t payload[MAX_FRAME];
};

struct piece {
    int64_t tick;                /* of its first frame */
    const struct frame *loudest; /* its level and CSRCs stand for all */
    const uint8_t *payload;
    uint16_t size;
};

struct plan { /* the packets for a window of ticks that ends now */
    int64_t made;
    int count;
    struct piece pieces[TICKS];
    uint8_t joined[MAX_JOINED]; /* at most one piece of a window has more than one frame: two would need four */
};

struct copy { /* frames that were sent before, as one payload */
    int64_t made, before; /* the tick it was made in, and that it ends at */
    uint16_t size;        /* 0: there is none */
    uint8_t payload[MAX_COPY];
};

struct stream {
    struct frame frames[KEPT]; /* at tick % KEPT */
    struct plan plans[TICKS];  /* at window length - 1 */
    struct copy copies[TICKS]; /* at their number of ticks - 1 */
};

struct batch {
    int socket, count;
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    uint8_t data[BATCH][MAX_DATAGRAM];
};

/* Takes a datagram for a TCP connection; copies what it keeps. */
typedef void to_stream(uint64_t number, const uint8_t *datagram, size_t size);

struct engine {
    uint64_t errors;
    to_stream *to_stream;
    struct batch v4, v6;
    uint8_t for_stream[MAX_DATAGRAM];
};

static struct {
    void *(*ctx_new)(void);
    void (*ctx_free)(void *);
    const void *(*aes_128_gcm)(void);
    int (*init)(void *, const void *, void *, const uint8_t *, const uint8_t *);
    int (*update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*final)(void *, uint8_t *, int *);
    int (*ctrl)(void *, int, int, void *);
} evp;

int eyvan_version(void) { return VERSION; }
size_t eyvan_sender_size(void) { return sizeof(struct sender); }
size_t eyvan_stream_size(void) { return sizeof(struct stream); }

/* 0, or -1 where the library or a function of it is not there. */
int eyvan_load(const char *libcrypto)
{
    void *library = dlopen(libcrypto, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return -1;
    *(void **)&evp.ctx_new = dlsym(library, "EVP_CIPHER_CTX_new");
    *(void **)&evp.ctx_free = dlsym(library, "EVP_CIPHER_CTX_free");
    *(void **)&evp.aes_128_gcm = dlsym(library, "EVP_aes_128_gcm");
    *(void **)&evp.init = dlsym(library, "EVP_EncryptInit_ex");
    *(void **)&evp.update = dlsym(library, "EVP_EncryptUpdate");
    *(void **)&evp.final = dlsym(library, "EVP_EncryptFinal_ex");
    *(void **)&evp.ctrl = dlsym(library, "EVP_CIPHER_CTX_ctrl");
    return evp.ctx_new && evp.ctx_free && evp.aes_128_gcm && evp.init && evp.update && evp.final && evp.ctrl ? 0 : -1;
}

static void prepare(struct batch *batch, int socket)
{
    batch->socket = socket;
    for (int at = 0; at < BATCH; at++) {
        batch->parts[at].iov_base = batch->data[at];
        batch->messages[at].msg_hdr.msg_iov = &batch->parts[at];
        batch->messages[at].msg_hdr.msg_iovlen = 1;
    }
}

/* UDP sockets of both families, -1 for none. NULL without memory. */
struct engine *eyvan_new(int v4, int v6, to_stream *to_stream)
{
    struct engine *engine = calloc(1, sizeof *engine);
    if (engine) {
        engine->to_stream = to_stream;
        prepare(&engine->v4, v4);
        prepare(&engine->v6, v6);
    }
    return engine;
}

void eyvan_free(struct engine *engine) { free(engine); }

/* Datagrams that the kernel or libcrypto did not take. */
uint64_t eyvan_errors(const struct engine *engine) { return engine->errors; }

/* The session key of 16 bytes; NULL takes it away. -1 where libcrypto refuses. */
int eyvan_arm(struct sender *sender, const uint8_t *key)
{
    if (sender->cipher)
        evp.ctx_free(sender->cipher);
    sender->cipher = NULL;
    if (!key)
        return 0;
    void *made = evp.ctx_new();
    if (!made || evp.init(made, evp.aes_128_gcm(), NULL, key, NULL) != 1) {
        if (made)
            evp.ctx_free(made);
        return -1;
    }
    sender->cipher = made;
    return 0;
}

/* What ``stream`` says in ``tick`` (from 1 on). ``csrc``: four bytes each in network order; ``levels``: one each. */
void eyvan_frame(struct stream *stream, int64_t tick, const uint8_t *payload, uint16_t size, uint8_t sounding,
                 uint8_t level, const uint8_t *csrc, const uint8_t *levels, uint8_t csrcs)
{
    struct frame *frame = &stream->frames[tick % KEPT];
    frame->tick = tick;
    frame->size = size < MAX_FRAME ? size : MAX_FRAME;
    frame->sounding = sounding;
    frame->level = level;
    frame->csrcs = csrcs < MAX_CSRC ? csrcs : MAX_CSRC;
    memcpy(frame->payload, payload, frame->size);
    memcpy(frame->csrc, csrc, 4u * frame->csrcs);
    memcpy(frame->levels, levels, frame->csrcs);
}

/* -- what is sent in one packet ------------------------------------------------------------------- */

/* Whether ``next`` may follow ``last`` in one packet: RFC 6716 3.2 wants one TOC; two bytes and less are DTX. */
static int may_join(const struct frame *last, const struct frame *next)
{
    return last->sounding && next->sounding && last->size > 2 && next->size > 2 && next->tick == last->tick + 1 &&
           last->payload[0] == next->payload[0] && (last->payload[0] & 3) == 0;
}

/* RFC 6716 3.2.5, code 3: TOC, count, the lengths of all but the last where they differ, the frames. */
static size_t join(const struct frame *const *frames, int count, uint8_t *out)
{
    int same = 1;
    for (int at = 1; at < count; at++)
        same = same && frames[at]->size == frames[0]->size;
    uint8_t *to = out;
    *to++ = frames[0]->payload[0] | 3;
    *to++ = (uint8_t)(count | (same ? 0 : 0x80));
    for (int at = 0; !same && at < count - 1; at++) {
        int size = frames[at]->size - 1;
        if (size >= 252) { /* 3.2.1 */
            *to++ = (uint8_t)(252 + (size & 3));
            *to++ = (uint8_t)((size - 252 - (size & 3)) >> 2);
        } else {
            *to++ = (uint8_t)size;
        }
    }
    for (int at = 0; at < count; at++) {
        memcpy(to, frames[at]->payload + 1, frames[at]->size - 1u);
        to += frames[at]->size - 1;
    }
    return (size_t)(to - out);
}

static void add_piece(struct plan *plan, const struct frame *const *frames, int count)
{
    struct piece *piece = &plan->pieces[plan->count++];
    piece->tick = frames[0]->tick;
    piece->payload = frames[0]->payload;
    piece->size = frames[0]->size;
    piece->loudest = frames[0];
    for (int at = 1; at < count; at++)
        if (frames[at]->level < piece->loudest->level)
            piece->loudest = frames[at];
    if (count > 1) {
        piece->payload = plan->joined;
        piece->size = (uint16_t)join(frames, count, plan->joined);
    }
}

static const struct plan *plan_for(struct stream *stream, int64_t first, int64_t tick)
{
    struct plan *plan = &stream->plans[tick - first];
    if (plan->made == tick)
        return plan;
    plan->made = tick;
    plan->count = 0;
    const struct frame *run[TICKS];
    int count = 0, size = 0;
    for (int64_t at = first; at <= tick; at++) {
        const struct frame *frame = &stream->frames[at % KEPT];
        if (frame->tick != at) /* a tick that was skipped */
            continue;
        if (count && !(may_join(run[count - 1], frame) && size + frame->size + 2 * TICKS <= MAX_JOINED)) {
            add_piece(plan, run, count);
            count = size = 0;
        }
        run[count++] = frame;
        size += frame->size;
    }
    if (count)
        add_piece(plan, run, count);
    return plan;
}

/* The frames of the ``ticks`` before ``before``, if they can be one payload that is worth sending a second time. */
static const struct copy *copy_before(struct stream *stream, int64_t before, int ticks, int64_t tick)
{
    struct copy *copy = &stream->copies[ticks - 1];
    if (copy->made == tick && copy->before == before)
        return copy;
    copy->made = tick;
    copy->before = before;
    copy->size = 0;
    const struct frame *run[TICKS];
    int count = 0, size = 0;
    for (int64_t at = before - ticks; at < before; at++) {
        const struct frame *frame = &stream->frames[at % KEPT];
        if (frame->tick != at) /* a tick that was skipped */
            continue;
        if (!frame->sounding || frame->size <= 2 || (count && !may_join(run[count - 1], frame)))
            return copy;
        run[count++] = frame;
        size += frame->size;
    }
    if (!count)
        return copy;
    uint8_t joined[MAX_JOINED];
    const uint8_t *payload = run[0]->payload;
    if (count > 1) {
        if (size + 2 * TICKS > MAX_JOINED)
            return copy;
        size = (int)join(run, count, joined);
        payload = joined;
    }
    if (size <= MAX_COPY) {
        memcpy(copy->payload, payload, (size_t)size);
        copy->size = (uint16_t)size;
    }
    return copy;
}

/* -- one datagram --------------------------------------------------------------------------------- */

static void put32(uint8_t *out, uint32_t value)
{
    out[0] = (uint8_t)(value >> 24);
    out[1] = (uint8_t)(value >> 16);
    out[2] = (uint8_t)(value >> 8);
    out[3] = (uint8_t)value;
}

/* RFC 3550 5.1, RFC 8285 4.2, RFC 6464 3, RFC 6465 3. The bytes written. */
static size_t put_head(uint8_t *out, const struct sender *sender, const struct piece *piece)
{
    const struct frame *about = piece->loudest;
    uint8_t *block = out + 12 + 4 * about->csrcs + 4, *to = block;
    if (sender->level_id) {
        *to++ = (uint8_t)(sender->level_id << 4);
        *to++ = (uint8_t)((about->csrcs ? 0x80 : 0) | about->level);
    }
    if (sender->csrc_level_id && about->csrcs) {
        *to++ = (uint8_t)(sender->csrc_level_id << 4 | (about->csrcs - 1));
        memcpy(to, about->levels, about->csrcs);
        to += about->csrcs;
    }
    int extended = to > block;
    while ((to - block) % 4)
        *to++ = 0;
    out[0] = (uint8_t)(0x80 | (extended ? 0x10 : 0) | about->csrcs);
    out[1] = (uint8_t)((about->sounding && sender->quiet ? 0x80 : 0) |
                       (sender->red_type ? sender->red_type : sender->payload_type));
    out[2] = (uint8_t)(sender->index >> 8);
    out[3] = (uint8_t)sender->index;
    put32(out + 4, sender->timestamp_base + (uint32_t)(piece->tick * SAMPLES));
    put32(out + 8, sender->ssrc);
    memcpy(out + 12, about->csrc, 4u * about->csrcs);
    if (!extended)
        return 12u + 4u * about->csrcs;
    block[-4] = 0xBE;
    block[-3] = 0xDE;
    block[-2] = 0;
    block[-1] = (uint8_t)((to - block) / 4);
    return (size_t)(to - out);
}

/* RFC 2198 3: the heads of the blocks. NULL for ``copy``: the primary one alone. The bytes written. */
static size_t put_red(uint8_t *out, const struct sender *sender, const struct copy *copy, int64_t ticks)
{
    uint8_t *to = out;
    if (copy) {
        put32(to, (0x80u | sender->payload_type) << 24 | (uint32_t)(ticks * SAMPLES) << 10 | copy->size);
        to += 4;
    }
    *to++ = sender->payload_type;
    return (size_t)(to - out);
}

/* Header in clear and authenticated; ``red`` (heads of blocks), copy and payload encrypted; the tag behind them.
 * The size, or 0 where libcrypto refuses. */
static size_t protect(uint8_t *out, const struct sender *sender, const struct piece *piece, const uint8_t *red,
                      size_t red_size, const struct copy *copy)
{
    size_t head = put_head(out, sender, piece);
    uint8_t iv[SALT] = {0}; /* RFC 7714 8.1: 00 00, SSRC, rollover counter, sequence number; with the salt */
    put32(iv + 2, sender->ssrc);
    put32(iv + 6, (uint32_t)(sender->index >> 16));
    iv[10] = (uint8_t)(sender->index >> 8);
    iv[11] = (uint8_t)sender->index;
    for (int at = 0; at < SALT; at++)
        iv[at] ^= sender->salt[at];
    int size = 0, rest = 0;
    void *ctx = sender->cipher;
    uint8_t *to = out + head;
    if (evp.init(ctx, NULL, NULL, NULL, iv) != 1 || evp.update(ctx, NULL, &size, out, (int)head) != 1)
        return 0;
    if (red_size) {
        if (evp.update(ctx, to, &size, red, (int)red_size) != 1)
            return 0;
        to += size;
    }
    if (copy) {
        if (evp.update(ctx, to, &size, copy->payload, copy->size) != 1)
            return 0;
        to += size;
    }
    if (evp.update(ctx, to, &size, piece->payload, piece->size) != 1 || evp.final(ctx, to + size, &rest) != 1 ||
        evp.ctrl(ctx, GET_TAG, TAG, to + size) != 1)
        return 0;
    return (size_t)(to + size - out) + TAG;
}

/* What the kernel does not take is counted and lost, as on any path. A full buffer ends the batch: the rest would
 * fail too, and who waits is late for everybody. */
static void flush(struct engine *engine, struct batch *batch)
{
    int at = 0;
    while (at < batch->count) {
        int sent = sendmmsg(batch->socket, batch->messages + at, (unsigned)(batch->count - at), MSG_DONTWAIT);
        if (sent > 0) {
            at += sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            engine->errors += (uint64_t)(batch->count - at);
            break;
        } else if (errno != EINTR) {
            engine->errors++;
            at++;
        }
    }
    batch->count = 0;
}

static void send_piece(struct engine *engine, struct sender *sender, const struct piece *piece, struct stream *stream,
                       int64_t tick)
{
    int by_tcp = sender->address_size == STREAM;
    struct batch *batch = sender->address_size == 16 ? &engine->v4 : &engine->v6;
    if (!by_tcp && batch->socket < 0)
        return;
    uint8_t *data = by_tcp ? engine->for_stream : batch->data[batch->count];
    const struct copy *copy = NULL;
    uint8_t red[RED_HEAD];
    size_t red_size = 0;
    if (sender->red_type) {
        int64_t ticks = piece->tick - sender->last_tick; /* the packet before, if it was one of the last ticks */
        if (ticks <= TICKS && sender->last_tick > 0)
            copy = copy_before(stream, piece->tick, (int)ticks, tick);
        if (copy && (!copy->size || RED_HEAD + copy->size + piece->size > MAX_JOINED))
            copy = NULL;
        red_size = put_red(red, sender, copy, ticks);
    }
    size_t size = protect(data, sender, piece, red, red_size, copy);
    sender->index++; /* also after a failure: no number is used twice with one key */
    if (!size) {
        engine->errors++;
        return;
    }
    sender->quiet = !piece->loudest->sounding;
    sender->last_tick = piece->tick;
    sender->packets++;
    sender->octets += red_size + (copy ? copy->size : 0u) + piece->size;
    sender->wire_bytes += size;
    if (by_tcp) {
        uint64_t number;
        memcpy(&number, sender->address, sizeof number);
        engine->to_stream(number, data, size);
        return;
    }
    struct msghdr *header = &batch->messages[batch->count].msg_hdr;
    batch->parts[batch->count].iov_len = size;
    header->msg_name = sender->address;
    header->msg_namelen = sender->address_size;
    if (++batch->count == BATCH)
        flush(engine, batch);
}

/* Send each due listener what came since its last packet. ``streams``: one block of them, by ``sender->stream``. */
void eyvan_fan_out(struct engine *engine, struct sender *const *senders, size_t count, struct stream *streams,
                   int64_t tick)
{
    for (size_t each = 0; each < count; each++) {
        struct sender *sender = senders[each];
        if (!sender->cipher)
            continue;
        if (!sender->address_size) {
            sender->done = tick;
            continue;
        }
        if (tick % sender->period != sender->phase && tick - sender->done < TICKS)
            continue;
        int64_t first = sender->done + 1 > tick - TICKS + 1 ? sender->done + 1 : tick - TICKS + 1;
        if (first < 1)
            first = 1;
        sender->done = tick;
        if (first > tick)
            continue;
        struct stream *stream = &streams[sender->stream];
        const struct plan *plan = plan_for(stream, first, tick);
        for (int at = 0; at < plan->count; at++) {
            const struct piece *piece = &plan->pieces[at];
            if (piece->loudest->sounding || !sender->quiet || piece->tick - sender->last_tick >= sender->keep_alive)
                send_piece(engine, sender, piece, stream, tick);
        }
    }
    flush(engine, &engine->v4);
    flush(engine, &engine->v6);
}
