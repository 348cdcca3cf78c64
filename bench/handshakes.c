/*
 * A load generator for mutual-TLS handshakes: one thread, epoll, `--concurrency` connections at a time.
 *
 * Load mode: each connection is a handshake (full, or resumed with `--resume`), one GET that must be
 * answered with 200, and a close. With `--resume` each place in the pool first makes one full handshake,
 * and from then on offers the newest session it was given; SSL_session_reused says whether the server took it.
 * With `--strangers` each connection has a certificate of its own, which the server cannot have seen before.
 * With `--burst` the connections of a pool are all opened at once, and the next when the last of them is closed.
 * Hold mode (`--hold N`): N connections are opened, each proves itself with one GET, and all stay open
 * and idle until standard input ends. With `--http2` each is an HTTP/2 connection with one request on stream 1.
 *
 * Protocol with the caller: after a warm-up (which also collects the sessions) it prints the line `ready`;
 * with `--wait` it goes on only when a line arrives on standard input, so that the caller can read the
 * server's CPU time in between. The result is one line of JSON.
 *
 * Exit codes: 0 measured (look at `failed`), 1 could not measure, 2 wrong usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client.h"

enum { MAX_CONNECTIONS = 200000, CONNECTION_TIMEOUT_S = 10 };

struct options {
    struct sockaddr_in address;
    const char *certificate, *key, *ca, *authority_key, *server_name, *path;
    int tls_version;
    bool resume, wait, http2, burst;
    long count, concurrency, hold;
    double seconds;
};

enum stage { CONNECTING, HANDSHAKING, SENDING, READING, DRAINING, HELD, IDLE };

/* One place in the pool: a connection at a time, and the session it may resume. */
struct place {
    enum stage stage;
    int socket;
    SSL *ssl;
    SSL_SESSION *session;
    double deadline;
    size_t sent, received;
    char response[RESPONSE_BYTES + 1];
};

struct tally {
    long started, done, resumed, failed;
    char first_failure[256];
};

static struct options options;
static struct tally tally;
static SSL_CTX *context;
static int poller;
static struct message request;

static void usage(const char *problem)
{
    fprintf(stderr, "error: %s\n", problem);
    fprintf(stderr,
            "usage: handshakes --address IPV4:PORT --cert FILE --key FILE --ca FILE [--tls 1.2|1.3] [--resume]\n"
            "                  [--count N] [--seconds S] [--concurrency N [--burst]] [--hold N [--http2]] [--wait]\n"
            "                  [--strangers CA_KEY_FILE] [--server-name NAME] [--path PATH]\n");
    exit(2);
}

/* The place is found again through the SSL: the newest session is the one to offer next. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct place *place = SSL_get_app_data(ssl);
    if (place->session != NULL)
        SSL_SESSION_free(place->session);
    place->session = session;
    return 1; /* the reference is ours now */
}

static void prepare_context(void)
{
    context = make_context(options.tls_version, options.certificate, options.key, options.ca);
    if (options.http2)
        offer_http2(context);
    if (options.resume) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    }
}

/*
 * Strangers: clients that were never seen before. Each connection has a key and a certificate of its own, made when it
 * is opened: the subject and the extensions are those of `--cert`, with a serial and a key that nobody else has.
 */
static X509 *pattern;
static EVP_PKEY *authority_key;

static void prepare_strangers(void)
{
    FILE *file = fopen(options.certificate, "r");
    pattern = file == NULL ? NULL : PEM_read_X509(file, NULL, NULL, NULL);
    if (pattern == NULL)
        stop("--cert cannot be read");
    fclose(file);
    file = fopen(options.authority_key, "r");
    authority_key = file == NULL ? NULL : PEM_read_PrivateKey(file, NULL, NULL, NULL);
    if (authority_key == NULL)
        stop("--strangers names no private key");
    fclose(file);
}

static void become_stranger(SSL *ssl)
{
    static uint64_t serial;
    if (serial == 0)
        serial = (uint64_t)getpid() << 40 | 1;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    X509 *certificate = X509_dup(pattern);
    if (key == NULL || certificate == NULL || X509_set_pubkey(certificate, key) != 1 ||
        ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial++) != 1 ||
        X509_sign(certificate, authority_key, EVP_sha256()) <= 0 || SSL_use_certificate(ssl, certificate) != 1 ||
        SSL_use_PrivateKey(ssl, key) != 1)
        stop("no certificate can be made");
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void watch(struct place *place, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = place};
    if (epoll_ctl(poller, operation, place->socket, &event) != 0)
        stop("epoll_ctl failed");
}

static void open_connection(struct place *place)
{
    int on = 1;
    place->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (place->socket < 0)
        stop("no more sockets (is the open-files limit too low?)");
    choose_source(place->socket, &options.address);
    setsockopt(place->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    place->ssl = SSL_new(context);
    if (place->ssl == NULL || SSL_set_fd(place->ssl, place->socket) != 1 ||
        SSL_set_tlsext_host_name(place->ssl, options.server_name) != 1)
        stop("no TLS connection can be made");
    if (options.authority_key != NULL)
        become_stranger(place->ssl);
    SSL_set_app_data(place->ssl, place);
    SSL_set_connect_state(place->ssl);
    if (options.resume && place->session != NULL)
        SSL_set_session(place->ssl, place->session);
    place->stage = CONNECTING;
    place->sent = place->received = 0;
    place->deadline = now() + CONNECTION_TIMEOUT_S;
    tally.started++;
    watch(place, EPOLLOUT, EPOLL_CTL_ADD);
    if (connect(place->socket, (struct sockaddr *)&options.address, sizeof options.address) != 0 &&
        errno != EINPROGRESS)
        stop("connect failed at once");
}

static void close_connection(struct place *place)
{
    SSL_free(place->ssl);
    close(place->socket);
    place->ssl = NULL;
    place->socket = -1;
    place->stage = IDLE;
    ERR_clear_error();
}

static void fail(struct place *place, const char *what)
{
    tally.failed++;
    if (tally.first_failure[0] == '\0')
        describe_failure(tally.first_failure, sizeof tally.first_failure, what, errno);
    close_connection(place);
}

static void finish(struct place *place)
{
    tally.done++;
    if (SSL_session_reused(place->ssl))
        tally.resumed++;
    /* Without a close_notify of our own OpenSSL would call a TLS 1.2 session bad and never offer it again. */
    SSL_shutdown(place->ssl);
    close_connection(place);
}

/* Takes whole frames off the received bytes. True when the answer has ended; `problem` says what is wrong. */
static bool http2_response_is_complete(struct place *place, const char **problem)
{
    bool complete = false;
    size_t used = 0;
    struct frame frame;
    while (!complete && *problem == NULL) {
        bool is_whole = read_frame((unsigned char *)place->response + used, place->received - used, &frame);
        if (frame.length > RESPONSE_BYTES - FRAME_HEADER)
            *problem = "a frame is too long";
        if (!is_whole)
            break;
        if (frame.type == RST_STREAM || frame.type == GOAWAY)
            *problem = "the server ended the stream or the connection";
        if (frame.type == HEADERS && !status_is_200(&frame))
            *problem = "the status is not 200";
        /* So short a frame always fits into a connection on which nothing else is being sent. */
        if (frame.type == SETTINGS && !(frame.flags & ACK) &&
            SSL_write(place->ssl, "\0\0\0\4\1\0\0\0\0", FRAME_HEADER) <= 0)
            *problem = "the settings could not be acknowledged";
        complete = (frame.type == HEADERS || frame.type == DATA) && (frame.flags & END_STREAM);
        used += FRAME_HEADER + frame.length;
    }
    place->received -= used;
    memmove(place->response, place->response + used, place->received);
    return complete;
}

/* True when the call must be repeated once the socket is ready; then the wish is registered. */
static bool must_wait(struct place *place, int result)
{
    int error = SSL_get_error(place->ssl, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        return false;
    watch(place, error == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT, EPOLL_CTL_MOD);
    return true;
}

static void read_response(struct place *place)
{
    for (;;) {
        char rest[256];
        bool draining = place->stage == DRAINING;
        size_t room = RESPONSE_BYTES - place->received;
        if (!draining && room == 0)
            return fail(place, "the response is too long");
        ERR_clear_error();
        int n = SSL_read(place->ssl, draining ? rest : place->response + place->received,
                         draining ? (int)sizeof rest : (int)room);
        if (n <= 0 && must_wait(place, n))
            return;
        if (n <= 0) {
            if (draining)
                return finish(place);
            return fail(place, "the connection ended before the response");
        }
        if (draining)
            continue;
        place->received += (size_t)n;
        place->response[place->received] = '\0';
        const char *problem = NULL;
        bool complete = options.http2 ? http2_response_is_complete(place, &problem)
                                      : http1_response_is_complete(place->response, place->received);
        if (problem != NULL)
            return fail(place, problem);
        if (!complete)
            continue;
        if (!options.http2 && strncmp(place->response, "HTTP/1.1 200", 12) != 0)
            return fail(place, "the status is not 200");
        if (options.hold > 0) {
            tally.done++;
            place->stage = HELD;
            return watch(place, 0, EPOLL_CTL_MOD);
        }
        place->stage = DRAINING;
    }
}

static void advance(struct place *place)
{
    int result;
    switch (place->stage) {
    case CONNECTING: {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(place->socket, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) {
            errno = error;
            fail(place, "connect failed");
            return;
        }
        place->stage = HANDSHAKING;
    }
    /* fall through */
    case HANDSHAKING:
        ERR_clear_error();
        result = SSL_do_handshake(place->ssl);
        if (result != 1) {
            if (!must_wait(place, result))
                fail(place, "the handshake failed");
            return;
        }
        place->stage = SENDING;
    /* fall through */
    case SENDING:
        ERR_clear_error();
        result = SSL_write(place->ssl, request.bytes, (int)request.length);
        if (result <= 0) {
            if (!must_wait(place, result))
                fail(place, "the request could not be sent");
            return;
        }
        place->stage = READING;
    /* fall through */
    case READING:
    case DRAINING:
        read_response(place);
        return;
    case HELD:
        fail(place, "a held connection was ended");
        return;
    case IDLE:
        return;
    }
}

static void drop_overdue(struct place *places, long size)
{
    double t = now();
    for (long i = 0; i < size; i++) {
        if (places[i].stage != IDLE && places[i].stage != HELD && t > places[i].deadline) {
            errno = ETIMEDOUT;
            fail(&places[i], "a connection took too long");
        }
    }
}

/* Makes connections, `options.concurrency` at a time, until `count` were started or `seconds` are over. */
static void run(struct place *places, long size, long count, double seconds)
{
    struct epoll_event events[256];
    double end = now() + seconds, next_sweep = now() + 1;
    long first_free = 0, busy = 0;
    tally = (struct tally){0};
    for (;;) {
        bool more = tally.started < count && now() < end && tally.failed < 100 + count / 10;
        /* In hold mode a place that got its connection keeps it, so there are more places than concurrency. */
        /* A burst begins when the one before it is done, and is opened in one go. */
        bool open = more && (!options.burst || busy == 0);
        while (open && busy < options.concurrency && tally.started < count) {
            long tried = 0;
            while (tried++ < size && places[first_free].stage != IDLE)
                first_free = (first_free + 1) % size;
            if (places[first_free].stage != IDLE)
                break;
            open_connection(&places[first_free]);
            busy++;
        }
        if (busy == 0)
            return;
        int n = epoll_wait(poller, events, 256, 1000);
        for (int i = 0; i < n; i++) {
            struct place *place = events[i].data.ptr;
            bool was_busy = place->stage != IDLE && place->stage != HELD;
            advance(place);
            if (was_busy && (place->stage == IDLE || place->stage == HELD))
                busy--;
        }
        if (now() > next_sweep) {
            long before = tally.failed;
            drop_overdue(places, size);
            busy -= tally.failed - before;
            next_sweep = now() + 1;
        }
    }
}

static long lost_connections(struct place *places, long size)
{
    long lost = 0;
    for (long i = 0; i < size; i++) {
        /* Not by reading: tickets or frames that nobody asked for may lie before the end. */
        struct pollfd state = {.fd = places[i].socket, .events = POLLRDHUP};
        if (places[i].stage != HELD || (poll(&state, 1, 0) == 1 && state.revents & (POLLRDHUP | POLLHUP | POLLERR)))
            lost++;
    }
    return lost;
}

static void await_caller(bool until_end)
{
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL)
        if (!until_end)
            return;
}

static int hold(void)
{
    struct place *places = calloc((size_t)options.hold, sizeof *places);
    if (places == NULL)
        stop("not enough memory");
    for (long i = 0; i < options.hold; i++)
        places[i].stage = IDLE;
    run(places, options.hold, options.hold, options.seconds);
    printf("{\"mode\": \"hold\", \"done\": %ld, \"failed\": %ld, \"first_failure\": \"%s\"}\n", tally.done,
           tally.failed, tally.first_failure);
    fflush(stdout);
    await_caller(true);
    printf("{\"lost\": %ld}\n", lost_connections(places, options.hold));
    return 0;
}

static int load(void)
{
    long size = options.concurrency;
    struct place *places = calloc((size_t)size, sizeof *places);
    if (places == NULL)
        stop("not enough memory");
    for (long i = 0; i < size; i++)
        places[i].stage = IDLE;

    run(places, size, size, CONNECTION_TIMEOUT_S); /* warm-up: a connection for each place */
    if (tally.done < size) {
        fprintf(stderr, "error: %ld of %ld connections of the warm-up failed: %s\n", size - tally.done, size,
                tally.first_failure);
        return 1;
    }
    for (long i = 0; options.resume && i < size; i++) {
        if (places[i].session == NULL) {
            fprintf(stderr, "error: the server gave no session to resume\n");
            return 1;
        }
    }
    puts("ready");
    fflush(stdout);
    if (options.wait)
        await_caller(false);

    double start = now();
    run(places, size, options.count, options.seconds);
    double seconds = now() - start;
    printf("{\"mode\": \"%s\", \"tls\": \"%s\", \"done\": %ld, \"resumed\": %ld, \"failed\": %ld, "
           "\"seconds\": %.6f, \"first_failure\": \"%s\"}\n",
           options.resume ? "resumed" : "full", options.tls_version == TLS1_3_VERSION ? "1.3" : "1.2", tally.done,
           tally.resumed, tally.failed, seconds, tally.first_failure);
    return 0;
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"address", required_argument, NULL, 'a'},     {"cert", required_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},         {"ca", required_argument, NULL, 'C'},
        {"tls", required_argument, NULL, 't'},         {"resume", no_argument, NULL, 'r'},
        {"count", required_argument, NULL, 'n'},       {"seconds", required_argument, NULL, 's'},
        {"concurrency", required_argument, NULL, 'p'}, {"hold", required_argument, NULL, 'h'},
        {"wait", no_argument, NULL, 'w'},              {"server-name", required_argument, NULL, 'N'},
        {"path", required_argument, NULL, 'P'},        {"http2", no_argument, NULL, '2'},
        {"burst", no_argument, NULL, 'b'},             {"strangers", required_argument, NULL, 'S'},
        {NULL, 0, NULL, 0}};
    int option;
    options.tls_version = TLS1_3_VERSION;
    options.count = 1000;
    options.concurrency = 32;
    options.seconds = 600;
    options.server_name = "localhost";
    options.path = "/";
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'a': options.address = parse_address(optarg); break;
        case 'c': options.certificate = optarg; break;
        case 'k': options.key = optarg; break;
        case 'C': options.ca = optarg; break;
        case 't': options.tls_version = parse_tls_version(optarg); break;
        case 'S': options.authority_key = optarg; break;
        case 'r': options.resume = true; break;
        case 'n': options.count = number(optarg, 1000000000); break;
        case 's': options.seconds = strtod(optarg, NULL); break;
        case 'p': options.concurrency = number(optarg, 10000); break;
        case 'h': options.hold = number(optarg, MAX_CONNECTIONS); break;
        case 'w': options.wait = true; break;
        case 'b': options.burst = true; break;
        case '2': options.http2 = true; break;
        case 'N': options.server_name = optarg; break;
        case 'P': options.path = optarg; break;
        default: usage("unknown option");
        }
    }
    if (optind < argc)
        usage("unexpected argument");
    if (options.address.sin_port == 0 || options.certificate == NULL || options.key == NULL || options.ca == NULL)
        usage("--address, --cert, --key and --ca are needed");
    if (!(options.seconds > 0 && options.seconds <= 3600))
        usage("--seconds must be between 0 and 3600");
    if (options.hold > 0 && options.resume)
        usage("--hold and --resume exclude each other");
    if (options.http2 && options.hold == 0)
        usage("--http2 is for --hold");
    if (options.authority_key != NULL && (options.resume || options.hold > 0))
        usage("--strangers resume nothing and hold nothing");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    parse_options(argc, argv);
    if (options.http2) {
        append_http2_preface(&request);
        append_http2_request(&request, options.path, options.server_name, 1);
    } else {
        append_http1_request(&request, options.path, options.server_name, options.hold > 0);
    }
    prepare_context();
    if (options.authority_key != NULL)
        prepare_strangers();
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        stop("no epoll");
    return options.hold > 0 ? hold() : load();
}
