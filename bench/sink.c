/* The load client's two loops: drain many sockets and count, and the kernel's floor: the same datagrams with nothing
 * but sendmmsg(2). Compiled by bench/native.py when it is needed. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BURST = 16, ROOM = 2048, EVENTS = 256, BATCH = 64, SOURCES = 12 };

struct source { /* one SSRC; sequence numbers unwrapped */
    uint32_t ssrc, packets, first, highest;
};

struct count { /* of one listener; bench/native.py has the same */
    uint32_t packets, other;
    uint64_t bytes;
    uint32_t sources, unused;
    struct source source[SOURCES];
};

struct sample { /* when a packet came, by the kernel's clock */
    int64_t at_ns;
    uint32_t flow, timestamp; /* flow: listener times SOURCES, and the number of the source */
};

struct upkeep { /* what a client sends by itself: an ICE check and a receiver report, each ``every_ns`` */
    const uint8_t *data;
    const int32_t *sizes; /* ``rounds`` times two for each listener, 0 for none; ``stride`` bytes apart in data */
    int32_t stride, rounds;
    int64_t every_ns;
};

static int64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The number of the packet's source, or -1 for what is no sound. */
static int note(struct count *count, const uint8_t *data, int size)
{
    if (size < 12 || data[0] < 128 || data[0] > 191 || (data[1] >= 192 && data[1] <= 223)) {
        count->other++;
        return -1;
    }
    uint16_t sequence = (uint16_t)(data[2] << 8 | data[3]);
    uint32_t ssrc = (uint32_t)data[8] << 24 | (uint32_t)data[9] << 16 | (uint32_t)data[10] << 8 | data[11];
    uint32_t at = 0;
    while (at < count->sources && count->source[at].ssrc != ssrc)
        at++;
    if (at == SOURCES) {
        count->other++;
        return -1;
    }
    struct source *source = &count->source[at];
    if (at == count->sources) {
        count->sources++;
        *source = (struct source){ssrc, 0, sequence, sequence};
    }
    int16_t step = (int16_t)(sequence - (uint16_t)source->highest);
    if (step > 0)
        source->highest += (uint32_t)step;
    source->packets++;
    count->packets++;
    count->bytes += (uint64_t)size;
    return (int)at;
}

static int64_t stamp(const struct msghdr *header)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR((struct msghdr *)header, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return t.tv_sec * 1000000000LL + t.tv_nsec;
        }
    return 0;
}

/* Drain ``count`` connected sockets for so long. Every ``sampled``-th listener's arrivals go to ``samples``.
 * ``begin`` is the round of upkeep to go on with. Samples taken, or -1. */
int64_t drain(const int32_t *sockets, int32_t count, struct count *counts, const struct upkeep *upkeep, int32_t begin,
              struct sample *samples, int64_t max_samples, int32_t sampled, int64_t for_ns)
{
    static uint8_t data[BURST][ROOM], control[BURST][64];
    struct mmsghdr messages[BURST];
    struct iovec parts[BURST];
    struct epoll_event events[EVENTS];
    memset(messages, 0, sizeof messages);
    int poll = epoll_create1(EPOLL_CLOEXEC), on = 1;
    if (poll < 0)
        return -1;
    for (int32_t at = 0; at < count; at++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)at};
        epoll_ctl(poll, EPOLL_CTL_ADD, sockets[at], &event);
        if (at % sampled == 0)
            setsockopt(sockets[at], SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    }
    int64_t start = now_ns(CLOCK_MONOTONIC), taken = 0, kept_up = 0;
    for (;;) {
        int64_t passed = now_ns(CLOCK_MONOTONIC) - start;
        if (passed >= for_ns)
            break;
        int64_t due = upkeep ? passed * count / upkeep->every_ns : 0; /* one listener after the other */
        for (; kept_up < due; kept_up++) {
            int32_t listener = (int32_t)(kept_up % count);
            int64_t round = (begin + kept_up / count) % upkeep->rounds;
            for (int part = 0; part < 2; part++) {
                int64_t slot = ((int64_t)listener * upkeep->rounds + round) * 2 + part;
                if (upkeep->sizes[slot])
                    (void)!send(sockets[listener], upkeep->data + slot * upkeep->stride,
                                (size_t)upkeep->sizes[slot], MSG_DONTWAIT);
            }
        }
        int ready = epoll_wait(poll, events, EVENTS, 5);
        for (int each = 0; each < ready; each++) {
            uint32_t listener = events[each].data.u32;
            for (int at = 0; at < BURST; at++) {
                parts[at] = (struct iovec){data[at], ROOM};
                messages[at].msg_hdr.msg_iov = &parts[at];
                messages[at].msg_hdr.msg_iovlen = 1;
                messages[at].msg_hdr.msg_control = control[at];
                messages[at].msg_hdr.msg_controllen = sizeof control[at];
            }
            int got = recvmmsg(sockets[listener], messages, BURST, MSG_DONTWAIT, NULL);
            for (int at = 0; at < got; at++) {
                int source = note(&counts[listener], data[at], (int)messages[at].msg_len);
                if (source < 0 || (int32_t)listener % sampled || taken >= max_samples)
                    continue;
                const uint8_t *head = data[at];
                samples[taken++] = (struct sample){
                    stamp(&messages[at].msg_hdr), listener * SOURCES + (uint32_t)source,
                    (uint32_t)head[4] << 24 | (uint32_t)head[5] << 16 | (uint32_t)head[6] << 8 | head[7]};
            }
        }
    }
    close(poll);
    return taken;
}

/* ``size`` bytes to each of ``count`` addresses each ``packet_ns``, spread over ``phases`` ticks. The CPU used, in ns;
 * ``sent`` takes the datagrams that the kernel took. */
int64_t flood(int from, const struct sockaddr_in *to, int32_t count, int32_t size, int32_t phases, int64_t tick_ns,
              int64_t for_ns, int64_t *sent)
{
    static uint8_t data[ROOM];
    struct mmsghdr messages[BATCH];
    struct iovec part = {data, (size_t)size};
    memset(messages, 0, sizeof messages);
    data[0] = 0x80;
    int64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID), start = now_ns(CLOCK_MONOTONIC);
    *sent = 0;
    for (int64_t tick = 0; tick * tick_ns < for_ns; tick++) {
        int64_t wake = start + tick * tick_ns;
        struct timespec until = {wake / 1000000000LL, wake % 1000000000LL};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        unsigned filled = 0;
        for (int32_t at = (int32_t)(tick % phases); at < count; at += phases) {
            struct msghdr *header = &messages[filled].msg_hdr;
            header->msg_iov = &part;
            header->msg_iovlen = 1;
            header->msg_name = (void *)&to[at];
            header->msg_namelen = sizeof to[at];
            if (++filled == BATCH || at + phases >= count) {
                int took = sendmmsg(from, messages, filled, MSG_DONTWAIT);
                *sent += took > 0 ? took : 0;
                filled = 0;
            }
        }
    }
    return now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
}
