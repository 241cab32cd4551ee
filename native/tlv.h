/* tlv.h - how a container of a record is described and read: rows of tag -> member, and one function per shape of payload. */
#ifndef PC_TLV_H
#define PC_TLV_H

#include <string.h>

#include "pc.h"

struct pc_tlv_loader {
    struct pc_config *config; /* its arena takes what is made */
    const char *why;          /* static text: the first thing that was wrong */
};

struct pc_tlv_row {
    uint16_t tag;
    bool many, required;
    uint16_t at, count_at, size; /* member's offset; with many: its counter's, and one element's size */
    uint16_t low, high;          /* bounds, as the load function understands them */
    int (*load)(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
};

#define PC_TLV_AT(type, member) .at = offsetof(struct type, member)
#define PC_TLV_MANY(type, member, counter, element) \
    .many = true, PC_TLV_AT(type, member), .count_at = offsetof(struct type, counter), .size = sizeof(element)

static inline uint16_t
pc_tlv_read_u16(const char *at)
{
    uint16_t number;
    memcpy(&number, at, sizeof number); /* little endian, as every machine this is built for */
    return number;
}

static inline uint32_t
pc_tlv_read_u32(const char *at)
{
    uint32_t number;
    memcpy(&number, at, sizeof number);
    return number;
}

/* Keep the first reason. Returns -PC_E_FORMAT. */
int pc_tlv_refuse(struct pc_tlv_loader *loader, const char *why);
void *pc_tlv_zeroed(struct pc_tlv_loader *loader, size_t count, size_t size);
/* Read one container into the zeroed struct `to`. A tag without a row, one that repeats without `many`, a missing required one
 * or what a row's function refuses ends it with -PC_E_FORMAT; what was begun until then is in `to` and can be freed. */
int pc_tlv_box(struct pc_tlv_loader *loader, const struct pc_tlv_row *rows, size_t row_count, struct pc_slice box, void *to);
#define PC_TLV_BOX(loader, rows, box, to) pc_tlv_box(loader, rows, sizeof rows / sizeof rows[0], box, to)

/* Shapes of payloads, for rows. */
int pc_tlv_u32(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
int pc_tlv_u32s(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
int pc_tlv_flag(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
int pc_tlv_str(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
int pc_tlv_raw(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
int pc_tlv_path(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
int pc_tlv_pair(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
/* Next text of a STRS payload. Returns 1, 0 at the end, -PC_E_FORMAT. */
int pc_tlv_next_text(struct pc_tlv_loader *loader, struct pc_slice payload, size_t *at, struct pc_slice *ret_text);

#endif
