/* What a policy in C writes and what it may call.
 *
 * You write `trimtab_pick`, and if you want `trimtab_configure` and `trimtab_update`. trimtab.c calls them, keeps the
 * backends of the last update, and frees what the host gave. Everything in policy.h may be called as well; what it gives
 * you is yours to free. */
#ifndef TRIMTAB_H
#define TRIMTAB_H

#include "policy.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The backends of the last update, as parallel lists: `backends.weights.ptr[i]`. They stay trimtab.c's; never free them. */
extern exports_trimtab_policy_picker_snapshot_t backends;
#define TRIMTAB_BACKENDS ((uint32_t)backends.ids.len)

/* What a pick knows of its request. wit/picker.wit says more. */
typedef struct {
  uint64_t key, random, client_hi, client_lo;
  uint32_t attempt;
  uint64_t now_us;
  bool all_tried; /* by earlier attempts: then all usable backends are ready again */
} trimtab_request;

/* Answers `trimtab_pick`: the host is to choose. */
#define TRIMTAB_NO_OPINION (-1)

/* Yours. The index of a backend, or TRIMTAB_NO_OPINION. */
int64_t trimtab_pick(const trimtab_request *request);

/* Yours, if you want it: reads the settings, a JSON object. NULL if they are fine, else why not (a constant). */
const char *trimtab_configure(const char *json, size_t length);

/* Yours, if you want it: `backends` is new. The place for what takes long. */
void trimtab_update(void);

/* Whether backend i should be chosen from: usable, and not tried before unless all were. Asks the host only on a retry. */
static inline bool trimtab_ready(const trimtab_request *request, uint32_t i) {
  if (!backends.usable.ptr[i]) return false;
  return request->attempt == 0 || request->all_tried || !trimtab_policy_request_tried(i);
}

/* A constant as the host's functions want it. Nothing is copied, and nothing is to be freed. */
static inline policy_string_t trimtab_text(const char *text) {
  policy_string_t string;
  policy_string_set(&string, text);
  return string;
}

/* The first header field of this name. If true, `policy_string_free(value)` when done; if false, the value is empty. */
static inline bool trimtab_header(const char *name, policy_string_t *value) {
  policy_string_t string = trimtab_text(name);
  if (trimtab_policy_request_header(&string, value)) return true;
  value->ptr = NULL;
  value->len = 0;
  return false;
}

/* A line in the balancer's log. Levels: 0 error, 1 warn, 2 info, 3 debug. */
static inline void trimtab_log(uint8_t level, const char *message) {
  policy_string_t string = trimtab_text(message);
  trimtab_policy_diagnostics_log(level, &string);
}

/* Ends the call with a fault whose message is in the balancer's log. The instance is thrown away; the host chooses. */
__attribute__((noreturn)) static inline void trimtab_fail(const char *message) {
  trimtab_log(0, message);
  __builtin_trap();
}

#ifdef __cplusplus
}
#endif
#endif
