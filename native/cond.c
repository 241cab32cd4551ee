/* cond.c - preconditions and ranges (RFC 9110 13 and 14).
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes.
 * Trusts:   the validators of the file being served.   Distrusts: the fields.
 * Before:   h1.c, file.c   After: respond.c
 *
 * Where a field is malformed it is as if it were absent, except If-Match, which then fails. Range
 * counts for GET alone, and only if it was sent once. A Range that is not well-formed, asks for
 * more than PC_MAX_RANGES pieces or for more bytes than there are (CVE-2011-3192) gets the whole
 * file; so does any range of an empty one, as with httpd. */
#include "pc.h"

static size_t
skip_blanks(struct pc_slice s, size_t at)
{
    while (at < s.len && (s.base[at] == ' ' || s.base[at] == '\t'))
        at++;
    return at;
}

/* An entity tag at `at` (RFC 9110 8.8.3). Returns where it ends, 0 = none. */
static size_t
read_etag(struct pc_slice s, size_t at, struct pc_slice *ret_tag)
{
    size_t from = at;

    if (s.len - at > 2 && s.base[at] == 'W' && s.base[at + 1] == '/')
        at += 2;
    if (at >= s.len || s.base[at] != '"')
        return 0;
    for (at++; at < s.len && s.base[at] != '"'; at++) {
        if (s.base[at] == ' ' || s.base[at] == '\t')
            return 0; /* other controls the head parser refuses */
    }
    if (at == s.len)
        return 0;
    *ret_tag = (struct pc_slice){.base = s.base + from, .len = at + 1 - from};
    return at + 1;
}

static bool
is_weak(struct pc_slice tag)
{
    return tag.len > 0 && tag.base[0] == 'W';
}

/* RFC 9110 8.8.3.2. */
static bool
tags_match(struct pc_slice a, struct pc_slice b, bool strong)
{
    if (a.len == 0 || b.len == 0 || (strong && (is_weak(a) || is_weak(b))))
        return false;
    if (is_weak(a))
        a = (struct pc_slice){.base = a.base + 2, .len = a.len - 2};
    if (is_weak(b))
        b = (struct pc_slice){.base = b.base + 2, .len = b.len - 2};
    return pc_slice_eq(a, b);
}

/* Whether "*" or a list of tags holds our tag. The list is read up to its first mistake. */
static bool
list_has_tag(struct pc_slice list, struct pc_slice tag, bool strong)
{
    size_t at = skip_blanks(list, 0);
    struct pc_slice one;

    if (pc_slice_eq(list, PC_S("*")))
        return true;
    while (at < list.len) {
        if (list.base[at] == ',') {
            at = skip_blanks(list, at + 1);
            continue;
        }
        at = read_etag(list, at, &one);
        if (at == 0)
            return false;
        if (tags_match(one, tag, strong))
            return true;
        at = skip_blanks(list, at);
        if (at < list.len && list.base[at] != ',')
            return false;
    }
    return false;
}

/* The same for all fields called `id`: a list may be sent in several lines. */
static bool
fields_have_tag(const struct pc_head *head, const char *buf, enum pc_field_id id,
                struct pc_slice tag, bool strong)
{
    uint32_t i;

    for (i = head->known[id] - 1u; i < head->field_count; i++) {
        if (head->fields[i].id == (uint32_t)id &&
            list_has_tag(pc_slice_at(buf, head->fields[i].value), tag, strong))
            return true;
    }
    return false;
}

/* The date in field `id`. Returns false if it is absent or no date. */
static bool
read_date(const struct pc_head *head, const char *buf, enum pc_field_id id, int64_t *ret_unix_s)
{
    struct pc_slice value = pc_head_field(head, buf, id);

    return value.base != NULL && pc_date_parse(value, ret_unix_s) == 0;
}

static uint32_t
count_fields(const struct pc_head *head, enum pc_field_id id)
{
    uint32_t count = 0, i;

    for (i = 0; i < head->field_count; i++)
        count += head->fields[i].id == (uint32_t)id;
    return count;
}

static bool
may_honour_range(const struct pc_head *head, const char *buf, const struct pc_validators *now)
{
    struct pc_slice value = pc_head_field(head, buf, PC_F_IF_RANGE);
    struct pc_slice tag;
    int64_t date_s;

    if (head->method_id != PC_GET || count_fields(head, PC_F_RANGE) != 1)
        return false;
    if (value.base == NULL)
        return true;
    if (count_fields(head, PC_F_IF_RANGE) != 1)
        return false;
    if (read_etag(value, 0, &tag) == value.len && value.len > 0)
        return tags_match(tag, now->etag, true);
    return now->modified_s >= 0 && pc_date_parse(value, &date_s) == 0 && date_s == now->modified_s;
}

int
pc_cond_check(const struct pc_head *head, const char *buf, const struct pc_validators *now,
              bool *ret_range)
{
    bool is_read = head->method_id == PC_GET || head->method_id == PC_HEAD;
    int64_t date_s;

    /* The order of RFC 9110 13.2.2. */
    if (head->known[PC_F_IF_MATCH] != 0) {
        if (!fields_have_tag(head, buf, PC_F_IF_MATCH, now->etag, true))
            return 412;
    } else if (now->modified_s >= 0 && read_date(head, buf, PC_F_IF_UNMODIFIED_SINCE, &date_s)) {
        if (now->modified_s > date_s)
            return 412;
    }
    if (head->known[PC_F_IF_NONE_MATCH] != 0) {
        if (fields_have_tag(head, buf, PC_F_IF_NONE_MATCH, now->etag, false))
            return is_read ? 304 : 412;
    } else if (is_read && now->modified_s >= 0 &&
               read_date(head, buf, PC_F_IF_MODIFIED_SINCE, &date_s)) {
        if (now->modified_s <= date_s)
            return 304;
    }
    *ret_range = may_honour_range(head, buf, now);
    return 0;
}

/* Digits at `at`, saturating: what passes 2^64 is above every size. Returns where they end, `at` if
 * there are none. */
static size_t
read_number(struct pc_slice s, size_t at, uint64_t *ret_number)
{
    uint64_t number = 0;

    for (; at < s.len && s.base[at] >= '0' && s.base[at] <= '9'; at++) {
        uint64_t digit = (uint64_t)(s.base[at] - '0');

        number = number > (UINT64_MAX - digit) / 10 ? UINT64_MAX : number * 10 + digit;
    }
    *ret_number = number;
    return at;
}

/* One range-spec: "first-", "first-last" or "-suffix". ret_range->length 0 = well-formed, but none
 * of it exists. Returns where it ends, 0 = malformed. */
static size_t
read_range(struct pc_slice s, size_t at, uint64_t size, struct pc_range *ret_range)
{
    uint64_t first, last;
    size_t dash = read_number(s, at, &first);
    size_t end;

    if (dash == s.len || s.base[dash] != '-')
        return 0;
    end = read_number(s, dash + 1, &last);
    if (dash == at) { /* a suffix */
        if (end == dash + 1)
            return 0;
        if (last > size)
            last = size;
        *ret_range = (struct pc_range){.first = size - last, .length = last};
        return end;
    }
    if (end == dash + 1)
        last = UINT64_MAX;
    else if (last < first)
        return 0;
    *ret_range = (struct pc_range){.first = first, .length = 0};
    if (first < size)
        ret_range->length = (last < size - 1 ? last : size - 1) - first + 1;
    return end;
}

int
pc_range_parse(struct pc_slice value, uint64_t size, struct pc_range ret_ranges[PC_MAX_RANGES])
{
    struct pc_range ranges[PC_MAX_RANGES], one;
    uint64_t left = size;
    size_t at = 6;
    int seen = 0, count = 0, i;

    if (size == 0)
        return 0; /* no part of nothing can be named in a 206 */
    if (value.len < 6 ||
        !pc_slice_ieq((struct pc_slice){.base = value.base, .len = 6}, PC_S("bytes=")))
        return 0;
    for (;;) {
        at = skip_blanks(value, at);
        at = read_range(value, at, size, &one);
        if (at == 0 || ++seen > PC_MAX_RANGES)
            return 0;
        if (one.length > left)
            return 0; /* they overlap so much that their sum exceeds the file */
        left -= one.length;
        if (one.length > 0)
            ranges[count++] = one;
        at = skip_blanks(value, at);
        if (at == value.len)
            break;
        if (value.base[at++] != ',')
            return 0;
    }
    if (count == 0)
        return -PC_E_RANGE;
    for (i = 0; i < count; i++)
        ret_ranges[i] = ranges[i];
    return count;
}
