/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config.h"

#include "master/config/flags.h"
#include "master/config/quote.h"
#include "master/config/schema.h"
#include "master/config/service.h"
#include "master/config/value.h"
#include "master/config/yaml.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int out_of_memory(struct error *error)
{
    return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
}

struct config *config_ref(struct config *config)
{
    config->references++;
    return config;
}

void config_unref(struct config *config)
{
    if (!config || --config->references > 0)
        return;
    for (size_t i = 0; i < config->service_count; i++)
        config_service_done(&config->services[i]);
    free(config->services);
    free(config->name);
    free(config->admin_path);
    free(config->pid_file);
    free(config->history);
    free(config->file);
    free(config->yaml);
    free(config);
}

const struct config_service *config_find(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->service_count; i++)
        if (strcmp(config->services[i].name, name) == 0)
            return &config->services[i];
    return NULL;
}

bool config_is_said(const struct config_service *service, const char *path)
{
    size_t count;
    const struct config_key *key = config_key_find(SCOPE_SERVICE, path);
    assert(key);
    size_t row = (size_t)(key - config_keys(&count));
    return service->said[row / 64] >> row % 64 & 1;
}

enum config_protocol config_protocol_of(
    const struct config_service *service, const struct listener_spec *listener)
{
    return listener->protocol >= 0 ? (enum config_protocol)listener->protocol : service->protocol;
}

enum config_steering config_steering_of(
    const struct config_service *service, const struct listener_spec *listener)
{
    if (listener->steering >= 0)
        return (enum config_steering)listener->steering;
    bool inet = listener->family == LISTENER_TCP || listener->family == LISTENER_UDP;
    bool fits = service->steering == CONFIG_STEERING_SHARED ||
                (service->steering == CONFIG_STEERING_EBPF && inet) ||
                (service->steering == CONFIG_STEERING_CBPF && listener->family == LISTENER_TCP) ||
                (service->steering == CONFIG_STEERING_PATH && listener->family == LISTENER_UNIX);
    return fits ? service->steering : CONFIG_STEERING_AUTO;
}

/* The base name of a service's command, as the name of what has none; `remedy` says how to give one. */
static int default_name(
    const struct config_service *service, const char *remedy, char **ret_name, struct error *error)
{
    const char *slash = strrchr(service->command[0], '/');
    const char *base = slash ? slash + 1 : service->command[0];
    if (value_check_name(base, NULL) < 0)
        return error_set(error, EINVAL, BLAME_USER, "no name can be made of the command '%s': %s",
            quote_text(service->command[0]).text, remedy);
    *ret_name = strdup(base);
    return *ret_name ? 0 : out_of_memory(error);
}

/* The one service that flags and a command describe; it is named as the instance. */
static int service_from_flags(struct config *config, const struct flags *flags, struct error *error)
{
    config->services = calloc(1, sizeof *config->services);
    if (!config->services)
        return out_of_memory(error);
    config->service_count = 1;
    struct config_service *service = config->services;
    const struct config_key *command = config_key_find(SCOPE_SERVICE, "command");
    int result = config_service_init(service, config_flags_value(flags, "preset"), error);
    for (int i = 0; result == 0 && i < flags->command_count; i++)
        result = config_assign(command, service, flags->command[i], error);
    if (result == 0)
        result = config_flags_apply(flags, SCOPE_SERVICE, service, error);
    const char *key;
    if (result == 0 && (result = config_service_check(service, NULL, 0, &key, error)) < 0 && key)
        error_prefix(error, "--%s", config_key_find(SCOPE_SERVICE, key)->flag);
    if (result == 0 && !config->name)
        result = default_name(service, "give one by --name", &config->name, error);
    if (result == 0 && !(service->name = strdup(config->name)))
        result = out_of_memory(error);
    return result;
}

/* What the file says; the flags of the instance that stand beside -c go over it. */
static int services_from_file(
    struct config *config, const struct flags *flags, const char *yaml, struct error *error)
{
    config->file = strdup(flags->file);
    if (!config->file)
        return out_of_memory(error);
    int result = 0;
    if (!yaml)
        result = config_yaml_file(flags->file, &config->yaml, error);
    else if (!(config->yaml = strdup(yaml)))
        result = out_of_memory(error);
    if (result == 0)
        result = config_yaml_read(config->file, config->yaml, config, error);
    if (result == 0)
        result = config_flags_apply(flags, SCOPE_INSTANCE, config, error);
    if (result == 0 && !config->name)
        result = default_name(&config->services[0], "give one by name: or --name", &config->name, error);
    return result;
}

static int load(const struct flags *flags, const char *yaml, struct config *config, struct error *error)
{
    int result = config_assign_defaults(SCOPE_INSTANCE, PRESET_DEFAULT, config, error);
    if (result == 0 && flags->file)
        return services_from_file(config, flags, yaml, error);
    if (result == 0)
        result = config_flags_apply(flags, SCOPE_INSTANCE, config, error);
    return result < 0 ? result : service_from_flags(config, flags, error);
}

int config_load(int argc, char *const argv[], const char *yaml, struct config **ret_config,
    enum config_action *ret_action, struct error *error)
{
    struct flags flags;
    int result = config_flags_scan(argc, argv, &flags, error);
    if (result < 0)
        return result;
    struct config *config = NULL;
    if (!flags.help) {
        config = calloc(1, sizeof *config);
        if (config)
            config->references = 1;
        result = config ? load(&flags, yaml, config, error) : out_of_memory(error);
    }
    if (result == 0) {
        *ret_action = flags.help ? CONFIG_HELP : CONFIG_RUN;
        *ret_config = config;
    } else {
        config_unref(config);
    }
    config_flags_done(&flags);
    return result;
}
