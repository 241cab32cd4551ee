/* Invariant: all slices lie within the text; a host, socket or service is there as the kind says; the path begins with '/' or is empty, and
 * what comes before it does not depend on it; an encoded path holds visible bytes only, decodes to what it was, and is 3 times as long at most. */
/* sources: target.c uri.c util.c */
/* seeds: target */
#include "gateway.h"

#include "fuzz.h"

static bool
is_within(struct pc_slice s, struct pc_slice whole)
{
    return s.len == 0 || (s.base >= whole.base && s.base + s.len <= whole.base + whole.len);
}

static void
check_escape(struct pc_slice path)
{
    char *out = malloc(3 * path.len + 1);
    size_t len = pc_target_escape(path, out), at = 0;
    MUST(len >= path.len && len <= 3 * path.len);
    for (size_t i = 0; i < path.len; i++) {
        uint8_t c = (uint8_t)out[at];
        MUST(c > 0x20 && c < 0x7f && c != '?' && c != '#' && c != '"');
        if (c != '%') {
            MUST(out[at++] == path.base[i]);
            continue;
        }
        char hex[3] = {out[at + 1], out[at + 2], '\0'};
        MUST((char)strtoul(hex, NULL, 16) == path.base[i]);
        at += 3;
    }
    MUST(at == len);
    free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pc_slice text = {.base = fuzz_copy(data, size), .len = size};
    struct pc_target target = {.port = 7}, again;
    int result = pc_target_parse(text, &target);
    MUST(result == 0 || (result == -PC_E_BAD && target.port == 7));
    if (result == 0) {
        const struct pc_slice parts[] = {target.scheme, target.authority, target.host, target.socket, target.path};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            MUST(is_within(parts[i], text));
        MUST(target.kind != PC_TARGET_TCP || target.host.len > 0);
        MUST(target.kind != PC_TARGET_UNIX || (target.socket.len > 1 && target.socket.base[0] == '/'));
        MUST(target.path.len == 0 || target.path.base[0] == '/');
        struct pc_slice shorter = {text.base, text.len - target.path.len};
        MUST(pc_target_parse(shorter, &again) == 0 && again.kind == target.kind && again.port == target.port
             && again.service == target.service && pc_slice_eq(again.authority, target.authority) && pc_slice_eq(again.socket, target.socket));
        check_escape(target.path);
    }
    check_escape(text);
    free((void *)text.base);
    return 0;
}
