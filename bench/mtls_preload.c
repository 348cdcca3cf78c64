/*
 * Makes an unmodified TLS client that links libssl dynamically (h2load, wrk) present a client
 * certificate: every SSL_CTX it creates is given the certificate and key named by MTLS_CERT and
 * MTLS_KEY (PEM files), and, where MTLS_CIPHERSUITES is set, offers only those TLS 1.3 suites.
 *
 *   LD_PRELOAD=./mtls_preload.so MTLS_CERT=client.crt MTLS_KEY=client.key wrk https://127.0.0.1:8443/
 *
 * Everything in libssl is looked up at run time, so that the library may also be preloaded into
 * programs without TLS (a shell or taskset in front of the tool).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { FILETYPE_PEM = 1 }; /* SSL_FILETYPE_PEM of openssl/ssl.h */

static void *find(const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (symbol == NULL) {
        fprintf(stderr, "mtls_preload: libssl has no `%s`\n", name);
        exit(1);
    }
    return symbol;
}

/* A tool that silently went on without its certificate would measure refusals. */
static void stop(const char *what, const char *value)
{
    fprintf(stderr, "mtls_preload: %s `%s` cannot be used\n", what, value == NULL ? "(not set)" : value);
    exit(1);
}

void *SSL_CTX_new(const void *method)
{
    void *(*create)(const void *) = (void *(*)(const void *))find("SSL_CTX_new");
    int (*use_chain)(void *, const char *) =
        (int (*)(void *, const char *))find("SSL_CTX_use_certificate_chain_file");
    int (*use_key)(void *, const char *, int) =
        (int (*)(void *, const char *, int))find("SSL_CTX_use_PrivateKey_file");
    int (*use_suites)(void *, const char *) =
        (int (*)(void *, const char *))find("SSL_CTX_set_ciphersuites");
    const char *certificate = getenv("MTLS_CERT");
    const char *key = getenv("MTLS_KEY");
    const char *suites = getenv("MTLS_CIPHERSUITES");

    void *context = create(method);
    if (context == NULL)
        return NULL;
    if (certificate == NULL || use_chain(context, certificate) != 1)
        stop("MTLS_CERT", certificate);
    if (key == NULL || use_key(context, key, FILETYPE_PEM) != 1)
        stop("MTLS_KEY", key);
    if (suites != NULL && use_suites(context, suites) != 1)
        stop("MTLS_CIPHERSUITES", suites);
    return context;
}
