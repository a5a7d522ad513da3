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
struct Text : policy_string_t {
  ~Text() { policy_string_free(this); }
};
struct Column : policy_list_u32_t {
  ~Column() { policy_list_u32_free(this); }
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
  Text session{};
  if (trimtab_header("x-session", &session))
    return among[fnv1a({reinterpret_cast<char *>(session.ptr), session.len}) % among.size()];
  Column active{};
  trimtab_policy_pool_active_all(&active);
  return *std::min_element(among.begin(), among.end(), [&](uint32_t a, uint32_t b) {
    return uint64_t{active.ptr[a]} * backends.weights.ptr[b] < uint64_t{active.ptr[b]} * backends.weights.ptr[a];
  });
}
