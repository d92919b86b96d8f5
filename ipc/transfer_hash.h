/* SPDX-License-Identifier: BSD-2-Clause */
/* XXH3 for transfers. Where the library can choose the widest vectors of the processor it runs on, it is
 * asked to: without, the hash is a quarter of what a transfer costs. The result is the same. */
#ifndef GAPLESS_IPC_TRANSFER_HASH_H
#define GAPLESS_IPC_TRANSFER_HASH_H

#include "gapless_config.h"

#include <xxhash.h>
#ifdef GAPLESS_XXH_DISPATCH
#include <xxh_x86dispatch.h> /* after xxhash.h, whose names it replaces */
#endif

#endif
