/* SPDX-License-Identifier: BSD-2-Clause */
/* Capture, and what it costs a worker. */
#include "cli/doctor/rights.h"
#include "cli/doctor/tries.h"
#include "master/capture/try.h"

#include <errno.h>
#include <sys/prctl.h>

/* Less than a try gets as a whole. */
#define CAPTURE_MS 800

static void advise(struct finding *finding, int code, enum capture_step step)
{
    bool reading = step == CAPTURE_STEP_READ || step == CAPTURE_STEP_DUPLICATE;
    if (code == EBUSY)
        finding_advise(finding,
            "run gapless outside of what captures already, or servers that take inherited "
            "sockets");
    else if (reading && (code == EPERM || code == EACCES))
        finding_advise(finding, "give gapless CAP_SYS_PTRACE (systemd: AmbientCapabilities=, docker: "
                                "--cap-add), or set the sysctl kernel.yama.ptrace_scope to 0");
    else if (code == EPERM || code == EACCES)
        finding_advise(finding, "let the container's filter allow seccomp(2)");
    else if (code == EOPNOTSUPP)
        finding_advise(finding, "use Linux 5.9 or later with CONFIG_SECCOMP_FILTER; in a container let its "
                                "filter allow seccomp, process_vm_readv, pidfd_open and pidfd_getfd");
    else
        rights_advise_network(finding, code, "servers that take inherited sockets work without");
}

static void judge(struct finding *finding, const struct capture_ability *ability)
{
    if (ability->replace && ability->wait_killable) {
        finding_set(finding, FINDING_OK, "a worker's bind and listen are answered, its socket is duplicated");
    } else if (ability->replace) {
        finding_set(
            finding, FINDING_LIMITED, "works, but a worker with a timer signal may never get through");
        finding_advise(finding, "use Linux 5.19 or later");
    } else {
        finding_set(finding, FINDING_LIMITED,
            "works, but not where a listener is shared: no socket can be put "
            "in the place of the worker's");
        finding_advise(finding, "use Linux 5.9 or later");
    }
}

static void judge_no_new_privs(struct finding *finding, const struct capture_ability *ability)
{
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) {
        finding_set(finding, FINDING_LIMITED,
            "in force: set-user-ID programs and file capabilities have no effect in workers");
        finding_advise(finding,
            "if a worker needs them: NoNewPrivileges=no (systemd), without --security-opt "
            "no-new-privileges (docker)");
    } else if (ability->no_new_privs) {
        finding_set(finding, FINDING_LIMITED,
            "captured workers get it: set-user-ID programs and file capabilities have no effect in them");
        finding_advise(finding, "if a worker needs them: give gapless CAP_SYS_ADMIN");
    } else {
        finding_set(finding, FINDING_OK, "not in force, and capture doesn't need it");
    }
}

void try_capture(struct findings *findings)
{
    struct finding *finding = &findings->all[FINDING_CAPTURE];
    struct capture_ability ability;
    struct error error;
    int r = capture_try(CAPTURE_MS, &ability, &error);
    if (r < 0) {
        finding_set(finding, FINDING_NO, "%s", error.message);
        advise(finding, -r, ability.step);
    } else {
        judge(finding, &ability);
    }
    judge_no_new_privs(&findings->all[FINDING_NO_NEW_PRIVS], &ability);
}
