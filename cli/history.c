/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/client.h"
#include "cli/exchange.h"
#include "cli/history_lines.h"
#include "cli/options.h"
#include "cli/verb.h"
#include "master/config/value.h"
#include "master/history_path.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: gapless history [-n N] [-v | --json] [SERVICE] [--file PATH | --admin PATH | --name NAME]\n"
    "\n"
    "Shows what happened, newest last: upgrades, rollbacks, restarts, crashes, refusals,\n"
    "starts and stops.\n"
    "With SERVICE only what happened to that one. Reads the file itself, which a running\n"
    "master names; where none runs, the only one that is where histories are by name.\n"
    "\n"
    "  -n N, --count N  so many records (20)\n"
    "  -v, --verbose    of an upgrade also its phases and steps, and what it ran\n"
    "  --json           the lines of the file as they are\n"
    "  --file PATH      the history in that file\n"
    "  --admin PATH     the one of the master whose admin socket that is\n"
    "  --name NAME      the one of that name, also where no master runs\n"
    "  --help\n";

#define COUNT_DEFAULT 20
#define COUNT_MAX 1000000

struct request {
    struct client_target target;
    const char *file;
    const char *count;
    const char *service;
    bool json;
    bool verbose;
};

static int fail(const struct error *error, int code)
{
    fprintf(stderr, "gapless: %s\n", error->message);
    return code;
}

/* ── where it is ── */

/* Asks the master. 0; -ENODATA: it keeps none; else what talking to it gave. */
static int ask_master(const struct client_target *target, char ret_path[PATH_MAX], struct error *error)
{
    struct client *client = NULL;
    Gapless__Admin__Reply *reply = NULL;
    Gapless__Admin__StatusRequest status = GAPLESS__ADMIN__STATUS_REQUEST__INIT;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_STATUS;
    request.status = &status;
    int r = client_open(target, &client, error);
    if (r == 0)
        r = client_send(client, &request, error);
    if (r == 0)
        r = client_receive(client, EXCHANGE_TIMEOUT_MS, &reply, error);
    client_free(client);
    if (r < 0 || !reply)
        return r;
    const char *path = NULL;
    if (reply->body_case == GAPLESS__ADMIN__REPLY__BODY_STATUS && reply->status->master)
        path = reply->status->master->history;
    if (!path || snprintf(ret_path, PATH_MAX, "%s", path) >= PATH_MAX)
        r = error_set(error, ENODATA, BLAME_USER, "this master keeps no history");
    gapless__admin__reply__free_unpacked(reply, NULL);
    return r;
}

/* One history after the other, in a line each. */
static void list_name(char *list, size_t size, const char *file, size_t length)
{
    size_t used = strlen(list);
    snprintf(list + used, size - used, "\n  --name %.*s", (int)length, file);
}

/* The only one that is where histories are by name. */
static int find_only(const struct history_path_context *context, char ret_path[PATH_MAX], struct error *error)
{
    char directory[PATH_MAX], name[NAME_MAX + 1] = "", list[400] = "";
    size_t count = 0, length;
    int r = history_path_directory(context, directory, error);
    if (r < 0)
        return r;
    DIR *dir = opendir(directory);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!history_path_is_file_name(entry->d_name, &length))
            continue;
        snprintf(name, sizeof name, "%.*s", (int)length, entry->d_name);
        list_name(list, sizeof list, name, length);
        count++;
    }
    if (dir)
        closedir(dir);
    if (count == 1)
        return history_path_named(context, name, ret_path, error);
    if (!count)
        return error_set(error, ENOENT, BLAME_USER,
            "no master runs here, and there is no history in %.200s; --file PATH reads another", directory);
    return error_set(
        error, ENOTUNIQ, BLAME_USER, "there are %zu histories here; say which one:%s", count, list);
}

static int find_file(const struct request *request, char ret_path[PATH_MAX], struct error *error)
{
    struct history_path_context context;
    if (request->file)
        return snprintf(ret_path, PATH_MAX, "%s", request->file) < PATH_MAX
                   ? 0
                   : error_set(error, ENAMETOOLONG, BLAME_USER, "the path of the history is too long");
    int r = ask_master(&request->target, ret_path, error);
    if (r != -ENOENT || request->target.admin)
        return r;
    history_path_context_get(&context);
    return request->target.name ? history_path_named(&context, request->target.name, ret_path, error)
                                : find_only(&context, ret_path, error);
}

/* ── what is printed ── */

static bool print(const struct request *request, const struct history_lines *lines)
{
    if (lines->unreadable)
        fprintf(stderr, "gapless: %zu line%s of the history %s no records and left out\n", lines->unreadable,
            lines->unreadable == 1 ? "" : "s", lines->unreadable == 1 ? "is" : "are");
    if (!request->json)
        return history_lines_print(lines, request->verbose, stdout) && fflush(stdout) == 0;
    for (size_t i = 0; i < lines->count; i++)
        if (puts(lines->lines[i].text) == EOF)
            return false;
    return fflush(stdout) == 0;
}

static int run(const struct request *request, size_t most)
{
    char path[PATH_MAX];
    struct error error = {.code = 0};
    struct history_lines lines;
    int r = find_file(request, path, &error);
    if (r < 0)
        return fail(&error, r == -ENODATA ? VERB_FAILED : client_exit_code(r));
    r = history_lines_read(path, request->service, most, &lines, &error);
    if (r < 0)
        return fail(&error, VERB_FAILED);
    bool printed = print(request, &lines);
    history_lines_done(&lines);
    if (printed)
        return VERB_DONE;
    fputs("gapless: the history can't be printed\n", stderr);
    return VERB_FAILED;
}

int verb_history(int argc, char *const argv[])
{
    struct request request = {.json = false};
    const struct option_spec specs[] = {
        {.name = "count", .letter = 'n', .value = &request.count},
        {.name = "verbose", .letter = 'v', .flag = &request.verbose},
        {.name = "json", .flag = &request.json},
        {.name = "file", .value = &request.file},
        {.name = "admin", .value = &request.target.admin},
        {.name = "name", .value = &request.target.name},
    };
    const struct option_set set = {.verb = "history",
        .help = help,
        .specs = specs,
        .spec_count = sizeof specs / sizeof *specs,
        .operand_name = "SERVICE",
        .operand = &request.service};
    int code;
    if (!options_accept(&set, argc, argv, &code))
        return code;
    int64_t most = COUNT_DEFAULT;
    struct error error = {.code = 0};
    if (request.count && value_number(request.count, 1, COUNT_MAX, &most, &error) < 0) {
        fprintf(stderr, "gapless history: -n: %s\n", error.message);
        return VERB_USAGE;
    }
    return run(&request, (size_t)most);
}
