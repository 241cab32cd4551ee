/* h2_case.h - a connection of HTTP/2 on the real connection code, for test_h2.c and test_h2_floods.c: begun, driven, ended, nothing left.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   gate_case.h, h2_client.h.   Distrusts: the code under test.
 * Before:   test_h2.c, test_h2_floods.c   After: gate_case.h */
#ifndef H2_CASE_H
#define H2_CASE_H

#include "loop.c" /* for handle_event */

#include "gate_case.h"
#include "h2_client.h"

static struct h2_client client;

static void
h2_drive(struct h2_client *of)
{
    drive();
    h2_hear(of);
}

static inline void
settle(void)
{
    for (size_t before = SIZE_MAX; before != client.body_bytes;) {
        before = client.body_bytes;
        h2_drive(&client);
    }
}

static inline void
start(void)
{
    h2_begin(&client, open_client(1 << 20));
    settle();
    CHECK(client.has_settings && client.settings_acks == 1);
}

static inline void
stop(void)
{
    h2_end(&client);
    drive();
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    CHECK_EQ(child_counter(&one, PC_C_CONNECTIONS), 0);
    CHECK_EQ(child_counter(&one, PC_C_PARKED), 0);
}

#endif
