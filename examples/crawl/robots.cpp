#include "robots.hpp"

#include <algorithm>
#include <strings.h>

#include "url.hpp"

namespace crawl {
namespace {

std::string_view trim(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

// Whether the pattern matches a beginning of the text (all of it, if it ends in '$'). Going back only to the latest
// star is enough, and keeps a hostile file from costing exponential time.
bool matches(std::string_view pattern, std::string_view text) {
  const bool to_the_end = pattern.ends_with('$');
  if (to_the_end) pattern.remove_suffix(1);
  std::size_t p = 0, t = 0, star = pattern.npos, star_text = 0;
  for (;;) {
    if (p == pattern.size() && (!to_the_end || t == text.size())) return true;
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && t < text.size() && pattern[p] == text[t]) {
      ++p, ++t;
    } else if (star != pattern.npos && star_text < text.size()) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
}

}  // namespace

std::string_view product_token_of(std::string_view agent) {
  const auto is_token = [](char c) { return ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '-' || c == '_'; };
  return agent.substr(0, std::find_if_not(agent.begin(), agent.end(), is_token) - agent.begin());
}

robots robots::parse(std::string_view file, std::string_view product_token) {
  file = file.substr(0, size_limit);
  if (file.starts_with("\xEF\xBB\xBF")) file.remove_prefix(3);
  std::vector<rule> ours, everyones;
  bool named_us = false;           // some group did: then '*' groups do not count, even if ours is empty
  bool in_ours = false, in_everyones = false;
  bool reading_agents = false;     // user-agent lines that follow each other share one group
  while (!file.empty()) {
    const auto end = std::min(file.find_first_of("\r\n"), file.size());
    auto line = file.substr(0, end);
    file.remove_prefix(std::min(end + 1, file.size()));
    line = line.substr(0, line.find('#'));
    const auto colon = line.find(':');
    if (colon == line.npos) continue;
    const auto key = trim(line.substr(0, colon));
    const auto value = trim(line.substr(colon + 1));
    if (same_ignoring_case(key, "user-agent")) {
      if (!reading_agents) in_ours = in_everyones = false;
      reading_agents = true;
      if (value.starts_with('*')) {
        in_everyones = true;
      } else if (same_ignoring_case(product_token_of(value), product_token)) {
        in_ours = named_us = true;
      }
      continue;
    }
    const bool allow = same_ignoring_case(key, "allow");
    if (!allow && !same_ignoring_case(key, "disallow")) continue;  // Sitemap and others stand outside of groups
    reading_agents = false;
    if (value.empty()) continue;
    rule made{normalise_escapes(value, "!$&'()*+,;=:@/?"), allow};
    if (in_ours) ours.push_back(made);
    if (in_everyones) everyones.push_back(std::move(made));
  }
  robots out;
  out.rules_ = named_us ? std::move(ours) : std::move(everyones);
  return out;
}

bool robots::allows(std::string_view target) const {
  if (target == "/robots.txt") return true;
  const rule* best = nullptr;
  for (const rule& each : rules_) {
    if (best && (each.pattern.size() < best->pattern.size() ||
                 (each.pattern.size() == best->pattern.size() && !each.allow)))
      continue;
    if (matches(each.pattern, target)) best = &each;
  }
  return !best || best->allow;
}

}  // namespace crawl
