#pragma once
// A process that keeps dicts and lists for many others.
//
//   ringlet::ipc::manager manager;                          // starts it
//   auto seen = manager.dict<std::string, int>();
//   auto log = manager.list<std::string>();
//   ringlet::process p([seen, log] { seen.set("a", 1); log.append("set a"); });
//
// dict and list are proxies: small, copied at will, usable from any process and any number of fibers, also sent in messages; each
// call goes to the manager's process and parks the fiber until it has answered. A call is one step: no other comes between.
// What reads, computes and writes does so in update, which tries again until nobody has come between (`d[k] += 1` over
// Python's manager loses counts). Values are copies: to change a part of one, update it.
//
// Objects live as long as the manager, and that ends with its destructor or its process: then calls throw manager_gone. Keys and
// values are packed by msgpack-cxx (ipc/message.hpp); keys are the same if they are packed the same. Only processes
// of the same user get in. The model is Python's multiprocessing.Manager.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ringlet/ipc/manager_core.hpp>
#include <ringlet/ipc/message.hpp>

namespace ringlet::ipc {

template <class Key, class Value>
class dict : public detail::remote_object {
 public:
  dict() = default;
  using detail::remote_object::remote_object;

  std::optional<Value> get(const Key& key) const {
    const auto found = call(detail::verb::get, {pack(key)});
    return found ? std::optional<Value>(unpack<Value>(*found->at(0))) : std::nullopt;
  }
  // std::out_of_range if it is not there.
  Value at(const Key& key) const {
    auto found = get(key);
    if (!found) throw std::out_of_range("ringlet::ipc::dict: there is no such key");
    return std::move(*found);
  }
  bool contains(const Key& key) const { return call(detail::verb::get, {pack(key)}).has_value(); }
  void set(const Key& key, const Value& value) const { call(detail::verb::set, {pack(key), pack(value)}); }
  // Only if it is not there yet: whether it was set.
  bool set_new(const Key& key, const Value& value) const { return call(detail::verb::put_new, {pack(key), pack(value)}).has_value(); }
  // Whether it was there.
  bool erase(const Key& key) const { return call(detail::verb::erase, {pack(key)}).has_value(); }
  // f(Value&) on what is there, or on Value{}; what f leaves there is set, if nobody else has changed it meanwhile, else f is
  // called again on what is there now. Returns what was set.
  template <class F>
  Value update(const Key& key, F f) const {
    const std::string packed = pack(key);
    while (true) {
      const auto found = call(detail::verb::get, {packed});
      std::optional<std::string> before;
      if (found) before = found->at(0);
      Value value = before ? unpack<Value>(*before) : Value{};
      f(value);
      if (call(detail::verb::exchange, {packed, before, pack(value)})) return value;
    }
  }
  std::size_t size() const { return std::size_t(std::stoull(*call(detail::verb::size)->at(0))); }
  void clear() const { call(detail::verb::clear); }
  // All of it, as it is at one moment; in no order that means something.
  std::vector<std::pair<Key, Value>> items() const {
    std::vector<std::pair<Key, Value>> all;
    const auto got = call(detail::verb::all);
    for (std::size_t i = 0; i + 1 < got->size(); i += 2) all.emplace_back(unpack<Key>(*(*got)[i]), unpack<Value>(*(*got)[i + 1]));
    return all;
  }
  MSGPACK_DEFINE(address_, id_)
};

template <class Value>
class list : public detail::remote_object {
 public:
  list() = default;
  using detail::remote_object::remote_object;

  void append(const Value& value) const { call(detail::verb::append, {pack(value)}); }
  // std::out_of_range if it is not as long; so do the others.
  Value at(std::size_t index) const { return unpack<Value>(*must(call(detail::verb::at, {std::to_string(index)}))[0]); }
  void set(std::size_t index, const Value& value) const { must(call(detail::verb::replace, {std::to_string(index), pack(value)})); }
  void insert(std::size_t index, const Value& value) const { must(call(detail::verb::insert, {std::to_string(index), pack(value)})); }
  Value remove(std::size_t index) const { return unpack<Value>(*must(call(detail::verb::remove, {std::to_string(index)}))[0]); }
  // As dict's.
  template <class F>
  Value update(std::size_t index, F f) const {
    while (true) {
      const std::string before = *must(call(detail::verb::at, {std::to_string(index)}))[0];
      Value value = unpack<Value>(before);
      f(value);
      if (call(detail::verb::swap, {std::to_string(index), before, pack(value)})) return value;
    }
  }
  std::size_t size() const { return std::size_t(std::stoull(*call(detail::verb::size)->at(0))); }
  void clear() const { call(detail::verb::clear); }
  std::vector<Value> items() const {
    std::vector<Value> all;
    const auto got = call(detail::verb::all);
    for (const auto& each : *got) all.push_back(unpack<Value>(*each));
    return all;
  }
  MSGPACK_DEFINE(address_, id_)

 private:
  static detail::fields must(std::optional<detail::fields>&& answer) {
    if (!answer) throw std::out_of_range("ringlet::ipc::list: there is no element of that index");
    return std::move(*answer);
  }
};

class manager {
 public:
  template <class Key, class Value>
  ipc::dict<Key, Value> dict() const {
    return {core_.address(), core_.make(detail::verb::make_dict)};
  }
  template <class Value>
  ipc::list<Value> list() const {
    return {core_.address(), core_.make(detail::verb::make_list)};
  }
  int pid() const noexcept { return core_.pid(); }

 private:
  detail::manager_core core_;
};

}  // namespace ringlet::ipc
