/* test_record.c - claims about record.c and mime.c's table: what is refused, what is loaded, and that both can be freed.
 * Runs as:  the developer.   Sees: records made here.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: record.c settings.c tlv.c regex.c mime.c access.c arena.c date.c errlog.c escape.c fields.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <sys/mman.h>

#include "serve_case.h"

static void
put_host(struct child_bytes *to, const struct child_bytes *more)
{
    struct child_bytes box = {0};

    child_text(&box, PC_T_NAME, "www.example.org");
    child_text(&box, PC_T_DOCUMENT_ROOT, "/srv/www");
    CHILD_U32S(&box, PC_T_TIMES, 1, 2, 3, 4, 5, 6, 7, 8);
    CHILD_U32S(&box, PC_T_KEEP_ALIVE, 1, 100, 1);
    CHILD_U32S(&box, PC_T_LIMITS, 8190, 8190, 100);
    CHILD_U32S(&box, PC_T_ERROR_LOG, 0, 4);
    if (more != NULL)
        child_put(&box, more->base, more->len);
    child_box(to, PC_T_HOST, &box);
}

/* A record with one log file, and one host with `in_host` in it; NULL = nothing more. */
static struct child_bytes
whole_record(const struct child_bytes *in_host)
{
    struct child_bytes raw = {0}, log = {0};

    CHILD_U32S(&raw, PC_T_VERSION, PC_RECORD_VERSION);
    CHILD_U32S(&raw, PC_T_IDENTITY, 3, 1001, 1002);
    child_text(&raw, PC_T_ROUTE, "");
    child_text(&log, PC_T_FILE_PATH, "/var/log/x");
    CHILD_U32S(&log, PC_T_FILE_OPENER, 1);
    child_box(&raw, PC_T_LOG_FILE, &log);
    CHILD_U32S(&raw, PC_T_SCALE, 1, 2, 3, 4, 5, 6);
    put_host(&raw, in_host);
    return raw;
}

static struct pc_config *
parse(const struct child_bytes *raw)
{
    struct pc_config *config = NULL;
    const char *why = NULL;
    char *copy = check_copy(raw->base, raw->len);
    int result = pc_record_parse((struct pc_slice){copy, raw->len}, (struct pc_slice){0}, &config, &why);

    CHECK((result == 0) == (config != NULL));
    CHECK((result == 0) == (why == NULL));
    if (result != 0)
        free(copy);
    return config;
}

/* Frees both. own_route points into the bytes, from their first item on. */
static void
drop(struct pc_config *config)
{
    char *copy;

    if (config == NULL)
        return;
    copy = (char *)(uintptr_t)config->own_route.base - 8 - 20 - 12; /* behind ROUTE's head, IDENTITY, VERSION */
    pc_record_free(config);
    free(copy);
}

static bool
is_refused(const struct child_bytes *raw)
{
    struct pc_config *config = parse(raw);

    drop(config);
    return config == NULL;
}

/* Whether a host with these settings outside sections is refused. */
static bool
is_refused_with(const struct child_bytes *settings)
{
    struct child_bytes host = {0};
    struct child_bytes raw;

    child_box(&host, PC_T_BASE, settings);
    raw = whole_record(&host);
    return is_refused(&raw);
}

static void
test_parse_fills_every_member_of_a_row_of_numbers(void)
{
    struct child_bytes raw = whole_record(NULL);
    struct pc_config *config = parse(&raw);
    const struct pc_host *host;

    CHECK(config != NULL);
    if (config == NULL)
        return;
    host = &config->hosts[0];
    CHECK_EQ(config->identity_no, 3);
    CHECK_EQ(config->gid, 1002);
    CHECK_EQ(config->idle_s, 6);
    CHECK_EQ(config->host_count, 1);
    CHECK_EQ(host->timeout_ms, 1);
    CHECK_EQ(host->body_rate, 8);
    CHECK(host->keep_alive && host->keep_scope_identity && host->max_requests == 100);
    CHECK(case_is(host->name, "www.example.org") && case_is(host->document_root, "/srv/www"));
    CHECK_EQ(host->document_root.base[8], 0);
    CHECK(host->root_fd == -1 && host->base.ask == -1 && host->base.signature == -1 && !host->has_location_or_files);
    CHECK(config->log_files[0].fd == -1 && config->log_files[0].by_dispatcher);
    drop(config);
}

static void
test_parse_refuses_a_record_that_is_cut_off_anywhere(void)
{
    struct child_bytes raw = whole_record(NULL), host = {0};

    put_host(&host, NULL);
    for (size_t len = 0; len < raw.len; len++) {
        struct child_bytes cut = raw;

        cut.len = len;
        if (len != raw.len - host.len) /* there it is whole, without a host, as an identity may be */
            CHECK(is_refused(&cut));
    }
}

static void
test_parse_refuses_unknown_repeated_and_missing_items(void)
{
    struct child_bytes raw = whole_record(NULL), extra = {0};

    child_text(&raw, 999, "x");
    CHECK(is_refused(&raw));
    raw = whole_record(NULL);
    CHILD_U32S(&raw, PC_T_SCALE, 1, 2, 3, 4, 5, 6);
    CHECK(is_refused(&raw));
    child_text(&extra, PC_T_NAME, "again");
    raw = whole_record(&extra);
    CHECK(is_refused(&raw));
    extra.len = 0;
    child_text(&extra, PC_T_FORCE_TYPE, "not in a host");
    raw = whole_record(&extra);
    CHECK(is_refused(&raw));
    raw.len = 0;
    CHILD_U32S(&raw, PC_T_VERSION, PC_RECORD_VERSION);
    CHECK(is_refused(&raw));
}

static void
test_parse_refuses_another_version(void)
{
    struct child_bytes raw = whole_record(NULL);

    raw.base[8]++;
    CHECK(is_refused(&raw));
}

static void
test_parse_refuses_links_to_files_that_are_not_there(void)
{
    struct child_bytes log = {0}, host = {0}, raw;

    CHILD_U32S(&log, PC_T_LOG_INDEX, 1);
    child_text(&log, PC_T_LOG_FORMAT, "");
    child_box(&host, PC_T_LOG, &log);
    raw = whole_record(&host);
    CHECK(is_refused(&raw));
}

static void
test_parse_refuses_values_of_another_shape(void)
{
    static const struct { uint16_t tag; const char *payload; size_t len; } bad[] = {
        {PC_T_OPTIONS, "\0\0\0\0\0\0\0\0", 8}, {PC_T_OPTIONS, "\2\0\0\0\0\0\0\0\0\0\0\0", 12},
        {PC_T_FORCE_TYPE, "a\0b", 3}, {PC_T_DIRECTORY_INDEX, "\4\0\0\0abc", 7}, {PC_T_DIRECTORY_INDEX, "\1\0\0", 3},
        {PC_T_ADD_TYPE, "\1\0\0\0a", 5}, {PC_T_ADD_TYPE, "\1\0\0\0a\1\0\0\0b\1\0\0\0c", 15}, {PC_T_LIMIT_BODY, "1234", 4},
        {PC_T_ASK, "\2\0\0\0", 4}, {PC_T_SIGNATURE, "\3\0\0\0", 4}, {PC_T_REQUIRE, "", 0}, {PC_T_REQUIRE, "\4\0\0\0", 4},
        {PC_T_REQUIRE, "\1\0\1\0x", 5}, {PC_T_REQUIRE, "\1\0\4\0\6\0\0\0", 8}, {PC_T_REQUIRE, "\1\0\12\0\6\0\6\0\4\41\1\2\3\4", 14},
        {PC_T_ACTION, "\1\0\0\0a\1\0\0\0/", 10}, {PC_T_ACTION, "\1\0\0\0a\1\0\0\0b\0\0\0\0", 14},
        {PC_T_ACTION, "\1\0\0\0a\1\0\0\0/\1\0\0\0v", 15}, {PC_T_PRESERVE_HOST, "\2\0\0\0", 4},
        {PC_T_PHP_VALUE, "\3\0\0\0php\1\0\0\0a\1\0\0\0b", 17}, {PC_T_PHP_VALUE, "\11\0\0\0php_value\1\0\0\0a\1\0\0\0\n", 23},
        {PC_T_FCGI_SETENV, "", 0},
        {PC_T_ADD_HANDLER, "\1\0\0\0a\11\0\0\0service:0", 18},
        {PC_T_REQUIRE, "\1\0\4\0\13\0\0\0", 8}, {PC_T_REQUIRE, "\1\2\0\0", 4}, {PC_T_ALLOW_OVERRIDE, "", 0},
    };

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct child_bytes settings = {0};
        char number[8];

        (void)snprintf(number, sizeof number, "%zu", i);
        child_item(&settings, bad[i].tag, bad[i].payload, bad[i].len);
        CHECK_FOR(number, is_refused_with(&settings));
    }
}

static void
test_parse_refuses_access_rules_that_are_nested_too_deeply(void)
{
    struct child_bytes inner = {0}, settings = {0};

    case_node(&inner, PC_ACC_ANY, false, NULL, 0);
    for (int depth = 0; depth < 60; depth++) {
        struct child_bytes outer = {0};

        case_node(&outer, PC_ACC_ALL, false, inner.base, inner.len);
        inner = outer;
        if (depth == 20) {
            child_item(&settings, PC_T_REQUIRE, inner.base, inner.len);
            CHECK(!is_refused_with(&settings));
            settings.len = 0;
        }
    }
    child_item(&settings, PC_T_REQUIRE, inner.base, inner.len);
    CHECK(is_refused_with(&settings));
}

static void
put_section(struct child_bytes *to, uint16_t tag, uint32_t kind, const char *pattern, const struct child_bytes *more)
{
    struct child_bytes box = {0};

    CHILD_U32S(&box, PC_T_SECTION_KIND, kind);
    child_text(&box, PC_T_SECTION_PATTERN, pattern);
    if (more != NULL)
        child_put(&box, more->base, more->len);
    child_box(to, tag, &box);
}

static void
test_parse_compiles_patterns_and_refuses_broken_ones(void)
{
    struct child_bytes host = {0}, raw;
    struct pc_config *config;

    put_section(&host, PC_T_SECTION, PC_SECTION_FILES_MATCH, "^\\.ht", NULL);
    raw = whole_record(&host);
    config = parse(&raw);
    CHECK(config != NULL && config->hosts[0].sections[0].regex != NULL && config->hosts[0].has_location_or_files);
    drop(config);
    host.len = 0;
    put_section(&host, PC_T_SECTION, PC_SECTION_FILES_MATCH, "(", NULL);
    raw = whole_record(&host);
    CHECK(is_refused(&raw));
}

static void
test_parse_refuses_sections_out_of_order_and_wrongly_nested(void)
{
    struct child_bytes host = {0}, inner = {0}, raw;

    put_section(&host, PC_T_SECTION, PC_SECTION_LOCATION, "/a", NULL);
    put_section(&host, PC_T_SECTION, PC_SECTION_DIRECTORY, "/srv", NULL);
    raw = whole_record(&host);
    CHECK(is_refused(&raw));
    host.len = 0;
    put_section(&inner, PC_T_SECTION_INNER, PC_SECTION_LOCATION, "/x", NULL);
    put_section(&host, PC_T_SECTION, PC_SECTION_DIRECTORY, "/srv", &inner);
    raw = whole_record(&host);
    CHECK(is_refused(&raw));
    host.len = inner.len = 0;
    put_section(&inner, PC_T_SECTION_INNER, PC_SECTION_FILES, "x", NULL);
    put_section(&host, PC_T_SECTION, PC_SECTION_DIRECTORY, "/srv", &inner);
    raw = whole_record(&host);
    CHECK(!is_refused(&raw));
}

/* A host whose parts lead to programs, one part for each bit of `parts`; bit 6: the record has a service. */
static struct pc_config *
parse_programs(unsigned int parts)
{
    struct child_bytes host = {0}, base = {0}, pass = {0}, alias = {0}, service = {0}, raw;

    if (parts & 1)
        child_item(&base, PC_T_ADD_HANDLER, "\3\0\0\0php\11\0\0\0service:0", 20);
    if (parts & 2)
        child_item(&base, PC_T_ACTION, "\1\0\0\0a\2\0\0\0/b\7\0\0\0virtual", 22);
    if (parts & 4)
        child_item(&base, PC_T_PHP_VALUE, "\16\0\0\0php_admin_flag\1\0\0\0x\1\0\0\0" "1", 28);
    child_box(&host, PC_T_BASE, &base);
    CHILD_U32S(&pass, PC_T_PROXY_KIND, PC_PASS_MATCH);
    child_text(&pass, PC_T_PROXY_FROM, "^/(.*)$");
    child_text(&pass, PC_T_PROXY_TO, "service:0/$1");
    CHILD_U32S(&pass, PC_T_PROXY_TIMES, 1, 2, 3);
    if (parts & 8)
        child_box(&host, PC_T_PROXY_PASS, &pass);
    CHILD_U32S(&alias, PC_T_ALIAS_KIND, PC_ALIAS_SCRIPT_MATCH);
    child_text(&alias, PC_T_ALIAS_FROM, "^/cgi/(.*)$");
    child_text(&alias, PC_T_ALIAS_TO, "/srv/cgi/$1");
    if (parts & 16)
        child_box(&host, PC_T_ALIAS, &alias);
    if (parts & 32)
        CHILD_U32S(&host, PC_T_PHP_SERVICE, 0);
    if (parts & 128)
        child_item(&host, PC_T_FCGID_SERVICE, "\14\0\0\0/srv/starter\11\0\0\0service:0", 29);
    raw = whole_record(&host);
    CHILD_U32S(&service, PC_T_SERVICE_KIND, PC_SERVICE_HTTP);
    child_text(&service, PC_T_SERVICE_SOCKET, "/run/x.sock");
    if (parts & 64)
        child_box(&raw, PC_T_SERVICE, &service);
    return parse(&raw);
}

static void
test_parse_tells_which_hosts_have_programs(void)
{
    struct pc_config *config;

    for (unsigned int part = 0; part < 6; part++) {
        char number[8];

        (void)snprintf(number, sizeof number, "%u", part);
        config = parse_programs(64 | 1u << part);
        CHECK_FOR(number, config != NULL && config->hosts[0].has_programs == (part != 2));
        drop(config);
    }
    config = parse_programs(64);
    CHECK(config != NULL && !config->hosts[0].has_programs && config->hosts[0].php_service == PC_NO_SERVICE);
    CHECK(config != NULL && config->hosts[0].base.preserve_host == -1 && config->hosts[0].base.cgi_pass_auth == -1);
    drop(config);
}

static void
test_parse_refuses_services_that_are_not_there(void)
{
    static const unsigned int parts[] = {1, 8, 32, 128};

    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        struct pc_config *config = parse_programs(parts[i]);

        CHECK(config == NULL);
        drop(config);
    }
}

static void
test_parse_fills_programs(void)
{
    struct pc_config *config = parse_programs(255);
    const struct pc_host *host;

    CHECK(config != NULL);
    if (config == NULL)
        return;
    host = &config->hosts[0];
    CHECK(config->service_count == 1 && config->services[0].kind == PC_SERVICE_HTTP);
    CHECK(case_is(config->services[0].socket, "/run/x.sock") && config->services[0].socket.base[11] == '\0');
    CHECK(host->pass_count == 1 && host->passes[0].regex != NULL && case_is(host->passes[0].to, "service:0/$1"));
    CHECK(host->passes[0].timeout_ms == 1 && host->passes[0].connect_ms == 2 && host->passes[0].retry_s_plus_1 == 3);
    CHECK(host->alias_count == 1 && host->aliases[0].regex != NULL && pc_alias_is_script(host->aliases[0].kind));
    CHECK(host->base.action_count == 1 && host->base.actions[0].is_virtual && case_is(host->base.actions[0].path, "/b"));
    CHECK(host->base.php_value_count == 1 && host->base.php_values[0].is_admin && case_is(host->base.php_values[0].value, "1"));
    CHECK(case_is(host->base.handlers[0].name, "php") && case_is(host->base.handlers[0].value, "service:0"));
    CHECK_EQ(host->php_service, 0);
    CHECK(host->wrapper_count == 1 && case_is(host->wrappers[0].name, "/srv/starter") && case_is(host->wrappers[0].value, "service:0"));
    drop(config);
}

static void
test_load_maps_files_and_refuses_an_empty_one(void)
{
    struct child_bytes raw = whole_record(NULL);
    struct pc_config *config = NULL;
    const char *why = NULL;
    int fd = memfd_create("record", MFD_CLOEXEC), empty = memfd_create("empty", MFD_CLOEXEC);

    CHECK(fd >= 0 && write(fd, raw.base, raw.len) == (ssize_t)raw.len);
    CHECK_EQ(pc_record_load(fd, -1, &config, &why), 0);
    CHECK(config != NULL && config->map != NULL && config->map_len == raw.len);
    pc_record_free(config);
    config = NULL;
    CHECK_EQ(pc_record_load(empty, -1, &config, &why), -PC_E_FORMAT);
    CHECK_EQ(pc_record_load(-1, -1, &config, &why), -PC_E_SYS);
    CHECK(config == NULL && why != NULL);
    CHECK(close(fd) == 0 && close(empty) == 0);
}

/* As wire/types.py writes it, for one entry: "txt" -> "text/plain". */
static struct child_bytes
types_table(uint32_t entry_at, uint16_t type_len)
{
    struct child_bytes table = {0};
    const uint32_t numbers[4] = {0, 2, 0, 0};
    const uint32_t total = 24 + 4 + 3 + 10, slot = pc_crc32("txt", 3) & 1;
    const uint16_t lens[2] = {3, type_len};

    child_put(&table, "PCTYPES1", 8);
    child_put(&table, numbers, sizeof numbers);
    child_put(&table, lens, sizeof lens);
    child_put(&table, "txttext/plain", 13);
    memcpy(table.base + 8, &total, 4);
    memcpy(table.base + 16 + 4 * slot, &entry_at, 4);
    return table;
}

static void
test_types_finds_what_is_there_and_refuses_broken_tables(void)
{
    struct child_bytes table = types_table(24, 10), bad;

    CHECK_EQ(pc_types_check(case_slice(&table)), 0);
    CHECK(case_is(pc_types_find(case_slice(&table), PC_S("txt")), "text/plain"));
    CHECK(pc_types_find(case_slice(&table), PC_S("tx")).base == NULL);
    CHECK(pc_types_find((struct pc_slice){0}, PC_S("txt")).base == NULL);
    bad = types_table(24, 11);
    CHECK_EQ(pc_types_check(case_slice(&bad)), -PC_E_FORMAT);
    bad = types_table(4000, 10);
    CHECK_EQ(pc_types_check(case_slice(&bad)), -PC_E_FORMAT);
    bad = types_table(8, 10);
    CHECK_EQ(pc_types_check(case_slice(&bad)), -PC_E_FORMAT);
    bad = table;
    bad.base[12] = 3;
    CHECK_EQ(pc_types_check(case_slice(&bad)), -PC_E_FORMAT);
    bad = table;
    bad.len--;
    CHECK_EQ(pc_types_check(case_slice(&bad)), -PC_E_FORMAT);
}

/* A host's TLS box with `protocols` and what `more` holds. */
static struct child_bytes
tls_host(uint32_t protocols, const struct child_bytes *more)
{
    struct child_bytes tls = {0}, host = {0};

    CHILD_U32S(&tls, PC_T_TLS_PROTOCOLS, protocols);
    CHILD_U32S(&tls, PC_T_TLS_TIMEOUT, 300);
    if (more != NULL)
        child_put(&tls, more->base, more->len);
    child_box(&host, PC_T_TLS, &tls);
    return host;
}

static void
put_cert(struct child_bytes *to, const char *pem, uint32_t key)
{
    struct child_bytes cert = {0};

    child_text(&cert, PC_T_CERT_PEM, pem);
    CHILD_U32S(&cert, PC_T_KEY_NUMBER, key);
    child_text(&cert, PC_T_KEY_PATH, "/etc/ssl/key.pem");
    child_box(to, PC_T_TLS_CERT, &cert);
}

static void
test_parse_fills_tls(void)
{
    struct child_bytes more = {0}, host, raw;
    struct pc_config *config;
    const struct pc_tls_conf *tls;

    put_cert(&more, "first", 0);
    put_cert(&more, "second", 1);
    child_put(&more, "\332\0\0\0\12\0\0\0\2\0\0\0ab\0\0\0\0", 18); /* TLS_CONF: "ab", "" */
    CHILD_U32S(&more, PC_T_TLS_VERIFY, PC_VERIFY_REQUIRE);
    CHILD_U32S(&more, PC_T_TLS_TICKETS, 1);
    child_text(&more, PC_T_TLS_CA, "authority");
    host = tls_host(PC_TLS_TLSV1_3, &more);
    CHILD_U32S(&host, PC_T_PROTOCOLS, PC_PROTOCOL_H2);
    raw = whole_record(&host);
    CHILD_U32S(&raw, PC_T_H2_LIMITS, 7, 8, 9, 1);
    config = parse(&raw);
    CHECK(config != NULL && config->hosts[0].tls != NULL);
    if (config == NULL)
        return;
    tls = config->hosts[0].tls;
    CHECK(tls->cert_count == 2 && case_is(tls->certs[1].pem, "second") && tls->certs[1].key_number == 1);
    CHECK(tls->command_count == 1 && case_is(tls->commands[0].name, "ab") && tls->commands[0].value.len == 0);
    CHECK(tls->protocols == PC_TLS_TLSV1_3 && tls->timeout_s == 300 && tls->verify == PC_VERIFY_REQUIRE && tls->tickets);
    CHECK(case_is(tls->ca, "authority") && tls->broken.base == NULL && tls->ciphers.base == NULL && !tls->strict);
    CHECK(config->hosts[0].protocols == PC_PROTOCOL_H2 && config->h2.streams == 7 && config->h2.early_hints == 1);
    drop(config);
}

static void
test_parse_refuses_tls_that_cannot_be(void)
{
    struct child_bytes more = {0}, host, raw;

    host = tls_host(PC_TLS_TLSV1_2, NULL); /* neither a certificate nor a word why there is none */
    raw = whole_record(&host);
    CHECK(is_refused(&raw));
    child_text(&more, PC_T_TLS_BROKEN, "its key is missing");
    host = tls_host(PC_TLS_TLSV1_2, &more);
    raw = whole_record(&host);
    CHECK(!is_refused(&raw));
    host = tls_host(0, &more);
    raw = whole_record(&host);
    CHECK(is_refused(&raw));
    host = tls_host(4, &more);
    raw = whole_record(&host);
    CHECK(is_refused(&raw));
    host = (struct child_bytes){0};
    CHILD_U32S(&host, PC_T_PROTOCOLS, 0);
    raw = whole_record(&host);
    CHECK(is_refused(&raw));
}

int
main(void)
{
    RUN(test_parse_fills_every_member_of_a_row_of_numbers);
    RUN(test_parse_refuses_a_record_that_is_cut_off_anywhere);
    RUN(test_parse_refuses_unknown_repeated_and_missing_items);
    RUN(test_parse_refuses_another_version);
    RUN(test_parse_refuses_links_to_files_that_are_not_there);
    RUN(test_parse_refuses_values_of_another_shape);
    RUN(test_parse_refuses_access_rules_that_are_nested_too_deeply);
    RUN(test_parse_compiles_patterns_and_refuses_broken_ones);
    RUN(test_parse_refuses_sections_out_of_order_and_wrongly_nested);
    RUN(test_parse_tells_which_hosts_have_programs);
    RUN(test_parse_refuses_services_that_are_not_there);
    RUN(test_parse_fills_programs);
    RUN(test_parse_fills_tls);
    RUN(test_parse_refuses_tls_that_cannot_be);
    RUN(test_load_maps_files_and_refuses_an_empty_one);
    RUN(test_types_finds_what_is_there_and_refuses_broken_tables);
    return check_end();
}
