/* Sends each request to the backend with the fewest requests in flight. */
#include "trimtab.h"

int64_t trimtab_pick(const trimtab_request *request) {
  int64_t best = TRIMTAB_NO_OPINION;
  uint32_t fewest = UINT32_MAX;
  for (uint32_t i = 0; i < TRIMTAB_BACKENDS; i++) {
    if (!trimtab_ready(request, i)) continue;
    uint32_t active = trimtab_policy_pool_active(i);
    if (best < 0 || active < fewest) best = i, fewest = active;
  }
  return best;
}
