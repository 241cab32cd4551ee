/* phpini.c - settings of PHP as php-fpm takes them with a request: PHP_VALUE and PHP_ADMIN_VALUE, in the form of an ini file.
 * php-fpm changes its worker by them, which keeps them: the next request on it would find what this one brought. So each name that any
 * place of a pool sets is said with each request to it, where nothing is configured with the value that it has without us, which
 * the runner has looked up and php-fpm knows as perchild.NAME (perchild/runner/commands.py). And what one place locks by
 * php_admin_value is locked everywhere, for whether a worker has locked it already is chance.
 * Runs as:  child, as the identity that owns the host.   Sees: no byte of a request.
 * Trusts:   the host's configuration: names are names, values hold no control character (record.c).   Pure.
 * Before:   gate_fcgi.c   After: - */
#include <string.h>

#include "gateway.h"
#include "serve.h"

struct writer {
    char *out; /* NULL = it is only counted */
    size_t len;
};

static void
put(struct writer *writer, struct pc_slice s)
{
    if (writer->out != NULL && s.len > 0)
        memcpy(writer->out + writer->len, s.base, s.len); /* UNSAFE: the same was counted before */
    writer->len += s.len;
}

/* Bytes that mean nothing but themselves in an ini file, outside quotes. */
static bool
is_plain(struct pc_slice name, struct pc_slice value)
{
    static const char marks[] = " _./,:@%+*?-";
    if (pc_slice_eq(name, PC_S("error_reporting"))) /* E_ALL & ~E_NOTICE is worked out there */
        return true;
    for (size_t i = 0; i < value.len; i++) {
        char c = value.base[i];
        bool is_word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80) != 0;
        if (!is_word && memchr(marks, c, sizeof marks - 1) == NULL)
            return false;
    }
    return true;
}

static void
put_setting(struct writer *writer, struct pc_slice name, struct pc_slice value)
{
    struct pc_slice quote = PC_S("");
    if (!is_plain(name, value)) /* what holds an apostrophe holds nothing that means more between the others: directives_program.py */
        quote = memchr(value.base, '\'', value.len) == NULL ? PC_S("'") : PC_S("\"");
    put(writer, name);
    put(writer, PC_S("="));
    put(writer, quote);
    put(writer, value);
    put(writer, quote);
    put(writer, PC_S("\n"));
}

/* Whether the request's places set it, by php_admin_value if that is asked. */
static bool
is_set(const struct pc_req *req, struct pc_slice name, bool by_admin)
{
    for (uint32_t i = 0; i < req->layer_count; i++)
        for (uint32_t j = 0; j < req->layers[i]->php_value_count; j++) {
            const struct pc_php_value *one = &req->layers[i]->php_values[j];
            if ((one->is_admin || !by_admin) && pc_slice_eq(one->name, name))
                return true;
        }
    return false;
}

/* "1" beside a name of the pool says that a place locks it. */
static bool
is_locking(const struct pc_pair *one)
{
    return pc_slice_eq(one->value, PC_S("1"));
}

static bool
is_locked(const struct pc_service *pool, struct pc_slice name)
{
    for (uint32_t i = 0; pool != NULL && i < pool->php_name_count; i++)
        if (pc_slice_eq(pool->php_names[i].name, name))
            return is_locking(&pool->php_names[i]);
    return false;
}

/* Least specific first: PHP believes the last. */
static void
put_all(struct writer *writer, const struct pc_req *req, const struct pc_service *pool, bool is_admin)
{
    for (uint32_t i = 0; i < req->layer_count; i++)
        for (uint32_t j = 0; j < req->layers[i]->php_value_count; j++) {
            const struct pc_php_value *one = &req->layers[i]->php_values[j];
            bool goes_there = one->is_admin || (is_locked(pool, one->name) && !is_set(req, one->name, true));
            if (goes_there == is_admin)
                put_setting(writer, one->name, one->value);
        }
    for (uint32_t i = 0; pool != NULL && i < pool->php_name_count; i++) {
        const struct pc_pair *one = &pool->php_names[i];
        if (is_locking(one) != is_admin || is_set(req, one->name, false))
            continue;
        put(writer, one->name);
        put(writer, PC_S("=\"${perchild."));
        put(writer, one->name);
        put(writer, PC_S("}\"\n"));
    }
}

struct pc_slice
pc_phpini_lines(const struct pc_req *req, const struct pc_service *pool, bool is_admin)
{
    struct writer writer = {0};
    put_all(&writer, req, pool, is_admin);
    if (writer.len == 0)
        return (struct pc_slice){0};
    writer = (struct writer){.out = pc_arena_alloc(req->arena, writer.len)};
    put_all(&writer, req, pool, is_admin);
    return (struct pc_slice){writer.out, writer.len - 1};
}
