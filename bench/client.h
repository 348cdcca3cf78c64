/*
 * What the load generators have in common: a clock, an address, TLS contexts of mutual-TLS clients, and as much of
 * HTTP/1.1 and HTTP/2 as a request with a short answer needs.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

enum { RESPONSE_BYTES = 4096, REQUEST_BYTES = 512, SOURCE_ADDRESSES = 16 };

/* Defined by each program: says how it is used, and ends it with 2. */
static void usage(const char *problem);

static inline void stop(const char *what)
{
    fprintf(stderr, "error: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline long number(const char *text, long most)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end != '\0' || value < 1 || value > most)
        usage("a number is none, or out of range");
    return value;
}

static inline struct sockaddr_in parse_address(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof host)
        usage("--address must be IPV4:PORT");
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    address.sin_port = htons((uint16_t)number(colon + 1, 65535));
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        usage("--address must be IPV4:PORT");
    return address;
}

static inline int parse_tls_version(const char *text)
{
    if (strcmp(text, "1.2") != 0 && strcmp(text, "1.3") != 0)
        usage("--tls must be 1.2 or 1.3");
    return text[2] == '2' ? TLS1_2_VERSION : TLS1_3_VERSION;
}

/* Closed connections leave their port in TIME_WAIT: several source addresses keep us from running out. */
static inline void choose_source(int fd, const struct sockaddr_in *address)
{
    static unsigned next;
    struct sockaddr_in source = {.sin_family = AF_INET};
    int on = 1;
    if (ntohl(address->sin_addr.s_addr) >> 24 != 127)
        return;
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + next++ % SOURCE_ADDRESSES);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) != 0)
        stop("a source address in 127.0.0.0/8 cannot be bound");
}

/* One suite and in effect one group, so that every server does the same cryptography. P-256 must be offered too:
 * TLS 1.2 ties the curve of an ECDSA certificate to this list. */
static inline SSL_CTX *make_context(int tls_version, const char *certificate, const char *key, const char *ca)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (context == NULL)
        stop("no TLS context");
    SSL_CTX_set_min_proto_version(context, tls_version);
    SSL_CTX_set_max_proto_version(context, tls_version);
    if (SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1 ||
        SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256") != 1 ||
        SSL_CTX_set1_groups_list(context, "X25519:P-256") != 1)
        stop("suites or groups are not known to this OpenSSL");
    if (certificate != NULL && SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        stop("--cert cannot be used");
    if (key != NULL && SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        stop("--key cannot be used");
    if (SSL_CTX_load_verify_locations(context, ca, NULL) != 1)
        stop("--ca cannot be used");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return context;
}

static inline void offer_http2(SSL_CTX *context)
{
    if (SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\2h2", 3) != 0)
        stop("h2 cannot be offered");
}

/* Bytes to be sent. */
struct message {
    size_t length;
    unsigned char bytes[REQUEST_BYTES];
};

static inline void append(struct message *message, const void *bytes, size_t length)
{
    if (message->length + length > sizeof message->bytes)
        usage("--path or --server-name is too long");
    memcpy(message->bytes + message->length, bytes, length);
    message->length += length;
}

static inline void append_http1_request(struct message *message, const char *path, const char *host, bool keep)
{
    char text[REQUEST_BYTES];
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, host,
                          keep ? "" : "Connection: close\r\n");
    append(message, text, length < 0 ? sizeof text : (size_t)length);
}

/* The answer is all there: a length in its head says where it ends. */
static inline bool http1_response_is_complete(const char *response, size_t received)
{
    const char *end = strstr(response, "\r\n\r\n");
    const char *length = strcasestr(response, "\r\ncontent-length:");
    if (end == NULL || length == NULL || length > end)
        return false;
    return received >= (size_t)(end + 4 - response) + strtoul(length + 17, NULL, 10);
}

/*
 * HTTP/2 (RFC 9113 and 7541): a preface, empty SETTINGS, and HEADERS frames that use only the static table and
 * literals without Huffman coding. Of an answer the status and the end are read.
 */
enum frame_type { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7 };
enum { FRAME_HEADER = 9, END_STREAM = 0x1, ACK = 0x1, PADDED = 0x8, PRIORITY = 0x20 };

static inline void append_http2_preface(struct message *message)
{
    append(message, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    append(message, "\0\0\0\4\0\0\0\0\0", FRAME_HEADER);
}

static inline void append_literal(struct message *message, unsigned char name_index, const char *value)
{
    size_t length = strlen(value);
    unsigned char start[2] = {name_index, (unsigned char)length};
    if (length > 126)
        usage("--path or --server-name is too long");
    append(message, start, sizeof start);
    append(message, value, length);
}

static inline void append_http2_request(struct message *message, const char *path, const char *host, unsigned stream)
{
    size_t frame = message->length;
    unsigned id = htonl(stream);
    append(message, "\0\0\0\1\5", 5); /* END_STREAM and END_HEADERS */
    append(message, &id, sizeof id);
    append(message, "\x82\x87", 2); /* :method GET, :scheme https */
    append_literal(message, 0x04, path);
    append_literal(message, 0x01, host); /* :authority */
    message->bytes[frame + 2] = (unsigned char)(message->length - frame - FRAME_HEADER);
}

/* A frame that is all there. */
struct frame {
    enum frame_type type;
    unsigned flags, stream;
    size_t length;
    const unsigned char *payload;
};

static inline unsigned read_number(const unsigned char *bytes)
{
    return (unsigned)bytes[0] << 24 | (unsigned)bytes[1] << 16 | (unsigned)bytes[2] << 8 | bytes[3];
}

/* The first frame of the bytes; false when it is not all there. `length` is set even then, if its head is. */
static inline bool read_frame(const unsigned char *bytes, size_t count, struct frame *frame)
{
    frame->length = 0;
    if (count < FRAME_HEADER)
        return false;
    frame->length = (size_t)bytes[0] << 16 | (size_t)bytes[1] << 8 | bytes[2];
    frame->type = bytes[3];
    frame->flags = bytes[4];
    frame->stream = read_number(bytes + 5) & 0x7fffffff;
    frame->payload = bytes + FRAME_HEADER;
    return count >= FRAME_HEADER + frame->length;
}

/* Of the header block only the first field matters: HTTP demands that it is the status. */
static inline bool status_is_200(const struct frame *frame)
{
    size_t at = (frame->flags & PADDED ? 1 : 0) + (frame->flags & PRIORITY ? 5 : 0);
    while (at < frame->length && (frame->payload[at] & 0xe0) == 0x20) /* changes of the table's size */
        at++;
    return at < frame->length && frame->payload[at] == 0x88;
}

/* Why a call on a connection failed, as a JSON string can hold it. */
static inline void describe_failure(char *text, size_t size, const char *what, int error)
{
    unsigned long code = ERR_peek_error();
    const char *reason = code == 0 ? strerror(error) : ERR_reason_error_string(code);
    snprintf(text, size, "%s (%s)", what, reason == NULL ? "?" : reason);
    for (char *c = text; *c != '\0'; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
            *c = '\'';
}

#endif
