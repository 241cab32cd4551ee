/* Invariant: what pc_hand_check_message passes says so in every word, its carried bytes are the message's own, to the last one; what it
 * refuses leaves the outputs alone; and a message with its lengths made true is refused for its words only. */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c loop.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c */
/* sources: tlv.c transport.c uri.c util.c wild.c */
/* sources: why.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* flags: -D_GNU_SOURCE */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
/* seeds: hand */
/* max_len: 256 */
#include "child.h"
#include "hand.h"

#include "fuzz.h"

static void
check(const char *raw, size_t len)
{
    char *copy = fuzz_copy(raw, len);
    struct pc_hand hand = {.magic = 7};
    struct pc_slice carried = {.len = 7};
    if (pc_hand_check_message(copy, len, &hand, &carried) != 0) {
        MUST(hand.magic == 7 && carried.len == 7 && carried.base == NULL);
        free(copy);
        return;
    }
    MUST(len >= sizeof hand && memcmp(&hand, copy, sizeof hand) == 0);
    MUST(hand.magic == PC_HAND_MAGIC && hand.version == PC_HAND_VERSION && hand.hops >= 1 && hand.hops <= PC_MAX_HOPS);
    MUST(carried.base == copy + sizeof hand && carried.len == len - sizeof hand && carried.len == hand.carried_len);
    MUST((hand.client_family == 0 && hand.client_port == 0 && hand.tag == 0) || hand.client_family == 4 || hand.client_family == 6);
    MUST(hand.client_family == 6 || (hand.zero == 0 && memcmp(hand.client + hand.client_family, "\0\0\0\0\0\0\0\0\0\0\0", 12) == 0));
    MUST(hand.kind == (carried.len > 0 ? PC_HAND_CARRIED : PC_HAND_FRESH) && carried.len <= PC_IN_MAX);
    free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pc_hand hand;
    check((const char *)data, size);
    if (size < sizeof hand)
        return 0;
    char *mended = fuzz_copy(data, size);
    memcpy(&hand, mended, sizeof hand);
    hand.magic = PC_HAND_MAGIC;
    hand.version = PC_HAND_VERSION;
    hand.carried_len = (uint32_t)(size - sizeof hand);
    memcpy(mended, &hand, sizeof hand);
    check(mended, size);
    free(mended);
    return 0;
}
