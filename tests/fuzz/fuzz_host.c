/* Invariant: an accepted name is lower case, at most PC_MAX_HOST_BYTES, NUL-terminated, of the
 * allowed bytes, without empty label; parsed again it is itself; a refusal writes nothing. */
/* sources: host.c util.c */
/* seeds: host */
#include "pc.h"

#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pc_slice raw = {.base = fuzz_copy(data, size), .len = size};
    struct pc_hostname host, again, before;
    int status;

    memset(&host, 0x5a, sizeof(host));
    before = host;
    status = pc_host_parse(raw, &host);
    if (status < 0) {
        MUST(status == -PC_E_BAD && memcmp(&host, &before, sizeof(host)) == 0);
    } else {
        MUST(status == 0 && host.len <= PC_MAX_HOST_BYTES && host.name[host.len] == '\0' &&
             strlen(host.name) == host.len);
        MUST(host.len == 0 || (host.name[0] != '.' && host.name[host.len - 1] != '.' &&
                               strstr(host.name, "..") == NULL));
        MUST(strspn(host.name, "abcdefghijklmnopqrstuvwxyz0123456789-_.:[]") == host.len);
        MUST(host.name[0] == '[' || strpbrk(host.name, ":[]") == NULL);
        MUST(pc_host_parse((struct pc_slice){.base = host.name, .len = host.len}, &again) == 0);
        MUST(again.len == host.len && again.port == 0 && strcmp(again.name, host.name) == 0);
        MUST(host.len > 0 || size == 0);
    }
    free((void *)raw.base);
    return 0;
}
