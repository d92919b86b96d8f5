/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The YAML form of the configuration, read by the table. Private to the configuration.
 *
 * It is strict: one document, UTF-8, at most YAML_TEXT_MAX bytes, no unknown or repeated key, no tag of the
 * operator's own. Anchors and aliases are read; what they expand to is bounded, and an alias inside its own
 * anchor is refused by the shape that the table demands.
 */
#ifndef GAPLESS_MASTER_CONFIG_YAML_H
#define GAPLESS_MASTER_CONFIG_YAML_H

#include "ipc/error.h"
#include "master/config.h"

/* Longest file, in bytes. */
#define YAML_TEXT_MAX (1u << 20)

/* Reads the file's text: NUL-terminated, the caller's. Errors (BLAME_USER, naming the file): what opening or
 * reading gave, EISDIR, EFBIG, EINVAL (not a regular file; a NUL byte in it). */
int config_yaml_file(const char *file, char **ret_text, struct error *error);

/* Reads `text` into `config`, whose services are empty; `file` is its name for messages. Keys of the instance
 * and all services with their defaults are set. Errors: EINVAL (BLAME_USER): "FILE:LINE:COLUMN: KEY: reason";
 * ENOMEM. `config` may then be half filled. */
int config_yaml_read(const char *file, const char *text, struct config *config, struct error *error);

#endif
