/* restrict.c - take everything but CAP_DAC_READ_SEARCH from the process that compiles the configuration.
 * Runs as:  root, in a forked process that ends when it is done.   Sees: the operator's configuration afterwards.
 * Holds:    the capability to read what root may read.   Distrusts: itself, once it parses text.
 * Before:   dispatcher/compile.py   After: config/load.py */
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pc.h"

#define SECURE_BITS (SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

static bool
bound_capabilities(void)
{
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (capability != CAP_DAC_READ_SEARCH && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            return false;
    return true;
}

int
pc_restrict_to_read_search(void)
{
    (void)unshare(CLONE_NEWNET); /* not to be had in every container; then the configuration is parsed with a network */
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    uint32_t only = 1u << CAP_DAC_READ_SEARCH;
    data[0].effective = data[0].permitted = only;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0
        || prctl(PR_SET_SECUREBITS, SECURE_BITS, 0, 0, 0) < 0 || !bound_capabilities()
        || syscall(SYS_capset, &header, data) < 0)
        return -PC_E_SYS;
    return 0;
}
