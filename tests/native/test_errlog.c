/* test_errlog.c - claims about native/errlog.c. */
/* sources: errlog.c format.c escape.c uri.c h1.c host.c util.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "format_case.h"

#include <fcntl.h>
#include <regex.h>
#include <sys/mman.h>
#include <unistd.h>

/* A case whose error log is a file in memory. */
static struct case_all *
open_case(void)
{
    struct case_all *all = case_new();

    all->files[1].fd = memfd_create("error_log", MFD_CLOEXEC);
    if (all->files[1].fd < 0)
        abort();
    return all;
}

/* What was written since the last call; free() it. */
static char *
take(const struct case_all *all)
{
    char *text = calloc(1, 70000);

    if (text == NULL || pread(all->files[1].fd, text, 69999, 0) < 0 || ftruncate(all->files[1].fd, 0) != 0 ||
        lseek(all->files[1].fd, 0, SEEK_SET) != 0)
        abort();
    return text;
}

static void
close_case(struct case_all *all)
{
    if (all->files[1].fd >= 0)
        (void)close(all->files[1].fd);
    free(all);
}

static bool
matches(const char *text, const char *pattern)
{
    regex_t regex;
    bool is_match;

    if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        abort();
    is_match = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return is_match;
}

#define STAMP "^\\[(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [0-3][0-9] [0-9:]{8}\\.[0-9]{6} 20[0-9]{2}\\] "

static void
test_a_line_has_httpds_shape(void)
{
    struct case_all *all = open_case();
    char want[256], *said;

    pc_errlog(&all->config, &all->host, PC_ERROR, "core", &all->req.client, "AH00128: File does not exist: %s", "/x");
    said = take(all);
    (void)snprintf(want, sizeof want, "\\[core:error\\] \\[pid %d:tid %d\\] \\[client 192\\.0\\.2\\.55:50001\\] AH00128: "
                   "File does not exist: /x\n$", (int)getpid(), (int)gettid());
    CHECK_FOR(said, matches(said, STAMP) && matches(said, want));
    free(said);
    pc_errlog(&all->config, &all->host, PC_CRIT, "core", NULL, "no client");
    said = take(all);
    CHECK_FOR(said, matches(said, "\\[core:crit\\] \\[pid [0-9]+:tid [0-9]+\\] no client\n$"));
    free(said);
    close_case(all);
}

static void
test_a_requests_line_names_client_and_referer(void)
{
    struct case_all *all = open_case();
    char *said;

    pc_errlog_req(&all->req, PC_WARN, "authz_core", "AH01630: client denied by server configuration: %s", "/x");
    said = take(all);
    CHECK_FOR(said, matches(said, "\\[authz_core:warn\\] \\[pid [^]]+\\] \\[client 192\\.0\\.2\\.55:50001\\] AH01630: client "
                                  "denied by server configuration: /x, referer: http://example\\.org/\n$"));
    free(said);
    all->req.raw = NULL; /* the connection ended before a head was there */
    pc_errlog_req(&all->req, PC_WARN, "core", "early");
    said = take(all);
    CHECK_FOR(said, matches(said, "\\] early\n$"));
    free(said);
    close_case(all);
}

static void
test_addresses_of_version_6_are_bracketed(void)
{
    struct case_all *all = open_case();
    char *said;

    case_set_address(&all->req.client, AF_INET6, "2001:db8::1", 65535);
    pc_errlog(&all->config, &all->host, PC_ERROR, "core", &all->req.client, "x");
    case_set_address(&all->req.client, AF_INET6, "2001:db8:1111:2222:3333:4444:5555:6666", 65535);
    pc_errlog(&all->config, &all->host, PC_ERROR, "core", &all->req.client, "x");
    case_set_address(&all->req.client, AF_INET6, "::ffff:192.0.2.1", 80);
    pc_errlog(&all->config, &all->host, PC_ERROR, "core", &all->req.client, "x");
    said = take(all);
    CHECK_FOR(said, strstr(said, "[client [2001:db8::1]:65535] x\n") != NULL);
    CHECK_FOR(said, strstr(said, "[client [2001:db8:1111:2222:3333:4444:5555:6666]:65535] x\n") != NULL);
    CHECK_FOR(said, strstr(said, "[client 192.0.2.1:80] x\n") != NULL);
    free(said);
    close_case(all);
}

static void
test_a_clients_bytes_cannot_begin_a_line(void)
{
    struct case_all *all = open_case();
    char *said;

    pc_errlog(&all->config, &all->host, PC_ERROR, "core", NULL, "%s", "a\n[fake] \r\t\v\b\x1b[31m \"q\" \\ \x7f \xc3\xa9 %s");
    said = take(all);
    CHECK_FOR(said, strstr(said, "] a\\n[fake] \\r\\t\\v\\b\\x1b[31m \"q\" \\\\ \\x7f \\xc3\\xa9 %s\n") != NULL);
    CHECK(strchr(said, '\n') == said + strlen(said) - 1);
    free(said);
    close_case(all);
}

static void
test_a_long_message_is_cut_and_ends_its_line(void)
{
    char *text = malloc(20001);

    if (text == NULL)
        abort();
    for (int is_json = 0; is_json < 2; is_json++) {
        for (int fill = 0; fill < 2; fill++) {
            struct case_all *all = open_case();
            char *said;
            memset(text, fill ? '\x01' : 'x', 20000);
            text[20000] = '\0';
            all->config.error_log_json = is_json;
            pc_errlog(&all->config, &all->host, PC_ERROR, "core", &all->req.client, "%s", text);
            said = take(all);
            CHECK(strlen(said) <= 8192 && strlen(said) > 4000);
            CHECK(strchr(said, '\n') == said + strlen(said) - 1);
            CHECK(!is_json || strcmp(said + strlen(said) - 3, "\"}\n") == 0);
            free(said);
            close_case(all);
        }
    }
    free(text);
}

static void
test_lines_above_the_level_are_not_written(void)
{
    static const char *const names[] = {"emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"};
    struct case_all *all = open_case();

    for (uint32_t set = PC_EMERG; set <= PC_DEBUG; set++) {
        all->host.error_level = set;
        for (enum pc_level level = PC_EMERG; level <= PC_DEBUG; level++) {
            char want[32], *said;
            pc_errlog(&all->config, &all->host, level, "core", NULL, "x");
            said = take(all);
            (void)snprintf(want, sizeof want, "[core:%s]", names[level]);
            CHECK_FOR(want, (strstr(said, want) != NULL) == (level <= set));
            free(said);
        }
    }
    close_case(all);
}

static void
test_json_has_structlogs_keys(void)
{
    struct case_all *all = open_case();
    char *said;

    all->config.error_log_json = true;
    pc_errlog(&all->config, &all->host, PC_ERROR, "core", &all->req.client, "a \"b\" \\ \n \x7f \xc2\x85 \xc3\xa9 \xff \xed\xa0\x80");
    said = take(all);
    CHECK_FOR(said, matches(said, "^\\{\"timestamp\":\"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9:]{8}\\.[0-9]{6}Z\",\"level\":\"error\","
                                  "\"module\":\"core\",\"pid\":[0-9]+,\"tid\":[0-9]+,\"client\":\"192\\.0\\.2\\.55:50001\","
                                  "\"host\":\"www\\.example\\.org\",\"event\":\""));
    CHECK_FOR(said, strstr(said, "\"event\":\"a \\\"b\\\" \\\\ \\u000a \\u007f \\u0085 \xc3\xa9 \\ufffd \\ufffd\\ufffd\\ufffd\"}\n")
                        != NULL);
    free(said);
    pc_errlog(&all->config, &all->host, PC_ERROR, "core", NULL, "x");
    said = take(all);
    CHECK_FOR(said, strstr(said, "client") == NULL);
    free(said);
    close_case(all);
}

static void
test_without_a_file_the_line_goes_to_stderr(void)
{
    struct case_all *all = open_case();
    const int memory = all->files[1].fd, stderr_fd = dup(2);
    struct pc_host far = all->host;
    char *said;

    far.error_log = 99;
    (void)dup2(memory, 2);
    all->files[1].fd = -1;
    pc_errlog(&all->config, &all->host, PC_ERROR, "core", NULL, "closed");
    pc_errlog(&all->config, &far, PC_ERROR, "core", NULL, "far");
    pc_errlog(&all->config, NULL, PC_NOTICE, "core", NULL, "hostless");
    pc_errlog(&all->config, NULL, PC_DEBUG, "core", NULL, "debugging");
    pc_errlog(NULL, NULL, PC_ERROR, "core", NULL, "bare");
    all->files[1].fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    pc_errlog(&all->config, &all->host, PC_ERROR, "core", NULL, "full");
    (void)dup2(stderr_fd, 2);
    (void)close(stderr_fd);
    (void)close(all->files[1].fd);
    all->files[1].fd = memory;
    said = take(all);
    CHECK_FOR(said, strstr(said, "] closed\n") != NULL && strstr(said, "] far\n") != NULL);
    CHECK_FOR(said, strstr(said, "] hostless\n") != NULL && strstr(said, "] bare\n") != NULL);
    CHECK_FOR(said, strstr(said, "] full\n") != NULL && strstr(said, "debugging") == NULL);
    CHECK_EQ(all->files[1].lost_lines, 1);
    free(said);
    close_case(all);
}

int
main(void)
{
    RUN(test_a_line_has_httpds_shape);
    RUN(test_a_requests_line_names_client_and_referer);
    RUN(test_addresses_of_version_6_are_bracketed);
    RUN(test_a_clients_bytes_cannot_begin_a_line);
    RUN(test_a_long_message_is_cut_and_ends_its_line);
    RUN(test_lines_above_the_level_are_not_written);
    RUN(test_json_has_structlogs_keys);
    RUN(test_without_a_file_the_line_goes_to_stderr);
    return check_end();
}
