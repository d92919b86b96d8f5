/* SPDX-License-Identifier: BSD-2-Clause */
/* A smoke test as an operator writes it, probes included. */
#include "check.h"
#include "fuzz.h"
#include "master/config/smoke_spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void check_probe(const struct probe_spec *spec, size_t listeners)
{
    bool sound = spec->listener < listeners && spec->timeout_ms >= 0;
    if (spec->http)
        sound = sound && spec->path[0] == '/' && !strpbrk(spec->path, " \t\r\n") && *spec->host &&
                spec->status_least >= 200 && spec->status_least <= spec->status_most &&
                spec->status_most <= 599 && !*spec->header_name == !*spec->header;
    if (*spec->body)
        sound = sound && spec->http && pattern_check(spec->body, NULL) == 0;
    if (!sound)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct listener_spec listeners[] = {
        {.text = "udp:1", .name = "dns", .family = LISTENER_UDP, .type = SOCK_DGRAM, .steering = -1},
        {.text = "tcp:1", .name = "web", .family = LISTENER_TCP, .type = SOCK_STREAM, .steering = -1}};
    struct config_service service = {.listeners = listeners, .listener_count = 2};
    struct smoke_spec spec;
    struct error error = {.code = 0};
    char *text = fuzz_text(data, size);
    int result = smoke_spec_parse(text, &service, &spec, &error);
    if (result < 0)
        check_refusal(result, &error);
    else if (spec.run) {
        if (!spec.run[0] || !*spec.run[0])
            abort();
        smoke_spec_done(&spec);
    } else
        check_probe(&spec.probe, 2);
    free(text);
    return 0;
}
