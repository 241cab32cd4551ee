/* regex.c - PCRE2 behind four functions.
 * Runs as:  child, as the identity that owns the host.   Sees: paths, names and field values of requests.
 * Trusts:   nothing.   Distrusts: the subject, and the pattern's author (a tenant): matching is bounded in steps and memory.
 * Before:   map.c, fields.c   After: -
 *
 * Subjects are bytes, never taken for UTF-8. `$` is the very end only: "x\n" does not pass for "x". */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "pc.h"

#define MATCH_LIMIT 200000 /* backtracking steps: some ms */
#define DEPTH_LIMIT 20000
#define HEAP_LIMIT_KIB 8192
#define GROUPS 10

struct pc_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    /* One spare working area, so that a thread that matches alone never allocates: taken and given back by exchange. */
    _Atomic(pcre2_match_data *) spare;
};

void
pc_regex_free(struct pc_regex *regex)
{
    if (regex == NULL)
        return;
    pcre2_match_data_free(atomic_load(&regex->spare));
    pcre2_match_context_free(regex->limits);
    pcre2_code_free(regex->code);
    free(regex);
}

int
pc_regex_compile(struct pc_slice pattern, bool icase, struct pc_regex **ret_regex)
{
    uint32_t options = PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF | (icase ? PCRE2_CASELESS : 0);
    struct pc_regex *regex = calloc(1, sizeof *regex);
    int error;
    size_t at;
    if (regex == NULL)
        return -PC_E_MEMORY;
    regex->code = pcre2_compile((PCRE2_SPTR)(pattern.len > 0 ? pattern.base : ""), pattern.len, options, &error, &at, NULL);
    regex->limits = pcre2_match_context_create(NULL);
    if (regex->code == NULL || regex->limits == NULL) {
        pc_regex_free(regex);
        return -PC_E_BAD;
    }
    (void)pcre2_set_match_limit(regex->limits, MATCH_LIMIT); /* these three always return 0 */
    (void)pcre2_set_depth_limit(regex->limits, DEPTH_LIMIT);
    (void)pcre2_set_heap_limit(regex->limits, HEAP_LIMIT_KIB);
    *ret_regex = regex;
    return 0;
}

static int
copy_groups(pcre2_match_data *data, int count, struct pc_span ret_groups[GROUPS])
{
    const PCRE2_SIZE *pairs = pcre2_get_ovector_pointer(data);
    int pair_count = (int)pcre2_get_ovector_count(data);
    if (count <= 0 || count > pair_count) /* 0: more groups than pairs; the first ones are all there */
        count = pair_count;
    for (int i = 0; i < GROUPS; i++) {
        ret_groups[i] = (struct pc_span){0};
        /* \K in a lookahead can end a match before its start. */
        if (i < count && pairs[2 * i] != PCRE2_UNSET && pairs[2 * i + 1] >= pairs[2 * i])
            ret_groups[i] = (struct pc_span){(uint32_t)pairs[2 * i], (uint32_t)(pairs[2 * i + 1] - pairs[2 * i])};
    }
    return count < GROUPS ? count : GROUPS;
}

int
pc_regex_match(const struct pc_regex *regex, struct pc_slice subject, struct pc_span ret_groups[GROUPS])
{
    struct pc_regex *shared = (struct pc_regex *)(uintptr_t)regex; /* only `spare` is written */
    pcre2_match_data *data = atomic_exchange(&shared->spare, NULL);
    int result;
    if (data == NULL)
        data = pcre2_match_data_create(GROUPS, NULL);
    if (data == NULL)
        pc_die(111, "out of memory");
    result = pcre2_match(regex->code, (PCRE2_SPTR)(subject.len > 0 ? subject.base : ""), subject.len, 0, 0, data,
                         regex->limits);
    if (result >= 0)
        result = copy_groups(data, result, ret_groups);
    else
        result = result == PCRE2_ERROR_NOMATCH ? 0 : -PC_E_BAD;
    pcre2_match_data_free(atomic_exchange(&shared->spare, data));
    return result;
}

static size_t
put_group(struct pc_slice group, bool escape, char *out)
{
    if (escape)
        return pc_escape_path(group, out);
    if (group.len > 0)
        memcpy(out, group.base, group.len); /* UNSAFE: the room was counted with this very group */
    return group.len;
}

struct pc_slice
pc_regex_expand(struct pc_arena *arena, struct pc_slice with, struct pc_slice subject, const struct pc_span groups[GROUPS],
                bool escape)
{
    size_t room = with.len, used = 0;
    for (size_t i = 0; i + 1 < with.len; i++)
        if (with.base[i] == '$' && with.base[i + 1] >= '0' && with.base[i + 1] <= '9')
            room += 3 * (size_t)groups[with.base[i + 1] - '0'].len;
    char *out = pc_arena_alloc(arena, room + 1);
    for (size_t i = 0; i < with.len; i++) {
        char c = with.base[i], next = i + 1 < with.len ? with.base[i + 1] : '\0';
        if (c == '$' && next >= '0' && next <= '9') {
            used += put_group(pc_slice_at(subject.base, groups[next - '0']), escape, out + used);
            i++;
        } else if (c == '\\' && (next == '$' || next == '\\')) {
            out[used++] = next;
            i++;
        } else {
            out[used++] = c;
        }
    }
    out[used] = '\0';
    return (struct pc_slice){out, used};
}
