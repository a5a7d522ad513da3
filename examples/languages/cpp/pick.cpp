// Sticky sessions in C++, on the C bindings. ../README.md says what it does.
#include <algorithm>
#include <string_view>
#include <vector>

#include "trimtab.h"

namespace {

uint32_t fnv1a(std::string_view text) {
  uint32_t hash = 0x811c9dc5;
  for (unsigned char byte : text) hash = (hash ^ byte) * 16777619u;
  return hash;
}

// Lists and strings that the host gives are freed by whoever asked.
struct Text {
  policy_string_t own;
  ~Text() { policy_string_free(&own); }
};
struct Column {
  policy_list_u32_t own;
  ~Column() { policy_list_u32_free(&own); }
};

std::vector<uint32_t> ready(const trimtab_request *request) {
  std::vector<uint32_t> found;
  for (uint32_t i = 0; i < TRIMTAB_BACKENDS; i++)
    if (trimtab_ready(request, i)) found.push_back(i);
  return found;
}

}  // namespace

extern "C" int64_t trimtab_pick(const trimtab_request *request) {
  std::vector<uint32_t> among = ready(request);
  if (among.empty()) return TRIMTAB_NO_OPINION;
  policy_string_t value;
  if (trimtab_header("x-session", &value)) {
    Text session{value};
    return among[fnv1a({reinterpret_cast<char *>(value.ptr), value.len}) % among.size()];
  }
  Column active{};
  trimtab_policy_pool_active_all(&active.own);
  const uint32_t *load = active.own.ptr, *weight = backends.weights.ptr;
  return *std::min_element(among.begin(), among.end(), [&](uint32_t a, uint32_t b) {
    return uint64_t{load[a]} * weight[b] < uint64_t{load[b]} * weight[a];
  });
}
