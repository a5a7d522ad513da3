/* The exports of a policy, in terms of trimtab.h. */
#include "trimtab.h"

exports_trimtab_policy_picker_snapshot_t backends;

__attribute__((weak)) const char *trimtab_configure(const char *json, size_t length) {
  (void)json, (void)length;
  return NULL;
}

__attribute__((weak)) void trimtab_update(void) {}

bool exports_trimtab_policy_picker_configure(policy_string_t *json, policy_string_t *refusal) {
  const char *why = trimtab_configure((const char *)json->ptr, json->len);
  policy_string_free(json);
  if (why == NULL) return true;
  policy_string_dup(refusal, why);
  return false;
}

void exports_trimtab_policy_picker_update(exports_trimtab_policy_picker_snapshot_t *snapshot) {
  exports_trimtab_policy_picker_snapshot_free(&backends);
  backends = *snapshot;
  trimtab_update();
}

bool exports_trimtab_policy_picker_pick(uint64_t key, uint64_t random, uint64_t client_hi, uint64_t client_lo,
                                        uint32_t attempt, uint64_t now_us, uint32_t *index) {
  trimtab_request request = {key, random, client_hi, client_lo, attempt, now_us, attempt > 0};
  for (uint32_t i = 0; i < TRIMTAB_BACKENDS && request.all_tried; i++)
    if (backends.usable.ptr[i] && !trimtab_policy_request_tried(i)) request.all_tried = false;
  int64_t answer = trimtab_pick(&request);
  if (answer < 0) return false;
  *index = (uint32_t)answer;
  return true;
}
