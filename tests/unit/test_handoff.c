/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/handoff.h"

#include "ipc/fd.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Hands over `total` with a peer that acknowledges all; the number of batches. */
static unsigned hand_over(unsigned total)
{
    struct handoff h;
    handoff_init(&h, total);
    unsigned expected_first = 0, batches = 0, first, count;
    while (handoff_next(&h, &first, &count)) {
        assert_int_equal(first, expected_first);
        assert_true(count <= FD_LIST_MAX);
        assert_int_equal(h.batch, ++batches);
        assert_false(handoff_done(&h));
        unsigned f, c;
        assert_false(handoff_next(&h, &f, &c));
        assert_int_equal(handoff_acknowledge(&h, h.batch, count, NULL), 0);
        expected_first += count;
    }
    assert_true(handoff_done(&h));
    assert_int_equal(expected_first, total);
    return batches;
}

static void batches_are_full_but_for_the_last(void **state)
{
    assert_int_equal(hand_over(1), 1);
    assert_int_equal(hand_over(FD_LIST_MAX), 1);
    assert_int_equal(hand_over(FD_LIST_MAX + 1), 2);
    assert_int_equal(hand_over(1000), (1000 + FD_LIST_MAX - 1) / FD_LIST_MAX);
}

static void nothing_to_hand_over_is_one_empty_batch(void **state)
{
    struct handoff h;
    handoff_init(&h, 0);
    assert_false(handoff_done(&h));
    assert_int_equal(hand_over(0), 1);
}

static void acknowledging_what_is_not_under_way_is_the_peers_mistake(void **state)
{
    struct handoff h;
    struct error e;
    unsigned first, count;
    handoff_init(&h, 3);
    assert_int_equal(handoff_acknowledge(&h, 0, 0, &e), -EPROTO);
    assert_int_equal(handoff_acknowledge(&h, 1, 3, &e), -EPROTO);
    assert_true(handoff_next(&h, &first, &count));
    assert_int_equal(handoff_acknowledge(&h, 2, 3, &e), -EPROTO);
    assert_int_equal(handoff_acknowledge(&h, 1, 4, &e), -EPROTO);
    assert_int_equal(e.blame, BLAME_PEER);
    assert_int_equal(handoff_acknowledge(&h, 1, 3, &e), 0);
    assert_int_equal(handoff_acknowledge(&h, 1, 3, &e), -EPROTO);
}

static void fewer_than_sent_means_out_of_descriptors(void **state)
{
    struct handoff h;
    struct error e;
    unsigned first, count;
    handoff_init(&h, 70);
    assert_true(handoff_next(&h, &first, &count));
    assert_int_equal(handoff_acknowledge(&h, 1, 63, &e), -EMFILE);
    assert_false(handoff_done(&h));
    assert_false(handoff_next(&h, &first, &count));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_full_but_for_the_last),
        cmocka_unit_test(nothing_to_hand_over_is_one_empty_batch),
        cmocka_unit_test(acknowledging_what_is_not_under_way_is_the_peers_mistake),
        cmocka_unit_test(fewer_than_sent_means_out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
