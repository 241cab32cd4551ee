/* Any operations, any head: never more than `cap` bytes, no line break in a field, nothing but printable ASCII in a log. */
/* sources: format.c escape.c uri.c h1.c host.c util.c */
/* Input: u8 flags (1 = in a log, 2 = redirected), u16 cap, u16 length of the operations, operations, head. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../native/format_case.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whether only our own bytes can be in the line: no literals and no strftime pattern, which are the administrator's. */
static bool
is_all_ours(const uint8_t *ops, size_t len)
{
    while (len >= 4) {
        const size_t step = 4 + (ops[2] | (size_t)ops[3] << 8);
        if (ops[0] == PC_FMT_LITERAL || ops[0] == PC_FMT_t)
            return false;
        if (step > len)
            return true;
        ops += step;
        len -= step;
    }
    return true;
}

static void
check_output(const char *out, size_t len, bool in_log, bool is_ours)
{
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)out[i];
        if (!in_log && (c == '\r' || c == '\n' || c == '\0'))
            abort();
        if (in_log && is_ours && (c < 0x20 || c > 0x7e))
            abort();
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pc_h1_limits limits = {.line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    struct case_all *all;
    size_t cap, ops_len, head_len, len;
    char *ops, *head, *out;
    bool in_log;

    if (size < 5)
        return 0;
    in_log = data[0] & 1;
    cap = (data[1] | (size_t)data[2] << 8) % 9000;
    ops_len = data[3] | (size_t)data[4] << 8;
    if (ops_len > size - 5)
        ops_len = size - 5;
    head_len = size - 5 - ops_len;
    ops = check_copy((const char *)data + 5, ops_len);
    head = check_copy((const char *)data + 5 + ops_len, head_len);
    out = malloc(cap > 0 ? cap : 1);
    if (out == NULL)
        abort();
    all = case_new();
    memset(&all->head, 0, sizeof all->head);
    (void)pc_h1_parse_head(&all->head, head, head_len, &limits); /* also what a refused head leaves */
    all->req.raw = head;
    all->req.redirect_depth = (data[0] & 2) ? 1 : 0;
    len = pc_format_write(&all->req, (struct pc_slice){.base = ops, .len = ops_len}, in_log, out, cap);
    if (len > cap)
        abort();
    check_output(out, len, in_log, is_all_ours((const uint8_t *)ops, ops_len));
    free(all);
    free(out);
    free(head);
    free(ops);
    return 0;
}
