/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history_path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void history_path_context_get(struct history_path_context *ret_context)
{
    *ret_context = (struct history_path_context){
        .uid = geteuid(), .state_home = getenv("XDG_STATE_HOME"), .home = getenv("HOME")};
}

/* The specification of XDG_STATE_HOME says that a relative path is invalid and is to be ignored. */
static bool is_usable(const char *directory)
{
    return directory && directory[0] == '/';
}

int history_path_directory(
    const struct history_path_context *context, char ret_path[PATH_MAX], struct error *error)
{
    int length;
    if (context->uid == 0)
        length = snprintf(ret_path, PATH_MAX, "/var/lib/gapless");
    else if (is_usable(context->state_home))
        length = snprintf(ret_path, PATH_MAX, "%s/gapless", context->state_home);
    else if (is_usable(context->home))
        length = snprintf(ret_path, PATH_MAX, "%s/.local/state/gapless", context->home);
    else
        return error_set(error, ENOENT, BLAME_USER, "neither XDG_STATE_HOME nor HOME names a directory");
    return length < PATH_MAX
               ? 0
               : error_set(error, ENAMETOOLONG, BLAME_USER, "the path of the history is too long");
}

int history_path_named(const struct history_path_context *context, const char *name, char ret_path[PATH_MAX],
    struct error *error)
{
    char directory[PATH_MAX];
    if (!*name || *name == '.' || strchr(name, '/'))
        return error_set(error, EINVAL, BLAME_USER, "%.100s can't be the name of an instance", name);
    int r = history_path_directory(context, directory, error);
    if (r < 0)
        return r;
    return snprintf(ret_path, PATH_MAX, "%s/%s" HISTORY_SUFFIX, directory, name) < PATH_MAX
               ? 0
               : error_set(error, ENAMETOOLONG, BLAME_USER, "the path of the history is too long");
}

bool history_path_is_file_name(const char *file_name, size_t *ret_length)
{
    size_t length = strlen(file_name), suffix = strlen(HISTORY_SUFFIX);
    if (file_name[0] == '.' || length <= suffix || strcmp(file_name + length - suffix, HISTORY_SUFFIX) != 0)
        return false;
    *ret_length = length - suffix;
    return true;
}
