/* Sticky sessions: requests of one `x-session` keep to one backend, all others go to the least loaded for its weight.
 * The same in every folder beside this one; README.md there. */
#include "trimtab.h"

static uint32_t fnv1a(policy_string_t text) {
  uint32_t hash = 0x811c9dc5;
  for (size_t i = 0; i < text.len; i++) hash = (hash ^ text.ptr[i]) * 16777619u;
  return hash;
}

/* The n-th backend that is ready. */
static int64_t nth_ready(const trimtab_request *request, uint32_t n) {
  for (uint32_t i = 0; i < TRIMTAB_BACKENDS; i++)
    if (trimtab_ready(request, i) && n-- == 0) return i;
  return TRIMTAB_NO_OPINION;
}

static int64_t least_loaded(const trimtab_request *request) {
  policy_list_u32_t active;
  trimtab_policy_pool_active_all(&active);
  int64_t best = TRIMTAB_NO_OPINION;
  for (uint32_t i = 0; i < TRIMTAB_BACKENDS; i++) {
    if (!trimtab_ready(request, i)) continue;
    if (best < 0 || (uint64_t)active.ptr[i] * backends.weights.ptr[best] <
                        (uint64_t)active.ptr[best] * backends.weights.ptr[i])
      best = i;
  }
  policy_list_u32_free(&active);
  return best;
}

int64_t trimtab_pick(const trimtab_request *request) {
  policy_string_t session;
  if (!trimtab_header("x-session", &session)) return least_loaded(request);
  uint32_t hash = fnv1a(session), ready = 0;
  policy_string_free(&session);
  for (uint32_t i = 0; i < TRIMTAB_BACKENDS; i++) ready += trimtab_ready(request, i);
  return ready == 0 ? TRIMTAB_NO_OPINION : nth_ready(request, hash % ready);
}
