/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The options of a listener specification, `,name=value…`: which there are, which kind of address each fits,
 * what it sets. A pure parser, used by listener_spec.c alone.
 */
#ifndef GAPLESS_MASTER_CONFIG_LISTENER_OPTION_H
#define GAPLESS_MASTER_CONFIG_LISTENER_OPTION_H

#include "ipc/error.h"
#include "master/listener_spec.h"

/* Takes one `name` or `name=value` into *spec, whose family and type are set; `text` is changed. *seen (0
 * before the first) has a bit for each option that was there. EINVAL (BLAME_USER) with the option's name;
 * ENOMEM. */
int listener_option_parse(struct listener_spec *spec, char *text, unsigned *seen, struct error *error);

/* The rules between an option and the address, or between two options. EINVAL (BLAME_USER). */
int listener_option_check(const struct listener_spec *spec, struct error *error);

#endif
