/*
 * Latency of HTTP/1.1 requests over mutual TLS at a fixed rate, in an open loop: requests are due at fixed moments,
 * whether earlier ones were answered or not, and a latency counts from the moment the request was due. A server (or
 * this program) that stalls is therefore charged for every request that had to wait, not for one.
 *
 * `--connections` stay open; a request that is due takes one that is idle, or waits for the first that becomes so.
 * With `--rate 0` the loop is closed: each connection sends its next request when it has its answer. The rate this
 * reaches is what `--rate` is chosen from.
 *
 * Prints one line of JSON; latencies are in microseconds. Exit codes: 0 measured, 1 could not, 2 wrong usage.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client.h"

enum { MAX_CONNECTIONS = 1000, DRAIN_S = 10 };

struct connection {
    SSL *ssl;
    bool busy;
    double due;
    size_t received;
    char response[RESPONSE_BYTES + 1];
};

static const char *certificate, *key, *ca;
static struct sockaddr_in address;
static long connections = 64;
static double rate, seconds = 5;

static struct connection pool[MAX_CONNECTIONS];
static long idle[MAX_CONNECTIONS], idle_count;
static double *latencies;
static long capacity, done, sent;
static double begin;

static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

static void usage(const char *problem)
{
    fprintf(stderr, "error: %s\n", problem);
    fprintf(stderr, "usage: latency --address IPV4:PORT --cert FILE --key FILE --ca FILE [--rate PER_SECOND]\n"
                    "               [--connections N] [--seconds S]\n");
    exit(2);
}

/* Connects and shakes hands before anything is measured, so this may block. */
static void open_connection(SSL_CTX *context, struct connection *connection)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = DRAIN_S};
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        stop("cannot connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    connection->ssl = SSL_new(context);
    if (connection->ssl == NULL || SSL_set_fd(connection->ssl, fd) != 1)
        stop("no TLS connection can be made");
    SSL_set_tlsext_host_name(connection->ssl, "localhost");
    if (SSL_connect(connection->ssl) != 1)
        stop("the handshake failed");
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void send_request(struct connection *connection, double due)
{
    connection->busy = true;
    connection->due = due;
    connection->received = 0;
    sent++;
    ERR_clear_error();
    /* So short a request always fits into a connection on which nothing else is under way. */
    if (SSL_write(connection->ssl, REQUEST, sizeof REQUEST - 1) != sizeof REQUEST - 1)
        stop("a request could not be sent");
}

/* True when the answer is complete, and then counted. */
static bool read_response(struct connection *connection)
{
    for (;;) {
        ERR_clear_error();
        int n = SSL_read(connection->ssl, connection->response + connection->received,
                         (int)(RESPONSE_BYTES - connection->received));
        if (n <= 0) {
            if (SSL_get_error(connection->ssl, n) == SSL_ERROR_WANT_READ)
                return false;
            stop("a connection ended, or its answer is too long");
        }
        if (!connection->busy)
            stop("an answer came that nobody asked for");
        connection->received += (size_t)n;
        connection->response[connection->received] = '\0';
        if (!http1_response_is_complete(connection->response, connection->received))
            continue;
        if (strncmp(connection->response, "HTTP/1.1 200", 12) != 0)
            stop("the status is not 200");
        if (done < capacity)
            latencies[done] = now() - connection->due;
        done++;
        connection->busy = false;
        return true;
    }
}

/* When the request after those already sent is due. */
static double next_due(void)
{
    return begin + (double)sent / rate;
}

static void send_what_is_due(double end)
{
    double t = now();
    while (idle_count > 0) {
        double due = rate > 0 ? next_due() : t;
        if (due > t || due >= end || t >= end + DRAIN_S)
            return;
        if (rate == 0 && t >= end)
            return;
        send_request(&pool[idle[--idle_count]], due);
    }
}

static void set_timer(int timer, double moment)
{
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)moment}};
    when.it_value.tv_nsec = (long)((moment - (double)when.it_value.tv_sec) * 1e9);
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void run(int poller, int timer)
{
    struct epoll_event events[256];
    double end;
    begin = now();
    end = begin + seconds;
    for (;;) {
        send_what_is_due(end);
        bool all_sent = rate > 0 ? next_due() >= end : now() >= end;
        if (all_sent && idle_count == connections)
            return;
        if (now() > end + DRAIN_S)
            stop("answers are still missing long after the end");
        if (rate > 0 && idle_count > 0 && !all_sent)
            set_timer(timer, next_due());
        int n = epoll_wait(poller, events, 256, 1000);
        for (int i = 0; i < n; i++) {
            struct connection *connection = events[i].data.ptr;
            uint64_t expirations;
            if (connection == NULL) {
                if (read(timer, &expirations, sizeof expirations) < 0)
                    continue;
            } else if (read_response(connection)) {
                idle[idle_count++] = connection - pool;
            }
        }
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double share)
{
    long count = done < capacity ? done : capacity;
    long at = (long)(share * (double)count);
    return latencies[at < count ? at : count - 1] * 1e6;
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"address", required_argument, NULL, 'a'}, {"cert", required_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},     {"ca", required_argument, NULL, 'C'},
        {"rate", required_argument, NULL, 'r'},    {"connections", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 's'}, {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'a': address = parse_address(optarg); break;
        case 'c': certificate = optarg; break;
        case 'k': key = optarg; break;
        case 'C': ca = optarg; break;
        case 'r': rate = strtod(optarg, NULL); break;
        case 'n': connections = strtol(optarg, NULL, 10); break;
        case 's': seconds = strtod(optarg, NULL); break;
        default: usage("unknown option");
        }
    }
    if (optind < argc || address.sin_port == 0 || certificate == NULL || key == NULL || ca == NULL)
        usage("--address, --cert, --key and --ca are needed");
    if (connections < 1 || connections > MAX_CONNECTIONS)
        usage("--connections is out of range");
    if (!(rate >= 0 && rate <= 1e6) || !(seconds > 0 && seconds <= 600))
        usage("--rate or --seconds is out of range");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    parse_options(argc, argv);
    capacity = (long)((rate > 0 ? rate : 200000) * seconds) + MAX_CONNECTIONS;
    latencies = malloc((size_t)capacity * sizeof *latencies);
    int poller = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (latencies == NULL || poller < 0 || timer < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event) != 0)
        stop("no memory, epoll or timer");
    /* Touched now: a first write to a page is not to be part of a latency. */
    memset(latencies, 0, (size_t)capacity * sizeof *latencies);
    SSL_CTX *context = make_context(TLS1_3_VERSION, certificate, key, ca);
    for (long i = 0; i < connections; i++) {
        open_connection(context, &pool[i]);
        event.data.ptr = &pool[i];
        if (epoll_ctl(poller, EPOLL_CTL_ADD, SSL_get_fd(pool[i].ssl), &event) != 0)
            stop("epoll_ctl failed");
        idle[idle_count++] = i;
    }
    run(poller, timer);
    double elapsed = now() - begin;
    qsort(latencies, (size_t)(done < capacity ? done : capacity), sizeof *latencies, ascending);
    printf("{\"done\": %ld, \"seconds\": %.6f, \"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f}\n", done,
           elapsed, percentile(0.5), percentile(0.99), percentile(0.999), percentile(1));
    return 0;
}
