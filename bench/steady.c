/*
 * A steady load of many kinds of clients, for drills: whatever is done to the server meanwhile, nobody's request and
 * nobody's handshake may fail.
 *
 * Each kind has `--clients` clients, and each client asks once in `--period` milliseconds: over a new connection with
 * a full handshake, over a new one that offers the newest session, or over one that it keeps. A client that keeps its
 * connection does as the standards say when the server ends it: it opens another one after `Connection: close`, after
 * GOAWAY, or when the connection ends while nothing is asked. What is a failure: a connection that is refused or
 * reset, a handshake that does not succeed, an answer that is not 200, that breaks off or never comes, a request that
 * was sent to a connection which then ends without an answer, also if it could be repeated.
 *
 * It prints `ready` when every client was served once; goes on until standard input ends; lets everybody finish; and
 * prints one line of JSON. Exit codes: 0 measured (look at `failed`), 1 could not, 2 wrong usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client.h"

enum { MOST_CLIENTS = 1000, TIMEOUT_S = 15, FAILURES = 40, TICK_MS = 2 };

struct kind {
    const char *name;
    int tls_version;
    bool resumes, keeps, http2, slow;
    SSL_CTX *context;
    long done, resumed, opened, failed;
    long announced, silent; /* connections that the server ended: said before, and not */
    double slowest;
};

static struct kind kinds[] = {
    {.name = "new TLS 1.3", .tls_version = TLS1_3_VERSION},
    {.name = "new TLS 1.2", .tls_version = TLS1_2_VERSION},
    {.name = "resumed TLS 1.3", .tls_version = TLS1_3_VERSION, .resumes = true},
    {.name = "resumed TLS 1.2", .tls_version = TLS1_2_VERSION, .resumes = true},
    {.name = "kept HTTP/1.1", .tls_version = TLS1_3_VERSION, .keeps = true},
    {.name = "kept HTTP/2", .tls_version = TLS1_3_VERSION, .keeps = true, .http2 = true},
    {.name = "kept HTTP/1.1, slow answers", .tls_version = TLS1_3_VERSION, .keeps = true, .slow = true},
    {.name = "kept HTTP/2, slow answers", .tls_version = TLS1_3_VERSION, .keeps = true, .http2 = true, .slow = true},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

enum stage { ABSENT, CONNECTING, HANDSHAKING, OPEN, CLOSING };

struct client {
    struct kind *kind;
    enum stage stage;
    int socket;
    SSL *ssl;
    SSL_SESSION *session;
    bool asking, is_last, was_served;
    double due, asked, deadline;
    unsigned stream;
    struct message outgoing;
    size_t sent, received;
    char response[RESPONSE_BYTES + 1];
};

static struct sockaddr_in address;
static const char *certificate, *key, *ca, *slow_path = "/slow";
static long clients_of_each = 8;
static double period = 0.1;
static struct client *clients;
static int poller;
static bool is_over;

static struct {
    struct kind *kind;
    double at;
    char what[200];
} failures[FAILURES];
static long failure_count;

static void usage(const char *problem)
{
    fprintf(stderr, "error: %s\n", problem);
    fprintf(stderr, "usage: steady --address IPV4:PORT --cert FILE --key FILE --ca FILE [--clients N] [--period MS]\n"
                    "              [--slow-path PATH]\n");
    exit(2);
}

static double wall_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The client is found again through the SSL: the newest session is the one to offer next. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct client *client = SSL_get_app_data(ssl);
    if (client->session != NULL)
        SSL_SESSION_free(client->session);
    client->session = session;
    return 1; /* the reference is ours now */
}

static void watch(struct client *client, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poller, operation, client->socket, &event) != 0)
        stop("epoll_ctl failed");
}

static void drop_connection(struct client *client)
{
    if (client->stage >= OPEN)
        /* Without a close_notify of our own OpenSSL would call a TLS 1.2 session bad and never offer it again. */
        SSL_shutdown(client->ssl);
    SSL_free(client->ssl);
    close(client->socket);
    client->ssl = NULL;
    client->stage = ABSENT;
    client->asking = client->is_last = false;
    ERR_clear_error();
}

static void fail(struct client *client, const char *what)
{
    int error = errno;
    client->kind->failed++;
    if (failure_count < FAILURES) {
        failures[failure_count].kind = client->kind;
        failures[failure_count].at = wall_clock();
        describe_failure(failures[failure_count].what, sizeof failures->what, what, error);
    }
    failure_count++;
    client->due = now() + period; /* not at once: what is wrong may last */
    drop_connection(client);
}

static void open_connection(struct client *client)
{
    int on = 1;
    client->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->socket < 0)
        stop("no more sockets (is the open-files limit too low?)");
    choose_source(client->socket, &address);
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    client->ssl = SSL_new(client->kind->context);
    if (client->ssl == NULL || SSL_set_fd(client->ssl, client->socket) != 1 ||
        SSL_set_tlsext_host_name(client->ssl, "localhost") != 1)
        stop("no TLS connection can be made");
    SSL_set_app_data(client->ssl, client);
    SSL_set_connect_state(client->ssl);
    if (client->kind->resumes && client->session != NULL)
        SSL_set_session(client->ssl, client->session);
    client->stage = CONNECTING;
    client->outgoing.length = client->sent = client->received = 0;
    client->stream = 1;
    client->deadline = now() + TIMEOUT_S;
    client->kind->opened++;
    watch(client, EPOLLOUT, EPOLL_CTL_ADD);
    if (connect(client->socket, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS)
        fail(client, "connect failed");
}

static void flush(struct client *client)
{
    while (client->sent < client->outgoing.length) {
        ERR_clear_error();
        int n = SSL_write(client->ssl, client->outgoing.bytes + client->sent,
                          (int)(client->outgoing.length - client->sent));
        if (n <= 0) {
            int error = SSL_get_error(client->ssl, n);
            if (error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ)
                return watch(client, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return fail(client, "the request could not be sent");
        }
        client->sent += (size_t)n;
    }
    client->outgoing.length = client->sent = 0;
}

static void ask(struct client *client)
{
    const char *path = client->kind->slow ? slow_path : "/";
    client->asking = true;
    client->received = client->kind->http2 ? client->received : 0;
    client->deadline = now() + TIMEOUT_S;
    if (client->kind->http2)
        append_http2_request(&client->outgoing, path, "localhost", client->stream);
    else
        append_http1_request(&client->outgoing, path, "localhost", client->kind->keeps);
    flush(client);
}

static void answered(struct client *client)
{
    struct kind *kind = client->kind;
    double t = now(), took = t - client->asked;
    kind->done++;
    kind->slowest = took > kind->slowest ? took : kind->slowest;
    client->asking = false;
    client->was_served = true;
    client->stream += 2;
    /* As often as it was told, but never twice at once. */
    client->due += period;
    if (client->due < t)
        client->due = t;
    if (!kind->keeps) {
        if (SSL_session_reused(client->ssl))
            kind->resumed++;
        client->is_last = true;
    }
    if (client->is_last) {
        client->stage = CLOSING;
        client->deadline = t + TIMEOUT_S;
        if (kind->keeps)
            kind->announced++;
    }
}

static void read_http1(struct client *client)
{
    client->response[client->received] = '\0';
    if (!client->asking)
        return fail(client, "bytes came that nobody asked for");
    if (!http1_response_is_complete(client->response, client->received))
        return;
    if (strncmp(client->response, "HTTP/1.1 200", 12) != 0)
        return fail(client, "the status is not 200");
    char *end = strstr(client->response, "\r\n\r\n");
    *end = '\0';
    if (strcasestr(client->response, "\r\nconnection: close") != NULL)
        client->is_last = true;
    client->received = 0;
    answered(client);
}

static void take_frame(struct client *client, const struct frame *frame)
{
    bool is_ours = client->asking && frame->stream == client->stream;
    switch (frame->type) {
    case SETTINGS:
        if (!(frame->flags & ACK))
            append(&client->outgoing, "\0\0\0\4\1\0\0\0\0", FRAME_HEADER);
        return;
    case PING:
        if (!(frame->flags & ACK)) {
            append(&client->outgoing, "\0\0\10\6\1\0\0\0\0", FRAME_HEADER);
            append(&client->outgoing, frame->payload, 8);
        }
        return;
    case GOAWAY:
        client->is_last = true;
        if (client->asking && client->stream > (read_number(frame->payload) & 0x7fffffff))
            return fail(client, "GOAWAY leaves out a request that was sent");
        return;
    case RST_STREAM:
        if (is_ours)
            return fail(client, "the stream was reset");
        return;
    case HEADERS:
        if (is_ours && !status_is_200(frame))
            return fail(client, "the status is not 200");
        /* fall through */
    case DATA:
        if (is_ours && frame->flags & END_STREAM)
            answered(client);
        return;
    }
}

static void read_http2(struct client *client)
{
    struct frame frame;
    size_t used = 0;
    while (read_frame((unsigned char *)client->response + used, client->received - used, &frame)) {
        take_frame(client, &frame);
        if (client->stage == ABSENT)
            return;
        used += FRAME_HEADER + frame.length;
    }
    client->received -= used;
    memmove(client->response, client->response + used, client->received);
    if (client->received == RESPONSE_BYTES)
        return fail(client, "a frame is too long");
    flush(client);
    if (client->stage == OPEN && client->is_last && !client->asking) {
        client->kind->announced++;
        drop_connection(client);
    }
}

static void ended(struct client *client, int result)
{
    int error = SSL_get_error(client->ssl, result);
    bool is_clean = error == SSL_ERROR_ZERO_RETURN;
    if (client->asking)
        return fail(client, client->received > 0 ? "the answer broke off" : "the connection ended without an answer");
    if (!is_clean && client->stage != CLOSING)
        return fail(client, "the connection was cut while nothing was asked");
    if (client->stage == OPEN)
        client->kind->silent++;
    drop_connection(client);
}

static void read_all(struct client *client)
{
    char rest[256];
    while (client->stage >= OPEN) {
        bool is_closing = client->stage == CLOSING && !client->kind->http2;
        ERR_clear_error();
        errno = 0;
        int n = is_closing ? SSL_read(client->ssl, rest, sizeof rest)
                           : SSL_read(client->ssl, client->response + client->received,
                                      (int)(RESPONSE_BYTES - client->received));
        if (n <= 0) {
            int error = SSL_get_error(client->ssl, n);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
                ended(client, n);
            return;
        }
        if (is_closing)
            continue;
        client->received += (size_t)n;
        if (client->kind->http2)
            read_http2(client);
        else if (client->received == RESPONSE_BYTES)
            fail(client, "the response is too long");
        else
            read_http1(client);
    }
}

static void shake_hands(struct client *client)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(client->ssl);
    if (result != 1) {
        int error = SSL_get_error(client->ssl, result);
        if (error == SSL_ERROR_WANT_READ)
            return watch(client, EPOLLIN, EPOLL_CTL_MOD);
        if (error == SSL_ERROR_WANT_WRITE)
            return watch(client, EPOLLOUT, EPOLL_CTL_MOD);
        return fail(client, "the handshake failed");
    }
    client->stage = OPEN;
    watch(client, EPOLLIN, EPOLL_CTL_MOD);
    if (client->kind->http2) {
        append_http2_preface(&client->outgoing);
        /* Room for all that this connection will ever be told. */
        append(&client->outgoing, "\0\0\4\10\0\0\0\0\0\x7f\xff\0\0", FRAME_HEADER + 4);
    }
    ask(client);
}

static void advance(struct client *client, uint32_t events)
{
    if (client->stage == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(client->socket, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) {
            errno = error;
            return fail(client, "connect failed");
        }
        client->stage = HANDSHAKING;
    }
    if (client->stage == HANDSHAKING)
        return shake_hands(client);
    if (events & EPOLLOUT) {
        watch(client, EPOLLIN, EPOLL_CTL_MOD);
        flush(client);
    }
    read_all(client);
}

/* Starts what is due, ends what takes too long. True while somebody is busy. */
static bool tick(void)
{
    bool busy = false;
    double t = now();
    for (long i = 0; i < clients_of_each * KINDS; i++) {
        struct client *client = &clients[i];
        if ((client->asking || (client->stage != ABSENT && client->stage != OPEN)) && t > client->deadline) {
            errno = ETIMEDOUT;
            fail(client, client->asking ? "no answer in time" : "the connection takes too long");
        }
        if (!is_over && t >= client->due && !client->asking) {
            /* This program may have had to wait for its turn: what came meanwhile counts, as with any client. */
            if (client->stage == OPEN)
                read_all(client);
            if (client->stage == ABSENT) {
                client->asked = t;
                open_connection(client);
            } else if (client->stage == OPEN && !client->is_last) {
                client->asked = t;
                ask(client);
            }
        }
        busy |= client->asking || (client->stage != ABSENT && client->stage != OPEN);
    }
    return busy;
}

static bool everybody_was_served(void)
{
    for (long i = 0; i < clients_of_each * KINDS; i++)
        if (!clients[i].was_served)
            return false;
    return true;
}

static void run(void)
{
    struct epoll_event events[256], input = {.events = EPOLLIN};
    bool is_ready = false;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &input) != 0)
        stop("standard input must be a pipe");
    for (;;) {
        bool busy = tick();
        if (is_over && !busy)
            return;
        if (!is_ready && everybody_was_served()) {
            is_ready = true;
            puts("ready");
            fflush(stdout);
        }
        int n = epoll_wait(poller, events, 256, TICK_MS);
        for (int i = 0; i < n; i++) {
            char line[64];
            if (events[i].data.ptr != NULL) {
                struct client *client = events[i].data.ptr;
                if (client->stage != ABSENT)
                    advance(client, events[i].events);
            } else if (read(STDIN_FILENO, line, sizeof line) <= 0) {
                is_over = true;
                epoll_ctl(poller, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
            }
        }
    }
}

static void report(double seconds)
{
    printf("{\"seconds\": %.3f, \"kinds\": {", seconds);
    for (int i = 0; i < KINDS; i++) {
        struct kind *kind = &kinds[i];
        printf("%s\"%s\": {\"done\": %ld, \"failed\": %ld, \"opened\": %ld, \"resumed\": %ld, \"announced_ends\": %ld, "
               "\"silent_ends\": %ld, \"slowest_ms\": %.1f}",
               i == 0 ? "" : ", ", kind->name, kind->done, kind->failed, kind->opened, kind->resumed, kind->announced,
               kind->silent, kind->slowest * 1e3);
    }
    printf("}, \"failures\": [");
    for (long i = 0; i < failure_count && i < FAILURES; i++)
        printf("%s{\"kind\": \"%s\", \"at\": %.3f, \"what\": \"%s\"}", i == 0 ? "" : ", ", failures[i].kind->name,
               failures[i].at, failures[i].what);
    printf("]}\n");
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"address", required_argument, NULL, 'a'}, {"cert", required_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},     {"ca", required_argument, NULL, 'C'},
        {"clients", required_argument, NULL, 'n'}, {"period", required_argument, NULL, 'p'},
        {"slow-path", required_argument, NULL, 's'}, {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'a': address = parse_address(optarg); break;
        case 'c': certificate = optarg; break;
        case 'k': key = optarg; break;
        case 'C': ca = optarg; break;
        case 'n': clients_of_each = number(optarg, MOST_CLIENTS); break;
        case 'p': period = (double)number(optarg, 60000) / 1e3; break;
        case 's': slow_path = optarg; break;
        default: usage("unknown option");
        }
    }
    if (optind < argc || address.sin_port == 0 || certificate == NULL || key == NULL || ca == NULL)
        usage("--address, --cert, --key and --ca are needed");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    parse_options(argc, argv);
    clients = calloc((size_t)(clients_of_each * KINDS), sizeof *clients);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (clients == NULL || poller < 0)
        stop("no memory or epoll");
    double start = now();
    for (int i = 0; i < KINDS; i++) {
        kinds[i].context = make_context(kinds[i].tls_version, certificate, key, ca);
        if (kinds[i].http2)
            offer_http2(kinds[i].context);
        if (kinds[i].resumes) {
            SSL_CTX_set_session_cache_mode(kinds[i].context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
            SSL_CTX_sess_set_new_cb(kinds[i].context, keep_session);
        }
        for (long j = 0; j < clients_of_each; j++) {
            struct client *client = &clients[i * clients_of_each + j];
            client->kind = &kinds[i];
            /* Spread over the period. */
            client->due = start + period * (double)(j * KINDS + i) / (double)(clients_of_each * KINDS);
        }
    }
    run();
    report(now() - start);
    return 0;
}
