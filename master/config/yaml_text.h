/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a file to a YAML document: reading the text, and libyaml's parser with its errors in words. Private to
 * the configuration; config/yaml.h says what is accepted.
 */
#ifndef GAPLESS_MASTER_CONFIG_YAML_TEXT_H
#define GAPLESS_MASTER_CONFIG_YAML_TEXT_H

#include "ipc/error.h"

#include <yaml.h>

/* Loads the one document of `text`. On success the caller calls yaml_document_delete(); it may have no root
 * node. Errors: EINVAL (BLAME_USER) with file, line and column; ENOMEM. */
int config_yaml_load(const char *file, const char *text, yaml_document_t *ret_document, struct error *error);

#endif
