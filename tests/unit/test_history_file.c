/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/history_file.h"
#include "master/history_record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT 1000000

struct world {
    char directory[32];
    char path[64];
    char previous[64];
};

static struct error error;

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    strcpy(world->directory, "/tmp/gapless-history-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    snprintf(world->path, sizeof world->path, "%s/h.jsonl", world->directory);
    snprintf(world->previous, sizeof world->previous, "%s/h.jsonl.1", world->directory);
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    unlink(world->path);
    unlink(world->previous);
    rmdir(world->directory);
    free(world);
    return 0;
}

static char *line(uint64_t number)
{
    struct history_record record = {.event = HISTORY_START, .version = "0.1.0", .pid = 12, .who.uid = -1};
    char *body = history_record_body(&record);
    char *text = history_record_line(number, body);
    free(body);
    assert_non_null(text);
    return text;
}

static void put(struct history_file *file, uint64_t number)
{
    char *text = line(number);
    if (history_file_append(file, number, text, &error) < 0)
        fail_msg("%s", error.message);
    free(text);
}

static struct history_repair open_limited(const char *path, uint64_t limit, struct history_file *file)
{
    struct history_repair repair;
    if (history_file_open(path, limit, file, &repair, &error) < 0)
        fail_msg("%s", error.message);
    return repair;
}

/* The whole file; the caller's to free. */
static char *content(const char *path)
{
    FILE *in = fopen(path, "r");
    char *data = calloc(1, 1 << 20);
    assert_non_null(in);
    assert_non_null(data);
    data[fread(data, 1, (1 << 20) - 1, in)] = '\0';
    fclose(in);
    return data;
}

static void set_content(const char *path, const char *data, size_t size)
{
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, size, out), size);
    fclose(out);
}

/* The file has these numbers, one a line, and nothing else. */
static void assert_numbers(const char *path, uint64_t first, uint64_t last)
{
    char *data = content(path), *at = data;
    for (uint64_t number = first; number <= last; number++) {
        char *text = line(number);
        if (strncmp(at, text, strlen(text)) != 0)
            fail_msg("no %" PRIu64 " at: %.60s", number, at);
        at += strlen(text);
        free(text);
    }
    assert_string_equal(at, "");
    free(data);
}

static void lines_are_appended_and_numbers_go_on(void **state)
{
    struct world *world = *state;
    struct history_file file;
    open_limited(world->path, LIMIT, &file);
    assert_int_equal(file.last, 0);
    put(&file, 1);
    put(&file, 2);
    history_file_close(&file);
    open_limited(world->path, LIMIT, &file);
    assert_int_equal(file.last, 2);
    put(&file, 3);
    history_file_close(&file);
    assert_numbers(world->path, 1, 3);
}

static void number_that_is_there_is_not_doubled(void **state)
{
    struct world *world = *state;
    struct history_file file;
    open_limited(world->path, LIMIT, &file);
    put(&file, 1);
    put(&file, 2);
    put(&file, 1);
    put(&file, 2);
    history_file_close(&file);
    open_limited(world->path, LIMIT, &file);
    put(&file, 2);
    put(&file, 3);
    history_file_close(&file);
    assert_numbers(world->path, 1, 3);
}

static void directories_are_made(void **state)
{
    struct world *world = *state;
    struct history_file file;
    struct stat st;
    char path[PATH_MAX], directory[PATH_MAX];
    snprintf(path, sizeof path, "%s/a/b/h.jsonl", world->directory);
    open_limited(path, LIMIT, &file);
    history_file_close(&file);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    unlink(path);
    snprintf(directory, sizeof directory, "%s/a/b", world->directory);
    rmdir(directory);
    snprintf(directory, sizeof directory, "%s/a", world->directory);
    rmdir(directory);
}

static void torn_line_of_every_length_is_cut_off(void **state)
{
    struct world *world = *state;
    char *first = line(1), *second = line(2), both[1024];
    size_t whole = strlen(first), length = strlen(second);
    snprintf(both, sizeof both, "%s%s", first, second);
    for (size_t torn = 0; torn < length; torn++) {
        struct history_file file;
        set_content(world->path, both, whole + torn);
        struct history_repair repair = open_limited(world->path, LIMIT, &file);
        /* Without its newline alone it is whole. */
        bool completed = torn == length - 1;
        assert_int_equal(repair.cut, completed ? 0 : torn);
        assert_int_equal(repair.completed, completed);
        assert_int_equal(file.last, completed ? 2 : 1);
        put(&file, 2);
        put(&file, 3);
        history_file_close(&file);
        assert_numbers(world->path, 1, 3);
    }
    free(first);
    free(second);
}

static void first_line_that_is_torn_is_cut_off(void **state)
{
    struct world *world = *state;
    struct history_file file;
    set_content(world->path, "{\"v\":1,", 7);
    struct history_repair repair = open_limited(world->path, LIMIT, &file);
    assert_int_equal(repair.cut, 7);
    assert_int_equal(file.last, 0);
    put(&file, 1);
    history_file_close(&file);
    assert_numbers(world->path, 1, 1);
}

/* As a file system leaves it that had grown the file and not yet written. */
static void zeros_of_any_length_are_cut_off(void **state)
{
    struct world *world = *state;
    char *first = line(1);
    static const size_t sizes[] = {1, 4096, HISTORY_LINE_MAX, HISTORY_LINE_MAX + 1, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct history_file file;
        set_content(world->path, first, strlen(first));
        assert_int_equal(truncate(world->path, (off_t)(strlen(first) + sizes[i])), 0);
        struct history_repair repair = open_limited(world->path, LIMIT, &file);
        assert_int_equal(repair.cut, sizes[i]);
        put(&file, 2);
        history_file_close(&file);
        assert_numbers(world->path, 1, 2);
    }
    free(first);
}

static void garbage_is_left_and_the_number_found_behind_it(void **state)
{
    struct world *world = *state;
    char *first = line(41), *data = calloc(1, 400000);
    static const char *const kinds[] = {"\n", "{}\n", "garbage\n", "\n\n\n", "{\"v\":2,\"x\":1}\n"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (size_t times = 1; times < 40000; times *= 40) {
            struct history_file file;
            size_t used = (size_t)sprintf(data, "garbage\n%s", first);
            for (size_t n = 0; n < times && used < 390000; n++)
                used += (size_t)sprintf(data + used, "%s", kinds[i]);
            set_content(world->path, data, used);
            struct history_repair repair = open_limited(world->path, LIMIT, &file);
            assert_int_equal(repair.cut, 0);
            assert_int_equal(file.last, 41);
            put(&file, 42);
            history_file_close(&file);
            char *after = content(world->path), *last = line(42);
            assert_int_equal(strlen(after), used + strlen(last));
            assert_string_equal(after + used, last);
            free(after);
            free(last);
        }
    free(first);
    free(data);
}

static void line_of_a_later_version_has_a_number(void **state)
{
    struct world *world = *state;
    struct history_file file;
    static const char later[] = "{\"v\":9,\"n\":17,\"anything\":[]}\n";
    set_content(world->path, later, strlen(later));
    open_limited(world->path, LIMIT, &file);
    assert_int_equal(file.last, 17);
    history_file_close(&file);
}

static void file_becomes_the_previous_one_at_its_limit(void **state)
{
    struct world *world = *state;
    struct history_file file;
    char *text = line(1);
    uint64_t limit = 3 * strlen(text);
    free(text);
    open_limited(world->path, limit, &file);
    for (uint64_t number = 1; number <= 3; number++)
        put(&file, number);
    assert_int_equal(file.size, limit);
    assert_int_equal(access(world->previous, F_OK), -1);
    put(&file, 4);
    assert_numbers(world->previous, 1, 3);
    assert_numbers(world->path, 4, 4);
    for (uint64_t number = 5; number <= 8; number++)
        put(&file, number);
    history_file_close(&file);
    assert_numbers(world->previous, 4, 6);
    assert_numbers(world->path, 7, 8);
}

static void line_longer_than_the_limit_has_a_file_of_its_own(void **state)
{
    struct world *world = *state;
    struct history_file file;
    open_limited(world->path, 10, &file);
    put(&file, 1);
    put(&file, 2);
    history_file_close(&file);
    assert_numbers(world->previous, 1, 1);
    assert_numbers(world->path, 2, 2);
}

static void numbers_go_on_where_the_previous_file_ends(void **state)
{
    struct world *world = *state;
    struct history_file file;
    char *text = line(8);
    set_content(world->previous, text, strlen(text));
    open_limited(world->path, LIMIT, &file);
    assert_int_equal(file.last, 8);
    put(&file, 9);
    history_file_close(&file);
    assert_numbers(world->path, 9, 9);
    free(text);
}

static void second_process_is_refused_until_the_first_has_gone(void **state)
{
    struct world *world = *state;
    struct history_file first, second;
    struct history_repair repair;
    open_limited(world->path, LIMIT, &first);
    assert_int_equal(history_file_open(world->path, LIMIT, &second, &repair, &error), -EWOULDBLOCK);
    history_file_close(&first);
    open_limited(world->path, LIMIT, &second);
    history_file_close(&second);
}

static void file_that_was_moved_away_is_not_written_to(void **state)
{
    struct world *world = *state;
    struct history_file file;
    open_limited(world->path, LIMIT, &file);
    put(&file, 1);
    assert_int_equal(rename(world->path, world->previous), 0);
    char *text = line(2);
    assert_int_equal(history_file_append(&file, 2, text, &error), -ESTALE);
    free(text);
    history_file_close(&file);
    assert_numbers(world->previous, 1, 1);
}

static void what_is_no_file_is_refused(void **state)
{
    struct world *world = *state;
    struct history_file file;
    struct history_repair repair;
    assert_int_equal(mkfifo(world->path, 0600), 0);
    assert_int_equal(history_file_open(world->path, LIMIT, &file, &repair, &error), -EINVAL);
    assert_int_equal(history_file_open(world->directory, LIMIT, &file, &repair, &error), -EISDIR);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/x", world->path);
    assert_int_equal(history_file_open(path, LIMIT, &file, &repair, &error), -ENOTDIR);
    assert_non_null(strstr(error.message, world->path));
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(history_file_open(path, LIMIT, &file, &repair, &error), -ENAMETOOLONG);
}

/* A file that may not grow any more is a full disk: part of the line is written. */
static void line_that_does_not_fit_is_taken_back(void **state)
{
    struct world *world = *state;
    char *first = line(1), *second = line(2);
    for (size_t room = 0; room < strlen(second); room += 7) {
        unlink(world->path);
        pid_t pid = fork();
        if (pid == 0) {
            struct history_file file;
            struct history_repair repair;
            struct rlimit limit = {strlen(first) + room, strlen(first) + room};
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &limit);
            bool right = history_file_open(world->path, LIMIT, &file, &repair, &error) == 0 &&
                         history_file_append(&file, 1, first, &error) == 0 &&
                         history_file_append(&file, 2, second, &error) == -EFBIG && file.last == 1 &&
                         file.size == strlen(first) && strstr(error.message, world->path);
            _exit(right ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_numbers(world->path, 1, 1);
    }
    free(first);
    free(second);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(lines_are_appended_and_numbers_go_on),
        TEST(number_that_is_there_is_not_doubled),
        TEST(directories_are_made),
        TEST(torn_line_of_every_length_is_cut_off),
        TEST(first_line_that_is_torn_is_cut_off),
        TEST(zeros_of_any_length_are_cut_off),
        TEST(garbage_is_left_and_the_number_found_behind_it),
        TEST(line_of_a_later_version_has_a_number),
        TEST(file_becomes_the_previous_one_at_its_limit),
        TEST(line_longer_than_the_limit_has_a_file_of_its_own),
        TEST(numbers_go_on_where_the_previous_file_ends),
        TEST(second_process_is_refused_until_the_first_has_gone),
        TEST(file_that_was_moved_away_is_not_written_to),
        TEST(what_is_no_file_is_refused),
        TEST(line_that_does_not_fit_is_taken_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
