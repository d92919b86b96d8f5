/* SPDX-License-Identifier: BSD-2-Clause */
/* The steps of an upgrade: maps in a list, each read by the table as a service is. */
#include "master/config/service.h"
#include "master/config/yaml_reader.h"

#include <errno.h>

/* Nothing brings the old generation back from there: the undo would never run. */
static bool is_final(const struct config_step *step)
{
    return step->phase > PHASE_COMMIT || (step->phase == PHASE_COMMIT && step->after);
}

/* What no key alone can be wrong about. */
static int check_step(struct reader *reader, const struct config_step *step, const yaml_node_t *map)
{
    if (step->phase == PHASE_COUNT)
        return reader_at(reader, map,
            error_set(reader->error, EINVAL, BLAME_USER,
                "there is neither before nor after: a step needs the phase that it stands at"));
    if (!step->run)
        return reader_at(reader, map, error_set(reader->error, EINVAL, BLAME_USER, "the key run is missing"));
    if (!step->undo || !is_final(step))
        return 0;
    size_t length = reader_enter(reader, "undo");
    int result = reader_at(reader, reader_find(reader, map, "undo"),
        error_set(reader->error, EINVAL, BLAME_USER, "%s %s nothing is undone: the upgrade is final",
            step->after ? "after" : "before", upgrade_phase_name(step->phase)));
    reader_leave(reader, length);
    return result;
}

static int read_step(
    struct reader *reader, const struct config_key *key, struct config_service *service, yaml_node_t *map)
{
    if (map->type != YAML_MAPPING_NODE)
        return reader_wrong_kind(reader, map, "a map such as {before: switch, run: COMMAND}");
    struct config_step step = {.phase = PHASE_COUNT};
    int result = config_assign_defaults(SCOPE_STEP, service->preset, &step, reader->error);
    if (result == 0)
        result = reader_map(reader, map, SCOPE_STEP, "", &step);
    if (result == 0)
        result = check_step(reader, &step, map);
    if (result == 0)
        result = config_assign_step(key, service, &step, reader->error);
    config_step_done(&step);
    return result;
}

int reader_steps(struct reader *reader, const struct config_key *key, struct config_service *service,
    const yaml_node_t *list)
{
    if (list->type != YAML_SEQUENCE_NODE)
        return reader_wrong_kind(reader, list, "a list of steps");
    int result = reader_check_tag(reader, list);
    if (result == 0)
        result = reader_check_room(reader, key, list);
    if (result == 0)
        result = config_assign_empty(key, service, reader->error);
    for (size_t i = 0; result == 0 && i < reader_item_count(list); i++) {
        size_t length = reader_enter_item(reader, i);
        result = read_step(reader, key, service, reader_item(reader, list, i));
        reader_leave(reader, length);
    }
    return result;
}
