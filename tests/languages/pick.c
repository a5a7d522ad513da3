/* A policy whose every other pick fails: its words have to reach the balancer's log (cargo xtask languages). */
#include "trimtab.h"

static int asked;

int64_t trimtab_pick(const trimtab_request *request) {
  (void)request;
  if (asked++ % 2 == 1) trimtab_fail("boom: größe");
  return 0;
}
