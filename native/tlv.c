/* tlv.c - read TLV containers by rows: tag -> member.
 * Runs as:  child, as the identity that the record is for.   Sees: that identity's configuration only.
 * Trusts:   its caller's rows.   Distrusts: every byte of the record.
 * Before:   record.c   After: record.c */
#include <string.h>

#include "tlv.h"

#define MAX_ROWS 48
#define ITEM_HEAD 8

/* ------------------------------------------------------------------ items */

int
pc_item_next(struct pc_slice box, size_t *at, struct pc_item *ret_item)
{
    if (*at > box.len)
        return -PC_E_FORMAT;
    size_t left = box.len - *at;
    if (left == 0)
        return 0;
    if (left < ITEM_HEAD || pc_tlv_read_u16(box.base + *at + 2) != 0)
        return -PC_E_FORMAT;
    uint32_t len = pc_tlv_read_u32(box.base + *at + 4);
    if (len > left - ITEM_HEAD || len > PC_MAX_RECORD_BYTES)
        return -PC_E_FORMAT;
    *ret_item = (struct pc_item){.tag = pc_tlv_read_u16(box.base + *at), .payload = {box.base + *at + ITEM_HEAD, len}};
    *at += ITEM_HEAD + len;
    return (int)(ITEM_HEAD + len);
}

int
pc_tlv_refuse(struct pc_tlv_loader *loader, const char *why)
{
    if (loader->why == NULL)
        loader->why = why;
    return -PC_E_FORMAT;
}

void *
pc_tlv_zeroed(struct pc_tlv_loader *loader, size_t count, size_t size)
{
    if (count > SIZE_MAX / size)
        pc_bug("record: size overflows");
    void *memory = pc_arena_alloc(&loader->config->memory, count * size);
    memset(memory, 0, count * size);
    return memory;
}

/* ------------------------------------------------------------------ containers */

static const struct pc_tlv_row *
find_row(const struct pc_tlv_row *rows, size_t row_count, uint16_t tag)
{
    for (size_t i = 0; i < row_count; i++)
        if (rows[i].tag == tag)
            return &rows[i];
    return NULL;
}

/* How often each row's tag is there; the shape of the whole container is checked before anything is made of it. */
static int
count_items(struct pc_tlv_loader *loader, const struct pc_tlv_row *rows, size_t row_count, struct pc_slice box,
            uint32_t *counts)
{
    struct pc_item item = {0};
    size_t at = 0;
    int step;
    while ((step = pc_item_next(box, &at, &item)) > 0) {
        const struct pc_tlv_row *row = find_row(rows, row_count, item.tag);
        if (row == NULL)
            return pc_tlv_refuse(loader, "record: an item that does not belong here");
        if (counts[row - rows]++ > 0 && !row->many)
            return pc_tlv_refuse(loader, "record: an item that may stand only once stands twice");
    }
    if (step < 0)
        return pc_tlv_refuse(loader, "record: an item is cut off");
    for (size_t i = 0; i < row_count; i++)
        if (rows[i].required && counts[i] == 0)
            return pc_tlv_refuse(loader, "record: an item that must be there is missing");
    return 0;
}

int
pc_tlv_box(struct pc_tlv_loader *loader, const struct pc_tlv_row *rows, size_t row_count, struct pc_slice box, void *to)
{
    uint32_t counts[MAX_ROWS] = {0};
    if (row_count > MAX_ROWS)
        pc_bug("record: more rows than MAX_ROWS");
    if (count_items(loader, rows, row_count, box, counts) != 0)
        return -PC_E_FORMAT;
    for (size_t i = 0; i < row_count; i++)
        if (rows[i].many && counts[i] > 0)
            *(void **)(void *)((char *)to + rows[i].at) = pc_tlv_zeroed(loader, counts[i], rows[i].size);
    struct pc_item item = {0};
    size_t at = 0;
    while (pc_item_next(box, &at, &item) > 0) {
        const struct pc_tlv_row *row = find_row(rows, row_count, item.tag);
        char *member = (char *)to + row->at;
        if (row->many) {
            uint32_t *count = (uint32_t *)(void *)((char *)to + row->count_at);
            member = *(char **)(void *)member + (size_t)*count * row->size;
            (*count)++; /* before it is loaded: what was begun is freed, too */
        }
        int result = row->load(loader, row, item.payload, member);
        if (result != 0)
            return result;
    }
    return 0;
}
/* ------------------------------------------------------------------ plain values */

/* `high` = largest value allowed, 0 = any. */
int
pc_tlv_u32(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    if (payload.len != 4)
        return pc_tlv_refuse(loader, "record: a number has another size");
    uint32_t number = pc_tlv_read_u32(payload.base);
    if (row->high > 0 && number > row->high)
        return pc_tlv_refuse(loader, "record: a number is out of its range");
    memcpy(to, &number, sizeof number);
    return 0;
}

/* `low` consecutive uint32_t members. */
int
pc_tlv_u32s(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    if (payload.len != 4u * row->low)
        return pc_tlv_refuse(loader, "record: a list of numbers has another length");
    memcpy(to, payload.base, payload.len);
    return 0;
}

int
pc_tlv_flag(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    if (payload.len != 4 || pc_tlv_read_u32(payload.base) > 1)
        return pc_tlv_refuse(loader, "record: a flag is neither 0 nor 1");
    *(bool *)to = pc_tlv_read_u32(payload.base) == 1;
    return 0;
}

int
pc_tlv_str(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    if (payload.len > 0 && memchr(payload.base, '\0', payload.len) != NULL)
        return pc_tlv_refuse(loader, "record: a text holds a NUL");
    *(struct pc_slice *)to = payload;
    return 0;
}

int
pc_tlv_raw(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)loader;
    (void)row;
    *(struct pc_slice *)to = payload;
    return 0;
}

/* An absolute path, with a NUL behind it for the kernel. low 1: may be empty. */
int
pc_tlv_path(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_slice path = {0};
    if (pc_tlv_str(loader, row, payload, &path) != 0)
        return -PC_E_FORMAT;
    if (path.len > PC_MAX_PATH_BYTES || (path.len == 0 ? row->low == 0 : path.base[0] != '/'))
        return pc_tlv_refuse(loader, "record: a path is not absolute or too long");
    *(struct pc_slice *)to = pc_arena_copy(&loader->config->memory, path);
    return 0;
}

/* ------------------------------------------------------------------ lists of texts */

/* Next text of a STRS payload. Returns 1, 0 at the end, -PC_E_FORMAT. */
int
pc_tlv_next_text(struct pc_tlv_loader *loader, struct pc_slice payload, size_t *at, struct pc_slice *ret_text)
{
    if (*at == payload.len)
        return 0;
    if (payload.len - *at < 4)
        return pc_tlv_refuse(loader, "record: a list of texts is cut off");
    uint32_t len = pc_tlv_read_u32(payload.base + *at);
    if (len > payload.len - *at - 4)
        return pc_tlv_refuse(loader, "record: a list of texts is cut off");
    struct pc_slice text = {payload.base + *at + 4, len};
    if (pc_tlv_str(loader, NULL, text, ret_text) != 0)
        return -PC_E_FORMAT;
    *at += 4 + (size_t)len;
    return 1;
}

int
pc_tlv_pair(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_pair *pair = to;
    size_t at = 0;
    (void)row;
    if (pc_tlv_next_text(loader, payload, &at, &pair->name) != 1 || pc_tlv_next_text(loader, payload, &at, &pair->value) != 1
        || at != payload.len)
        return pc_tlv_refuse(loader, "record: a pair is not two texts");
    return 0;
}
