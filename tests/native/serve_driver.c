/* serve_driver.c - pc_serve as a filter, for tests written in Python.
 * Runs as:  the developer, started by tests/unit/serve/native_serve.py.   Sees: a record, real files, requests on standard input.
 * Trusts:   the tests' framing.   Distrusts: the code under test.
 * Before:   -   After: native/serve.c
 *
 * Arguments: the record's file, the types table's file. Request: u32 length of its text, then text lines "word value" (flags:
 * 1 = may block, 2 = an answer comes with it; error: serve this status instead; nofile: no descriptor is left) up to an empty line, then the head's bytes.
 * Response: u32 length, then a line of words "name=hex", then what respond.c would send, body included. */
/* sources: access.c acme.c arena.c cond.c date.c errlog.c escape.c fields.c file.c format.c h1.c host.c listing.c log.c map.c */
/* sources: mime.c record.c settings.c tlv.c regex.c serve.c program.c proxy.c target.c uri.c util.c wild.c */
/* libs: -lpcre2-8 -pthread */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "pc.h"

#define MAX_REQUEST 65536

struct order { /* what a request's words say */
    unsigned flags, error, ask, again, ago, nofile, status;
    char client[64], server[64], answer[256];
};

static void
must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "serve_driver: %s\n", what);
    exit(3);
}

static void
address(struct sockaddr_storage *to, const char *text)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    memset(to, 0, sizeof *to);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        v4->sin_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
        v6->sin6_family = AF_INET6;
}

static void
put_hex(FILE *out, const char *name, struct pc_slice s)
{
    fprintf(out, "%s=", name);
    for (size_t i = 0; i < s.len; i++)
        fprintf(out, "%02x", (unsigned char)s.base[i]);
    fprintf(out, " ");
}

static void
put_file(FILE *out, int fd, uint64_t offset, uint64_t length)
{
    char buf[4096];
    while (length > 0) {
        ssize_t count = pread(fd, buf, length < sizeof buf ? length : sizeof buf, (off_t)offset);
        must(count > 0, "the file is shorter than its length");
        must(fwrite(buf, 1, (size_t)count, out) == (size_t)count, "write");
        offset += (uint64_t)count;
        length -= (uint64_t)count;
    }
}

static void
put_slice(FILE *out, struct pc_slice s)
{
    must(fwrite(s.base, 1, s.len, out) == s.len, "write");
}

static void
put_response(FILE *out, struct pc_req *req)
{
    struct pc_resp *resp = &req->resp;
    fprintf(out, "HTTP/1.1 %u %s\r\n", resp->status, pc_status_phrase(resp->status));
    for (uint32_t i = 0; i < resp->field_count; i++) {
        put_slice(out, resp->fields[i].name);
        fprintf(out, ": ");
        put_slice(out, resp->fields[i].value);
        fprintf(out, "\r\n");
    }
    fprintf(out, "Content-Length: %llu\r\n\r\n", (unsigned long long)resp->length);
    if (resp->body == PC_BODY_MEMORY)
        put_slice(out, resp->memory);
    else if (resp->body == PC_BODY_FILE)
        put_file(out, resp->fd, resp->offset, resp->length);
    for (uint32_t i = 0; resp->body == PC_BODY_PARTS && i < resp->part_count; i++) {
        put_slice(out, resp->parts[i].text);
        put_file(out, resp->fd, resp->parts[i].offset, resp->parts[i].length);
    }
    must((resp->fd >= 0) == (resp->body == PC_BODY_FILE || resp->body == PC_BODY_PARTS), "descriptor and body do not fit");
    if (resp->fd >= 0)
        must(close(resp->fd) == 0, "the descriptor is not open");
}

/* Let no descriptor be opened (or again as many as before). */
static void
limit_descriptors(bool none)
{
    static struct rlimit before;
    struct rlimit now;
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!none) {
        must(setrlimit(RLIMIT_NOFILE, &before) == 0, "setrlimit");
        return;
    }
    must(next >= 0 && close(next) == 0 && getrlimit(RLIMIT_NOFILE, &before) == 0, "getrlimit");
    now = (struct rlimit){(rlim_t)next, before.rlim_max};
    must(setrlimit(RLIMIT_NOFILE, &now) == 0, "setrlimit");
}

static void
serve(FILE *out, const struct order *order, struct pc_config *config, const char *raw, size_t len)
{
    static const struct pc_h1_limits limits = {.line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    static struct pc_head head;
    static struct pc_req req;
    struct pc_arena arena = {0};
    memset(&head, 0, offsetof(struct pc_head, fields));
    memset(&req, 0, sizeof req);
    must(pc_h1_parse_head(&head, raw, len, &limits) > 0, "the head is not whole");
    struct pc_slice target, path = pc_slice_at(raw, head.path), host = pc_head_field(&head, raw, PC_F_HOST);
    pc_uri_split(path, &target, &req.query);
    req.config = config;
    req.host = &config->hosts[0];
    req.arena = &arena;
    req.raw = raw;
    req.head = &head;
    req.resp.fd = -1;
    req.start_ns = pc_now_ns() + order->ago * 1000000000ull;
    req.start_wall_us = pc_wall_us();
    req.may_block = (order->flags & 1) != 0;
    req.has_answer = (order->flags & 2) != 0;
    req.ask = (uint8_t)order->ask;
    req.client_name = (struct pc_slice){req.has_answer && order->ask == PC_ASK_HOSTNAME ? order->answer : NULL, strlen(order->answer)};
    req.answer = (struct pc_slice){order->answer, strlen(order->answer)};
    req.answer_status = order->status;
    req.answer_type = PC_S("text/x-made");
    req.layers[0] = &req.host->base;
    req.layer_count = 1;
    address(&req.client, order->client);
    address(&req.server, order->server);
    must(host.base == NULL || pc_host_parse(host, &req.name) == 0, "bad host");
    req.port_out = req.name.port != 0 ? req.name.port : 80;
    req.path = PC_S("*");
    if (target.len != 1 || *target.base != '*') {
        char *decoded = pc_arena_alloc(&arena, target.len + 2);
        int decoded_len = pc_uri_decode_path(target, decoded, target.len + 1);
        must(decoded_len > 0, "bad path");
        decoded[decoded_len] = '\0';
        req.path = (struct pc_slice){decoded, (size_t)decoded_len};
    }
    enum pc_serve served = PC_SERVED;
    if (order->nofile != 0)
        limit_descriptors(true);
    if (order->error != 0)
        pc_serve_error(&req, order->error);
    else
        served = pc_serve(&req);
    if (order->nofile != 0)
        limit_descriptors(false);
    if (order->again != 0 && served == PC_SERVE_BLOCKS) {
        req.may_block = true;
        served = pc_serve(&req);
    }
    fprintf(out, "served=%d ask=%d ", served, req.ask);
    put_hex(out, "path", req.path);
    put_hex(out, "filename", req.filename);
    put_hex(out, "path_info", req.path_info);
    put_hex(out, "handler", req.handler);
    for (uint32_t i = 0; i < req.env_count; i++) {
        put_hex(out, "env", req.env[i].name);
        put_hex(out, "is", req.env[i].value);
    }
    for (uint32_t i = 0; i < req.in_edit_count; i++) {
        put_hex(out, req.in_edits[i].value.base == NULL ? "in_unset" : "in", req.in_edits[i].name);
        put_hex(out, "is", req.in_edits[i].value);
    }
    fprintf(out, "\n");
    if (served == PC_SERVED)
        put_response(out, &req);
    pc_arena_free(&arena);
}

static const char *
read_order(const char *text, struct order *order)
{
    for (;;) {
        const char *end = strchr(text, '\n');
        char word[32] = "", value[256] = "";
        must(end != NULL, "no empty line behind the words");
        if (end == text)
            return end + 1;
        must(sscanf(text, "%31s %255[^\n]", word, value) >= 1, "a line without a word");
        unsigned number = (unsigned)strtoul(value, NULL, 10);
        if (strcmp(word, "flags") == 0)
            order->flags = number;
        else if (strcmp(word, "error") == 0)
            order->error = number;
        else if (strcmp(word, "ask") == 0)
            order->ask = number;
        else if (strcmp(word, "again") == 0)
            order->again = number;
        else if (strcmp(word, "ago") == 0)
            order->ago = number;
        else if (strcmp(word, "nofile") == 0)
            order->nofile = number;
        else if (strcmp(word, "status") == 0)
            order->status = number;
        else if (strcmp(word, "client") == 0)
            (void)snprintf(order->client, sizeof order->client, "%s", value);
        else if (strcmp(word, "server") == 0)
            (void)snprintf(order->server, sizeof order->server, "%s", value);
        else if (strcmp(word, "answer") == 0)
            (void)snprintf(order->answer, sizeof order->answer, "%s", value);
        else
            must(false, "an unknown word");
        text = end + 1;
    }
}

static void
run(struct pc_config *config)
{
    static char text[MAX_REQUEST + 1];
    uint32_t len;
    while (fread(&len, sizeof len, 1, stdin) == 1) {
        must(len <= MAX_REQUEST && fread(text, 1, len, stdin) == len, "request");
        text[len] = '\0';
        struct order order = {.flags = 1, .client = "192.0.2.7", .server = "192.0.2.1"};
        const char *head = read_order(text, &order);
        char *answer = NULL;
        size_t size = 0, head_len = len - (size_t)(head - text);
        char *copy = malloc(head_len); /* of exactly its size */
        FILE *out = open_memstream(&answer, &size);
        must(out != NULL && copy != NULL, "no memory");
        memcpy(copy, head, head_len);
        serve(out, &order, config, copy, head_len);
        must(fclose(out) == 0, "no memory");
        uint32_t answer_len = (uint32_t)size;
        must(fwrite(&answer_len, sizeof answer_len, 1, stdout) == 1 && fwrite(answer, 1, size, stdout) == size, "write");
        must(fflush(stdout) == 0, "flush");
        free(answer);
        free(copy);
    }
}

int
main(int count, char **arguments)
{
    struct pc_config *config = NULL;
    const char *why = "";
    must(count == 3, "usage: serve_driver RECORD TYPES");
    int record_fd = open(arguments[1], O_RDONLY | O_CLOEXEC), types_fd = open(arguments[2], O_RDONLY | O_CLOEXEC);
    must(record_fd >= 0 && types_fd >= 0, "cannot open");
    if (pc_record_load(record_fd, types_fd, &config, &why) != 0) {
        printf("refused: %s\n", why);
        return 4;
    }
    (void)close(record_fd);
    (void)close(types_fd);
    must(pc_log_open(config, NULL, 0) == 0, "logs");
    run(config);
    pc_record_free(config);
    return 0;
}
