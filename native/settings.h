/* settings.h - settings.c's part of reading a record, for record.c. */
#ifndef PC_SETTINGS_H
#define PC_SETTINGS_H

#include "tlv.h"

/* For rows: FORMAT operations (only their framing), ACCESS leaves, a struct pc_settings that pc_settings_unset made ready. */
int pc_settings_format(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
int pc_settings_leaves(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
int pc_settings_load(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to);
void pc_settings_unset(struct pc_settings *settings); /* a zeroed one: nothing is set */
void pc_settings_free(struct pc_settings *settings);  /* its patterns; the rest is the arena's */

#endif
