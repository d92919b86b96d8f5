/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/doctor/rights.h"

#include "gapless_config.h"

#include <errno.h>
#include <sys/stat.h>

/* The first user namespace has this inode since Linux 3.8 (PROC_USER_INIT_INO). */
#define FIRST_USER_NAMESPACE 0xeffffffdu

bool rights_in_user_namespace(void)
{
    struct stat st;
    return stat("/proc/self/ns/user", &st) == 0 && st.st_ino != FIRST_USER_NAMESPACE;
}

static bool has(cap_t set, cap_value_t right)
{
    cap_flag_value_t value = CAP_CLEAR;
    return set && cap_get_flag(set, right, CAP_EFFECTIVE, &value) == 0 && value == CAP_SET;
}

/* Those that aren't there; all, where all are. Returns whether all are. */
static bool name_missing(const struct rights_bpf *bpf, char *names, size_t size)
{
    cap_value_t named[RIGHTS_MOST];
    size_t count = 0, length = 0;
    cap_t set = cap_get_proc();
    for (size_t i = 0; i < bpf->count; i++)
        if (!has(set, bpf->needed[i]))
            named[count++] = bpf->needed[i];
    cap_free(set);
    bool all = count == 0;
    for (size_t i = 0; all && i < bpf->count; i++)
        named[count++] = bpf->needed[i];
    for (size_t i = 0; i < count; i++) {
        const char *name = named[i] == CAP_BPF       ? "CAP_BPF"
                           : named[i] == CAP_PERFMON ? "CAP_PERFMON"
                                                     : "CAP_NET_ADMIN";
        const char *between = i == 0 ? "" : i + 1 < count ? ", " : " and ";
        length += (size_t)snprintf(names + length, size - length, "%s%s", between, name);
    }
    return all;
}

static bool is_built_with_bpf(void)
{
#ifdef GAPLESS_BPF
    return true;
#else
    return false;
#endif
}

/* Not permitted: the sysctl kernel.unprivileged_bpf_disabled doesn't matter, since programs of these kinds
 * need the capabilities whatever it says. */
static void advise_right(struct finding *finding, const struct rights_bpf *bpf)
{
    char names[64];
    bool all = name_missing(bpf, names, sizeof names);
    if (rights_in_user_namespace())
        finding_advise(finding,
            "run gapless outside of a user namespace (a rootless container), where it can have %s; %s", names,
            bpf->otherwise);
    else if (!all)
        finding_advise(finding, "give gapless %s (systemd: AmbientCapabilities=, docker: --cap-add); %s",
            names, bpf->otherwise);
    else
        finding_advise(finding,
            "%s is there: let the container's filter and the kernel's lockdown allow bpf(2); %s", names,
            bpf->otherwise);
}

void rights_advise_bpf(struct finding *finding, int code, const struct rights_bpf *bpf)
{
    char kernel[256];
    snprintf(kernel, sizeof kernel, "use %s; %s", bpf->kernel, bpf->otherwise);
    if (!is_built_with_bpf())
        finding_advise(finding, "build gapless with BPF (-Dbpf=enabled); %s", bpf->otherwise);
    else if (code == EPERM)
        advise_right(finding, bpf);
    else
        rights_advise_network(finding, code, kernel);
}

void rights_advise_network(struct finding *finding, int code, const char *otherwise)
{
    if (code == EADDRNOTAVAIL || code == ENETUNREACH)
        finding_advise(finding, "bring the loopback interface up (ip link set lo up)");
    else
        finding_advise(finding, "%s", otherwise);
}
