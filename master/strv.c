/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/strv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *strv_take(struct strv *strv, char *text)
{
    char **items = text ? realloc(strv->items, (strv->count + 2) * sizeof *items) : NULL;
    if (!items) {
        free(text);
        strv->failed = true;
        return NULL;
    }
    items[strv->count++] = text;
    items[strv->count] = NULL;
    strv->items = items;
    return text;
}

char *strv_add(struct strv *strv, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    char *text;
    if (vasprintf(&text, format, ap) < 0)
        text = NULL;
    va_end(ap);
    return strv_take(strv, text);
}

void strv_unset(struct strv *strv, const char *name)
{
    size_t length = strlen(name), kept = 0;
    for (size_t i = 0; i < strv->count; i++) {
        if (strncmp(strv->items[i], name, length) == 0 && strv->items[i][length] == '=')
            free(strv->items[i]);
        else
            strv->items[kept++] = strv->items[i];
    }
    strv->count = kept;
    if (strv->items)
        strv->items[kept] = NULL;
}

char *strv_set(struct strv *strv, const char *name, const char *value)
{
    strv_unset(strv, name);
    return strv_add(strv, "%s=%s", name, value);
}

bool strv_failed(const struct strv *strv)
{
    return strv->failed;
}

void strv_done(struct strv *strv)
{
    for (size_t i = 0; i < strv->count; i++)
        free(strv->items[i]);
    free(strv->items);
    *strv = (struct strv){.items = NULL};
}
