/*
 * A fleet that comes back: clients arrive at random moments at a fixed mean rate (`--rate`), whether the server keeps up
 * or not. Each wants one thing: a full mutual-TLS handshake and one GET that is answered with 200. Until it has that it
 * tries again, as devices do: an attempt that takes longer than `--timeout` seconds is abandoned, and after one that
 * failed it waits a second, then two, then four, then eight (each between half and one and a half of it). Every client
 * has an address of its own in 127.0.0.0/8.
 *
 * Arrivals last `--seconds`, the run a second longer. Served is who got its answer; goodput counts those of the time
 * between the first second and the last arrival. With `--returning P` that many percent of the clients have a session.
 *
 * Prints one line of JSON. Exit codes: 0 measured, 1 could not, 2 wrong usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client.h"

enum { ANSWER_BYTES = 1024, HELLO_BYTES = 2048, MOST_CLIENTS = 2000000, SESSIONS = 64, SLOT_MS = 10, BATCH = 64 };
static const double WARM_UP_S = 1, TAIL_S = 1, BACKOFF_S = 1, LONGEST_BACKOFF_S = 8;
static const double WITHIN_S[] = {0.25, 0.5, 1, 2, 5};
enum { LIMITS = sizeof WITHIN_S / sizeof *WITHIN_S };

enum stage { AWAY, CONNECTING, WAITING, HANDSHAKING, SENDING, READING, SERVED };

struct client {
    enum stage stage;
    int socket, attempts;
    struct hello *hello; /* sent, and not answered yet */
    SSL *ssl;            /* from the first byte of an answer on */
    double arrived, served, deadline;
    size_t received;
    char *answer;
    struct client *next_to_try;
};

/*
 * Most attempts of a storm end without an answer. A hello that nobody answered serves the next client as well: so they
 * cost this program little, and it can offer more than the server can take.
 */
struct hello {
    SSL *ssl;
    bool returns;
    size_t length;
    char bytes[HELLO_BYTES];
    struct hello *next;
};

/* An attempt that began, in the order in which they did. */
struct expiry {
    struct client *client;
    double deadline;
};

static const char *certificate, *key, *ca;
static struct sockaddr_in address;
static double rate, seconds = 8, timeout_s = 5;
static long returning;

static SSL_CTX *context;
static int poller;
static struct client *clients;
static long total, arrived, slots;
static struct client **tries; /* who tries again, by the moment */
static struct expiry *expiries;
static size_t expiry_first, expiry_count, expiry_room;
static SSL_SESSION *sessions[SESSIONS];
static long session_count;
static double begin;
static struct message request;

static struct hello *unanswered[2]; /* those of strangers, those of clients that have a session */
static long attempts, closed, timed_out, no_socket, resumed;
static double latest;

static void usage(const char *problem)
{
    fprintf(stderr, "error: %s\n", problem);
    fprintf(stderr, "usage: fleet --address IPV4:PORT --cert FILE --key FILE --ca FILE --rate PER_SECOND [--seconds S]\n"
                    "             [--timeout S] [--returning PERCENT]\n");
    exit(2);
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    if (session_count == SESSIONS)
        return 0;
    sessions[session_count++] = session;
    return 1;
}

/* Sessions for those that return: made before the storm, so this may block. */
static void collect_sessions(void)
{
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
    for (int i = 0; session_count < SESSIONS && i < 2 * SESSIONS; i++) {
        char answer[ANSWER_BYTES];
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        SSL *ssl = SSL_new(context);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0 || ssl == NULL ||
            SSL_set_fd(ssl, fd) != 1 || SSL_set_tlsext_host_name(ssl, "localhost") != 1 || SSL_connect(ssl) != 1 ||
            SSL_write(ssl, request.bytes, (int)request.length) <= 0)
            stop("a session could not be made");
        while (SSL_read(ssl, answer, sizeof answer) > 0)
            ;
        SSL_shutdown(ssl);
        SSL_free(ssl);
        close(fd);
    }
    if (session_count < SESSIONS)
        stop("the server gives no sessions");
}

static void watch(struct client *client, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poller, operation, client->socket, &event) != 0)
        stop("epoll_ctl failed");
}

static void fail(struct client *client, long *counter);

static struct hello *make_hello(bool returns)
{
    static long next;
    struct hello *hello = calloc(1, sizeof *hello);
    BIO *input = BIO_new(BIO_s_mem()), *output = BIO_new(BIO_s_mem());
    if (hello == NULL || input == NULL || output == NULL || (hello->ssl = SSL_new(context)) == NULL ||
        SSL_set_tlsext_host_name(hello->ssl, "localhost") != 1)
        stop("no TLS connection can be made");
    hello->returns = returns;
    if (returns)
        SSL_set_session(hello->ssl, sessions[next++ % session_count]);
    BIO_set_mem_eof_return(input, -1);
    SSL_set_bio(hello->ssl, input, output);
    SSL_set_connect_state(hello->ssl);
    SSL_do_handshake(hello->ssl);
    int length = BIO_read(output, hello->bytes, HELLO_BYTES);
    if (length <= 0 || BIO_pending(output) > 0)
        stop("no hello was made, or it is too long");
    hello->length = (size_t)length;
    return hello;
}

static void say_hello(struct client *client)
{
    long number = client - clients;
    bool returns = session_count > 0 && number * returning / 100 != (number + 1) * returning / 100;
    client->hello = unanswered[returns];
    if (client->hello == NULL)
        client->hello = make_hello(returns);
    else
        unanswered[returns] = client->hello->next;
    if (send(client->socket, client->hello->bytes, client->hello->length, 0) != (ssize_t)client->hello->length)
        return fail(client, &closed);
    client->stage = WAITING;
    watch(client, EPOLLIN, EPOLL_CTL_MOD);
}

/* True when there is one, and the rest of the handshake can begin. */
static bool is_answered(struct client *client)
{
    char byte;
    if (recv(client->socket, &byte, 1, MSG_PEEK) <= 0)
        return false;
    client->ssl = client->hello->ssl;
    free(client->hello);
    client->hello = NULL;
    client->answer = malloc(ANSWER_BYTES + 1);
    if (client->answer == NULL || SSL_set_fd(client->ssl, client->socket) != 1)
        stop("no TLS connection can be made");
    return true;
}

static void attempt(struct client *client)
{
    static int on = 1;
    /* 127.1.0.0 and on: an address for each. */
    struct sockaddr_in source = {.sin_family = AF_INET};
    long number = client - clients;
    source.sin_addr.s_addr = htonl(0x7f010000u + (uint32_t)number);
    client->attempts++;
    client->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->socket < 0)
        return fail(client, &no_socket);
    setsockopt(client->socket, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(client->socket, (struct sockaddr *)&source, sizeof source) != 0)
        stop("a source address in 127.0.0.0/8 cannot be bound");
    client->stage = CONNECTING;
    client->received = 0;
    client->deadline = now() + timeout_s;
    attempts++;
    watch(client, EPOLLOUT, EPOLL_CTL_ADD);
    if (connect(client->socket, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS)
        stop("connect failed at once");
    if (expiry_count == expiry_room) {
        expiry_room = 2 * expiry_room + 1024;
        expiries = realloc(expiries, expiry_room * sizeof *expiries);
        if (expiries == NULL)
            stop("not enough memory");
    }
    expiries[expiry_count++] = (struct expiry){client, client->deadline};
}

static void close_attempt(struct client *client)
{
    if (client->hello != NULL) {
        client->hello->next = unanswered[client->hello->returns];
        unanswered[client->hello->returns] = client->hello;
        client->hello = NULL;
    }
    SSL_free(client->ssl);
    if (client->socket >= 0)
        close(client->socket);
    free(client->answer);
    client->ssl = NULL;
    client->answer = NULL;
    client->socket = -1;
    client->stage = AWAY;
    ERR_clear_error();
}

static void fail(struct client *client, long *counter)
{
    (*counter)++;
    close_attempt(client);
    double backoff = BACKOFF_S * (1 << (client->attempts < 4 ? client->attempts - 1 : 3));
    backoff = fmin(backoff, LONGEST_BACKOFF_S) * (0.5 + drand48());
    long slot = (long)((now() + backoff - begin) * 1e3) / SLOT_MS;
    if (slot < slots) {
        client->next_to_try = tries[slot];
        tries[slot] = client;
    }
}

static void served(struct client *client)
{
    client->served = now();
    resumed += SSL_session_reused(client->ssl);
    SSL_shutdown(client->ssl);
    close_attempt(client);
    client->stage = SERVED;
}

static bool must_wait(struct client *client, int result)
{
    int error = SSL_get_error(client->ssl, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        return false;
    watch(client, error == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT, EPOLL_CTL_MOD);
    return true;
}

static void advance(struct client *client)
{
    int result, error = 0;
    socklen_t size = sizeof error;
    ERR_clear_error();
    switch (client->stage) {
    case CONNECTING:
        getsockopt(client->socket, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0)
            return fail(client, &closed);
        return say_hello(client);
    case WAITING:
        if (!is_answered(client))
            return fail(client, &closed);
        client->stage = HANDSHAKING;
        /* fall through */
    case HANDSHAKING:
        result = SSL_do_handshake(client->ssl);
        if (result != 1) {
            if (!must_wait(client, result))
                fail(client, &closed);
            return;
        }
        client->stage = SENDING;
        /* fall through */
    case SENDING:
        result = SSL_write(client->ssl, request.bytes, (int)request.length);
        if (result <= 0) {
            if (!must_wait(client, result))
                fail(client, &closed);
            return;
        }
        client->stage = READING;
        /* fall through */
    case READING:
        for (;;) {
            result = SSL_read(client->ssl, client->answer + client->received, (int)(ANSWER_BYTES - client->received));
            if (result <= 0) {
                if (!must_wait(client, result))
                    fail(client, &closed);
                return;
            }
            client->received += (size_t)result;
            client->answer[client->received] = '\0';
            if (client->received == ANSWER_BYTES)
                stop("the answer is too long");
            if (!http1_response_is_complete(client->answer, client->received))
                continue;
            if (strncmp(client->answer, "HTTP/1.1 200", 12) != 0)
                return fail(client, &closed);
            return served(client);
        }
    case AWAY:
    case SERVED:
        return;
    }
}

static void expire(double t)
{
    while (expiry_first < expiry_count && expiries[expiry_first].deadline <= t) {
        struct expiry *expiry = &expiries[expiry_first++];
        bool is_trying = expiry->client->stage != AWAY && expiry->client->stage != SERVED;
        /* Else it is over, and maybe another one has begun. */
        if (is_trying && expiry->client->deadline == expiry->deadline)
            fail(expiry->client, &timed_out);
    }
}

static void run(void)
{
    struct epoll_event events[256];
    long slot = 0;
    double end = begin + seconds + TAIL_S;
    for (;;) {
        double t = now();
        if (t >= end)
            return;
        /* Not too many at once: answers must be read, too. */
        for (int i = 0; i < BATCH && arrived < total && clients[arrived].arrived <= t; i++) {
            latest = fmax(latest, t - clients[arrived].arrived);
            attempt(&clients[arrived++]);
        }
        for (; slot < slots && begin + (double)(slot + 1) * SLOT_MS / 1e3 <= t; slot++) {
            while (tries[slot] != NULL) {
                struct client *client = tries[slot];
                tries[slot] = client->next_to_try;
                attempt(client);
            }
        }
        expire(t);
        bool is_due = arrived < total && clients[arrived].arrived <= t;
        int n = epoll_wait(poller, events, 256, is_due ? 0 : 1);
        for (int i = 0; i < n; i++)
            advance(events[i].data.ptr);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(double cpu)
{
    double end = begin + seconds + TAIL_S, *times = malloc((size_t)(total + 1) * sizeof *times);
    long done = 0, good = 0, in_time[LIMITS] = {0}, could[LIMITS] = {0};
    for (long i = 0; i < arrived; i++) {
        bool is_served = clients[i].stage == SERVED;
        double took = clients[i].served - clients[i].arrived;
        if (is_served) {
            times[done++] = took;
            good += clients[i].served >= begin + WARM_UP_S && clients[i].served < begin + seconds;
        }
        for (int j = 0; j < LIMITS; j++) {
            /* Those that had so much time. */
            if (clients[i].arrived + WITHIN_S[j] > end)
                continue;
            could[j]++;
            in_time[j] += is_served && took <= WITHIN_S[j];
        }
    }
    qsort(times, (size_t)done, sizeof *times, ascending);
    printf("{\"offered\": %.1f, \"arrived\": %ld, \"served\": %ld, \"resumed\": %ld, \"goodput\": %.1f, \"attempts\": %ld, "
           "\"closed\": %ld, \"timed_out\": %ld, \"no_socket\": %ld, \"p50_ms\": %.1f, \"p99_ms\": %.1f, \"late_ms\": %.1f, \"busy\": %.3f, "
           "\"within\": {",
           (double)arrived / seconds, arrived, done, resumed, (double)good / (seconds - WARM_UP_S), attempts, closed,
           timed_out, no_socket, done > 0 ? times[done / 2] * 1e3 : 0, done > 0 ? times[done * 99 / 100] * 1e3 : 0, latest * 1e3,
           cpu / (seconds + TAIL_S));
    for (int j = 0; j < LIMITS; j++)
        printf("%s\"%g\": %.4f", j == 0 ? "" : ", ", WITHIN_S[j],
               could[j] > 0 ? (double)in_time[j] / (double)could[j] : 0);
    printf("}}\n");
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"address", required_argument, NULL, 'a'}, {"cert", required_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},     {"ca", required_argument, NULL, 'C'},
        {"rate", required_argument, NULL, 'r'},    {"seconds", required_argument, NULL, 's'},
        {"timeout", required_argument, NULL, 't'}, {"returning", required_argument, NULL, 'R'},
        {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'a': address = parse_address(optarg); break;
        case 'c': certificate = optarg; break;
        case 'k': key = optarg; break;
        case 'C': ca = optarg; break;
        case 'r': rate = strtod(optarg, NULL); break;
        case 's': seconds = strtod(optarg, NULL); break;
        case 't': timeout_s = strtod(optarg, NULL); break;
        case 'R': returning = number(optarg, 100); break;
        default: usage("unknown option");
        }
    }
    if (optind < argc || address.sin_port == 0 || certificate == NULL || key == NULL || ca == NULL)
        usage("--address, --cert, --key and --ca are needed");
    if (!(rate > 0) || !(seconds > WARM_UP_S && seconds <= 600) || !(timeout_s > 0) || rate * seconds > MOST_CLIENTS)
        usage("--rate, --seconds or --timeout is out of range");
}

static double cpu_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    parse_options(argc, argv);
    context = make_context(TLS1_3_VERSION, certificate, key, ca);
    poller = epoll_create1(EPOLL_CLOEXEC);
    total = (long)(rate * seconds * 1.2) + 100;
    slots = (long)((seconds + TAIL_S) * 1e3) / SLOT_MS;
    clients = calloc((size_t)total, sizeof *clients);
    tries = calloc((size_t)slots, sizeof *tries);
    if (poller < 0 || clients == NULL || tries == NULL)
        stop("no memory or epoll");
    append_http1_request(&request, "/", "localhost", false);
    if (returning > 0)
        collect_sessions();
    srand48(1);
    begin = now() + 0.05;
    double due = begin;
    long count = 0;
    for (; count < total && due < begin + seconds; count++) {
        clients[count].arrived = due;
        clients[count].socket = -1;
        due += -log(1 - drand48()) / rate;
    }
    total = count;
    double cpu = cpu_time();
    run();
    report(cpu_time() - cpu);
    return 0;
}
