/*
 * A stand-in for an engine that streams: as fast as sockets take it, or at a pace.
 *
 *   tokens PORT COUNT MICROSECONDS
 *
 * Every POST to 127.0.0.1:PORT gets COUNT server-sent events and [DONE], each written by itself,
 * MICROSECONDS apart (0: at once). An event carries the nanosecond of CLOCK_MONOTONIC at which it
 * was written, so that a client on the same machine sees how long it was under way. A thread for
 * each connection; nothing is checked but the length of the request.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int count, pace;

static int all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

/* 1: a whole request was read, *stays says whether the connection does; 0: there is none more */
static int request(int fd, int *stays)
{
    static const size_t size = 16384;
    char head[16384];
    size_t have = 0, want = 0;
    for (;;) {
        ssize_t got = recv(fd, head + have, size - 1 - have, 0);
        if (got <= 0)
            return 0;
        have += (size_t)got;
        head[have] = 0;
        char *end = strstr(head, "\r\n\r\n");
        if (!want && end) {
            char *length = strcasestr(head, "content-length:");
            want = (size_t)(end + 4 - head) + (length && length < end ? strtoul(length + 15, 0, 10) : 0);
            *stays = !strcasestr(head, "connection: close");
        }
        if (want && have >= want)
            return 1;
        if (have >= size - 1)
            return 0; /* no client of these benchmarks sends so much */
    }
}

static int answer(int fd, int stays)
{
    char text[512], event[640];
    int size = snprintf(text, sizeof text,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%s\r\n",
        stays ? "" : "Connection: close\r\n");
    if (all(fd, text, (size_t)size))
        return -1;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (int number = 0; number < count; number++) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        size = snprintf(text, sizeof text,
            "data: {\"id\":\"stand-in\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"m\","
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":null}],"
            "\"at\":%lld}\n\n",
            (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
        int whole = snprintf(event, sizeof event, "%x\r\n%s\r\n", size, text);
        if (all(fd, event, (size_t)whole))
            return -1;
        if (!pace)
            continue;
        next.tv_nsec += pace * 1000LL;
        next.tv_sec += next.tv_nsec / 1000000000L;
        next.tv_nsec %= 1000000000L;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
    }
    static const char done[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    return all(fd, done, sizeof done - 1);
}

static void *serve(void *argument)
{
    int fd = (int)(intptr_t)argument, stays = 1, on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (stays && request(fd, &stays) && !answer(fd, stays))
        ;
    shutdown(fd, SHUT_WR);
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: tokens PORT COUNT MICROSECONDS\n");
        return 2;
    }
    count = atoi(argv[2]);
    pace = atoi(argv[3]);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(argv[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("tokens");
        return 1;
    }
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&small, 128 * 1024);
    for (;;) {
        int fd = accept(listener, 0, 0);
        pthread_t thread;
        if (fd >= 0 && pthread_create(&thread, &small, serve, (void *)(intptr_t)fd))
            close(fd);
    }
}
