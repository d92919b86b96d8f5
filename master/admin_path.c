/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/admin_path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void admin_path_context_get(struct admin_path_context *ret_context)
{
    *ret_context = (struct admin_path_context){
        .uid = geteuid(),
        .runtime_dir = getenv("XDG_RUNTIME_DIR"),
        .admin = getenv("GAPLESS_ADMIN"),
    };
}

/* Hands over what snprintf() has written, if that was all of it. */
static int give(const char *path, int length, char ret_path[ADMIN_PATH_MAX], struct error *error)
{
    if (length < 0 || length >= ADMIN_PATH_MAX)
        return error_set(error, ENAMETOOLONG, BLAME_USER,
            "the path of the admin socket, %s…, is longer than %d bytes; name a shorter one with --admin",
            path, ADMIN_PATH_MAX - 1);
    memcpy(ret_path, path, (size_t)length + 1);
    return 0;
}

static bool is_set(const char *value)
{
    return value && *value;
}

int admin_path_directory(
    const struct admin_path_context *context, char ret_path[ADMIN_PATH_MAX], struct error *error)
{
    char path[ADMIN_PATH_MAX];
    int length;
    if (context->uid == 0)
        length = snprintf(path, sizeof path, "/run/gapless");
    /* The specification of XDG_RUNTIME_DIR says that a relative path is invalid and is to be ignored. */
    else if (context->runtime_dir && context->runtime_dir[0] == '/')
        length = snprintf(path, sizeof path, "%s/gapless", context->runtime_dir);
    else
        length = snprintf(path, sizeof path, "/tmp/gapless-%u", (unsigned)context->uid);
    return give(path, length, ret_path, error);
}

static int check_name(const char *name, struct error *error)
{
    if (!*name)
        return error_set(error, EINVAL, BLAME_USER, "the name of an instance must not be empty");
    if (*name == '.')
        return error_set(
            error, EINVAL, BLAME_USER, "the name of an instance must not begin with a dot: %s", name);
    for (const char *p = name; *p; p++)
        if (*p == '/' || (unsigned char)*p < 0x20 || *p == 0x7f)
            return error_set(error, EINVAL, BLAME_USER,
                "the name of an instance must not hold a %s; a path is for --admin",
                *p == '/' ? "slash" : "control character");
    return 0;
}

int admin_path_named(const struct admin_path_context *context, const char *name,
    char ret_path[ADMIN_PATH_MAX], struct error *error)
{
    char directory[ADMIN_PATH_MAX];
    int r = check_name(name, error);
    if (r < 0)
        return r;
    r = admin_path_directory(context, directory, error);
    if (r < 0)
        return r;
    char path[ADMIN_PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s" ADMIN_PATH_SUFFIX, directory, name);
    return give(path, length, ret_path, error);
}

static int explicit_path(const char *path, char ret_path[ADMIN_PATH_MAX], struct error *error)
{
    if (!*path)
        return error_set(error, EINVAL, BLAME_USER, "the path of the admin socket must not be empty");
    char copy[ADMIN_PATH_MAX];
    int length = snprintf(copy, sizeof copy, "%s", path);
    return give(copy, length, ret_path, error);
}

int admin_path_for_master(const struct admin_path_context *context, const char *path, const char *name,
    char ret_path[ADMIN_PATH_MAX], bool *ret_asked, struct error *error)
{
    bool asked = path || is_set(context->admin);
    int r = path    ? explicit_path(path, ret_path, error)
            : asked ? explicit_path(context->admin, ret_path, error)
                    : admin_path_named(context, name, ret_path, error);
    if (r < 0)
        return r;
    *ret_asked = asked;
    return 0;
}

int admin_path_for_verb(const struct admin_path_context *context, const char *admin, const char *name,
    char ret_path[ADMIN_PATH_MAX], struct error *error)
{
    bool found = true;
    int r;
    if (admin)
        r = explicit_path(admin, ret_path, error);
    else if (name)
        r = admin_path_named(context, name, ret_path, error);
    else if (is_set(context->admin))
        r = explicit_path(context->admin, ret_path, error);
    else {
        found = false;
        r = admin_path_directory(context, ret_path, error);
    }
    return r < 0 ? r : found;
}

bool admin_path_is_socket_name(const char *file_name, size_t *ret_length)
{
    static const char suffix[] = ADMIN_PATH_SUFFIX;
    size_t length = strlen(file_name);
    if (file_name[0] == '.' || length < sizeof suffix ||
        strcmp(file_name + length - (sizeof suffix - 1), suffix) != 0)
        return false;
    *ret_length = length - (sizeof suffix - 1);
    return true;
}
